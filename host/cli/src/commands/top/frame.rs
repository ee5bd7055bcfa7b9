//! Figures of the daemon at a sample of its status, and rates between two of them.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use lodestar_api as api;
use serde::Serialize;

use crate::human;

/// A sample of the daemon's status.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: api::Status,
}

impl Sample {
    pub(super) fn now(status: api::Status) -> Self {
        Self { at: Instant::now(), status }
    }
}

/// Figures that are shown after a sample. Rates are `null` where there was none before it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Frame {
    /// Time of the sample, RFC 3339.
    pub(super) time: String,
    /// Time since the sample before in milliseconds, 0 for none.
    pub(super) interval_ms: u64,
    pub(super) version: String,
    pub(super) pid: u32,
    pub(super) uptime_s: u64,
    /// Processor time in percent of one processor.
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_bytes: u64,
    pub(super) threads: u64,
    pub(super) ledger_bytes: u64,
    pub(super) ledger_trouble: Option<String>,
    /// Events per second that all modules together handled.
    pub(super) events_per_s: Option<f64>,
    pub(super) modules: Vec<Row>,
}

/// Figures of one module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) isolation: String,
    /// Processor time in percent of one processor.
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_bytes: u64,
    pub(super) threads: u64,
    /// Number of events that wait for the module.
    pub(super) pending: u64,
    /// Age of the oldest event that waits, in milliseconds.
    pub(super) lag_ms: u64,
    /// Events per second that the module handled.
    pub(super) events_per_s: Option<f64>,
    /// Median duration of its calls within the last minute, in nanoseconds.
    pub(super) p50_ns: Option<u64>,
    pub(super) p99_ns: Option<u64>,
    pub(super) dropped: u64,
    /// Number of calls that failed and of dead events.
    pub(super) errors: u64,
    /// Everything that the daemon reports about the module.
    #[serde(skip)]
    pub(super) module: api::Module,
}

impl Frame {
    /// Returns the figures at `after`. The sample before counts only if it is of the same daemon.
    pub(super) fn between(before: Option<&Sample>, after: &Sample) -> Self {
        let status = &after.status;
        let same = before.filter(|before| {
            let (then, now) = (&before.status, status);
            then.pid == now.pid && then.uptime_s <= now.uptime_s
        });
        let passed = same.map(|before| after.at.saturating_duration_since(before.at));
        let passed = passed.filter(|passed| !passed.is_zero());
        let rate = |then: Option<u64>, now: u64| Some(per_second(then?, now, passed?));
        let row = |module: &api::Module| {
            let then = same.and_then(|before| find(&before.status, &module.name));
            let cpu_ms = rate(then.map(|then| then.cpu_ms), module.cpu_ms);
            let handled = rate(then.map(|then| then.events.handled), module.events.handled);
            Row::new(module, cpu_ms.map(|rate| rate / 10.0), handled)
        };
        let modules: Vec<Row> = status.modules.iter().map(row).collect();
        let cpu_ms = rate(same.map(|before| before.status.cpu_ms), status.cpu_ms);
        Self {
            time: format!("{:.3}", Timestamp::now()),
            interval_ms: passed.map_or(0, |passed| passed.as_millis() as u64),
            version: status.version.clone(),
            pid: status.pid,
            uptime_s: status.uptime_s,
            cpu_percent: cpu_ms.map(|rate| rounded(rate / 10.0)),
            memory_bytes: status.memory_bytes,
            threads: status.threads,
            ledger_bytes: status.ledger.bytes,
            ledger_trouble: status.ledger.trouble.clone(),
            events_per_s: passed
                .map(|_| modules.iter().filter_map(|row| row.events_per_s).sum::<f64>())
                .map(rounded),
            modules,
        }
    }

    /// Returns the lines above the modules, within a width; trouble of the ledger is shown whole.
    pub(super) fn head(&self, width: usize) -> [String; 2] {
        let running = self.modules.iter().filter(|row| row.state == "running").count();
        let trouble = self.ledger_trouble.as_deref();
        let trouble = trouble.map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        let daemon = [
            format!("lodestard {}", self.version),
            format!("pid {}", self.pid),
            format!("up {}", human::duration_s(self.uptime_s)),
            format!("cpu {}%", percent(self.cpu_percent)),
            format!("memory {}", human::bytes(self.memory_bytes)),
            format!("threads {}", self.threads),
        ];
        let modules = [
            format!("{running} of {} modules run", self.modules.len()),
            format!("{} events/s", events(self.events_per_s)),
            format!("ledger {}{trouble}", human::bytes(self.ledger_bytes)),
        ];
        // A trouble is told whole.
        let least = if trouble.is_empty() { width } else { usize::MAX };
        [joined(&daemon, width), joined(&modules, least)]
    }
}

/// Joins the parts to one line: closer where it is narrow, and then as many as fit.
fn joined(parts: &[String], width: usize) -> String {
    let plain = |gap: &str, parts: &[String]| human::plain(&parts.join(gap)).into_owned();
    let wide = plain("   ", parts);
    if wide.chars().count() <= width {
        return wide;
    }
    let narrower = (1..=parts.len()).rev().map(|count| plain("  ", &parts[..count]));
    let fits = |line: &String| line.chars().count() <= width;
    narrower.into_iter().find(fits).unwrap_or_else(|| plain("  ", &parts[..1]))
}

impl Row {
    fn new(module: &api::Module, cpu_percent: Option<f64>, events_per_s: Option<f64>) -> Self {
        let failures: u64 = module.calls.iter().map(|calls| calls.failures).sum();
        Self {
            name: module.name.clone(),
            state: module.state.clone(),
            isolation: module.isolation.clone(),
            cpu_percent: cpu_percent.map(rounded),
            memory_bytes: module.memory_bytes,
            threads: module.threads,
            pending: module.events.pending,
            lag_ms: module.lag_ms,
            events_per_s: events_per_s.map(rounded),
            p50_ns: module.recent.p50_ns,
            p99_ns: module.recent.p99_ns,
            dropped: module.events.dropped,
            errors: failures + module.events.dead,
            module: module.clone(),
        }
    }
}

/// Formats percent of a processor, `-` where it is not known.
pub(super) fn percent(percent: Option<f64>) -> String {
    percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}"))
}

/// Formats events per second, `-` where it is not known.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 10 or more")]
pub(super) fn events(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => human::count(rate.round() as u64),
    }
}

fn find<'a>(status: &'a api::Status, name: &str) -> Option<&'a api::Module> {
    status.modules.iter().find(|module| module.name == name)
}

/// Returns the rate of a counter per second, 0 for one that went back because it began anew.
#[expect(clippy::cast_precision_loss, reason = "a rate is a floating point number")]
fn per_second(then: u64, now: u64, passed: Duration) -> f64 {
    now.saturating_sub(then) as f64 / passed.as_secs_f64()
}

/// Rounds to one decimal place: what is shown, and what can be measured.
fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample;

    fn looks() -> (Sample, Sample) {
        let before = Sample::now(sample::status());
        let mut after = before.clone();
        after.at += Duration::from_millis(500);
        (before, after)
    }

    #[test]
    fn rates_are_per_second_between_two_looks() {
        let (before, mut after) = looks();
        after.status.cpu_ms += 60;
        after.status.modules[1].cpu_ms += 5;
        after.status.modules[1].events.handled += 617;
        let frame = Frame::between(Some(&before), &after);
        assert_eq!((frame.interval_ms, frame.cpu_percent), (500, Some(12.0)));
        assert_eq!(frame.events_per_s, Some(1234.0));
        let row = &frame.modules[1];
        assert_eq!((row.cpu_percent, row.events_per_s), (Some(1.0), Some(1234.0)));
        assert_eq!((row.errors, row.dropped, row.p99_ns), (4, 0, Some(8_300_000)));
        assert_eq!(frame.modules[0].events_per_s, Some(0.0));
    }

    #[test]
    fn there_are_no_rates_without_a_look_before_at_the_same_daemon() {
        let check = |change: fn(&mut Sample), expected: [Option<f64>; 2]| {
            let (before, mut after) = looks();
            change(&mut after);
            let frame = Frame::between(Some(&before), &after);
            let found = [frame.events_per_s, frame.modules[0].cpu_percent];
            assert_eq!(found, expected);
        };
        check(|_| {}, [Some(0.0), Some(0.0)]);
        check(|after| after.status.pid += 1, [None, None]);
        check(|after| after.status.uptime_s = 0, [None, None]);
        check(|after| after.at -= Duration::from_millis(500), [None, None]);
        check(|after| after.status.modules[0].name = "new".to_owned(), [Some(0.0), None]);
        check(|after| after.status.modules[0].cpu_ms = 0, [Some(0.0), Some(0.0)]);
        let frame = Frame::between(None, &looks().1);
        assert_eq!((frame.events_per_s, frame.interval_ms), (None, 0));
    }

    #[test]
    fn the_head_is_plain() {
        let (before, mut after) = looks();
        after.status.ledger.trouble = Some("disk full\u{1b}[2J".to_owned());
        assert_eq!(
            Frame::between(Some(&before), &after).head(80),
            [
                "lodestard 0.1.0   pid 4711   up 3h 12m   cpu 0.0%   memory 24 MiB   threads 17",
                "1 of 2 modules run   0 events/s   ledger 1 MiB (disk full\\u001b[2J)",
            ]
        );
        let frame = Frame::between(Some(&before), &after);
        let check = |width, expected: &str| assert_eq!(frame.head(width)[0], expected);
        check(75, "lodestard 0.1.0  pid 4711  up 3h 12m  cpu 0.0%  memory 24 MiB  threads 17");
        check(60, "lodestard 0.1.0  pid 4711  up 3h 12m  cpu 0.0%");
        check(5, "lodestard 0.1.0");
        let check = |rate, expected: &str| assert_eq!(events(rate), expected);
        check(None, "-");
        check(Some(0.4), "0.4");
        check(Some(1234.4), "1,234");
    }
}
