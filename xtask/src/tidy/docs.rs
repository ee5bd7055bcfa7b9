//! The openings of doc comments: a function's with a verb, none with a relative clause.

use std::fs;

use anyhow::{Context as _, Result};

use super::Problem;
use crate::workspace::Workspace;

/// Words that open a relative clause or a question in the place of a verb or a noun.
const RELATIVE: [&str; 12] = [
    "What", "Who", "Whose", "Whom", "Whether", "How", "Why", "Where", "When", "Which", "That", "If",
];

/// Words that end like a verb in the third person and are none.
const NO_VERBS: [&str; 6] = ["As", "Has", "Is", "Its", "This", "Was"];

/// The interface as it was released, of which no byte changes.
const FROZEN: &str = "tests/fixtures/previous_sdk/";

pub(super) fn check(
    workspace: &Workspace,
    files: &[String],
    problems: &mut Vec<Problem>,
) -> Result<()> {
    let is_ours = |file: &&String| file.ends_with(".rs") && !file.starts_with(FROZEN);
    for file in files.iter().filter(is_ours) {
        let text = fs::read_to_string(workspace.root.join(file))
            .with_context(|| format!("cannot read {file}"))?;
        check_source(file, &text, problems);
    }
    Ok(())
}

fn check_source(file: &str, text: &str, problems: &mut Vec<Problem>) {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let mut before = "";
    for (index, &line) in lines.iter().enumerate() {
        let is_first = line.starts_with("///") && !before.starts_with("///");
        before = line;
        if !is_first {
            continue;
        }
        let word = first_word(line);
        let place = format!("{file}:{}", index + 1);
        if RELATIVE.contains(&word) {
            problems.push(format!(
                "{place}: a doc opens with {word:?}; open a function's with a verb (`Returns`), \
                 any other with a noun"
            ));
        } else if documents_function(&lines[index..]) && !is_verb(word) {
            problems.push(format!(
                "{place}: a function's doc opens with {word:?}; open it with a verb: `Returns`, \
                 `Starts`, `Checks whether`"
            ));
        }
    }
}

/// Returns the first word of a doc comment without the marks around it.
fn first_word(line: &str) -> &str {
    let text = line.trim_start_matches('/').trim_start();
    let end = text.find(|it: char| !it.is_alphanumeric() && it != '-').unwrap_or(text.len());
    &text[..end]
}

/// Checks whether a word has the form of a verb in the third person: `Returns`, `Re-reads`.
fn is_verb(word: &str) -> bool {
    let is_capitalised = word.starts_with(|first: char| first.is_ascii_uppercase());
    is_capitalised && word.ends_with('s') && !NO_VERBS.contains(&word)
}

/// Returns whether the item below these comments and attributes is a function other than a test.
fn documents_function(lines: &[&str]) -> bool {
    let mut depth = 0_usize;
    for line in lines {
        let is_attribute = depth > 0 || line.starts_with("#[");
        if is_attribute {
            if line.contains("test]") || line.contains("test(") {
                return false;
            }
            depth += line.matches('[').count();
            depth -= line.matches(']').count().min(depth);
        } else if !line.starts_with("//") {
            return is_function(line);
        }
    }
    false
}

fn is_function(line: &str) -> bool {
    let mut words = line.split(' ').filter(|word| !word.starts_with("pub") && !word.contains(')'));
    words.find(|word| !matches!(*word, "const" | "async" | "unsafe" | "extern" | "\"C\""))
        == Some("fn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_open_with_a_verb_and_nothing_with_a_clause() {
        let check = |text: &str, expected: usize| {
            let mut problems = Vec::new();
            check_source("x.rs", text, &mut problems);
            assert_eq!(problems.len(), expected, "{text}: {problems:?}");
        };
        check("/// Returns the name.\n#[must_use]\npub const fn name() {}\n", 0);
        check("/// The name.\n#[must_use]\npub const fn name() {}\n", 1);
        check(
            "    /// A name.\n    #[expect(\n        x\n    )]\n    pub(super) async fn f() {}",
            1,
        );
        check("/// Its name.\nfn f() {}\n", 1);
        check("/// `Config` as text.\nfn f() {}\n", 1);
        check("/// Starts.\n///\n/// What follows is not looked at.\nfn f() {}\n", 0);
        check("/// The name.\nstruct Name;\n", 0);
        for word in RELATIVE {
            check(&format!("/// {word} it is.\nstruct Name;\n"), 1);
            check(&format!("/// {word} it is.\nfn f() {{}}\n"), 1);
            check(&format!("// {word} it is.\nfn f() {{}}\n"), 0);
        }
        check("/// A thousand at once.\n#[test]\nfn a_thousand_at_once() {}\n", 0);
    }
}
