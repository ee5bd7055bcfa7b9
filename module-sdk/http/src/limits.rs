//! Limits of a listener for its clients.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// Limits for the clients of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum of connections open at once. Beyond seven eighths of it, the longest idle ones are
    /// closed.
    pub connections: usize,
    /// Share of the process's descriptors that the connections may use.
    pub descriptors: Descriptors,
    /// Time for the head of a request, from its first byte on, or from the start of the connection.
    pub header_timeout: Duration,
    /// Time between a response and the next request.
    pub idle_timeout: Duration,
    /// Time for reading any part of a response.
    pub write_timeout: Duration,
}

/// A share of the descriptors of the process. The kernel gives out the lowest free number, so a
/// high one shows that all below are in use, by whatever part of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptors {
    /// The lower three quarters: for listeners that anybody can reach.
    Most,
    /// The lower seven eighths: for the metrics.
    More,
    /// The lower fifteen sixteenths: for the control socket, which serves to find and end problems.
    Nearly,
}

impl Descriptors {
    /// Returns the first descriptor that is beyond this share of `all`.
    pub(crate) const fn ceiling_of(self, all: u64) -> u64 {
        all - match self {
            Self::Most => all / 4,
            Self::More => all / 8,
            Self::Nearly => all / 16,
        }
    }

    /// Returns whether a descriptor is beyond this share.
    pub(crate) fn exceeded_by(self, descriptor: i32) -> bool {
        // It may be changed while the process runs, and asking takes less than a microsecond.
        let Some(all) = getrlimit(Resource::Nofile).current else { return false };
        u64::try_from(descriptor).is_ok_and(|descriptor| descriptor >= self.ceiling_of(all))
    }
}

impl Limits {
    /// Returns the number of connections beyond which some are closed, so that there is room for
    /// new clients.
    pub(crate) const fn crowded(&self) -> usize {
        self.connections - self.connections / 8
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            descriptors: Descriptors::Most,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_socket_gets_further_than_the_metrics_and_these_than_the_rest() {
        let check = |all: u64, expected: [u64; 3]| {
            let shares = [Descriptors::Most, Descriptors::More, Descriptors::Nearly];
            assert_eq!(shares.map(|share| share.ceiling_of(all)), expected, "of {all}");
        };
        check(1024, [768, 896, 960]);
        check(64, [48, 56, 60]);
        check(0, [0, 0, 0]);
    }

    #[test]
    fn a_small_limit_has_no_reserve() {
        let crowded = |connections| Limits { connections, ..Limits::default() }.crowded();
        assert_eq!([1, 7, 8, 256].map(crowded), [1, 7, 7, 224]);
    }
}
