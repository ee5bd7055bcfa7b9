//! The command line: the verbs that are always there. Nouns come from the running modules.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::{
    client::Client, completions, config, doctor, events, exit_codes, man, modules, socket, status,
    terminal::ColorChoice, top,
};

const LONG_ABOUT: &str = "\
Sees and steers lodestard: its modules, its events, its configuration.

Beside the verbs below, each running module answers to a noun of its own, such as \
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

/// Options of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "LODESTAR_SOCKET",
        hide_env_values = true
    )]
    pub(crate) socket: Option<OsString>,
    /// How long to wait for an answer or for the outcome of a change, in seconds
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        default_value = "60",
        value_parser = seconds
    )]
    pub(crate) timeout: Duration,
    /// When to use colours; `auto` is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: ColorChoice,
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
    Completions(completions::Completions),
    Man(man::Man),
    #[command(external_subcommand)]
    Noun(Vec<OsString>),
}

impl Global {
    /// A client for the daemon that these options name.
    pub(crate) fn client(&self) -> Client {
        let named = self.socket.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from);
        let env = |name: &str| std::env::var_os(name);
        Client { sockets: socket::candidates(named.as_deref(), &env), timeout: self.timeout }
    }

    /// What the words behind a noun say of these options, read before it is known which other
    /// options the noun has. Mistakes are found later, by the parser.
    pub(crate) fn overlay(&mut self, words: &[OsString]) {
        self.json |= words.iter().any(|word| word == "--json");
        if let Some(path) = option(words, "--socket") {
            self.socket = Some(path);
        }
        let timeout = option(words, "--timeout");
        if let Some(Ok(timeout)) = timeout.as_ref().and_then(|text| text.to_str()).map(seconds) {
            self.timeout = timeout;
        }
    }
}

/// The names of the fixed verbs.
pub(crate) fn verbs() -> Vec<String> {
    Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect()
}

/// Where the verb or noun stands in a command line.
pub(crate) fn verb_index(argv: &[OsString]) -> Option<usize> {
    let mut words = argv.iter().enumerate().skip(1);
    while let Some((index, word)) = words.next() {
        if ["--socket", "--timeout", "--color"].iter().any(|name| word == name) {
            words.next();
        } else if !word.as_bytes().starts_with(b"-") {
            return Some(index);
        }
    }
    None
}

/// `--name VALUE` or `--name=VALUE`, the last one of them, up to `--`.
fn option(words: &[OsString], name: &str) -> Option<OsString> {
    let mut found = None;
    let mut words = words.iter().take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if word == name {
            found = words.next().cloned();
        } else if let Some(rest) = word.as_bytes().strip_prefix(name.as_bytes())
            && let Some(value) = rest.strip_prefix(b"=")
        {
            found = Some(OsStr::from_bytes(value).to_owned());
        }
    }
    found
}

/// A number of seconds, above 0 and at most a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let range = "expected seconds, above 0 and at most 86400";
    let seconds: f64 = text.parse().map_err(|_| range.to_owned())?;
    if seconds > 0.0 && seconds <= 86_400.0 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(range.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        check("lodestar usage summary --since 7d", "Noun([\"usage\", \"summary\", \"--since\"");
        check("lodestar usage --help", "Noun([\"usage\", \"--help\"");
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
    }

    #[test]
    fn finds_the_verb() {
        let check = |line: &str, expected| assert_eq!(verb_index(&words(line)), expected);
        check("lodestar", None);
        check("lodestar --json", None);
        check("lodestar status", Some(1));
        check("lodestar --socket /a --json --color=never usage status", Some(5));
        check("lodestar --socket", None);
    }

    #[test]
    fn finds_global_options_behind_a_noun() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(option(&words(line), "--socket"), expected.map(OsString::from), "{line}");
        };
        check("usage --socket /a", Some("/a"));
        check("usage --socket=/a --socket /b", Some("/b"));
        check("usage --sockets=/a", None);
        check("usage -- --socket /a", None);
        check("usage --socket", None);
        let mut global = Cli::try_parse_from(words("lodestar usage")).expect("a noun").global;
        global.overlay(&words("usage --json --timeout 2.5"));
        assert!(global.json);
        assert_eq!(global.timeout, Duration::from_millis(2_500));
    }
}
