//! `lodestar completions SHELL`

use clap::{Command, builder::PossibleValuesParser};
use clap_complete::Shell;
use lodestar_api::{Module, ModuleCommands};
use serde_json::Value;

use crate::{
    client::Client, commands::module_command::with_module_commands, error::Result, exit_codes,
    terminal::Terminal,
};

const EXAMPLES: &str = "\
bash, in ~/.bashrc:                  eval \"$(lodestar completions bash)\"
zsh, in ~/.zshrc:                    source <(lodestar completions zsh)
fish, in ~/.config/fish/config.fish: lodestar completions fish | source";

/// Write a completion script for a shell to standard output
///
/// The commands of the modules that run at this moment are part of it, and the names of all.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: ShellName,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ShellName {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(crate) async fn run(
        self,
        root: Command,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<u8> {
        // Without the daemon the script has the fixed verbs, which is what a package installs.
        let module_commands: Vec<ModuleCommands> =
            client.get("/v1/module-commands").await.unwrap_or_default();
        let shell = match self.shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Zsh => Shell::Zsh,
            ShellName::Fish => Shell::Fish,
        };
        let modules: Vec<Module> = client.get("/v1/modules").await.unwrap_or_default();
        let modules: Vec<String> = modules.into_iter().map(|module| module.name).collect();
        let module_commands = module_commands.into_iter().filter_map(completed);
        let command = module_commands.fold(root, |root, entry| with_module_commands(root, &entry));
        let mut command = with_modules(command, &modules);
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "lodestar", &mut script);
        terminal.stream(&String::from_utf8_lossy(&script))?;
        if matches!(self.shell, ShellName::Fish) && !modules.is_empty() {
            terminal.stream(&fish_modules(&command, &modules))?;
        }
        Ok(exit_codes::DONE)
    }
}

/// Removes all names that are no words from a command, since a shell reads them as words; `None` if
/// the command itself has such a name.
fn completed(mut entry: ModuleCommands) -> Option<ModuleCommands> {
    entry.aliases.retain(|alias| is_word(alias));
    entry.commands.retain(|command| is_word(&command.name));
    for command in &mut entry.commands {
        let properties = command.args.get_mut("properties").and_then(Value::as_object_mut);
        if let Some(properties) = properties {
            properties.retain(|name, property| is_word(name) && has_words(property));
        }
    }
    (is_word(&entry.command) && is_word(&entry.module)).then_some(entry)
}

fn is_word(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.:+/@".contains(c);
    !text.is_empty() && text.chars().all(is_plain)
}

/// Checks whether the values that a property may have are words.
fn has_words(property: &Value) -> bool {
    match property {
        Value::Object(members) => members.iter().all(|(key, value)| match key.as_str() {
            "description" | "title" | "default" | "examples" | "pattern" => true,
            _ => has_words(value),
        }),
        Value::Array(values) => values.iter().all(has_words),
        Value::String(text) => is_word(text.trim_start_matches('#')),
        _ => true,
    }
}

/// Limits every argument that stands for a module to the names in `modules`.
fn with_modules(mut command: Command, modules: &[String]) -> Command {
    if modules.is_empty() {
        return command;
    }
    if let Some(id) = module_argument(&command) {
        command = command
            .mut_arg(id, |arg| arg.value_parser(PossibleValuesParser::new(modules.to_vec())));
    }
    command.mut_subcommands(|verb| with_modules(verb, modules))
}

fn module_argument(command: &Command) -> Option<clap::Id> {
    let is_module =
        |argument: &&clap::Arg| argument.get_value_names().is_some_and(|names| names == ["MODULE"]);
    command.get_positionals().find(is_module).map(|argument| argument.get_id().clone())
}

/// Returns what the generator leaves out for fish: the values of arguments that are no options.
fn fish_modules(command: &Command, modules: &[String]) -> String {
    let names = modules.join(" ");
    let mut lines = String::new();
    for verb in command.get_subcommands() {
        for inner in verb.get_subcommands().filter(|inner| module_argument(inner).is_some()) {
            lines.push_str(&format!(
                "complete -c lodestar -n \"__fish_lodestar_using_subcommand {}; and \
                 __fish_seen_subcommand_from {}\" -f -a \"{names}\"\n",
                verb.get_name(),
                inner.get_name()
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use clap::CommandFactory as _;

    use super::*;
    use crate::commands::Cli;

    #[test]
    fn a_shell_gets_only_words() {
        let evil = "x$(touch /tmp/x)`id`";
        let entry = json!({
            "command": "usage", "module": "usage_tracker", "aliases": [evil, "cost"], "about": evil,
            "default_command": null, "commands": [
                {"name": evil, "about": "", "args": {}, "streams": false},
                {"name": "summary", "about": evil, "streams": false, "args": {"properties": {
                    evil: {"type": "string"},
                    "by": {"enum": ["model", evil]},
                    "since": {"type": "string", "description": evil},
                    "form": {"enum": ["csv", "json"]},
                }}},
            ],
        });
        let entry: ModuleCommands = serde_json::from_value(entry).expect("it is one");
        let entry = completed(entry).expect("its own words are words");
        assert_eq!(entry.aliases, ["cost"]);
        let mut command = with_module_commands(Cli::command(), &entry);
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut command, "lodestar", &mut script);
        let script = String::from_utf8_lossy(&script);
        assert!(!script.contains("touch"), "{script}");
        for word in ["summary", "--since", "--form", "csv"] {
            assert!(script.contains(word), "{word}");
        }
        assert!(!script.contains("--by "), "{script}");
        let entry = ModuleCommands { command: evil.to_owned(), ..entry };
        assert!(completed(entry).is_none());
    }
}
