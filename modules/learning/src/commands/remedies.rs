//! Remedies for examples that the first filters of a build drop: who has to agree, or to answer.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{counted, word};
use crate::{
    example::{Example, LicenceClass},
    licence::spelt,
};

/// Models whose remedy people see; the others are counted.
const SHOWN: usize = 5;

/// A remedy for some examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Remedy {
    /// Number of examples that it is for.
    examples: u64,
    /// Reason for which they are left out.
    reason: String,
    /// Command that a person may type.
    command: String,
}

/// Remedies in the order of their examples, the most first.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Remedies(Vec<Remedy>);

/// Reason for which an example is left out.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Left<'a> {
    NoConsent(&'a str),
    NoModel(&'a str),
    Model(String, bool),
}

impl Remedies {
    /// Returns the remedies for those of the examples that would be dropped.
    pub(super) fn of(examples: &[Example]) -> Self {
        let mut found: BTreeMap<Left<'_>, u64> = BTreeMap::new();
        for left in examples.iter().filter_map(left) {
            *found.entry(left).or_default() += 1;
        }
        let mut all: Vec<Remedy> =
            found.into_iter().map(|(left, number)| left.remedy(number)).collect();
        all.sort_by_key(|it| std::cmp::Reverse(it.examples));
        Self(all)
    }

    /// Returns them in sentences.
    pub(super) fn notes(&self) -> Vec<String> {
        let shown = self.0.iter().take(SHOWN).map(|it| {
            format!("{} {}: `{}`", counted(it.examples, "example"), it.reason, it.command)
        });
        let more = self.0.len().saturating_sub(SHOWN) as u64;
        let rest = (more > 0).then(|| {
            format!("and {}; --json lists them (`remedies`)", counted(more, "more such model"))
        });
        shown.chain(rest).collect()
    }
}

fn left(example: &Example) -> Option<Left<'_>> {
    if example.consent.is_none() {
        return Some(Left::NoConsent(&example.project));
    }
    let is_restricted = match example.licence {
        LicenceClass::Own | LicenceClass::OpenWeights => return None,
        LicenceClass::Restricted => true,
        LicenceClass::Unknown => false,
    };
    match &example.model {
        _ if example.attested => None,
        None => Some(Left::NoModel(&example.project)),
        Some(model) => Some(Left::Model(spelt(model), is_restricted)),
    }
}

impl Left<'_> {
    fn remedy(self, examples: u64) -> Remedy {
        let attest = "lodestar learning consent attest";
        let (reason, command) = match self {
            Self::NoConsent(project) => (
                "have no consent that holds; somebody may agree".to_owned(),
                format!("lodestar learning consent grant {} --by NAME", word(project)),
            ),
            Self::NoModel(project) => (
                "name no model, so that their terms are unknown; somebody may answer for them"
                    .to_owned(),
                format!("{attest} --unattributed {} --by NAME --statement TEXT", word(project)),
            ),
            Self::Model(model, is_restricted) => {
                let terms = if is_restricted { "restrict training" } else { "are unknown" };
                (
                    format!("are of {model}, whose terms {terms}; somebody may answer for it"),
                    format!("{attest} {} --by NAME --statement TEXT", word(&model)),
                )
            }
        };
        Remedy { examples, reason, command }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::sample;

    #[test]
    fn whatever_is_left_out_by_its_origin_has_a_command() {
        let mut examples: Vec<Example> = (0..5).map(sample::example).collect();
        examples[0].consent = None;
        (examples[1].model, examples[1].licence) = (None, LicenceClass::Unknown);
        (examples[2].model, examples[2].licence) = (None, LicenceClass::Unknown);
        examples[3].licence = LicenceClass::Restricted;
        let found = Remedies::of(&examples);
        let notes = found.notes();
        assert_eq!(notes.len(), 3, "{notes:#?}");
        assert!(notes[0].starts_with("2 examples name no model"), "{notes:#?}");
        let all = notes.join("\n");
        for command in [
            "`lodestar learning consent attest --unattributed shop --by NAME --statement TEXT`",
            "`lodestar learning consent grant shop --by NAME`",
            "`lodestar learning consent attest qwen3 --by NAME --statement TEXT`",
        ] {
            assert!(all.contains(command), "{all}");
        }
        examples.iter_mut().for_each(|it| it.attested = true);
        examples.remove(0);
        assert_eq!(Remedies::of(&examples), Remedies::default());
    }
}
