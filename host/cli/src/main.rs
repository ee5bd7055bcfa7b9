//! `lodestar`, the command line of `lodestard`.

mod asked_files;
mod author;
mod call;
mod client;
mod commands;
mod error;
mod exit_codes;
mod help;
mod human;
mod operation;
mod options;
mod out_file;
mod render;
mod reserved_names;
mod schema;
mod sent_files;
mod socket;
mod terminal;
#[cfg(test)]
mod tests;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use crate::terminal::Terminal;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut terminal = Terminal::of_process();
    ExitCode::from(run(std::env::args_os().collect(), &mut terminal).await)
}

/// Runs a command line and returns the exit code.
async fn run(argv: Vec<OsString>, terminal: &mut Terminal) -> u8 {
    match commands::dispatch(help::as_option(argv), terminal).await {
        Ok(code) => code,
        Err(error) => terminal.report(&error),
    }
}

/// Returns the path of `lodestard`, if it lies beside this executable.
fn daemon_executable() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.parent()?.join("lodestard");
    beside.is_file().then_some(beside)
}
