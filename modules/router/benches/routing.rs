//! Benchmark of the strategies: labelled prompts are replayed to them, and decisions are timed.
//!
//! `cargo xtask bench routing --data FILE`: the file has one JSON object a line, with the fields
//! `id`, `set`, `domain`, `prompt`, `local_ok` and `paid_ok` (0 or 1: was the answer right) and,
//! where two local answers were compared, `two_locals_agree`; `.jsonl.xz` is read through `xz`.
//!
//! Each set is an installation of its own. Of its prompts 70%, chosen by the hash of `id`, are
//! learned from in the order of their hashes, and the rest is routed; this is repeated with other
//! hashes, and the figures are means. Random and the oracle, which knows both answers, stand beside
//! each strategy. Without a file only decisions are timed.

#[path = "routing/curve.rs"]
mod curve;
#[path = "routing/data.rs"]
mod data;

use std::{collections::BTreeMap, error::Error, hint::black_box, time::Instant};

use curve::{Curve, Routed, kept};
use data::{Row, hash};
use router::routing::replay::{Learner, Site, heuristic_score};
use serde_json::{Value, json};

/// Splits of a set; a single one of 270 prompts says little.
const SPLITS: u64 = 10;
/// Share of the paid model's right answers that is promised.
const PROMISED: f64 = 0.95;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut figures = Vec::new();
    match (args.next().as_deref(), args.next()) {
        (Some("--data"), Some(file)) => {
            let mut sets: BTreeMap<String, Vec<Row>> = BTreeMap::new();
            for row in data::read(&file)? {
                sets.entry(row.set.clone()).or_default().push(row);
            }
            for (set, rows) in &sets {
                figures.extend(of_set(set, rows));
            }
        }
        (None, _) => println!("without --data FILE only decisions are timed"),
        _ => return Err("usage: routing [--data FILE]".into()),
    }
    figures.extend(decisions());
    for figure in figures {
        println!("{figure}");
    }
    Ok(())
}

/// Goals by set: APGR of `learned`, and calls that it avoids at 95%.
fn goals(set: &str) -> (Option<f64>, Option<f64>) {
    match set {
        "mmlu" => (Some(0.66), Some(0.65)),
        "gsm8k" => (Some(0.63), Some(0.40)),
        "mmlupro" => (Some(0.58), None),
        _ => (None, None),
    }
}

fn of_set(set: &str, rows: &[Row]) -> Vec<Value> {
    let mut means: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut note = |name: &'static str, value: f64| means.entry(name).or_default().push(value);
    for salt in 0..SPLITS {
        let (taught, rest) = split(rows, |row| hash(&row.id, salt) % 10 < 7);
        let learner = taught_by(&taught, salt);
        let learned = Curve::of(rest.iter().map(|row| row.routed(learner.gain(&row.prompt))));
        note("learned APGR", learned.apgr());
        note("learned @95", learned.avoided(0.95));
        note("learned @98", learned.avoided(0.98));
        let by_look = Curve::of(rest.iter().map(|row| row.routed(heuristic_score(&row.prompt))));
        note("heuristic APGR", by_look.apgr());
        note("heuristic @95", by_look.avoided(0.95));
        note("heuristic @98", by_look.avoided(0.98));
        let oracle = Curve::of(rest.iter().map(|row| row.routed(row.gain())));
        note("oracle APGR", oracle.apgr());
        note("oracle @95", oracle.avoided(0.95));
        note("oracle @98", oracle.avoided(0.98));
        note("random @95", oracle.avoided_at_random(0.95));
        note("random @98", oracle.avoided_at_random(0.98));
        let (avoided, quality) = frozen(&learner, &rest);
        note("frozen avoided", avoided);
        note("frozen kept", quality);
    }
    let mean = |name: &str| means[name].iter().sum::<f64>() / SPLITS as f64;
    let (apgr_goal, avoided_goal) = goals(set);
    let random = |at: &str| Some(("random", mean(&format!("random {at}"))));
    let mut figures = vec![
        figure(set, "learned: APGR", mean("learned APGR"), Some(("random", 0.5)), apgr_goal),
        figure(set, "learned: avoided at 95%", mean("learned @95"), random("@95"), avoided_goal),
        figure(set, "learned: avoided at 98%", mean("learned @98"), random("@98"), None),
        figure(set, "learned, threshold frozen: avoided", mean("frozen avoided"), None, None),
        figure(
            set,
            "learned, threshold frozen: kept",
            mean("frozen kept"),
            Some(("promised", PROMISED)),
            None,
        ),
        figure(set, "heuristic: APGR", mean("heuristic APGR"), Some(("random", 0.5)), None),
        figure(set, "heuristic: avoided at 95%", mean("heuristic @95"), random("@95"), None),
        figure(set, "heuristic: avoided at 98%", mean("heuristic @98"), random("@98"), None),
        figure(set, "oracle: APGR", mean("oracle APGR"), Some(("random", 0.5)), None),
        figure(set, "oracle: avoided at 95%", mean("oracle @95"), random("@95"), None),
        figure(set, "oracle: avoided at 98%", mean("oracle @98"), random("@98"), None),
    ];
    let rows: Vec<&Row> = rows.iter().collect();
    figures.extend(cascade(set, &rows));
    figures.extend(unseen(set, &rows));
    figures
}

/// Returns the figures of a cascade that keeps what two local answers agree on.
fn cascade(set: &str, rows: &[&Row]) -> Vec<Value> {
    let compared: Vec<&Row> = rows.iter().copied().filter(|row| row.agree.is_some()).collect();
    if compared.is_empty() {
        return Vec::new();
    }
    let asks = |row: &&Row| row.agree != Some(true);
    let avoided = 1.0 - share(&compared, asks);
    let quality = kept(compared.iter().map(|row| (row.routed(0.0), asks(row))));
    let is_gsm = set.contains("gsm");
    let (avoided_goal, kept_goal) = if is_gsm { (Some(0.75), Some(0.98)) } else { (None, None) };
    let oracle = Curve::of(compared.iter().map(|row| row.routed(row.gain())));
    let random = Some(("random", oracle.avoided_at_random(quality)));
    vec![
        figure(set, "cascade by agreement: avoided", avoided, random, avoided_goal),
        figure(set, "cascade by agreement: kept", quality, None, kept_goal),
    ]
}

/// Returns the figures of what `learned` does with subjects that it never saw, at the threshold
/// that the others gave.
fn unseen(set: &str, rows: &[&Row]) -> Vec<Value> {
    const GROUPS: u64 = 5;
    let domains: std::collections::BTreeSet<&str> =
        rows.iter().map(|row| row.domain.as_str()).collect();
    if domains.len() < 2 {
        return Vec::new();
    }
    let mut asked = Vec::new();
    for group in 0..GROUPS {
        let (rest, taught): (Vec<&Row>, Vec<&Row>) =
            rows.iter().partition(|row| hash(&row.domain, 3) % GROUPS == group);
        if rest.is_empty() || taught.is_empty() {
            continue;
        }
        let learner = taught_by(&taught, group);
        for row in rest {
            asked.push((row.routed(0.0), !learner.is_local_enough(&row.prompt)));
        }
    }
    let avoided = asked.iter().filter(|(_, asks)| !asks).count() as f64 / asked.len() as f64;
    let oracle = Curve::of(asked.iter().map(|(routed, _)| Routed { score: 0.0, ..*routed }));
    let quality = kept(asked.into_iter());
    let random = Some(("random", oracle.avoided_at_random(quality)));
    let promised = Some(("promised", PROMISED));
    vec![
        figure(set, "learned, unseen subjects: avoided", avoided, random, None),
        figure(set, "learned, unseen subjects: kept", quality, promised, Some(PROMISED - 0.02)),
    ]
}

/// Returns a learner that was taught in the order of the hashes.
fn taught_by(rows: &[&Row], salt: u64) -> Learner {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| hash(&row.id, salt + 1000));
    let learner = Learner::default();
    learner.keep(PROMISED);
    for row in rows {
        learner.learn(&row.prompt, row.local_ok, row.paid_ok);
    }
    learner
}

/// Returns the share of calls avoided, and the share of the paid model's right answers kept, at the
/// threshold that was set while learning.
fn frozen(learner: &Learner, rows: &[&Row]) -> (f64, f64) {
    let asked: Vec<(Routed, bool)> =
        rows.iter().map(|row| (row.routed(0.0), !learner.is_local_enough(&row.prompt))).collect();
    let avoided = asked.iter().filter(|(_, asks)| !asks).count() as f64 / asked.len() as f64;
    (avoided, kept(asked.into_iter()))
}

fn split(rows: &[Row], is_first: impl Fn(&Row) -> bool) -> (Vec<&Row>, Vec<&Row>) {
    rows.iter().partition(|row| is_first(row))
}

fn share(rows: &[&Row], is: impl Fn(&&Row) -> bool) -> f64 {
    rows.iter().filter(|row| is(row)).count() as f64 / rows.len() as f64
}

fn figure(
    set: &str,
    name: &str,
    value: f64,
    baseline: Option<(&str, f64)>,
    at_least: Option<f64>,
) -> Value {
    let mut figure = json!({"name": format!("{set}: {name}"), "value": rounded(value), "unit": ""});
    if let Some((name, value)) = baseline {
        figure["baseline"] = json!({"name": name, "value": rounded(value)});
    }
    if let Some(at_least) = at_least {
        figure["goal"] = json!({"at_least": at_least, "of": "value"});
    }
    figure
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Returns the times of decisions over sixteen targets.
fn decisions() -> Vec<Value> {
    let prose = "Compare the two functions below, and explain why the second one fails with an \
                 error when the list has 3 items: `fn first(list: &[u8]) -> u8 { list[0] }`\n";
    let learner = Learner::default();
    for index in 0..400 {
        learner.learn(&format!("{prose} {index}"), index % 2 == 0, true);
    }
    let mut figures = Vec::new();
    for (size, name, at_most) in [(4 << 10, "4 KB", 50.0), (200 << 10, "200 KB", 1000.0)] {
        let prompt: String = prose.chars().cycle().take(size).collect();
        for strategy in ["heuristic", "learned"] {
            let site = Site::new(strategy, &learner);
            let rounds = if size > 100_000 { 200 } else { 2000 };
            let mut times: Vec<f64> = (0..rounds)
                .map(|_| {
                    let start = Instant::now();
                    black_box(site.decide(black_box(&prompt)));
                    start.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            times.sort_by(f64::total_cmp);
            figures.push(json!({
                "name": format!("a decision by {strategy}, {name} of words"),
                "value": times[times.len() / 2],
                "unit": "us",
                "goal": {"at_most": at_most, "of": "value"},
            }));
        }
    }
    figures
}
