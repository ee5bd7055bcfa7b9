//! Changes that somebody asks the daemon for.

use crate::install_lock::InstallLock;

/// Actor that asks for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A user of this machine, through the socket; `None` when the kernel does not tell which.
    User(Option<u32>),
    /// The holder of the token of the control API.
    TokenHolder,
    /// A module.
    Module(String),
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(Some(number)) => write!(f, "user {number}"),
            Self::User(None) => f.write_str("a user"),
            Self::TokenHolder => f.write_str("the holder of the token"),
            Self::Module(name) => write!(f, "module {name}"),
        }
    }
}

/// A change that somebody asks for.
#[derive(Debug)]
pub enum Request {
    /// Change of `enabled` of a module, in the file.
    SetEnabled {
        /// The module.
        module: String,
        /// True to enable it, false to disable it.
        enabled: bool,
    },
    /// Reload of the configuration.
    ReloadConfig,
    /// Reload of a module with the library that is on the module path now.
    Reload {
        /// The module.
        module: String,
    },
    /// Return of a module to the previous generation.
    Rollback {
        /// The module.
        module: String,
    },
    /// Activation of a module that was put in place.
    Activate {
        /// Install lock of the module.
        install_lock: InstallLock,
        /// Lines for its section in the file.
        notes: Vec<String>,
        /// The version that was installed before.
        previous: Option<String>,
    },
    /// Removal of a module.
    Remove {
        /// The module.
        module: String,
        /// True to delete its data as well.
        purge: bool,
        /// True to remove it although events wait for it.
        yes: bool,
    },
}
