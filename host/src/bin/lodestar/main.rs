//! `lodestar`, the command line of `lodestard`.

mod args;
mod author;
mod client;
mod command;
mod completions;
mod config;
mod doctor;
mod error;
mod events;
mod exit_codes;
mod help;
mod human;
mod man;
mod modules;
mod modules_install;
mod modules_remove;
mod modules_verify;
mod noun;
mod operation;
mod out_file;
mod render;
mod schema;
mod socket;
mod status;
mod terminal;
#[cfg(test)]
mod tests;
mod top;
mod why;
mod words;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::Parser as _;

use crate::{
    args::{Cli, Verb},
    error::Result,
    terminal::Terminal,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut terminal = Terminal::of_process();
    ExitCode::from(run(std::env::args_os().collect(), &mut terminal).await)
}

/// Does what a command line asks and gives the exit code.
async fn run(argv: Vec<OsString>, terminal: &mut Terminal) -> u8 {
    match dispatch(help::as_option(argv), terminal).await {
        Ok(code) => code,
        Err(error) => error.report(terminal),
    }
}

async fn dispatch(argv: Vec<OsString>, terminal: &mut Terminal) -> Result<u8> {
    let cli = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(error) => return help::show(&error, &argv, terminal).await,
    };
    let mut global = cli.global;
    if let Verb::Noun(words) = &cli.verb {
        global.overlay(words);
    }
    terminal.json = global.json;
    terminal.set_color(global.color);
    let client = global.client();
    match cli.verb {
        Verb::Status(verb) => verb.run(&client, terminal).await,
        Verb::Top(verb) => verb.run(&client, terminal).await,
        Verb::Doctor(verb) => verb.run(&client, terminal).await,
        Verb::Config(verb) => verb.run(&client, terminal).await,
        Verb::Modules(verb) => verb.run(&client, terminal).await,
        Verb::Events(verb) => verb.run(&client, terminal).await,
        Verb::Completions(verb) => verb.run(&client, terminal).await,
        Verb::Man(verb) => verb.run(terminal),
        Verb::Noun(words) => noun::run(&argv, &words, &client, terminal).await,
    }
}

/// `lodestard`, where it lies beside this executable.
fn daemon_executable() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.parent()?.join("lodestard");
    beside.is_file().then_some(beside)
}
