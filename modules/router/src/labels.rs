//! Judged answers, from which the strategy `learned` learns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use module_sdk::{Host, Result};
use moka::sync::Cache;

use crate::routing::{
    Request,
    learned::{Label, Learned, Sample, saved::Saved},
};

/// Name of the state.
const STATE: &str = "learned";

/// Requests of which the features are kept until they are judged, at most.
const AWAITED: u64 = 2_000;

/// Time for which they are.
const AWAITED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Knowledge from judged answers, and the requests that may still be judged.
#[derive(Debug)]
pub(crate) struct Labels {
    pub(crate) learned: Learned,
    awaited: Cache<Arc<str>, Arc<Awaited>>,
    is_collecting: bool,
    is_changed: AtomicBool,
}

#[derive(Debug)]
struct Awaited {
    sample: Sample,
    is_local: bool,
}

impl Labels {
    /// Reads what was learned.
    pub(crate) fn load(host: &Host, is_collecting: bool) -> Self {
        let learned = Learned::default();
        match host.load_state::<Saved>(STATE) {
            Ok(Some(saved)) => {
                if let Err(error) = learned.restore(&saved) {
                    tracing::warn!(%error, "what was learned cannot be used; it begins anew");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "what was learned cannot be read; it begins anew"),
        }
        let awaited = Cache::builder().max_capacity(AWAITED).time_to_live(AWAITED_FOR).build();
        Self { learned, awaited, is_collecting, is_changed: AtomicBool::new(false) }
    }

    /// Keeps the features of a request, numbers from which no text can be read, until its answer
    /// is judged.
    pub(crate) fn await_judgement(&self, id: &str, request: &Request<'_>, is_local: bool) {
        if self.is_collecting {
            let awaited = Awaited { sample: Sample::of(request), is_local };
            self.awaited.insert(id.into(), Arc::new(awaited));
        }
    }

    /// Learns from a judgement of an answer.
    pub(crate) fn judged(&self, id: &str, is_right: bool) {
        let Some(awaited) = self.awaited.remove(id) else { return };
        let (local, paid) =
            if awaited.is_local { (Some(is_right), None) } else { (None, Some(is_right)) };
        self.learned.learn(&awaited.sample, Label { is_local_right: local, is_paid_right: paid });
        self.is_changed.store(true, Ordering::Relaxed);
    }

    /// Writes what was learned since the last time.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the next call tries again.
    pub(crate) fn save(&self, host: &Host) -> Result<()> {
        if !self.is_changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        host.save_state(STATE, &self.learned.save())
            .inspect_err(|_| self.is_changed.store(true, Ordering::Relaxed))
    }
}
