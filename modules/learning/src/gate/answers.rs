//! Gates of the answers to held-out questions: as good as those of the base, and as quick.

use std::time::Duration;

use serde_json::json;

use super::{Fault, Interval, Limits, Measured, Session, Strategy, interval, is_exact, overlap};

/// Fewest answers of which the slow end is looked at: of fewer it would be one answer.
const FEWEST_OF_A_TAIL: usize = 20;

/// A question that both were asked, with the answer that a person found good.
#[derive(Clone)]
pub(super) struct Pair {
    /// The answer that was kept.
    pub(super) reference: String,
    /// Answer of the base, and its time.
    pub(super) base: (String, Duration),
    /// Answer of the version, and its time.
    pub(super) version: (String, Duration),
}

/// Answers that are not worse than those of the base by more than the limit.
pub(super) struct Task;

impl Strategy for Task {
    fn name(&self) -> &'static str {
        "task"
    }

    fn limit(&self, limits: &Limits) -> Option<f64> {
        Some(-limits.worse_by)
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let (pairs, seed) = (session.pairs()?, session.seed());
        task(&pairs, session.limits(), seed)
    }
}

fn task(pairs: &[Pair], limits: &Limits, seed: u64) -> Result<Measured, Fault> {
    let score = |pair: &Pair, answer: &str| overlap(&pair.reference, answer);
    let differences: Vec<f64> =
        pairs.iter().map(|it| score(it, &it.version.0) - score(it, &it.base.0)).collect();
    let Some(Interval { mean, low, high }) = interval(&differences, seed) else {
        return Err(Fault::NotMeasured("too few held-out questions".to_owned()));
    };
    let average =
        |of: &dyn Fn(&Pair) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
    let exact = |of: &dyn Fn(&Pair) -> bool| pairs.iter().filter(|it| of(it)).count();
    let evidence = json!({
        "questions": pairs.len(),
        "base": average(&|it| score(it, &it.base.0)),
        "version": average(&|it| score(it, &it.version.0)),
        "exact_base": exact(&|it| is_exact(&it.reference, &it.base.0)),
        "exact_version": exact(&|it| is_exact(&it.reference, &it.version.0)),
        "measure": "overlap of words with the answer that was kept (F1)",
        "difference": {"mean": mean, "low": low, "high": high},
    });
    Ok(Measured::at_least(low, -limits.worse_by, evidence))
}

/// Time that nobody notices in a whole answer, in milliseconds: an answer of a tiny base takes so
/// little that its ratio tells of the machine.
const NOT_NOTICED_MS: f64 = 50.0;

/// Number of times that each question is timed at most, before a version counts as slow.
const ROUNDS: u32 = 3;

/// Answers that take not much longer than those of the base: the median of them, or the time that
/// 95 % keep to.
pub(super) struct Latency {
    pub(super) is_tail: bool,
}

impl Strategy for Latency {
    fn name(&self) -> &'static str {
        if self.is_tail { "latency_p95" } else { "latency" }
    }

    fn limit(&self, limits: &Limits) -> Option<f64> {
        Some(if self.is_tail { limits.slower_p95() } else { limits.slower })
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let mut measured = self.compare(&session.pairs()?, session.limits())?;
        for _ in 1..ROUNDS {
            if measured.passed {
                break;
            }
            match session.pairs_again() {
                Ok(pairs) => measured = self.compare(&pairs, session.limits())?,
                // What was measured so far stands.
                Err(Fault::NotMeasured(_)) => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok(measured)
    }
}

impl Latency {
    fn compare(&self, pairs: &[Pair], limits: &Limits) -> Result<Measured, Fault> {
        if self.is_tail && pairs.len() < FEWEST_OF_A_TAIL {
            return Err(Fault::NotApplicable(format!(
                "there are {} held-out questions, and fewer than {FEWEST_OF_A_TAIL} have no slow \
                 end to tell of",
                pairs.len()
            )));
        }
        let time = |of: &dyn Fn(&Pair) -> Duration| {
            let mut all: Vec<Duration> = pairs.iter().map(of).collect();
            all.sort_unstable();
            let at = if self.is_tail { (all.len() * 95).div_ceil(100) - 1 } else { all.len() / 2 };
            all.get(at).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        let (base, version) = (time(&|it| it.base.1), time(&|it| it.version.1));
        if base <= 0.0 {
            return Err(Fault::NotMeasured("no times were measured".to_owned()));
        }
        let limit = if self.is_tail { limits.slower_p95() } else { limits.slower };
        let evidence = json!({
            "questions": pairs.len(), "base_ms": base, "version_ms": version,
            "not_noticed_ms": NOT_NOTICED_MS,
        });
        let mut measured = Measured::at_most(version / base, limit, evidence);
        measured.passed |= version - base <= NOT_NOTICED_MS;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(reference: &str, base: &str, version: &str, slower: u64) -> Pair {
        Pair {
            reference: reference.to_owned(),
            base: (base.to_owned(), Duration::from_millis(1_000)),
            version: (version.to_owned(), Duration::from_millis(1_000 + slower)),
        }
    }

    fn measured(pairs: &[Pair]) -> [Result<Measured, Fault>; 3] {
        let limits = Limits::default();
        let latency = |is_tail| Latency { is_tail }.compare(pairs, &limits);
        [task(pairs, &limits, 1), latency(false), latency(true)]
    }

    fn passed(pairs: &[Pair]) -> [bool; 3] {
        measured(pairs).map(|it| it.expect("it is measured").passed)
    }

    #[test]
    fn a_version_that_learnt_passes_and_one_that_forgot_does_not() {
        let learnt: Vec<Pair> = (0..40)
            .map(|it| pair("it costs 7 euros", "I do not know", "it costs 7 euros", it % 3))
            .collect();
        assert_eq!(passed(&learnt), [true, true, true]);
        let forgot: Vec<Pair> = learnt
            .iter()
            .map(|it| Pair { base: it.version.clone(), version: it.base.clone(), ..it.clone() })
            .collect();
        assert_eq!(passed(&forgot), [false, true, true]);
        let [task, ..] = measured(&forgot);
        let evidence = task.expect("it is measured").evidence;
        assert_eq!((&evidence["exact_base"], &evidence["exact_version"]), (&json!(40), &json!(0)));
    }

    #[test]
    fn one_that_is_slow_in_the_middle_or_at_its_end_does_not_pass() {
        let same = |slower: &dyn Fn(u64) -> u64| -> Vec<Pair> {
            (0..40).map(|it| pair("a b", "a b", "a b", slower(it))).collect()
        };
        assert_eq!(passed(&same(&|_| 300)), [true, false, true]);
        assert_eq!(passed(&same(&|it| if it < 3 { 900 } else { 0 })), [true, true, false]);
        assert_eq!(passed(&same(&|it| if it < 2 { 900 } else { 0 })), [true, true, true]);
        let [_, median, _] = measured(&same(&|_| 300));
        let value = median.expect("it is measured").value;
        assert!((value - 1.3).abs() < 1e-9, "{value}");
        // Twice the time, of which nobody notices anything.
        let quick = |it: &Pair| Pair {
            base: (it.base.0.clone(), Duration::from_millis(20)),
            version: (it.version.0.clone(), Duration::from_millis(40)),
            ..it.clone()
        };
        let quick: Vec<Pair> = same(&|_| 0).iter().map(quick).collect();
        assert_eq!(passed(&quick), [true, true, true]);
    }

    #[test]
    fn few_answers_say_nothing() {
        let [task, median, tail] = measured(&[]);
        assert!(matches!(task, Err(Fault::NotMeasured(_))));
        assert!(matches!(median, Err(Fault::NotMeasured(_))));
        assert!(matches!(tail, Err(Fault::NotApplicable(_))));
        let few: Vec<Pair> = (0..19).map(|_| pair("a", "a", "a", 900)).collect();
        let [task, median, tail] = measured(&few);
        assert!(task.is_ok_and(|it| it.passed) && median.is_ok_and(|it| !it.passed));
        assert!(matches!(tail, Err(Fault::NotApplicable(_))));
    }
}
