//! The module on the bench, over real HTTP.

mod abuse;
mod bodies;
mod caller;
mod forms;
mod grpc;
mod http;
mod joining;
mod lifecycle;
mod litellm;
mod lynex;
mod otlp;
mod privacy;
mod steps;
mod sums;
