//! The rules for decision records and the links of every page.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};

use super::Problem;
use crate::{adr, workspace::Workspace};

/// Headings of the sections of a decision record, in their order.
const SECTIONS: [&str; 5] =
    ["## Context", "## Options", "## Decision", "## Consequences", "## Confirmation"];

pub(super) fn check(
    workspace: &Workspace,
    files: &[String],
    problems: &mut Vec<Problem>,
) -> Result<()> {
    let mut numbers = BTreeMap::new();
    for file in files.iter().filter(|file| file.ends_with(".md")) {
        let text = fs::read_to_string(workspace.root.join(file))
            .with_context(|| format!("cannot read {file}"))?;
        check_links(&workspace.root, file, &text, problems);
        if let Some(name) = file.strip_prefix("adr/") {
            check_record(file, name, &text, &mut numbers, problems);
        }
    }
    Ok(())
}

fn check_record(
    file: &str,
    name: &str,
    text: &str,
    numbers: &mut BTreeMap<u32, String>,
    problems: &mut Vec<Problem>,
) {
    let Some(number) = adr::number(name) else {
        problems.push(format!("{file}: a record is named NNNN-short-title.md"));
        return;
    };
    if let Some(other) = numbers.insert(number, file.to_owned()) {
        problems.push(format!("{file}: has the number of {other}; take the next free one"));
    }
    if number > 0 && !text.starts_with(&format!("# {number:04}. ")) {
        problems.push(format!("{file}: the first line must begin with `# {number:04}. `"));
    }
    let mut rest = text;
    for section in SECTIONS {
        match rest.split_once(&format!("\n{section}\n")) {
            Some((_, after)) => rest = after,
            None => problems.push(format!(
                "{file}: the section `{section}` is missing or not in its place; see the template"
            )),
        }
    }
}

fn check_links(root: &Path, file: &str, text: &str, problems: &mut Vec<Problem>) {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    for (line, target) in links(text) {
        let path = target.split('#').next().unwrap_or_default();
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        if path.is_empty() || elsewhere {
            continue;
        }
        if !root.join(folder).join(path).exists() {
            problems.push(format!("{file}:{line}: the link {target} leads nowhere"));
        }
    }
}

/// Returns the targets of `[text](target)` outside code, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Every second piece between backticks is code.
        for prose in line.split('`').step_by(2) {
            let after = prose.split("](").skip(1);
            let targets = after.filter_map(|rest| rest.split_once(')'));
            found.extend(targets.map(|(target, _)| (number, target)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# 0007. Title\n\nStatus: accepted\n\n## Context\n\n## Options\n\n\
                        ## Decision\n\n## Consequences\n\n## Confirmation\n";

    fn problems_of(name: &str, text: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut numbers = BTreeMap::from([(9, "adr/0009-taken.md".to_owned())]);
        check_record(&format!("adr/{name}"), name, text, &mut numbers, &mut problems);
        problems
    }

    #[test]
    fn a_record_has_its_form() {
        let check = |name: &str, text: &str, expected: usize| {
            let problems = problems_of(name, text);
            assert_eq!(problems.len(), expected, "{problems:?}");
        };
        check("0007-title.md", GOOD, 0);
        check("title.md", GOOD, 1);
        check("0008-title.md", GOOD, 1);
        check("0009-title.md", &GOOD.replace("0007", "0009"), 1);
        check("0007-title.md", &GOOD.replace("## Options", "## Choices"), 1);
        check("0007-title.md", "# 0007. Title\n", 5);
    }

    #[test]
    fn links_are_found_outside_code() {
        let text = "[a](x.md) and [b](y.md#part)\n`[c](no)` [d](z)\n```\n[e](no)\n```\n[f](w)\n";
        assert_eq!(links(text), [(1, "x.md"), (1, "y.md#part"), (2, "z"), (6, "w")]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("docs")).expect("it is writable");
        fs::write(directory.path().join("here.md"), "").expect("it is writable");
        let mut problems = Vec::new();
        let text = "[a](../here.md#x) [b](../gone.md) [c](https://example.org/x) [d](#top)";
        check_links(directory.path(), "docs/page.md", text, &mut problems);
        assert_eq!(problems, ["docs/page.md:1: the link ../gone.md leads nowhere"]);
    }
}
