//! Modules in processes of their own: `isolation: process`.
//!
//! The same library runs in a second `lodestard`, started as a *runner*, which maps it, holds
//! itself to a sandbox and speaks the same contract over a pair of sockets ([`wire`]). In the
//! daemon an [`Isolated`] stands for the library, a [`Remote`] for the module that was started
//! from it; the module's thread calls it as it would call a module in process. A [`desk`] gives
//! the module what it asks for, through the same services, and learns first of its end. What the
//! runner does itself is in [`child`].

mod called;
mod cgroup;
mod channel;
mod child;
mod error;
mod isolated;
mod limits;
mod measure;
mod paths;
mod process;
mod process_exit;
mod process_stats;
mod remote;
mod replies;
mod sandbox_marker;
mod send_queue;
mod service_server;
mod subprocess;
mod watch;
mod window;
mod wire;

pub use cgroup::divide_control_group;
pub use child::{confine, main};
pub use isolated::{Isolated, ProcessSpec, Refused};
pub use paths::Bounds;
pub use process_stats::{Figures, figures};
pub use remote::Remote;
pub use sandbox_marker::is_marked;
pub use subprocess::{SubprocessOutput, answer_to, ask};

/// A module's process as the control API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessView {
    /// Its number.
    pub pid: u32,
    /// The number of the generation that runs in it.
    pub generation: u64,
    /// The limit on its memory in words, `None` without one.
    pub memory_limit: Option<String>,
    /// The limit on its time on the processors in words, `None` without one.
    pub cpu_limit: Option<String>,
    /// The limit on its threads and processes in words.
    pub tasks_limit: String,
    /// The limit on its data directory in words.
    pub data_limit: String,
    /// Each limit that was asked for and that no control group holds, with what to do.
    pub limits_without_group: Vec<String>,
    /// How far its sandbox holds, in words.
    pub sandbox: String,
}
