//! Lets everybody who sends join at the same time: a body is resolved in short turns, in the order
//! in which they are asked for, so that a large one holds nobody up.

use std::{cmp::Reverse, io};

use tokio::sync::Mutex;

use super::{Correlated, Correlator, Link, sighting::span_of};
use crate::report::Report;

/// How many reports, or spans around others, are looked at in one turn.
const TURN: usize = 128;

/// How many links are learned in one turn.
const LINKS: usize = 4096;

/// The one that knows the requests, for all who send.
#[derive(Debug)]
pub(crate) struct Shared {
    /// First come, first served, unlike a mutex of the standard library.
    correlator: Mutex<Correlator>,
}

/// What became of the reports of one body.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) joined: Vec<Correlated>,
    /// Keys of what was published as a request and is none.
    pub(crate) withdrawn: Vec<String>,
    /// Whether the journal has it.
    pub(crate) written: io::Result<()>,
}

impl Shared {
    pub(crate) fn new(correlator: Correlator) -> Self {
        Self { correlator: Mutex::new(correlator) }
    }

    /// Gives each report its key. Blocks while others have their turns.
    pub(crate) fn resolve(&self, reports: &mut [Report], links: &[Link], now_ms: i64) -> Resolved {
        let mut written = self.turn(|correlator| correlator.refresh(now_ms));
        let learned =
            links.chunks(LINKS).map(|links| self.turn(|correlator| correlator.learn(links)));
        let learned: Vec<u64> = learned.flatten().collect();
        for around in self.turn(|correlator| correlator.around(&learned)).chunks(TURN) {
            self.turn(|correlator| {
                for span in around {
                    correlator.withdraw_sums_in(*span, None);
                }
            });
        }
        let mut joined = vec![Correlated::New; reports.len()];
        for indices in self.inner_first(reports).chunks(TURN) {
            // Before anybody hears of the keys: a resend after a kill must find them.
            let committed = self.turn(|correlator| {
                for index in indices {
                    joined[*index] = correlator.resolve(&mut reports[*index], now_ms);
                }
                correlator.commit(now_ms)
            });
            written = written.and(committed);
        }
        Resolved { joined, withdrawn: self.turn(|correlator| correlator.untold()), written }
    }

    /// Takes note that the ledger has the withdrawals of these keys.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written; after a restart they are told again when asked.
    pub(crate) fn told(&self, keys: &[String], now_ms: i64) -> io::Result<()> {
        self.turn(|correlator| {
            correlator.told(keys);
            correlator.commit(now_ms)
        })
    }

    /// Forgets what is old, unless others are at it; answers how many requests are remembered.
    pub(crate) fn tidy(&self, now_ms: i64) -> Option<(usize, io::Result<()>)> {
        let mut correlator = self.correlator.try_lock().ok()?;
        let refreshed = correlator.refresh(now_ms);
        Some((correlator.len(), refreshed))
    }

    /// Returns of each span how many others enclose it.
    pub(crate) fn depths(&self, spans: &[u64]) -> Vec<usize> {
        let depths = spans.chunks(LINKS).map(|spans| {
            self.turn(|correlator| spans.iter().map(|span| correlator.depth(*span)).collect())
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

    fn turn<T>(&self, work: impl FnOnce(&mut Correlator) -> T) -> T {
        let mut correlator = self.correlator.blocking_lock();
        let done = work(&mut correlator);
        correlator.end_turn();
        done
    }
}
