//! The display of the statistics: one line for each kind that makes requests, sums for the others.

use std::collections::BTreeMap;

use jiff::Timestamp;
use module_sdk::{Table, human};
use serde::Serialize;

use super::{Kind, Seen};

/// Largest number of kinds that are named of a sum, each in at most [`NAME_CHARS`] characters.
const NAMED: usize = 3;
const NAME_CHARS: usize = 48;

/// Largest length of a source in the table, in characters; with the following lengths the table has
/// at most 100 columns.
const SOURCE_CHARS: usize = 20;
const RECORD_CHARS: usize = 20;
const WHY_CHARS: usize = 28;

/// One line of the answer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    kind: Kind,
    #[serde(flatten)]
    seen: Seen,
    /// Number of kinds of record that the line sums up.
    kinds: usize,
    /// The largest kinds of the sum.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    largest: Vec<Part>,
}

/// A kind within a sum.
#[derive(Debug, Clone, Serialize)]
struct Part {
    record: String,
    count: u64,
}

/// Sorts rows into the order in which they are shown: the most important first within each source.
pub(super) fn sort(rows: &mut [(Kind, Seen)]) {
    rows.sort_by_key(|(kind, seen)| {
        (kind.source.clone(), rank(kind.outcome), std::cmp::Reverse(seen.count), kind.clone())
    });
}

fn rank(outcome: &str) -> usize {
    const ORDER: &[&str] = &["request", "event", "refused", "unknown", "repeats", "ignored"];
    ORDER.iter().position(|known| *known == outcome).unwrap_or(ORDER.len())
}

/// Returns the lines for sorted rows: records that make no request are one line for each source and
/// outcome, unless `all` are wanted.
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
        "no mapper understands them".to_owned()
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
        format!("{} {}", cut(&self.record, NAME_CHARS), self.count)
    }
}

/// Returns a text, cut to at most `most` characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Creates the table for display. Reasons too long for a row are listed below it.
pub(super) fn table(lines: &[Line], since: Timestamp) -> Table {
    let mut table = Table::new(["SOURCE", "SIGNAL", "RECORD", "OUTCOME", "COUNT#", "WHY"]);
    table.title = format!("Records received since {since:.0}");
    let mut below = BTreeMap::new();
    for Line { kind, seen, largest, .. } in lines {
        let why = if kind.reason.chars().count() <= WHY_CHARS {
            kind.reason.clone()
        } else {
            let next = below.len() + 1;
            format!("see [{}] below", below.entry(kind.reason.as_str()).or_insert(next))
        };
        table.row([
            cut(&kind.source, SOURCE_CHARS),
            kind.signal.to_owned(),
            cut(&kind.record, RECORD_CHARS),
            kind.outcome.to_owned(),
            human::count(seen.count),
            why,
        ]);
        if !largest.is_empty() {
            let named: Vec<String> = largest.iter().map(Part::to_text).collect();
            let (source, named) = (cut(&kind.source, NAME_CHARS), named.join(", "));
            table.notes.push(format!("most of what is unknown of {source}: {named}"));
        }
    }
    let mut reasons: Vec<(usize, &str)> = below.into_iter().map(|(why, at)| (at, why)).collect();
    reasons.sort_unstable();
    table.notes.splice(0..0, reasons.into_iter().map(|(at, why)| format!("[{at}] {why}")));
    if lines.is_empty() {
        table.notes.push("Nothing yet. The module's README shows how to point a tool here.".into());
    } else if lines.iter().any(|line| line.kind.outcome == "unknown") {
        table.notes.push("unknown: counted and not used; --all lists every kind.".into());
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
        let notes = table(&summed, Timestamp::UNIX_EPOCH).notes;
        assert_eq!(notes[0], "most of what is unknown of codex: f 9, h 4, g 2");
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
        let note = &table(&lines, Timestamp::UNIX_EPOCH).notes[0];
        assert!(note.chars().count() < 250, "{note}");
        assert!(note.contains("x… 1, 001"), "{note}");
    }

    #[test]
    fn the_table_fits_a_hundred_columns_and_says_every_reason_once() {
        let reason = "the spans within it report the same calls as this one does";
        let long = |index: usize| {
            let outcome = if index < 2 { "refused" } else { "unknown" };
            let name = format!("{index}.{}", "name".repeat(30));
            let kind = Kind {
                source: format!("program-{}", "x".repeat(100)),
                signal: "metrics",
                record: name,
                outcome,
                reason: reason.to_owned(),
            };
            (kind, Seen { count: 99_999_999, last_seen: Timestamp::UNIX_EPOCH })
        };
        for all in [false, true] {
            let table = table(&lines((0..9).map(long).collect(), all), Timestamp::UNIX_EPOCH);
            let widest = |at: usize| {
                let cells = table.rows.iter().map(|row| row[at].chars().count());
                cells.chain([table.columns[at].title.len()]).max().unwrap_or(0)
            };
            let width = (0..6).map(widest).sum::<usize>() + 2 * 5;
            assert!(width <= 100, "{width}: {:?}", table.rows);
            let told = table.notes.iter().filter(|note| note.contains(reason)).count();
            assert_eq!((told, table.rows[0][5].as_str()), (1, "see [1] below"));
        }
    }
}
