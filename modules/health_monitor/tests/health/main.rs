//! Tests of the whole module on the bench. They are in one program, so that it is linked once.

mod checks;
mod common;
mod email;
mod explain;
mod fake_provider;
mod gpu;
mod gpu_alerts;
mod gpu_rules;
mod machine_rules;
mod modules;
mod month;
mod notify;
mod prometheus;
mod providers;
mod receiver;
mod replay;
mod requests;
mod router;
mod watching;
