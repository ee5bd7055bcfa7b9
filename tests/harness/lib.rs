//! Tools for the end-to-end tests: a daemon of one's own, its command line, what tools send, and
//! broken libraries.
//!
//! Everything here ends a test by a panic where the ground under the test is missing: a program
//! that is not built, a temporary directory that cannot be made.

pub mod breakage;
mod daemon;
pub mod grpc;
pub mod http;
mod keep_alive;
pub mod kills;
mod sandbox;
mod sent;
mod service_manager;
mod set_on_drop;
pub mod telemetry;
mod tools;
pub mod training;
pub mod upstream;

pub use daemon::Daemon;
pub use keep_alive::KeepAlive;
pub use sandbox::{Output, Sandbox, library, program, run, sha256};
pub use sent::{Counted, Sent};
pub use service_manager::ServiceManager;
pub use set_on_drop::SetOnDrop;
pub use tools::{
    PATIENCE, far_from_midnight, is_root, skip, skip_even_in_ci, tool_or_skip, wait_until,
};
pub use upstream::FakeUpstream;
