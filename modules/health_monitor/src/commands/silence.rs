//! `lodestar health silence` and `lodestar health ack`.

use module_sdk::{Error, ErrorKind, Reply, Result, Table, jiff::Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::{ago, millisecond};
use crate::{
    HealthMonitor,
    notify::{
        matcher::Matcher,
        silence::{Silence, acknowledge},
    },
    quantity::Span,
    text::visible,
};

/// Tells nobody of some alerts for a time. They are kept, and told when the silence ends and they
/// still fire.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SilenceArgs {
    /// Alerts that are meant: a rule, component or id, with `*` for any characters (`disk.*`), or
    /// conditions: `component=disk.*,severity=warning`.
    #[serde(default)]
    #[schemars(extend("x-positional" = true))]
    r#match: Option<String>,
    /// Time that it lasts: `30m`, `2h`, `1d`.
    #[serde(default)]
    r#for: Option<Span>,
    /// Reason, for others.
    #[serde(default)]
    comment: String,
    /// Show the silences.
    #[serde(default)]
    list: bool,
    /// Number of a silence that ends now.
    #[serde(default)]
    end: Option<i64>,
}

/// Notes that somebody works on an alert: there are no reminders of it any more.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcknowledgeArgs {
    /// Id of the alert, as `lodestar health alerts` shows it, or its beginning.
    #[schemars(extend("x-positional" = true))]
    id: String,
    /// Name of whoever works on it.
    #[serde(default = "AcknowledgeArgs::somebody")]
    by: String,
}

impl AcknowledgeArgs {
    fn somebody() -> String {
        "somebody".to_owned()
    }
}

/// Silences at most.
const SILENCES: usize = 200;

impl HealthMonitor {
    pub(crate) fn silence(&mut self, args: SilenceArgs) -> Result<Reply> {
        let now = self.host.now();
        match (&args.r#match, args.end, args.list) {
            (None, None, _) => self.list_silences(now),
            (None, Some(id), false) => self.end_silence(id, now),
            (Some(matcher), None, false) => {
                let matcher: Matcher =
                    matcher.parse().map_err(|error| Error::usage(format!("{error}")))?;
                self.begin_silence(matcher, &args, now)
            }
            _ => Err(Error::usage("name alerts to silence, or use --list, or --end with a number")),
        }
    }

    fn begin_silence(
        &mut self,
        matcher: Matcher,
        args: &SilenceArgs,
        now: Timestamp,
    ) -> Result<Reply> {
        let Some(span) = args.r#for.filter(|span| span.ms() > 0) else {
            return Err(Error::usage("a silence ends: say for how long, such as --for 2h"));
        };
        if self.notify.silences().len() >= SILENCES {
            let error = Error::usage(format!("there are {SILENCES} silences already"));
            return Err(error.hint("end some with --end; --list shows them"));
        }
        let ms = i64::try_from(span.ms()).unwrap_or(i64::MAX);
        let ends_at = now.as_millisecond().saturating_add(ms);
        let silence = Silence {
            id: 0,
            matcher,
            comment: visible(&args.comment),
            created_at: now,
            ends_at: Timestamp::from_millisecond(ends_at)?,
        };
        let silence = self.store.database().write(|it| silence.write(it))?;
        let note = format!(
            "Nobody is told of {} until {:.0}. `lodestar health silence --end {}` ends it before.",
            visible(&silence.matcher.to_string()),
            silence.ends_at,
            silence.id
        );
        let data = silence_json(&silence);
        self.notify.silence(silence);
        Ok(Reply::json(&data)?.table(Table { notes: vec![note], ..Table::default() }))
    }

    fn end_silence(&mut self, id: i64, now: Timestamp) -> Result<Reply> {
        if !self.store.database().write(|it| Silence::end(it, id, now))? {
            let error = Error::of(ErrorKind::NotFound, format!("there is no silence {id}"));
            return Err(error.hint("`lodestar health silence --list` shows them"));
        }
        self.notify.end_silence(id);
        let table = Table { notes: vec![format!("silence {id} has ended")], ..Table::default() };
        Ok(Reply::json(&json!({"id": id, "ended": true}))?.table(table))
    }

    fn list_silences(&mut self, now: Timestamp) -> Result<Reply> {
        let silences = self.notify.silences().iter().filter(|silence| silence.ends_at > now);
        let silences: Vec<&Silence> = silences.collect();
        let mut table = Table::new(["ID#", "ALERTS", "ENDS IN#", "COMMENT"]);
        for silence in &silences {
            table.row([
                silence.id.to_string(),
                visible(&silence.matcher.to_string()),
                ago(now, silence.ends_at),
                silence.comment.clone(),
            ]);
        }
        if silences.is_empty() {
            table.notes.push("Nothing is silenced.".to_owned());
        }
        let data: Vec<Value> = silences.into_iter().map(silence_json).collect();
        Ok(Reply::json(&data)?.table(table))
    }

    pub(crate) fn acknowledge(&mut self, args: AcknowledgeArgs) -> Result<Reply> {
        self.look()?;
        let alerts = self.monitor.alerts();
        let fitting: Vec<&str> = alerts
            .iter()
            .map(|alert| alert.id.as_str())
            .filter(|id| !args.id.is_empty() && id.starts_with(&args.id))
            .collect();
        let exact = fitting.iter().find(|id| **id == args.id).copied();
        let id = match (exact, fitting.as_slice()) {
            (Some(id), _) | (None, &[id]) => id.to_owned(),
            (None, []) => {
                let message = format!("no alert that fires has the id {}", visible(&args.id));
                let error = Error::of(ErrorKind::NotFound, message);
                return Err(error.hint("`lodestar health alerts` shows them"));
            }
            (None, [..]) => {
                let message = format!("{} is the beginning of several ids", visible(&args.id));
                return Err(Error::usage(message).hint(format!("such as {}", fitting.join(", "))));
            }
        };
        let (by, now) = (visible(&args.by), self.host.now());
        self.store.database().write(|it| acknowledge(it, &id, &by, now))?;
        self.notify.acknowledge(&id, &by);
        let note = format!("{by} works on {id}: there are no reminders of it any more.");
        let table = Table { notes: vec![note], ..Table::default() };
        Ok(Reply::json(&json!({"id": id, "acknowledged_by": by}))?.table(table))
    }
}

fn silence_json(silence: &Silence) -> Value {
    json!({
        "id": silence.id,
        "match": silence.matcher.to_string(),
        "comment": silence.comment,
        "created_at": millisecond(silence.created_at),
        "ends_at": millisecond(silence.ends_at),
    })
}
