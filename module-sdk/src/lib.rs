//! SDK for the authors of Lodestar modules.
//!
//! A module is a `cdylib` with a type that implements [`Module`], a `module.toml`, and one line:
//! `module_sdk::export!(MyModule);`. `lodestard` loads it, gives it a thread, a data directory,
//! events, timers, commands, metrics and listening sockets, and contains its panics.
//!
//! * [`Module`] and [`Wiring`]: the module itself, with its events, timers and commands.
//! * [`Host`]: the services of the daemon for a module.
//! * [`events`]: the vocabulary that Lodestar's modules share; [`EventType`] for your own.
//! * What many modules need: [`TimeRangeArgs`], [`Zone`], [`Usd`], [`human`] numbers,
//!   [`LogHistogram`], [`CounterFamily`], [`Wiring::daily`], [`Host::save_state`], [`clock`].
//! * `testing`: start a module without a daemon (feature `testing`).
//!
//! Logging is `tracing`: what a module logs is written by the daemon under the module's name.
//!
//! A module must not install signal handlers, a global allocator (the SDK counts with its own), or
//! leave a thread behind when it has stopped.

mod call;
pub mod clock;
mod command;
mod counter_family;
mod daily;
mod description;
mod error;
mod event;
pub mod events;
mod files;
mod glue;
mod host;
pub mod human;
mod log_histogram;
mod logging;
pub mod manifest;
mod module;
mod provider;
#[cfg(feature = "tokio")]
mod runtime;
#[doc(hidden)]
pub mod schema;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod time_range;
mod usd;
mod wiring;
mod words;
mod zone;

/// The time library of [`Event::time`], [`Host::now`], [`TimeRange`] and [`Zone`].
pub use jiff;

pub use call::{Call, CallStream};
pub use command::{Column, Frame, Job, NoArgs, Output, Reply, Table};
pub use counter_family::CounterFamily;
pub use description::{CommandDescription, Description, Subscription, TimerDescription};
pub use error::{Error, ErrorKind, Result, nearest};
pub use event::{Class, Event, EventType, MAX_EVENT_BYTES, RelayedEvent};
pub use files::{FileMark, Files, FilesSum, NamedFile};
pub use glue::return_free_memory;
pub use host::{Acceptance, Counter, Gauge, Histogram, Host, Secret};
pub use log_histogram::{LogHistogram, LogHistogramError};
pub use logging::level_number;
pub use module::{Health, HealthStatus, Module, Snapshot};
pub use provider::{Provider, ProviderApi};
pub use time_range::{TimeRange, TimeRangeArgs};
pub use usd::{Usd, UsdError};
pub use wiring::Wiring;
pub use zone::Zone;

#[doc(hidden)]
pub use files::{ARGUMENTS_RECORD, FileHead, FilesWriter, MAX_RECORD, PART as FILE_PART};
#[doc(hidden)]
pub use glue::export as __export;
