//! The module on the bench, over real HTTP.

mod abuse;
mod bodies;
mod forms;
mod http;
mod joining;
mod lifecycle;
mod lynex;
mod otlp;
mod privacy;
mod steps;
mod sums;
