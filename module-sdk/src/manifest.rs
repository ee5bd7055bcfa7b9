//! `module.toml`: everything that is known of a module without running it.

use serde::{Deserialize, Serialize};

/// The manifest of a module. It is embedded in the library by [`export!`](crate::export) and
/// shipped beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name and version of the module.
    pub module: ModuleSection,
    /// ABI that it was built against.
    pub abi: AbiSection,
    /// Topics that it subscribes to and publishes on.
    #[serde(default)]
    pub bus: BusSection,
    /// Listening sockets that the host binds for it.
    #[serde(default)]
    pub listeners: Vec<ListenerSection>,
    /// Services and data that it may ask the host for.
    #[serde(default)]
    pub capabilities: CapabilitiesSection,
    /// Names under which it appears on the command line.
    #[serde(default)]
    pub cli: CliSection,
    /// Way in which one generation follows another.
    #[serde(default)]
    pub reload: ReloadSection,
}

/// Section `[module]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleSection {
    /// Name in lower case, digits and `_`: that of the folder, the library and the key in the YAML.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// Description in one sentence.
    pub description: String,
    /// License, an SPDX expression.
    #[serde(default)]
    pub license: String,
}

/// Section `[abi]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbiSection {
    /// ABI epoch. The library itself states the one that it was built for; a host refuses one whose
    /// manifest states another.
    pub epoch: u32,
}

/// Section `[bus]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusSection {
    /// Topic filters that it subscribes to. Ledger events wait for it while it is disabled.
    pub consumes: Vec<String>,
    /// Topic filters of the events that it may publish.
    pub publishes: Vec<String>,
}

/// Section `[[listeners]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerSection {
    /// Name that the module asks for, and systemd's `FileDescriptorName=<module>.<name>`.
    pub name: String,
    /// Key of the module's configuration that holds the address.
    pub config_key: String,
    /// Address where that key is absent.
    pub default: String,
}

/// Section `[capabilities]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapabilitiesSection {
    /// Names of secrets that it may ask for.
    pub secrets: Vec<String>,
    /// `true` when it is given the `providers` of the configuration. With their keys where its
    /// section says `provider_keys: true`; a module that was not installed also where it says
    /// nothing.
    pub providers: bool,
    /// `true` when it may publish events of other daemons under the id and time that they have
    /// there ([`Host::relay`](crate::Host::relay)), on the topics that it publishes.
    pub relays: bool,
    /// Keys of its configuration (`logs`, `store.path`) that hold paths that it reads. In a process
    /// of its own it can read nothing else of a person's, and these only where `modules.yaml` gives
    /// them: its own `config.yaml` opens no path.
    pub paths_read: Vec<String>,
    /// Keys of its configuration that hold paths which it writes. In a process of its own it can
    /// write there, that is in the directory of such a file, and in its data directory.
    pub paths_write: Vec<String>,
    /// Commands of other modules and of the host that it may call: `usage_tracker.summary`,
    /// `health_monitor.*`, `host.status`.
    pub calls: Vec<String>,
    /// Permission to call commands that change the daemon as well: `host.modules.enable` and its
    /// like. A module that was installed needs the operator's `control: operate` in its section as
    /// well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
}

/// Permission of a module to change the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Permission to enable, disable, reload and roll back modules.
    Operate,
}

/// Section `[cli]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CliSection {
    /// Alias for the module's name on the command line: `usage`. Its previous name `noun` is still
    /// read.
    #[serde(alias = "noun")]
    pub command: Option<String>,
    /// Command that runs when none is given.
    pub default_command: Option<String>,
    /// Exit code of the command line where that command was asked for and did not answer: the
    /// arguments were wrong, the module does not run. Without it the usual ones apply. Monitoring
    /// plugins answer 3 (unknown) for everything but a state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_exit_code: Option<u8>,
}

/// Section `[reload]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadSection {
    /// Way in which one generation follows another.
    pub mode: ReloadMode,
}

/// Way in which one generation of a module follows another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadMode {
    /// Overlap: the new generation starts while the old one runs.
    #[default]
    Overlap,
    /// Handover: the old generation stops before the new one starts, since both need the same
    /// exclusive thing.
    Handover,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// When it is no TOML, a key is unknown or missing, or the name is not lower-case.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            ManifestError { line, message: error.message().to_owned() }
        })?;
        let wrong = |message: String| Err(ManifestError { line: 0, message });
        let name = &manifest.module.name;
        if !valid_name(name) {
            return wrong(format!(
                "module.name {name:?} must be 1 to 32 of a-z, 0-9 and _, beginning with a letter"
            ));
        }
        if let Some(call) = manifest.capabilities.calls.iter().find(|call| !valid_call(call)) {
            return wrong(format!(
                "capabilities.calls holds {call:?}; write a module or `host`, a dot, and a command \
                 or `*`: `usage_tracker.summary`, `health_monitor.*`"
            ));
        }
        Ok(manifest)
    }
}

/// Returns whether a text can stand in `capabilities.calls`: the target is always named.
fn valid_call(call: &str) -> bool {
    call.split_once('.').is_some_and(|(target, command)| {
        valid_name(target) && !command.is_empty() && command.split('.').all(|part| !part.is_empty())
    })
}

/// Returns whether a text can be the name of a module.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Reason why a text is no manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    line: usize,
    message: String,
}

impl std::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "module.toml: {}", self.message),
            line => write!(f, "module.toml line {line}: {}", self.message),
        }
    }
}

impl std::error::Error for ManifestError {}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str =
        "[module]\nname = \"tiny\"\nversion = \"0.1.0\"\ndescription = \"d\"\n\n[abi]\nepoch = 1\n";

    #[test]
    fn reads_the_least_manifest() {
        let manifest = Manifest::parse(SMALL).expect("it is valid");
        assert_eq!(manifest.module.name, "tiny");
        assert_eq!(manifest.reload.mode, ReloadMode::Overlap);
    }

    #[test]
    fn reads_the_former_name_of_the_command() {
        for key in ["command", "noun"] {
            let manifest = Manifest::parse(&format!("{SMALL}[cli]\n{key} = \"usage\"\n"));
            let command = manifest.expect("it is valid").cli.command;
            assert_eq!(command.as_deref(), Some("usage"), "{key}");
        }
    }

    #[test]
    fn says_where_a_manifest_is_wrong() {
        let check = |text: String, part: &str| {
            let error = Manifest::parse(&text).expect_err("it is wrong").to_string();
            assert!(error.contains(part), "{error}");
        };
        check(SMALL.replace("epoch", "epok"), "line 7");
        check(SMALL.replace("tiny", "Tiny"), "must be 1 to 32");
        check("[".to_owned(), "line 1");
        let calling = |calls: &str| format!("{SMALL}[capabilities]\ncalls = [{calls}]\n");
        for call in ["*", ">", "*.summary", "usage_tracker", "usage_tracker.", "Usage.summary"] {
            check(calling(&format!("\"{call}\"")), "`usage_tracker.summary`");
        }
        let fine = calling(r#""usage_tracker.summary", "health_monitor.*", "host.modules.list""#);
        assert_eq!(Manifest::parse(&fine).expect("it is valid").capabilities.calls.len(), 3);
        check(format!("{SMALL}[capabilities]\ncontrol = \"all\"\n"), "operate");
    }
}
