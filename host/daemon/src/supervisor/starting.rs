//! Starts the threads of modules, and stops them.

use std::{sync::Arc, thread::ThreadId, time::Duration};

use lodestar_config::{Config, Isolation, ModuleSection};
use lodestar_library::Package;

use super::{
    CALL_DEADLINE, Fleet, Histories, Refused, STOP_GRACE, Slot, configure,
    error::{SpawnError, StartError},
    history::Probation,
    installs::admission,
    isolation::{isolation_of, placement_as},
    packages::{to_start, where_looked},
    requests::short,
};
use crate::{
    logging::LOG_RECORDS_PER_SECOND,
    module::{
        self, Call, Configured, OneShotFlag, Placing, ProcessImage, RestartPolicy, Start,
        StartGate, StartProcess, State,
    },
    runner,
    wake::Wake,
};

/// Length of the probation, in which a new generation must not panic.
const PROBATION: Duration = Duration::from_mins(1);

impl Fleet {
    /// Starts a module that does not run.
    pub(super) fn start(&mut self, slot: &Arc<Slot>, config: &Arc<Config>, gate: &Arc<StartGate>) {
        let name = slot.entry.name.clone();
        let Some(section) = config.modules.iter().find(|section| section.name == name) else {
            return gate.arrive();
        };
        slot.count_start();
        if let Err(error) = self.try_start(slot, config, section, gate) {
            let (state, reason) = (error.state(), error.to_string());
            tracing::warn!(module = name, reason, "the module does not run");
            if let Some(before) = self.module_mut(&name).give_up(section.clone()) {
                // A rollback that does not come about decides nothing.
                self.daemon.histories.decide(&name, |decisions| *decisions = before);
            }
            slot.entry.enter(state, reason);
            gate.arrive();
        }
    }

    fn try_start(
        &mut self,
        slot: &Arc<Slot>,
        config: &Arc<Config>,
        section: &ModuleSection,
        gate: &Arc<StartGate>,
    ) -> Result<(), StartError> {
        let name = &section.name;
        let decisions = self.daemon.histories.decisions(name);
        if let Some(reason) = decisions.quarantined {
            return Err(StartError::Quarantined(reason));
        }
        let absent = || StartError::Absent(where_looked(&self.daemon, name));
        let (package, instead_of) = to_start(&self.daemon, section).ok_or_else(absent)?;
        let passed_over = instead_of.map(|refused| passed_over(name, &refused));
        let held_apart = |what| format!("{what}; it runs in a process of its own since");
        slot.set_behind(passed_over.or_else(|| decisions.isolated.map(held_apart)));
        say_what_has_no_effect(section, isolation_of(&self.daemon, section));
        slot.entry.enter(State::Loading, "");
        self.spawn(slot, config, section, package, gate, None)?;
        self.module_mut(name).started(section.clone());
        Ok(())
    }

    /// Starts the thread of a generation. With a `claim`, it takes over from the one that runs.
    pub(super) fn spawn(
        &mut self,
        slot: &Arc<Slot>,
        config: &Arc<Config>,
        section: &ModuleSection,
        package: Package,
        gate: &Arc<StartGate>,
        claim: Option<Arc<OneShotFlag>>,
    ) -> Result<ThreadId, SpawnError> {
        let name = section.name.clone();
        let module = name.clone();
        let records = section.limits.log_records_per_second;
        slot.entry.log_rate.allow(records.unwrap_or(LOG_RECORDS_PER_SECOND));
        let wakes = self.daemon.wakes.clone();
        let defaults = configure::Defaults::default();
        let start = Start {
            entry: slot.entry.clone(),
            package,
            admit: admission(&self.daemon, defaults.clone()),
            loaded_libraries: self.daemon.loaded_libraries.clone(),
            place: place(self, section),
            context: self.daemon.context.clone(),
            configure: configure::configure(self.daemon.clone(), config.clone(), defaults.clone()),
            explain: configure::explain(config.clone(), &name, defaults),
            grace: STOP_GRACE,
            restart: RestartPolicy {
                limit: usize::try_from(section.restart.limit).unwrap_or(usize::MAX),
                max_backoff: Duration::from_millis(section.restart.backoff_max_ms),
                probation: PROBATION,
            },
            state_dir: self.daemon.places.state_dir.clone(),
            gate: gate.clone(),
            successor: claim.is_some(),
            claim: claim.unwrap_or_default(),
            note_probation: note_probation(self.daemon.histories.clone(), &name),
            notify: Box::new(move |event| {
                let thread = std::thread::current().id();
                // An error means that the daemon is ending.
                let _ = wakes.send(Wake::Module { name: name.clone(), event, thread });
            }),
        };
        let thread = module::spawn(start)?;
        Ok(self.module_mut(&module).add_thread(thread))
    }

    /// Tells a module to stop.
    pub(super) fn stop(&mut self, slot: &Arc<Slot>) {
        self.module_mut(&slot.entry.name).stops();
        if slot.entry.calls.push(Call::Stop).is_ok() {
            return;
        }
        // It has no inbox yet: it is starting, and is stopped when it has started.
        let (slot, start) = (slot.clone(), slot.starts());
        tokio::spawn(async move {
            if comes_to_run(&slot, start).await {
                // An error means that it has ended by itself.
                let _ = slot.entry.calls.push(Call::Stop);
            }
        });
    }
}

/// Waits until the start of this number is over. Returns whether the module runs then; one that was
/// started once more meanwhile is not to be stopped for this one.
async fn comes_to_run(slot: &Slot, start: u64) -> bool {
    let mut state = slot.entry.watch();
    let over = state.wait_for(|transition| {
        slot.starts() != start || transition.state.is_running() || !transition.state.is_alive()
    });
    let runs = over.await.is_ok_and(|transition| transition.state.is_running());
    runs && slot.starts() == start
}

/// Returns a function that decides whether a module gets a process of its own, and starts it.
fn place(fleet: &Fleet, section: &ModuleSection) -> Placing {
    let (daemon, section) = (fleet.daemon.clone(), section.clone());
    Box::new(move |inspected| {
        let limits = section.limits;
        let deadline = limits.call_deadline_ms.map_or(CALL_DEADLINE, Duration::from_millis);
        let package = Package::of(&inspected.path, &section.name);
        let placed = placement_as(&daemon, &section, &package, Some(&inspected.sha256));
        let isolated = placed.isolation == Isolation::Process;
        isolated.then(|| {
            let place = runner::ProcessSpec::own(limits, deadline);
            Box::new(move |inspected, configured: &Configured| {
                let image = runner::Isolated::new(inspected, configured, place)?;
                Ok(image as Arc<dyn ProcessImage>)
            }) as StartProcess
        })
    })
}

/// Returns a function that saves the probation of a generation, for the case that it crashes the
/// daemon.
fn note_probation(histories: Arc<Histories>, module: &str) -> module::NoteProbation {
    let module = module.to_owned();
    Box::new(move |sha256, way_back| {
        let until_s = jiff::Timestamp::now().as_second() + PROBATION.as_secs().cast_signed();
        let probation = way_back.map(|previous| {
            let (sha256, previous) = (sha256.to_owned(), previous.to_owned());
            Probation { sha256, previous, until_s }
        });
        histories.decide(&module, |decisions| decisions.probation = probation);
    })
}

/// Logs that the library on the module path proved bad. Returns a message about it.
fn passed_over(module: &str, refused: &Refused) -> String {
    let Refused { sha256, instead, reason } = refused;
    let (refused, runs) = (short(sha256), short(instead));
    let what = "the library on the module path proved bad; the one before it runs";
    tracing::warn!(module, refused, runs, reason, "{what}");
    format!("the library on the module path proved bad ({reason}); the one before it runs")
}

/// Logs the keys of a section that have an effect only in a process of its own. They are accepted
/// elsewhere, so that a section can be prepared.
fn say_what_has_no_effect(section: &ModuleSection, isolation: Isolation) {
    let limits = section.limits;
    let keys = [
        ("limits.memory_bytes", limits.memory_bytes.is_some()),
        ("limits.cpu_percent", limits.cpu_percent.is_some()),
        ("limits.tasks", limits.tasks.is_some()),
        ("limits.data_bytes", limits.data_bytes.is_some()),
    ];
    if isolation == Isolation::Process {
        return;
    }
    for (key, _) in keys.into_iter().filter(|(_, given)| *given) {
        tracing::warn!(module = section.name, key, "only `isolation: process` makes this key true");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::ModuleTable;

    #[tokio::test]
    async fn a_stop_that_waits_for_a_start_is_not_for_the_next_one() {
        for (fails, expected) in [(false, true), (true, false)] {
            let slot = ModuleTable::default().get_or_add("gear").0;
            slot.count_start();
            slot.entry.enter(State::Loading, "");
            let waiting = tokio::spawn({
                let (slot, start) = (slot.clone(), slot.starts());
                async move { comes_to_run(&slot, start).await }
            });
            tokio::task::yield_now().await;
            // All at once: whoever waits sees the last state alone.
            if fails {
                slot.entry.enter(State::Failed, "it has no port");
                slot.count_start();
                slot.entry.enter(State::Loading, "");
            }
            slot.entry.enter(State::Running, "");
            assert_eq!(waiting.await.expect("no panic"), expected);
        }
    }
}
