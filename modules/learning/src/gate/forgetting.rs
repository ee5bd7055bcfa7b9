//! Gate of what a version must not forget: plain questions that the base answers rightly.

use serde_json::json;

use super::{Fault, Limits, Measured, Session, Strategy, interval, questions, session::Who};

/// Longest answer to a plain question, in tokens.
const MOST: u32 = 64;
/// Fewest right answers of the base: one that knows less has nothing to forget.
const FEWEST: usize = 10;

/// Plain questions that come with Lodestar. A version may lose as many points as the limit says, or
/// as few as an interval of 95 % cannot tell from none.
pub(super) struct Forgetting;

impl Strategy for Forgetting {
    fn name(&self) -> &'static str {
        "forgetting"
    }

    fn limit(&self, limits: &Limits) -> Option<f64> {
        Some(limits.forgotten)
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        let questions = questions::forgetting();
        session.expect(2 * questions.len());
        let (mut base, mut version) = (Vec::new(), Vec::new());
        for question in &questions {
            for (who, right) in [(Who::Base, &mut base), (Who::Version, &mut version)] {
                let answer = session.answer(who, &question.messages, MOST)?;
                right.push(question.checks.iter().all(|check| check.passes(&answer.text)));
            }
        }
        judge(&base, &version, session.limits().forgotten, session.seed())
    }
}

/// Compares what each answered rightly, question by question.
fn judge(base: &[bool], version: &[bool], limit: f64, seed: u64) -> Result<Measured, Fault> {
    let count = |right: &[bool]| right.iter().filter(|it| **it).count();
    let (known, kept) = (count(base), count(version));
    if known < FEWEST {
        return Err(Fault::NotApplicable(format!(
            "the base answers {known} of {} plain questions, too few to forget some",
            base.len()
        )));
    }
    let lost: Vec<f64> = base
        .iter()
        .zip(version)
        .map(|(base, version)| f64::from(u8::from(*base)) - f64::from(u8::from(*version)))
        .collect();
    let points = lost.iter().sum::<f64>() * 100.0 / lost.len().max(1) as f64;
    let interval = interval(&lost, seed);
    let low = interval.map(|it| it.low * 100.0);
    let evidence = json!({
        "questions": base.len(), "base": known, "version": kept,
        "points": {"low": low, "high": interval.map(|it| it.high * 100.0)},
        "lost": numbers(base, version), "learnt": numbers(version, base),
    });
    let is_none = low.is_some_and(|low| low <= 0.0);
    Ok(Measured { passed: points <= limit || is_none, value: points, limit: Some(limit), evidence })
}

/// Returns the numbers of the questions that the one answers rightly and the other does not.
fn numbers(one: &[bool], other: &[bool]) -> Vec<usize> {
    let pairs = (1..).zip(one.iter().zip(other));
    pairs.filter(|(_, (one, other))| **one && !**other).map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether a version passes that lost and learnt so many of 60 questions, of which the
    /// base knew 40.
    fn passes(lost: usize, learnt: usize) -> bool {
        let base: Vec<bool> = (0..60).map(|it| it < 40).collect();
        let version: Vec<bool> =
            (0..60).map(|it| (it >= lost && it < 40) || (40..40 + learnt).contains(&it)).collect();
        judge(&base, &version, 2.0, 7).expect("it is measured").passed
    }

    #[test]
    fn what_chance_explains_is_not_forgotten() {
        for (lost, learnt, expected) in [
            (0, 0, true),
            (1, 0, true),
            (3, 0, true),
            (5, 0, false),
            (8, 0, false),
            (8, 7, true),
            (20, 5, false),
            (40, 0, false),
        ] {
            assert_eq!(passes(lost, learnt), expected, "{lost} lost, {learnt} learnt");
        }
    }

    #[test]
    fn what_was_lost_is_told_by_its_number() {
        let base = [true; 12];
        let mut version = base;
        (version[1], version[4]) = (false, false);
        let measured = judge(&base, &version, 2.0, 7).expect("it is measured");
        assert_eq!(measured.evidence["lost"], json!([2, 5]));
        assert!((measured.value - 100.0 * 2.0 / 12.0).abs() < 1e-9);
    }

    #[test]
    fn a_base_that_knows_nothing_forgets_nothing() {
        let little: Vec<bool> = (0..60).map(|it| it < 9).collect();
        let found = judge(&little, &[false; 60], 2.0, 7);
        assert!(matches!(found, Err(Fault::NotApplicable(reason)) if reason.contains("9 of 60")));
    }
}
