//! Counts of the records received, by source and outcome: for `lodestar ingest sources` and the
//! metrics.

mod shown;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use module_sdk::{CounterFamily, Host, Reply, Result};
use serde::Serialize;

/// Largest number of kinds of record that are counted separately, so that a sender of ever new
/// names does not fill the memory.
const MAX_ROWS: usize = 1024;

/// Number of kinds from which on further kinds that no mapper knows are counted together, so that
/// there is room for those that matter.
const MAX_UNKNOWN_FROM: usize = 768;

/// Largest number of topics with series of their own: projects can make up topics of Lynex events.
const TOPICS: usize = 100;

/// More than there are mappers, outcomes, endpoints, status codes, and ways to correlate.
const FEW: usize = 30;

/// A kind of record with its outcome.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Kind {
    /// `service.name`, or the project of a Lynex event.
    pub(crate) source: String,
    /// Signal: `logs`, `traces`, `metrics`, `lynex`, or `http` where it is not known.
    pub(crate) signal: &'static str,
    /// Name of the event, span or metric.
    pub(crate) record: String,
    /// Outcome: `request`, `event`, `ignored`, `repeats`, `unknown` or `refused`.
    pub(crate) outcome: &'static str,
    /// Reason why it made no request, empty where it did.
    pub(crate) reason: String,
}

impl Kind {
    /// Returns itself where there is room for it among `rows`, and else the kind that counts the
    /// rest.
    pub(crate) fn among<V>(self, rows: &BTreeMap<Self, V>) -> Self {
        let room = if self.outcome == "unknown" { MAX_UNKNOWN_FROM } else { MAX_ROWS };
        if rows.len() < room || rows.contains_key(&self) {
            return self;
        }
        let more = || "(more)".to_owned();
        Self { source: more(), record: more(), reason: String::new(), ..self }
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Seen {
    count: u64,
    last_seen: Timestamp,
}

/// All counts since the module started.
pub(crate) struct Stats {
    host: Host,
    since: Timestamp,
    rows: Mutex<BTreeMap<Kind, Seen>>,
    records: CounterFamily<2>,
    requests: CounterFamily<2>,
    events: CounterFamily<2>,
    corrections: CounterFamily<0>,
}

impl Stats {
    pub(crate) fn new(host: &Host) -> Self {
        Self {
            host: host.clone(),
            since: host.now(),
            rows: Mutex::default(),
            records: host.counter_family(
                "lodestar_ingest_records_total",
                "Records received, by the mapper that read them and what became of them.",
                [("source", FEW), ("outcome", FEW)],
            ),
            requests: host.counter_family(
                "lodestar_ingest_requests_total",
                "Requests answered, by endpoint and status code, of HTTP or of gRPC.",
                [("endpoint", FEW), ("code", FEW)],
            ),
            events: host.counter_family(
                "lodestar_ingest_events_total",
                "Events accepted by the ledger, by topic and by what reports were joined.",
                [("topic", TOPICS), ("joined", FEW)],
            ),
            corrections: host.counter_family(
                "lodestar_ingest_clock_corrections_total",
                "Records whose stated time was impossible and was replaced.",
                [],
            ),
        }
    }

    /// Counts records.
    pub(crate) fn records(&self, mapper: &'static str, kind: Kind, count: u64) {
        #[expect(clippy::cast_precision_loss, reason = "counts of records of one request")]
        self.records.add([mapper, kind.outcome], count as f64);
        let now = self.host.now();
        let mut rows = locked(&self.rows);
        let kind = kind.among(&rows);
        let seen = rows.entry(kind).or_insert(Seen { count: 0, last_seen: now });
        seen.count += count;
        seen.last_seen = now;
    }

    /// Counts an answered request, with its status of HTTP or, where the endpoint is a service of
    /// gRPC, of that.
    pub(crate) fn request(&self, endpoint: &str, code: i32) {
        self.requests.add([endpoint, &code.to_string()], 1.0);
    }

    /// Counts an event that was accepted, by its topic and how it was correlated.
    pub(crate) fn event(&self, topic: &str, joined: &str) {
        self.events.add([topic, joined], 1.0);
    }

    /// Counts a record whose stated time was impossible.
    pub(crate) fn corrected_clock(&self) {
        self.corrections.add([], 1.0);
    }

    /// Sets the gauge of the requests that are remembered for correlation.
    pub(crate) fn remembered(&self, requests: usize) {
        let help = "Requests that later reports of them can still join.";
        match self.host.gauge("lodestar_ingest_remembered_requests", help, &[]) {
            #[expect(clippy::cast_precision_loss, reason = "at most some ten thousand")]
            Ok(gauge) => gauge.set(requests as f64),
            Err(error) => tracing::debug!(%error, "a metric is not available"),
        }
    }

    /// Answers the command `sources`. Sums up the records that make no request, unless `all` or one
    /// outcome is requested.
    pub(crate) fn reply(&self, only: Option<&str>, all: bool) -> Result<Reply> {
        let rows = locked(&self.rows).clone();
        let mut rows: Vec<(Kind, Seen)> = rows
            .into_iter()
            .filter(|(kind, _)| only.is_none_or(|outcome| kind.outcome == outcome))
            .collect();
        shown::sort(&mut rows);
        let lines = shown::lines(rows, all || only.is_some());
        let reply = Reply::json(&serde_json::json!({"since": self.since, "rows": lines}))?;
        Ok(reply.table(shown::table(&lines, self.since)))
    }
}

impl std::fmt::Debug for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stats({} rows)", locked(&self.rows).len())
    }
}

/// Returns the kind under which the outcome of a record is counted.
pub(crate) fn kind_of(
    source: &str,
    signal: &'static str,
    record: String,
    outcome: &crate::sources::Outcome,
) -> Kind {
    use crate::sources::Outcome::{Ignored, Refused, Repeats, Request, Unknown};
    let (outcome, reason) = match outcome {
        Request(_) => ("request", String::new()),
        Ignored(why) => ("ignored", (*why).to_owned()),
        Repeats(why) => ("repeats", (*why).to_owned()),
        Unknown => ("unknown", "no mapper understands it".to_owned()),
        Refused(refusal) => ("refused", refusal.to_string()),
    };
    Kind { source: source.to_owned(), signal, record, outcome, reason }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::build::host;

    fn kind(source: &str, outcome: &'static str) -> Kind {
        Kind {
            source: source.to_owned(),
            signal: "logs",
            record: "r".to_owned(),
            outcome,
            reason: String::new(),
        }
    }

    #[test]
    fn rows_are_counted_and_filtered() {
        let stats = Stats::new(&host());
        stats.records("codex", kind("codex", "request"), 2);
        stats.records("codex", kind("codex", "request"), 1);
        stats.records("none", kind("program", "unknown"), 5);
        let all = stats.reply(None, false).expect("it answers");
        assert_eq!(all.data["rows"].as_array().map(Vec::len), Some(2));
        assert_eq!(all.data["rows"][0]["count"], 3);
        assert_eq!(all.table.as_ref().map(|table| table.rows.len()), Some(2));
        let unknown = stats.reply(Some("unknown"), false).expect("it answers");
        assert_eq!(unknown.data["rows"][0]["source"], "program");
        assert_eq!(unknown.data["rows"][0]["count"], 5);
    }

    #[test]
    fn ever_new_names_do_not_fill_the_memory() {
        let stats = Stats::new(&host());
        for index in 0..MAX_UNKNOWN_FROM + 100 {
            stats.records("none", kind(&format!("s{index}"), "unknown"), 1);
        }
        let reply = stats.reply(None, false).expect("it answers");
        let rows = reply.data["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), MAX_UNKNOWN_FROM + 1);
        let more = rows.iter().find(|row| row["source"] == "(more)").expect("the rest");
        assert_eq!(more["count"], 100);
        // What makes requests still has its row.
        stats.records("codex", kind("codex", "request"), 1);
        let reply = stats.reply(Some("request"), false).expect("it answers");
        assert_eq!(reply.data["rows"][0]["source"], "codex");
    }
}
