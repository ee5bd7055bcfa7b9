//! The module on the bench, reached as the daemon reaches it.

mod backup;
mod clocks;
mod common;
mod database;
mod export;
mod faults;
mod importing;
mod joining;
mod prices;
mod ranges;
mod samples;
mod tracking;
