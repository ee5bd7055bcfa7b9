//! The new generation's side of a reload.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lodestar_library as library;
use module_sdk::HealthStatus;

use super::{
    Call, CallClock, Start,
    error::TakeOverError,
    generation, handover,
    thread::{ModuleEvent, TakeOver},
    worker::{Made, Worker},
};

/// Time that the running generation may take to pause.
const HOLD_PATIENCE: Duration = Duration::from_secs(10);

/// Proves the new generation and takes over from the running one; or returns why not, and then
/// nothing has changed.
pub(super) fn take_over(start: &Start) -> Result<Worker<'_>, TakeOverError> {
    let entry = &start.entry;
    let clock = Arc::new(CallClock::default());
    entry.set_successor_clock(Some(clock.clone()));
    let worker = prove(start, &clock);
    entry.set_successor_clock(None);
    worker
}

fn prove<'a>(start: &'a Start, clock: &Arc<CallClock>) -> Result<Worker<'a>, TakeOverError> {
    let entry = &start.entry;
    let reason = |(_, reason): generation::Refusal| TakeOverError::NotStarted(reason);
    let inspected = generation::read(start).map_err(reason)?;
    let candidate = library::stage(&start.state_dir, &inspected);
    let candidate = candidate.map_err(|source| {
        let place = start.state_dir.join("generations");
        TakeOverError::NotKept { place, source }
    })?;
    let generation = generation::load(start, clock, inspected).map_err(reason)?;
    let known = generation.known();
    let mode = known.manifest.reload.mode;
    let (hold, asked) = handover::ask(mode);
    if entry.calls.push(Call::PauseRequest(hold)).is_err() {
        return Err(TakeOverError::NobodyThere);
    }
    let held = asked.wait(HOLD_PATIENCE)?;
    let begin = Instant::now();
    let generation::Generation { image, configured, .. } = generation;
    let mut worker = Worker::without_inbox(start, clock.clone(), image, configured);
    let made = worker.create(&held.snapshot).map_err(reason);
    let made = made.and_then(|made| healthy(start, clock, made));
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            held.give_back();
            return Err(error);
        }
    };
    if !start.claim.take() {
        // Only one of the two may have what is exclusive.
        made.discard(start, clock);
        held.give_back();
        return Err(TakeOverError::GivenUp);
    }
    let snapshot = held.snapshot.clone();
    let Some((inbox, former)) = held.commit() else {
        made.discard(start, clock);
        return Err(TakeOverError::WentOn);
    };
    worker.image().set_replaced(false);
    let switched_in = begin.elapsed();
    let filters = &known.manifest.bus.consumes;
    if let Err(error) = start.context.bus.refilter(&entry.name, filters) {
        tracing::error!(module = entry.name, %error, "its subscriptions stay as they were");
    }
    entry.set_known(known.clone());
    entry.set_clock(clock.clone());
    let generation = made.generation();
    worker.begin(made, inbox, former, snapshot);
    (start.note_probation)(&known.sha256, worker.way_back());
    worker.candidate = Some(candidate);
    worker.keep();
    start.context.listeners.settle(&entry.name);
    (start.notify)(ModuleEvent::Runs {
        sha256: known.sha256.clone(),
        version: known.manifest.module.version.clone(),
        generation,
        took_over: Some(TakeOver { switched_in }),
    });
    Ok(worker)
}

/// Asks the new generation how it is before it gets any work.
fn healthy(start: &Start, clock: &CallClock, mut made: Made) -> Result<Made, TakeOverError> {
    let bytes = clock.time("health", || made.instance.health());
    let health = generation::health(&start.context.redactor, &bytes);
    if health.status != HealthStatus::Failed {
        return Ok(made);
    }
    made.discard(start, clock);
    Err(TakeOverError::Unhealthy(health.message))
}
