//! The output of log lines, and their format.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use lodestar_platform::visible::{visible, visible_line};
use serde_json::{Map, Value};

use super::LogFormat;

/// The daemon's standard error as it was when it began to log.
#[derive(Debug, Clone)]
pub(super) struct Output {
    format: LogFormat,
    file: Arc<Mutex<File>>,
}

impl Output {
    /// Creates an output to standard error in this format.
    pub(super) fn stderr(format: LogFormat) -> io::Result<Self> {
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self { format, file: Arc::new(Mutex::new(stderr.into())) })
    }

    /// Writes one record as one line. An error is ignored, since it cannot be reported.
    pub(super) fn write(
        &self,
        time: Timestamp,
        level: &str,
        message: &str,
        tail: &str,
        record: &Map<String, Value>,
    ) {
        let line = match self.format {
            LogFormat::Human => human(time, level, message, tail),
            LogFormat::Json => json(time, level, message, record),
        };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        drop(file.write_all(line.as_bytes()));
    }
}

fn human(time: Timestamp, level: &str, message: &str, tail: &str) -> String {
    let line = format!("{time:.6} {level:>5} {message}{tail}");
    format!("{}\n", visible_line(&line))
}

fn json(time: Timestamp, level: &str, message: &str, record: &Map<String, Value>) -> String {
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), format!("{time:.6}").into());
    line.insert("level".to_owned(), level.into());
    line.insert("message".to_owned(), message.into());
    for (name, value) in record {
        line.entry(name.clone()).or_insert_with(|| value.clone());
    }
    format!("{}\n", visible(&Value::Object(line).to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_a_line_without_anything_hidden() {
        let time = Timestamp::from_millisecond(1_795_220_901_711).expect("it is a time");
        let message = "two\nlines \u{1b}[2J\u{9b}2J\u{202e}";
        assert_eq!(
            human(time, "WARN", message, " module=\"a\""),
            "2026-11-21T00:28:21.711000Z  WARN two\\nlines \\u001b[2J\\u009b2J\\u202e \
             module=\"a\"\n"
        );
        let record = json!({"module": "a", "level": "forged", "x": "\u{202e}\u{9b}"});
        let line = json(time, "WARN", message, record.as_object().expect("it is one"));
        assert_eq!(line.lines().count(), 1);
        assert!(!line.trim_end().contains(lodestar_platform::visible::is_hidden), "{line}");
        let line: Value = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(line["message"], message);
        assert_eq!((&line["level"], &line["x"]), (&json!("WARN"), &record["x"]));
    }
}
