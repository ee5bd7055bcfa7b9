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
    /// `true` when a local model answers.
    is_local: AtomicBool,
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
            let awaited =
                Awaited { sample: Sample::of(request), is_local: AtomicBool::new(is_local) };
            self.awaited.insert(id.into(), Arc::new(awaited));
        }
    }

    /// Notes who answered: another one may have stood in for the one that was chosen.
    pub(crate) fn answered(&self, id: &str, is_local: bool) {
        if self.is_collecting
            && let Some(awaited) = self.awaited.get(id)
        {
            awaited.is_local.store(is_local, Ordering::Relaxed);
        }
    }

    /// Learns from a judgement of an answer.
    pub(crate) fn judged(&self, id: &str, is_right: bool) {
        let Some(awaited) = self.awaited.remove(id) else { return };
        let is_local = awaited.is_local.load(Ordering::Relaxed);
        let (local, paid) = if is_local { (Some(is_right), None) } else { (None, Some(is_right)) };
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use module_sdk::testing::FakeHost;

    use super::*;
    use crate::{
        dialect::{Dialect, inspect::Inspected},
        routing::request::Prices,
        target::TargetName,
    };

    struct Free;

    impl Prices for Free {
        fn estimate(&self, _: &TargetName, _: u64, _: u64, _: u64) -> Option<i64> {
            Some(0)
        }
    }

    #[test]
    fn a_judgement_is_of_the_one_that_answered() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
        let labels = Labels::load(&host, true);
        let inspected = Inspected { last_words: "one river".into(), ..Inspected::default() };
        let request = Request {
            inspected: &inspected,
            dialect: Dialect::Chat,
            headers: &HeaderMap::new(),
            key: None,
            project: None,
            client: None,
            session: None,
            is_sub_agent: false,
            sticky: None,
            budget_left_nano_usd: None,
            keeps_budget: false,
            allowed_models: &[],
            prices: &Free,
        };
        labels.await_judgement("a", &request, true);
        let is_local = |id: &str| {
            labels.awaited.get(id).map(|awaited| awaited.is_local.load(Ordering::Relaxed))
        };
        assert_eq!(is_local("a"), Some(true));
        labels.answered("a", false);
        labels.answered("b", false);
        assert_eq!((is_local("a"), is_local("b")), (Some(false), None));
        labels.judged("a", true);
        assert_eq!((labels.learned.labels(), is_local("a")), (1, None));
    }
}
