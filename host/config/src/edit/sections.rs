//! Adding a module's section to the text of the file, and removing it.

use std::{path::Path, str::FromStr as _};

use yaml_edit::YamlFile;

use super::{EditError, Edited, Switch, keeps_comments, line_end, line_of, switched};
use crate::tree::{Entry, Node, Yaml};

/// Adds a disabled section for a module that has none, with `notes` as comments in it.
///
/// # Errors
///
/// Returns an error if the text is not valid YAML, or the section cannot be added without changing
/// another one.
pub fn add_section(text: &str, module: &str, notes: &[String]) -> Result<Edited, EditError> {
    switched(text, &Switch { module, enabled: false, notes })
}

/// Returns the possible ways to add a section to the existing `modules`: after the last section and
/// the comments that are indented deeper than its name, so that these are not taken for comments of
/// the new section later.
pub(super) fn added(text: &str, modules: &Entry, wish: &Switch<'_>) -> Vec<String> {
    let null = matches!(modules.node.value, Yaml::Null);
    let last = modules.node.entries().unwrap_or_default().iter().map(|it| line_of(&it.place)).max();
    let Some(first) = last.unwrap_or_else(|| line_of(&modules.place)).checked_sub(1) else {
        return Vec::new();
    };
    // A `~` goes.
    let value = if null { modules.node.bytes() } else { 0..0 };
    let text = format!("{}{}", &text[..value.start], &text[value.end..]);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let Some(line) = lines.get(first as usize) else { return Vec::new() };
    let indent = depth(line) + if null { 2 } else { 0 };
    let block = Block::of(&lines, first as usize, indent);
    let section = written(wish, indent, line_end(&text));
    // Behind the blank lines where they are part of a text.
    [block.end, block.end + block.blank].map(|at| inserted(&lines, at, &section)).into()
}

/// Appends `modules` with the section at the end of a text without `modules`.
pub(super) fn at_the_end(text: &str, wish: &Switch<'_>) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let end = line_end(text);
    let section = format!("modules:{end}{}", written(wish, 2, end));
    inserted(&lines, lines.len(), &section)
}

fn written(wish: &Switch<'_>, indent: usize, end: &str) -> String {
    let Switch { module, enabled, notes } = wish;
    let (outer, inner) = (" ".repeat(indent), " ".repeat(indent + 2));
    let mut text = format!("{outer}{module}:{end}{inner}enabled: {enabled}{end}");
    for note in *notes {
        text.push_str(format!("{inner}# {note}").trim_end());
        text.push_str(end);
    }
    text
}

/// Returns the lines with a section inserted before line `at`. A text without a final line break
/// stays without one.
fn inserted(lines: &[&str], at: usize, section: &str) -> String {
    let (before, after) = lines.split_at(at);
    let (before, after) = (before.concat(), after.concat());
    if before.is_empty() || before.ends_with('\n') {
        return format!("{before}{section}{after}");
    }
    let end = line_end(section);
    format!("{before}{end}{}", section.strip_suffix(end).unwrap_or(section))
}

/// The lines of a section from its name on.
struct Block {
    /// The line after the section's last one.
    end: usize,
    /// Number of blank lines from there on; they belong to the text that follows.
    blank: usize,
}

impl Block {
    /// Finds the end of the section whose name is in line `first`: lines indented deeper than the
    /// name belong to it, and so do the comments between them.
    fn of(lines: &[&str], first: usize, indent: usize) -> Self {
        let is_comment = |line: &str| line.trim_start().starts_with('#');
        let deeper = |line: &str| line.trim().is_empty() || depth(line) > indent;
        let rest = lines.get(first + 1..).unwrap_or_default();
        let within = rest.iter().take_while(|line| deeper(line) || is_comment(line)).count();
        let content =
            rest[..within].iter().rposition(|line| !line.trim().is_empty() && !is_comment(line));
        let from = content.map_or(0, |last| last + 1);
        let below = from + rest[from..].iter().take_while(|line| deeper(line)).count();
        let is_blank = |line: &&&str| line.trim().is_empty();
        let blank = rest[..below].iter().rev().take_while(is_blank).count();
        Self { end: first + 1 + below - blank, blank }
    }
}

fn depth(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Removes the section of a module with the comments in it; those around it stay. Returns the new
/// text and the line where the section began; `None` if there was none.
///
/// # Errors
///
/// Returns an error if the text is not valid YAML, or the section cannot be removed without
/// changing something else.
pub fn remove_section(text: &str, module: &str) -> Result<Option<(String, u32)>, EditError> {
    let file = Path::new("modules.yaml");
    let invalid = |error| EditError::Invalid(Box::new(error));
    let old = Node::parse(text, file).map_err(invalid)?;
    let Some(entry) = old.get("modules").and_then(|modules| modules.node.get(module)) else {
        return Ok(None);
    };
    let line = line_of(&entry.place);
    let (wanted, empty) = (without(&old, module, false), without(&old, module, true));
    let fits = |proposal: &String| {
        Node::parse(proposal, file).is_ok_and(|new| new.same(&wanted) || new.same(&empty))
    };
    let by_tree = || in_tree(text, module).filter(|new| keeps_comments(text, new));
    by_lines(text, entry)
        .into_iter()
        .chain(in_braces(text, module))
        .find(&fits)
        .or_else(|| by_tree().filter(&fits))
        .map(|text| Some((text, line)))
        .ok_or_else(|| EditError::Section { module: module.to_owned(), line })
}

/// Returns the tree without the module. With `none`, a map that loses its last key becomes null.
fn without(old: &Node, module: &str, none: bool) -> Node {
    let mut wanted = old.clone();
    let Yaml::Map(sections) = &mut wanted.value else { return wanted };
    for section in sections.iter_mut().filter(|section| section.name == "modules") {
        if let Yaml::Map(modules) = &mut section.node.value {
            modules.retain(|entry| entry.name != module);
            if modules.is_empty() && none {
                section.node.value = Yaml::Null;
            }
        }
    }
    wanted
}

/// Removes a section in the usual layout: its key begins a line, and deeper lines belong to it.
fn by_lines(text: &str, entry: &Entry) -> Option<String> {
    let first = usize::try_from(line_of(&entry.place)).ok()?.checked_sub(1)?;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let block = Block::of(&lines, first, depth(lines.get(first)?));
    let (before, after) = (lines[..first].concat(), lines[block.end..].concat());
    if after.is_empty() && !text.ends_with('\n') {
        let end = line_end(text);
        return Some(before.strip_suffix(end).unwrap_or(&before).to_owned());
    }
    Some(before + &after)
}

/// Returns the texts without a section between braces, one for each match of a form that an edit
/// writes.
fn in_braces(text: &str, module: &str) -> impl Iterator<Item = String> {
    let forms = [", ", ""].into_iter().flat_map(move |comma| {
        [true, false].map(|enabled| format!("{comma}{module}: {{enabled: {enabled}}}"))
    });
    forms.flat_map(|form| {
        let without = |(at, _)| format!("{}{}", &text[..at], &text[at + form.len()..]);
        text.match_indices(&form).map(without).collect::<Vec<_>>()
    })
}

fn in_tree(text: &str, module: &str) -> Option<String> {
    let file = YamlFile::from_str(text).ok()?;
    let root = file.document()?.as_mapping()?;
    root.get_mapping("modules")?.remove(module)?;
    Some(file.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_a_section_with_its_notes() {
        let notes = ["it does things".to_owned(), "x: 1".to_owned(), String::new()];
        let check = |text: &str, expected: &str| {
            let edited = add_section(text, "a", &notes).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(edited.text, expected, "{text:?}");
        };
        check(
            "modules:\n  b: {} # b\n\n# tail\nbus: {}\n",
            concat!(
                "modules:\n  b: {} # b\n  a:\n    enabled: false\n    # it does things\n",
                "    # x: 1\n    #\n\n# tail\nbus: {}\n",
            ),
        );
        check(
            "modules:\r\n  b: {}\r\n",
            "modules:\r\n  b: {}\r\n  a:\r\n    enabled: false\r\n    # it does things\r\n    \
             # x: 1\r\n    #\r\n",
        );
        check("modules: {b: {}}\n", "modules: {b: {}, a: {enabled: false}}\n");
        check("", "modules:\n  a:\n    enabled: false\n    # it does things\n    # x: 1\n    #\n");
    }

    #[test]
    fn takes_a_section_out() {
        let check = |text: &str, expected: &str| {
            let removed = remove_section(text, "a").unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(removed.expect("it has one").0, expected, "{text:?}");
        };
        check(
            concat!(
                "modules:\n  # before\n  a: # own\n    enabled: true\n    # own\n",
                "    x:\n      - 1\n\n  # next\n  b: {}\n",
            ),
            "modules:\n  # before\n\n  # next\n  b: {}\n",
        );
        check(
            "modules:\n  b: {}\n  a:\n    t: |\n      # no comment\n\n      x\n# tail\n",
            "modules:\n  b: {}\n# tail\n",
        );
        check("modules:\n  a:\nbus: {}\n", "modules:\nbus: {}\n");
        check("modules:\n  a: {x: 1}", "modules:");
        check("modules:\r\n  a:\r\n    x: 1\r\n  b: {}\r\n", "modules:\r\n  b: {}\r\n");
        check("modules: {a: {x: 1}, b: {}}\n", "modules: {b: {}}\n");
        assert_eq!(remove_section("modules:\n  b: {}\n", "a"), Ok(None));
        assert_eq!(remove_section("", "a"), Ok(None));
    }

    #[test]
    fn what_hangs_on_a_section_keeps_its_value() {
        let text = "modules:\n  a: &x\n    y: 1\n  b: *x\n";
        let removed = remove_section(text, "a").expect("it is valid").expect("it is there");
        assert_eq!(removed, ("modules:\n  b: &x\n    y: 1\n".to_owned(), 2));
        assert!(remove_section("modules: [", "a").is_err());
        let error = EditError::Section { module: "a".to_owned(), line: 2 }.to_string();
        assert!(error.contains("see line 2") && error.contains("by hand"), "{error}");
    }
}
