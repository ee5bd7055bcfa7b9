//! The card of a dataset: a README with the metadata that Hugging Face reads.
//!
//! Names that people and programs gave are written so that they are nothing but text: quoted in the
//! metadata, and without what Markdown or HTML would obey.

use std::fmt::Write as _;

use super::{files, summary::Summary};
use crate::{example::LicenceClass, licence::own_without_model};

/// Most characters of a name or a statement on the card.
const LONGEST: usize = 300;

/// Returns the card of a dataset.
#[must_use]
pub fn card(summary: &Summary) -> String {
    let mut text = metadata(summary);
    let written = write_body(&mut text, summary);
    written.expect("a String takes all that is written");
    text
}

fn metadata(summary: &Summary) -> String {
    let size = match summary.examples {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        _ => "100K<n<1M",
    };
    let mut splits = String::new();
    for (split, name, examples) in
        [("train", files::TRAIN, summary.train), ("test", files::EVAL, summary.eval)]
    {
        let bytes = summary.files.get(name).map_or(0, |file| file.bytes);
        let _ = write!(
            splits,
            "  - name: {split}\n    num_bytes: {bytes}\n    num_examples: {examples}\n"
        );
    }
    let projects: Vec<String> = summary.projects.iter().map(|name| plain(name)).collect();
    let name = serde_json::Value::from(projects.join(", "));
    format!(
        "---\npretty_name: {name}\nlicense: other\ntask_categories:\n- text-generation\n\
         size_categories:\n- {size}\nconfigs:\n- config_name: default\n  data_files:\n  - split: \
         train\n    path: {}\n  - split: test\n    path: {}\ndataset_info:\n  splits:\n{splits}\
         ---\n\n",
        files::TRAIN,
        files::EVAL,
    )
}

fn write_body(text: &mut String, summary: &Summary) -> std::fmt::Result {
    let projects: Vec<String> = summary.projects.iter().map(|name| markdown(name)).collect();
    writeln!(text, "# Answers of {}\n", projects.join(", "))?;
    writeln!(
        text,
        "{} conversations that end with an answer: {} to train on, {} held out, {} pairs of a good \
         and a bad answer. Built by Lodestar on {}.\n\nId: `{}` (the SHA-256 of the lines).\n",
        summary.examples,
        summary.train,
        summary.eval,
        summary.pairs,
        summary.created_at.strftime("%Y-%m-%d"),
        summary.id,
    )?;
    if let (Some(oldest), Some(newest)) = (summary.oldest, summary.newest) {
        let day = "%Y-%m-%d";
        let (oldest, newest) = (oldest.strftime(day), newest.strftime(day));
        writeln!(text, "The answers are of {oldest} to {newest}.\n")?;
    }
    write_funnel(text, summary)?;
    write_origin(text, summary)?;
    writeln!(text, "## Split\n")?;
    writeln!(
        text,
        "The newest groups of examples are held out. Whatever shares a cluster of near-duplicates \
         or a conversation is one group and lies on one side.\n"
    )?;
    writeln!(text, "## Known gaps\n")?;
    for gap in &summary.gaps {
        writeln!(text, "- {gap}")?;
    }
    if summary.gaps.is_empty() {
        writeln!(text, "None is known.")?;
    }
    Ok(())
}

fn write_funnel(text: &mut String, summary: &Summary) -> std::fmt::Result {
    writeln!(text, "## Filters\n\n| filter | seen | kept | dropped |\n|---|---|---|---|")?;
    for step in &summary.funnel {
        let reasons: Vec<String> =
            step.reasons.iter().map(|(reason, number)| format!("{reason} {number}")).collect();
        let (name, reasons) = (&step.name, reasons.join(", "));
        writeln!(text, "| {name} | {} | {} | {reasons} |", step.seen, step.kept)?;
    }
    if !summary.redactions.is_empty() {
        writeln!(text, "\n| taken out | places |\n|---|---|")?;
        for (kind, number) in &summary.redactions {
            writeln!(text, "| {} | {number} |", markdown(kind))?;
        }
    }
    writeln!(text)
}

fn write_origin(text: &mut String, summary: &Summary) -> std::fmt::Result {
    writeln!(text, "## Terms\n\n| terms of the model | examples | share |\n|---|---|---|")?;
    for (class, number) in &summary.licences {
        let share = number * 100 / summary.examples.max(1);
        writeln!(text, "| {} | {number} | {share} % |", class_name(*class))?;
    }
    writeln!(text, "\n| model | examples |\n|---|---|")?;
    for (model, number) in &summary.models {
        let model = if model.is_empty() { "(none named)".to_owned() } else { markdown(model) };
        writeln!(text, "| {model} | {number} |")?;
    }
    if summary.own_without_model > 0 {
        writeln!(text, "\n{}.", own_without_model(summary.own_without_model, "example"))?;
    }
    for one in &summary.attestations {
        writeln!(
            text,
            "\n{} answers for {} since {}: {}",
            markdown(&one.by),
            one.subject(markdown),
            day(one.at),
            markdown(&one.statement),
        )?;
    }
    writeln!(
        text,
        "\nEvery example is there by a consent; {} of {} have feedback.\n",
        summary.with_feedback, summary.examples
    )
}

/// Returns the word for a class of terms.
#[must_use]
pub const fn class_name(class: LicenceClass) -> &'static str {
    match class {
        LicenceClass::Own => "own",
        LicenceClass::OpenWeights => "open_weights",
        LicenceClass::Restricted => "restricted",
        LicenceClass::Unknown => "unknown",
    }
}

/// Returns the day of a time in milliseconds since the Unix epoch.
pub(crate) fn day(ms: i64) -> String {
    let time = module_sdk::jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    time.strftime("%Y-%m-%d").to_string()
}

/// Returns a text on one line, without what steers a terminal or turns its direction.
fn plain(text: &str) -> String {
    crate::commands::plain(text, LONGEST)
}

/// Returns a text of which Markdown and HTML obey nothing.
pub(crate) fn markdown(text: &str) -> String {
    let mut shown = String::new();
    for c in plain(text).chars() {
        match c {
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '&' => shown.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '!' | '|' | '~' => {
                shown.extend(['\\', c]);
            }
            c => shown.push(c),
        }
    }
    // An address alone becomes a link.
    shown.replace("://", ":&#47;&#47;")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::atomic::AtomicBool};

    use module_sdk::jiff::Timestamp;

    use super::*;
    use crate::{
        dataset::{
            build::{Settings, build},
            sample,
        },
        store::Attestation,
    };

    fn of(project: &str, model: &str) -> String {
        let mut examples: Vec<_> = (0..10).map(sample::example).collect();
        for example in &mut examples {
            example.model = Some(model.to_owned());
            example.attested = true;
            example.licence = LicenceClass::Restricted;
        }
        let settings = Settings { quality: crate::quality::Config::default(), eval_share: 0.1 };
        let built = build(&settings, examples, &mut |_, _| {}, &AtomicBool::new(false));
        let built = built.expect("it is built");
        let attestation = Attestation {
            model: crate::licence::spelt(model),
            project: None,
            by: "Ada".to_owned(),
            statement: "written permission of 1 November".to_owned(),
            at: 1_790_000_000_000,
        };
        let now = Timestamp::from_millisecond(1_796_000_000_000).expect("a time");
        let projects = [project.to_owned()];
        card(&Summary::of(&built, &projects, &[attestation], BTreeMap::new(), now))
    }

    #[test]
    fn a_card_says_all_that_is_known() {
        let card = of("shop", "claude-opus-4-9");
        for part in [
            "---\npretty_name: \"shop\"\nlicense: other\n",
            "size_categories:\n- n<1K\n",
            "    path: train.jsonl\n",
            "    num_examples: 9\n",
            "# Answers of shop\n",
            "| licence | 10 | 10 |  |\n",
            "| restricted | 10 | 100 % |\n",
            "| claude-opus-4-9 | 10 |\n",
            "Ada answers for claude-opus-4-9 since 2026-09-21: written permission of 1 November",
            "- 10 examples are few",
            "- compared with the questions of the gates, and with no other benchmark",
        ] {
            assert!(card.contains(part), "{part:?} is not in {card}");
        }
    }

    #[test]
    fn names_are_nothing_but_text() {
        let evil = "x\n---\nlicense: mit | <script>[a](http://b) `c` \u{202e}";
        let card = of(evil, evil);
        let (metadata, body) = card.split_once("\n---\n").expect("it has metadata");
        // Within quotes it is a text of YAML.
        assert!(metadata.starts_with("---\npretty_name: \"x---license: mit | <script>"), "{card}");
        assert!(!card.contains("\nlicense: mit") && !card.contains('\u{202e}'), "{card}");
        assert!(!body.contains("\n---\n"), "{card}");
        assert!(!body.contains("<script>") && !body.contains("[a]"), "{card}");
        assert!(body.contains("\\| &lt;script&gt;\\[a\\]\\(http:&#47;&#47;b\\)"), "{card}");
    }
}
