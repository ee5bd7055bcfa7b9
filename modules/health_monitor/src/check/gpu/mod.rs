//! NVIDIA cards: temperature, memory, load, power, what slows them down, and the errors of their
//! driver, by NVIDIA's management library (NVML).
//!
//! Everything may be missing. Without the library there is no `gpu` to watch. A driver that does
//! not answer is a trouble of `gpu`. What a card does not have is asked for once, and then has no
//! value. A card that is lost stays known: it is told as lost, no more asked, and looked for again
//! with a new session from time to time. A call that hangs leaves its thread behind, as with every
//! check.

mod bus;
mod card;
mod item;
mod session;
mod xid;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use self::{
    card::{Card, Lost},
    item::{Item, Items},
    session::{About, End, Failure, Session},
    xid::Watch,
};
use super::{Check, CheckOptions, Progress};
use crate::reading::{Component, Found, Report};

/// Settings of the check of GPUs.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GpuOptions {
    /// Settings that every check has.
    #[serde(flatten)]
    pub check: CheckOptions,
    /// Library of NVIDIA's driver. Default: `libnvidia-ml.so.1`, wherever the system has it. With a
    /// library of its own a machine is taken to have a card.
    pub library: Option<PathBuf>,
    /// Time between two attempts to reach a driver that is not there, or a card that is lost, in
    /// milliseconds.
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub retry_ms: u64,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self { check: CheckOptions::default(), library: None, retry_ms: 60_000 }
    }
}

/// Name that the library has by default.
pub(crate) const LIBRARY: &str = "libnvidia-ml.so.1";
/// Folder in which the kernel lists the devices of the machine.
const DEVICES: &str = "/sys/bus/pci/devices";

/// Returns the maker of the checks of GPUs. A check that follows one that hangs knows what that one
/// knew. `is_leased` tells whether a training run has the cards.
pub fn gpu(
    options: &GpuOptions,
    is_leased: &Arc<AtomicBool>,
) -> impl Fn() -> Box<dyn Check> + Send + Sync + use<> + 'static {
    let is_leased = is_leased.clone();
    let shared = Arc::new(Shared::default());
    let library = options.library.clone().map(PathBuf::into_os_string);
    let retry = Duration::from_millis(options.retry_ms);
    move || {
        let mut known = shared.lock();
        known.generation += 1;
        let generation = known.generation;
        drop(known);
        Box::new(Gpu {
            library: library.clone(),
            retry,
            generation,
            component: "gpu".into(),
            shared: shared.clone(),
            is_leased: is_leased.clone(),
            link: Link::Closed(Failure::Hangs),
            tried: None,
            has_card: false,
        })
    }
}

/// Knowledge of the cards, which all checks that were made share.
#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    xids: Arc<xid::Counts>,
}

#[derive(Debug, Default)]
struct Known {
    /// Number of the check that was made last; those before it hang.
    generation: u64,
    cards: Vec<Card>,
    /// Failure that was logged.
    told: Option<Failure>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Gpu {
    library: Option<OsString>,
    retry: Duration,
    generation: u64,
    component: Component,
    shared: Arc<Shared>,
    is_leased: Arc<AtomicBool>,
    link: Link,
    /// Time of the last attempt to open a session.
    tried: Option<Instant>,
    /// `true` where the machine had a card when the last attempt failed.
    has_card: bool,
}

/// Link to the driver.
enum Link {
    Open {
        /// Ends before the session does.
        _watch: Option<Watch>,
        session: Session,
    },
    Closed(Failure),
}

/// A card that is to be asked.
struct Asked {
    id: Arc<str>,
    component: Component,
    index: u32,
    unsupported: Items,
    with_rare: bool,
}

impl Check for Gpu {
    fn run(&mut self, progress: &Progress) -> Report {
        if let Some(failure) = self.connect(progress) {
            return self.report_failure(&failure);
        }
        let mut report = Report::default();
        let ids: Vec<Arc<str>> = self.shared.lock().cards.iter().map(|it| it.id.clone()).collect();
        for id in ids {
            if !self.look(&id, progress, &mut report) {
                return Report::default();
            }
        }
        report
    }

    fn idle(&self) -> Duration {
        match (&self.link, self.tried) {
            (Link::Closed(_), Some(tried)) => self.retry.saturating_sub(tried.elapsed()),
            _ => Duration::ZERO,
        }
    }
}

impl Gpu {
    /// Opens a session where there is none, or where a card is lost, if an attempt is due; returns
    /// the reason why there is none.
    fn connect(&mut self, progress: &Progress) -> Option<Failure> {
        let is_due = self.tried.is_none_or(|at| at.elapsed() >= self.retry);
        match &self.link {
            Link::Open { .. } if !is_due || !self.has_lost() => return None,
            Link::Closed(failure) if !is_due => return Some(failure.clone()),
            _ => {}
        }
        if !progress.enter(&self.component) {
            return Some(Failure::Hangs);
        }
        // The former session ends first: the driver begins anew only when nobody uses it.
        self.link = Link::Closed(Failure::Hangs);
        let opened = self.open();
        self.tried = Some(Instant::now());
        let failure = match opened {
            Ok(link) => {
                self.link = link;
                None
            }
            Err(failure) => {
                self.link = Link::Closed(failure.clone());
                self.has_card = self.library.is_some() || bus::has_card(Path::new(DEVICES));
                Some(failure)
            }
        };
        self.log(failure.as_ref());
        failure
    }

    fn open(&self) -> Result<Link, Failure> {
        let session = Session::open(self.library.as_deref())?;
        let found = session.cards()?;
        let mut known = self.shared.lock();
        if known.generation != self.generation {
            return Err(Failure::Hangs);
        }
        known.find(found);
        if known.cards.is_empty() {
            return Err(Failure::NoCard);
        }
        let telling = known.cards.iter().filter(|card| {
            !card.is_lost() && card.has_told_its_id() && !card.unsupported().has(Item::Xid)
        });
        let telling = telling.map(|card| (card.index(), card.id.clone())).collect();
        drop(known);
        let _watch = Watch::start(session.nvml(), telling, &self.shared.xids);
        Ok(Link::Open { _watch, session })
    }

    fn has_lost(&self) -> bool {
        self.shared.lock().cards.iter().any(Card::is_lost)
    }

    /// Looks at one card; returns `false` where this check was left behind meanwhile.
    fn look(&mut self, id: &str, progress: &Progress, report: &mut Report) -> bool {
        let xids = self.shared.xids.of(id);
        let asked = {
            let mut known = self.shared.lock();
            if known.generation != self.generation {
                return false;
            }
            let Some(card) = known.card(id) else { return true };
            if card.is_lost() {
                card.report_lost(&xids, report);
                return true;
            }
            Asked {
                id: card.id.clone(),
                component: card.component.clone(),
                index: card.index(),
                unsupported: card.unsupported(),
                with_rare: card.wants_rare(),
            }
        };
        let Link::Open { session, .. } = &self.link else { return true };
        if !progress.enter(&asked.component) {
            report.found.push(Found::unknown(&asked.component, Failure::Hangs.to_string()));
            return true;
        }
        let sample = session.sample(asked.index, asked.unsupported, asked.with_rare);
        let mut known = self.shared.lock();
        let is_current = known.generation == self.generation;
        let end = sample.end;
        match known.card(&asked.id) {
            Some(card) if is_current => {
                let is_leased = self.is_leased.load(Ordering::Relaxed);
                card.take(sample, is_leased, &xids, report);
            }
            // The answer came, and too late.
            Some(card) => card.time_out(),
            None => {}
        }
        drop(known);
        if end == Some(End::Closed) {
            (self.link, self.tried) = (Link::Closed(Failure::Hangs), None);
        }
        is_current
    }

    /// Returns the report of a driver that cannot be reached.
    fn report_failure(&self, failure: &Failure) -> Report {
        let message = failure.to_string();
        match failure {
            Failure::NoLibrary(_) if self.has_card && self.library.is_none() => self.absent(
                "there is an NVIDIA card without its driver; Debian: `apt install nvidia-driver`"
                    .to_owned(),
            ),
            Failure::NoLibrary(_) | Failure::NoCard => self.absent(message),
            Failure::NotLoaded if !self.has_card => self.absent("no NVIDIA card".to_owned()),
            Failure::NotLoaded => card::without_driver(&self.component, "not_loaded", message),
            Failure::Mismatch => card::without_driver(&self.component, "version_mismatch", message),
            Failure::Hangs | Failure::Other(_) => self.unknown(&message),
        }
    }

    fn absent(&self, message: String) -> Report {
        let found = vec![Found::absent(&self.component, message)];
        Report { found, ..Report::default() }
    }

    fn unknown(&self, message: &str) -> Report {
        let known = self.shared.lock();
        let mut found: Vec<Found> =
            known.cards.iter().map(|card| Found::unknown(&card.component, message)).collect();
        if found.is_empty() {
            found.push(Found::unknown(&self.component, message));
        }
        Report { found, ..Report::default() }
    }

    /// Says once what became of the driver.
    fn log(&self, failure: Option<&Failure>) {
        let mut known = self.shared.lock();
        if known.generation != self.generation || known.told.as_ref() == failure {
            return;
        }
        match failure {
            None => tracing::info!("the NVIDIA driver answers"),
            Some(it @ (Failure::NotLoaded | Failure::Mismatch | Failure::Other(_)))
                if self.has_card =>
            {
                tracing::warn!("no GPU is watched: {it}");
            }
            Some(it) => tracing::info!("no GPU is watched: {it}"),
        }
        known.told = failure.cloned();
    }
}

impl Known {
    fn card(&mut self, id: &str) -> Option<&mut Card> {
        self.cards.iter_mut().find(|card| &*card.id == id)
    }

    /// Takes the cards of a new session. One that was known and is not there is lost.
    fn find(&mut self, found: Vec<About>) {
        self.cards.retain(Card::has_told_its_id);
        for card in &mut self.cards {
            card.lose(Lost::NotListed);
        }
        for about in found {
            let same = |card: &&mut Card| match &about.id {
                Some(id) => *card.id == **id,
                None => card.index() == about.index,
            };
            match self.cards.iter_mut().find(same) {
                Some(card) => card.begin(about),
                None => self.cards.push(Card::new(about)),
            }
        }
        let is_one = self.cards.len() == 1;
        for (number, card) in self.cards.iter_mut().enumerate() {
            let name = if is_one { "gpu".to_owned() } else { format!("gpu.{number}") };
            card.call(&name);
        }
    }
}
