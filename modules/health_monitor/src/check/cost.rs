//! The cost of requests, as `usage_tracker` prices them, and whether an hour is far dearer than
//! usual.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use module_sdk::{Error, ErrorKind, Host, Usd, jiff::ToSpan as _};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Check, Plan, Progress};
use crate::{
    metric::{COST_ANOMALY, SPEND},
    reading::{Component, Found, Report, Series},
    text,
};

/// Settings of the check of costs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CostOptions {
    /// `false` switches the check off.
    pub enabled: bool,
    /// Time between two questions to `usage_tracker`, in milliseconds.
    #[schemars(range(min = 10_000, max = 86_400_000))]
    pub interval_ms: u64,
}

impl Default for CostOptions {
    fn default() -> Self {
        Self { enabled: true, interval_ms: 300_000 }
    }
}

/// Time between two runs. One that has nothing to ask costs nothing, and one that got no answer is
/// not long ago.
const INTERVAL: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(60);
/// Time within which `usage_tracker` has to answer one question.
const ANSWER: Duration = Duration::from_secs(5);

/// Windows in the words of `usage_tracker`; the first is the hour that is compared with the past.
const WINDOWS: [&str; 2] = ["1h", "24h"];
/// Rows of a kind, the dearest first.
const ROWS: u32 = 50;

/// Weeks that are looked back, and those of them that have to have a cost for a comparison.
const WEEKS: i64 = 8;
const LEAST_WEEKS: usize = 3;

impl CostOptions {
    /// Makes the plan of the check; `None` where it is switched off.
    pub fn plan(&self, host: &Host) -> Option<Plan> {
        let (host, every) = (host.clone(), Duration::from_millis(self.interval_ms));
        self.enabled.then(|| Plan {
            name: "cost",
            interval: INTERVAL.min(every),
            deadline: DEADLINE,
            shares: false,
            make: Arc::new(move || Box::new(Cost::new(host.clone(), every))),
        })
    }
}

struct Cost {
    host: Host,
    every: Duration,
    component: Component,
    headline: Arc<Series>,
    anomaly: Arc<Series>,
    /// Time of the last answer, and what followed from it.
    answered: Option<(Instant, Report)>,
}

/// Answer of `usage_tracker`.
#[derive(Debug, Deserialize)]
struct Summary {
    rows: Vec<Row>,
    total: Figures,
}

#[derive(Debug, Deserialize)]
struct Row {
    key: Option<String>,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Debug, Deserialize)]
struct Figures {
    requests: u64,
    cost_usd: Option<Usd>,
}

impl Figures {
    /// Returns the cost where it is known. What was not asked for costs nothing.
    fn cost(&self) -> Option<f64> {
        match self.cost_usd {
            Some(cost) => Some(cost.as_f64()),
            None => (self.requests == 0).then_some(0.0),
        }
    }
}

impl Check for Cost {
    fn run(&mut self, _: &Progress) -> Report {
        if let Some((at, report)) = &self.answered
            && at.elapsed() < self.every
        {
            return report.clone();
        }
        self.answered = None;
        match self.ask() {
            Ok(report) => {
                self.answered = Some((Instant::now(), report.clone()));
                report
            }
            Err(error) => self.without(&error),
        }
    }
}

impl Cost {
    fn new(host: Host, every: Duration) -> Self {
        let component: Component = "cost".into();
        Self {
            host,
            every,
            headline: Series::new(&SPEND, &component, ["all", "", "", "", "24h"]),
            anomaly: Series::new(&COST_ANOMALY, &component, []),
            component,
            answered: None,
        }
    }

    fn ask(&self) -> module_sdk::Result<Report> {
        let mut report = Report::default();
        let mut hour = None;
        for window in WINDOWS {
            for kind in ["model", "provider", "project"] {
                let args = json!({"since": window, "by": kind, "limit": ROWS});
                let summary = self.summary(&args)?;
                for row in &summary.rows {
                    self.read(kind, row, window, &mut report);
                }
                if kind == "model" {
                    let total = summary.total.cost();
                    if window == WINDOWS[0] {
                        hour = total;
                    }
                    let labels = ["all", "", "", "", window];
                    let series = Series::new(&SPEND, &self.component, labels);
                    total.into_iter().for_each(|cost| report.read(&series, cost));
                }
            }
        }
        let past = self.past()?;
        if let Some(score) = hour.and_then(|hour| score(hour, &past)) {
            report.read(&self.anomaly, score);
        }
        report.found.push(
            Found::present(&self.component, &self.headline)
                .saying("spent within the last 24 hours"),
        );
        Ok(report)
    }

    fn read(&self, kind: &str, row: &Row, window: &str, report: &mut Report) {
        let (Some(name), Some(cost)) = (&row.key, row.figures.cost()) else { return };
        let name = text::visible(name);
        let component: Component = format!("{kind}.{name}").into();
        let [model, provider, project] =
            ["model", "provider", "project"].map(|it| if it == kind { &*name } else { "" });
        let labels = [kind, model, provider, project, window];
        report.read(&Series::new(&SPEND, &component, labels), cost);
    }

    /// Returns what this hour cost in past weeks, where it cost something.
    fn past(&self) -> module_sdk::Result<Vec<f64>> {
        let now = self.host.now();
        let mut past = Vec::new();
        for week in 1..=WEEKS {
            let until = now - (week * 7 * 24).hours();
            let args = json!({
                "since": (until - 1.hours()).to_string(),
                "until": until.to_string(),
                "by": "model",
                "limit": 1,
            });
            let total = self.summary(&args)?.total;
            past.extend(total.cost_usd.filter(|_| total.requests > 0).map(Usd::as_f64));
        }
        Ok(past)
    }

    fn summary(&self, args: &Value) -> module_sdk::Result<Summary> {
        self.host.call("usage_tracker", "summary", args).within(ANSWER).wait()
    }

    fn without(&self, error: &Error) -> Report {
        let found = match error.kind() {
            ErrorKind::NotFound | ErrorKind::Unavailable => {
                let message = "costs are not known: usage_tracker does not answer";
                Found::absent(&self.component, message)
            }
            _ => {
                let message = format!("costs are not known: {}", text::visible(&error.to_string()));
                Found::unknown(&self.component, message)
            }
        };
        Report { found: vec![found], ..Report::default() }
    }
}

/// Returns how many deviations a cost lies above the median of past ones. The deviation is that of
/// the median (MAD), which one expensive week does not move, and at least a tenth of the median and
/// a cent: where all weeks were alike, a little more is no anomaly.
fn score(cost: f64, past: &[f64]) -> Option<f64> {
    /// Ratio of a standard deviation to a median deviation, for normally distributed values.
    const NORMAL: f64 = 1.4826;

    if past.len() < LEAST_WEEKS {
        return None;
    }
    let middle = median(past.to_vec());
    let deviation = median(past.iter().map(|past| (past - middle).abs()).collect());
    Some((cost - middle) / (NORMAL * deviation).max(middle / 10.0).max(0.01))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use module_sdk::{Reply, testing::FakeHost};

    use super::*;
    use crate::reading::Presence;

    fn figures(requests: u64, cost: Option<f64>) -> Value {
        json!({"requests": requests, "cost_usd": cost})
    }

    fn check() -> (Arc<FakeHost>, Cost) {
        let fake = Arc::new(FakeHost::new(std::path::Path::new("/nowhere")));
        let host = fake.host().expect("it tells about itself");
        (fake, Cost::new(host, Duration::ZERO))
    }

    fn value(report: &Report, component: &str, labels: &str) -> Option<f64> {
        let of = |series: &Series| series.labels.join(",");
        let mut found = report.readings.iter().filter(|reading| {
            &*reading.series.component == component && of(&reading.series) == labels
        });
        found.next().map(|reading| reading.value)
    }

    #[test]
    fn costs_are_asked_for_and_absent_where_nobody_knows_them() {
        let (fake, mut check) = check();
        let report = check.run(&Progress::default());
        assert_eq!(report.found[0].presence, Presence::Absent);
        assert!(report.readings.is_empty(), "unknown is not zero");
        let is_priced = Arc::new(AtomicBool::new(true));
        let priced = is_priced.clone();
        fake.answer("usage_tracker", "summary", move |args, _| {
            let is_past = args["until"].is_string();
            let known = |cost: f64| priced.load(Ordering::Relaxed).then_some(cost);
            let total = if is_past { figures(4, known(0.5)) } else { figures(9, known(7.5)) };
            let mut row = figures(3, Some(2.5));
            row["key"] = json!("dear\u{1b}[31m");
            let mut unknown = figures(3, Some(1.0));
            unknown["key"] = Value::Null;
            Reply::json(&json!({"rows": [row, unknown], "total": total}))
        });
        let report = check.run(&Progress::default());
        assert_eq!(report.found[0].presence, Presence::Present);
        assert_eq!(value(&report, "cost", "all,,,,1h"), Some(7.5));
        let name = "dear\\u{1b}[31m";
        let provider = format!("provider.{name}");
        assert_eq!(value(&report, &provider, &format!("provider,,{name},,24h")), Some(2.5));
        assert_eq!(value(&report, "cost", ""), Some(140.0), "7 USD above, at a tenth of 0.5 USD");
        assert_eq!(report.readings.len(), 2 * (3 + 1) + 1);
        // Requests without a price have no cost, rather than none.
        is_priced.store(false, Ordering::Relaxed);
        let report = check.run(&Progress::default());
        assert_eq!(value(&report, "cost", "all,,,,1h"), None);
        assert_eq!(value(&report, "cost", ""), None);
    }

    #[test]
    fn an_answer_is_good_for_a_while() {
        let (fake, check) = check();
        let mut check = Cost { every: Duration::from_secs(3_600), ..check };
        fake.answer("usage_tracker", "summary", |_, _| {
            Reply::json(&json!({"rows": [], "total": figures(0, None)}))
        });
        let first = check.run(&Progress::default());
        let asked = fake.called().len();
        assert_eq!(value(&first, "cost", "all,,,,24h"), Some(0.0), "nothing was asked for");
        assert_eq!(check.run(&Progress::default()), first);
        assert_eq!(fake.called().len(), asked);
        fake.answer("usage_tracker", "summary", |_, _| Reply::json(&json!([])));
        check.every = Duration::ZERO;
        assert_eq!(check.run(&Progress::default()).found[0].presence, Presence::Unknown);
    }

    #[test]
    fn one_dear_week_makes_no_other_look_cheap() {
        let check = |cost: f64, past: &[f64], expected: Option<f64>| {
            assert_eq!(score(cost, past).map(|score| (score * 100.0).round() / 100.0), expected);
        };
        check(9.0, &[1.0, 1.0], None);
        check(3.0, &[2.0, 2.0, 2.0], Some(5.0));
        check(2.1, &[2.0, 2.0, 2.0], Some(0.5));
        check(10.0, &[1.0, 2.0, 3.0, 100.0], Some(5.06));
        check(0.0, &[0.0, 0.0, 0.0], Some(0.0));
    }
}
