//! Changes that somebody asks the daemon for.

use crate::install_lock::InstallLock;

/// Who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A user of this machine, through the socket; `None` when the kernel does not tell which.
    User(Option<u32>),
    /// Whoever has the token of the control API.
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
    /// Switch a module on or off, in the file.
    SetEnabled {
        /// The module.
        module: String,
        /// On or off.
        enabled: bool,
    },
    /// Read the configuration again.
    ReloadConfig,
    /// Replace a module by what lies on the module path now.
    Reload {
        /// The module.
        module: String,
    },
    /// Put the generation before back.
    Rollback {
        /// The module.
        module: String,
    },
    /// Take up a module that was put in its place.
    TakeUp {
        /// The module.
        install_lock: InstallLock,
        /// What is said of it in its section, lines.
        notes: Vec<String>,
        /// The version that was installed before.
        previous: Option<String>,
    },
    /// Stop a module and take it away.
    Remove {
        /// The module.
        module: String,
        /// Its data as well.
        purge: bool,
        /// Although events wait for it.
        yes: bool,
    },
}
