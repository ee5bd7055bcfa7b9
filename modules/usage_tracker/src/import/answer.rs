//! The answer of an import, for programs and for people.

use module_sdk::{Reply, Result, Table, Usd, human::count};
use serde_json::{Value, json};

use super::{
    read::{ReadFiles, Skipped},
    write::{Counts, Difference, Imported},
};
use crate::{
    commands::requests,
    format::{short, usd},
    store::Measures,
};

/// Lines that were left out and are shown to people.
const SHOWN: usize = 10;
/// Differences that are listed.
const LISTED: usize = 100;

/// Returns the answer.
pub(super) fn reply(read: &ReadFiles, imported: &Imported, dry_run: bool) -> Result<Reply> {
    let mut all = Counts::default();
    for counts in imported.tools.values() {
        all.records += counts.records;
        all.imported += counts.imported;
        all.duplicates += counts.duplicates;
        all.merged += counts.merged;
        all.added.add_sums_of(&counts.added);
    }
    let tools: Vec<Value> = imported
        .tools
        .iter()
        .map(|(tool, counts)| {
            let mut value = figures(counts);
            value["tool"] = tool.name().into();
            value["files"] = counts.files.into();
            value
        })
        .collect();
    let mut data = figures(&all);
    data["files"] = read.files.into();
    data["unchanged"] = read.unchanged.into();
    data["sessions"] = imported.sessions.into();
    data["skipped"] = serde_json::to_value(&read.skipped)?;
    data["skipped_lines"] = read.skipped_lines.into();
    data["unpriced_models"] = json!(imported.unpriced_models);
    data["differences"] =
        imported.differences.iter().take(LISTED).map(difference).collect::<Vec<_>>().into();
    data["tools"] = tools.into();
    data["dry_run"] = dry_run.into();
    let has_failed = read.files + read.unchanged == 0 && read.skipped_lines > 0;
    let table = table(read, imported, &all, dry_run);
    Ok(Reply::json(&data)?.table(table).exit_code(u8::from(has_failed)))
}

fn figures(counts: &Counts) -> Value {
    let added = &counts.added;
    json!({
        "records": counts.records,
        "imported": counts.imported,
        "duplicates": counts.duplicates,
        "merged": counts.merged,
        "tokens": {
            "input_tokens": added.input,
            "cached_input_tokens": added.cache_read,
            "cache_write_input_tokens": added.cache_write,
            "output_tokens": added.output,
            "reasoning_tokens": added.reasoning,
        },
        "cost_usd": cost(added),
    })
}

/// Returns the cost that was added; `None` where none is known.
fn cost(added: &Measures) -> Option<Usd> {
    (added.priced > 0 || added.unpriced == 0).then_some(Usd::from_nano(added.cost))
}

fn difference(difference: &Difference) -> Value {
    let Difference { session, stated, counted: (input, output, cost) } = difference;
    json!({
        "session": session,
        "stated": {
            "input_tokens": stated.input_tokens,
            "output_tokens": stated.output_tokens,
            "cost_usd": stated.cost_nano_usd.map(Usd::from_nano),
        },
        "counted": {
            "input_tokens": input,
            "output_tokens": output,
            "cost_usd": cost.map(Usd::from_nano),
        },
    })
}

fn table(read: &ReadFiles, imported: &Imported, all: &Counts, dry_run: bool) -> Table {
    let mut table =
        Table::new(["TOOL", "FILES#", "NEW#", "KNOWN#", "INPUT#", "CACHED#", "OUTPUT#", "COST#"]);
    let verb = if dry_run { "What would be imported" } else { "Imported" };
    table.title = verb.to_owned();
    let worth = imported.tools.iter().filter(|(_, counts)| counts.records > 0);
    for (tool, counts) in worth {
        table.rows.push(cells(tool.name(), counts.files, counts));
    }
    if table.rows.len() > 1 {
        table.total = cells("total", read.files, all);
    }
    if table.rows.is_empty() {
        table = Table::default();
    }
    table.notes = notes(read, imported, all, dry_run);
    table
}

fn cells(name: &str, files: u64, counts: &Counts) -> Vec<String> {
    let added = &counts.added;
    let mut money = usd(cost(added));
    if added.unpriced > 0 && added.priced > 0 {
        money.push('+');
    }
    vec![
        name.to_owned(),
        count(files),
        count(counts.imported),
        count(counts.duplicates + counts.merged),
        count(added.input),
        count(added.cache_read),
        count(added.output),
        money,
    ]
}

fn notes(read: &ReadFiles, imported: &Imported, all: &Counts, dry_run: bool) -> Vec<String> {
    let verb = if dry_run { "would be imported" } else { "imported" };
    let sessions = counted(imported.sessions, "session");
    let new = i64::try_from(all.imported).unwrap_or(i64::MAX);
    let mut notes = vec![match (read.files, read.unchanged) {
        (0, 0) => "no file could be read".to_owned(),
        (0, unchanged) => format!("nothing new in {}", counted(unchanged, "file")),
        (files, 0) => {
            format!("{} of {sessions} {verb} from {}", requests(new), counted(files, "file"))
        }
        (files, unchanged) => format!(
            "{} of {sessions} {verb} from {}; {} unchanged",
            requests(new),
            counted(files, "file"),
            count(unchanged)
        ),
    }];
    if all.merged > 0 {
        notes.push(format!(
            "{} told more of requests that were known (`lodestar usage sources`)",
            counted(all.merged, "record")
        ));
    }
    if !imported.unpriced_models.is_empty() {
        let names: Vec<String> =
            imported.unpriced_models.iter().take(SHOWN).map(|model| short(model, 40)).collect();
        notes.push(format!(
            "without a known price, and so missing in COST: {} (`lodestar usage models`)",
            names.join(", ")
        ));
    }
    notes.extend(differences(&imported.differences));
    for Skipped { file, line, reason } in read.skipped.iter().take(SHOWN) {
        notes.push(match line {
            0 => format!("left out: {file} {reason}"),
            line => format!("left out: {file}:{line} {reason}"),
        });
    }
    let more = read.skipped_lines.saturating_sub(SHOWN as u64);
    if more > 0 {
        notes.push(format!("and {} left out; --json lists them", counted(more, "more line")));
    }
    notes
}

/// Returns what is to be said of sessions whose tool states other sums.
fn differences(differences: &[Difference]) -> Option<String> {
    let first = differences.first()?;
    let (input, output, cost) = first.counted;
    let stated = &first.stated;
    let money = |nano: Option<i64>| usd(nano.map(Usd::from_nano));
    Some(format!(
        "{} of which the tool itself states other sums (it also counts what it wrote nowhere): {} \
         has {} in, {} out, {} here, and {} in, {} out, {} there; --json lists them",
        counted(differences.len() as u64, "session"),
        short(&first.session, 20),
        count(input),
        count(output),
        money(cost),
        count(stated.input_tokens),
        count(stated.output_tokens),
        money(stated.cost_nano_usd),
    ))
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{} {what}s", count(number)) }
}
