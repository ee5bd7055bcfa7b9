//! End to end: the real daemon, the real command line, real module libraries, as processes.
//!
//! One program, so that it is linked once; one file per promise.

mod abi;
mod accounting;
mod author;
mod configuration;
mod content;
mod control_socket;
mod crashes;
mod deadlines;
mod edits;
mod events;
mod example;
mod faults;
mod files;
mod full_disk;
mod greed;
mod held_back;
mod install;
mod isolation;
mod libraries;
mod mapped;
mod metrics;
mod module_names;
mod names;
mod operation;
mod output;
mod permissions;
mod pseudonyms;
mod relays;
mod reload_faults;
mod reloads;
mod resources;
mod restarts;
mod secrets;
mod start;
mod starvation;
mod storage;
mod telemetry;
mod traces;
mod trials;
mod tutorial;
mod unloading;
mod untrusted;
mod volumes;
mod watching;
