//! The module on the bench, over real HTTP.

mod abuse;
mod bodies;
mod fixtures_tmp;
mod http;
mod joining;
mod lifecycle;
mod lynex;
mod otlp;
mod privacy;
mod samples;
