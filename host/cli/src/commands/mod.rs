//! The command line: the verbs that are always there, a file each. Commands of modules come from
//! the running modules.

mod completions;
mod config;
mod connect;
mod doctor;
mod events;
mod man;
mod module_command;
mod modules;
mod status;
mod top;

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser, Subcommand};

#[cfg(test)]
pub(crate) use self::module_command::with_module_commands;
use crate::{error::Result, exit_codes, help, options::Global, terminal::Terminal};

const LONG_ABOUT: &str = "\
Sees and steers lodestard: its modules, its events, its configuration.

Beside the verbs below, each running module answers to a command of its own, such as \
`lodestar usage`.";

/// Sees and steers lodestard
#[derive(Debug, Parser)]
#[command(
    name = "lodestar",
    version,
    long_about = LONG_ABOUT,
    after_help = exit_codes::HELP,
    disable_help_subcommand = true,
    args_override_self = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Status(status::Status),
    Top(top::Top),
    Doctor(doctor::Doctor),
    #[command(subcommand)]
    Config(config::Config),
    #[command(subcommand)]
    Modules(modules::Modules),
    #[command(subcommand)]
    Events(events::Events),
    Connect(connect::Connect),
    Completions(completions::Completions),
    Man(man::Man),
    #[command(external_subcommand)]
    ModuleCommand(Vec<OsString>),
}

/// Runs the verb of a command line and returns the exit code.
///
/// # Errors
///
/// The error of the verb.
pub(crate) async fn dispatch(argv: Vec<OsString>, terminal: &mut Terminal) -> Result<u8> {
    let cli = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(error) => return help::show(&error, &argv, terminal).await,
    };
    let mut global = cli.global;
    if let Verb::ModuleCommand(words) = &cli.verb {
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
        Verb::Connect(verb) => verb.run(&client, terminal).await,
        Verb::Completions(verb) => verb.run(Cli::command(), &client, terminal).await,
        Verb::Man(verb) => verb.run(Cli::command(), terminal),
        Verb::ModuleCommand(words) => {
            module_command::run(Cli::command(), &argv, &words, &client, terminal).await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::reserved_names;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn reads_verbs() {
        let check = |line: &str, expected: &str| {
            let cli = Cli::try_parse_from(words(line)).expect(line);
            let shown = format!("{:?}", cli.verb);
            assert!(shown.starts_with(expected), "{line}: {shown}");
        };
        check("lodestar status", "Status");
        check("lodestar top --once --interval 0.5", "Top(");
        check("lodestar --json modules list", "Modules(List");
        check("lodestar modules enable usage_tracker --no-wait", "Modules(Enable");
        check("lodestar events replay usage_tracker --all", "Events(Replay");
        check("lodestar connect codex --write --no-router", "Connect(");
        check("lodestar connect --list", "Connect(");
        check(
            "lodestar usage summary --since 7d",
            "ModuleCommand([\"usage\", \"summary\", \"--since\"",
        );
        check("lodestar usage --help", "ModuleCommand([\"usage\", \"--help\"");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let check = |line: &str, part: &str| {
            let error = Cli::try_parse_from(words(line)).expect_err(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
        };
        check("lodestar modules enable", "required");
        check("lodestar modules lst", "list");
        check("lodestar status --timeout 0", "above 0");
        check("lodestar status --timeout soon", "above 0");
        check("lodestar top --interval 0.01", "from 0.1");
        check("lodestar top --once --count 2", "cannot be used with");
        check("lodestar events replay usage_tracker", "required");
        check("lodestar events replay usage_tracker --all 0190", "cannot be used with");
        check("lodestar connect", "required");
        check("lodestar connect claude", "claude-code");
        check("lodestar connect codex --undo --write", "cannot be used with");
        check("lodestar connect codex --list", "cannot be used with");
        check("lodestar connect codex --project a,b", "letters, digits");
    }

    #[test]
    fn reserved_names_are_those_of_the_command_line() {
        let names = |command: &clap::Command| -> BTreeSet<String> {
            let subcommands = command.get_subcommands();
            let names = subcommands.flat_map(|it| it.get_name_and_visible_aliases());
            names.map(str::to_owned).collect()
        };
        let told = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let root = Cli::command();
        let modules = root.find_subcommand("modules").expect("it is a verb");
        assert_eq!(names(&root), told(&reserved_names::VERBS));
        assert_eq!(names(modules), told(&reserved_names::MODULE_VERBS));
    }
}
