//! The rooms of `lodestard`, as a library for its two programs and for benchmarks.
//!
//! [`supervisor`] makes what is so what the configuration asks; [`bus`] carries events between
//! modules and [`ledger`] keeps the durable ones; [`library`] turns a file into code that may be
//! called; [`install`] puts modules in their place; [`module`] is a module at run time; [`control`]
//! answers `lodestar`.

pub mod accounts;
pub mod args;
pub mod bus;
pub mod config;
pub mod control;
pub mod crash;
pub mod files;
pub mod http_guard;
pub mod identity;
pub mod install;
pub mod ledger;
pub mod library;
pub mod listeners;
pub mod logging;
pub mod metrics;
pub mod module;
pub mod resources;
pub mod runner;
pub mod scrape;
pub mod start;
pub mod state_dir;
pub mod strangers;
pub mod supervisor;
pub mod systemd;
pub mod visible;
pub mod wake;
pub mod watch;
pub mod words;
