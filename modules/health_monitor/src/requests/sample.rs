//! Figures of one request.

use std::ops::AddAssign;

use module_sdk::{
    LogHistogram,
    events::{LlmRequestCompleted, RequestStatus},
};
use serde::{Deserialize, Serialize};

/// Outcome of a request, as far as it says something about the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer.
    Good,
    /// An error, a broken stream or no answer in time.
    Failed,
    /// Nothing that the model is to blame or to praise for: the client went away, the request was
    /// refused before it was sent, or answered from a cache.
    Neither,
}

/// Figures of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Model that was asked for; that which the router chose where it did.
    pub model: Option<&'a str>,
    /// Provider: its id in the configuration, else its name.
    pub provider: Option<&'a str>,
    /// Project.
    pub project: Option<&'a str>,
    /// Outcome.
    pub outcome: Outcome,
    /// Cost in 1e-9 USD, where the event states one.
    pub cost_nano: Option<u64>,
    /// Tokens of input and output.
    pub tokens: Option<u64>,
    /// Time to the end of a good answer, in milliseconds.
    pub duration_ms: Option<u32>,
    /// Time to the first content of a good answer, in milliseconds.
    pub ttft_ms: Option<u32>,
}

impl<'a> Sample<'a> {
    /// Reads the figures of a request. A failure has no response time: one of a quick refusal would
    /// make a model look fast.
    #[must_use]
    pub fn of(event: &'a LlmRequestCompleted) -> Self {
        let named = |name: &'a Option<String>| name.as_deref().filter(|name| !name.is_empty());
        let outcome = outcome(event);
        let took = || {
            // Where a report tells no duration, both times are that of the report.
            let known = event.started_at > 0 && event.ended_at > event.started_at;
            known.then(|| u32::try_from(event.ended_at.saturating_sub(event.started_at)).ok())?
        };
        let is_good = outcome == Outcome::Good;
        let tokens = match (event.input_tokens, event.output_tokens) {
            (None, None) => None,
            (input, output) => Some(input.unwrap_or(0).saturating_add(output.unwrap_or(0))),
        };
        Self {
            // A failure names no model that answered, so that one comes last: failures and
            // successes have to fall under one name.
            model: named(&event.routed_model)
                .or(named(&event.request_model))
                .or(named(&event.response_model)),
            provider: named(&event.upstream).or(named(&event.provider)),
            project: named(&event.project),
            outcome,
            cost_nano: event.cost_nano_usd.and_then(|cost| u64::try_from(cost).ok()),
            tokens,
            duration_ms: is_good.then(|| event.duration_ms.or_else(took)).flatten(),
            ttft_ms: is_good.then_some(event.ttft_ms).flatten(),
        }
    }
}

fn outcome(event: &LlmRequestCompleted) -> Outcome {
    match event.status {
        Some(RequestStatus::Ok) => Outcome::Good,
        Some(RequestStatus::Error | RequestStatus::UpstreamCut | RequestStatus::Timeout) => {
            Outcome::Failed
        }
        Some(RequestStatus::ClientAbort | RequestStatus::Rejected | RequestStatus::Cached) => {
            Outcome::Neither
        }
        None if event.error_type.is_some() => Outcome::Failed,
        None if event.http_status.is_some_and(|status| status >= 400) => Outcome::Failed,
        None => Outcome::Good,
    }
}

/// Number, sum and largest of some figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) count: u32,
    pub(crate) sum: u64,
    pub(crate) max: u64,
}

impl Tally {
    fn add(&mut self, figure: u64) {
        *self += Self { count: 1, sum: figure, max: figure };
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }
}

/// Sums over requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Requests that were answered or failed.
    pub(crate) requests: u32,
    pub(crate) errors: u32,
    pub(crate) cost_nano: Tally,
    pub(crate) tokens: Tally,
    pub(crate) duration_ms: Tally,
    pub(crate) ttft_ms: Tally,
}

impl Counts {
    pub(crate) fn add(&mut self, sample: &Sample<'_>) {
        let judged = u32::from(sample.outcome != Outcome::Neither);
        self.requests = self.requests.saturating_add(judged);
        self.errors = self.errors.saturating_add(u32::from(sample.outcome == Outcome::Failed));
        let figures = [
            (&mut self.cost_nano, sample.cost_nano),
            (&mut self.tokens, sample.tokens),
            (&mut self.duration_ms, sample.duration_ms.map(u64::from)),
            (&mut self.ttft_ms, sample.ttft_ms.map(u64::from)),
        ];
        for (tally, figure) in figures {
            figure.into_iter().for_each(|figure| tally.add(figure));
        }
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.cost_nano += other.cost_nano;
        self.tokens += other.tokens;
        self.duration_ms += other.duration_ms;
        self.ttft_ms += other.ttft_ms;
    }
}

/// A minute of requests: sums, and how their response times are distributed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Minute {
    pub(crate) counts: Counts,
    pub(crate) duration: Times,
    pub(crate) ttft: Times,
}

impl Minute {
    pub(crate) fn add(&mut self, sample: &Sample<'_>) {
        self.counts.add(sample);
        sample.duration_ms.into_iter().for_each(|ms| self.duration.add(ms));
        sample.ttft_ms.into_iter().for_each(|ms| self.ttft.add(ms));
    }

    /// Packs a minute that is over.
    pub(crate) fn close(&mut self) {
        self.duration.close();
        self.ttft.close();
    }
}

/// Distribution of response times, packed once nothing more comes: a minute takes tens of bytes
/// instead of the 7 KiB of a full histogram.
#[derive(Debug, Clone)]
pub(crate) enum Times {
    Open(LogHistogram),
    Closed(Box<[u8]>),
}

impl Default for Times {
    fn default() -> Self {
        Self::Closed(Box::default())
    }
}

impl Times {
    fn add(&mut self, ms: u32) {
        if let Self::Closed(packed) = self {
            *self = Self::Open(LogHistogram::decode(packed).unwrap_or_default());
        }
        if let Self::Open(times) = self {
            times.add(ms, 1);
        }
    }

    fn close(&mut self) {
        if let Self::Open(times) = self {
            *self = Self::Closed(times.encode().unwrap_or_default().into());
        }
    }

    /// Adds these times to a histogram. What cannot be read was damaged on its way over a restart,
    /// and is left out.
    pub(crate) fn add_to(&self, sum: &mut LogHistogram) {
        match self {
            Self::Open(times) => sum.merge(times),
            Self::Closed(packed) => drop(sum.merge_encoded(packed)),
        }
    }

    pub(crate) fn packed(&self) -> Vec<u8> {
        match self {
            Self::Open(times) => times.encode().unwrap_or_default(),
            Self::Closed(packed) => packed.to_vec(),
        }
    }

    /// Adds times that were packed.
    pub(crate) fn merge(&mut self, packed: &[u8]) {
        let mut sum = LogHistogram::default();
        self.add_to(&mut sum);
        if sum.merge_encoded(packed).is_ok() {
            *self = Self::Open(sum);
            self.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_to_blame_follows_from_the_status() {
        let check = |status: Option<RequestStatus>, error: Option<&str>, expected: Outcome| {
            let error_type = error.map(str::to_owned);
            let event = LlmRequestCompleted { status, error_type, ..Default::default() };
            assert_eq!(Sample::of(&event).outcome, expected, "{status:?}");
        };
        check(Some(RequestStatus::Ok), None, Outcome::Good);
        check(Some(RequestStatus::Error), None, Outcome::Failed);
        check(Some(RequestStatus::UpstreamCut), None, Outcome::Failed);
        check(Some(RequestStatus::Timeout), None, Outcome::Failed);
        check(Some(RequestStatus::ClientAbort), None, Outcome::Neither);
        check(Some(RequestStatus::Rejected), None, Outcome::Neither);
        check(Some(RequestStatus::Cached), None, Outcome::Neither);
        check(None, None, Outcome::Good);
        check(None, Some("rate_limit"), Outcome::Failed);
    }

    #[test]
    fn a_failure_has_no_response_time_and_what_is_unknown_is_absent() {
        let event = LlmRequestCompleted {
            started_at: 1_000,
            ended_at: 3_500,
            request_model: Some("m".into()),
            response_model: Some("m-2026".into()),
            upstream: Some(String::new()),
            provider: Some("openai".into()),
            output_tokens: Some(5),
            ttft_ms: Some(300),
            ..Default::default()
        };
        let sample = Sample::of(&event);
        assert_eq!((sample.duration_ms, sample.ttft_ms), (Some(2_500), Some(300)));
        // A report without a duration has one time for beginning and end.
        let untimed = LlmRequestCompleted { started_at: 3_500, ..event.clone() };
        assert_eq!(Sample::of(&untimed).duration_ms, None);
        assert_eq!((sample.model, sample.provider), (Some("m"), Some("openai")));
        assert_eq!((sample.tokens, sample.cost_nano, sample.project), (Some(5), None, None));
        let event = LlmRequestCompleted { status: Some(RequestStatus::Error), ..event };
        let sample = Sample::of(&event);
        assert_eq!((sample.duration_ms, sample.ttft_ms), (None, None));
    }

    #[test]
    fn times_are_the_same_packed() {
        let (mut times, mut expected) = (Times::default(), LogHistogram::default());
        for ms in [3, 900, 12_000] {
            times.add(ms);
            times.close();
            expected.add(ms, 1);
        }
        let mut other = Times::default();
        other.merge(&times.packed());
        other.merge(&[0xff]);
        let mut sum = LogHistogram::default();
        other.add_to(&mut sum);
        assert_eq!(sum, expected);
    }
}
