//! Building: from examples to the lines of a dataset and what is known of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::AtomicBool,
};

use module_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{line::Line, split::held_out};
use crate::{
    example::{Example, LicenceClass, Message, Outcome},
    quality::{self, Decontamination, Funnel, Kept, Step},
    store::{Attestation, Membership, Split, hex, question},
};

/// Settings of a build.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Thresholds of the filters.
    pub quality: quality::Config,
    /// Share of the examples that is held out.
    pub eval_share: f64,
}

/// All known of a line beside its text. It is never trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Id of the example.
    pub example_id: String,
    /// Hash of the line.
    pub line_sha256: String,
    /// The part that it lies in.
    pub split: String,
    /// Number that near-duplicates have in common, in hexadecimal digits.
    pub cluster_id: String,
    /// Hash of the conversation, which tells those of one conversation and nothing else.
    pub conversation_id: String,
    /// Time of the answer, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The model that answered.
    pub model: Option<String>,
    /// Terms of that model.
    pub licence_class: LicenceClass,
    /// `true` when a person answers for it.
    pub attested: bool,
    /// Id of the consent.
    pub consent_id: String,
    /// Feedback, from 0 to 1.
    pub feedback: Option<f64>,
    /// Quality, from 0 to 1.
    pub score: f64,
    /// Number of places by the kind of what was taken out.
    pub redactions: BTreeMap<String, u32>,
}

/// A line of a dataset with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The part that it lies in.
    pub split: Split,
    /// The line.
    pub text: String,
    /// Facts about it.
    pub meta: Meta,
}

/// A dataset that is not written yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// Its id: the hash of its lines.
    pub id: String,
    /// Its rows, by part and text.
    pub rows: Vec<Row>,
    /// Lines with a good and a bad answer to the same question, in order.
    pub pairs: Vec<String>,
    /// Examples of the bad answers.
    pub rejected: Vec<Membership>,
    /// The filters and what they did.
    pub steps: Vec<Step>,
}

impl Built {
    /// Returns the number of lines of a part.
    #[must_use]
    pub fn count(&self, split: Split) -> u64 {
        self.rows.iter().filter(|row| row.split == split).count() as u64
    }

    /// Returns the examples of the dataset, and the consent of each.
    #[must_use]
    pub fn members(&self) -> Vec<Membership> {
        let of_row = |row: &Row| Membership {
            example: row.meta.example_id.clone(),
            consent: row.meta.consent_id.clone(),
            split: row.split,
        };
        self.rows.iter().map(of_row).chain(self.rejected.iter().cloned()).collect()
    }

    /// Returns the statements that examples of the dataset are there by.
    #[must_use]
    pub fn attestations(&self, all: &[Attestation], projects: &[String]) -> Vec<Attestation> {
        let is_about = |one: &Attestation, model: Option<&str>| match &one.project {
            Some(project) => model.is_none() && projects.contains(project),
            None => model.map(crate::licence::spelt).as_ref() == Some(&one.model),
        };
        let is_used = |one: &&Attestation| {
            self.rows.iter().any(|row| {
                row.meta.attested
                    && !matches!(
                        row.meta.licence_class,
                        LicenceClass::Own | LicenceClass::OpenWeights
                    )
                    && is_about(one, row.meta.model.as_deref())
            })
        };
        all.iter().filter(is_used).cloned().collect()
    }
}

/// Builds a dataset that holds nothing of the questions that come with Lodestar. Where `cancelled`
/// is set it returns early, with a result that means nothing.
///
/// # Errors
///
/// When the filters cannot be made of their thresholds, or a line cannot be written as JSON.
pub fn build(
    settings: &Settings,
    examples: Vec<Example>,
    progress: &mut dyn FnMut(usize, usize),
    cancelled: &AtomicBool,
) -> Result<Built> {
    let benchmarks = crate::gate::benchmarks(None).map_err(|it| Error::config(it.to_string()))?;
    build_beside(settings, examples, &benchmarks, progress, cancelled)
}

/// Builds a dataset that holds nothing of some benchmarks, as [`build`] does.
///
/// # Errors
///
/// As [`build`].
pub fn build_beside(
    settings: &Settings,
    examples: Vec<Example>,
    benchmarks: &Decontamination,
    progress: &mut dyn FnMut(usize, usize),
    cancelled: &AtomicBool,
) -> Result<Built> {
    let bad = bad_answers(&examples, &settings.quality);
    let funnel =
        Funnel::new(&settings.quality).map_err(|error| Error::config(error.to_string()))?;
    let outcome = funnel.run(examples, benchmarks, progress, cancelled);
    let is_out = held_out(&outcome.kept, settings.eval_share);
    let mut rows = Vec::with_capacity(outcome.kept.len());
    let mut chosen: HashMap<Vec<u8>, &Kept> = HashMap::new();
    for (kept, is_out) in outcome.kept.iter().zip(&is_out) {
        let split = if *is_out { Split::Eval } else { Split::Train };
        rows.push(row(kept, split)?);
        if split == Split::Train {
            let question = question(&kept.example.messages);
            let best = chosen.entry(question).or_insert(kept);
            if kept.score > best.score {
                *best = kept;
            }
        }
    }
    rows.sort_by(|one, other| (one.split, &one.text).cmp(&(other.split, &other.text)));
    // Two examples that became the same line by what was taken out of them are one.
    rows.dedup_by(|one, other| (one.split, &one.text) == (other.split, &other.text));
    let (pairs, rejected) = pairs(bad, &chosen, &funnel, benchmarks, cancelled);
    Ok(Built { id: id(&rows, &pairs), rows, pairs, rejected, steps: outcome.steps })
}

/// Returns the id of a dataset: the SHA-256 of its lines in order, part by part.
fn id(rows: &[Row], pairs: &[String]) -> String {
    let of = |split| rows.iter().filter(move |row| row.split == split).map(|row| &*row.text);
    let pairs = pairs.iter().map(String::as_str);
    id_of(of(Split::Train), of(Split::Eval), pairs)
}

/// Returns the id of a dataset with these lines in order.
pub fn id_of<'a>(
    train: impl Iterator<Item = &'a str>,
    eval: impl Iterator<Item = &'a str>,
    pairs: impl Iterator<Item = &'a str>,
) -> String {
    let mut hash = Sha256::new();
    let mut add = |name: &str, lines: &mut dyn Iterator<Item = &'a str>| {
        hash.update(name);
        hash.update(b"\n");
        for line in lines {
            hash.update(line);
            hash.update(b"\n");
        }
    };
    let (mut train, mut eval, mut pairs) = (train, eval, pairs.peekable());
    add("train", &mut train);
    add("eval", &mut eval);
    if pairs.peek().is_some() {
        add("preference", &mut pairs);
    }
    hex(&hash.finalize())
}

fn row(kept: &Kept, split: Split) -> Result<Row> {
    let example = &kept.example;
    let text = Line::of(example).text()?;
    let conversation =
        crate::store::digest(&[example.project.as_bytes(), example.conversation.as_bytes()]);
    let meta = Meta {
        example_id: example.id.clone(),
        line_sha256: hex(&Sha256::digest(&text)),
        split: split.as_str().to_owned(),
        cluster_id: format!("{:016x}", kept.cluster),
        conversation_id: conversation[..16].to_owned(),
        at: example.at,
        model: example.model.clone(),
        licence_class: example.licence,
        attested: example.attested,
        consent_id: example.consent.clone().unwrap_or_default(),
        feedback: example.outcome.feedback,
        score: kept.score,
        redactions: kept.redactions.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect(),
    };
    Ok(Row { split, text, meta })
}

/// Returns the answers that were not good enough, as if nothing were said against them: they pass
/// the same filters as the good ones, so that nothing is in a pair that may not be in a dataset.
fn bad_answers(examples: &[Example], config: &quality::Config) -> Vec<Example> {
    let is_bad = |outcome: &Outcome| {
        !outcome.failed
            && !outcome.truncated
            && (outcome.retried || outcome.feedback.is_some_and(|it| it < config.min_feedback))
    };
    let neutral = |example: &Example| Example { outcome: Outcome::default(), ..example.clone() };
    examples.iter().filter(|it| is_bad(&it.outcome)).map(neutral).collect()
}

fn pairs(
    bad: Vec<Example>,
    chosen: &HashMap<Vec<u8>, &Kept>,
    funnel: &Funnel,
    benchmarks: &Decontamination,
    cancelled: &AtomicBool,
) -> (Vec<String>, Vec<Membership>) {
    let with_good: Vec<Example> = bad
        .into_iter()
        .filter(|example| chosen.contains_key(&question(&example.messages)))
        .collect();
    if with_good.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let passed = funnel.run(with_good, benchmarks, &mut |_, _| {}, cancelled).kept;
    let (mut lines, mut members) = (Vec::new(), Vec::new());
    for kept in passed {
        let rejected = &kept.example;
        let Some(good) = chosen.get(&question(&rejected.messages)) else { continue };
        let (Some((answer, asked)), Some((bad, _))) =
            (good.example.messages.split_last(), rejected.messages.split_last())
        else {
            continue;
        };
        if answer.content != bad.content {
            lines.push(pair(asked, answer, bad));
            members.push(Membership {
                example: rejected.id.clone(),
                consent: rejected.consent.clone().unwrap_or_default(),
                split: Split::Rejected,
            });
        }
    }
    lines.sort_unstable();
    lines.dedup();
    (lines, members)
}

fn pair(asked: &[Message], chosen: &Message, rejected: &Message) -> String {
    json!({"prompt": asked, "chosen": [chosen], "rejected": [rejected]}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::sample;

    fn built(examples: Vec<Example>) -> Built {
        let settings = Settings { quality: quality::Config::default(), eval_share: 0.2 };
        build(&settings, examples, &mut |_, _| {}, &AtomicBool::new(false)).expect("it is built")
    }

    #[test]
    fn the_same_lines_have_the_same_id_in_any_order() {
        let forward: Vec<Example> = (0..10).map(sample::example).collect();
        let backward: Vec<Example> = forward.iter().rev().cloned().collect();
        let (one, other) = (built(forward.clone()), built(backward));
        assert_eq!(one.id, other.id);
        assert_eq!((one.count(Split::Train), one.count(Split::Eval)), (8, 2));
        assert_eq!(one.members().len(), 10);
        let fewer = built(forward[1..].to_vec());
        assert_ne!(one.id, fewer.id);
    }

    #[test]
    fn the_split_is_part_of_the_id() {
        let none = || std::iter::empty::<&str>();
        let one = id_of(["a"].into_iter(), ["b"].into_iter(), none());
        assert_ne!(one, id_of(["a", "b"].into_iter(), none(), none()));
        assert_ne!(one, id_of(["b"].into_iter(), ["a"].into_iter(), none()));
        assert_ne!(one, id_of(["a"].into_iter(), ["b"].into_iter(), ["c"].into_iter()));
    }

    #[test]
    fn a_bad_answer_makes_a_pair_with_a_good_one_and_nothing_else() {
        let mut examples: Vec<Example> = (0..10).map(sample::example).collect();
        let mut bad = sample::example(1);
        bad.id = "bad".to_owned();
        bad.outcome.feedback = Some(0.0);
        bad.messages[1].content = "I do not know what it costs.".to_owned();
        let mut alone = sample::example(99);
        alone.outcome.retried = true;
        let mut without_consent = bad.clone();
        (without_consent.id, without_consent.consent) = ("no".to_owned(), None);
        without_consent.messages[1].content = "Nobody may see this answer.".to_owned();
        examples.extend([bad, alone, without_consent]);
        let built = built(examples);
        assert_eq!(built.rows.len(), 10);
        assert_eq!(built.pairs.len(), 1);
        assert!(built.pairs[0].contains(r#""rejected":[{"content":"I do not know"#));
        let rejected: Vec<&str> = built.rejected.iter().map(|it| &*it.example).collect();
        assert_eq!(rejected, ["bad"]);
    }

    #[test]
    fn nothing_makes_an_empty_dataset() {
        let built = built(Vec::new());
        assert!(built.rows.is_empty() && built.steps.iter().all(|step| step.seen == 0));
    }
}
