//! The commands of `lodestar health`.

mod alerts;
mod explain;
mod gpu;
mod silence;
mod slo;
mod status;
mod test_notify;
mod watch;

pub(crate) use watch::Watchers;
