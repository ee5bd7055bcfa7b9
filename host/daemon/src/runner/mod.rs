//! Modules in processes of their own: `isolation: process`.
//!
//! The same library runs in a second `lodestard`, started as a *runner*, which maps it, confines
//! itself to a sandbox and speaks the same contract over a pair of sockets ([`wire`]). In the
//! daemon an [`Isolated`] stands for the library, a [`Remote`] for the module that was started from
//! it; the module's thread calls it as it would call a module in process. A [`service_server`]
//! answers the module's requests through the same services, and is the first to learn of its end.
//! The runner's own code is in [`child`].

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
pub(crate) use channel::{BUSY, MOMENT};
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
    /// Process id.
    pub pid: u32,
    /// Number of the generation that runs in it.
    pub generation: u64,
    /// Description of the memory limit, `None` without one.
    pub memory_limit: Option<String>,
    /// Description of the limit on processor time, `None` without one.
    pub cpu_limit: Option<String>,
    /// Description of the limit on threads and processes.
    pub tasks_limit: String,
    /// Description of the limit on the data directory.
    pub data_limit: String,
    /// Limits that were asked for and that no control group holds, with what to do.
    pub limits_without_group: Vec<String>,
    /// Description of how far the sandbox holds.
    pub sandbox: String,
}
