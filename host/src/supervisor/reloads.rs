//! Reloads under way: at most one of a module at a time, and one that waits behind it.

use std::time::{Duration, Instant};

use super::{Pending, Supervisor, requests::short, starting::PROBATION, story::Probation};
use crate::{
    config::ModuleSection,
    control::api::{Operation, ProblemCode},
    library::Package,
    module::{Ended, News, StartGate},
};

/// How long a reload may take before whoever waits for it is told that it hangs.
const RELOAD_DEADLINE: Duration = Duration::from_secs(30);

/// A reload under way.
#[derive(Debug)]
pub(super) struct Reload {
    waiting: Pending,
    section: ModuleSection,
    begun: Instant,
    /// Everyone who asked after this one had begun. One more reload is enough for all of them,
    /// and they share its operation and its outcome.
    next: Option<(Pending, Option<Package>)>,
}

impl Supervisor {
    /// Begins a reload of a module that runs, or joins the one that is about to begin.
    pub(super) fn reload_module(
        &mut self,
        module: &str,
        package: Option<Package>,
        kind: &str,
    ) -> Operation {
        if let Some(reload) = self.reloads.get_mut(module) {
            let operations = &self.daemon.operations;
            let (next, wanted) = reload
                .next
                .get_or_insert_with(|| (operations.begin(kind, Some(module)), package.clone()));
            *wanted = package;
            return next.operation();
        }
        let pending = self.daemon.operations.begin(kind, Some(module));
        let operation = pending.operation();
        self.begin_reload(module, package, pending);
        operation
    }

    fn begin_reload(&mut self, module: &str, package: Option<Package>, pending: Pending) {
        let config = self.daemon.config();
        let slot = self.daemon.slot(module);
        if self.stopping {
            return pending.failed(ProblemCode::Busy, "the daemon ends", None);
        }
        let Some(section) = config.module(module).filter(|section| section.enabled) else {
            let message = format!("{module} was disabled meanwhile");
            return pending.failed(ProblemCode::Busy, message, None);
        };
        let Some(package) = package.or_else(|| self.daemon.package(section)) else {
            let message = self.daemon.where_looked(module);
            return pending.failed(ProblemCode::NotFound, message, None);
        };
        match self.spawn(&slot, &config, section, package, &StartGate::new(0), true) {
            Ok(()) => {
                let section = section.clone();
                let begun = Instant::now();
                let reload = Reload { waiting: pending, section, begun, next: None };
                self.reloads.insert(module.to_owned(), reload);
            }
            Err(reason) => pending.failed(ProblemCode::Failed, reason, None),
        }
    }

    /// Acts on what a module's thread tells.
    pub(super) fn heard(&mut self, module: &str, news: News) {
        let stories = self.daemon.stories.clone();
        match news {
            News::Runs { sha256, version, generation, switched_in } => {
                let how = switched_in.map_or_else(String::new, |time| {
                    format!("; its events waited {:.1} ms", time.as_secs_f64() * 1e3)
                });
                let what = format!("{version} ({}), generation {generation}{how}", short(&sha256));
                self.note_probation(module, &sha256, switched_in.is_some());
                stories.tell(module, "runs", what.clone());
                if switched_in.is_some() {
                    self.daemon.slot(module).set_behind(None);
                    self.reload_ended(module, Ok(format!("{module} runs {what}")));
                }
            }
            News::Rejected(reason) => {
                tracing::error!(module, reason, "the new generation was refused; the old goes on");
                self.daemon.context.listeners.take_back(module);
                stories.tell(module, "refused", format!("{reason}; the generation before goes on"));
                let behind = format!("its reload was refused: {reason}");
                self.daemon.slot(module).set_behind(Some(behind));
                self.reload_ended(module, Err(reason));
            }
            News::RolledBack { from, to, reason } => {
                let detail = format!("{} did: {reason}; {} is back", short(&from), short(&to));
                stories.tell(module, "rolled_back", detail.clone());
                self.daemon.slot(module).set_behind(Some(detail));
                stories.decide(module, |standing| {
                    standing.probation = None;
                    if from != to {
                        standing.refused =
                            Some(super::Refused { sha256: from, instead: to, reason });
                    }
                });
            }
            News::Restarts { reason, pause } => {
                let seconds = pause.as_secs_f64();
                let what = format!("{reason}; starts again after {seconds:.1} s");
                stories.tell(module, "panicked", what);
            }
            News::Ended(ended) => self.ended(module, ended),
        }
    }

    /// Writes down that a generation is on probation, in case it takes the daemon with it.
    fn note_probation(&mut self, module: &str, sha256: &str, took_over: bool) {
        let former = self.ran.insert(module.to_owned(), sha256.to_owned());
        let Some(former) = former.filter(|former| took_over && former != sha256) else { return };
        let until_s = jiff::Timestamp::now().as_second() + PROBATION.as_secs().cast_signed();
        let probation = Probation { sha256: sha256.to_owned(), former, until_s };
        self.daemon.stories.decide(module, |standing| standing.probation = Some(probation));
    }

    fn reload_ended(&mut self, module: &str, outcome: Result<String, String>) {
        let Some(reload) = self.reloads.remove(module) else { return };
        let Reload { waiting, section, next, .. } = reload;
        match outcome {
            Ok(message) => {
                // Whoever waits for the outcome is to see where it runs now.
                self.daemon.slot(module).set_isolation(self.daemon.isolation(&section));
                self.applied.insert(module.to_owned(), section);
                self.refused_sections.remove(module);
                waiting.done(message);
            }
            Err(reason) => {
                // What was refused is not tried again until it changes.
                self.refused_sections.insert(module.to_owned(), section);
                if waiting.operation().kind == "install" {
                    self.pass_over(module, &reason);
                }
                let message = format!("{module}: {reason}; the generation before goes on");
                let help = format!("`lodestar modules why {module}` tells the story");
                waiting.failed(ProblemCode::Refused, message, Some(help));
            }
        }
        if let Some((pending, package)) = next {
            self.begin_reload(module, package, pending);
        } else {
            self.reconcile();
        }
    }

    /// Ends the wait for reloads that hang.
    pub(super) fn watch_reloads(&mut self) {
        let hung: Vec<String> = self
            .reloads
            .iter()
            .filter(|(_, reload)| reload.begun.elapsed() > RELOAD_DEADLINE)
            .map(|(module, _)| module.clone())
            .collect();
        for module in hung {
            let slot = self.daemon.slot(&module);
            let new = slot.entry.successor_clock().and_then(|clock| clock.running());
            // The new one may wait for the one that runs.
            let old = || slot.entry.clock().running().map(|(call, _)| (call, "running"));
            let (call, whose) = new
                .map(|(call, _)| (call, "new"))
                .or_else(old)
                .unwrap_or_else(|| ("start".to_owned(), "new"));
            let reason = format!(
                "the {call} of the {whose} generation has not returned for {} s",
                RELOAD_DEADLINE.as_secs()
            );
            tracing::error!(module, reason, "a reload hangs");
            self.daemon.stories.tell(&module, "hangs", reason.clone());
            self.reload_ended(&module, Err(reason));
        }
    }

    /// What a module that ended leaves to do: a reload that nobody will end any more.
    pub(super) fn reload_without_module(&mut self, module: &str, ended: Ended) {
        if matches!(ended, Ended::Stopped | Ended::Failed)
            && let Some(reload) = self.reloads.remove(module)
        {
            let message = format!("{module} ended while it was to be reloaded");
            reload.waiting.failed(ProblemCode::Failed, message.clone(), None);
            if let Some((pending, _)) = reload.next {
                pending.failed(ProblemCode::Failed, message, None);
            }
        }
    }
}
