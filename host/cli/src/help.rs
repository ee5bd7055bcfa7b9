//! Help and mistakes on the command line, with the commands of the running modules.

use std::{ffi::OsString, time::Duration};

use clap::error::ErrorKind;
use lodestar_api::ModuleCommands;

use crate::{
    client::Client,
    error::{CliError, Result},
    options::{Global, verb_index},
    schema::one_line,
    terminal::Terminal,
};

/// Longest time that help waits for the daemon before it goes without the modules' commands.
const PATIENCE: Duration = Duration::from_millis(500);

/// Turns `lodestar help usage summary` into `lodestar usage summary --help`.
pub(crate) fn as_option(mut argv: Vec<OsString>) -> Vec<OsString> {
    if let Some(index) = verb_index(&argv)
        && argv[index] == "help"
    {
        argv.remove(index);
        argv.push("--help".into());
    }
    argv
}

/// Shows what the parser says: help on standard output, a mistake on standard error; as JSON where
/// that is asked for.
pub(crate) async fn show(
    error: &clap::Error,
    argv: &[OsString],
    terminal: &mut Terminal,
) -> Result<u8> {
    let code = u8::try_from(error.exit_code()).unwrap_or(crate::exit_codes::USAGE);
    let text = terminal.styled(&error.render(), error.use_stderr());
    if error.use_stderr() && (terminal.json || argv.iter().any(|word| word == "--json")) {
        terminal.json = true;
        return Ok(terminal.report(&mistake(error).exit(code)));
    }
    if error.use_stderr() {
        terminal.note(text.trim_end());
        return Ok(code);
    }
    terminal.text(&text)?;
    if error.kind() == ErrorKind::DisplayHelp && verb_index(argv).is_none() {
        terminal.text(&module_commands_text(&running_module_commands(argv).await))?;
    }
    Ok(code)
}

/// Returns a mistake of the parser as an error: its first paragraph in one line, and the usage.
fn mistake(error: &clap::Error) -> CliError {
    let text = error.render().to_string();
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = text.split("\n\n").map(one_line).filter(|part| !part.is_empty());
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let usage = parts.find(|part| part.starts_with("Usage: "));
        let missing = CliError::usage("a command is missing");
        return missing.help(usage.unwrap_or_else(|| "see --help".to_owned()));
    }
    let message = parts.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let help: Vec<String> = parts.collect();
    CliError::usage(message).help(help.join("; "))
}

/// Returns the commands of the running modules; none where no daemon answers in time.
async fn running_module_commands(argv: &[OsString]) -> Vec<ModuleCommands> {
    let Some(mut options) = Global::of_environment() else { return Vec::new() };
    options.overlay(argv);
    let client = Client { timeout: PATIENCE, ..options.client() };
    client.get("/v1/module-commands").await.unwrap_or_default()
}

fn module_commands_text(module_commands: &[ModuleCommands]) -> String {
    if module_commands.is_empty() {
        return String::new();
    }
    let width = module_commands.iter().map(|entry| entry.command.len()).max().unwrap_or_default();
    let line = |entry: &ModuleCommands| {
        let about = one_line(&entry.about);
        format!("  {:<width$}  {}\n", entry.command, crate::human::plain(&about))
    };
    format!(
        "\nCommands of the running modules:\n{}",
        module_commands.iter().map(line).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_help_is_the_option() {
        let check = |line: &str, expected: &str| {
            let argv = as_option(line.split(' ').map(OsString::from).collect());
            assert_eq!(argv, expected.split(' ').map(OsString::from).collect::<Vec<_>>());
        };
        check("lodestar help", "lodestar --help");
        check("lodestar help usage summary", "lodestar usage summary --help");
        check("lodestar --json help modules", "lodestar --json modules --help");
        check("lodestar --socket /a help status", "lodestar --socket /a status --help");
        check("lodestar modules help", "lodestar modules help");
        check("lodestar", "lodestar");
    }
}
