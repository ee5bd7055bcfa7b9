//! The rooms of `lodestard`.
pub mod identity;
pub mod library;
pub mod logging;
pub mod metrics;
pub mod args;
pub mod listeners;
pub mod systemd;
