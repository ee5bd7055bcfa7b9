//! Enabling and disabling a module in the text of the file, without any other change.
//!
//! An edit is proposed first and checked afterwards. The texts before and after are both parsed,
//! and the edit is refused unless the requested key is the only value that differs and no comment
//! is lost.

mod sections;

use std::{fmt, path::Path, str::FromStr as _};

use yaml_edit::{YamlBuilder, YamlFile};

pub use sections::{add_section, remove_section};

use super::{
    error::ConfigError,
    layers::overlay,
    section::valid_section_name,
    tree::{Node, SourceLocation, Yaml},
};

/// A text with `modules.<name>.enabled` set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The new text; equal to the old one if the value was already set.
    pub text: String,
    /// The line of the key, from 1.
    pub line: u32,
    /// Value before the edit; `None` if it was not given.
    pub before: Option<bool>,
    /// Value after the edit.
    pub after: bool,
}

/// Reason for not editing a text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EditError {
    /// The text is not valid, so that the effect of an edit cannot be checked.
    Invalid(Box<ConfigError>),
    /// The name is not a valid name of a module.
    Name(String),
    /// The value cannot be changed in place without changing something else.
    Entangled {
        /// The module.
        module: String,
        /// The line of its section, 0 if there is none.
        line: u32,
        /// Requested value.
        enabled: bool,
    },
    /// The section cannot be removed without changing something else.
    Section {
        /// The module.
        module: String,
        /// The line of its section.
        line: u32,
    },
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => write!(f, "the file cannot be edited: {error}"),
            Self::Name(name) => write!(
                f,
                "{name:?} is no name of a module: names are 1 to 32 of a-z, 0-9 and _, beginning \
                 with a letter"
            ),
            Self::Entangled { module, line, enabled } => {
                f.write_str("the file cannot be edited without changing other keys or comments ")?;
                if *line > 0 {
                    write!(f, "(see line {line}) ")?;
                }
                write!(
                    f,
                    "by way of an anchor, an alias or its layout; write `enabled: {enabled}` into \
                     modules.{module} by hand"
                )
            }
            Self::Section { module, line } => write!(
                f,
                "modules.{module} (see line {line}) cannot be taken out of the file without \
                 changing other keys or comments; delete it by hand"
            ),
        }
    }
}

impl std::error::Error for EditError {}

/// Sets `modules.<module>.enabled` in a text, keeping every comment, the order of keys, quotes and
/// line endings. A missing section is added below the last one and its comments.
///
/// # Errors
///
/// Returns an error if the text is not valid YAML, or the key cannot be set without changing
/// another one.
pub fn set_enabled(text: &str, module: &str, enabled: bool) -> Result<Edited, EditError> {
    switched(text, &Switch { module, enabled, notes: &[] })
}

/// Requested edit of a text.
struct Switch<'a> {
    module: &'a str,
    enabled: bool,
    /// Comments for a new section.
    notes: &'a [String],
}

fn switched(text: &str, wish: &Switch<'_>) -> Result<Edited, EditError> {
    let Switch { module, enabled, .. } = *wish;
    if !valid_section_name(module) {
        return Err(EditError::Name(module.to_owned()));
    }
    let file = Path::new("modules.yaml");
    let invalid = |error| EditError::Invalid(Box::new(error));
    let old = Node::parse(text, file).map_err(invalid)?;
    expect_maps(&old, module, file).map_err(invalid)?;
    let before = switch(&old, module);
    if let Some((value, line)) = before
        && value == enabled
    {
        return Ok(Edited { text: text.to_owned(), line, before: Some(value), after: enabled });
    }
    let mut wanted = old.clone();
    let path = ["modules", module, "enabled"].map(str::to_owned);
    overlay(&mut wanted, &path, Yaml::Bool(enabled), &"".into());
    let judge = |proposal: String| {
        let new = Node::parse(&proposal, file).ok()?;
        let (_, line) = switch(&new, module)?;
        let fits = new.same(&wanted) && keeps_comments(text, &proposal);
        let before = before.map(|(value, _)| value);
        fits.then_some(Edited { text: proposal, line, before, after: enabled })
    };
    proposals(text, &old, wish).find_map(judge).ok_or_else(|| {
        let section = old.get("modules").and_then(|modules| modules.node.get(module));
        let line = section.map_or(0, |section| line_of(&section.place));
        EditError::Entangled { module: module.to_owned(), line, enabled }
    })
}

/// Checks that every level above the key is a map or missing.
fn expect_maps(root: &Node, module: &str, file: &Path) -> Result<(), ConfigError> {
    let (mut node, mut key) = (root, String::new());
    for name in [Some("modules"), Some(module), None] {
        if node.entries().is_none() {
            let message = format!("must be a map of keys, but is {}", node.kind());
            return Err(node.place.error(file, key, message, ""));
        }
        let Some(entry) = name.and_then(|name| node.get(name)) else { break };
        key = if key.is_empty() { entry.name.clone() } else { format!("{key}.{}", entry.name) };
        node = &entry.node;
    }
    Ok(())
}

/// Returns the possible ways to write the edit, the most natural first.
fn proposals(text: &str, old: &Node, wish: &Switch<'_>) -> impl Iterator<Item = String> {
    let modules = old.get("modules");
    let empty = modules.is_some_and(|entry| matches!(entry.node.value, Yaml::Null));
    let by_lines = match modules {
        Some(entry) if entry.node.get(wish.module).is_some() => Vec::new(),
        Some(entry) => sections::added(text, entry, wish),
        None => vec![sections::at_the_end(text, wish)],
    };
    let in_tree = (!empty).then(|| set_in_tree(text, wish.module, wish.enabled)).flatten();
    by_lines.into_iter().chain(in_tree)
}

/// Sets the key in the syntax tree, which handles existing sections and maps in braces.
fn set_in_tree(text: &str, module: &str, enabled: bool) -> Option<String> {
    let file = YamlFile::from_str(text).ok()?;
    let root = file.document()?.as_mapping()?;
    let fresh = YamlBuilder::mapping().pair("enabled", enabled).build_document().as_mapping()?;
    match root.get_mapping("modules") {
        Some(modules) => match modules.get_mapping(module) {
            Some(section) => section.set("enabled", enabled),
            None => modules.set(module, fresh),
        },
        None => {
            let section = YamlBuilder::mapping().build_document().as_mapping()?;
            section.set(module, fresh);
            root.set("modules", section);
        }
    }
    Some(file.to_string())
}

fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Returns the value and line of `enabled`.
fn switch(root: &Node, module: &str) -> Option<(bool, u32)> {
    let entry = root.get("modules")?.node.get(module)?.node.get("enabled")?;
    match entry.node.value {
        Yaml::Bool(value) => Some((value, line_of(&entry.place))),
        _ => None,
    }
}

const fn line_of(place: &SourceLocation) -> u32 {
    match place {
        SourceLocation::File { line, .. } => *line,
        SourceLocation::Layer(_) => 0,
    }
}

/// Returns whether the new text has every comment of the old one: the removed stretch of text holds
/// none, or each line's comment still ends a line, in the same order.
fn keeps_comments(old: &str, new: &str) -> bool {
    let mut lines = new.lines();
    removed(old, new).iter().all(|byte| !matches!(byte, b'#' | b'\n'))
        || old
            .lines()
            .filter_map(|line| line.rfind('#').map(|start| &line[start..]))
            .all(|comment| lines.any(|line| line.ends_with(comment)))
}

/// Returns the bytes of the old text between the common prefix and the common suffix.
fn removed<'a>(old: &'a str, new: &str) -> &'a [u8] {
    let prefix = old.bytes().zip(new.bytes()).take_while(|(one, two)| one == two).count();
    let (old, new) = (&old.as_bytes()[prefix..], &new.as_bytes()[prefix..]);
    let pairs = old.iter().rev().zip(new.iter().rev());
    let suffix = pairs.take_while(|(one, two)| one == two).count();
    &old[..old.len() - suffix]
}

#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod tests;
