//! `lodestar router savings`.

use module_sdk::{
    Error, ErrorKind, Job, Reply, Result, Table, TimeRange, TimeRangeArgs, Zone, human::count,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{explain::PATIENCE, shown::money};
use crate::{
    Router,
    journal::{Reader, Savings},
};

/// Counts what was saved, in 30 days where nothing else is said: against the cost of the same
/// answers at `router.baseline_model`, beside who answered and how good local answers are.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SavingsArgs {
    #[serde(flatten)]
    range: TimeRangeArgs,
}

/// Lines between two reports of progress.
const STEP: u64 = 10_000;

impl Router {
    pub(crate) fn savings(&mut self, args: SavingsArgs) -> Result<Job> {
        let range = args.range.resolve("30d", self.app.host.now(), &Zone::default())?;
        let app = self.app.clone();
        Ok(Job::new(move |output| {
            app.journal.flush(PATIENCE);
            let bounds = range.bounds_ms();
            let mut reader = Reader::open(app.journal.directory(), bounds.0, bounds.1)?;
            let (mut savings, mut lines) = (Savings::default(), 0);
            while let Some(line) = reader.next()? {
                savings.add(&line, bounds);
                lines += 1;
                if lines % STEP == 0 {
                    if app.is_draining() {
                        let message = "the router is stopping; ask again";
                        return Err(Error::of(ErrorKind::Cancelled, message));
                    }
                    output.progress(lines, None, "requests")?;
                }
            }
            let lost = app.journal.lost();
            let mut data = serde_json::to_value(&savings)?;
            data["from"] = range.from.to_string().into();
            data["to"] = range.to.to_string().into();
            data["lost"] = lost.into();
            data["damaged"] = reader.damaged.into();
            let mut table = table(&savings, &range);
            if lost > 0 {
                table.notes.push(format!(
                    "{} could not be written to the journal since the start and are not counted",
                    requests(lost)
                ));
            }
            if reader.damaged > 0 {
                let damaged = reader.damaged;
                table.notes.push(format!("{damaged} lines of the journal cannot be read"));
            }
            Ok(Reply::json(&data)?.table(table))
        }))
    }
}

fn requests(number: u64) -> String {
    if number == 1 { "1 request".to_owned() } else { format!("{} requests", count(number)) }
}

fn table(savings: &Savings, range: &TimeRange) -> Table {
    let mut table = Table::new(["ANSWERED BY", "REQ#", "SHARE#"]);
    let local = |time: jiff::Timestamp| {
        time.to_zoned(range.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
    };
    table.title = format!("Savings from {} to {}", local(range.from), local(range.to));
    let all = savings.requests;
    let rows = [
        ("local models", savings.local),
        ("the cache", savings.cached),
        ("providers", savings.paid),
        ("nobody", savings.failed),
        ("given up by the client", savings.aborted),
    ];
    for (who, number) in rows.into_iter().filter(|(_, number)| *number > 0) {
        table.row([who.to_owned(), count(number), percent(number, all)]);
    }
    if all == 0 {
        table.notes.push("no requests in this time".to_owned());
        return table;
    }
    table.total = vec!["total".to_owned(), count(all), String::new()];
    table.notes = notes(savings);
    table
}

fn notes(savings: &Savings) -> Vec<String> {
    let known = |nano: i64| money((!savings.is_unknown()).then_some(nano));
    let models: Vec<&str> = savings.baseline_models.iter().map(String::as_str).collect();
    let there = if models.is_empty() { "the baseline model".to_owned() } else { models.join(", ") };
    let mut notes = vec![format!(
        "it cost {}, and would have cost {} at {there}: saved {}",
        known(savings.cost),
        known(savings.baseline),
        known(savings.saved())
    )];
    if savings.unpriced > 0 {
        notes.push(format!(
            "{} without a known price or count of tokens: nothing is counted as saved by them",
            requests(savings.unpriced)
        ));
    }
    match savings.quality() {
        Some((low, high)) => notes.push(format!(
            "{} of {} local answers that were checked were as good as the paid ones: {:.0}% to \
             {:.0}% of all, with 95% confidence; the checks cost {}",
            count(savings.kept),
            count(savings.checked),
            low * 100.0,
            high * 100.0,
            money(Some(savings.checks_cost))
        )),
        None if savings.local > 0 => notes.push(
            "no local answer was checked, so it is not known whether they were as good \
             (router.quality.sample)"
                .to_owned(),
        ),
        None => {}
    }
    if savings.shadows > 0 {
        notes.push(format!(
            "experiments asked {} beside the answers, for {}: that is not counted here",
            requests(savings.shadows),
            money(Some(savings.shadows_cost))
        ));
    }
    notes
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
fn percent(part: u64, all: u64) -> String {
    format!("{:.1}%", part as f64 * 100.0 / all.max(1) as f64)
}
