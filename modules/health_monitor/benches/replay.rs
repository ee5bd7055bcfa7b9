//! Benchmark of thirty synthetic days, played to the module's parts and to a naive monitor.
//!
//! `cargo bench -p health_monitor -- MONTHS`: plays so many months (8), each from its own seed,
//! and prints one JSON object per figure: the worst of all months.

#[path = "../tests/health/month/mod.rs"]
mod month;

use std::time::Instant;

use month::{
    INTERVAL_S, MONTHS, month,
    naive::Naive,
    ours::Site,
    verdict::{Judge, Verdict},
};
use serde_json::json;

fn main() -> Result<(), std::num::ParseIntError> {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let months: u32 = args.next().map_or(Ok(MONTHS), |months| months.parse())?.max(1);
    let (mut ours, mut naive, mut seconds) = (Vec::new(), Vec::new(), 0.0);
    for seed in 1..=u64::from(months) {
        let (mine, theirs, took) = play(seed);
        ours.push(mine);
        naive.push(theirs);
        seconds += took;
    }
    let most = |all: &[Verdict], of: fn(&Verdict) -> u64| all.iter().map(of).max().unwrap_or(0);
    let notes = |verdict: &Verdict| verdict.notes as u64;
    let missed = |verdict: &Verdict| verdict.untold.len() as u64;
    let false_alarms = |verdict: &Verdict| verdict.false_alarms.len() as u64;
    let an_hour = |verdict: &Verdict| verdict.most_an_hour as u64;
    let of_a_cause = |verdict: &Verdict| verdict.most_of_a_cause as u64;
    let of_flapping = |verdict: &Verdict| verdict.of_flapping as u64;
    let baseline = |value: u64| json!({"name": "a naive monitor", "value": value});
    let at_most = |value: u64| json!({"at_most": value, "of": "value"});
    for figure in [
        json!({
            "name": "health: notes in 30 days", "unit": "", "value": most(&ours, notes),
            "baseline": baseline(most(&naive, notes)),
        }),
        json!({
            "name": "health: false alarms in 30 days", "unit": "",
            "value": most(&ours, false_alarms), "baseline": baseline(most(&naive, false_alarms)),
            "goal": at_most(0),
        }),
        json!({
            "name": "health: troubles that nobody was told", "unit": "",
            "value": most(&ours, missed), "goal": at_most(0),
        }),
        json!({
            "name": "health: a critical trouble is told after", "unit": "s",
            "value": most(&ours, |it| it.slowest_critical_s),
            "baseline": baseline(INTERVAL_S),
            "goal": at_most(30),
        }),
        json!({
            "name": "health: any other is told after its `for` and", "unit": "s",
            "value": most(&ours, |it| it.slowest_other_s), "goal": at_most(30),
        }),
        json!({
            "name": "health: notes of one trouble and its end", "unit": "",
            "value": most(&ours, of_a_cause), "baseline": baseline(most(&naive, of_a_cause)),
            "goal": at_most(2),
        }),
        json!({
            "name": "health: notes of an hour of flapping", "unit": "",
            "value": most(&ours, of_flapping),
            "baseline": baseline(most(&naive, of_flapping)),
            // Its beginning, that it flaps, and its end.
            "goal": at_most(3),
        }),
        json!({
            "name": "health: notes in the worst hour", "unit": "", "value": most(&ours, an_hour),
            "baseline": baseline(most(&naive, an_hour)), "goal": at_most(6),
        }),
        json!({
            "name": "health: judging one moment of the month", "unit": "us",
            "value": seconds / f64::from(months) / 518_400.0 * 1e6,
        }),
    ] {
        println!("{figure}");
    }
    Ok(())
}

/// Plays a month; returns both verdicts, and how many seconds ours took.
fn play(seed: u64) -> (Verdict, Verdict, f64) {
    let (mut site, mut naive) = (Site::new(), Naive::default());
    let (mut ours, mut theirs) = (Judge::new(), Judge::new());
    let readings: Vec<_> = month(seed).collect();
    let begun = Instant::now();
    let words: Vec<_> = readings.iter().map(|reading| site.take(reading)).collect();
    let seconds = begun.elapsed().as_secs_f64();
    for (reading, words) in readings.iter().zip(words) {
        ours.take(reading, words);
        theirs.take(reading, naive.take(reading));
    }
    (ours.verdict(), theirs.verdict(), seconds)
}
