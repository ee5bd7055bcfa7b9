//! Lets everybody who sends join at the same time: a body is resolved in short turns, in the order
//! in which they are asked for, so that a large one holds nobody up.

use std::{cmp::Reverse, io};

use tokio::sync::Mutex;

use super::{Joined, Joiner, Link, sighting::span_of};
use crate::report::Report;

/// How many reports, or spans around others, are looked at in one turn.
const TURN: usize = 128;

/// How many links are learned in one turn.
const LINKS: usize = 4096;

/// The one that knows the requests, for all who send.
#[derive(Debug)]
pub(crate) struct Shared {
    /// First come, first served, unlike a mutex of the standard library.
    joiner: Mutex<Joiner>,
}

/// What became of the reports of one body.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) joined: Vec<Joined>,
    /// Keys of what was published as a request and is none.
    pub(crate) withdrawn: Vec<String>,
    /// Whether the journal has it.
    pub(crate) written: io::Result<()>,
}

impl Shared {
    pub(crate) fn new(joiner: Joiner) -> Self {
        Self { joiner: Mutex::new(joiner) }
    }

    /// Gives each report its key. Blocks while others have their turns.
    pub(crate) fn resolve(&self, reports: &mut [Report], links: &[Link], now_ms: i64) -> Resolved {
        let mut written = self.turn(|joiner| joiner.refresh(now_ms));
        let learned = links.chunks(LINKS).map(|links| self.turn(|joiner| joiner.learn(links)));
        let learned: Vec<u64> = learned.flatten().collect();
        for around in self.turn(|joiner| joiner.around(&learned)).chunks(TURN) {
            self.turn(|joiner| {
                for span in around {
                    joiner.withdraw_sums_in(*span, None);
                }
            });
        }
        let mut joined = vec![Joined::New; reports.len()];
        for indices in self.inner_first(reports).chunks(TURN) {
            // Before anybody hears of the keys: a resend after a kill must find them.
            let committed = self.turn(|joiner| {
                for index in indices {
                    joined[*index] = joiner.resolve(&mut reports[*index], now_ms);
                }
                joiner.commit(now_ms)
            });
            written = written.and(committed);
        }
        Resolved { joined, withdrawn: self.turn(|joiner| joiner.untold()), written }
    }

    /// Takes note that the ledger has the withdrawals of these keys.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written; after a restart they are told again when asked.
    pub(crate) fn told(&self, keys: &[String], now_ms: i64) -> io::Result<()> {
        self.turn(|joiner| {
            joiner.told(keys);
            joiner.commit(now_ms)
        })
    }

    /// Forgets what is old, unless others are at it; answers how many requests are remembered.
    pub(crate) fn tidy(&self, now_ms: i64) -> Option<(usize, io::Result<()>)> {
        let mut joiner = self.joiner.try_lock().ok()?;
        let refreshed = joiner.refresh(now_ms);
        Some((joiner.len(), refreshed))
    }

    /// Returns of each span how many others enclose it.
    pub(crate) fn depths(&self, spans: &[u64]) -> Vec<usize> {
        let depths = spans.chunks(LINKS).map(|spans| {
            self.turn(|joiner| spans.iter().map(|span| joiner.depth(*span)).collect())
        });
        depths.flat_map(|depths: Vec<usize>| depths).collect()
    }

    /// The order in which reports are best resolved: what lies within others first.
    fn inner_first(&self, reports: &[Report]) -> Vec<usize> {
        let spans: Vec<u64> = reports.iter().map(|report| span_of(report).unwrap_or(0)).collect();
        let depths = self.depths(&spans);
        let mut order: Vec<usize> = (0..reports.len()).collect();
        order.sort_by_key(|index| Reverse(depths[*index]));
        order
    }

    fn turn<T>(&self, work: impl FnOnce(&mut Joiner) -> T) -> T {
        let mut joiner = self.joiner.blocking_lock();
        let done = work(&mut joiner);
        joiner.end_turn();
        done
    }
}
