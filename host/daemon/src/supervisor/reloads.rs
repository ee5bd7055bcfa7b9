//! Reloads under way: at most one of a module at a time, and one that waits behind it.

use std::{
    sync::Arc,
    thread::ThreadId,
    time::{Duration, Instant},
};

use lodestar_api::{Operation, ProblemCode};
use lodestar_config::{Isolation, ModuleSection};
use lodestar_library as library;

use super::{Pending, Refused, Supervisor, requests::short};
use crate::module::{ModuleEvent, OneShotFlag, StartGate, State};

/// How long a reload may take before whoever waits for it is told that it hangs.
const RELOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Which library a reload is to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The one that a start of the daemon would load.
    AsStarted,
    /// The one that lies on the module path, whatever it did before.
    OnPath,
    /// The kept one that is to run in the place of the other.
    Kept(Refused),
}

/// A reload under way.
#[derive(Debug)]
pub(super) struct Reload {
    wanted: Wanted,
    waiting: Vec<Pending>,
    section: ModuleSection,
    begun: Instant,
    /// The thread of the new generation.
    thread: ThreadId,
    /// Whoever takes it decides whether that one takes over.
    claim: Arc<OneShotFlag>,
    /// What was asked for after this one had begun. One more reload is enough for all who want the
    /// same, and they share its outcome.
    next: Option<(Wanted, Vec<Pending>)>,
}

impl Supervisor {
    /// Begins a reload of a module that runs, or joins the one that is about to begin. A wish for
    /// another library replaces the one that waits, and whoever had it is told.
    pub(super) fn reload_module(&mut self, module: &str, wanted: Wanted, kind: &str) -> Operation {
        let operations = &self.daemon.operations;
        let Some(reload) = self.reloads.get_mut(module) else {
            let pending = operations.begin(kind, Some(module));
            let operation = pending.operation();
            self.begin_reload(module, wanted, vec![pending]);
            return operation;
        };
        match &mut reload.next {
            Some((next, waiting)) if *next == wanted => {
                if let Some(same) = waiting.iter().find(|pending| pending.operation().kind == kind)
                {
                    return same.operation();
                }
                waiting.push(operations.begin(kind, Some(module)));
                waiting[waiting.len() - 1].operation()
            }
            next => {
                let pending = operations.begin(kind, Some(module));
                let operation = pending.operation();
                let replaced = next.replace((wanted, vec![pending]));
                let message = format!("a later {kind} of {module} came first");
                for earlier in replaced.into_iter().flat_map(|(_, waiting)| waiting) {
                    self.reload_fails(module, earlier, ProblemCode::Busy, &message);
                }
                operation
            }
        }
    }

    fn begin_reload(&mut self, module: &str, wanted: Wanted, waiting: Vec<Pending>) {
        let (section, thread, claim) = match self.try_reload(module, &wanted) {
            Ok(begun) => begun,
            Err((code, message)) => {
                for pending in waiting {
                    self.reload_fails(module, pending, code, &message);
                }
                return;
            }
        };
        let begun = Instant::now();
        let reload = Reload { wanted, waiting, section, begun, thread, claim, next: None };
        self.reloads.insert(module.to_owned(), reload);
    }

    fn try_reload(
        &mut self,
        module: &str,
        wanted: &Wanted,
    ) -> Result<(ModuleSection, ThreadId, Arc<OneShotFlag>), (ProblemCode, String)> {
        let config = self.daemon.config();
        if self.stopping {
            return Err((ProblemCode::Busy, "the daemon ends".to_owned()));
        }
        let Some(section) = config.module(module).filter(|section| section.enabled) else {
            return Err((ProblemCode::Busy, format!("{module} was disabled meanwhile")));
        };
        let package = match wanted {
            Wanted::AsStarted => self.daemon.to_start(section).map(|(package, _)| package),
            Wanted::OnPath => self.daemon.package(section),
            Wanted::Kept(refused) => {
                library::find_generation(&self.daemon.places.state_dir, module, &refused.instead)
            }
        };
        let package =
            package.ok_or_else(|| (ProblemCode::NotFound, self.daemon.where_looked(module)))?;
        let (slot, claim) = (self.daemon.slot(module), Arc::<OneShotFlag>::default());
        let gate = StartGate::new(0);
        let thread = self.spawn(&slot, &config, section, package, &gate, Some(claim.clone()));
        let thread = thread.map_err(|reason| (ProblemCode::Failed, reason))?;
        Ok((section.clone(), thread, claim))
    }

    /// Whether a reload with this section is under way, or one that will take it is about to begin.
    pub(super) fn is_reloading(&self, section: &ModuleSection) -> bool {
        let reload = self.reloads.get(&section.name);
        reload.is_some_and(|reload| reload.section == *section || reload.next.is_some())
    }

    /// Ends a reload that has changed nothing, and the install that it was the verdict on.
    fn reload_fails(&mut self, module: &str, pending: Pending, code: ProblemCode, message: &str) {
        let undone =
            self.transaction_of(module, &pending).map(|transaction| self.roll_back(transaction));
        let undone = undone.map(|installed| format!("; {installed}")).unwrap_or_default();
        pending.failed(code, format!("{message}{undone}"), None);
    }

    /// Acts on what a module's thread tells.
    pub(super) fn heard(&mut self, module: &str, event: ModuleEvent, thread: ThreadId) {
        let histories = self.daemon.histories.clone();
        match event {
            ModuleEvent::Runs { sha256, version, generation, took_over } => {
                self.rolling_back.remove(module);
                let how = took_over.as_ref().map_or_else(String::new, |it| {
                    format!("; its events waited {:.1} ms", it.switched_in.as_secs_f64() * 1e3)
                });
                let what = format!("{version} ({}), generation {generation}{how}", short(&sha256));
                let took_over = took_over.is_some();
                histories.record(module, "runs", what.clone());
                if !took_over {
                    self.look_at_library_again(module);
                }
                if took_over && self.is_of_reload(module, thread) {
                    self.daemon.slot(module).set_behind(None);
                    self.reload_ended(module, Ok(format!("{module} runs {what}")));
                }
            }
            ModuleEvent::Rejected(reason) if !self.is_of_reload(module, thread) => {
                tracing::debug!(module, reason, "a reload that was given up has ended");
                // It may have asked for another address meanwhile.
                if !self.reloads.contains_key(module) {
                    self.daemon.context.listeners.take_back(module);
                }
            }
            ModuleEvent::Rejected(reason) => {
                tracing::error!(module, reason, "the new generation was refused; the old goes on");
                self.daemon.context.listeners.take_back(module);
                histories.record(
                    module,
                    "refused",
                    format!("{reason}; the generation before goes on"),
                );
                let behind = format!("its reload was refused: {reason}");
                self.daemon.slot(module).set_behind(Some(behind));
                self.reload_ended(module, Err(format!("{reason}; the generation before goes on")));
            }
            ModuleEvent::RolledBack { from, to, reason } => {
                let detail = format!("{} did: {reason}; {} is back", short(&from), short(&to));
                histories.record(module, "rolled_back", detail.clone());
                self.daemon.slot(module).set_behind(Some(detail));
                histories.decide(module, |decisions| {
                    decisions.probation = None;
                    if from != to {
                        decisions.refused = Some(Refused { sha256: from, instead: to, reason });
                    }
                });
            }
            ModuleEvent::Restarts { reason, pause } => {
                let seconds = pause.as_secs_f64();
                let what = format!("{reason}; starts again after {seconds:.1} s");
                histories.record(module, "restarts", what);
            }
            ModuleEvent::Ended(ended) => self.ended(module, ended),
        }
    }

    /// Whether the reload that is under way is the one of this thread.
    fn is_of_reload(&self, module: &str, thread: ThreadId) -> bool {
        self.reloads.get(module).is_some_and(|reload| reload.thread == thread)
    }

    fn reload_ended(&mut self, module: &str, outcome: Result<String, String>) {
        let Some(reload) = self.reloads.remove(module) else { return };
        let Reload { wanted, waiting, section, next, .. } = reload;
        let transactions: Vec<_> =
            waiting.iter().filter_map(|it| self.transaction_of(module, it)).collect();
        match outcome {
            Ok(message) => {
                self.applied.insert(module.to_owned(), section);
                self.refused_sections.remove(module);
                self.daemon.histories.decide(module, |decisions| match wanted {
                    Wanted::AsStarted => {}
                    Wanted::OnPath => decisions.refused = None,
                    // What lies there may be the very one that is wanted.
                    Wanted::Kept(refused) => {
                        let differs = refused.sha256 != refused.instead;
                        decisions.refused = differs.then_some(refused);
                    }
                });
                let kept = transactions.iter().try_for_each(|transaction| self.commit(transaction));
                drop(transactions);
                for pending in waiting {
                    match &kept {
                        Err(problem) if pending.operation().kind == "install" => {
                            let what = format!("{message}, but only until lodestard ends");
                            let what = format!("{what}: {}", problem.detail);
                            pending.failed(problem.code, what, problem.help.clone());
                        }
                        _ => pending.done(message.clone()),
                    }
                }
            }
            Err(reason) => {
                if transactions.is_empty() {
                    // What was refused is not tried again until it changes.
                    self.refused_sections.insert(module.to_owned(), section);
                }
                let undone: String = transactions
                    .into_iter()
                    .map(|transaction| format!(", and {}", self.roll_back(transaction)))
                    .collect();
                for pending in waiting {
                    let help = format!("`lodestar modules why {module}` shows the history");
                    let message = format!("{module}: {reason}{undone}");
                    pending.failed(ProblemCode::Refused, message, Some(help));
                }
            }
        }
        if let Some((wanted, waiting)) = next {
            self.begin_reload(module, wanted, waiting);
        } else {
            self.reconcile();
        }
    }

    /// Gives up reloads that hang. One that returns late does not take over any more.
    pub(super) fn watch_reloads(&mut self) {
        let late = self.reloads.iter().filter(|(module, reload)| {
            reload.begun.elapsed() > RELOAD_DEADLINE && !self.ends_by_itself(module, reload)
        });
        let hung: Vec<String> =
            late.filter(|(_, reload)| reload.claim.take()).map(|(name, _)| name.clone()).collect();
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
            self.reload_ended(&module, Err(reason));
        }
    }

    /// Whether the new generation is in a call in a process of its own, which has a deadline.
    fn ends_by_itself(&self, module: &str, reload: &Reload) -> bool {
        let clock = self.daemon.slot(module).entry.successor_clock();
        let in_call = clock.is_some_and(|clock| clock.running().is_some());
        in_call && self.daemon.isolation(&reload.section) == Isolation::Process
    }

    /// What a module that ended leaves to do: a reload that nobody will end any more.
    pub(super) fn reload_without_module(&mut self, module: &str) {
        let Some(reload) = self.reloads.remove(module) else { return };
        let later = reload.next.into_iter().flat_map(|(_, waiting)| waiting);
        for pending in reload.waiting.into_iter().chain(later) {
            let message = format!("{module} ended while it was to be reloaded");
            self.reload_fails(module, pending, ProblemCode::Failed, &message);
        }
    }
}
