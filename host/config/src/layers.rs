//! Layers above and below the file: environment, command line, and a module's defaults.

use std::{path::Path, sync::Arc};

use super::{
    error::ConfigError,
    references::Environment,
    tree::{Entry, Node, SourceLocation, Yaml},
};

/// The top-level sections of the file.
pub const SECTIONS: [&str; 7] =
    ["modules", "providers", "bus", "control", "metrics", "log", "privacy"];

/// Layers above the file: variables `LODESTAR_<MODULE>__<KEY>`, and above them
/// `--set MODULE.KEY=VALUE`.
///
/// Deeper keys take a further `__` or `.`: `LODESTAR_INGEST__RATE_LIMIT__BURST=5` is
/// `--set ingest.rate_limit.burst=5`. The first part may be a section of the daemon instead of a
/// module: `LODESTAR_LOG__LEVEL=debug`. Values are read as YAML; an empty one removes the key.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The environment, also for `${NAME}` and `~`.
    pub environment: Environment,
    /// `--set` options of the command line: dotted key, value.
    pub settings: Vec<(String, String)>,
}

impl Layers {
    /// Applies the layers to the tree of a file.
    pub(super) fn apply(&self, root: &mut Node, file: &Path) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (name, value) in self.environment.iter() {
            if let Some(path) = variable_path(name) {
                let layer = format!("environment variable {name}").into();
                overlay(root, &path, scalar(value, &layer), &layer);
            }
        }
        for (key, value) in &self.settings {
            let layer = format!("--set {key}").into();
            let path = full_path(key.split('.').map(str::to_owned).collect());
            if path.len() < 2 || path.iter().any(String::is_empty) {
                let hint = "write --set MODULE.KEY=VALUE";
                errors.push(SourceLocation::Layer(layer).error(
                    file,
                    "",
                    "names no key of a module",
                    hint,
                ));
            } else {
                overlay(root, &path, scalar(value, &layer), &layer);
            }
        }
        errors
    }
}

/// Merges a map into another: maps are merged, anything else replaces the value below, and a null
/// removes it.
pub(super) fn merge(base: &mut Vec<Entry>, over: &[Entry]) {
    for entry in over {
        let below = base.iter_mut().find(|below| below.name == entry.name);
        match (below, &entry.node.value) {
            (_, Yaml::Null) => base.retain(|below| below.name != entry.name),
            (Some(below), Yaml::Map(inner)) => match &mut below.node.value {
                Yaml::Map(base) => merge(base, inner),
                _ => *below = entry.clone(),
            },
            (Some(below), _) => *below = entry.clone(),
            (None, _) => base.push(entry.clone()),
        }
    }
}

/// Returns the path of the setting that a variable sets: `LODESTAR_USAGE_TRACKER__RETENTION_DAYS`
/// is `modules.usage_tracker.retention_days`. Variables without `__` (`LODESTAR_CONFIG`) are the
/// daemon's arguments and no settings.
fn variable_path(name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix("LODESTAR_")?.to_ascii_lowercase();
    let path: Vec<String> = rest.split("__").map(str::to_owned).collect();
    let complete = path.len() >= 2 && path.iter().all(|part| !part.is_empty());
    complete.then(|| full_path(path))
}

fn full_path(mut path: Vec<String>) -> Vec<String> {
    if path.len() >= 2 && !SECTIONS.contains(&path[0].as_str()) {
        path.insert(0, "modules".to_owned());
    }
    path
}

pub(super) fn overlay(root: &mut Node, path: &[String], value: Yaml, layer: &Arc<str>) {
    let Some((name, deeper)) = path.split_first() else {
        *root = Node::layered(value, layer);
        return;
    };
    if !matches!(root.value, Yaml::Map(_)) {
        *root = Node::layered(Yaml::Map(Vec::new()), layer);
    }
    let Yaml::Map(entries) = &mut root.value else { return };
    let index = entries.iter().position(|entry| entry.name == *name).unwrap_or_else(|| {
        let node = Node::layered(Yaml::Null, layer);
        entries.push(Entry { name: name.clone(), place: node.place.clone(), node });
        entries.len() - 1
    });
    overlay(&mut entries[index].node, deeper, value, layer);
}

/// Parses a value of a layer as YAML. A map without braces (`a: b`) or invalid YAML is a text.
fn scalar(text: &str, layer: &Arc<str>) -> Yaml {
    match Node::parse(text, Path::new("")) {
        Ok(mut node) if text.starts_with(['{', '[']) || !is_collection(&node) => {
            node.place_all(layer);
            node.value
        }
        _ => Yaml::String(text.to_owned()),
    }
}

const fn is_collection(node: &Node) -> bool {
    matches!(node.value, Yaml::Map(_) | Yaml::List(_))
}
