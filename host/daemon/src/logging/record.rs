//! The newest log records, kept in memory for `lodestar modules logs`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::{Output, Redactor, rate::LONGEST};

/// Number of records that are kept: some minutes of a busy daemon, about 1 MiB.
const KEPT: usize = 2_000;

/// Number of records that a follower may fall behind before it skips.
const FOLLOWERS_LAG: usize = 256;

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// Time of the record.
    pub time: Timestamp,
    /// Level, `ERROR` … `TRACE`.
    pub level: &'static str,
    /// The module that it is about, empty for the daemon itself.
    pub module: String,
    /// Text of the record.
    pub message: String,
    /// The other fields.
    pub fields: Map<String, Value>,
}

/// Store of the newest records that hands new ones to followers.
#[derive(Debug, Clone)]
pub struct Recorder {
    kept: Arc<Mutex<VecDeque<LogRecord>>>,
    followers: broadcast::Sender<LogRecord>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { kept: Arc::default(), followers: broadcast::channel(FOLLOWERS_LAG).0 }
    }
}

impl Recorder {
    /// Returns the newest records about a module, oldest first.
    #[must_use]
    pub fn newest(&self, module: &str, lines: usize) -> Vec<LogRecord> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let about = kept.iter().rev().filter(|record| record.module == module);
        let mut newest: Vec<LogRecord> = about.take(lines).cloned().collect();
        newest.reverse();
        newest
    }

    /// Returns a receiver of the records from now on, of all modules.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<LogRecord> {
        self.followers.subscribe()
    }

    fn keep(&self, record: LogRecord) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(record.clone());
        drop(kept);
        // An error means that nobody follows.
        let _ = self.followers.send(record);
    }
}

/// Returns a layer that passes what is logged, without secrets, to the recorder and to `output`.
pub(super) fn layer<S: Subscriber>(
    recorder: Recorder,
    redactor: Arc<Redactor>,
    output: Option<Output>,
) -> impl Layer<S> {
    RecordLayer { recorder, redactor, output }
}

struct RecordLayer {
    recorder: Recorder,
    redactor: Arc<Redactor>,
    output: Option<Output>,
}

impl<S: Subscriber> Layer<S> for RecordLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::new(&self.redactor);
        event.record(&mut parts);
        let Parts { mut record, message, tail, .. } = parts;
        let module = match record.get("module") {
            Some(Value::String(module)) => module.clone(),
            _ => String::new(),
        };
        if let Some(Value::String(fields)) = record.get("fields")
            && let Ok(Value::Object(fields)) = serde_json::from_str(fields)
        {
            record.remove("fields");
            for (name, value) in fields {
                record.entry(name).or_insert(value);
            }
        }
        let (time, level) = (Timestamp::now(), event.metadata().level().as_str());
        if let Some(output) = &self.output {
            output.write(time, level, &message, &tail, &record);
        }
        record.remove("module");
        self.recorder.keep(LogRecord { time, level, module, message, fields: record });
    }
}

/// The parts of a record.
struct Parts<'a> {
    redactor: &'a Redactor,
    record: Map<String, Value>,
    message: String,
    /// The fields behind the message as people read them.
    tail: String,
}

impl<'a> Parts<'a> {
    fn new(redactor: &'a Redactor) -> Self {
        Self { redactor, record: Map::new(), message: String::new(), tail: String::new() }
    }

    fn text(&mut self, field: &Field, text: &str, quoted: bool) {
        let text = match field.name() {
            // The fields of a module, JSON.
            "fields" => match self.redactor.redact_json(text.as_bytes()) {
                Some(json) => String::from_utf8_lossy(&json).into_owned(),
                None => text.to_owned(),
            },
            _ => self.redactor.redact(text).into_owned(),
        };
        let text = shortened(text);
        if field.name() == "message" {
            self.message = text;
        } else if quoted {
            self.value(field, text.into());
        } else {
            self.tail.push_str(&format!(" {}={text}", field.name()));
            self.record.insert(field.name().to_owned(), text.into());
        }
    }

    fn value(&mut self, field: &Field, value: Value) {
        self.tail.push_str(&format!(" {}={value}", field.name()));
        self.record.insert(field.name().to_owned(), value);
    }
}

/// Cuts a long text. It must have no secret any more: the half of one would look like none.
fn shortened(mut text: String) -> String {
    let bytes = text.len();
    if bytes > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push_str(&format!("… ({bytes} bytes in all)"));
    }
    text
}

impl Visit for Parts<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, &format!("{value:?}"), false);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value, true);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn keeps_what_is_about_a_module() {
        let recorder = Recorder::default();
        let redactor = Arc::new(Redactor::new());
        let subscriber =
            tracing_subscriber::registry().with(layer(recorder.clone(), redactor, None));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(module = "ingest", port = 4318_u64, "listens");
            tracing::warn!("the daemon itself, with Bearer abcdefghijklmnopqrstuvwxyz0123456789");
        });
        let records = recorder.newest("ingest", 10);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].message, "listens");
        assert_eq!(records[0].fields["port"], 4318);
        let own = &recorder.newest("", 10)[0];
        assert!(!own.message.contains("abcdefghij"), "{}", own.message);
    }

    #[test]
    fn what_is_too_long_is_cut_behind_its_secrets() {
        let recorder = Recorder::default();
        let layer = layer(recorder.clone(), Arc::new(Redactor::new()), None);
        let subscriber = tracing_subscriber::registry().with(layer);
        let rate = crate::logging::LogRate::default();
        // Only a part of the key stands before the edge.
        let before = "ä ".repeat(LONGEST / 3 - 10);
        let text = format!("{before}ghp_abcdefghijklmnopqrstuvwxyz0123456789 {before}");
        let fields = serde_json::json!({"path": text}).to_string();
        tracing::subscriber::with_default(subscriber, || rate.say("m", 2, "o", &text, &fields));
        let record = &recorder.newest("m", 1)[0];
        let cut = record.fields["fields"].as_str().expect("it is no JSON any more");
        for (text, whole) in [(&*record.message, &text), (cut, &fields)] {
            assert!(text.len() < LONGEST + 40 && text.ends_with(" bytes in all)"), "{text}");
            assert!(text.contains("ä [redacted] ä") && !text.contains("ghp_"), "{text}");
            assert!(whole.len() > LONGEST);
        }
        assert_eq!(shortened("ä".to_owned()), "ä");
    }
}
