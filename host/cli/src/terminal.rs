//! The output: standard output for results, standard error for everything else.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
    os::fd::AsFd,
};

use clap::builder::StyledStr;
use lodestar_platform::visible::{visible, visible_stream};
use module_sdk::Table;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::FileType,
};
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;

use crate::{
    error::{CliError, Result},
    exit_codes,
    render::{self, paint},
};

/// Width that is assumed of a terminal that does not tell, and in tests.
const DEFAULT_WIDTH: usize = 80;

/// Width of a pipe or a file: a row is one line, however long, for programs such as grep.
const UNLIMITED: usize = u16::MAX as usize;

/// Least width, below which nothing is readable.
const LEAST_WIDTH: usize = 40;

/// Use of colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    #[default]
    Auto,
    Always,
    Never,
}

/// The two output streams, with their widths and colours.
pub(crate) struct Terminal {
    pub(crate) stdout: Box<dyn Write + Send>,
    pub(crate) stderr: Box<dyn Write + Send>,
    /// Width of standard output in columns.
    pub(crate) width: usize,
    /// Width of standard error in columns.
    width_err: usize,
    /// `true` for JSON for programs instead of text for people.
    pub(crate) json: bool,
    /// `true` when standard error is a terminal, so that progress may be shown.
    pub(crate) shows_progress: bool,
    /// `true` when standard output is no terminal, so that progress does not mix with it.
    pub(crate) stdout_is_elsewhere: bool,
    /// `true` when standard output is a pipe of this process, whose reader may go away.
    watches_reader: bool,
    /// `true` when the streamed text does not end with a newline.
    is_within_line: bool,
    color_out: bool,
    color_err: bool,
}

impl Terminal {
    /// Returns the streams of this process.
    pub(crate) fn of_process() -> Self {
        let mut terminal = Self::on(Box::new(io::stdout()), Box::new(io::stderr()));
        terminal.width = width_of(io::stdout());
        terminal.width_err = width_of(io::stderr());
        terminal.shows_progress = io::stderr().is_terminal();
        terminal.stdout_is_elsewhere = !io::stdout().is_terminal();
        terminal.watches_reader = is_pipe();
        terminal.set_color(ColorChoice::Auto);
        terminal
    }

    /// Creates a terminal of streams that nobody watches: 80 columns, no colours, no progress.
    pub(crate) fn on(stdout: Box<dyn Write + Send>, stderr: Box<dyn Write + Send>) -> Self {
        Self {
            stdout,
            stderr,
            width: DEFAULT_WIDTH,
            width_err: DEFAULT_WIDTH,
            json: false,
            shows_progress: false,
            stdout_is_elsewhere: true,
            watches_reader: false,
            is_within_line: false,
            color_out: false,
            color_err: false,
        }
    }

    /// Sets the use of colours by `--color` and the convention of <https://no-color.org>.
    pub(crate) fn set_color(&mut self, choice: ColorChoice) {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let allowed = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let decide = |is_terminal: bool| match choice {
            ColorChoice::Auto => allowed && is_terminal,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        self.color_out = decide(io::stdout().is_terminal());
        self.color_err = decide(io::stderr().is_terminal());
    }

    /// Returns the width by which to choose columns: that of a screen also for a pipe, which has no
    /// limit.
    pub(crate) const fn screen(&self) -> usize {
        if self.width == UNLIMITED { DEFAULT_WIDTH } else { self.width }
    }

    /// Returns whether the result may have colours.
    pub(crate) const fn has_color(&self) -> bool {
        self.color_out
    }

    /// Writes one line of the result and flushes it.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.stdout, "{}", shown(text, self.color_out))?;
        Ok(self.stdout.flush()?)
    }

    /// Writes lines of the result.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.stdout.write_all(shown(text, self.color_out).as_bytes())?;
        Ok(self.stdout.flush()?)
    }

    /// Writes a piece of a stream that programs may read.
    pub(crate) fn stream(&mut self, text: &str) -> Result<()> {
        self.is_within_line = !text.ends_with('\n') && (self.is_within_line || !text.is_empty());
        self.stdout.write_all(visible_stream(text).as_bytes())?;
        Ok(self.stdout.flush()?)
    }

    /// Ends the last line of a stream where the stream did not.
    pub(crate) fn end_line(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_within_line) {
            self.stdout.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Writes a value as JSON that people can read too.
    pub(crate) fn json_document(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.line(&text)
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        self.line(&text)
    }

    /// Returns a future that ends when nobody reads standard output any more: only a write would
    /// notice that, and what follows a quiet stream may not write for hours.
    pub(crate) fn reader_gone(&self) -> impl Future<Output = ()> + use<> {
        let (sender, gone) = oneshot::channel();
        let watch = move || {
            wait_for_hangup();
            sender.send(())
        };
        // A thread of its own: one of the runtime's would be waited for at the end.
        if self.watches_reader {
            std::thread::spawn(watch);
        }
        async move {
            if gone.await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Draws a table.
    pub(crate) fn table(&mut self, table: &Table) -> Result<()> {
        let text = render::table(table, self.width, self.color_out);
        self.text(&text)
    }

    /// Writes a note to standard error. An error is ignored, since it cannot be reported.
    pub(crate) fn note(&mut self, text: &str) {
        let text = shown(text, self.color_err);
        drop(writeln!(self.stderr, "{text}").and_then(|()| self.stderr.flush()));
    }

    /// Draws a table on standard error.
    pub(crate) fn note_table(&mut self, table: &Table) {
        let text = render::table(table, self.width_err, self.color_err);
        self.note(text.trim_end());
    }

    /// Returns a text of the parser, with its colours where they are allowed.
    pub(crate) fn styled(&self, text: &StyledStr, to_stderr: bool) -> String {
        let color = if to_stderr { self.color_err } else { self.color_out };
        if color { text.ansi().to_string() } else { text.to_string() }
    }

    /// Paints a word of the result in the colour of its tone.
    pub(crate) fn paint_state(&self, word: &str, tone: Tone) -> String {
        paint(word, tone.code(), self.color_out)
    }

    /// Shows an error and returns the exit code.
    pub(crate) fn report(&mut self, error: &CliError) -> u8 {
        let Some(failure) = error.failure() else {
            return exit_codes::DONE;
        };
        let lines = if self.json {
            let error = json!({
                "code": failure.code, "message": failure.message, "help": failure.help,
                "exit_code": failure.exit,
            });
            vec![json!({ "error": error }).to_string()]
        } else {
            let label = self.paint_error("error:");
            let mut lines = vec![format!("{label} {}", visible(&failure.message))];
            if let Some(help) = &failure.help {
                lines.push(format!("{} {}", self.paint_dim("help:"), visible(help)));
            }
            lines
        };
        for line in lines {
            self.note(&line);
        }
        failure.exit
    }

    fn paint_error(&self, text: &str) -> String {
        paint(text, Tone::Bad.code(), self.color_err)
    }

    pub(crate) fn paint_dim(&self, text: &str) -> String {
        paint(text, "2", self.color_err)
    }
}

fn width_of(stream: impl io::IsTerminal + AsFd) -> usize {
    match rustix::termios::tcgetwinsize(&stream) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col).max(LEAST_WIDTH),
        _ if stream.is_terminal() => DEFAULT_WIDTH,
        _ => UNLIMITED,
    }
}

fn is_pipe() -> bool {
    let status = rustix::fs::fstat(io::stdout());
    status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Fifo)
}

/// Waits until the other end of standard output is closed.
fn wait_for_hangup() {
    let stdout = io::stdout();
    // Errors are told without being asked for.
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    while matches!(poll(&mut watched, None), Err(rustix::io::Errno::INTR)) {}
}

/// Tone of a word: how good the state is that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "1;31",
        }
    }
}

/// Returns a text with hidden characters escaped, except sequences for colours where they are
/// allowed.
fn shown(text: &str, color: bool) -> Cow<'_, str> {
    let mut rest = text;
    let mut shown = String::new();
    while color && let Some((begin, end)) = color_in(rest) {
        shown.push_str(&visible(&rest[..begin]));
        shown.push_str(&rest[begin..end]);
        rest = &rest[end..];
    }
    if shown.is_empty() {
        return visible(rest);
    }
    shown.push_str(&visible(rest));
    Cow::Owned(shown)
}

/// Finds the begin and the end of the first sequence for a colour (SGR).
fn color_in(text: &str) -> Option<(usize, usize)> {
    text.match_indices("\u{1b}[").find_map(|(begin, introducer)| {
        let codes = &text[begin + introducer.len()..];
        let length = codes.find(|c: char| !c.is_ascii_digit() && c != ';')?;
        let end = begin + introducer.len() + length + 1;
        (codes.as_bytes()[length] == b'm').then_some((begin, end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_but_colours() {
        let text = "\u{1b}[1ma\u{1b}[0m\u{1b}[2J\u{9b}1m\u{1b}[m";
        assert_eq!(shown(text, true), "\u{1b}[1ma\u{1b}[0m\\u001b[2J\\u009b1m\u{1b}[m");
        assert_eq!(shown(text, false), "\\u001b[1ma\\u001b[0m\\u001b[2J\\u009b1m\\u001b[m");
        assert_eq!(shown("\u{1b}[1;31", true), "\\u001b[1;31");
    }

    #[test]
    fn colours_only_where_asked() {
        assert_eq!(paint("ok", Tone::Good.code(), true), "\u{1b}[32mok\u{1b}[0m");
        assert_eq!(paint("ok", Tone::Good.code(), false), "ok");
        let mut terminal = Terminal::on(Box::new(io::sink()), Box::new(io::sink()));
        terminal.set_color(ColorChoice::Always);
        assert_eq!(terminal.paint_error("e"), "\u{1b}[1;31me\u{1b}[0m");
        terminal.set_color(ColorChoice::Never);
        assert_eq!(terminal.paint_error("e"), "e");
    }
}
