//! Shares the correlator among all senders: a body is resolved in short turns, in the order in
//! which they are asked for, so that a large body delays nobody.

use std::{cmp::Reverse, io};

use tokio::sync::Mutex;

use super::{Correlated, Correlator, Link, sighting::span_of};
use crate::report::Report;

/// Largest number of reports, or of spans around others, that are looked at in one turn.
const TURN: usize = 128;

/// Largest number of links that are learned in one turn.
const LINKS: usize = 4096;

/// The correlator that all senders share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The correlator, behind a mutex that is fair, unlike that of the standard library.
    correlator: Mutex<Correlator>,
}

/// The result for the reports of one body.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) joined: Vec<Correlated>,
    /// Keys of requests that were published and turned out to be sums.
    pub(crate) withdrawn: Vec<String>,
    /// Result of writing the journal.
    pub(crate) written: io::Result<()>,
}

impl Shared {
    pub(crate) fn new(correlator: Correlator) -> Self {
        Self { correlator: Mutex::new(correlator) }
    }

    /// Sets the key of each report. Blocks while others have their turns.
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

    /// Notes that the ledger has the withdrawals of these keys.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written; after a restart the withdrawals are sent again when the
    /// reports are resent.
    pub(crate) fn told(&self, keys: &[String], now_ms: i64) -> io::Result<()> {
        self.turn(|correlator| {
            correlator.told(keys);
            correlator.commit(now_ms)
        })
    }

    /// Forgets what is old, unless the correlator is in use; returns the number of requests that
    /// are remembered.
    pub(crate) fn tidy(&self, now_ms: i64) -> Option<(usize, io::Result<()>)> {
        let mut correlator = self.correlator.try_lock().ok()?;
        let refreshed = correlator.refresh(now_ms);
        Some((correlator.len(), refreshed))
    }

    /// Returns for each span the number of spans that enclose it.
    pub(crate) fn depths(&self, spans: &[u64]) -> Vec<usize> {
        let depths = spans.chunks(LINKS).map(|spans| {
            self.turn(|correlator| spans.iter().map(|span| correlator.depth(*span)).collect())
        });
        depths.flat_map(|depths: Vec<usize>| depths).collect()
    }

    /// Returns the order in which to resolve the reports: those within others first.
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
