//! A program of the operator's own, which gets the note as JSON and in its environment.

use std::{path::PathBuf, process, time::Duration};

use module_sdk::Secret;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Channel, ChannelError, Envelope, Sending, deadline,
    process::{Program, name, run},
    webhook::generic,
};
use crate::{
    notify::{note::clean, options::RouteOptions},
    quantity::Span,
};

/// Settings of a channel by a program. It gets the note as JSON on its standard input, and as
/// `LODESTAR_NOTE_ID`, `_KIND`, `_SEVERITY`, `_TITLE` and `_TEXT` in its environment.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommandOptions {
    /// Settings that every channel has.
    #[serde(flatten)]
    pub route: RouteOptions,
    /// Path of the program. No shell reads it.
    pub program: PathBuf,
    /// Its arguments.
    #[schemars(with = "Vec<String>")]
    pub args: Vec<Secret>,
    /// Time within which it has to end; then it and its children are ended.
    pub deadline: Span,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self {
            route: RouteOptions::default(),
            program: PathBuf::new(),
            args: Vec::new(),
            deadline: Span::of_seconds(10),
        }
    }
}

pub(super) struct Command {
    program: PathBuf,
    args: Vec<Secret>,
    deadline: Duration,
}

impl Command {
    pub(super) fn new(options: &CommandOptions) -> Result<Self, ChannelError> {
        if !options.program.is_absolute() {
            return Err(ChannelError::new("program", "must be the whole path of a program"));
        }
        if options.args.iter().any(|arg| arg.expose().contains('\0')) {
            return Err(ChannelError::new("args", "must hold no NUL"));
        }
        Ok(Self {
            program: options.program.clone(),
            args: options.args.clone(),
            deadline: deadline(options.deadline)?,
        })
    }

    fn program(&self, envelope: &Envelope) -> Program {
        let note = &envelope.note;
        let args = || self.args.iter().map(Secret::expose);
        let json = generic(envelope);
        let mut command = process::Command::new(&self.program);
        // The environment of the daemon holds secrets of others.
        command.env_clear().args(args()).current_dir("/").envs([
            ("LODESTAR_NOTE_ID", envelope.id.clone()),
            ("LODESTAR_NOTE_KIND", json["kind"].as_str().unwrap_or_default().to_owned()),
            ("LODESTAR_NOTE_SEVERITY", note.severity().map_or("ok", |it| it.as_str()).to_owned()),
            ("LODESTAR_NOTE_TITLE", clean(&note.title())),
            ("LODESTAR_NOTE_TEXT", note.lines().join("\n")),
        ]);
        let kept = ["HOME", "LANG", "PATH", "TZ", "USER", "XDG_RUNTIME_DIR"];
        command.envs(kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        Program {
            name: name(&self.program),
            hint: "; look at `program`",
            command,
            input: json.to_string(),
            hidden: args().map(str::to_owned).collect(),
            deadline: self.deadline,
        }
    }
}

impl Channel for Command {
    fn send<'a>(&'a self, envelope: &'a Envelope) -> Sending<'a> {
        Box::pin(run(self.program(envelope)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        channels::SendError,
        notify::note::{
            Kind, News, Note,
            tests::{item, subject},
        },
    };

    /// Runs a script of the shell, which is a program like any other here.
    fn outcome(script: &str, args: &[&str], deadline: &str) -> Result<(), SendError> {
        let mut all = vec!["-c", script, "script"];
        all.extend(args);
        let options = json!({"program": "/bin/sh", "args": all, "deadline": deadline});
        let options: CommandOptions = serde_json::from_value(options).expect("it has the form");
        let command = Command::new(&options).map_err(|error| error.key).expect("it is valid");
        let at = "2026-11-20T10:10:00Z".parse().expect("a time");
        let component = "model.$(touch /tmp/x)`";
        let items = vec![item(News::Firing, subject("a", component, "critical"))];
        let envelope = Envelope { id: "0123".to_owned(), note: Note::new(Kind::Alerts, at, items) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(command.send(&envelope))
    }

    #[test]
    fn a_program_gets_the_note_whole() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("out");
        let path = path.to_str().expect("it is text");
        let script = "{ cat; echo; echo \"$LODESTAR_NOTE_ID $LODESTAR_NOTE_SEVERITY\"; } > \"$1\"";
        outcome(script, &[path], "10s").expect("it ends well");
        let text = std::fs::read_to_string(path).expect("it was written");
        let (json, rest) = text.split_once('\n').expect("it has two lines");
        let json: serde_json::Value = serde_json::from_str(json).expect("it is JSON");
        assert_eq!(json["alerts"][0]["component"], "model.$(touch /tmp/x)`");
        assert_eq!(rest, "0123 critical\n");
    }

    #[test]
    fn a_failure_says_why_and_shows_no_argument() {
        let script = "echo \"cannot post to $1\" >&2; printf '\\033[31m' >&2; exit 3";
        let error = outcome(script, &["https://canary"], "10s").expect_err("it fails");
        assert_eq!(error.to_string(), "sh ended with 3: cannot post to [redacted]");
        let error = outcome("kill -9 $$", &[], "10s").expect_err("it fails");
        assert_eq!(error.to_string(), "sh was ended by signal 9");
        outcome("exit 0 < /dev/null", &[], "10s").expect("who does not read is not held up");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("pid");
        let script = "sleep 1000 & echo $! > \"$1\"; wait";
        let error = outcome(script, &[path.to_str().expect("it is text")], "500ms");
        assert_eq!(error, Err(SendError::Late(Duration::from_millis(500))));
        let pid = std::fs::read_to_string(path).expect("it was written");
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // A zombie has nobody yet who takes note of its end.
        let begun = std::time::Instant::now();
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it lives on");
            std::thread::yield_now();
        }
        // One that says ever more is ended as well.
        let error = outcome("yes >&2", &[], "500ms").expect_err("it does not end");
        assert_eq!(error, SendError::Late(Duration::from_millis(500)));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let options = json!({"program": "/nowhere/alarm"});
        let options: CommandOptions = serde_json::from_value(options).expect("it has the form");
        let command = Command::new(&options).map_err(|error| error.key).expect("it is valid");
        let note = Note::test("2026-11-20T10:10:00Z".parse().expect("a time"));
        let envelope = Envelope { id: "0123".to_owned(), note };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let error = runtime.expect("a runtime").block_on(command.send(&envelope));
        let error = error.expect_err("it is not there").to_string();
        assert_eq!(error, "alarm is not installed; look at `program`");
        let options = CommandOptions { program: "alarm".into(), ..CommandOptions::default() };
        assert_eq!(Command::new(&options).err().expect("it is refused").key, "program");
    }
}
