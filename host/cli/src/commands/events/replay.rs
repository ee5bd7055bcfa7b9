//! `lodestar events replay`

use clap::ArgGroup;
use jiff::Timestamp;
use lodestar_api::{Replay, Replayed};
use module_sdk::{TimeRangeArgs, Zone};

use crate::{
    client::Client,
    error::{CliError, Result},
    exit_codes, human,
    terminal::Terminal,
};

const USAGE: &str = "\
lodestar events replay [OPTIONS] <MODULE> <ID>...
       lodestar events replay [OPTIONS] <MODULE> --all
       lodestar events replay [OPTIONS] <MODULE> --since <TIME> [--until <TIME>]";

const EXAMPLES: &str = "\
Examples:
  lodestar events replay usage_tracker --all          every dead event of the module
  lodestar events replay usage_tracker --since 2h     what was accepted in the last two hours
  lodestar events replay usage_tracker --since 2026-11-01 --until 2026-11-03

A replay by time gives a module what the ledger still keeps and it listens to, also from before it
was first enabled. What still waits for it or is dead is not doubled. The events keep their ids and
count as newly accepted: a module that counts by the id of the event counts none twice. The ledger
deletes what every module has settled.";

/// Deliver events to a module again: dead ones, or those of a time
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("which").required(true),
    override_usage = USAGE,
    after_help = EXAMPLES
)]
pub(crate) struct ReplayArgs {
    /// The module
    #[arg(value_name = "MODULE")]
    module: String,
    /// The ids of dead events, as `lodestar events dead` lists them
    #[arg(value_name = "ID", group = "which")]
    ids: Vec<String>,
    /// All dead events of the module
    #[arg(long, group = "which")]
    all: bool,
    /// Events accepted since then, as far as the ledger keeps them: 90m, 12h, 7d, today, yesterday,
    /// 2026-11-01, 2026-11-01T10:30
    #[arg(long, value_name = "TIME", group = "which", allow_hyphen_values = true)]
    since: Option<String>,
    /// Until when, in the same forms; a day means all of it [default: now]
    #[arg(long, value_name = "TIME", requires = "since", allow_hyphen_values = true)]
    until: Option<String>,
}

impl ReplayArgs {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let (since, until) = range(self.since, self.until)?;
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let ids = (!self.all && since.is_none()).then_some(self.ids);
        let replay = Replay { module: self.module, ids, since: text(since), until: text(until) };
        let replayed: Replayed = client.post("/v1/events/replay", &replay).await?;
        if terminal.json {
            terminal.json_document(&replayed)?;
            return Ok(exit_codes::DONE);
        }
        let events = if replayed.replayed == 1 { "event waits" } else { "events wait" };
        let number = human::count(replayed.replayed);
        terminal.line(&format!("{number} {events} for {} again", replay.module))?;
        if let Some(since) = since {
            gap(&replayed, since).into_iter().for_each(|line| terminal.note(&line));
        }
        Ok(exit_codes::DONE)
    }
}

/// Returns the begin and the end of the time that was asked for, where they were given.
fn range(
    since: Option<String>,
    until: Option<String>,
) -> Result<(Option<Timestamp>, Option<Timestamp>)> {
    let Some(since) = since else { return Ok((None, None)) };
    let args = TimeRangeArgs { since: Some(since), until };
    let range = args.resolve("now", Timestamp::now(), &Zone::default());
    let range = range.map_err(|error| CliError::usage(error.to_string()))?;
    Ok((Some(range.from), (!range.is_open).then_some(range.to)))
}

/// Describes the part of the time that was asked for that the ledger no longer has.
fn gap(replayed: &Replayed, since: Timestamp) -> Option<String> {
    let Some(kept) = &replayed.kept_since else {
        return Some("The ledger keeps no event: every module has settled all.".to_owned());
    };
    let oldest: Timestamp = kept.parse().ok()?;
    (oldest > since)
        .then(|| format!("The oldest event that the ledger still keeps was accepted at {kept}."))
}
