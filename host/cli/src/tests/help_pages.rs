//! The help of every verb, as a page that a test keeps true.
//!
//! `LODESTAR_UPDATE_SNAPSHOTS=1 cargo test --release -p lodestar-cli --bin lodestar` writes it
//! anew.

use std::path::Path;

use clap::{Command, CommandFactory as _};

use crate::{
    commands::{Cli, with_module_commands},
    tests::sample,
};

fn pages(command: &mut Command, path: &str, text: &mut String) {
    let help = command.render_long_help().to_string();
    // The global options stand on the first page.
    let is_shown = |line: &&str| path == "lodestar" || *line != "Global options:";
    let help: Vec<&str> = help.lines().map(str::trim_end).take_while(is_shown).collect();
    text.push_str(&format!("$ {path} --help\n{}\n\n", help.join("\n").trim_end()));
    for verb in command.get_subcommands_mut() {
        let path = format!("{path} {}", verb.get_name());
        pages(verb, &path, text);
    }
}

fn check(file: &str, mut command: Command) {
    let mut found = String::new();
    command.build();
    pages(&mut command, "lodestar", &mut found);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    if std::env::var_os("LODESTAR_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &found).expect("the page can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == found, "{file} is not what the help says; see the head of this test\n{found}");
}

#[test]
fn the_page_is_what_the_verbs_say() {
    check("help.txt", Cli::command().term_width(80));
}

#[test]
fn a_noun_has_help_too() {
    let root = with_module_commands(
        Command::new("lodestar").disable_help_subcommand(true).term_width(80),
        &sample::module_commands(),
    );
    check("tests/noun_help.txt", root);
}
