//! Handling of the events of modules' threads.

use std::{sync::Arc, thread::ThreadId};

use super::{Fleet, Refused, Slot, reloads::reloads_end, requests::short};
use crate::module::{Ended, ModuleEvent, State};

impl Fleet {
    /// Handles an event of a module's thread.
    pub(super) fn heard(&mut self, module: &str, event: ModuleEvent, thread: ThreadId) {
        let histories = self.daemon.histories.clone();
        match event {
            ModuleEvent::Runs { sha256, version, generation, took_over } => {
                let how = took_over.as_ref().map_or_else(String::new, |it| {
                    format!("; its events waited {:.1} ms", it.switched_in.as_secs_f64() * 1e3)
                });
                let what = format!("{version} ({}), generation {generation}{how}", short(&sha256));
                histories.record(module, "runs", what.clone());
                if took_over.is_some() {
                    let supervised = self.module_mut(module);
                    supervised.runs();
                    if supervised.is_reloaded_by(thread) {
                        self.reload_took_over(module, &format!("{module} runs {what}"));
                    }
                } else {
                    self.generation_runs(module);
                }
            }
            ModuleEvent::Rejected(reason) if !self.module_mut(module).is_reloaded_by(thread) => {
                tracing::debug!(module, reason, "a reload that was given up has ended");
                // It may have asked for another address meanwhile.
                if self.modules.get(module).and_then(|module| module.reload()).is_none() {
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
                let reason = format!("{reason}; the generation before goes on");
                self.reload_was_refused(module, &reason);
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
            ModuleEvent::Ended(Ended::Replaced | Ended::Rejected) => {}
            ModuleEvent::Ended(ended) => self.ended(module, ended),
        }
    }

    fn generation_runs(&mut self, module: &str) {
        if self.module_mut(module).runs() {
            self.library_changed(&self.daemon.slot(module));
        }
        // Its section may have changed while it started.
        self.reconcile();
    }

    fn ended(&mut self, module: &str, ended: Ended) {
        let slot = self.daemon.slot(module);
        let failed = matches!(ended, Ended::Failed { .. });
        let is_wanted = slot.is_desired();
        let left = self.module_mut(module).ended(failed && is_wanted);
        // A rollback that did not come about decides nothing.
        if let Some(before) = left.before_rollback.filter(|_| failed) {
            self.daemon.histories.decide(module, |decisions| *decisions = before);
        }
        record_end(self, &slot, ended);
        reloads_end(self, module, left.waiting);
        if failed && is_wanted && !self.stopping {
            self.daemon.context.listeners.release(module);
        }
        // Its section may have changed meanwhile, or it was enabled again while it stopped.
        self.reconcile();
    }

    /// Joins a thread that is about to end, off the loop.
    pub(super) fn join(&mut self, module: &str, thread: ThreadId) {
        let Some(thread) = self.module_mut(module).take_thread(thread) else { return };
        let daemon = Arc::clone(&self.daemon);
        tokio::task::spawn_blocking(move || {
            if thread.join().is_err() {
                tracing::error!("the thread of a module ended by a panic of the host");
            }
            daemon.sweep();
        });
    }
}

/// Records the end of a module. A quarantine is saved before it is shown, so that a restart of the
/// daemon cannot end it.
fn record_end(fleet: &Fleet, slot: &Slot, ended: Ended) {
    let (name, histories) = (&slot.entry.name, &fleet.daemon.histories);
    match ended {
        Ended::Failed { state, reason } => {
            if state == State::Quarantined {
                histories.decide(name, |it| it.quarantined = Some(reason.clone()));
            }
            histories.record(name, state.as_str(), reason.clone());
            slot.entry.enter(state, reason);
        }
        _ if fleet.stopping => histories.record(name, "stopped", "the daemon ends"),
        _ => histories.record(name, "stopped", ""),
    }
}
