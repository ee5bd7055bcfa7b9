//! `lodestar events replay`

use clap::ArgGroup;
use jiff::{Timestamp, Zoned};
use lodestar_api::{Replay, Replayed};

use crate::{
    client::Client,
    error::{CliError, Result},
    exit_codes, human,
    moment::{Edge, moment},
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
    /// What the ledger keeps of the events accepted since then: 90m, 12h, 7d, today, yesterday,
    /// 2026-11-01, 2026-11-01T10:30
    #[arg(long, value_name = "TIME", group = "which", allow_hyphen_values = true)]
    since: Option<String>,
    /// Until when, in the same forms; a day means all of it [default: now]
    #[arg(long, value_name = "TIME", requires = "since", allow_hyphen_values = true)]
    until: Option<String>,
}

impl ReplayArgs {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let now = Zoned::now();
        let time = |option: &str, text: &Option<String>, edge| {
            text.as_deref().map(|text| moment(option, text, &now, edge)).transpose()
        };
        let since = time("since", &self.since, Edge::Start)?;
        let until = time("until", &self.until, Edge::End)?;
        if let Some(since) = since.filter(|since| *since > now.timestamp()) {
            let since = since.to_zoned(now.time_zone().clone());
            return Err(CliError::usage(format!(
                "--since begins at {}, which is in the future: it is {}",
                since.strftime("%Y-%m-%d %H:%M"),
                now.strftime("%Y-%m-%d %H:%M")
            ))
            .help("write a time that has passed"));
        }
        if let (Some(since), Some(until)) = (since, until)
            && until <= since
        {
            let (since, until) = (since.to_zoned(now.time_zone().clone()), until);
            let until = until.to_zoned(now.time_zone().clone());
            return Err(CliError::usage(format!(
                "--until ends at {} and --since begins at {}",
                until.strftime("%Y-%m-%d %H:%M"),
                since.strftime("%Y-%m-%d %H:%M")
            ))
            .help("exchange them or widen the range"));
        }
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

/// What of the asked time the ledger no longer has.
fn gap(replayed: &Replayed, since: Timestamp) -> Option<String> {
    let Some(kept) = &replayed.kept_since else {
        return Some("The ledger keeps no event: every module has settled all.".to_owned());
    };
    let oldest: Timestamp = kept.parse().ok()?;
    (oldest > since)
        .then(|| format!("The oldest event that the ledger still keeps was accepted at {kept}."))
}
