//! The output of a module under development: builds, states, logs and events, a line each.

use lodestar_api::{LogLine, TailItem};
use module_sdk::events::fits;
use serde_json::{Value, json};

use crate::{
    commands::{events::tail_line, modules::log_line},
    error::{CliError, Result},
    human,
    terminal::{Terminal, Tone},
};

/// Writer of the lines of one module.
pub(super) struct DevLog<'a> {
    terminal: &'a mut Terminal,
    module: String,
    consumes: Vec<String>,
}

impl<'a> DevLog<'a> {
    pub(super) fn new(terminal: &'a mut Terminal, module: &str, consumes: &[String]) -> Self {
        Self { terminal, module: module.to_owned(), consumes: consumes.to_vec() }
    }

    /// Writes something that this program did.
    pub(super) fn tell(&mut self, kind: &str, text: &str) -> Result<()> {
        self.write(kind, text, None, json!({ "text": text }))
    }

    /// Writes a message of the compiler, as it comes.
    pub(super) fn compiler(&mut self, text: &str) -> Result<()> {
        if self.terminal.json {
            return self.write("compiler", text, None, json!({ "text": text }));
        }
        self.terminal.line(text)
    }

    /// Writes an error with its remedy.
    pub(super) fn trouble(&mut self, kind: &str, error: &CliError) -> Result<()> {
        let Some(failure) = error.failure() else { return Ok(()) };
        let help = failure.help.clone();
        let text = match &help {
            Some(help) => format!("{}\n       -> {help}", failure.message),
            None => failure.message.clone(),
        };
        let value = json!({ "text": failure.message, "help": help, "failed": true });
        self.write(kind, &text, Some(Tone::Bad), value)
    }

    /// Writes a line of the module's log.
    pub(super) fn log(&mut self, line: &LogLine) -> Result<()> {
        let text = log_line(line, self.terminal);
        if self.terminal.json {
            return self.terminal.json_line(&json!({ "kind": "log", "log": line }));
        }
        self.terminal.line(&format!("{:<6} {text}", "log"))
    }

    /// Writes an event of the module, one that it consumes, or a change of its state.
    pub(super) fn event(&mut self, item: &TailItem) -> Result<()> {
        let TailItem::Event(event) = item else {
            return self.write("event", &tail_line(item), None, json!({ "event": item }));
        };
        if event.topic == "module.state.changed" {
            if event.data["module"] != *self.module {
                return Ok(());
            }
            let (text, tone) = state_text(&event.data);
            return self.write("state", &text, tone, json!({ "event": item }));
        }
        let is_own = event.source == format!("/lodestar/{}", self.module);
        if !is_own && !self.consumes.iter().any(|filter| fits(filter, &event.topic)) {
            return Ok(());
        }
        self.write("event", &tail_line(item), None, json!({ "event": item }))
    }

    fn write(&mut self, kind: &str, text: &str, tone: Option<Tone>, value: Value) -> Result<()> {
        if self.terminal.json {
            let mut line = json!({ "kind": kind });
            if let (Value::Object(line), Value::Object(value)) = (&mut line, value) {
                line.extend(value);
            }
            return self.terminal.json_line(&line);
        }
        let head = format!("{kind:<6}");
        let head = tone.map_or(head.clone(), |tone| self.terminal.paint_state(&head, tone));
        self.terminal.line(&format!("{head} {}", human::plain(text)))
    }
}

fn state_text(data: &Value) -> (String, Option<Tone>) {
    let word = |key: &str| data[key].as_str().unwrap_or("unknown").to_owned();
    let to = word("to");
    let tone = match to.as_str() {
        "running" => Some(Tone::Good),
        "failed" | "quarantined" | "incompatible" | "stalled" | "absent" => Some(Tone::Bad),
        _ => None,
    };
    let reason = data["reason"].as_str().map(|reason| format!(": {reason}"));
    (format!("{} -> {to}{}", word("from"), reason.unwrap_or_default()), tone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_with_its_reason() {
        let check = |data: Value, expected: &str| assert_eq!(state_text(&data).0, expected);
        check(json!({"from": "loading", "to": "running"}), "loading -> running");
        check(json!({"from": "loading", "to": "failed", "reason": "no"}), "loading -> failed: no");
    }
}
