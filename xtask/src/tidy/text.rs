//! The rules for what a file may hold, and how long it may be.

use std::fs;

use anyhow::{Context as _, Result};

use super::Problem;
use crate::workspace::Workspace;

/// Number of lines beyond which a file has more than one job.
const MAX_LINES: usize = 500;
/// Width of a line, as in `rustfmt.toml`; rustfmt leaves long strings and comments as they are.
const MAX_WIDTH: usize = 100;

/// The files that may hold `unsafe`, each with its reason.
const UNSAFE: [(&str, &str); 17] = [
    ("module-sdk/abi/src/lib.rs", "what the macros of abi_stable write"),
    ("module-sdk/src/glue/", "the seam between a module and the ABI"),
    ("host/library/src/open.rs", "mapping a library and reading what it exports"),
    ("host/library/src/seal.rs", "reading a sealed copy where it lies"),
    (
        "host/daemon/src/runner/child/descriptors.rs",
        "closing descriptors that came along by mistake",
    ),
    ("host/daemon/src/crash.rs", "handlers of fatal signals"),
    ("host/platform/src/code_pages.rs", "pages taken from under running code"),
    ("host/platform/src/systemd.rs", "sockets received from systemd"),
    ("host/library/src/pthread_hooks.rs", "the C library's thread-local keys and threads"),
    ("tests/fixtures/fake_nvml/src/lib.rs", "exports the symbols of NVML, with its buffers"),
    ("tests/fixtures/layout_changed/src/lib.rs", "writes by hand what `export!` does"),
    ("tests/fixtures/misbehaver/src/crash.rs", "crashes in every way there is"),
    ("tests/fixtures/misbehaver/src/misdeeds.rs", "misuses the kernel against others"),
    ("tests/fixtures/no_entry/src/lib.rs", "exports a symbol that is not ours"),
    (
        "tests/fixtures/previous_sdk/abi/",
        "the frozen interface: what the macros of abi_stable write",
    ),
    ("tests/fixtures/previous_sdk/src/lib.rs", "writes by hand what `export!` does"),
    ("xtask/src/tidy/text.rs", "names what it looks for"),
];

/// Words that may not stand in our sources, each with its remedy.
const FORBIDDEN: [(&str, &str); 5] = [
    (concat!("#[all", "ow("), "write #[expect(lint, reason = \"…\")]"),
    (concat!("#![all", "ow("), "write #![expect(lint, reason = \"…\")]"),
    (concat!("to", "do!("), "write the code, or an issue"),
    (concat!("unimple", "mented!("), "write the code, or an issue"),
    (concat!("db", "g!("), "log it, or delete it"),
];

pub(super) fn check(
    workspace: &Workspace,
    files: &[String],
    problems: &mut Vec<Problem>,
) -> Result<()> {
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let text = fs::read_to_string(workspace.root.join(file))
            .with_context(|| format!("cannot read {file}"))?;
        check_source(file, &text, problems);
    }
    Ok(())
}

fn check_source(file: &str, text: &str, problems: &mut Vec<Problem>) {
    let lines = text.lines().count();
    if lines > MAX_LINES {
        problems
            .push(format!("{file}: {lines} lines, at most {MAX_LINES}; split it by what it does"));
    }
    let may_be_unsafe = UNSAFE.iter().any(|(place, _)| file.starts_with(place));
    for (number, line) in (1..).zip(text.lines()) {
        let width = line.chars().count();
        if width > MAX_WIDTH {
            problems.push(format!("{file}:{number}: {width} characters, at most {MAX_WIDTH}"));
        }
        let code = code_of(line);
        if !may_be_unsafe && has_word(code, "unsafe") {
            problems.push(format!(
                "{file}:{number}: unsafe outside the files that may; write it safely, or give \
                 the file and its reason in tidy"
            ));
        }
        for (word, remedy) in FORBIDDEN {
            if code.contains(word) {
                problems.push(format!("{file}:{number}: `{word}` is forbidden; {remedy}"));
            }
        }
    }
}

/// Returns a line without the comment at its end.
pub(super) fn code_of(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_part)
            && !code[..at].ends_with('"')
            && !code[at + word.len()..].starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_may_not_stand() {
        let check = |file: &str, text: &str, expected: usize| {
            let mut problems = Vec::new();
            check_source(file, text, &mut problems);
            assert_eq!(problems.len(), expected, "{text}: {problems:?}");
        };
        check("host/daemon/src/main.rs", "fn main() {}\n", 0);
        check("host/daemon/src/main.rs", "let x = unsafe { y() };\n", 1);
        check("host/daemon/src/main.rs", "#![forbid(unsafe_code)] // unsafe\n", 0);
        check("module-sdk/src/glue/heap.rs", "unsafe impl X for Y {}\n", 0);
        for (word, _) in FORBIDDEN {
            check("host/daemon/src/main.rs", &format!("    {word}\n"), 1);
            check("host/daemon/src/main.rs", &format!("    // {word}\n"), 0);
        }
        check("host/daemon/src/main.rs", &"é".repeat(100), 0);
        check("host/daemon/src/main.rs", &"é".repeat(101), 1);
        check("host/daemon/src/main.rs", &"\n".repeat(501), 1);
    }
}
