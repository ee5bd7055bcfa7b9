//! The whole command line against a daemon that a test plays, on a real socket.

mod daemon;
mod end_to_end;
mod files;
mod help_pages;
mod module_commands;
pub(crate) mod sample;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crate::terminal::Terminal;

/// Result of a command line.
#[derive(Debug)]
struct Outcome {
    code: u8,
    stdout: String,
    stderr: String,
}

/// Output of the command line that a test reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Runs `lodestar WORDS` against a socket.
async fn lodestar(socket: &Path, words: &[&str]) -> Outcome {
    let (stdout, stderr) = (Captured::default(), Captured::default());
    let mut terminal = Terminal::on(Box::new(stdout.clone()), Box::new(stderr.clone()));
    let mut argv: Vec<OsString> =
        vec!["lodestar".into(), "--color=never".into(), "--socket".into(), socket.into()];
    argv.extend(words.iter().map(OsString::from));
    let code = Box::pin(crate::run(argv, &mut terminal)).await;
    Outcome { code, stdout: stdout.text(), stderr: stderr.text() }
}

fn assert_outcome(outcome: &Outcome, code: u8, stdout: &str, stderr: &str) {
    assert_eq!(
        (outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()),
        (code, stdout, stderr)
    );
}
