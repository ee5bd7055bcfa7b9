//! Benchmark of the experiments: simulated ones, with a look after each observation.
//!
//! `cargo xtask bench learning`. Each figure is a share of 10,000 experiments with 2,000 units in
//! each arm; beside the rates of wrong findings stands a z-test that is looked at just as often,
//! from 30 units in each arm on.

use learning::experiment::{Arm, EProcess, Null};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Simulated experiments.
const EXPERIMENTS: u64 = 10_000;
/// Units of an arm.
const UNITS: u64 = 2_000;
/// Level of the tests.
const ALPHA: f64 = 0.05;
/// Critical value of a two-sided z-test at that level.
const Z: f64 = 1.959_964;
/// Units of an arm before which the z-test is not looked at.
const FEWEST: u64 = 30;

fn main() {
    for rate in [0.1, 0.5, 0.8, 0.95] {
        let (ours, peeked) = simulate(Null::Equal, [rate, rate]);
        let name = format!("equal arms at {rate}: found to differ");
        println!("{}", figure(&name, ours, Some(peeked)));
    }
    for (champion, margin) in [(0.5, 0.1), (0.8, 0.1), (0.9, 0.05), (0.95, 0.1)] {
        // At the boundary of the null hypothesis.
        let rates = [champion, champion - margin];
        let (ours, _) = simulate(Null::WorseBy(margin), rates);
        let name = format!("{champion} and worse by {margin}: found to be no worse");
        println!("{}", figure(&name, ours, None));
    }
    let (found, _) = simulate(Null::WorseBy(0.1), [0.8, 0.8]);
    let goal = json!({"at_least": 90.0, "of": "value"});
    let name = "as good at 0.8, margin 0.1: found to be no worse";
    println!("{}", json!({"name": name, "value": found, "unit": "%", "goal": goal}));
    // Of this process, whatever else the machine does.
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    let goal = json!({"at_most": 60.0, "of": "value"});
    let name = "time of all simulations";
    println!("{}", json!({"name": name, "value": seconds, "unit": "CPU-s", "goal": goal}));
}

fn figure(name: &str, ours: f64, peeked: Option<f64>) -> Value {
    let goal = json!({"at_most": 100.0 * ALPHA, "of": "value"});
    let mut figure = json!({"name": name, "value": ours, "unit": "%", "goal": goal});
    if let Some(value) = peeked {
        figure["baseline"] = json!({"name": "z-test at every look", "value": value});
    }
    figure
}

/// Returns the percentages of experiments in which the null hypothesis is ever rejected, by the
/// e-process and by a z-test of equal arms.
fn simulate(null: Null, rates: [f64; 2]) -> (f64, f64) {
    let (mut ours, mut peeked) = (0_u32, 0_u32);
    for seed in 0..EXPERIMENTS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut process = EProcess::new(null, [1, 1]);
        let mut good = [0_u64; 2];
        let (mut is_rejected, mut is_significant) = (false, false);
        for unit in 1..=UNITS {
            for arm in [Arm::Champion, Arm::Challenger] {
                let is_good = random.f64() < rates[arm.index()];
                good[arm.index()] += u64::from(is_good);
                process.note(arm, is_good);
                is_rejected |= process.is_rejected(ALPHA);
            }
            is_significant |= unit >= FEWEST && differs(good, unit);
        }
        ours += u32::from(is_rejected);
        peeked += u32::from(is_significant);
    }
    let percent = |count: u32| 100.0 * f64::from(count) / EXPERIMENTS as f64;
    (percent(ours), percent(peeked))
}

/// Returns whether a z-test finds a difference.
fn differs(good: [u64; 2], units: u64) -> bool {
    let [one, other] = good.map(|good| good as f64 / units as f64);
    let mean = f64::midpoint(one, other);
    let deviation = (2.0 * mean * (1.0 - mean) / units as f64).sqrt();
    deviation > 0.0 && (one - other).abs() > Z * deviation
}
