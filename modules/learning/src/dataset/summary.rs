//! Summary of a dataset: all that its card and its answers say.

use std::collections::BTreeMap;

use module_sdk::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{build::Built, files::Printed};
use crate::quality::Step;
use crate::{
    example::LicenceClass,
    store::{Attestation, Split},
};

/// Least number of examples that are worth training on.
const FEW: u64 = 50;

/// A filter and what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunnelStep {
    /// Name of the filter.
    pub name: String,
    /// Examples that reached it.
    pub seen: u64,
    /// Examples that passed it.
    pub kept: u64,
    /// Examples that it dropped, by reason.
    pub reasons: BTreeMap<String, u64>,
}

impl From<&Step> for FunnelStep {
    fn from(step: &Step) -> Self {
        let reasons = step.reasons.iter();
        Self {
            name: step.name.to_owned(),
            seen: step.seen as u64,
            kept: step.kept as u64,
            reasons: reasons.map(|(name, number)| ((*name).to_owned(), *number)).collect(),
        }
    }
}

/// All that is known of a dataset but its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The id.
    pub id: String,
    /// Time of the build.
    pub created_at: Timestamp,
    /// The projects.
    pub projects: Vec<String>,
    /// Examples in all.
    pub examples: u64,
    /// Examples to train on.
    pub train: u64,
    /// Examples that are held out.
    pub eval: u64,
    /// Pairs of a good and a bad answer.
    pub pairs: u64,
    /// The filters in order.
    pub funnel: Vec<FunnelStep>,
    /// Examples by the terms of their models.
    pub licences: BTreeMap<LicenceClass, u64>,
    /// Examples by model; an empty name stands for an unknown one.
    pub models: BTreeMap<String, u64>,
    /// Examples that name no model and count as the project's own.
    #[serde(default)]
    pub own_without_model: u64,
    /// Statements by which restricted or unknown models are there.
    pub attestations: Vec<Attestation>,
    /// Examples by consent.
    pub consents: BTreeMap<String, u64>,
    /// Places by the kind of what was taken out.
    pub redactions: BTreeMap<String, u64>,
    /// Examples with feedback.
    pub with_feedback: u64,
    /// Time of the oldest answer.
    pub oldest: Option<Timestamp>,
    /// Time of the newest answer.
    pub newest: Option<Timestamp>,
    /// Gaps of the dataset, in sentences.
    pub gaps: Vec<String>,
    /// The files.
    pub files: BTreeMap<String, Printed>,
}

impl Summary {
    /// Sums up a dataset that was built.
    #[must_use]
    pub fn of(
        built: &Built,
        projects: &[String],
        attestations: &[Attestation],
        files: BTreeMap<String, Printed>,
        now: Timestamp,
    ) -> Self {
        let (mut licences, mut models) = (BTreeMap::new(), BTreeMap::new());
        let (mut consents, mut redactions) = (BTreeMap::new(), BTreeMap::new());
        let (mut with_feedback, mut own_without_model) = (0, 0);
        for meta in built.rows.iter().map(|row| &row.meta) {
            *licences.entry(meta.licence_class).or_default() += 1;
            *models.entry(meta.model.clone().unwrap_or_default()).or_default() += 1;
            *consents.entry(meta.consent_id.clone()).or_default() += 1;
            with_feedback += u64::from(meta.feedback.is_some());
            let is_own = meta.licence_class == LicenceClass::Own;
            own_without_model += u64::from(meta.model.is_none() && is_own);
            for (kind, number) in &meta.redactions {
                *redactions.entry(kind.clone()).or_default() += u64::from(*number);
            }
        }
        let times = || built.rows.iter().map(|row| row.meta.at);
        let time = |ms: Option<i64>| ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let mut summary = Self {
            id: built.id.clone(),
            created_at: now,
            projects: projects.to_vec(),
            examples: built.rows.len() as u64,
            train: built.count(Split::Train),
            eval: built.count(Split::Eval),
            pairs: built.pairs.len() as u64,
            funnel: built.steps.iter().map(FunnelStep::from).collect(),
            licences,
            models,
            own_without_model,
            attestations: built.attestations(attestations, projects),
            consents,
            redactions,
            with_feedback,
            oldest: time(times().min()),
            newest: time(times().max()),
            gaps: Vec::new(),
            files,
        };
        summary.gaps = summary.gaps();
        summary
    }

    fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        let mut note = |applies: bool, text: String| {
            if applies {
                gaps.push(text);
            }
        };
        note(
            self.examples < FEW,
            format!("{} examples are few; {FEW} and more are advised", self.examples),
        );
        note(self.eval == 0, "nothing is held out: a model cannot be measured on it".to_owned());
        note(
            self.with_feedback == 0,
            "no example has feedback: nobody said that these answers are good".to_owned(),
        );
        note(self.models.len() == 1, "all answers are of one model".to_owned());
        let without_model = self.models.get("").copied().unwrap_or_default();
        note(
            without_model > self.own_without_model,
            "the model of some answers is not known".to_owned(),
        );
        gaps.push(
            "compared with the questions of the gates, and with no other benchmark".to_owned(),
        );
        gaps.push(
            "names of people in prose and passwords of letters alone may be left: read it before \
             you share it"
                .to_owned(),
        );
        gaps
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::dataset::{
        build::{Settings, build},
        sample,
    };

    #[test]
    fn shares_and_gaps_are_counted() {
        let mut examples: Vec<_> = (0..3).map(sample::example).collect();
        examples[0].model = None;
        (examples[0].licence, examples[0].attested) = (LicenceClass::Unknown, true);
        examples[1].outcome.feedback = Some(1.0);
        let settings = Settings { quality: crate::quality::Config::default(), eval_share: 0.0 };
        let built = build(&settings, examples, &mut |_, _| {}, &AtomicBool::new(false));
        let built = built.expect("it is built");
        let projects = ["shop".to_owned()];
        let summary = Summary::of(&built, &projects, &[], BTreeMap::new(), Timestamp::UNIX_EPOCH);
        assert_eq!((summary.examples, summary.eval, summary.with_feedback), (3, 0, 1));
        let licences = [(LicenceClass::OpenWeights, 2), (LicenceClass::Unknown, 1)];
        assert_eq!(summary.licences, licences.into());
        let has = |part: &str| summary.gaps.iter().any(|gap| gap.contains(part));
        assert!(has("are few") && has("nothing is held out") && has("model of some"));
        assert!(!has("no example has feedback") && !has("of one model"));
        assert_eq!(summary.own_without_model, 0, "nobody said that it is their own");
        let text = serde_json::to_string(&summary).expect("it is JSON");
        let read: Summary = serde_json::from_str(&text).expect("it is a summary");
        assert_eq!(read, summary);
    }
}
