//! One module as the supervisor knows it: the phase that it is in, and the threads that it has.

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

/// A module, by the phase that it is in. A phase is left by a method alone.
#[derive(Debug, Default)]
pub(super) struct Supervised {
    phase: Phase,
    /// Its threads that have not ended, those of generations that were replaced among them.
    threads: HashMap<ThreadId, JoinHandle<()>>,
    /// The hash of its library when it was last looked at.
    seen: Option<String>,
}

/// The phases of a module.
#[derive(Debug, Default)]
pub(super) enum Phase {
    /// It has no thread, and nothing speaks against a start.
    #[default]
    Off,
    /// It has no thread: it did not start or go on with this section. It is tried again when the
    /// section or its library changes, or when somebody asks.
    GivenUp(ModuleSection),
    /// Its first generation is on its way.
    Starting(Generation),
    /// A generation of it runs.
    Running(Generation),
    /// Another generation is to take over from the one that runs.
    Reloading(Generation, Reload),
    /// It was told to stop, perhaps in the middle of a reload.
    Stopping(Generation, Option<Reload>),
}

/// The generation that runs, or is to run.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    /// The section that it was started with.
    pub(super) section: ModuleSection,
    /// A later section that it did not take.
    pub(super) refused: Option<ModuleSection>,
    /// Whether its library may have been replaced while it was loaded.
    library_may_have_changed: bool,
    /// The decisions that hold again if the rollback that started it comes to nothing.
    before_rollback: Option<Decisions>,
}

/// Obligations that a thread leaves behind when it ends.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The decisions before the rollback that it was started for.
    pub(super) before_rollback: Option<Decisions>,
    /// Whoever waits for a reload that nobody will end any more.
    pub(super) waiting: Vec<Waiter>,
}

impl Supervised {
    pub(super) const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Returns whether it has a thread that runs it or will.
    pub(super) const fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Off | Phase::GivenUp(_))
    }

    /// Returns the section that was tried last: the one that it runs with, or was given up with.
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

    /// Returns whether the reload that is under way is the one of this thread.
    pub(super) fn is_reloaded_by(&self, thread: ThreadId) -> bool {
        self.reload().is_some_and(|reload| reload.thread == thread)
    }

    pub(super) const fn reload_mut(&mut self) -> Option<&mut Reload> {
        match &mut self.phase {
            Phase::Reloading(_, reload) | Phase::Stopping(_, Some(reload)) => Some(reload),
            _ => None,
        }
    }

    /// Notes that its first generation is on its way.
    pub(super) fn started(&mut self, section: ModuleSection) {
        debug_assert!(!self.is_alive(), "one thread runs a module");
        self.phase = Phase::Starting(Generation {
            section,
            refused: None,
            library_may_have_changed: false,
            before_rollback: None,
        });
    }

    /// Notes that it could not even be begun with this section.
    pub(super) fn give_up(&mut self, section: ModuleSection) {
        debug_assert!(!self.is_alive(), "what runs is not given up");
        self.phase = Phase::GivenUp(section);
    }

    /// Lets the next plan try it again, where it was given up.
    pub(super) fn try_again(&mut self) {
        if matches!(self.phase, Phase::GivenUp(_)) {
            self.phase = Phase::Off;
        }
    }

    /// Notes the decisions before the rollback that it starts for. Returns them where it does not
    /// start.
    pub(super) fn starts_for_rollback(&mut self, before: Decisions) -> Option<Decisions> {
        let Some(generation) = self.generation_mut() else { return Some(before) };
        generation.before_rollback = Some(before);
        None
    }

    /// Notes that its library may have been replaced while it is loaded.
    pub(super) const fn library_may_have_changed(&mut self) {
        if let Some(generation) = self.generation_mut() {
            generation.library_may_have_changed = true;
        }
    }

    /// Notes that a generation runs. Returns whether its library is to be looked at again.
    pub(super) fn runs(&mut self) -> bool {
        let Some(generation) = self.generation_mut() else { return false };
        generation.before_rollback = None;
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

    /// Ends the reload that is under way: the new generation took over, with its section.
    pub(super) fn took_over(&mut self) -> Option<Reload> {
        let (generation, reload) = self.end_reload()?;
        let (section, refused) = (reload.section.clone(), None);
        self.phase = Phase::Running(Generation { section, refused, ..generation });
        Some(reload)
    }

    /// Ends the reload that is under way: the generation before goes on. A section that it did not
    /// take is not tried again until it changes; one on trial is taken back anyway.
    pub(super) fn goes_on(&mut self) -> Option<Reload> {
        let (mut generation, reload) = self.end_reload()?;
        if !reload.waiting.iter().any(|waiter| waiter.transaction.is_some()) {
            generation.refused = Some(reload.section.clone());
        }
        self.phase = Phase::Running(generation);
        Some(reload)
    }

    /// Takes the reload out; the phase is to be set anew where there was one.
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

    /// Forgets the section that it did not take.
    pub(super) fn forget_refusal(&mut self) {
        if let Some(generation) = self.generation_mut() {
            generation.refused = None;
        }
    }

    /// Notes that its thread ended. It is given up where it `failed` though it is wanted, unless
    /// another library lies there by now than the one that failed.
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
        if failed && !generation.library_may_have_changed {
            self.phase = Phase::GivenUp(generation.section);
        }
        let waiting = reload.map(Reload::into_waiting).unwrap_or_default();
        Left { before_rollback: generation.before_rollback, waiting }
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

    /// Notes the hash of its library as it lies there. Returns whether it is another one than
    /// before.
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

    /// Lets a thread go that has said that it ends.
    pub(super) fn take_thread(&mut self, thread: ThreadId) -> Option<JoinHandle<()>> {
        self.threads.remove(&thread)
    }

    /// Returns whether each of its threads has come to its end.
    pub(super) fn is_finished(&self) -> bool {
        self.threads.values().all(JoinHandle::is_finished)
    }

    /// Returns whether nothing of it is left to wait for.
    pub(super) fn is_over(&self) -> bool {
        !self.is_alive() && self.threads.is_empty()
    }
}
