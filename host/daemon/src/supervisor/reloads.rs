//! Reloads of modules: of each module one is under way at a time, and at most one waits behind it.

use std::{
    sync::Arc,
    thread::ThreadId,
    time::{Duration, Instant},
};

use lodestar_api::{Operation, ProblemCode};
use lodestar_config::{Isolation, ModuleSection};
use lodestar_library as library;

use super::{
    Daemon, Fleet, Pending, Refused,
    error::ReloadError,
    isolation::isolation_of,
    packages::{package_of, to_start, where_looked},
    transactions::{Transaction, commit, roll_back},
};
use crate::module::{OneShotFlag, StartGate, State};

/// Time that a reload may take before it counts as hung.
const RELOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Library that a reload is to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The library that a start of the daemon would load.
    AsStarted,
    /// The library on the module path, even if it proved bad before.
    OnPath,
    /// The generation kept on disk that is to run in the place of a refused library.
    Kept(Refused),
}

/// A reload under way.
#[derive(Debug)]
pub(super) struct Reload {
    pub(super) wanted: Wanted,
    pub(super) waiting: Vec<Waiter>,
    /// Section of the configuration that the new generation gets.
    pub(super) section: ModuleSection,
    pub(super) begun: Instant,
    /// Thread of the new generation.
    pub(super) thread: ThreadId,
    /// One-shot flag that decides whether the new generation takes over or the reload is given up.
    pub(super) claim: Arc<OneShotFlag>,
    /// Reload that was requested after this one had begun. One is enough for all who want the same
    /// library: they share its outcome.
    pub(super) next: Option<Next>,
}

/// A reload that begins when the one before it has ended.
#[derive(Debug)]
pub(super) struct Next {
    wanted: Wanted,
    waiting: Vec<Waiter>,
}

/// An operation that ends with a reload.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) pending: Pending,
    /// Transaction of the install that the reload decides.
    pub(super) transaction: Option<Transaction>,
}

impl Waiter {
    fn new(pending: Pending) -> Self {
        Self { pending, transaction: None }
    }
}

impl Reload {
    /// Returns whether the reload, or the one behind it, gives this section to the module.
    pub(super) fn covers(&self, section: &ModuleSection) -> bool {
        self.section == *section || self.next.is_some()
    }

    /// Returns whether the reload behind it loads the library that lies on the module path by then.
    pub(super) fn loads_again(&self) -> bool {
        self.next.as_ref().is_some_and(|next| !matches!(next.wanted, Wanted::Kept(_)))
    }

    /// Returns the operations that wait for the reload and for the one behind it.
    pub(super) fn into_waiting(self) -> Vec<Waiter> {
        let later = self.next.into_iter().flat_map(|next| next.waiting);
        self.waiting.into_iter().chain(later).collect()
    }

    /// Queues an operation of this kind for the reload behind this one. A request for another
    /// library replaces the queued one; returns the operations that waited for that.
    pub(super) fn queue(
        &mut self,
        wanted: Wanted,
        kind: &str,
        begin: impl Fn() -> Pending,
    ) -> (Operation, Vec<Waiter>) {
        if let Some(next) = self.next.as_mut().filter(|next| next.wanted == wanted) {
            let mut operations = next.waiting.iter().map(|waiter| waiter.pending.operation());
            if let Some(same) = operations.find(|operation| operation.kind == kind) {
                return (same, Vec::new());
            }
            let pending = begin();
            let operation = pending.operation();
            next.waiting.push(Waiter::new(pending));
            return (operation, Vec::new());
        }
        let pending = begin();
        let operation = pending.operation();
        let replaced = self.next.replace(Next { wanted, waiting: vec![Waiter::new(pending)] });
        (operation, replaced.map(|next| next.waiting).unwrap_or_default())
    }

    /// Makes the reload that ends `operation`, begun or queued, decide the transaction of an
    /// install. Returns the transaction where there is no such reload.
    pub(super) fn begin_transaction(
        &mut self,
        operation: &str,
        transaction: Transaction,
    ) -> Option<Transaction> {
        let later = self.next.iter_mut().flat_map(|next| &mut next.waiting);
        let mut waiting = self.waiting.iter_mut().chain(later);
        let Some(waiter) = waiting.find(|waiter| waiter.pending.operation().id == operation) else {
            return Some(transaction);
        };
        waiter.transaction = Some(transaction);
        None
    }
}

impl Fleet {
    /// Begins a reload of a module that runs, or queues it behind the one under way.
    pub(super) fn reload_module(&mut self, module: &str, wanted: Wanted, kind: &str) -> Operation {
        let operations = self.daemon.operations.clone();
        let begin = || operations.begin(kind, Some(module));
        let Some(reload) = self.module_mut(module).reload_mut() else {
            let pending = begin();
            let operation = pending.operation();
            self.begin_reload(module, wanted, vec![Waiter::new(pending)]);
            return operation;
        };
        let (operation, replaced) = reload.queue(wanted, kind, begin);
        let message = format!("a later {kind} of {module} came first");
        for earlier in replaced {
            reload_fails(self, earlier, ProblemCode::Busy, &message);
        }
        operation
    }

    fn begin_reload(&mut self, module: &str, wanted: Wanted, waiting: Vec<Waiter>) {
        let (section, thread, claim) = match self.try_reload(module, &wanted) {
            Ok(begun) => begun,
            Err(error) => {
                for waiter in waiting {
                    reload_fails(self, waiter, error.code(), &error.to_string());
                }
                return;
            }
        };
        let begun = Instant::now();
        let reload = Reload { wanted, waiting, section, begun, thread, claim, next: None };
        self.module_mut(module).reloads(reload);
    }

    fn try_reload(
        &mut self,
        module: &str,
        wanted: &Wanted,
    ) -> Result<(ModuleSection, ThreadId, Arc<OneShotFlag>), ReloadError> {
        let config = self.daemon.config();
        if self.stopping {
            return Err(ReloadError::Ending);
        }
        let Some(section) = config.module(module).filter(|section| section.enabled) else {
            return Err(ReloadError::Disabled(module.to_owned()));
        };
        let package = match wanted {
            Wanted::AsStarted => to_start(&self.daemon, section).map(|(package, _)| package),
            Wanted::OnPath => package_of(&self.daemon, section),
            Wanted::Kept(refused) => {
                library::find_generation(&self.daemon.places.state_dir, module, &refused.instead)
            }
        };
        let package =
            package.ok_or_else(|| ReloadError::Absent(where_looked(&self.daemon, module)))?;
        let (slot, claim) = (self.daemon.slot(module), Arc::<OneShotFlag>::default());
        let gate = StartGate::new(0);
        let thread = self.spawn(&slot, &config, section, package, &gate, Some(claim.clone()))?;
        Ok((section.clone(), thread, claim))
    }

    /// Ends the reload of a new generation that took over: commits its install, and begins the
    /// queued reload.
    pub(super) fn reload_took_over(&mut self, module: &str, message: &str) {
        let Some(reload) = self.module_mut(module).took_over() else { return };
        self.daemon.slot(module).set_behind(None);
        self.daemon.histories.decide(module, |decisions| match reload.wanted {
            Wanted::AsStarted => {}
            Wanted::OnPath => decisions.refused = None,
            // What lies there may be the very one that is wanted.
            Wanted::Kept(refused) => {
                let differs = refused.sha256 != refused.instead;
                decisions.refused = differs.then_some(refused);
            }
        });
        let mut transactions =
            reload.waiting.iter().filter_map(|waiter| waiter.transaction.as_ref());
        let kept = transactions.try_for_each(|transaction| commit(self, transaction));
        for Waiter { pending, transaction } in reload.waiting {
            // Its turn is over before anybody hears of the outcome.
            drop(transaction);
            match &kept {
                Err(problem) if pending.operation().kind == "install" => {
                    let what = format!("{message}, but only until lodestard ends");
                    let what = format!("{what}: {}", problem.detail);
                    pending.failed(problem.code, what, problem.help.clone());
                }
                _ => pending.done(message),
            }
        }
        self.after_reload(module, reload.next);
    }

    /// Ends the reload of a new generation that did not take over: rolls its install back, and
    /// begins the queued reload.
    pub(super) fn reload_was_refused(&mut self, module: &str, reason: &str) {
        let Some(reload) = self.module_mut(module).goes_on() else { return };
        let (mut undone, mut waiting) = (String::new(), Vec::new());
        for Waiter { pending, transaction } in reload.waiting {
            undone.extend(
                transaction.map(|transaction| format!(", and {}", roll_back(self, transaction))),
            );
            waiting.push(pending);
        }
        for pending in waiting {
            let help = format!("`lodestar modules why {module}` shows the history");
            let message = format!("{module}: {reason}{undone}");
            pending.failed(ProblemCode::Refused, message, Some(help));
        }
        self.after_reload(module, reload.next);
    }

    fn after_reload(&mut self, module: &str, next: Option<Next>) {
        if let Some(Next { wanted, waiting }) = next {
            self.begin_reload(module, wanted, waiting);
        }
        self.reconcile();
    }

    /// Gives up reloads that hang. A generation that returns late does not take over any more.
    pub(super) fn watch_reloads(&mut self) {
        let reloads =
            self.modules.iter().filter_map(|(name, module)| Some((name, module.reload()?)));
        let late = reloads.filter(|(name, reload)| {
            reload.begun.elapsed() > RELOAD_DEADLINE
                && !ends_by_itself(&self.daemon, name, reload)
                && reload.claim.take()
        });
        let hung: Vec<String> = late.map(|(name, _)| name.clone()).collect();
        for module in hung {
            self.daemon.context.listeners.take_back(&module);
            let slot = self.daemon.slot(&module);
            let new = slot.entry.successor_clock().and_then(|clock| clock.running());
            // The new one may wait for the one that runs.
            let old = || slot.entry.clock().running().map(|(call, _)| (call, "running"));
            let (call, whose) = new
                .map(|(call, _)| (call, "new"))
                .or_else(old)
                .unwrap_or_else(|| ("start".to_owned(), "new"));
            let then = match slot.entry.state() {
                State::Running | State::Degraded => "the generation before goes on",
                _ => "its events wait until lodestard is restarted",
            };
            let reason = format!(
                "the {call} of the {whose} generation has not returned for {} s; {then}",
                RELOAD_DEADLINE.as_secs()
            );
            tracing::error!(module, reason, "a reload hangs");
            self.daemon.histories.record(&module, "hangs", reason.clone());
            self.reload_was_refused(&module, &reason);
        }
    }
}

/// Fails an operation whose reload changed nothing, and rolls its install back.
fn reload_fails(fleet: &mut Fleet, waiter: Waiter, code: ProblemCode, message: &str) {
    let undone = waiter.transaction.map(|transaction| roll_back(fleet, transaction));
    let undone = undone.map(|installed| format!("; {installed}")).unwrap_or_default();
    waiter.pending.failed(code, format!("{message}{undone}"), None);
}

/// Fails the operations that wait for reloads of a module that ended.
pub(super) fn reloads_end(fleet: &mut Fleet, module: &str, waiting: Vec<Waiter>) {
    for waiter in waiting {
        let message = format!("{module} ended while it was to be reloaded");
        reload_fails(fleet, waiter, ProblemCode::Failed, &message);
    }
}

/// Returns whether the new generation is in a call in a process of its own, where every call has a
/// deadline.
fn ends_by_itself(daemon: &Daemon, module: &str, reload: &Reload) -> bool {
    let clock = daemon.modules.get(module).and_then(|slot| slot.entry.successor_clock());
    let in_call = clock.is_some_and(|clock| clock.running().is_some());
    in_call && isolation_of(daemon, &reload.section) == Isolation::Process
}
