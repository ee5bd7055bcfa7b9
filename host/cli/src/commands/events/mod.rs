//! `lodestar events …`

mod replay;

use std::pin::pin;

use lodestar_api::{AuditRow, DeadLetter, Envelope, Lag, Status, TailItem};
use lodestar_platform::visible::visible_line;
use module_sdk::Table;
use serde_json::Value;

use crate::{
    client::{Client, escaped},
    error::{CliError, Result},
    exit_codes, human, render,
    terminal::Terminal,
};

/// Watch events, and see the counters of those who handle them
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Events {
    Tail(Tail),
    Lag(LagArgs),
    Dead(Dead),
    Replay(replay::ReplayArgs),
    Audit(Audit),
}

/// Show events as they happen, until Ctrl-C
///
/// A line says how many events were left out where this reader was too slow.
#[derive(Debug, clap::Args)]
pub(crate) struct Tail {
    /// Topics to show: `*` stands for one part, `>` for all the rest
    #[arg(value_name = "FILTER", default_value = ">")]
    filter: String,
    /// End after so many events
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Show the text of requests (`llm.request.content`), and not only its size
    #[arg(long)]
    content: bool,
}

/// Show how far each module is behind
#[derive(Debug, clap::Args)]
pub(crate) struct LagArgs {}

/// List the events that a module could not handle
#[derive(Debug, clap::Args)]
pub(crate) struct Dead {
    /// Of this module only
    #[arg(value_name = "MODULE")]
    module: Option<String>,
}

/// Count again what waits and check that the counters balance; exit code 1 if they do not
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {}

impl Events {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        match self {
            Self::Tail(verb) => verb.run(client, terminal).await,
            Self::Lag(_) => lag(client, terminal).await,
            Self::Dead(verb) => verb.run(client, terminal).await,
            Self::Replay(verb) => verb.run(client, terminal).await,
            Self::Audit(_) => audit(client, terminal).await,
        }
    }
}

impl Tail {
    async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let content = if self.content { "&content=true" } else { "" };
        let path = format!("/v1/events/tail?filter={}{content}", escaped(&self.filter));
        let mut left = self.count.unwrap_or(u64::MAX);
        if left == 0 {
            return Ok(exit_codes::DONE);
        }
        let mut lines = client.follow(&path).await?;
        let mut gone = pin!(terminal.reader_gone());
        loop {
            let item = tokio::select! {
                item = lines.next::<TailItem>() => item?,
                () = &mut gone => return Ok(exit_codes::DONE),
            };
            let Some(item) = item else { break };
            if terminal.json {
                terminal.json_line(&item)?;
            } else {
                terminal.line(&tail_line(&item))?;
            }
            if matches!(item, TailItem::Event(_)) {
                left -= 1;
            }
            if left == 0 {
                return Ok(exit_codes::DONE);
            }
        }
        Err(CliError::failed("lodestard ended the stream of events")
            .help("see with `lodestar status` whether it still runs"))
    }
}

impl Dead {
    async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let query = self.module.map(|module| format!("?module={}", escaped(&module)));
        let path = format!("/v1/events/dead{}", query.unwrap_or_default());
        let letters: Vec<DeadLetter> = client.get(&path).await?;
        if terminal.json {
            terminal.json_document(&letters)?;
            return Ok(exit_codes::DONE);
        }
        for letter in &letters {
            terminal.line(&dead_text(letter, terminal.width))?;
        }
        if letters.is_empty() {
            terminal.line("No event is dead.")?;
        } else {
            terminal.note("Deliver them again with `lodestar events replay MODULE --all`.");
        }
        Ok(exit_codes::DONE)
    }
}

async fn lag(client: &Client, terminal: &mut Terminal) -> Result<u8> {
    let rows: Vec<Lag> = client.get("/v1/events/lag").await?;
    if terminal.json {
        terminal.json_document(&rows)?;
    } else {
        terminal.table(&lag_table(&rows))?;
    }
    Ok(exit_codes::DONE)
}

fn lag_table(rows: &[Lag]) -> Table {
    let mut table = Table::new([
        "MODULE",
        "STATE",
        "ACCEPTED#",
        "HANDLED#",
        "DEAD#",
        "DROPPED#",
        "PENDING#",
        "OLDEST#",
    ]);
    for row in rows {
        let reasons: Vec<String> = row
            .dropped
            .iter()
            .filter(|(_, number)| **number > 0)
            .map(|(reason, number)| format!("{} by {reason}", human::count(*number)))
            .collect();
        if !reasons.is_empty() {
            table.notes.push(format!("{} dropped {}", row.module, reasons.join(", ")));
        }
        table.row([
            row.module.clone(),
            row.state.clone(),
            human::count(row.accepted),
            human::count(row.handled),
            human::count(row.dead),
            human::count(row.dropped.values().sum::<u64>()),
            human::count(row.pending),
            row.oldest_pending_ms.map_or_else(|| "-".to_owned(), human::duration_ms),
        ]);
    }
    if rows.is_empty() {
        table.notes.push("No module listens to events.".to_owned());
    }
    table
}

async fn audit(client: &Client, terminal: &mut Terminal) -> Result<u8> {
    let rows: Vec<AuditRow> = client.get("/v1/events/audit").await?;
    let balanced = rows.iter().all(|row| row.balanced);
    if terminal.json {
        terminal.json_document(&rows)?;
    } else {
        terminal.table(&audit_table(&rows))?;
        // The counters were asked for; without the status they are what they are.
        let status = client.get::<Status>("/v1/status").await;
        for loss in status.iter().flat_map(|status| &status.ledger.losses) {
            terminal.note(&format!("event ledger: {} ({})", loss.what, loss.found));
        }
    }
    Ok(if balanced { exit_codes::DONE } else { exit_codes::FAILED })
}

fn audit_table(rows: &[AuditRow]) -> Table {
    let mut table = Table::new([
        "MODULE",
        "ACCEPTED#",
        "HANDLED#",
        "DEAD#",
        "DROPPED#",
        "PENDING#",
        "RECOUNTED#",
        "COUNTERS",
    ]);
    for row in rows {
        table.row([
            row.module.clone(),
            human::exact(row.counters.accepted),
            human::exact(row.counters.handled),
            human::exact(row.counters.dead),
            human::exact(row.counters.dropped),
            human::exact(row.counters.pending),
            human::exact(row.recounted_pending),
            verdict(row),
        ]);
    }
    if rows.is_empty() {
        table.notes.push("No module listens to events.".to_owned());
    }
    table
}

/// Returns `balance` if the counters of a module balance, and otherwise the difference.
fn verdict(row: &AuditRow) -> String {
    let counters = row.counters;
    let found = [counters.handled, counters.dead, counters.dropped, row.recounted_pending];
    let found = found.iter().fold(0_u64, |sum, number| sum.saturating_add(*number));
    if row.balanced {
        "balance".to_owned()
    } else if found < counters.accepted {
        format!("{} missing", human::exact(counters.accepted - found))
    } else {
        format!("{} too many", human::exact(found - counters.accepted))
    }
}

pub(crate) fn tail_line(item: &TailItem) -> String {
    match item {
        TailItem::Skipped { skipped } => {
            format!("... {} left out: this reader was too slow", human::count(*skipped))
        }
        TailItem::Event(event) => event_line(event),
    }
}

fn event_line(event: &Envelope) -> String {
    let source = event.source.strip_prefix("/lodestar/").unwrap_or(&event.source);
    let subject = event.subject.as_deref().filter(|subject| !subject.is_empty());
    let subject = subject.map(|subject| format!(" {subject}")).unwrap_or_default();
    let data = match &event.data {
        Value::Null => String::new(),
        data => format!(" {data}"),
    };
    let line = format!("{} {} {source}{subject}{data}", event.time, event.topic);
    visible_line(&line).into_owned()
}

fn dead_text(letter: &DeadLetter, width: usize) -> String {
    let why = format!(
        "{}, {} attempts, last {}: {}",
        letter.module, letter.attempts, letter.failed_at, letter.reason
    );
    let why = human::plain(&why).replace('\n', " ");
    let mut lines = vec![format!("{}  {}", letter.event.id, human::plain(&letter.event.topic))];
    lines.extend(
        render::wrapped(&why, width.saturating_sub(4)).into_iter().map(|l| format!("    {l}")),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{render::table, tests::sample};

    #[test]
    fn shows_lag() {
        let rows: Vec<Lag> = serde_json::from_value(json!([{
            "module": "usage_tracker", "accepted": 12_345_678, "handled": 12_345_600, "dead": 2,
            "dropped": {"overflow": 6, "retention": 0}, "pending": 70, "oldest_pending_ms": 61_000,
            "state": "running",
        }]))
        .expect("rows");
        assert_eq!(
            table(&lag_table(&rows), 80, false),
            "\
MODULE         STATE    ACCEPTED  HANDLED  DEAD  DROPPED  PENDING  OLDEST
usage_tracker  running     12.3M    12.3M     2        6       70   1m 1s

usage_tracker dropped 6 by overflow
"
        );
    }

    #[test]
    fn shows_the_audit() {
        let rows: Vec<AuditRow> = serde_json::from_value(json!([
            {"module": "usage_tracker", "accepted": 10, "handled": 7, "dead": 1, "dropped": 0,
             "pending": 2, "recounted_pending": 2, "balanced": true},
            {"module": "budget", "accepted": 10, "handled": 7, "dead": 1, "dropped": 0,
             "pending": 2, "recounted_pending": 1, "balanced": false},
        ]))
        .expect("rows");
        assert_eq!(
            table(&audit_table(&rows), 80, false),
            "\
MODULE         ACCEPTED  HANDLED  DEAD  DROPPED  PENDING  RECOUNTED  COUNTERS
usage_tracker        10        7     1        0        2          2  balance
budget               10        7     1        0        2          1  1 missing
"
        );
    }

    #[test]
    fn writes_an_event_on_one_line() {
        let check = |item: serde_json::Value, expected: &str| {
            let item: TailItem = serde_json::from_value(item).expect("an item");
            assert_eq!(tail_line(&item), expected);
        };
        check(json!({"skipped": 12}), "... 12 left out: this reader was too slow");
        check(
            serde_json::to_value(sample::envelope()).expect("JSON"),
            "2026-11-21T01:50:17.123Z llm.request.completed ingest s\\u001b1 {\"input_tokens\":3}",
        );
    }

    #[test]
    fn a_dead_event_keeps_its_id_whole() {
        let letter = DeadLetter {
            module: "usage_tracker".to_owned(),
            event: sample::envelope(),
            reason: "cannot write the row: UNIQUE constraint failed: request.dedupe_key".to_owned(),
            attempts: 5,
            failed_at: "2026-11-21T01:51:00.000Z".to_owned(),
        };
        assert_eq!(
            dead_text(&letter, 80),
            "\
019aa3c1-7b5e-7000-8000-000000000001  llm.request.completed
    usage_tracker, 5 attempts, last 2026-11-21T01:51:00.000Z: cannot write the
    row: UNIQUE constraint failed: request.dedupe_key"
        );
    }
}
