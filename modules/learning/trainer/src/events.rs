//! Events: lines of JSON on the standard output, and nothing else there.

use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};

use crate::{
    failure::{Failure, Result},
    job::VERSION,
};

/// A writer of events.
pub struct Events<'a> {
    out: &'a mut dyn Write,
    seq: u64,
}

impl<'a> Events<'a> {
    /// Creates a writer.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, seq: 0 }
    }

    /// Writes an event with the fields of an object, and flushes it.
    ///
    /// # Errors
    ///
    /// When nobody reads any more.
    pub fn tell(&mut self, event: &str, fields: Value) -> Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = Map::new();
        line.insert("v".into(), VERSION.into());
        line.insert("seq".into(), self.seq.into());
        line.insert("ts".into(), (since.as_millis() as u64).into());
        line.insert("event".into(), event.into());
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        self.seq += 1;
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|error| Failure::other(format!("nobody reads the events: {error}")))
    }
}
