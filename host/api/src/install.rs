//! Types for installing, verifying and removing modules.

use serde::{Deserialize, Serialize};

use super::Operation;

/// Options of an installation; the package itself is the body, a `tar` archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstallQuery {
    /// Origin of the package, for the lock file and for people; it is never opened.
    pub source: String,
    /// `true` if an unsigned module may replace a signed one.
    pub unsigned: bool,
}

/// A module that was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Name of the module.
    pub name: String,
    /// Version of the module.
    pub version: String,
    /// The version that was installed before.
    pub previous_version: Option<String>,
    /// `new`, `upgrade`, `downgrade` or `same version`.
    pub change: String,
    /// The hash of its library, hexadecimal.
    pub sha256: String,
    /// The name of the trusted key that signed it; `null` for an unsigned module.
    pub signer: Option<String>,
    /// Isolation unless the module's section says otherwise: `in_process` or `process`.
    pub isolation: String,
    /// Permissions that the module declares.
    #[serde(default)]
    pub declares: Declares,
    /// Directory of the module.
    pub directory: String,
    /// Further notes, one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Operation that followed: the section in the file, and the reload of a running module.
    pub operation: Operation,
}

/// Permissions that the manifest of a module asks for beyond access to its own data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Declares {
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// `true` to read the `providers` of the configuration. The module's section grants their keys.
    pub providers: bool,
    /// `true` to publish events of other daemons under their original ids.
    pub relays: bool,
    /// Keys of the module's section whose paths it reads.
    pub paths_read: Vec<String>,
    /// Keys of the module's section whose paths it writes.
    pub paths_write: Vec<String>,
    /// Listeners: the key of the module's section, and the address without it.
    pub listeners: Vec<String>,
    /// Commands of other modules and of the host that the module calls.
    pub calls: Vec<String>,
    /// `true` if the module changes the daemon. Its section allows that.
    pub operate: bool,
}

/// Options of a removal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoveQuery {
    /// `true` to remove the module's data as well.
    pub purge: bool,
    /// `true` to remove the module although events wait for it.
    pub yes: bool,
    /// Time to wait for the end of the operation, in milliseconds, as in
    /// [`WaitQuery`](super::WaitQuery).
    pub wait_ms: u64,
}

/// Selection of modules to verify.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyQuery {
    /// Module to verify; all modules if absent.
    pub module: Option<String>,
}

/// An installed module, compared with what was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Name of the module.
    pub name: String,
    /// Version of the module.
    pub version: String,
    /// The hash of its library when it was installed, hexadecimal.
    pub sha256: String,
    /// The name of the key that signed it; `null` for an unsigned module.
    pub signer: Option<String>,
    /// Origin of the package.
    pub source: String,
    /// Time of the installation, RFC 3339, UTC.
    pub installed_at: String,
    /// Result of the hash check: `ok` or `modified`.
    pub hash: String,
    /// Result of the signature check: the signer, `unsigned`, or `bad`.
    pub signature: String,
    /// Result of the ABI check: `ok`, `unfit`, or `not asked` for a modified module.
    pub abi: String,
    /// Result of the check of owner and mode: `ok` or `open`.
    pub files: String,
    /// `true` if all checks passed.
    pub ok: bool,
    /// Problems found, one sentence each.
    pub problems: Vec<String>,
}
