//! What the author of a Lodestar module needs.
//!
//! A module is a `cdylib` with a type that implements [`Module`], a `module.toml`, and one line:
//! `module_sdk::export!(MyModule);`. `lodestard` loads it, gives it a thread, a data directory,
//! events, timers, commands, metrics and listening sockets, and contains its panics.
//!
//! * [`Module`] and [`Wiring`]: what a module is and what it answers to.
//! * [`Host`]: what the daemon does for it.
//! * [`events`]: the vocabulary that Lodestar's modules share; [`EventType`] for your own.
//! * `testing`: start a module without a daemon (feature `testing`).
//!
//! Logging is `tracing`: what a module logs is written by the daemon under the module's name.
//!
//! A module must not install signal handlers, a global allocator (the SDK counts with its own), or
//! leave a thread behind when it has stopped.

mod command;
mod description;
mod error;
mod event;
pub mod events;
mod glue;
mod host;
mod logging;
pub mod manifest;
mod module;
#[cfg(feature = "tokio")]
mod runtime;
#[cfg(feature = "testing")]
pub mod testing;
mod wiring;

pub use command::{Column, Frame, Job, NoArgs, Output, Reply, Table};
pub use description::{CommandDescription, Description, Subscription, TimerDescription};
pub use error::{Error, ErrorKind, Result, nearest};
pub use event::{Class, Event, EventType};
pub use glue::return_free_memory;
pub use host::{Acceptance, Counter, Gauge, Histogram, Host, Secret};
pub use module::{Health, HealthStatus, Module, Snapshot};
pub use wiring::Wiring;

#[doc(hidden)]
pub use glue::export as __export;
