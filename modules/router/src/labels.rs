//! Judged answers, from which the strategy `learned` learns: at once, and kept as labels for the
//! policies that a person approves.

pub(crate) mod log;
pub(crate) mod policy;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use module_sdk::{Host, Result};
use moka::sync::Cache;

use self::log::{Judged, LabelLog, Line, Sign};
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

/// Signs about a request that are noted, at most: whoever says more says nothing new.
const MOST_SIGNS: u32 = 100;

/// Knowledge from judged answers, and the requests that may still be judged.
#[derive(Debug)]
pub(crate) struct Labels {
    pub(crate) learned: Learned,
    pub(crate) log: LabelLog,
    awaited: Cache<Arc<str>, Arc<Awaited>>,
    is_collecting: bool,
    is_changed: AtomicBool,
    /// `true` once old labels were left out.
    is_tidy: AtomicBool,
    /// Answers about the approved policy, in their order.
    pub(crate) policies: policy::Turns,
}

#[derive(Debug)]
struct Awaited {
    sample: Sample,
    judged: Judged,
    /// `true` when a local model answers.
    is_local: AtomicBool,
    /// `true` once the log has its features.
    is_told: AtomicBool,
    /// `true` once something was learned of the local model's answer, and of the paid one's.
    is_learned: [AtomicBool; 2],
    /// Number of signs that were noted.
    signs: AtomicU32,
}

impl Awaited {
    fn new(sample: Sample, judged: Judged, is_local: bool) -> Self {
        Self {
            sample,
            judged,
            is_local: AtomicBool::new(is_local),
            is_told: AtomicBool::new(false),
            is_learned: [AtomicBool::new(false), AtomicBool::new(false)],
            signs: AtomicU32::new(0),
        }
    }
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
        policy::load(host, &learned);
        Self {
            learned,
            log: LabelLog::within(host.data_dir()),
            awaited: Cache::builder().max_capacity(AWAITED).time_to_live(AWAITED_FOR).build(),
            is_collecting,
            is_changed: AtomicBool::new(false),
            is_tidy: AtomicBool::new(false),
            policies: policy::Turns::default(),
        }
    }

    /// Keeps the features of a request, numbers from which no text can be read, until its answer
    /// is judged.
    pub(crate) fn await_judgement(&self, id: &str, request: &Request<'_>, is_local: bool, at: i64) {
        let judged = Judged {
            id: id.to_owned(),
            at,
            project: request.project.map(str::to_owned),
            session: request.session.map(str::to_owned),
        };
        if self.is_collecting {
            let awaited = Awaited::new(Sample::of(request), judged, is_local);
            self.awaited.insert(id.into(), Arc::new(awaited));
        }
    }

    /// Keeps the features of what several models were asked, until somebody votes.
    pub(crate) fn await_vote(&self, id: &str, sample: Sample, at: i64) {
        if self.is_collecting {
            let judged = Judged { id: id.to_owned(), at, project: None, session: None };
            self.awaited.insert(id.into(), Arc::new(Awaited::new(sample, judged, true)));
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

    /// Learns from a judgement of the answer that was given last.
    pub(crate) fn judged(&self, id: &str, origin: &str, is_right: bool, at: i64) {
        let Some(awaited) = self.awaited.get(id) else { return };
        let local = awaited.is_local.load(Ordering::Relaxed);
        let sign = Sign { at, origin: origin.to_owned(), local, right: is_right };
        self.note(&awaited, sign);
    }

    /// Learns from a vote on answers of local models beside paid ones. A tie is as good as a win:
    /// the paid answer was not needed.
    pub(crate) fn voted(&self, id: &str, is_local_right: bool, at: i64) {
        let Some(awaited) = self.awaited.get(id) else { return };
        let origin = "comparison".to_owned();
        self.note(&awaited, Sign { at, origin, local: true, right: is_local_right });
    }

    fn note(&self, awaited: &Awaited, sign: Sign) {
        if awaited.signs.fetch_add(1, Ordering::Relaxed) >= MOST_SIGNS {
            return;
        }
        if !awaited.is_told.swap(true, Ordering::Relaxed) {
            let judged = awaited.judged.clone();
            self.log.add(&Line::Request { judged, sample: awaited.sample.pack() });
        }
        let side = &awaited.is_learned[usize::from(!sign.local)];
        if !side.swap(true, Ordering::Relaxed) {
            let right = Some(sign.right);
            let (local, paid) = if sign.local { (right, None) } else { (None, right) };
            let label = Label { is_local_right: local, is_paid_right: paid };
            self.learned.learn(&awaited.sample, label);
            self.is_changed.store(true, Ordering::Relaxed);
        }
        self.log.add(&Line::Sign { id: awaited.judged.id.clone(), sign });
    }

    /// Leaves out labels that are old or beyond the bound. A failure is only logged: the next time
    /// makes up for it.
    pub(crate) fn tidy(&self, host: &Host) {
        if let Err(error) = self.log.tidy(host.now().as_millisecond()) {
            tracing::warn!(%error, "the labels of requests cannot be tidied");
        }
    }

    /// Forgets features that wait for a judgement.
    pub(crate) fn forget_awaited(&self) {
        self.awaited.invalidate_all();
    }

    /// Writes what was learned since the last time. The first call leaves out what is old: the file
    /// has up to 32 MiB, and no request is to wait for it at the start.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the next call tries again.
    pub(crate) fn save(&self, host: &Host) -> Result<()> {
        if !self.is_tidy.swap(true, Ordering::Relaxed) {
            self.tidy(host);
        }
        self.log.write()?;
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
            user: None,
            is_sub_agent: false,
            sticky: None,
            budget_left_nano_usd: None,
            keeps_budget: false,
            allowed_models: &[],
            prices: &Free,
        };
        let now = host.now().as_millisecond();
        labels.await_judgement("a", &request, true, now);
        let is_local = |id: &str| {
            labels.awaited.get(id).map(|awaited| awaited.is_local.load(Ordering::Relaxed))
        };
        assert_eq!(is_local("a"), Some(true));
        labels.answered("a", false);
        labels.answered("b", false);
        assert_eq!((is_local("a"), is_local("b")), (Some(false), None));
        labels.judged("a", "check", true, now + 1);
        labels.judged("a", "person", false, now + 2);
        // It is learned from once, and all signs are kept.
        assert_eq!(labels.learned.labels(), 1);
        labels.answered("a", true);
        labels.judged("a", "person", false, now + 3);
        labels.judged("b", "person", true, now + 4);
        assert_eq!(labels.learned.labels(), 2);
        labels.save(&host).expect("it is written");
        let kept = labels.log.read().expect("it is read");
        assert_eq!((kept.len(), kept[0].judged.at), (1, now));
        let signs: Vec<(&str, bool, bool)> =
            kept[0].signs.iter().map(|it| (it.origin.as_str(), it.local, it.right)).collect();
        let expected = [("check", false, true), ("person", false, false), ("person", true, false)];
        assert_eq!(signs, expected);
        let features = Sample::unpack(&kept[0].sample).expect("they are whole");
        assert_eq!(features.pack(), kept[0].sample);
        let text = std::fs::read_to_string(directory.path().join("labels.jsonl")).expect("a file");
        assert!(!text.contains("river"), "{text}");
    }

    #[test]
    fn old_labels_go_with_the_first_save() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
        let judged = Judged { id: "old".to_owned(), at: 7, project: None, session: None };
        let log = LabelLog::within(directory.path());
        log.add(&Line::Request { judged, sample: String::new() });
        log.write().expect("it is written");
        let labels = Labels::load(&host, true);
        assert_eq!(labels.log.read().expect("it is read").len(), 1, "the start waits for none");
        labels.save(&host).expect("it is written");
        assert!(labels.log.read().expect("it is read").is_empty());
    }

    #[test]
    fn a_vote_judges_the_local_model() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
        let labels = Labels::load(&host, true);
        let inspected = Inspected { last_words: "one river".into(), ..Inspected::default() };
        let now = host.now().as_millisecond();
        labels.await_vote("c", Sample::of_text(&inspected), now);
        labels.voted("c", true, 2);
        labels.voted("unknown", true, 2);
        let kept = labels.log.read().expect("it is read");
        assert_eq!((kept.len(), kept[0].signs[0].origin.as_str()), (1, "comparison"));
        let idle = Labels::load(&host, false);
        idle.await_vote("d", Sample::of_text(&inspected), now);
        idle.voted("d", true, 2);
        assert_eq!(idle.log.read().expect("it is read").len(), 1, "it collects nothing");
    }
}
