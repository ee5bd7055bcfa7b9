//! `lodestar modules why`

use lodestar_api as api;
use lodestar_platform::visible::visible_line;

use crate::{
    client::{Client, escaped},
    error::Result,
    exit_codes,
    human::plain,
    terminal::Terminal,
};

/// Show a module's history: what happened, when, what the daemon did, and what you can do
#[derive(Debug, clap::Args)]
pub(crate) struct Why {
    /// The module
    #[arg(value_name = "MODULE")]
    name: String,
    /// Number of the last entries to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    lines: usize,
}

impl Why {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let path = format!("/v1/modules/{}/why", escaped(&self.name));
        let mut why: api::Why = client.get(&path).await?;
        why.history.drain(..why.history.len().saturating_sub(self.lines));
        if terminal.json {
            terminal.json_document(&why)?;
            return Ok(exit_codes::DONE);
        }
        let api::Why { module, state, reason, since, advice, history } = why;
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let state = if state == "backoff" { "in backoff" } else { &state };
        terminal.line(&format!(
            "{module} is {state} since {}{}",
            moment(&since),
            plain(&reason)
        ))?;
        if !history.is_empty() {
            terminal.line("")?;
        }
        for history in history {
            let api::HistoryEntry { at, what, detail } = history;
            let detail = visible_line(&detail);
            terminal.line(format!("{}  {what:<12} {detail}", moment(&at)).trim_end())?;
        }
        if !advice.is_empty() {
            terminal.line("\nWhat you can do:")?;
        }
        for line in advice {
            terminal.line(&format!("  {}", plain(&line)))?;
        }
        Ok(exit_codes::DONE)
    }
}

/// Formats a time such as `2026-11-21T05:00:00.123Z` for people, in their time zone.
fn moment(at: &str) -> String {
    match at.parse::<jiff::Timestamp>() {
        Ok(at) => {
            let local = at.to_zoned(jiff::tz::TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => at.to_owned(),
    }
}
