//! The parts of `lodestard`, as a library for the program and for benchmarks.
//!
//! [`supervisor`] brings the modules into the state that the configuration asks for; [`module`] is
//! a module at run time and [`runner`] one in a process of its own; [`control`] answers `lodestar`.

pub mod args;
pub mod control;
pub mod crash;
pub mod http_guard;
pub mod install_lock;
pub mod logging;
pub mod metrics;
pub mod metrics_endpoint;
pub mod module;
pub mod process_stats;
pub mod pseudonyms;
pub mod refusal;
pub mod request;
pub mod runner;
pub mod start;
pub mod supervisor;
pub mod wake;
pub mod watch;
