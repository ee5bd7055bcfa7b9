//! A note on the desktop of the user whom the daemon runs as, by `notify-send`.

use std::{path::PathBuf, process::Command, time::Duration};

use module_sdk::events::AlertSeverity;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Channel, ChannelError, Envelope, Sending, deadline,
    escape::{markup, shortened},
    process::{Program, name, run},
};
use crate::{notify::options::RouteOptions, quantity::Span};

/// Settings of a channel to the desktop.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DesktopOptions {
    /// Settings that every channel has.
    #[serde(flatten)]
    pub route: RouteOptions,
    /// Program that shows the note, with the arguments of `notify-send`.
    pub program: PathBuf,
    /// Time within which it has to end.
    pub deadline: Span,
}

impl Default for DesktopOptions {
    fn default() -> Self {
        Self {
            route: RouteOptions::default(),
            program: "notify-send".into(),
            deadline: Span::of_seconds(10),
        }
    }
}

pub(super) struct Desktop {
    program: PathBuf,
    deadline: Duration,
}

/// Longest text, in characters.
const TEXT: usize = 1_000;

impl Desktop {
    pub(super) fn new(options: &DesktopOptions) -> Result<Self, ChannelError> {
        if options.program.as_os_str().is_empty() {
            return Err(ChannelError::new("program", "must be the name or path of a program"));
        }
        Ok(Self { program: options.program.clone(), deadline: deadline(options.deadline)? })
    }

    fn program(&self, envelope: &Envelope) -> Program {
        let note = &envelope.note;
        let urgency = match note.severity() {
            Some(AlertSeverity::Critical) => "critical",
            Some(AlertSeverity::Warning) => "normal",
            Some(AlertSeverity::Info) | None => "low",
        };
        let text = shortened(&note.lines().join("\n"), TEXT);
        let mut command = Command::new(&self.program);
        command.args(["--app-name=Lodestar", "--urgency", urgency, "--"]);
        // The server obeys a small markup in the text, and none in the title.
        command.args([note.title(), markup(&text)]);
        Program {
            name: name(&self.program),
            hint: "; install the package libnotify-bin",
            command,
            input: String::new(),
            hidden: Vec::new(),
            deadline: self.deadline,
        }
    }
}

impl Channel for Desktop {
    fn send<'a>(&'a self, envelope: &'a Envelope) -> Sending<'a> {
        Box::pin(run(self.program(envelope)))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::notify::note::{
        Kind, News, Note,
        tests::{item, subject},
    };

    #[test]
    fn a_note_is_no_markup_and_no_option() {
        let desktop = Desktop::new(&DesktopOptions::default()).map_err(|error| error.key);
        let at = "2026-11-20T10:10:00Z".parse().expect("a time");
        let items = vec![item(News::Firing, subject("a", "--x <b>&", "critical"))];
        let envelope = Envelope { id: "0123".to_owned(), note: Note::new(Kind::Alerts, at, items) };
        let program = desktop.expect("it is valid").program(&envelope);
        let args: Vec<&OsStr> = program.command.get_args().collect();
        assert_eq!(args[1..4], ["--urgency", "critical", "--"]);
        assert_eq!(args[5], "[critical] --x &lt;b&gt;&amp; is in trouble.");
    }

    #[test]
    fn a_program_that_is_not_installed_is_named_with_its_package() {
        let options =
            DesktopOptions { program: "/nowhere/notify-send".into(), ..Default::default() };
        let desktop = Desktop::new(&options).map_err(|error| error.key).expect("it is valid");
        let note = Note::test("2026-11-20T10:10:00Z".parse().expect("a time"));
        let envelope = Envelope { id: "0123".to_owned(), note };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let error = runtime.expect("a runtime").block_on(desktop.send(&envelope));
        let error = error.expect_err("it is not installed").to_string();
        assert_eq!(error, "notify-send is not installed; install the package libnotify-bin");
    }
}
