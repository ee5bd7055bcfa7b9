//! Comparison of two configurations.

use serde::Serialize;
use serde_json::Value;

use super::{
    Config,
    resolve::{names_secret, redact},
    tree::{Entry, Node, Yaml},
};

/// Section that modules are told of.
const PROVIDERS: &str = "providers";

/// A key whose value differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Dotted key.
    pub path: String,
    /// Value in the old configuration; `None` if it was not given. References are shown as written,
    /// values that look like secrets as `[redacted]`.
    pub before: Option<Value>,
    /// Value in the new configuration; `None` if it is not given.
    pub after: Option<Value>,
}

/// Returns every key that differs, in the order of the new file, then the removed ones.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(Some(&old.tree), Some(&new.tree), "", false, &mut changes);
    changes
}

/// Returns whether a setting, given by its dotted key, is only read when the daemon starts.
#[must_use]
pub fn needs_a_restart(path: &str) -> bool {
    !matches!(path.split('.').next(), Some("modules" | "log" | PROVIDERS))
}

/// Returns whether a setting, given by its dotted key, is told to a module when that starts or is
/// reloaded.
#[must_use]
pub fn needs_reloads(path: &str) -> bool {
    path.split('.').next() == Some(PROVIDERS)
}

/// Returns the modules whose sections differ, including added and removed ones.
#[must_use]
pub fn changed_modules(old: &Config, new: &Config) -> Vec<String> {
    let modules = |config: &Config| config.tree.get("modules").map(|entry| entry.node.clone());
    let (old, new) = (modules(old), modules(new));
    changed_names(entries(old.as_ref()), entries(new.as_ref()))
}

/// Returns the top-level sections that differ.
#[must_use]
pub fn changed_sections(old: &Config, new: &Config) -> Vec<String> {
    let mut names = changed_names(entries(Some(&old.tree)), entries(Some(&new.tree)));
    // One without anything in it says what an absent one says.
    let says = |config: &Config, name: &str| {
        let value = config.tree.get(name).map(|entry| entry.node.to_json());
        value.is_some_and(|it| !it.is_null() && it.as_object().is_none_or(|it| !it.is_empty()))
    };
    names.retain(|name| says(old, name) || says(new, name));
    names
}

fn changed_names(old: &[Entry], new: &[Entry]) -> Vec<String> {
    let value = |entries, name| find(entries, name).map(Node::to_json);
    names(old, new).filter(|name| value(old, name) != value(new, name)).map(str::to_owned).collect()
}

fn entries(node: Option<&Node>) -> &[Entry] {
    node.and_then(Node::entries).unwrap_or_default()
}

fn find<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Node> {
    entries.iter().find(|entry| entry.name == name).map(|entry| &entry.node)
}

/// Returns the names of both lists, in the order of the new one, then the removed ones.
fn names<'a>(old: &'a [Entry], new: &'a [Entry]) -> impl Iterator<Item = &'a str> {
    let gone = old.iter().filter(|entry| find(new, &entry.name).is_none());
    new.iter().chain(gone).map(|entry| entry.name.as_str())
}

fn compare(
    old: Option<&Node>,
    new: Option<&Node>,
    path: &str,
    secret: bool,
    changes: &mut Vec<Change>,
) {
    let is_map = |node: Option<&Node>| matches!(node.map(|node| &node.value), Some(Yaml::Map(_)));
    let (before, after) = (value(old, path), value(new, path));
    // A section that came or went and holds nothing has no keys to show: it is shown itself.
    let empty_came =
        before.is_none() != after.is_none() && entries(old).is_empty() && entries(new).is_empty();
    if (is_map(old) || is_map(new)) && !empty_came {
        for name in names(entries(old), entries(new)) {
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let secret = secret || names_secret(name);
            let (old, new) = (find(entries(old), name), find(entries(new), name));
            compare(old, new, &path, secret, changes);
        }
    } else if before != after {
        let shown = |value: Option<Value>| value.map(|value| redact(&value, secret));
        changes.push(Change { path: path.to_owned(), before: shown(before), after: shown(after) });
    }
}

/// Returns the effective value: a key without a value is not given, a module without a body is.
fn value(node: Option<&Node>, path: &str) -> Option<Value> {
    let is_module = path.strip_prefix("modules.").is_some_and(|name| !name.contains('.'));
    match node?.to_json() {
        Value::Null if is_module => Some(Value::Object(serde_json::Map::new())),
        Value::Null => None,
        value => Some(value),
    }
}
