//! Reserved names of modules and commands, so that each name has one meaning.

use module_sdk::manifest::{Manifest, valid_name};

use crate::SECTIONS;

/// Name under which modules call the daemon.
pub const HOST: &str = "host";

/// Returns the reason that a module called `name`, with this command, cannot have these names
/// beside `others`: a sentence with the remedy after the last semicolon. `None` if the names are
/// free. Names of the command line's own commands are checked by the command line.
#[must_use]
pub fn why_taken(name: &str, command: Option<&str>, others: &[Manifest]) -> Option<String> {
    if SECTIONS.contains(&name) {
        return Some(format!(
            "no module can be called {name:?}, which is a section of modules.yaml; call it \
             {name}_module, or say what it does"
        ));
    }
    if name == HOST {
        return Some(format!(
            "no module can be called {name:?}, by which modules call the daemon; say what it does"
        ));
    }
    if let Some(command) = command.filter(|command| !valid_name(command)) {
        return Some(format!(
            "module.toml says `command = {command:?}`, which is no word of the command line; write \
             1 to 32 of a-z, 0-9 and _, beginning with a letter"
        ));
    }
    let has = |other: &&Manifest, word: &str| {
        let Manifest { module, cli, .. } = other;
        module.name != name && (module.name == word || cli.command.as_deref() == Some(word))
    };
    let (word, other) = [Some(name), command].into_iter().flatten().find_map(|word| {
        let other = others.iter().find(|other| has(other, word))?;
        Some((word, &other.module.name))
    })?;
    Some(if word == name {
        format!(
            "no module can be called {name:?}: the module {other} answers to it; call it something \
             else"
        )
    } else {
        format!(
            "{name} cannot answer to {word:?}: the module {other} does; choose another \
             `cli.command`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, command: &str) -> Manifest {
        let text = format!(
            "[module]\nname = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"d\"\n\
             [abi]\nepoch = 1\n[cli]\ncommand = \"{command}\"\n"
        );
        Manifest::parse(&text).expect("it is valid")
    }

    #[test]
    fn a_word_means_one_thing() {
        let others = [manifest("usage_tracker", "usage"), manifest("ingest", "ingest")];
        let check = |name: &str, command: Option<&str>, part: &str| {
            let sentence = why_taken(name, command, &others).expect(name);
            assert!(sentence.contains(part) && sentence.contains("; "), "{sentence}");
        };
        check("usage", None, "\"usage\": the module usage_tracker answers to it; call it");
        check("guard", Some("usage"), "another `cli.command`");
        check("guard", Some("ingest"), "the module ingest does");
        check("guard", Some("--json"), "no word of the command line");
        check("host", None, "by which modules call the daemon");
        check("metrics", None, "a section of modules.yaml");
        for (name, command) in
            [("guard", None), ("guard", Some("watch")), ("usage_tracker", Some("usage"))]
        {
            assert_eq!(why_taken(name, command, &others), None);
        }
    }
}
