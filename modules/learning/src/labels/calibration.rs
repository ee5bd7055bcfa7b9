//! Calibration: what a policy says of requests that it did not learn from, beside what was so.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Config;
use crate::{
    gate::{Interval, at_least, at_most, interval, not_measured},
    registry::Gate,
};

/// Bins of the table of reliability.
const BINS: usize = 10;

/// Held-back answers of local models on which the figures may rest.
const LEAST_HELD_OUT: f64 = 50.0;

/// Quantile of the normal distribution for 95 % in the middle.
const Z: f64 = 1.959_963_984_540_054;

/// A held-back request, and what a policy says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// `true` when the local model was right.
    pub local_right: bool,
    /// `true` when the paid model was right; none where nobody judged it.
    pub paid_right: Option<bool>,
    /// Probability that the local model is right, as the policy says.
    pub predicted: f64,
    /// `true` when it resembles nothing that was learnt from.
    pub strange: bool,
    /// `true` where the policy leaves it to the local model, for each promise.
    pub local_at: Vec<bool>,
}

/// A share with its Wilson interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The share.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Share {
    /// Returns the share of some of all; 0 of nothing, of which nothing is known.
    #[must_use]
    pub fn of(some: u64, all: u64) -> Self {
        if all == 0 {
            return Self { value: 0.0, low: 0.0, high: 1.0 };
        }
        let (n, p) = (all as f64, some as f64 / all as f64);
        let centre = p + Z * Z / (2.0 * n);
        let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        let end = |value: f64| (value / scale).clamp(0.0, 1.0);
        Self { value: p, low: end(centre - spread), high: end(centre + spread) }
    }
}

/// A row of the table of reliability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower bound of the predictions in it; the upper one is a tenth higher.
    pub from: f64,
    /// Number of requests in it.
    pub number: u64,
    /// Mean of the predictions.
    pub predicted: f64,
    /// Share that was right.
    pub right: Share,
}

/// A way to choose between the local and the paid model, on the held-back requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// Name of it.
    pub name: String,
    /// Share of the paid model's right answers that it promises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promise: Option<f64>,
    /// Share that is answered locally.
    pub local: Share,
    /// Share that is answered right.
    pub right: Share,
    /// Difference to always asking the paid model, in pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside_paid: Option<Difference>,
    /// Difference to asking the local model as often by chance, in pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside_random: Option<Difference>,
}

/// Mean of paired differences with an interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl From<Interval> for Difference {
    fn from(it: Interval) -> Self {
        Self { mean: it.mean, low: it.low, high: it.high }
    }
}

/// Calibration of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Held-back answers of local models.
    pub held_out: u64,
    /// Those of them where somebody judged the paid answer too; the others count as right there.
    pub paid_judged: u64,
    /// Those that resemble nothing that was learnt from.
    pub strange: u64,
    /// Mean squared error of the predictions (Brier).
    pub brier: f64,
    /// The same of one number for all: the share that was right in what was learnt from.
    pub brier_of_share: f64,
    /// Predictions by tenths, beside what was so.
    pub reliability: Vec<Bin>,
    /// The policy under its promises, and what needs no policy.
    pub ways: Vec<Way>,
}

/// Measures a policy. `trained_right` is the share of right answers in what it was learnt from.
#[must_use]
pub fn calibration(
    held: &[Held],
    promises: &[f64],
    trained_right: f64,
    seed: u64,
) -> Option<Calibration> {
    if held.is_empty() {
        return None;
    }
    let number = held.len() as f64;
    let right = |it: &Held| f64::from(u8::from(it.local_right));
    let brier = |predicted: &dyn Fn(&Held) -> f64| {
        held.iter().map(|it| (predicted(it) - right(it)).powi(2)).sum::<f64>() / number
    };
    let mut ways: Vec<Way> = promises
        .iter()
        .enumerate()
        .map(|(index, promise)| {
            let is_local = |it: &Held| it.local_at.get(index) == Some(&true);
            Way { promise: Some(*promise), ..way("policy", held, &is_local, seed) }
        })
        .collect();
    let share = ways.first().map_or(0.0, |way| way.local.value);
    ways.push(way("always local", held, &|_| true, seed));
    ways.push(way("always paid", held, &|_| false, seed));
    ways.push(by_chance(held, share));
    Some(Calibration {
        held_out: held.len() as u64,
        paid_judged: count(held, |it| it.paid_right.is_some()),
        strange: count(held, |it| it.strange),
        brier: brier(&|it| it.predicted),
        brier_of_share: brier(&|_| trained_right),
        reliability: reliability(held),
        ways,
    })
}

fn count(held: &[Held], is: impl Fn(&Held) -> bool) -> u64 {
    held.iter().filter(|it| is(it)).count() as u64
}

/// Returns whether the paid model is right: where nobody judged it, it is taken to be.
fn paid(it: &Held) -> bool {
    it.paid_right.unwrap_or(true)
}

fn way(name: &str, held: &[Held], is_local: &dyn Fn(&Held) -> bool, seed: u64) -> Way {
    let all = held.len() as u64;
    let is_right = |it: &Held| if is_local(it) { it.local_right } else { paid(it) };
    let local = Share::of(count(held, is_local), all);
    let number = |is: bool| f64::from(u8::from(is));
    let beside = |other: &dyn Fn(&Held) -> f64| {
        let differences: Vec<f64> =
            held.iter().map(|it| number(is_right(it)) - other(it)).collect();
        interval(&differences, seed).map(Difference::from)
    };
    let share = local.value;
    Way {
        name: name.to_owned(),
        promise: None,
        local,
        right: Share::of(count(held, is_right), all),
        beside_paid: beside(&|it| number(paid(it))),
        beside_random: beside(&|it| {
            share * number(it.local_right) + (1.0 - share) * number(paid(it))
        }),
    }
}

/// Returns what chance would bring that asks the local model as often.
fn by_chance(held: &[Held], share: f64) -> Way {
    let all = held.len() as u64;
    let expected =
        share * count(held, |it| it.local_right) as f64 + (1.0 - share) * count(held, paid) as f64;
    Way {
        name: "random".to_owned(),
        promise: None,
        local: Share::of((share * all as f64).round() as u64, all),
        right: Share::of(expected.round() as u64, all),
        beside_paid: None,
        beside_random: None,
    }
}

fn reliability(held: &[Held]) -> Vec<Bin> {
    let bin = |it: &Held| ((it.predicted * BINS as f64) as usize).min(BINS - 1);
    (0..BINS)
        .filter_map(|index| {
            let within: Vec<&Held> = held.iter().filter(|it| bin(it) == index).collect();
            let number = within.len() as u64;
            let right = within.iter().filter(|it| it.local_right).count() as u64;
            let sum: f64 = within.iter().map(|it| it.predicted).sum();
            (number > 0).then(|| Bin {
                from: index as f64 / BINS as f64,
                number,
                predicted: sum / number as f64,
                right: Share::of(right, number),
            })
        })
        .collect()
}

/// Returns the gates of a policy: enough labels, better than one number for all and than chance,
/// and a promise that is kept.
#[must_use]
pub fn gates(labels: u64, found: Option<&Calibration>, config: &Config) -> Vec<Gate> {
    let mut gates = vec![at_least("labels", labels as f64, config.least as f64, json!({}))];
    let Some((found, policy)) = found.and_then(|it| Some((it, it.ways.first()?))) else {
        let reason = "nothing was held back";
        gates.push(not_measured("held_out", LEAST_HELD_OUT, reason));
        return gates;
    };
    gates.push(at_least("held_out", found.held_out as f64, LEAST_HELD_OUT, json!({})));
    let brier = json!({"brier": found.brier, "brier_of_share": found.brier_of_share});
    gates.push(at_most("calibration", found.brier - found.brier_of_share, 0.0, brier));
    let paid = found.ways.iter().find(|way| way.name == "always paid");
    let paid = paid.map_or(1.0, |way| way.right.value);
    let promise = policy.promise.unwrap_or(config.promise);
    let limit = -(1.0 - promise) * paid - config.margin;
    let evidence = |difference: &Difference| -> Value {
        json!({"difference": difference, "answered_locally": policy.local})
    };
    gates.push(match &policy.beside_paid {
        Some(it) => at_least("promise", it.low, limit, evidence(it)),
        None => not_measured("promise", limit, "too little was held back"),
    });
    gates.push(match &policy.beside_random {
        Some(it) => at_least("better_than_random", it.mean, 0.0, evidence(it)),
        None => not_measured("better_than_random", 0.0, "too little was held back"),
    });
    gates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(predicted: f64, local_right: bool, is_local: bool) -> Held {
        let local_at = vec![is_local, false];
        Held { local_right, paid_right: None, predicted, strange: false, local_at }
    }

    /// Returns requests of which a policy knows the half that the local model answers.
    fn knowing(number: usize) -> Vec<Held> {
        (0..number)
            .map(|index| {
                let is_easy = index % 2 == 0;
                let predicted = if is_easy { 0.95 } else { 0.05 };
                held(predicted, is_easy, is_easy)
            })
            .collect()
    }

    fn passed(gates: &[Gate]) -> Vec<&str> {
        gates.iter().filter(|gate| gate.passed).map(|gate| gate.name.as_str()).collect()
    }

    #[test]
    fn a_share_has_wilsons_interval() {
        // Newcombe 1998, table I.
        for (some, all, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
        {
            let share = Share::of(some, all);
            assert!(
                (share.low - low).abs() < 1e-4 && (share.high - high).abs() < 1e-4,
                "{share:?}"
            );
        }
        assert_eq!(Share::of(0, 0), Share { value: 0.0, low: 0.0, high: 1.0 });
    }

    #[test]
    fn a_policy_that_knows_passes_and_the_others_stand_beside_it() {
        let found = calibration(&knowing(200), &[0.95, 0.99], 0.5, 1).expect("it is measured");
        assert!((found.brier - 0.0025).abs() < 1e-9, "{}", found.brier);
        assert!((found.brier_of_share - 0.25).abs() < 1e-9);
        let way = |index: usize| (found.ways[index].local.value, found.ways[index].right.value);
        assert_eq!(way(0), (0.5, 1.0));
        // Under the stricter promise everything is paid for.
        assert_eq!(way(1), (0.0, 1.0));
        assert_eq!((way(2), way(3), way(4)), ((1.0, 0.5), (0.0, 1.0), (0.5, 0.75)));
        let bins: Vec<(f64, u64, f64)> =
            found.reliability.iter().map(|it| (it.from, it.number, it.right.value)).collect();
        assert_eq!(bins, [(0.0, 100, 0.0), (0.9, 100, 1.0)]);
        let gates = gates(300, Some(&found), &Config::default());
        let all = ["labels", "held_out", "calibration", "promise", "better_than_random"];
        assert_eq!(passed(&gates), all);
    }

    #[test]
    fn a_policy_that_knows_nothing_is_stopped_by_its_gates() {
        // It says 0.9 of everything, and half of it is wrong.
        let guessing: Vec<Held> =
            (0..200).map(|index| held(0.9, index % 2 == 0, index % 4 < 2)).collect();
        let found = calibration(&guessing, &[0.95], 0.5, 1).expect("it is measured");
        let shut = gates(300, Some(&found), &Config::default());
        assert_eq!(passed(&shut), ["labels", "held_out", "better_than_random"]);
        // Few labels, and nothing that was held back.
        let few = calibration(&knowing(20), &[0.95], 0.5, 1).expect("it is measured");
        let shut = gates(100, Some(&few), &Config::default());
        assert_eq!(passed(&shut), ["calibration", "promise", "better_than_random"]);
        assert_eq!(passed(&gates(100, None, &Config::default())), [] as [&str; 0]);
        assert_eq!(calibration(&[], &[0.95], 0.5, 1), None);
    }

    #[test]
    fn a_paid_answer_that_was_wrong_counts_as_wrong() {
        let both_wrong = |_| Held { paid_right: Some(false), ..held(0.1, false, false) };
        let all: Vec<Held> = (0..20).map(both_wrong).collect();
        let found = calibration(&all, &[0.95], 0.5, 1).expect("it is measured");
        assert_eq!((found.paid_judged, found.ways[0].right.value), (20, 0.0));
    }
}
