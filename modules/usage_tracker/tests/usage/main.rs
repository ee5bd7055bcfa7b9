//! The module on the bench, reached as the daemon reaches it.

mod common;
mod database;
mod export;
mod ranges;
mod tracking;
