//! Check that errors are types: code that has to act on an error cannot use a `String`.

use std::fs;

use anyhow::{Context as _, Result};

use super::{Problem, text::code_of};
use crate::workspace::Workspace;

/// Paths where a `String` may be an error: code that only developers run.
const DEVELOPERS: [&str; 2] = ["tests/", "xtask/"];

pub(super) fn check(
    workspace: &Workspace,
    files: &[String],
    problems: &mut Vec<Problem>,
) -> Result<()> {
    for file in files.iter().filter(|file| file.ends_with(".rs") && !is_exempt(file)) {
        let text = fs::read_to_string(workspace.root.join(file))
            .with_context(|| format!("cannot read {file}"))?;
        check_source(file, &text, problems);
    }
    Ok(())
}

fn is_exempt(file: &str) -> bool {
    DEVELOPERS.iter().any(|place| file.starts_with(place))
        || ["/tests/", "/benches/"].iter().any(|folder| file.contains(folder))
        || file.ends_with("tests.rs")
}

fn check_source(file: &str, text: &str, problems: &mut Vec<Problem>) {
    let mut code = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        // The tests of a file stand at its end.
        let is_module = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if line.starts_with("#[cfg(test)]") && lines.peek().is_some_and(is_module) {
            break;
        }
        code.push_str(code_of(line));
        code.push('\n');
    }
    for (at, word) in code.match_indices("Result<") {
        if last_argument(&code[at + word.len()..]).is_some_and(is_string) {
            let line = code[..at].matches('\n').count() + 1;
            problems.push(format!(
                "{file}:{line}: a `String` as an error; give the error a type, beside the others \
                 of its domain"
            ));
        }
    }
}

/// Returns whether a type is a `String`, or a tuple with one in it.
fn is_string(error: &str) -> bool {
    let Some(tuple) = error.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) else {
        return error == "String";
    };
    let mut depth = 0;
    let members = tuple.split(|c| {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    members.map(str::trim).any(is_string)
}

/// Returns the last of the arguments that begin here and end with their `>`; `None` where there is
/// one only.
fn last_argument(text: &str) -> Option<&str> {
    let (mut depth, mut begin, mut found) = (0, 0, false);
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' | '{' => depth += 1,
            // The end of an arrow is none of arguments.
            '>' if before == '-' => {}
            '>' if depth == 0 => return found.then(|| text[begin..at].trim()),
            '>' | ')' | ']' | '}' => depth -= 1,
            // One before the end stands there for the looks of it.
            ',' if depth == 0 && !text[at + 1..].trim_start().starts_with('>') => {
                (begin, found) = (at + 1, true);
            }
            ',' if depth == 0 => return found.then(|| text[begin..at].trim()),
            ';' if depth == 0 => return None,
            _ => {}
        }
        before = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_no_error() {
        let check = |text: &str, expected: usize| {
            let mut problems = Vec::new();
            check_source("host/bus/src/lib.rs", text, &mut problems);
            assert_eq!(problems.len(), expected, "{text}: {problems:?}");
        };
        check("fn a() -> Result<(), String> {\n", 1);
        check("fn a() -> Result<\n    HashMap<String, u8>,\n    String,\n> {\n", 1);
        check("fn a() -> std::result::Result<Box<dyn Fn(&str) -> u8>, String>;\n", 1);
        check("sender: SyncSender<Result<Held, String>>,\n", 1);
        check("probe: impl Fn(&Package) -> Result<(), String>,\n", 1);
        check("secrets: HashMap<String, Result<String, String>>,\n", 1);
        check("Ok::<_, String>(1)\nfn a() -> Result<u8, String> {\nResult<u8, String>", 2);
        check("fn a() -> Result<(), (State, String)> {\n", 1);
        check("fn a() -> Result<u8, (String, Vec<(u8, u8)>)> {\n", 1);
        check("fn a() -> Result<u8, (HashMap<u8, String>, u8)> {\n", 0);
        check("fn a() -> Result<u8, ()> {\n", 0);
        check("fn a() -> Result<String> {\n", 0);
        check("fn a() -> Result<HashMap<String, String>, PathError> {\n", 0);
        check("fn a() -> Result<(u8, String), PathError> {\n", 0);
        check("// as a Result<(), String>\nfn a() {}\n", 0);
        check("fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() -> Result<(), String> {\n", 0);
        check("#[cfg(test)]\nuse tests::step;\nfn b() -> Result<(), String> {\n", 1);
    }

    #[test]
    fn what_only_developers_run_is_exempt() {
        for file in ["xtask/src/adr.rs", "host/bus/src/tests/model.rs", "tests/e2e/main.rs"] {
            assert!(is_exempt(file), "{file}");
        }
        for file in ["host/bus/src/lib.rs", "modules/ingest/src/config.rs"] {
            assert!(!is_exempt(file), "{file}");
        }
    }
}
