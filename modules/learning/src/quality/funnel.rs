//! The filters in their order, and what came of them.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use super::{
    config::{Config, ConfigError},
    decontamination::Decontamination,
    duplicates::ExactDuplicates,
    filter::{Candidate, Filter, Work},
    judge::Judge,
    language::Language,
    length::Length,
    near::{NearDuplicates, PromptCap},
    outcome::OutcomeFilter,
    personal::PersonalData,
    repetition::{PhraseRepetition, WordRepetition},
    secrets::Secrets,
    terms::{Consent, Licence},
};
use crate::example::Example;

/// The filters, made ready. Some megabytes of automata: it is made for a build and dropped after.
pub struct Funnel {
    filters: Filters,
}

type Filters = Vec<Box<dyn Filter + Send + Sync>>;

/// The examples that are kept, and how many each step left.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The examples that are kept, in the order in which they came.
    pub kept: Vec<Kept>,
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// `true` when the work was cancelled: then nothing is kept, and the last steps are missing.
    pub cancelled: bool,
}

/// An example that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The example, with placeholders where personal data was.
    pub example: Example,
    /// Group of examples with much the same question or answer, which are not to be separated. The
    /// same for the same examples, in whatever order they come.
    pub cluster: u64,
    /// Number of placeholders by kind: `email`, `ip`, `phone`, ….
    pub redactions: BTreeMap<&'static str, u32>,
    /// Rating of the answer, from 0 to 1; 0.5 where nobody rated it.
    pub score: f64,
}

/// One step of the funnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name of the filter.
    pub name: &'static str,
    /// Number of examples that came.
    pub seen: usize,
    /// Number of examples that stayed.
    pub kept: usize,
    /// Number of drops by reason.
    pub reasons: BTreeMap<&'static str, u64>,
}

impl Funnel {
    /// Makes the filters ready.
    ///
    /// # Errors
    ///
    /// When a setting cannot hold.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let mut filters: Filters = vec![
            Box::new(Consent),
            Box::new(Licence),
            Box::new(OutcomeFilter::new(config)),
            Box::new(Length::new(config)),
            Box::new(PhraseRepetition::new(&config.repetition)),
            Box::new(WordRepetition::new(&config.repetition)),
        ];
        if !config.languages.is_empty() {
            filters.push(Box::new(Language::new(config)));
        }
        let rest: Filters = vec![
            Box::new(ExactDuplicates),
            Box::new(NearDuplicates::new(config)),
            Box::new(PromptCap::new(config)),
            Box::new(Secrets::new()),
            Box::new(PersonalData::new(config)),
        ];
        filters.extend(rest);
        if let Some(judge) = &config.judge {
            filters.push(Box::new(Judge::new(judge)));
        }
        Ok(Self { filters })
    }

    /// Leads examples through the filters; none of the benchmarks is left among those that are
    /// kept. `progress` gets what is done and what is to do; `cancelled` ends the work soon.
    pub fn run(
        &self,
        examples: Vec<Example>,
        benchmarks: &Decontamination,
        progress: &mut dyn FnMut(usize, usize),
        cancelled: &AtomicBool,
    ) -> Outcome {
        let count = examples.len();
        let mut candidates: Vec<Candidate> = examples
            .into_iter()
            .enumerate()
            .map(|(index, example)| Candidate::new(index, example))
            .collect();
        let own = self.filters.iter().map(|filter| &**filter as &dyn Filter);
        let filters: Vec<&dyn Filter> = own.chain([benchmarks as &dyn Filter]).collect();
        let mut outcome = Outcome::default();
        for (index, filter) in filters.iter().enumerate() {
            let part = (index * count, (index + 1) * count, filters.len() * count);
            let mut work = Work::new(progress, cancelled, part);
            let verdicts = filter.judge(&mut candidates, &mut work);
            if work.is_cancelled() {
                outcome.cancelled = true;
                return outcome;
            }
            work.end();
            let mut step = Step {
                name: filter.name(),
                seen: candidates.len(),
                kept: 0,
                reasons: BTreeMap::new(),
            };
            let mut verdicts = verdicts.into_iter();
            candidates.retain(|_| match verdicts.next().flatten() {
                Some(reason) => {
                    *step.reasons.entry(reason).or_default() += 1;
                    false
                }
                None => true,
            });
            step.kept = candidates.len();
            outcome.steps.push(step);
        }
        candidates.sort_unstable_by_key(|candidate| candidate.index);
        outcome.kept = candidates.into_iter().map(Kept::from).collect();
        outcome
    }
}

impl From<Candidate> for Kept {
    fn from(candidate: Candidate) -> Self {
        let Candidate { example, cluster, redactions, score, .. } = candidate;
        Self { example, cluster, redactions, score }
    }
}
