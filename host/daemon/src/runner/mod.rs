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
pub use isolated::{Isolated, ProcessSpec};
pub use remote::Remote;
pub use sandbox_marker::is_marked;
pub use subprocess::{SubprocessOutput, answer_to, ask};
