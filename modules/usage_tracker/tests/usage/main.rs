//! The module on the bench, reached as the daemon reaches it.

mod backup;
mod clocks;
mod common;
mod database;
mod export;
mod prices;
mod ranges;
mod tracking;
