//! Adding a module's section to the text of the file, and taking it out again.

use std::{path::Path, str::FromStr as _};

use yaml_edit::YamlFile;

use super::{EditError, Edited, keeps_comments, line_end, line_of, set_enabled};
use crate::config::tree::{Entry, Node, Yaml};

/// Adds a disabled section for a module that has none, with these lines as comments in it.
///
/// # Errors
///
/// When the text is not valid YAML, or the section cannot be added without changing another one.
pub fn add_section(text: &str, module: &str, notes: &[String]) -> Result<Edited, EditError> {
    let edited = set_enabled(text, module, false)?;
    Ok(with_notes(&edited, notes).unwrap_or(edited))
}

/// Comments below the switch; `None` where the section has no lines of its own.
fn with_notes(edited: &Edited, notes: &[String]) -> Option<Edited> {
    let mut lines: Vec<&str> = edited.text.split_inclusive('\n').collect();
    let at = usize::try_from(edited.line).ok()?;
    let switch = *lines.get(at.checked_sub(1)?)?;
    let indent = &switch[..switch.len() - switch.trim_start().len()];
    if !switch.trim_start().starts_with("enabled:") {
        return None;
    }
    let end = line_end(&edited.text);
    let gap = if switch.ends_with('\n') { "" } else { end };
    let notes: String = notes
        .iter()
        .map(|note| format!("{}{end}", format!("{indent}# {note}").trim_end()))
        .collect();
    let notes = format!("{gap}{notes}");
    lines.insert(at, &notes);
    let text = lines.concat();
    let file = Path::new("modules.yaml");
    let same = Node::parse(&text, file).ok()?.same(&Node::parse(&edited.text, file).ok()?);
    same.then_some(Edited { text, ..edited.clone() })
}

/// Takes the section of a module out, with the comments in it; those around it stay. Answers the
/// new text and the line where the section stood; `None` where there was none.
///
/// # Errors
///
/// When the text is not valid YAML, or something else hangs on the section.
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
        .filter(&fits)
        .or_else(|| by_tree().filter(&fits))
        .map(|text| Some((text, line)))
        .ok_or_else(|| EditError::Section { module: module.to_owned(), line })
}

/// The tree that is wanted. A map that loses its last key may be written as none at all.
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

/// The usual layout: the section's key begins a line, and what is deeper belongs to it.
fn by_lines(text: &str, entry: &Entry) -> Option<String> {
    let first = usize::try_from(line_of(&entry.place)).ok()?.checked_sub(1)?;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    let own = depth(lines.get(first)?);
    let below = lines[first + 1..]
        .iter()
        .take_while(|line| line.trim().is_empty() || depth(line) > own)
        .count();
    // Blank lines at the end belong to what follows.
    let block = &lines[first + 1..=first + below];
    let blank = block.iter().rev().take_while(|line| line.trim().is_empty()).count();
    let mut kept = lines.clone();
    kept.drain(first..=first + below - blank);
    Some(kept.concat())
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
        check("modules:\n  a: {x: 1}", "modules:\n");
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

    #[test]
    fn what_was_added_is_taken_out_again() {
        let notes = ["it does things".to_owned()];
        for text in ["modules:\n  b: {} # b\n\n# tail\nbus: {}\n", "# head\nmodules:\n"] {
            let added = add_section(text, "a", &notes).expect("it is valid").text;
            let removed = remove_section(&added, "a").expect("it is valid").expect("it is there");
            assert_eq!(removed.0, text);
        }
    }
}
