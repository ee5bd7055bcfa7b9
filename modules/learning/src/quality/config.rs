//! Thresholds of the filters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{judge::JudgeConfig, language::known};

/// Thresholds of the filters that an example passes before it is learnt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The least feedback of an answer, from 0 (bad) to 1 (good).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_feedback: f64,
    /// `true` when answers without any feedback are left out.
    pub require_feedback: bool,
    /// Reasons for the end of an answer that are good ones. An answer without a reason passes.
    pub finish_reasons: Vec<String>,
    /// Phrases that open a refusal, besides the usual ones.
    pub refusals: Vec<String>,
    /// `true` when answers after which the person asked again are kept.
    pub keep_retried: bool,
    /// `true` when answers that the person changed are kept.
    pub keep_edited: bool,
    /// The least length of a question with its answer, in characters.
    pub min_chars: usize,
    /// The greatest length of a question with its answer, in characters.
    #[schemars(range(min = 1))]
    pub max_chars: usize,
    /// The least number of words of a question with its answer.
    pub min_words: usize,
    /// Repetition within the prose of an answer. Code blocks are exempt.
    pub repetition: Repetition,
    /// The similarity from which on two examples are near-duplicates: the share of phrases of five
    /// words that both have.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub similarity: f64,
    /// The greatest number of examples with much the same question.
    #[schemars(range(min = 1))]
    pub per_prompt: usize,
    /// Languages that are kept, by their codes of two letters; without any all are.
    pub languages: Vec<String>,
    /// The model that rates answers. Default: none.
    pub judge: Option<JudgeConfig>,
    /// Names of people and accounts that are replaced wherever they stand.
    pub user_names: Vec<String>,
    /// Names of machines that are replaced wherever they stand.
    pub host_names: Vec<String>,
}

/// Greatest shares of a text that may be repetition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Repetition {
    /// The number of words from which on phrases are counted: a short text repeats some by chance.
    pub from_words: usize,
    /// Lines that stood before, of all lines.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lines: f64,
    /// Paragraphs that stood before, of all paragraphs.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub paragraphs: f64,
    /// Characters in lines that stood before.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub line_chars: f64,
    /// Characters in paragraphs that stood before.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub paragraph_chars: f64,
    /// Characters in the commonest phrase of two, three and four words.
    pub common_phrases: [f64; 3],
    /// Characters in phrases of five to ten words that stood before.
    pub repeated_phrases: [f64; 6],
    /// Phrases of ten words that occur more than once, of all such phrases.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub words: f64,
    /// Runs of ten characters among the commonest ones, of all such runs.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub characters: f64,
}

impl Default for Config {
    fn default() -> Self {
        let finish_reasons = [
            "stop",
            "end_turn",
            "stop_sequence",
            "completed",
            "tool_calls",
            "tool_use",
            "function_call",
        ];
        Self {
            min_feedback: 0.5,
            require_feedback: false,
            finish_reasons: finish_reasons.map(str::to_owned).to_vec(),
            refusals: Vec::new(),
            keep_retried: false,
            keep_edited: false,
            min_chars: 20,
            max_chars: 32_000,
            min_words: 10,
            repetition: Repetition::default(),
            similarity: 0.72,
            per_prompt: 5,
            languages: Vec::new(),
            judge: None,
            user_names: Vec::new(),
            host_names: Vec::new(),
        }
    }
}

impl Default for Repetition {
    fn default() -> Self {
        Self {
            from_words: 50,
            lines: 0.3,
            paragraphs: 0.3,
            line_chars: 0.2,
            paragraph_chars: 0.2,
            common_phrases: [0.20, 0.18, 0.16],
            repeated_phrases: [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
            words: 0.5,
            characters: 0.5,
        }
    }
}

/// A setting that cannot hold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A share that is none.
    #[error("{key} is {value}; it is a share, from 0 to 1")]
    Share {
        /// Name of the setting.
        key: &'static str,
        /// Its value.
        value: f64,
    },
    /// A least length above the greatest.
    #[error("min_chars is {min} and max_chars {max}; nothing is between them")]
    Length {
        /// The least length.
        min: usize,
        /// The greatest length.
        max: usize,
    },
    /// A number that must not be 0.
    #[error("{key} is 0; nothing would be kept")]
    Zero {
        /// Name of the setting.
        key: &'static str,
    },
    /// A language that cannot be told.
    #[error("languages has {code:?}; write codes of two letters, such as en and de")]
    Language {
        /// The code.
        code: String,
    },
    /// A judge that cannot be asked.
    #[error("judge {fault}")]
    Judge {
        /// Its fault.
        fault: &'static str,
    },
    /// A word that is too short to be looked for.
    #[error("{key} has {word:?}; write at least {least} characters")]
    Short {
        /// Name of the setting.
        key: &'static str,
        /// The word.
        word: String,
        /// Least number of characters.
        least: usize,
    },
}

/// Least length of a name that is looked for everywhere: shorter ones are parts of words.
const LEAST_NAME: usize = 3;

impl Config {
    /// Checks that each setting can hold beside the others.
    ///
    /// # Errors
    ///
    /// When one cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        let repetition = &self.repetition;
        let single = [
            ("min_feedback", self.min_feedback),
            ("similarity", self.similarity),
            ("repetition.lines", repetition.lines),
            ("repetition.paragraphs", repetition.paragraphs),
            ("repetition.line_chars", repetition.line_chars),
            ("repetition.paragraph_chars", repetition.paragraph_chars),
            ("repetition.words", repetition.words),
            ("repetition.characters", repetition.characters),
        ];
        let common = repetition.common_phrases.map(|value| ("repetition.common_phrases", value));
        let repeated =
            repetition.repeated_phrases.map(|value| ("repetition.repeated_phrases", value));
        for (key, value) in single.into_iter().chain(common).chain(repeated) {
            if !(0.0..=1.0).contains(&value) {
                return Err(ConfigError::Share { key, value });
            }
        }
        if self.min_chars > self.max_chars {
            return Err(ConfigError::Length { min: self.min_chars, max: self.max_chars });
        }
        for (key, value) in [("max_chars", self.max_chars), ("per_prompt", self.per_prompt)] {
            if value == 0 {
                return Err(ConfigError::Zero { key });
            }
        }
        if let Some(code) = self.languages.iter().find(|code| known(code).is_none()) {
            return Err(ConfigError::Language { code: code.chars().take(20).collect() });
        }
        if let Some(judge) = &self.judge {
            judge.check()?;
        }
        let names = [("user_names", &self.user_names), ("host_names", &self.host_names)];
        for (key, words) in names.into_iter().chain([("refusals", &self.refusals)]) {
            let short = words.iter().find(|word| word.trim().chars().count() < LEAST_NAME);
            if let Some(word) = short {
                return Err(ConfigError::Short { key, word: word.clone(), least: LEAST_NAME });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_come_back_from_json() {
        let config = Config::default();
        assert_eq!(config.check(), Ok(()));
        let json = serde_json::to_string(&config).expect("it is JSON");
        assert_eq!(serde_json::from_str::<Config>(&json).expect("it is the same type"), config);
        assert_eq!(serde_json::from_str::<Config>("{}").expect("all have defaults"), config);
        assert!(serde_json::from_str::<Config>(r#"{"min_feedbak":1}"#).is_err());
    }

    #[test]
    fn what_cannot_hold_is_refused_by_name() {
        let check = |change: fn(&mut Config), expected: &str| {
            let mut config = Config::default();
            change(&mut config);
            let error = config.check().expect_err("it cannot hold").to_string();
            assert_eq!(error, expected);
        };
        check(|it| it.min_feedback = 1.5, "min_feedback is 1.5; it is a share, from 0 to 1");
        check(|it| it.similarity = f64::NAN, "similarity is NaN; it is a share, from 0 to 1");
        check(
            |it| it.repetition.common_phrases[2] = -1.0,
            "repetition.common_phrases is -1; it is a share, from 0 to 1",
        );
        check(|it| it.max_chars = 10, "min_chars is 20 and max_chars 10; nothing is between them");
        check(
            |it| it.languages = vec!["en".into(), "klingon".into()],
            "languages has \"klingon\"; write codes of two letters, such as en and de",
        );
        check(|it| it.judge = Some(JudgeConfig::named(" ")), "judge has no model");
        check(|it| it.per_prompt = 0, "per_prompt is 0; nothing would be kept");
        check(
            |it| it.user_names = vec!["a".into()],
            "user_names has \"a\"; write at least 3 characters",
        );
    }
}
