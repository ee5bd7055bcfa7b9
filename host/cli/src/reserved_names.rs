//! Reserved names: the words of the command line that a module cannot have.

use module_sdk::manifest::Manifest;

use crate::error::{CliError, Result};

/// The names of the verbs.
pub(crate) const VERBS: [&str; 9] =
    ["completions", "config", "connect", "doctor", "events", "man", "modules", "status", "top"];

/// The names of the verbs of `lodestar modules` and their aliases, which people type without it.
pub(crate) const MODULE_VERBS: [&str; 15] = [
    "check", "dev", "disable", "enable", "info", "install", "list", "logs", "ls", "new", "reload",
    "remove", "rollback", "verify", "why",
];

/// Returns whether a name is reserved.
fn is_reserved(name: &str) -> bool {
    let others = ["help", "lodestar", "lodestard"];
    VERBS.contains(&name) || MODULE_VERBS.contains(&name) || others.contains(&name)
}

/// Returns why a module cannot have its name and its command, a sentence with the remedy: they are
/// reserved, or belong to one of the modules `others`.
pub(crate) fn why_taken(name: &str, command: Option<&str>, others: &[Manifest]) -> Option<String> {
    match [Some(name), command].into_iter().flatten().find(|word| is_reserved(word)) {
        Some(word) if word == name => Some(format!(
            "no module can be called {word:?}, which is a word of lodestar itself; call it \
             {word}_module, or say what it does"
        )),
        Some(word) => Some(format!(
            "{name} cannot answer to {word:?}, which is a word of lodestar itself; choose another \
             `cli.command`"
        )),
        None => lodestar_config::reserved_names::why_taken(name, command, others),
    }
}

/// Checks that a module can have its name and its command, as far as is known without the daemon.
///
/// # Errors
///
/// When one of them is reserved or belongs to another module.
pub(crate) fn check(manifest: &Manifest, others: &[Manifest]) -> Result<()> {
    let command = manifest.cli.command.as_deref();
    match why_taken(&manifest.module.name, command, others) {
        Some(sentence) => Err(CliError::refused(sentence)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use lodestar_config::SECTIONS;

    use super::*;

    #[test]
    fn a_word_of_ours_is_no_name() {
        for word in ["status", "events", "modules", "man", "help", "lodestar", "log", "bus"] {
            assert!(why_taken(word, None, &[]).is_some(), "{word}");
            assert!(why_taken("guard", Some(word), &[]).is_some() || SECTIONS.contains(&word));
        }
        for verb in ["install", "why", "new", "dev", "logs", "rollback"] {
            assert!(why_taken(verb, None, &[]).is_some(), "{verb}");
        }
        for name in ["usage", "ingest", "health", "router", "learning", "dashboard", "guard"] {
            assert_eq!(why_taken(name, Some(name), &[]), None);
        }
    }
}
