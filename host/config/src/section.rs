//! A module's section: the daemon's keys, typed, and the module's own, raw.

use std::{collections::BTreeMap, path::PathBuf};

use module_sdk::manifest::Control;
use serde_json::{Map, Value};

use super::{
    fields::{Fields, Problems},
    references::{self, Reference},
    tree::{Entry, SourceLocation, json_map},
};

/// The keys of a section that the daemon reads itself; every other key belongs to the module.
pub const HOST_KEYS: [&str; 9] = [
    "enabled",
    "isolation",
    "limits",
    "restart",
    "unload",
    "path",
    "secrets",
    "provider_keys",
    "control",
];

/// The section of one module.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleSection {
    /// Name of the module.
    pub name: String,
    /// `true` if the module is to run. A section without the key is enabled.
    pub enabled: bool,
    /// Isolation of the module; `None` for the daemon's default for the module.
    pub isolation: Option<Isolation>,
    /// Resource limits.
    pub limits: Limits,
    /// Limits of automatic restarts.
    pub restart: Restart,
    /// `true` if an old library is unmapped after a reload. Default false.
    pub unload: bool,
    /// Directory of the module, if it is not on the module path. May begin with `~/`, see
    /// [`expand_path`](super::expand_path).
    pub path: Option<PathBuf>,
    /// References to the module's secrets, by name.
    pub secrets: BTreeMap<String, Reference>,
    /// `true` if the module gets the keys of the providers, if its manifest asks for them; `None`
    /// lets the origin of the module decide.
    pub provider_keys: Option<bool>,
    /// Permission of an installed module to change the daemon, if its manifest asks for it.
    pub control: Option<Control>,
    /// The module's own keys as written in the section, with references unresolved and without the
    /// defaults of the module: see [`Config::effective`](super::Config::effective).
    pub settings: Settings,
}

/// Keys of a module as JSON. `Debug` shows the names only, since a value may be a secret.
#[derive(Clone, Default, PartialEq)]
pub struct Settings(pub Map<String, Value>);

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The place where a module runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The process of the daemon.
    InProcess,
    /// A separate process.
    Process,
}

impl Isolation {
    /// Returns the value's name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "in_process",
            Self::Process => "process",
        }
    }
}

/// Resource limits of a module; `None` for no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory of the module's process: 8 MiB to 1 TiB.
    pub memory_bytes: Option<u64>,
    /// Processor time in percent of one processor: 1 to 102,400.
    pub cpu_percent: Option<u64>,
    /// Threads and processes of the module's process and of all that it starts: 8 to 1,000,000.
    pub tasks: Option<u64>,
    /// Size of the module's data directory: 1 MiB to 1 PiB.
    pub data_bytes: Option<u64>,
    /// Log records and printed lines per second: 1 to 1,000,000.
    pub log_records_per_second: Option<u64>,
    /// Maximum duration of a call of a handler in milliseconds: 10 to 3,600,000.
    pub call_deadline_ms: Option<u64>,
}

/// Limits of the automatic restarts of a failed module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// Restarts within 60 s before the module is quarantined: 0 to 1,000,000, default 5.
    pub limit: u64,
    /// Maximum pause between two restarts in milliseconds: 1 to 3,600,000, default 60,000.
    pub backoff_max_ms: u64,
}

impl ModuleSection {
    /// Reads a section. `None` if only layers above the file set keys of the module and none of
    /// them enables it: a stray variable must not start a module.
    pub(super) fn read(entry: &Entry, problems: &mut Problems<'_>) -> Option<Self> {
        let key = format!("modules.{}", entry.name);
        let mut fields = Fields::of(&entry.node, &key, problems);
        let in_file = matches!(entry.place, SourceLocation::File { .. });
        let enabled = fields.boolean("enabled", problems);
        if !in_file && enabled.is_none() {
            return None;
        }
        let words = [Isolation::InProcess, Isolation::Process].map(|word| (word.as_str(), word));
        Some(Self {
            name: entry.name.clone(),
            enabled: enabled.unwrap_or(true),
            isolation: fields.word("isolation", &words, problems),
            limits: Limits::read(fields.below("limits", problems), problems),
            restart: Restart::read(fields.below("restart", problems), problems),
            unload: fields.boolean("unload", problems).unwrap_or(false),
            path: fields.parsed("path", problems, references::path),
            secrets: read_secrets(&fields.below("secrets", problems), problems),
            provider_keys: fields.boolean("provider_keys", problems),
            control: fields.word("control", &[("operate", Control::Operate)], problems),
            settings: Settings(json_map(own_entries(fields.named()))),
        })
    }
}

/// Returns the entries that belong to the module.
pub(super) fn own_entries(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(|entry| !HOST_KEYS.contains(&entry.name.as_str()))
}

/// Returns whether a text can be the key of a section. The manifest has stricter rules for names: a
/// section whose module does not exist is no error of the file.
pub fn valid_section_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

impl Limits {
    fn read(mut fields: Fields<'_>, problems: &mut Problems<'_>) -> Self {
        let limits = Self {
            memory_bytes: fields.number("memory_bytes", 8 << 20..=1 << 40, problems),
            cpu_percent: fields.number("cpu_percent", 1..=102_400, problems),
            tasks: fields.number("tasks", 8..=1_000_000, problems),
            data_bytes: fields.number("data_bytes", 1 << 20..=1 << 50, problems),
            log_records_per_second: fields.number(
                "log_records_per_second",
                1..=1_000_000,
                problems,
            ),
            call_deadline_ms: fields.number("call_deadline_ms", 10..=3_600_000, problems),
        };
        fields.finish(problems);
        limits
    }
}

impl Restart {
    fn read(mut fields: Fields<'_>, problems: &mut Problems<'_>) -> Self {
        let backoff_max_ms = fields.number("backoff_max_ms", 1..=3_600_000, problems);
        let restart = Self {
            limit: fields.number("limit", 0..=1_000_000, problems).unwrap_or(5),
            backoff_max_ms: backoff_max_ms.unwrap_or(60_000),
        };
        fields.finish(problems);
        restart
    }
}

fn read_secrets(fields: &Fields<'_>, problems: &mut Problems<'_>) -> BTreeMap<String, Reference> {
    let mut secrets = BTreeMap::new();
    for entry in fields.named() {
        match entry.node.text().map(Reference::parse) {
            Some(Ok(reference)) => {
                secrets.insert(entry.name.clone(), reference);
            }
            Some(Err(error)) => {
                let key = fields.join(&entry.name);
                problems.add(&entry.node.place, &key, error.to_string(), "");
            }
            None => {
                let message = format!(
                    "must be a reference, `${{NAME}}` or `file:/path`, but is {}",
                    entry.node.kind()
                );
                problems.add(&entry.node.place, &fields.join(&entry.name), message, "");
            }
        }
    }
    secrets
}
