//! A circuit breaker: after a row of failures a target is left alone, then asked once.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of the breakers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerOptions {
    /// Failures in a row after which a model of a provider is left alone.
    #[schemars(range(min = 1, max = 1000))]
    pub failures: u32,
    /// Time for which it is left alone at first, seconds; it doubles with every probe that fails.
    #[schemars(range(min = 1, max = 3600))]
    pub open_seconds: u32,
    /// Longest time for which it is left alone, seconds.
    #[schemars(range(min = 1, max = 86400))]
    pub max_open_seconds: u32,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, open_seconds: 10, max_open_seconds: 120 }
    }
}

/// State of a breaker, in a word for `lodestar router targets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// Requests pass.
    Closed,
    /// None passes before the time.
    Open(Instant),
    /// The next request, or the one under way, is a probe.
    HalfOpen,
}

impl BreakerState {
    /// Returns its name.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Role of an admitted request: `true` for the probe of a half-open breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IsProbe(pub bool);

/// Breaker of one target.
#[derive(Debug)]
pub(crate) struct Breaker {
    options: BreakerOptions,
    failures: u32,
    /// Time until which it is open.
    until: Option<Instant>,
    /// Time for which it is open next.
    pause: Duration,
    /// Time at which the probe under way began.
    probing: Option<Instant>,
}

/// Time after which a probe of which nothing was heard is given up.
const PROBE: Duration = Duration::from_secs(600);

impl Breaker {
    /// Creates a closed breaker.
    pub(crate) fn new(options: BreakerOptions) -> Self {
        let pause = Duration::from_secs(u64::from(options.open_seconds));
        Self { options, failures: 0, until: None, pause, probing: None }
    }

    /// Returns its state.
    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        match self.until {
            None => BreakerState::Closed,
            Some(until) if now < until => BreakerState::Open(until),
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// Returns whether a request may be sent now. Where it is a probe, no other one may until its
    /// outcome is recorded.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<IsProbe> {
        match self.state(now) {
            BreakerState::Closed => Some(IsProbe(false)),
            BreakerState::Open(_) => None,
            BreakerState::HalfOpen => {
                let is_free = self.probing.is_none_or(|since| now.duration_since(since) > PROBE);
                is_free.then(|| {
                    self.probing = Some(now);
                    IsProbe(true)
                })
            }
        }
    }

    /// Records an answer. Returns `true` when it closes the breaker. One of a request that began
    /// before it opened says nothing of now.
    pub(crate) fn succeed(&mut self, request: IsProbe) -> bool {
        let was_open = self.until.is_some();
        if was_open && !request.0 {
            return false;
        }
        *self = Self::new(self.options);
        was_open
    }

    /// Records that an admitted request said nothing of the target: its client went away.
    pub(crate) fn abandon(&mut self, request: IsProbe) {
        if request.0 {
            self.probing = None;
        }
    }

    /// Records a failure. Returns `true` when it opens the breaker.
    pub(crate) fn fail(&mut self, now: Instant, request: IsProbe) -> bool {
        self.failures = self.failures.saturating_add(1);
        let was_probe = request.0 && self.probing.take().is_some();
        let opens = was_probe || (self.until.is_none() && self.failures >= self.options.failures);
        if opens {
            self.until = Some(now + self.pause);
            let longest = Duration::from_secs(u64::from(self.options.max_open_seconds));
            self.pause = (self.pause * 2).min(longest);
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: IsProbe = IsProbe(false);
    const PROBE_IS: IsProbe = IsProbe(true);

    #[test]
    fn one_probe_is_let_through_and_closes_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(BreakerOptions { failures: 2, ..Default::default() });
        assert!(!breaker.fail(at(0), OLD) && breaker.admit(at(0)) == Some(OLD));
        assert!(breaker.fail(at(0), OLD), "the second failure opens it");
        assert_eq!(breaker.admit(at(9)), None);
        assert!(!breaker.fail(at(9), OLD), "one that was under way changes nothing");
        assert_eq!(breaker.admit(at(10)), Some(PROBE_IS));
        assert_eq!((breaker.admit(at(10)), breaker.admit(at(20))), (None, None), "only one");
        breaker.abandon(OLD);
        assert!(!breaker.succeed(OLD), "what began before says nothing of now");
        assert_eq!(breaker.admit(at(20)), None);
        assert!(breaker.fail(at(20), PROBE_IS), "it failed: open again, for twice as long");
        assert_eq!(breaker.admit(at(39)), None);
        assert_eq!(breaker.admit(at(40)), Some(PROBE_IS));
        breaker.abandon(PROBE_IS);
        assert_eq!(breaker.admit(at(41)), Some(PROBE_IS), "another one takes its place");
        assert!(breaker.succeed(PROBE_IS), "it closes");
        assert_eq!(breaker.state(at(41)), BreakerState::Closed);
        assert_eq!((breaker.admit(at(41)), breaker.admit(at(41))), (Some(OLD), Some(OLD)));
        assert!(!breaker.fail(at(42), OLD), "it begins anew");
    }

    #[test]
    fn pauses_are_bounded() {
        let options = BreakerOptions { failures: 1, open_seconds: 10, max_open_seconds: 25 };
        let mut breaker = Breaker::new(options);
        let mut now = Instant::now();
        let mut request = OLD;
        for seconds in [10, 20, 25, 25] {
            assert!(breaker.fail(now, request));
            let BreakerState::Open(until) = breaker.state(now) else { panic!("it is open") };
            assert_eq!(until, now + Duration::from_secs(seconds));
            now = until;
            request = breaker.admit(now).expect("a probe");
        }
    }
}
