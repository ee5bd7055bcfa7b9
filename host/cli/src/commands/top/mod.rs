//! `lodestar top`

mod app;
mod columns;
mod frame;
mod live;
mod view;

use std::{pin::pin, time::Duration};

use lodestar_api as api;
use module_sdk::Table;

use self::{
    columns::Column,
    frame::{Frame, Sample},
};
use crate::{
    client::Client,
    error::{InvalidValue, Result},
    exit_codes, render,
    terminal::Terminal,
};

/// Watch what every module uses
///
/// CPU% is of one processor; LAG is the age of the oldest event that waits; P50 and P99 are the
/// durations of calls within the last minute. Keys: q quits, the arrows select a module, Enter
/// shows it, s sorts by the next column, p pauses. Where standard output is no terminal, one table
/// is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Top {
    /// Time between two looks, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Print one table, of one interval, and end
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Print so many tables, or JSON documents, and end
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Top {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let first = look(client).await?;
        let is_live = !(terminal.json || terminal.stdout_is_elsewhere || self.once);
        if is_live && self.count.is_none() {
            return live::run(first, self.interval, client, terminal.has_color()).await;
        }
        let endless = terminal.json && !self.once;
        let count = self.count.or((!endless).then_some(1));
        self.print(first, count, client, terminal).await
    }

    /// Prints a frame after each interval, `count` of them or until nobody reads.
    async fn print(
        &self,
        first: Sample,
        count: Option<u64>,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<u8> {
        let mut before = first;
        let mut gone = pin!(terminal.reader_gone());
        let mut printed = 0;
        while count.is_none_or(|count| printed < count) {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = &mut gone => break,
            }
            let after = look(client).await?;
            let frame = Frame::between(Some(&before), &after);
            if terminal.json {
                terminal.json_line(&frame)?;
            } else {
                if printed > 0 {
                    terminal.line("")?;
                }
                let width = terminal.screen();
                for line in frame.head(width) {
                    terminal.line(&line)?;
                }
                let text = render::table(&table(&frame, width), width, terminal.has_color());
                terminal.text(&text)?;
            }
            before = after;
            printed += 1;
        }
        Ok(exit_codes::DONE)
    }
}

async fn look(client: &Client) -> Result<Sample> {
    let status: api::Status = client.get("/v1/status").await?;
    Ok(Sample::now(status))
}

/// Builds the table of the modules in the order of the configuration, with the columns that fit.
fn table(frame: &Frame, width: usize) -> Table {
    let columns = columns::fitting(&frame.modules, width, 2);
    let title = |(column, _): &(Column, usize)| {
        let number = if column.is_number() { "#" } else { "" };
        format!("{}{number}", column.title())
    };
    let titles: Vec<String> = columns.iter().map(title).collect();
    let mut table = Table::new(titles.iter().map(String::as_str));
    for row in &frame.modules {
        table.row(columns.iter().map(|(column, _)| column.text(row)));
    }
    if frame.modules.is_empty() {
        table.notes.push("No module is configured and none lies on the module path.".to_owned());
    }
    table
}

fn interval(text: &str) -> Result<Duration, InvalidValue> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(InvalidValue::expected("seconds, from 0.1 to 3600")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample;

    #[test]
    fn prints_the_columns_that_fit() {
        let frame = Frame::between(None, &Sample::now(sample::status()));
        let check = |width, expected: &str| {
            assert_eq!(render::table(&table(&frame, width), width, false), expected);
        };
        check(
            100,
            "\
MODULE         STATE    CPU%  MEMORY  THREADS  QUEUE  LAG  EV/S     P50     P99  DROPS  ERRORS
ingest         running     -   2 MiB        3      0    -     -       -       -      0       0
usage_tracker  failed      -     0 B        0     41   2m     -  1.20ms  8.30ms      0       4
",
        );
        check(
            80,
            "\
MODULE         STATE    CPU%  MEMORY  QUEUE  EV/S     P50     P99  DROPS  ERRORS
ingest         running     -   2 MiB      0     -       -       -      0       0
usage_tracker  failed      -     0 B     41     -  1.20ms  8.30ms      0       4
",
        );
        check(
            50,
            "\
MODULE         STATE    CPU%  MEMORY  QUEUE  EV/S
ingest         running     -   2 MiB      0     -
usage_tracker  failed      -     0 B     41     -
",
        );
        assert_eq!(columns::fitting(&frame.modules, 200, 2).len(), 13);
    }
}
