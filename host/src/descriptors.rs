//! How many descriptors the daemon may have.

use rustix::process::{Resource, getrlimit, setrlimit};

/// More are of no use: all listeners together have fewer connections.
const ENOUGH: u64 = 65_536;

/// Raises the limit of this process as far as it may without privileges: the usual 1024 is for
/// programs that use `select`.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let Some(now) = limit.current else { return };
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if now < wanted {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, now, wanted, "cannot raise the limit of open files");
        }
    }
}
