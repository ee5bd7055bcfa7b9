//! Experiments that a command begins and ends while the router runs: those of another module.
//!
//! They outlast a reload and a restart, in `experiments.json` of the module's data directory.
//! Requests read them without a lock. One may have a lease: where nobody renews it, its end leads
//! everybody back to what would answer without it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use jiff::Timestamp;
use module_sdk::{Error, ErrorKind, Host, Result};
use serde::{Deserialize, Serialize};

use super::{
    experiment::{Allotment, ExperimentOptions, Unit},
    name_list::Names,
};

/// Name of the state.
const STATE: &str = "experiments";
/// Version of the state.
const VERSION: u32 = 1;
/// Experiments at most: each request looks at all.
const MOST: usize = 20;

/// Experiment as a command describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// Id, which `variant` of events begins with.
    pub id: String,
    /// Patterns of the models that are asked for; empty for `auto`.
    pub models: Vec<String>,
    /// Models of the variant, the first that can.
    #[serde(rename = "use")]
    pub targets: Vec<String>,
    /// Share of the units that gets the variant.
    pub share: f64,
    /// Unit that stays on its side.
    pub by: Unit,
    /// Seed of the draw.
    pub salt: String,
    /// Model that is asked beside the answers.
    pub shadow: Option<String>,
    /// Time after which it lapses where nobody begins it once more, in seconds.
    pub lease_seconds: Option<u32>,
    /// Time of its beginning.
    pub created_at: Timestamp,
}

impl Begun {
    /// Returns the experiment as decisions use it.
    pub(crate) fn options(&self) -> ExperimentOptions {
        ExperimentOptions {
            name: self.id.clone(),
            models: Names(self.models.clone()),
            share: self.share,
            by: self.by,
            targets: Names(self.targets.clone()),
            shadow: self.shadow.clone(),
            allotment: Allotment::All,
            salt: Some(self.salt.clone()),
        }
    }

    /// Returns whether another one is the same, whenever it was begun.
    fn is_like(&self, other: &Self) -> bool {
        *self == Self { created_at: self.created_at, ..other.clone() }
    }

    /// Returns the end of its lease, in milliseconds since the Unix epoch.
    fn until(&self, now: Timestamp) -> i64 {
        let lease = self.lease_seconds.map(|seconds| i64::from(seconds) * 1_000);
        lease.map_or(i64::MAX, |lease| now.as_millisecond().saturating_add(lease))
    }
}

/// Experiment that goes on.
#[derive(Debug)]
pub(crate) struct Running {
    /// Description.
    pub begun: Begun,
    /// The same as decisions use it.
    pub options: ExperimentOptions,
    /// End of its lease, in milliseconds since the Unix epoch.
    until: AtomicI64,
}

impl Running {
    fn new(begun: Begun, now: Timestamp) -> Self {
        Self { options: begun.options(), until: begun.until(now).into(), begun }
    }

    /// Returns whether its lease has not ended.
    pub(crate) fn goes_on(&self, now: Timestamp) -> bool {
        now.as_millisecond() < self.until.load(Ordering::Relaxed)
    }
}

/// Experiments that go on.
#[derive(Debug, Default)]
pub(crate) struct RunningExperiments {
    current: ArcSwap<Vec<Arc<Running>>>,
    /// Right to change them; `true` where those in force are not those of the state file.
    changing: Mutex<bool>,
}

/// Experiments as they lie in the state file.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    experiments: Vec<Begun>,
}

impl RunningExperiments {
    /// Returns those that go on, and those whose lease ended a moment ago.
    pub(crate) fn current(&self) -> Guard<Arc<Vec<Arc<Running>>>> {
        self.current.load()
    }

    /// Reads those that were begun before. Where they cannot be read there are none, so that
    /// everybody gets what would answer without them.
    pub(crate) fn load(&self, host: &Host) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = host.now();
        let stored = match host.load_state::<Stored>(STATE) {
            Ok(Some(stored)) if stored.version <= VERSION => stored.experiments,
            Ok(None) => Vec::new(),
            Ok(Some(_)) => {
                tracing::warn!("the experiments are of a newer version, and left out");
                Vec::new()
            }
            Err(error) => {
                tracing::warn!(%error, "the experiments that were begun cannot be read");
                Vec::new()
            }
        };
        let running = stored.into_iter().map(|begun| Arc::new(Running::new(begun, now)));
        self.current.store(Arc::new(running.collect()));
    }

    /// Begins an experiment, or renews the lease of the same one. Returns whether it is new.
    ///
    /// # Errors
    ///
    /// When another one has its id, there are too many, or it cannot be written.
    pub(crate) fn begin(&self, host: &Host, begun: Begun) -> Result<bool> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, current) = (host.now(), self.current.load_full());
        if let Some(known) = current.iter().find(|it| it.begun.id == begun.id) {
            if !known.begun.is_like(&begun) {
                let message = format!("another experiment is called {:?}", begun.id);
                return Err(Error::of(ErrorKind::Refused, message));
            }
            known.until.store(begun.until(now), Ordering::Relaxed);
            return Ok(false);
        }
        if current.len() >= MOST {
            let message = format!("{MOST} experiments go on already");
            return Err(Error::of(ErrorKind::Refused, message).hint("end one of them"));
        }
        let mut all = (*current).clone();
        all.push(Arc::new(Running::new(begun, now)));
        self.keep(host, all)?;
        Ok(true)
    }

    /// Ends an experiment. Returns whether it went on.
    ///
    /// # Errors
    ///
    /// When that cannot be written; for requests it has ended all the same.
    pub(crate) fn end(&self, host: &Host, id: &str) -> Result<bool> {
        self.retain(host, |running| running.begun.id != id)
    }

    /// Forgets those whose lease has ended.
    ///
    /// # Errors
    ///
    /// When that cannot be written.
    pub(crate) fn forget_lapsed(&self, host: &Host) -> Result<()> {
        let now = host.now();
        let is_unwritten = *self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_unwritten && self.current.load().iter().all(|running| running.goes_on(now)) {
            return Ok(());
        }
        self.retain(host, |running| running.goes_on(now)).map(drop)
    }

    fn retain(&self, host: &Host, stays: impl Fn(&Running) -> bool) -> Result<bool> {
        let mut is_unwritten = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load_full();
        let staying = current.iter().filter(|running| stays(running)).cloned();
        let staying: Vec<Arc<Running>> = staying.collect();
        let has_changed = staying.len() != current.len();
        if !has_changed && !*is_unwritten {
            return Ok(false);
        }
        // What is to be stopped is stopped, also where the disk is full; and it is written later,
        // so that no restart begins it again.
        self.current.store(Arc::new(staying.clone()));
        *is_unwritten = true;
        self.keep(host, staying)?;
        *is_unwritten = false;
        Ok(has_changed)
    }

    /// Writes experiments, and then puts them in force.
    fn keep(&self, host: &Host, all: Vec<Arc<Running>>) -> Result<()> {
        let experiments = all.iter().map(|running| running.begun.clone()).collect();
        host.save_state(STATE, &Stored { version: VERSION, experiments })?;
        self.current.store(Arc::new(all));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use module_sdk::testing::FakeHost;

    use super::*;

    fn begun(id: &str) -> Begun {
        Begun {
            id: id.to_owned(),
            models: vec!["shop".to_owned()],
            targets: vec!["shop:v2".to_owned()],
            share: 0.1,
            by: Unit::Session,
            salt: id.to_owned(),
            shadow: None,
            lease_seconds: Some(60),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn ids(all: &RunningExperiments) -> Vec<String> {
        all.current().iter().map(|running| running.begun.id.clone()).collect()
    }

    #[test]
    fn they_outlast_a_restart_and_lapse_where_nobody_renews_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let fake = Arc::new(FakeHost::new(directory.path()));
        let host = fake.host().expect("a host");
        let all = RunningExperiments::default();
        all.load(&host);
        assert!(all.begin(&host, begun("one")).expect("it begins"));
        assert!(!all.begin(&host, begun("one")).expect("it is the same"));
        let other = Begun { share: 0.2, ..begun("one") };
        let error = all.begin(&host, other).expect_err("another one has the name");
        assert_eq!(error.kind(), ErrorKind::Refused);
        all.begin(&host, Begun { lease_seconds: None, ..begun("two") }).expect("it begins");
        assert!(!all.end(&host, "three").expect("there is none"));

        let after = RunningExperiments::default();
        after.load(&host);
        assert_eq!(ids(&after), ["one", "two"]);
        let later = host.now() + Duration::from_secs(61);
        assert!(!after.current()[0].goes_on(later) && after.current()[1].goes_on(later));
        fake.set_now(later);
        after.forget_lapsed(&host).expect("it is written");
        assert_eq!(ids(&after), ["two"]);
        assert!(after.end(&host, "two").expect("it is written"));
        let after = RunningExperiments::default();
        after.load(&host);
        assert!(ids(&after).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_none_and_too_many_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("experiments.json"), "{torn").expect("it is ours");
        let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
        let all = RunningExperiments::default();
        all.load(&host);
        assert!(ids(&all).is_empty());
        for number in 0..MOST {
            all.begin(&host, begun(&number.to_string())).expect("it begins");
        }
        all.begin(&host, begun("more")).expect_err("there are too many");
    }
}
