//! How the tally is shown: one line for what makes requests, sums for what makes none.

use jiff::Timestamp;
use module_sdk::Table;
use serde::Serialize;

use super::{Kind, Seen};

/// How many kinds of a sum are named, and how long a name may be there.
const NAMED: usize = 3;
const NAME_CHARS: usize = 48;

/// One line of the answer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    kind: Kind,
    #[serde(flatten)]
    seen: Seen,
    /// How many kinds of record it sums up.
    kinds: usize,
    /// The largest of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    largest: Vec<Part>,
}

/// A kind within a sum.
#[derive(Debug, Clone, Serialize)]
struct Part {
    record: String,
    count: u64,
}

/// Brings rows into the order in which they are shown, what somebody should look at first.
pub(super) fn sort(rows: &mut [(Kind, Seen)]) {
    rows.sort_by_key(|(kind, seen)| {
        (kind.source.clone(), rank(kind.outcome), std::cmp::Reverse(seen.count), kind.clone())
    });
}

fn rank(outcome: &str) -> usize {
    const ORDER: &[&str] = &["request", "event", "refused", "unknown", "repeats", "ignored"];
    ORDER.iter().position(|known| *known == outcome).unwrap_or(ORDER.len())
}

/// The lines for sorted rows: what makes no request is one line for each source and outcome, unless
/// `all` are wanted.
pub(super) fn lines(rows: Vec<(Kind, Seen)>, all: bool) -> Vec<Line> {
    let is_summed = |kind: &Kind| !all && matches!(kind.outcome, "unknown" | "ignored" | "repeats");
    let together = |left: &(Kind, Seen), right: &(Kind, Seen)| {
        let key = |kind: &Kind| (kind.source.clone(), kind.outcome);
        is_summed(&left.0) && key(&left.0) == key(&right.0)
    };
    rows.chunk_by(together).map(line).collect()
}

fn line(group: &[(Kind, Seen)]) -> Line {
    let (first, seen) = &group[0];
    if let [(kind, seen)] = group {
        return Line { kind: kind.clone(), seen: *seen, kinds: 1, largest: Vec::new() };
    }
    let one_signal = group.iter().all(|(kind, _)| kind.signal == first.signal);
    let by_design = first.outcome != "unknown";
    let largest: Vec<Part> = group
        .iter()
        .take(if by_design { 0 } else { NAMED })
        .map(|(kind, seen)| Part { record: kind.record.clone(), count: seen.count })
        .collect();
    let reason = if by_design {
        "by design; --all lists them".to_owned()
    } else {
        let named: Vec<String> = largest.iter().map(Part::to_text).collect();
        format!("no mapper understands them: {}; --all lists them", named.join(", "))
    };
    let kind = Kind {
        source: first.source.clone(),
        signal: if one_signal { first.signal } else { "all" },
        record: format!("({} kinds)", group.len()),
        outcome: first.outcome,
        reason,
    };
    let count = group.iter().map(|(_, seen)| seen.count).sum();
    let last_seen = group.iter().map(|(_, seen)| seen.last_seen).max().unwrap_or(seen.last_seen);
    Line { kind, seen: Seen { count, last_seen }, kinds: group.len(), largest }
}

impl Part {
    fn to_text(&self) -> String {
        let short: String = self.record.chars().take(NAME_CHARS).collect();
        let more = if short.len() < self.record.len() { "…" } else { "" };
        format!("{short}{more} {}", self.count)
    }
}

/// The table for a person.
pub(super) fn table(lines: &[Line], since: Timestamp) -> Table {
    let mut table = Table::new(["SOURCE", "SIGNAL", "RECORD", "OUTCOME", "COUNT#", "WHY"]);
    table.title = format!("Records received since {since:.0}");
    for Line { kind, seen, .. } in lines {
        table.row([
            kind.source.clone(),
            kind.signal.to_owned(),
            kind.record.clone(),
            kind.outcome.to_owned(),
            seen.count.to_string(),
            kind.reason.clone(),
        ]);
    }
    if lines.is_empty() {
        table.notes.push("Nothing yet. The module's README shows how to point a tool here.".into());
    } else if lines.iter().any(|line| line.kind.outcome == "unknown") {
        table.notes.push("unknown: counted and not used, since no mapper understands it.".into());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, &str, &'static str, u64)]) -> Vec<(Kind, Seen)> {
        let row = |(source, record, outcome, count): &(&str, &str, &'static str, u64)| {
            let kind = Kind {
                source: (*source).to_owned(),
                signal: "traces",
                record: (*record).to_owned(),
                outcome,
                reason: String::new(),
            };
            (kind, Seen { count: *count, last_seen: Timestamp::UNIX_EPOCH })
        };
        let mut rows: Vec<_> = rows.iter().map(row).collect();
        sort(&mut rows);
        rows
    }

    fn shown(lines: &[Line]) -> Vec<String> {
        let line =
            |line: &Line| format!("{} {} {}", line.kind.source, line.kind.record, line.seen.count);
        lines.iter().map(line).collect()
    }

    #[test]
    fn what_makes_no_request_is_one_line_for_each_source_and_outcome() {
        let rows = rows(&[
            ("codex", "completed", "request", 3),
            ("codex", "a", "ignored", 5),
            ("codex", "b", "ignored", 7),
            ("codex", "d", "repeats", 2),
            ("codex", "bad", "refused", 1),
            ("codex", "worse", "refused", 1),
            ("codex", "e", "unknown", 1),
            ("codex", "f", "unknown", 9),
            ("codex", "g", "unknown", 2),
            ("codex", "h", "unknown", 4),
            ("other", "e", "unknown", 1),
        ]);
        let summed = lines(rows.clone(), false);
        assert_eq!(
            shown(&summed),
            [
                "codex completed 3",
                "codex bad 1",
                "codex worse 1",
                "codex (4 kinds) 16",
                "codex d 2",
                "codex (2 kinds) 12",
                "other e 1",
            ]
        );
        assert_eq!(
            summed[3].kind.reason,
            "no mapper understands them: f 9, h 4, g 2; --all lists them"
        );
        let json = serde_json::to_value(&summed[3]).expect("it serialises");
        assert_eq!((&json["kinds"], &json["count"]), (&4.into(), &16.into()));
        assert_eq!(json["largest"][0], serde_json::json!({"record": "f", "count": 9}));
        assert_eq!(lines(rows.clone(), true).len(), rows.len());
    }

    #[test]
    fn many_long_names_make_a_short_line() {
        let name = |index: usize| format!("{index:03}{}", "x".repeat(125));
        let names: Vec<String> = (0..160).map(name).collect();
        let many: Vec<_> = names.iter().map(|name| ("tool", name.as_str(), "unknown", 1)).collect();
        let lines = lines(rows(&many), false);
        assert_eq!(lines.len(), 1);
        let reason = &lines[0].kind.reason;
        assert!(reason.chars().count() < 250, "{reason}");
        assert!(reason.contains("x… 1, 001"), "{reason}");
    }
}
