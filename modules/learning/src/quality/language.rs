//! The language of the prose of a question and its answer.

use whatlang::Lang;

use super::{
    config::Config,
    filter::{Candidate, Filter, Reason, Work, each},
    text,
};

/// Fewest letters of which a language can be told.
const FEWEST: usize = 60;

/// Filter for examples in languages that are wanted; without any all are. Code has none.
pub(super) struct Language {
    wanted: Vec<Lang>,
}

impl Language {
    pub(super) fn new(config: &Config) -> Self {
        Self { wanted: config.languages.iter().filter_map(|it| known(it)).collect() }
    }

    fn judge_text(&self, text: &str) -> Option<Reason> {
        if self.wanted.is_empty() {
            return None;
        }
        let prose = text::prose(text);
        let letters = prose.chars().filter(|c| c.is_alphabetic()).count();
        if letters < FEWEST || is_code(&prose) {
            return None;
        }
        let found = whatlang::detect(&prose).filter(whatlang::Info::is_reliable)?;
        (!self.wanted.contains(&found.lang())).then_some("language")
    }
}

impl Filter for Language {
    fn name(&self) -> &'static str {
        "language"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |example| self.judge_text(&text::document(example)))
    }
}

/// Returns whether a text without fences is code all the same: by its share of marks.
fn is_code(text: &str) -> bool {
    let is_mark = |c: &char| "{}[]()<>=;:_/\\|&*#\"$@".contains(*c);
    let (marks, all) = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .fold((0, 0), |(marks, all), c| (marks + usize::from(is_mark(&c)), all + 1));
    marks * 10 > all
}

/// Codes of two letters (ISO 639-1) of the languages that can be told.
const CODES: [(&str, Lang); 40] = [
    ("ar", Lang::Ara),
    ("bg", Lang::Bul),
    ("bn", Lang::Ben),
    ("ca", Lang::Cat),
    ("cs", Lang::Ces),
    ("da", Lang::Dan),
    ("de", Lang::Deu),
    ("el", Lang::Ell),
    ("en", Lang::Eng),
    ("es", Lang::Spa),
    ("et", Lang::Est),
    ("fa", Lang::Pes),
    ("fi", Lang::Fin),
    ("fr", Lang::Fra),
    ("he", Lang::Heb),
    ("hi", Lang::Hin),
    ("hr", Lang::Hrv),
    ("hu", Lang::Hun),
    ("id", Lang::Ind),
    ("it", Lang::Ita),
    ("ja", Lang::Jpn),
    ("ko", Lang::Kor),
    ("lt", Lang::Lit),
    ("lv", Lang::Lav),
    ("nl", Lang::Nld),
    ("no", Lang::Nob),
    ("pl", Lang::Pol),
    ("pt", Lang::Por),
    ("ro", Lang::Ron),
    ("ru", Lang::Rus),
    ("sk", Lang::Slk),
    ("sl", Lang::Slv),
    ("sr", Lang::Srp),
    ("sv", Lang::Swe),
    ("ta", Lang::Tam),
    ("th", Lang::Tha),
    ("tr", Lang::Tur),
    ("uk", Lang::Ukr),
    ("vi", Lang::Vie),
    ("zh", Lang::Cmn),
];

/// Returns the language of a code of two letters, or of three.
pub(super) fn known(code: &str) -> Option<Lang> {
    let code = code.trim().to_ascii_lowercase();
    let short = CODES.iter().find(|(short, _)| *short == code);
    short.map(|(_, language)| *language).or_else(|| Lang::from_code(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGLISH: &str = "How do I take the lid off this old jar without breaking the glass? \
        Warm the lid under the tap for a minute, then turn it slowly with a dry cloth.";
    const GERMAN: &str = "Wie bekomme ich den Deckel von diesem alten Glas, ohne dass es bricht? \
        Halte ihn eine Minute unter warmes Wasser und drehe ihn dann langsam mit einem Tuch.";
    const FRENCH: &str = "Comment ouvrir ce vieux bocal sans casser le verre, qui est fragile ? \
        Passez le couvercle sous l'eau chaude, puis tournez-le doucement avec un torchon sec.";

    fn language(wanted: &[&str]) -> Language {
        let languages = wanted.iter().map(|it| (*it).to_owned()).collect();
        Language::new(&Config { languages, ..Config::default() })
    }

    #[test]
    fn languages_that_are_not_wanted_are_dropped() {
        let check = |wanted: &[&str], text: &str, expected: Option<&str>| {
            assert_eq!(language(wanted).judge_text(text), expected, "{wanted:?}: {text}");
        };
        for text in [ENGLISH, GERMAN, FRENCH] {
            check(&[], text, None);
        }
        check(&["en", "de"], ENGLISH, None);
        check(&["en", "de"], GERMAN, None);
        check(&["en", "de"], FRENCH, Some("language"));
        check(&["EN"], GERMAN, Some("language"));
        check(&["deu"], GERMAN, None);
        // Too short to tell, and code in a block beside a word in another language.
        check(&["en"], "Danke, das war es schon.", None);
        let code = "Voici :\n```rust\nlet name = input.split(',').map(str::trim).collect();\n```";
        check(&["en"], code, None);
        let bare = "fn main() { let a = [1, 2, 3]; for it in a.iter() { println!(\"{it}\"); } }\n\
            struct Nom { prenom: String, adresse: Option<String>, numero: u32 }";
        check(&["de"], bare, None);
    }

    #[test]
    fn codes_have_two_letters_or_three() {
        assert_eq!(known("de"), Some(Lang::Deu));
        assert_eq!(known(" ENG "), Some(Lang::Eng));
        assert_eq!(known("klingon"), None);
        let mut codes: Vec<&str> = CODES.iter().map(|(code, _)| *code).collect();
        codes.dedup();
        assert!(codes.is_sorted() && codes.len() == CODES.len());
    }
}
