//! Observations: what the report of a request tells an experiment.

use module_sdk::events::{LlmRequestCompleted, RequestSource, RequestStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Arm;

/// Measure: time to the whole answer, in milliseconds.
pub const LATENCY: &str = "latency";
/// Measure: cost of the answer, in US dollars.
pub const COST: &str = "cost";
/// Measure: share of units that got an error.
pub const ERROR: &str = "error";
/// Measure: share of units whose request was refused by the model.
pub const REFUSAL: &str = "refusal";

/// Reasons for the end of an answer that say that the model, or its provider, refused.
const REFUSED: [&str; 5] =
    ["refusal", "content_filter", "safety", "prohibited_content", "blocklist"];
/// Kind of the error of an attempt that another one beat.
const BEATEN: &str = "hedge_lost";

/// A unit that stays in its arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A session.
    #[default]
    Session,
    /// A person: the holder of a virtual key of the router.
    User,
}

impl Unit {
    /// Returns the name that the router knows it by.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::User => "user",
        }
    }
}

/// A side of an experiment, as the router names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// An arm, whose answer the client got.
    Arm(Arm),
    /// A request that was asked beside an answer.
    Beside,
}

/// End of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// There was an answer.
    Answered,
    /// There was none, or half of one.
    Failed,
    /// The model refused.
    Refused,
    /// The client went away.
    GivenUp,
}

impl Sign {
    /// Returns the number in the database.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Answered => 0,
            Self::Failed => 1,
            Self::Refused => 2,
            Self::GivenUp => 3,
        }
    }
}

/// An observation of an attempt at a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation<'a> {
    /// Side that the request is on.
    pub side: Side,
    /// Id of the request: of one that was asked beside another, that of the other.
    pub request: &'a str,
    /// Session.
    pub session: Option<&'a str>,
    /// Person.
    pub user: Option<&'a str>,
    /// Model that was asked.
    pub model: Option<&'a str>,
    /// Number of the attempt, from 1.
    pub attempt: u16,
    /// End of it.
    pub sign: Sign,
    /// Time of its start, in milliseconds since the Unix epoch.
    pub started_at: i64,
    /// Time of its end, in milliseconds since the Unix epoch.
    pub ended_at: i64,
    /// Size of the request, in bytes.
    pub bytes: Option<u64>,
    /// Time to the whole answer, in milliseconds, where there was one.
    pub latency_ms: Option<f64>,
    /// Cost of the answer in US dollars, where there was one and its cost is known.
    pub cost_usd: Option<f64>,
}

impl<'a> Observation<'a> {
    /// Reads the report of a request; none where it is about another experiment, or says nothing
    /// about an answer.
    #[must_use]
    pub fn of(event: &'a LlmRequestCompleted, experiment: &str) -> Option<Self> {
        let side = event.variant.as_deref()?.strip_prefix(experiment)?.strip_prefix(':')?;
        let side = match side {
            "control" => Side::Arm(Arm::Champion),
            "variant" => Side::Arm(Arm::Challenger),
            "shadow" => Side::Beside,
            _ => return None,
        };
        let is_text = event.operation.as_deref() != Some("embeddings");
        let is_beaten = event.error_type.as_deref() == Some(BEATEN);
        if event.source != Some(RequestSource::Gateway) || !is_text || is_beaten {
            return None;
        }
        let sign = sign(event)?;
        let is_answered = sign == Sign::Answered;
        Some(Self {
            side,
            request: event.source_ref.as_deref().unwrap_or(&event.dedupe_key),
            session: event.session_id.as_deref(),
            user: event.user.as_deref(),
            model: event.routed_model.as_deref(),
            attempt: event.attempt.unwrap_or(1),
            sign,
            started_at: event.started_at,
            ended_at: event.ended_at,
            bytes: event.request_bytes,
            latency_ms: event.duration_ms.filter(|_| is_answered).map(f64::from),
            cost_usd: event.cost_nano_usd.filter(|_| is_answered).map(dollars),
        })
    }

    /// Returns the unit.
    #[must_use]
    pub const fn unit(&self, unit: Unit) -> Option<&'a str> {
        match unit {
            Unit::Session => self.session,
            Unit::User => self.user,
        }
    }

    /// Returns whether another model than this one was asked.
    #[must_use]
    pub fn is_of_another(&self, model: &str) -> bool {
        self.model.is_some_and(|asked| !asked.eq_ignore_ascii_case(model))
    }

    /// Returns the values for guardrails.
    #[must_use]
    pub fn measures(&self) -> Vec<(&'static str, f64)> {
        let mut all = Vec::with_capacity(4);
        if self.sign != Sign::GivenUp {
            all.push((ERROR, f64::from(u8::from(self.sign == Sign::Failed))));
            all.push((REFUSAL, f64::from(u8::from(self.sign == Sign::Refused))));
        }
        all.extend(self.latency_ms.map(|value| (LATENCY, value)));
        all.extend(self.cost_usd.map(|value| (COST, value)));
        all
    }
}

#[expect(clippy::cast_precision_loss, reason = "an answer costs less than a million dollars")]
fn dollars(nano_usd: i64) -> f64 {
    nano_usd as f64 / 1e9
}

fn sign(event: &LlmRequestCompleted) -> Option<Sign> {
    Some(match event.status? {
        RequestStatus::ClientAbort => Sign::GivenUp,
        // Nobody was asked.
        RequestStatus::Rejected => return None,
        RequestStatus::Error | RequestStatus::UpstreamCut | RequestStatus::Timeout => Sign::Failed,
        RequestStatus::Ok | RequestStatus::Cached => {
            let reason = event.finish_reason.as_deref().unwrap_or_default();
            let is_refusal = REFUSED.iter().any(|it| it.eq_ignore_ascii_case(reason));
            if is_refusal { Sign::Refused } else { Sign::Answered }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> LlmRequestCompleted {
        LlmRequestCompleted {
            source: Some(RequestSource::Gateway),
            source_ref: Some("r1".to_owned()),
            variant: Some("v2-a1:variant".to_owned()),
            status: Some(RequestStatus::Ok),
            session_id: Some("s".to_owned()),
            duration_ms: Some(1_200),
            cost_nano_usd: Some(2_500_000),
            ..LlmRequestCompleted::default()
        }
    }

    #[test]
    fn reports_of_the_experiment_are_read() {
        let event = event();
        let seen = Observation::of(&event, "v2-a1").expect("it is of it");
        assert_eq!(seen.side, Side::Arm(Arm::Challenger));
        assert_eq!((seen.unit(Unit::Session), seen.unit(Unit::User)), (Some("s"), None));
        let expected = [(ERROR, 0.0), (REFUSAL, 0.0), (LATENCY, 1_200.0), (COST, 0.0025)];
        assert_eq!(seen.measures(), expected);
        type Change = fn(&mut LlmRequestCompleted);
        let others: [Change; 7] = [
            |it| it.variant = None,
            |it| it.variant = Some("v2-a2:variant".to_owned()),
            |it| it.variant = Some("v2-a1:other".to_owned()),
            |it| it.source = Some(RequestSource::Transcript),
            |it| it.operation = Some("embeddings".to_owned()),
            |it| it.error_type = Some("hedge_lost".to_owned()),
            |it| it.status = Some(RequestStatus::Rejected),
        ];
        for change in others {
            let mut other = event.clone();
            change(&mut other);
            assert_eq!(Observation::of(&other, "v2-a1"), None, "{:?}", other.variant);
        }
    }

    #[test]
    fn an_end_has_its_sign() {
        let check = |status, reason: &str, expected: Sign, measures: usize| {
            let finish_reason = Some(reason.to_owned());
            let event = LlmRequestCompleted { status: Some(status), finish_reason, ..event() };
            let seen = Observation::of(&event, "v2-a1").expect("it is of it");
            assert_eq!((seen.sign, seen.measures().len()), (expected, measures), "{reason}");
        };
        check(RequestStatus::Ok, "stop", Sign::Answered, 4);
        check(RequestStatus::Cached, "length", Sign::Answered, 4);
        check(RequestStatus::Ok, "SAFETY", Sign::Refused, 2);
        check(RequestStatus::Error, "", Sign::Failed, 2);
        check(RequestStatus::Timeout, "", Sign::Failed, 2);
        check(RequestStatus::ClientAbort, "", Sign::GivenUp, 0);
    }
}
