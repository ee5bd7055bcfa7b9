//! How much a listener gives to its clients.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// What the clients of one listener may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. Beyond seven eighths of them, the longest idle ones are closed.
    pub connections: usize,
    /// Which of the process's descriptors its connections may use.
    pub descriptors: Descriptors,
    /// For the head of a request, from its first byte on, or from the start of the connection.
    pub header_timeout: Duration,
    /// Between an answer and the next request.
    pub idle_timeout: Duration,
    /// For taking any part of an answer.
    pub write_timeout: Duration,
}

/// A share of the descriptors of the process. The kernel gives out the lowest number that is free,
/// so a high one tells that all below are in use, whoever has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptors {
    /// The lower three quarters: for what strangers reach.
    Most,
    /// The lower seven eighths: for the metrics.
    More,
    /// The lower fifteen sixteenths: for the control socket, by which trouble is seen and ended.
    Nearly,
}

impl Descriptors {
    /// The first descriptor that is beyond this share of `all`.
    pub(crate) const fn ceiling_of(self, all: u64) -> u64 {
        all - match self {
            Self::Most => all / 4,
            Self::More => all / 8,
            Self::Nearly => all / 16,
        }
    }

    /// Whether a descriptor is beyond this share.
    pub(crate) fn exceeded_by(self, descriptor: i32) -> bool {
        // It may be changed while the process runs, and asking takes less than a microsecond.
        let Some(all) = getrlimit(Resource::Nofile).current else { return false };
        u64::try_from(descriptor).is_ok_and(|descriptor| descriptor >= self.ceiling_of(all))
    }
}

impl Limits {
    /// Connections beyond which some are closed, so that there is room for new clients.
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
