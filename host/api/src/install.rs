//! Installing, verifying and removing modules.

use serde::{Deserialize, Serialize};

use super::Operation;

/// How a package is to be installed; the package itself is the body, a `tar` archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstallQuery {
    /// Where it comes from, for the lock file and for people; it is never opened.
    pub source: String,
    /// Whether a module that is signed may give way to one that is not.
    pub unsigned: bool,
}

/// A module that was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The module.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version that was installed before.
    pub previous_version: Option<String>,
    /// `new`, `upgrade`, `downgrade` or `same version`.
    pub change: String,
    /// The hash of its library, hexadecimal.
    pub sha256: String,
    /// The name of the trusted key that signed it; `null` for an unsigned module.
    pub signer: Option<String>,
    /// Where it runs unless its section says otherwise: `in_process` or `process`.
    pub isolation: String,
    /// What it asks for.
    #[serde(default)]
    pub declares: Declares,
    /// Where it lies.
    pub directory: String,
    /// What there is to be known beside that, sentences.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What followed: the section in the file, and the reload of a module that runs.
    pub operation: Operation,
}

/// What the manifest of a module asks for beyond its own data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Declares {
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// The `providers` of the configuration. Their keys are given by its section.
    pub providers: bool,
    /// Publishing events of other daemons under the ids that they have there.
    pub relays: bool,
    /// Keys of its section whose paths it reads.
    pub paths_read: Vec<String>,
    /// Keys of its section whose paths it writes.
    pub paths_write: Vec<String>,
    /// What it listens on: the key of its section, and the address without it.
    pub listeners: Vec<String>,
    /// Commands of other modules and of the host that it calls.
    pub calls: Vec<String>,
    /// Whether it would change the daemon. That is allowed by its section.
    pub operate: bool,
}

/// What a removal takes along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoveQuery {
    /// Its data as well.
    pub purge: bool,
    /// Although events wait for it.
    pub yes: bool,
    /// See [`WaitQuery`](super::WaitQuery).
    pub wait_ms: u64,
}

/// Which modules to verify.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyQuery {
    /// The module; all of them without it.
    pub module: Option<String>,
}

/// An installed module, compared with what was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The module.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The hash of its library when it was installed, hexadecimal.
    pub sha256: String,
    /// The name of the key that signed it; `null` for an unsigned module.
    pub signer: Option<String>,
    /// Where it came from.
    pub source: String,
    /// When, RFC 3339, UTC.
    pub installed_at: String,
    /// `ok` or `modified`.
    pub hash: String,
    /// The signer, `unsigned`, or `bad`.
    pub signature: String,
    /// `ok`, `unfit`, or `not asked` of one that was modified.
    pub abi: String,
    /// Owner and mode: `ok` or `open`.
    pub files: String,
    /// Whether nothing is wrong.
    pub ok: bool,
    /// What is wrong, sentences.
    pub problems: Vec<String>,
}
