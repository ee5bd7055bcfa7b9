//! The options of every verb, and the search for the verb in a command line.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser};

use crate::{client::Client, error::InvalidValue, socket, terminal::ColorChoice};

/// The options of every verb, without a verb.
#[derive(Debug, Parser)]
struct Alone {
    #[command(flatten)]
    global: Global,
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
    /// Longest time to wait for an answer or for the outcome of a change, in seconds
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        default_value = "60",
        value_parser = seconds
    )]
    pub(crate) timeout: Duration,
    /// Use of colours; `auto` is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: ColorChoice,
}

impl Global {
    /// Returns the options that the environment and the defaults give.
    pub(crate) fn of_environment() -> Option<Self> {
        Alone::try_parse_from(["lodestar"]).ok().map(|alone| alone.global)
    }

    /// Creates a client for the daemon that these options name.
    pub(crate) fn client(&self) -> Client {
        let named = self.socket.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from);
        let env = |name: &str| std::env::var_os(name);
        Client { sockets: socket::candidates(named.as_deref(), &env), timeout: self.timeout }
    }

    /// Sets the options that the words behind a command give, before it is known which other
    /// options the command has. Mistakes are found later, by the parser.
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

/// Finds the index of the verb or command in a command line.
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

/// Returns the value of `--name VALUE` or `--name=VALUE`, the last one of them, up to `--`.
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

/// Parses a number of seconds, above 0 and at most a day.
fn seconds(text: &str) -> Result<Duration, InvalidValue> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(InvalidValue::expected("seconds, above 0 and at most 86400")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
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
        let mut global = Global::of_environment().expect("there are defaults");
        global.overlay(&words("usage --json --timeout 2.5"));
        assert!(global.json);
        assert_eq!(global.timeout, Duration::from_millis(2_500));
    }
}
