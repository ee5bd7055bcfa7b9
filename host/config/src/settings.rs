//! The sections of the configuration that belong to the daemon, typed.

use std::{collections::BTreeMap, path::PathBuf};

use module_sdk::ProviderApi;

use super::{
    address::listen_address,
    error::InvalidValue,
    fields::{Fields, Problems, word},
    references::Reference,
    tree::Entry,
};

/// `bus`: the event bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bus {
    /// The durable store of ledger topics.
    pub ledger: Ledger,
    /// Live events in a module's inbox before the oldest is dropped: 16 to 1,048,576, default
    /// 8,192.
    pub inbox_events: usize,
}

/// `bus.ledger`: retention and durability of ledger events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// Hours that an event waits for a subscriber: 1 to 8,760, default 168.
    pub retention_hours: u64,
    /// Size of the ledger: 1 MiB to 1 TiB, default 1 GiB.
    pub max_bytes: u64,
    /// Durability of accepted events.
    pub durability: Durability,
}

/// Durability of accepted ledger events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Events survive a `kill -9` of the daemon. The default.
    Process,
    /// Events survive a power cut: each group is on the disk before it counts as accepted.
    Power,
}

/// `control`: the control API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// Path of the Unix socket; `None` for the default path.
    pub socket: Option<PathBuf>,
    /// The group that may use the socket; `None` for the daemon's user alone.
    pub group: Option<String>,
    /// TCP address in addition to the socket. If it is set, there is a token.
    pub listen: Option<String>,
    /// Reference to the token of the TCP listener.
    pub token: Option<Reference>,
}

/// `metrics`: the Prometheus endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// `true` if the endpoint is enabled. Default true.
    pub enabled: bool,
    /// Address of the endpoint; port 0 takes a free one. Default `127.0.0.1:9464`.
    pub listen: String,
}

/// `log`: the log of the daemon and its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Level for everything that `modules` does not name. Default `info`.
    pub level: LogLevel,
    /// Format of a line. Default `human`.
    pub format: LogFormat,
    /// Levels of single modules.
    pub modules: BTreeMap<String, LogLevel>,
}

/// Level of detail of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// No records.
    Off,
    /// Failures that the daemon survived.
    Error,
    /// Partial failures.
    Warn,
    /// Important events.
    Info,
    /// Details for developers.
    Debug,
    /// All records.
    Trace,
}

impl LogLevel {
    /// Returns the level's name in the file, which is also its name in filters of `tracing`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// `privacy`: handling of personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privacy {
    /// `true` if users, sessions and hosts are stored as pseudonyms. Default true.
    pub anonymise: bool,
    /// `true` if the text of prompts and answers may be published to modules. Default false.
    pub full_logging: bool,
    /// Projects whose text may be published; none for no text at all. Default none.
    pub full_logging_projects: Vec<String>,
}

impl Default for Privacy {
    fn default() -> Self {
        Self { anonymise: true, full_logging: false, full_logging_projects: Vec::new() }
    }
}

/// An entry of `providers`: a service for requests to language models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSection {
    /// Name of the provider, chosen by the operator.
    pub id: String,
    /// Base URL: `http://` or `https://`, without credentials.
    pub base_url: String,
    /// API of the provider.
    pub api: ProviderApi,
    /// Reference to the provider's key.
    pub key: Option<Reference>,
    /// `true` if the provider runs on the operator's hardware, so that an answer costs nothing.
    /// Default false.
    pub local: bool,
    /// Models that the provider is to be asked for. Default none.
    pub models: Vec<String>,
}

const LEVELS: &[(&str, LogLevel)] = &[
    ("off", LogLevel::Off),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

impl Bus {
    pub(super) fn read(mut fields: Fields<'_>, problems: &mut Problems<'_>) -> Self {
        let ledger = Ledger::read(fields.below("ledger", problems), problems);
        let inbox = fields.number("inbox_events", 16..=1_048_576, problems).unwrap_or(8192);
        fields.finish(problems);
        Self { ledger, inbox_events: usize::try_from(inbox).unwrap_or(8192) }
    }
}

impl Ledger {
    fn read(mut fields: Fields<'_>, problems: &mut Problems<'_>) -> Self {
        let words = [("process", Durability::Process), ("power", Durability::Power)];
        let ledger = Self {
            retention_hours: fields.number("retention_hours", 1..=8760, problems).unwrap_or(168),
            max_bytes: fields.number("max_bytes", 1 << 20..=1 << 40, problems).unwrap_or(1 << 30),
            durability: fields.word("durability", &words, problems).unwrap_or(Durability::Process),
        };
        fields.finish(problems);
        ledger
    }
}

impl Control {
    pub(super) fn read(mut fields: Fields<'_>, problems: &mut Problems<'_>) -> Self {
        let control = Self {
            socket: fields.parsed("socket", problems, super::references::path),
            group: fields.text("group", problems).map(str::to_owned),
            listen: fields.parsed("listen", problems, listen_address),
            token: fields.parsed("token", problems, Reference::parse),
        };
        if let (Some(listen), None) = (fields.take("listen"), fields.take("token")) {
            let hint = "add `token: ${NAME}` or `token: file:/path` beside it";
            problems.add(&listen.place, "control.listen", "TCP needs a token", hint);
        }
        fields.finish(problems);
        control
    }
}

impl Metrics {
    pub(super) fn read(mut fields: Fields<'_>, problems: &mut Problems<'_>) -> Self {
        let listen = fields.parsed("listen", problems, listen_address);
        let metrics = Self {
            enabled: fields.boolean("enabled", problems).unwrap_or(true),
            listen: listen.unwrap_or_else(|| "127.0.0.1:9464".to_owned()),
        };
        fields.finish(problems);
        metrics
    }
}

impl Log {
    pub(super) fn read(mut fields: Fields<'_>, problems: &mut Problems<'_>) -> Self {
        let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
        let level = fields.word("level", LEVELS, problems).unwrap_or(LogLevel::Info);
        let format = fields.word("format", &formats, problems).unwrap_or(LogFormat::Human);
        let named = fields.below("modules", problems);
        let modules = named.named().iter().filter_map(|entry| {
            let level = word(&entry.node, &named.join(&entry.name), LEVELS, problems)?;
            Some((entry.name.clone(), level))
        });
        let log = Self { level, format, modules: modules.collect() };
        fields.finish(problems);
        log
    }
}

impl Privacy {
    pub(super) fn read(mut fields: Fields<'_>, problems: &mut Problems<'_>) -> Self {
        let privacy = Self {
            anonymise: fields.boolean("anonymise", problems).unwrap_or(true),
            full_logging: fields.boolean("full_logging", problems).unwrap_or(false),
            full_logging_projects: fields
                .texts("full_logging_projects", problems)
                .unwrap_or_default(),
        };
        fields.finish(problems);
        privacy
    }
}

impl ProviderSection {
    /// Reads all providers, in the order of the file. One with an error is left out.
    pub(super) fn read_all(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Vec<Self> {
        let entries = fields.named().iter();
        entries
            .filter_map(|entry| {
                let key = fields.join(&entry.name);
                let mut fields = Fields::of(&entry.node, &key, problems);
                let provider = Self::read(entry, &mut fields, problems);
                if fields.take("base_url").is_none() {
                    problems.add(&entry.place, &key, "`base_url` is missing", "");
                }
                fields.finish(problems);
                provider
            })
            .collect()
    }

    fn read(entry: &Entry, fields: &mut Fields<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let base_url = fields.parsed("base_url", problems, base_url);
        let api = Self::read_api(entry, fields, problems);
        let key = fields.parsed("key", problems, Reference::parse);
        let local = fields.boolean("local", problems).unwrap_or(false);
        let models = fields.texts("models", problems).unwrap_or_default();
        let id = entry.name.clone();
        Some(Self { id, base_url: base_url?, api: api?, key, local, models })
    }

    /// Reads `api`, or `dialect`, as it was called before.
    fn read_api(
        entry: &Entry,
        fields: &mut Fields<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<ProviderApi> {
        let apis: Vec<_> = ProviderApi::ALL.iter().map(|api| (api.as_str(), *api)).collect();
        let (new, old) = (fields.take("api"), fields.take("dialect"));
        let key = fields.join("dialect");
        match (new, old) {
            (Some(_), Some(old)) => {
                let message = "is the former name of `api`, which is given as well";
                problems.add(&old.place, &key, message, "remove it");
                None
            }
            (Some(_), None) => fields.word("api", &apis, problems),
            (None, Some(old)) => {
                let message = "is called `api` now, and is still read";
                problems.warn(&old.place, &key, message, "write `api` instead");
                fields.word("dialect", &apis, problems)
            }
            (None, None) => {
                let hint = "it is one of `openai`, `anthropic`, `gemini` and `ollama`";
                let key = key.strip_suffix(".dialect").unwrap_or(&key);
                problems.add(&entry.place, key, "`api` is missing", hint);
                None
            }
        }
    }
}

fn base_url(text: &str) -> Result<String, InvalidValue> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or(rest));
    match host {
        None | Some("") => {
            Err(InvalidValue::new("must begin with `https://` or `http://` and name a host"))
        }
        Some(host) if host.contains('@') => {
            Err(InvalidValue::new("must hold no credentials: give them as `key: ${NAME}`"))
        }
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
    }
}
