//! `lodestar health watch`: changes and alerts as they come.

use std::{
    io::Write as _,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::Duration,
};

use module_sdk::{Job, Output, Reply, Result, events::CheckStatus};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::{alert_json, millisecond};
use crate::{
    HealthMonitor, alert::Transition, board::Overall, monitor::Step, text::visible, time::Moment,
};

/// Shows changes of components and alerts as they come, until it is interrupted. It begins with
/// what is not well now.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WatchArgs {
    /// Form of the lines.
    #[serde(default)]
    format: Format,
    /// Seconds after which it ends by itself.
    #[schemars(range(min = 1, max = 86_400))]
    seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object per line.
    Jsonl,
}

/// A line of the stream.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    text: String,
    data: Value,
}

/// Those who watch.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Vec<Sender<Line>>);

/// Time after which a watcher that heard nothing is asked whether it is still there.
const BEAT: Duration = Duration::from_secs(5);
/// Time for which somebody may watch who named none.
const LONGEST: Duration = Duration::from_secs(86_400);

impl Watchers {
    /// Tells all watchers what a step brought.
    pub(crate) fn tell(&mut self, step: &Step, overall: Overall, now: Moment) {
        if self.0.is_empty() {
            return;
        }
        let lines = lines(step, overall, now);
        self.0.retain(|watcher| lines.iter().all(|line| watcher.send(line.clone()).is_ok()));
    }

    fn join(&mut self) -> (Sender<Line>, Receiver<Line>) {
        let (sender, receiver) = mpsc::channel();
        self.0.push(sender.clone());
        (sender, receiver)
    }
}

impl HealthMonitor {
    pub(crate) fn watch(&mut self, args: WatchArgs) -> Result<Job> {
        self.look()?;
        let now = self.host.now();
        let (sender, receiver) = self.watchers.join();
        let board = self.monitor.board();
        let troubled = board
            .iter()
            .filter(|(_, entry)| !matches!(entry.status, CheckStatus::Ok | CheckStatus::Absent));
        for (component, entry) in troubled {
            let text = format!(
                "{:.0}  {component}  {} since {:.0}  {}",
                now, entry.status, entry.since, entry.message
            );
            let data = json!({
                "at": millisecond(now), "kind": "state", "component": &**component,
                "to": entry.status, "message": entry.message,
            });
            // The receiver is here.
            let _ = sender.send(Line { text: visible_line(&text), data });
        }
        // Only the module holds a sender from now on: its end ends the stream.
        drop(sender);
        let overall = board.overall().as_str();
        let limit = args.seconds.map_or(LONGEST, Duration::from_secs);
        Ok(Job::new(move |output| {
            if args.format == Format::Text {
                writeln!(output, "{now:.0}  {overall}")?;
            }
            let lines = show(&receiver, output, args.format, limit)?;
            Reply::json(&json!({"lines": lines}))
        }))
    }
}

/// Writes lines until the time is over, the module stops or nobody reads any more.
fn show(
    lines: &Receiver<Line>,
    output: &mut Output,
    format: Format,
    limit: Duration,
) -> Result<u64> {
    let begun = std::time::Instant::now();
    let mut count = 0;
    loop {
        output.flush()?;
        let left = limit.saturating_sub(begun.elapsed());
        match lines.recv_timeout(left.min(BEAT)) {
            Ok(line) => {
                count += 1;
                match format {
                    Format::Text => writeln!(output, "{}", line.text)?,
                    Format::Jsonl => writeln!(output, "{}", line.data)?,
                }
            }
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < limit => {
                // A reader that went away is noticed here.
                output.progress(count, None, "lines")?;
            }
            Err(_) => return Ok(count),
        }
    }
}

fn lines(step: &Step, overall: Overall, now: Moment) -> Vec<Line> {
    let at = millisecond(now.at);
    let changes = step.changes.iter().map(|change| Line {
        text: format!(
            "{:.0}  {}  {} -> {}  {}",
            now.at, change.component, change.from, change.to, change.message
        ),
        data: json!({
            "at": at, "kind": "state", "component": &*change.component, "from": change.from,
            "to": change.to, "message": change.message, "overall": overall.as_str(),
        }),
    });
    let transitions = step.transitions.iter().map(|transition| {
        let (word, kind, alert) = match transition {
            Transition::Raised(alert) => (alert.severity.as_str(), "raised", alert),
            Transition::Resolved(alert, _) => ("resolved", "resolved", alert),
        };
        Line {
            text: format!("{:.0}  {word} {}  {}", now.at, alert.id, alert.message),
            data: json!({"at": at, "kind": kind, "alert": alert_json(alert)}),
        }
    });
    let all = changes.chain(transitions);
    all.map(|line| Line { text: visible_line(&line.text), ..line }).collect()
}

/// Writes out what a terminal would obey, in a line that may be longer than a name.
fn visible_line(text: &str) -> String {
    let pieces = text.split_inclusive(' ');
    pieces.map(visible).collect()
}

#[cfg(test)]
mod tests {
    use module_sdk::testing::Bench;

    use super::*;

    #[test]
    fn it_begins_with_what_is_so_and_ends_in_time() {
        // Nobody answers for the daemon here, and this machine may be short of something.
        let config = json!({"checks": {
            "modules": {"enabled": false}, "disk": {"enabled": false},
            "memory": {"enabled": false}, "pressure": {"enabled": false},
        }});
        let mut bench = Bench::<HealthMonitor>::start(config).expect("it starts");
        let args = json!({"seconds": 1});
        let (text, reply) = bench.stream("watch", args).expect("it answers");
        assert!(text.lines().next().expect("a line").ends_with("  healthy"), "{text}");
        assert_eq!(reply.data["lines"], 0);
        bench.stop().expect("it stops");
    }
}
