//! Interfaces of the programs of Lodestar to the system: files and who may change them, accounts,
//! sockets, limits, signals, and text that is safe to show.

pub mod accounts;
pub mod code_pages;
pub mod file_trust;
pub mod files;
pub mod kernel;
pub mod listeners;
pub mod resources;
pub mod signals;
pub mod state_dir;
pub mod systemd;
pub mod visible;
pub mod watch;

/// A problem and its remedy: two sentences.
pub type Trouble = (String, String);
