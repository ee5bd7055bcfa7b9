//! `modules.yaml`: read with positions, layered, checked, compared and edited.
//!
//! [`Config::load`] reads the file and everything in it that the daemon owns. A module's own keys
//! stay raw until the supervisor asks for [`Config::effective`] (what `config show` prints, with
//! references) and [`Config::resolve`] (what the module gets).

mod address;
mod diff;
mod edit;
mod error;
mod fields;
mod file;
mod layers;
mod origins;
mod references;
mod report;
pub mod reserved_names;
mod resolve;
mod schema;
mod section;
mod settings;
mod shared_addresses;
mod tree;
mod whole;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use self::{address::given_address, resolve::names_secret, section::valid_section_name};
pub use self::{
    diff::{Change, changed_modules, changed_sections, diff, needs_a_restart, needs_reloads},
    edit::{EditError, Edited, add_section, remove_section, set_enabled},
    error::{ConfigError, ConfigErrors, ReferenceError, nearest},
    file::{WriteError, expect_ours, write_atomically, write_default},
    layers::{Layers, SECTIONS},
    origins::Origins,
    references::{Environment, Fetched, Reference, Secret, expand_path},
    resolve::{Resolved, literal_secrets, open_to_others, redacted},
    section::{HOST_KEYS, Isolation, Limits, ModuleSection, Restart, Settings},
    settings::{
        Bus, Control, Durability, Ledger, Log, LogFormat, LogLevel, Metrics, Privacy,
        ProviderSection,
    },
    shared_addresses::Wanted,
};
use self::{
    fields::{Fields, Problems},
    layers::merge,
    section::own_entries,
    tree::{Entry, Node, SourceLocation, Yaml, json_map},
};

/// The shipped configuration, which is also written at a first start.
pub const DEFAULT: &str = include_str!("../../../config/modules.yaml");

/// A configuration: a file with the layers above it.
#[derive(Clone)]
pub struct Config {
    /// Path of the file.
    pub path: PathBuf,
    /// Text of the file.
    pub text: String,
    /// `modules`, in the order of the file.
    pub modules: Vec<ModuleSection>,
    /// `providers`, in the order of the file.
    pub providers: Vec<ProviderSection>,
    /// The section `bus`.
    pub bus: Bus,
    /// The section `control`.
    pub control: Control,
    /// The section `metrics`.
    pub metrics: Metrics,
    /// The section `log`.
    pub log: Log,
    /// The section `privacy`.
    pub privacy: Privacy,
    /// Settings that are written with a former name.
    pub outdated: Vec<ConfigError>,
    tree: Node,
}

impl Config {
    /// Reads a file. `layers` are applied to it; use `Layers::default()` for the file alone.
    ///
    /// # Errors
    ///
    /// Returns the errors in the file, see [`Config::parse`], or that the file cannot be read.
    pub fn load(path: &Path, layers: &Layers) -> Result<Self, ConfigErrors> {
        Self::parse(&file::read(path)?, path, layers)
    }

    /// Reads a text; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not YAML or is empty, or else one for every key of the
    /// daemon that is unknown or has an invalid value. Modules check their own keys.
    pub fn parse(text: &str, path: &Path, layers: &Layers) -> Result<Self, ConfigErrors> {
        let mut tree = Node::parse(text, path)?;
        if tree.entries().is_none() {
            let message = format!("the file must be a map of sections, but is {}", tree.kind());
            let hint = "it begins with `modules:`";
            return Err(tree.place.error(path, "", message, hint).into());
        }
        if matches!(tree.value, Yaml::Null) {
            // What a save on a full disk leaves must not stop every module.
            let message = "holds nothing";
            let hint = "restore it from a copy; to run no module, write `modules: {}`";
            return Err(ConfigError::of_file(path, message, hint).into());
        }
        let mut problems = Problems::new(path);
        problems.errors = layers.apply(&mut tree, path);
        let mut top = Fields::of(&tree, "", &mut problems);
        let modules = read_modules(&top.below("modules", &mut problems), &mut problems);
        let providers = top.below("providers", &mut problems);
        let providers = ProviderSection::read_all(&providers, &mut problems);
        let bus = Bus::read(top.below("bus", &mut problems), &mut problems);
        let control = Control::read(top.below("control", &mut problems), &mut problems);
        let metrics = Metrics::read(top.below("metrics", &mut problems), &mut problems);
        let log = Log::read(top.below("log", &mut problems), &mut problems);
        let privacy = Privacy::read(top.below("privacy", &mut problems), &mut problems);
        top.finish(&mut problems);
        ConfigErrors::or(problems.errors, ())?;
        let outdated = problems.warnings;
        let (path, text) = (path.to_owned(), text.to_owned());
        Ok(Self {
            path,
            text,
            modules,
            providers,
            bus,
            control,
            metrics,
            log,
            privacy,
            outdated,
            tree,
        })
    }

    /// Logs the settings that are written with a former name.
    pub fn tell_outdated(&self) {
        for warning in &self.outdated {
            tracing::warn!(%warning, "the configuration uses a former name");
        }
    }

    /// Returns the section of a module.
    #[must_use]
    pub fn module(&self, name: &str) -> Option<&ModuleSection> {
        self.modules.iter().find(|module| module.name == name)
    }

    /// Returns a module's own settings with references unresolved: its `config.yaml` (`defaults`,
    /// given as text) below the file and the layers above it. Maps are merged key by key; a key
    /// without a value (`database:`) counts as not given, in any layer.
    ///
    /// # Errors
    ///
    /// Returns an error if `defaults` is not a YAML map, or refers to the environment or to files.
    pub fn effective(
        &self,
        module: &str,
        defaults: Option<&str>,
    ) -> Result<Map<String, Value>, ConfigErrors> {
        let mut entries = match defaults {
            Some(text) => default_entries(text, module)?,
            None => Vec::new(),
        };
        if let Some(section) = self.section(module) {
            merge(&mut entries, section.node.entries().unwrap_or_default());
        }
        Ok(json_map(own_entries(&entries)))
    }

    fn section(&self, module: &str) -> Option<&Entry> {
        self.tree.get("modules")?.node.get(module)
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the text: it may hold secrets.
        let names = self.modules.iter().map(|module| (&module.name, module.enabled));
        f.debug_struct("Config")
            .field("path", &self.path)
            .field("modules", &names.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn read_modules(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Vec<ModuleSection> {
    let mut modules = Vec::new();
    for entry in fields.named() {
        if valid_section_name(&entry.name) {
            modules.extend(ModuleSection::read(entry, problems));
        } else {
            let message = "is no name of a module";
            let hint = "names are 1 to 32 of a-z, 0-9 and _, beginning with a letter";
            problems.add(&entry.place, &fields.join(&entry.name), message, hint);
        }
    }
    modules
}

/// Checks whether a module's `config.yaml` can be used.
///
/// # Errors
///
/// Returns an error if it is not a YAML map, or refers to the daemon's environment or to a file.
pub fn check_defaults(text: &str, module: &str) -> Result<(), ConfigErrors> {
    default_entries(text, module).map(drop)
}

/// Parses a module's `config.yaml`. References are refused: the author of a module must not decide
/// which of the operator's variables and files it gets.
fn default_entries(text: &str, module: &str) -> Result<Vec<Entry>, ConfigErrors> {
    let file = Path::new(module).join("config.yaml");
    let node = Node::parse(text, &file)?;
    let Some(entries) = node.entries() else {
        let message = format!("must be a map of the module's keys, but is {}", node.kind());
        return Err(node.place.error(&file, "", message, "").into());
    };
    let mut errors = Vec::new();
    find_references(&node, "", &mut |place, key| {
        let message = "a module's own defaults must not refer to the environment or to files";
        let hint = "write `${NAME}` or `file:/path` into the module's section of modules.yaml";
        errors.push(place.error(&file, key, message, hint));
    });
    ConfigErrors::or(errors, entries.to_vec())
}

fn find_references(node: &Node, key: &str, found: &mut impl FnMut(&SourceLocation, &str)) {
    match &node.value {
        Yaml::String(text) if references::looks_up(text) => found(&node.place, key),
        Yaml::List(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                find_references(node, &format!("{key}[{index}]"), found);
            }
        }
        Yaml::Map(entries) => {
            for Entry { name, node, .. } in entries {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                find_references(node, &key, found);
            }
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::String(_) => {}
    }
}

#[cfg(test)]
mod tests;
