//! Commands of modules: `lodestar usage summary`, built from what the running modules declare.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use lodestar_api::{Module, ModuleCommands, ModuleInfo};
use lodestar_platform::visible::visible;
use module_sdk::CommandDescription;

use crate::{
    call::{self, Call},
    client::{Client, escaped},
    error::{CliError, Result},
    help,
    reserved_names::VERBS,
    schema,
    terminal::Terminal,
};

/// Ids of the options of streams. No property can have such a name: it would be no identifier.
const OUT: &str = "--out";
const FORCE: &str = "--force";

/// Finds the command among the running modules, parses its arguments and runs the command.
pub(super) async fn run(
    root: Command,
    argv: &[OsString],
    words: &[OsString],
    client: &Client,
    terminal: &mut Terminal,
) -> Result<u8> {
    let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let module_commands: Vec<ModuleCommands> =
        client.get("/v1/module-commands").await.map_err(|error| without_daemon(&word, error))?;
    let Some(entry) = module_commands.iter().find(|entry| answers_to(entry, &word)) else {
        return Err(Box::pin(unknown(&word, &module_commands, client)).await);
    };
    let argv = with_negative_values(argv);
    let failed = entry.failure_exit_code.filter(|_| asks_for_default(entry, words));
    let matches = match with_module_commands(root, entry).try_get_matches_from(&argv) {
        Ok(matches) => matches,
        Err(error) => {
            let shown = help::show(&error, &argv, terminal).await?;
            return Ok(failed.filter(|_| error.use_stderr()).unwrap_or(shown));
        }
    };
    let answered = match call(entry, &matches) {
        Ok(call) => Box::pin(call::run(call, client, terminal)).await,
        Err(error) => Err(error),
    };
    answered.map_err(|error| match failed {
        Some(code) => error.exit(code),
        None => error,
    })
}

/// Returns whether the words ask for the default command of a module, by its name or without it.
fn asks_for_default(entry: &ModuleCommands, words: &[OsString]) -> bool {
    let named = words.iter().skip(1).find_map(|word| {
        entry.commands.iter().find(|command| *word == *command.name).map(|command| &command.name)
    });
    named.is_none_or(|named| entry.default_command.as_ref() == Some(named))
}

/// Joins `--since -3d` to `--since=-3d`: no option begins with a digit, and the module can explain
/// a wrong value better than the parser, which would take it for options.
fn with_negative_values(argv: &[OsString]) -> Vec<OsString> {
    let is_option =
        |word: &[u8]| word.starts_with(b"--") && word.len() > 2 && !word.contains(&b'=');
    let is_negative = |word: &[u8]| matches!(word, [b'-', digit, ..] if digit.is_ascii_digit());
    let mut joined: Vec<OsString> = Vec::with_capacity(argv.len());
    let mut is_behind = false;
    for word in argv {
        is_behind |= word == "--";
        match joined.last_mut() {
            Some(last)
                if !is_behind && is_option(last.as_bytes()) && is_negative(word.as_bytes()) =>
            {
                last.push("=");
                last.push(word);
            }
            _ => joined.push(word.clone()),
        }
    }
    joined
}

/// Adds a command of a module to the command line. A verb of `lodestar` keeps its name.
pub(crate) fn with_module_commands(root: Command, entry: &ModuleCommands) -> Command {
    if root.find_subcommand(&entry.command).is_some() {
        return root;
    }
    let aliases = words(entry).filter(|word| *word != entry.command).map(str::to_owned);
    let known = |command: &CommandDescription| schema::known_command(command.args.as_value());
    let asked_by_us: Vec<String> = entry.commands.iter().filter_map(known).collect();
    let command = Command::new(entry.command.clone())
        .about(visible(&schema::one_line(&entry.about)).into_owned())
        .visible_aliases(aliases.collect::<Vec<_>>())
        .disable_help_subcommand(true)
        .subcommand_value_name("COMMAND")
        .subcommands(entry.commands.iter().map(|command| {
            // What the command line asks by itself is nothing to type.
            subcommand(command).hide(asked_by_us.contains(&command.name))
        }));
    root.subcommand(match default_command(entry) {
        Some(default) => command
            .subcommand_negates_reqs(true)
            .next_help_heading(format!("Options of {}, which runs by default", default.name))
            .args(options(default)),
        None => command.subcommand_required(true).arg_required_else_help(true),
    })
}

/// Builds the call of a command from the parsed arguments.
fn call(entry: &ModuleCommands, matches: &ArgMatches) -> Result<Call> {
    let of_noun = matches.subcommand().map(|(_, matches)| matches).unwrap_or(matches);
    let default = default_command(entry);
    let (description, given) = match of_noun.subcommand() {
        None => (default, of_noun),
        Some((name, given)) => (entry.commands.iter().find(|command| command.name == name), given),
    };
    let description = description
        .ok_or_else(|| CliError::usage(format!("`lodestar {}` needs a command", entry.command)))?;
    let words = format!("{} {}", entry.command, description.name);
    if let (Some(default), Some((name, _))) = (default, of_noun.subcommand())
        && !schema::json(&schema::fields(default.args.as_value()), of_noun).is_empty()
    {
        return Err(CliError::usage(format!("an option stands before the command `{name}`"))
            .help(format!("write `lodestar {words}` and the options behind it")));
    }
    let fields = schema::fields(description.args.as_value());
    let out = if description.streams { given.get_one::<PathBuf>(OUT).cloned() } else { None };
    Ok(Call {
        module: entry.module.clone(),
        words,
        command: description.name.clone(),
        args: schema::json(&fields, given),
        files: if description.reads_files { schema::files(&fields, given)? } else { None },
        streams: description.streams,
        out: out.filter(|path| path.as_os_str() != "-"),
        force: description.streams && given.get_flag(FORCE),
    })
}

fn subcommand(description: &CommandDescription) -> Command {
    let command = Command::new(description.name.clone())
        .disable_help_subcommand(true)
        .args(options(description));
    if description.about.is_empty() {
        return command;
    }
    let about = visible(&description.about);
    command.about(schema::one_line(&about)).long_about(about.into_owned())
}

fn options(description: &CommandDescription) -> Vec<Arg> {
    let fields = schema::fields(description.args.as_value());
    let mut options = schema::args(&fields, description.streams);
    if description.streams {
        options.push(
            Arg::new(OUT).long("out").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
                "Write the stream to this file, readable by you only; `-` is standard output",
            ),
        );
        options.push(
            Arg::new(FORCE)
                .long("force")
                .action(ArgAction::SetTrue)
                .requires(OUT)
                .help("Overwrite the file of --out"),
        );
    }
    options
}

fn default_command(entry: &ModuleCommands) -> Option<&CommandDescription> {
    let name = entry.default_command.as_ref()?;
    entry.commands.iter().find(|command| command.name == *name)
}

/// Returns all names of a command.
fn words(entry: &ModuleCommands) -> impl Iterator<Item = &str> {
    let mut words: Vec<&str> = vec![&entry.command, &entry.module];
    words.extend(entry.aliases.iter().map(String::as_str));
    words.sort_unstable();
    words.dedup();
    words.into_iter()
}

fn verbs() -> Vec<String> {
    VERBS.map(str::to_owned).to_vec()
}

fn answers_to(entry: &ModuleCommands, word: &str) -> bool {
    words(entry).any(|known| known == word)
}

/// Names the command in the error without a daemon, and the verb that may have been meant.
fn without_daemon(word: &str, error: CliError) -> CliError {
    let CliError::Failure(mut failure) = error else { return error };
    failure.message = format!("cannot look up the command `{word}`: {}", failure.message);
    if let Some(verb) = nearest(word, &verbs()).first() {
        let rest = failure.help.take().unwrap_or_default();
        failure.help = Some(format!("did you mean `lodestar {verb}`? Otherwise {rest}"));
    }
    CliError::Failure(failure)
}

async fn unknown(word: &str, module_commands: &[ModuleCommands], client: &Client) -> CliError {
    let modules: Vec<Module> = client.get("/v1/modules").await.unwrap_or_default();
    let resting =
        |module: &&Module| module_commands.iter().all(|entry| entry.module != module.name);
    for module in modules.iter().filter(resting) {
        if module.name == word || noun_of(module, client).await.as_deref() == Some(word) {
            return resting_noun(word, module);
        }
    }
    let mut candidates = verbs();
    candidates.extend(module_commands.iter().flat_map(words).map(str::to_owned));
    candidates.extend(modules.into_iter().map(|module| module.name));
    candidates.sort_unstable();
    candidates.dedup();
    let near: Vec<String> =
        nearest(word, &candidates).into_iter().map(|name| format!("`{name}`")).collect();
    let help = if near.is_empty() {
        "`lodestar --help` lists the verbs and the commands of the running modules".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    CliError::usage(format!("`{word}` is no verb, and no running module answers to it")).help(help)
}

async fn noun_of(module: &Module, client: &Client) -> Option<String> {
    let path = format!("/v1/modules/{}", escaped(&module.name));
    client.get::<ModuleInfo>(&path).await.ok()?.command
}

fn resting_noun(word: &str, module: &Module) -> CliError {
    let name = &module.name;
    let reason = module.reason.as_deref().filter(|_| module.desired == "enabled");
    let reason = reason.filter(|reason| !reason.is_empty());
    let because = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let state = if module.desired == "enabled" { &module.state } else { &module.desired };
    if module.state == "running" {
        return CliError::usage(format!("the module {name} runs and has no commands"))
            .help(format!("see `lodestar modules info {name}`"));
    }
    CliError::usage(format!("the module {name}, which answers to `{word}`, is {state}{because}"))
        .help(if module.desired == "enabled" {
            format!("see `lodestar modules info {name}` and `lodestar modules logs {name}`")
        } else {
            format!("enable it with `lodestar modules enable {name}`")
        })
}

/// Returns at most three names that a typing error turns into the word, the nearest first.
fn nearest<'a>(word: &str, names: &'a [String]) -> Vec<&'a str> {
    let slips = (word.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name.as_str()))
        .filter(|(distance, _)| *distance <= slips)
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use clap::CommandFactory as _;
    use serde_json::Value;

    use super::*;
    use crate::commands::Cli;
    use crate::tests::sample;

    fn parse(line: &str) -> Result<Call, String> {
        let entry = sample::module_commands();
        let argv = line.split(' ').map(OsString::from);
        let argv = with_negative_values(&argv.collect::<Vec<_>>());
        let matches = with_module_commands(Cli::command(), &entry)
            .try_get_matches_from(argv)
            .map_err(|error| error.to_string())?;
        call(&entry, &matches).map_err(|e| e.failure().expect("a failure").message.clone())
    }

    #[test]
    fn the_default_command_is_known_by_name_and_without_one() {
        let entry = sample::module_commands();
        let asks = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            asks_for_default(&entry, &words)
        };
        assert!(asks("usage") && asks("usage summary --nope") && asks("usage --since 7d"));
        assert!(!asks("usage export"));
    }

    #[test]
    fn parses_what_a_module_declares() {
        let check = |line: &str, command: &str, args: Value| {
            let call = parse(line).expect(line);
            assert_eq!(
                (call.command.as_str(), Value::Object(call.args)),
                (command, args),
                "{line}"
            );
            assert_eq!(call.module, "usage_tracker");
        };
        check("lodestar usage", "summary", json!({}));
        check("lodestar usage_tracker --since 7d", "summary", json!({"since": "7d"}));
        check("lodestar usage --json summary --by day", "summary", json!({"by": "day"}));
        check(
            "lodestar usage summary --limit 5 --only-errors --model a --model b",
            "summary",
            json!({"limit": 5, "only_errors": true, "model": ["a", "b"]}),
        );
        check("lodestar usage summary --rounded=false", "summary", json!({"rounded": false}));
        check("lodestar usage summary --since -3d", "summary", json!({"since": "-3d"}));
        check("lodestar usage summary --least -0.5", "summary", json!({"least": -0.5}));
        check("lodestar usage show s1 s2", "show", json!({"sessions": ["s1", "s2"]}));
        check("lodestar usage export --format csv", "export", json!({"format": "csv"}));
    }

    #[test]
    fn streams_have_a_file() {
        let call = parse("lodestar usage export --out /tmp/x --force").expect("a call");
        assert_eq!((call.out, call.force), (Some("/tmp/x".into()), true));
        assert_eq!(parse("lodestar usage export --out -").expect("a call").out, None);
        assert!(parse("lodestar usage export --force").is_err());
        assert!(parse("lodestar usage summary --out x").is_err());
    }

    #[test]
    fn says_what_does_not_fit() {
        let check = |line: &str, part: &str| {
            let error = parse(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        };
        check("lodestar usage sumary", "summary");
        check("lodestar usage --bye day", "--by");
        check("lodestar usage --by week", "possible values: model, day");
        check("lodestar usage --limit many", "a whole number from 0 to 1000");
        check("lodestar usage --limit 1001", "a whole number from 0 to 1000");
        check("lodestar usage show", "<SESSIONS>");
        check("lodestar usage --by day summary", "stands before the command");
    }

    #[test]
    fn a_command_without_words_has_none_in_its_help() {
        let mut entry = sample::module_commands();
        entry.commands[1].about = String::new();
        let name = entry.commands[1].name.clone();
        let argv = ["lodestar", "usage", &name, "--help"];
        let help = with_module_commands(Cli::command(), &entry).try_get_matches_from(argv);
        let help = help.expect_err("it is help").to_string();
        assert!(help.starts_with(&format!("Usage: lodestar usage {name}")), "{help}");
    }

    #[test]
    fn finds_near_names() {
        let names = ["status", "usage", "usage_tracker", "events"].map(str::to_owned);
        let check = |word, expected: &[&str]| assert_eq!(nearest(word, &names), expected);
        check("staus", &["status"]);
        check("usgae", &["usage"]);
        check("usage_traker", &["usage_tracker"]);
        check("zzz", &[]);
    }

    #[test]
    fn a_noun_does_not_hide_a_verb() {
        let entry = ModuleCommands { command: "status".to_owned(), ..sample::module_commands() };
        let root = with_module_commands(Cli::command(), &entry);
        let status = root.find_subcommand("status").expect("our verb");
        assert!(status.get_subcommands().next().is_none());
    }
}
