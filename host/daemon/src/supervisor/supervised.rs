//! State of one module in the supervisor: its phase and its threads.

use std::{
    collections::HashMap,
    mem,
    thread::{JoinHandle, ThreadId},
};

use lodestar_config::ModuleSection;

use super::{
    history::Decisions,
    reloads::{Reload, Waiter},
};

/// A module with its phase. Only its methods change the phase.
#[derive(Debug, Default)]
pub(super) struct Supervised {
    phase: Phase,
    /// Threads that have not ended, those of replaced generations included.
    threads: HashMap<ThreadId, JoinHandle<()>>,
    /// Hash of its library when it was last read.
    seen: Option<String>,
    /// Decisions to restore if the rollback for which it starts next fails.
    before_rollback: Option<Decisions>,
}

/// The phases of a module.
#[derive(Debug, Default)]
pub(super) enum Phase {
    /// It has no thread, and may start.
    #[default]
    Off,
    /// It has no thread: it failed with this section. It starts again when the section or its
    /// library changes, or on request.
    GivenUp(ModuleSection),
    /// Its first generation is starting.
    Starting(Generation),
    /// One of its generations runs.
    Running(Generation),
    /// A generation runs, and another is to take over from it.
    Reloading(Generation, Reload),
    /// It was told to stop, perhaps during a reload.
    Stopping(Generation, Option<Reload>),
}

/// The generation that runs, or is to run.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    /// Section that it was started with.
    pub(super) section: ModuleSection,
    /// A later section that was refused.
    pub(super) refused: Option<ModuleSection>,
    /// True once it, or the first one after whose start it took over, has run.
    pub(super) has_run: bool,
    /// True when its library may have been replaced while it was loaded.
    library_may_have_changed: bool,
    /// Decisions to restore if the rollback that started it fails.
    before_rollback: Option<Decisions>,
}

/// Work that is left when the thread of a module ends.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Decisions before the rollback that it was started for.
    pub(super) before_rollback: Option<Decisions>,
    /// Operations that wait for a reload that nothing else ends any more.
    pub(super) waiting: Vec<Waiter>,
}

impl Supervised {
    pub(super) const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Returns whether it has a thread that runs the module or is starting it.
    pub(super) const fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Off | Phase::GivenUp(_))
    }

    /// Returns the section that was tried last: the one that it runs with, or that it was given up
    /// with.
    pub(super) const fn tried(&self) -> Option<&ModuleSection> {
        match &self.phase {
            Phase::Off => None,
            Phase::GivenUp(section) => Some(section),
            Phase::Starting(generation)
            | Phase::Running(generation)
            | Phase::Reloading(generation, _)
            | Phase::Stopping(generation, _) => Some(&generation.section),
        }
    }

    /// Returns the reload that is under way.
    pub(super) const fn reload(&self) -> Option<&Reload> {
        match &self.phase {
            Phase::Reloading(_, reload) | Phase::Stopping(_, Some(reload)) => Some(reload),
            _ => None,
        }
    }

    /// Returns whether this thread belongs to the reload that is under way.
    pub(super) fn is_reloaded_by(&self, thread: ThreadId) -> bool {
        self.reload().is_some_and(|reload| reload.thread == thread)
    }

    pub(super) const fn reload_mut(&mut self) -> Option<&mut Reload> {
        match &mut self.phase {
            Phase::Reloading(_, reload) | Phase::Stopping(_, Some(reload)) => Some(reload),
            _ => None,
        }
    }

    /// Notes that its first generation is starting.
    pub(super) fn started(&mut self, section: ModuleSection) {
        debug_assert!(!self.is_alive(), "one thread runs a module");
        let before_rollback = self.before_rollback.take();
        self.phase = Phase::Starting(Generation {
            section,
            refused: None,
            has_run: false,
            library_may_have_changed: false,
            before_rollback,
        });
    }

    /// Notes that it cannot start with this section. Returns the decisions before the rollback that
    /// it was to start for.
    #[must_use]
    pub(super) fn give_up(&mut self, section: ModuleSection) -> Option<Decisions> {
        debug_assert!(!self.is_alive(), "what runs is not given up");
        self.phase = Phase::GivenUp(section);
        self.before_rollback.take()
    }

    /// Lets the next plan start it again, where it was given up.
    pub(super) fn try_again(&mut self) {
        if matches!(self.phase, Phase::GivenUp(_)) {
            self.phase = Phase::Off;
        }
    }

    /// Notes the decisions before the rollback that it starts for, or will start for when it has
    /// stopped. Returns them back where it has no generation.
    pub(super) fn starts_for_rollback(&mut self, before: Decisions) -> Option<Decisions> {
        let noted = match &mut self.phase {
            Phase::Off | Phase::GivenUp(_) => return Some(before),
            Phase::Stopping(..) => &mut self.before_rollback,
            Phase::Starting(generation)
            | Phase::Running(generation)
            | Phase::Reloading(generation, _) => &mut generation.before_rollback,
        };
        // Of two rollbacks that do not come about, the first one found what is to be restored.
        noted.get_or_insert(before);
        None
    }

    /// Returns whether it was told to stop and has not ended.
    pub(super) const fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping(..))
    }

    /// Notes that its library may have been replaced while it is being loaded.
    pub(super) const fn library_may_have_changed(&mut self) {
        if let Some(generation) = self.generation_mut() {
            generation.library_may_have_changed = true;
        }
    }

    /// Notes that a generation runs. Returns whether its library is to be read again.
    pub(super) fn runs(&mut self) -> bool {
        let Some(generation) = self.generation_mut() else { return false };
        generation.before_rollback = None;
        generation.has_run = true;
        let look_again = mem::take(&mut generation.library_may_have_changed);
        self.phase = match mem::take(&mut self.phase) {
            Phase::Starting(generation) => Phase::Running(generation),
            phase => phase,
        };
        look_again
    }

    /// Notes that it was told to stop.
    pub(super) fn stops(&mut self) {
        self.phase = match mem::take(&mut self.phase) {
            Phase::Starting(generation) | Phase::Running(generation) => {
                Phase::Stopping(generation, None)
            }
            Phase::Reloading(generation, reload) => Phase::Stopping(generation, Some(reload)),
            phase => phase,
        };
    }

    /// Notes that a reload of it is under way.
    pub(super) fn reloads(&mut self, reload: Reload) {
        self.phase = match mem::take(&mut self.phase) {
            Phase::Starting(generation) | Phase::Running(generation) => {
                Phase::Reloading(generation, reload)
            }
            Phase::Stopping(generation, None) => Phase::Stopping(generation, Some(reload)),
            phase => {
                debug_assert!(false, "a reload needs a generation, and is the only one: {phase:?}");
                phase
            }
        };
    }

    /// Ends the reload that is under way: the new generation took over, with its section. Returns
    /// `None` where there is no reload.
    pub(super) fn took_over(&mut self) -> Option<Reload> {
        let (generation, reload) = self.end_reload()?;
        let (section, refused) = (reload.section.clone(), None);
        self.phase = Phase::Running(Generation { section, refused, has_run: true, ..generation });
        Some(reload)
    }

    /// Ends the reload that is under way: the previous generation goes on. The section of the
    /// reload stays refused until it changes, unless the reload was to decide an install, which is
    /// rolled back, or the previous generation is still starting. Returns `None` where there is no
    /// reload.
    pub(super) fn goes_on(&mut self) -> Option<Reload> {
        let (mut generation, reload) = self.end_reload()?;
        if !generation.has_run {
            // There was nobody to take over from: nothing is said of the section.
            self.phase = Phase::Starting(generation);
            return Some(reload);
        }
        if !reload.waiting.iter().any(|waiter| waiter.transaction.is_some()) {
            generation.refused = Some(reload.section.clone());
        }
        self.phase = Phase::Running(generation);
        Some(reload)
    }

    /// Takes the reload out of the phase. Where there was one, the caller must set the phase.
    fn end_reload(&mut self) -> Option<(Generation, Reload)> {
        match mem::take(&mut self.phase) {
            Phase::Reloading(generation, reload) | Phase::Stopping(generation, Some(reload)) => {
                Some((generation, reload))
            }
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    /// Forgets the section that was refused.
    pub(super) fn forget_refusal(&mut self) {
        if let Some(generation) = self.generation_mut() {
            generation.refused = None;
        }
    }

    /// Notes that its thread ended. A module that `failed` although it is enabled is given up,
    /// unless its library may have been replaced while it was loaded.
    pub(super) fn ended(&mut self, failed: bool) -> Left {
        let (generation, reload) = match mem::take(&mut self.phase) {
            Phase::Starting(generation) | Phase::Running(generation) => (generation, None),
            Phase::Reloading(generation, reload) => (generation, Some(reload)),
            Phase::Stopping(generation, reload) => (generation, reload),
            phase @ (Phase::Off | Phase::GivenUp(_)) => {
                self.phase = phase;
                return Left::default();
            }
        };
        let mut before_rollback = generation.before_rollback;
        if failed && !generation.library_may_have_changed {
            let next = self.give_up(generation.section);
            before_rollback = before_rollback.or(next);
        }
        if let Some(reload) = &reload {
            // Its generation is late for whatever runs by then.
            let _ = reload.claim.take();
        }
        let waiting = reload.map(Reload::into_waiting).unwrap_or_default();
        Left { before_rollback, waiting }
    }

    /// Returns whether its generation has run, or it has none.
    pub(super) const fn has_run(&self) -> bool {
        match &self.phase {
            Phase::Off | Phase::GivenUp(_) => true,
            Phase::Starting(generation)
            | Phase::Running(generation)
            | Phase::Reloading(generation, _)
            | Phase::Stopping(generation, _) => generation.has_run,
        }
    }

    const fn generation_mut(&mut self) -> Option<&mut Generation> {
        match &mut self.phase {
            Phase::Off | Phase::GivenUp(_) => None,
            Phase::Starting(generation)
            | Phase::Running(generation)
            | Phase::Reloading(generation, _)
            | Phase::Stopping(generation, _) => Some(generation),
        }
    }

    /// Notes the hash of the library on disk. Returns whether it has changed.
    pub(super) fn sees(&mut self, sha256: Option<String>) -> bool {
        let is_new = self.seen != sha256;
        self.seen = sha256;
        is_new
    }

    pub(super) fn add_thread(&mut self, thread: JoinHandle<()>) -> ThreadId {
        let id = thread.thread().id();
        self.threads.insert(id, thread);
        id
    }

    /// Removes a thread that is about to end, to be joined.
    pub(super) fn take_thread(&mut self, thread: ThreadId) -> Option<JoinHandle<()>> {
        self.threads.remove(&thread)
    }

    /// Returns whether all of its threads have ended.
    pub(super) fn is_finished(&self) -> bool {
        self.threads.values().all(JoinHandle::is_finished)
    }

    /// Returns whether it neither runs nor has a thread that has not ended.
    pub(super) fn is_over(&self) -> bool {
        !self.is_alive() && self.threads.is_empty()
    }
}
