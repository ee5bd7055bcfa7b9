//! Events from the bus: requests of models, and budgets.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use module_sdk::{
    Event, Result, Snapshot,
    events::{LearningRunProgressed, LlmRequestCompleted, ModuleStateChanged},
};
use serde_json::Value;

use crate::{
    HealthMonitor, check,
    reading::{Component, Found, Presence, Report},
    requests::{self, Kept, Sample},
    slo, text,
    time::Moment,
};

/// Time between two reports of what requests say, in milliseconds.
const REPORT_MS: u64 = 5_000;

/// Version of the state that one generation hands to the next.
const SNAPSHOT: u32 = 1;

/// Budgets that are told apart, and the name of the rest.
const BUDGETS: usize = 50;
const OTHER: &str = "budget.other";

/// Name of what reports budgets.
const BUDGET_CHECK: &str = "budget";

/// Budgets of which something was heard, with what it was.
#[derive(Debug, Default)]
pub(crate) struct Budgets(BTreeMap<Component, &'static str>);

impl Budgets {
    /// Notes a budget; returns its component.
    fn hear(&mut self, name: &str, is_exceeded: bool) -> Component {
        let component: Component = format!("{BUDGET_CHECK}.{}", text::visible(name)).into();
        let has_room = self.0.len() < BUDGETS || self.0.contains_key(&component);
        let component = if has_room { component } else { OTHER.into() };
        let said = if is_exceeded { "it was exceeded" } else { "it was nearly used up" };
        self.0.insert(component.clone(), said);
        component
    }

    fn report(&self) -> Report {
        // A budget is there, and has no value that is known here.
        let found = self.0.iter().map(|(component, said)| {
            let found = Found::absent(component, *said);
            Found { presence: Presence::Present, ..found }
        });
        Report { found: found.collect(), ..Report::default() }
    }
}

/// Time after the last news of a training run for which it is taken to have the card, in
/// milliseconds: a run whose end nobody told does not have it for ever.
const LEASE_MS: u64 = 3_600_000;

/// The training run that has the graphics card.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// Id of the run, and the time of its last news, in milliseconds since the Unix epoch.
    run: Option<(String, i64)>,
    /// Flag that the check of the cards looks at.
    pub(crate) is_held: Arc<AtomicBool>,
}

impl Lease {
    fn hear(&mut self, told: &LearningRunProgressed) {
        if told.on_card && told.state == "training" {
            self.run = Some((told.run.clone(), told.at));
        } else if self.run.as_ref().is_some_and(|(run, _)| *run == told.run) {
            self.run = None;
        }
    }

    /// Looks at whether it is still held.
    pub(crate) fn look(&self, now_ms: i64) {
        let is_held = self.run.as_ref().is_some_and(|(_, at)| now_ms.abs_diff(*at) < LEASE_MS);
        self.is_held.store(is_held, Ordering::Relaxed);
    }
}

impl HealthMonitor {
    /// Hears of a training run, which may have the card.
    pub(crate) fn run_progressed(
        &mut self,
        event: &Event<'_, LearningRunProgressed>,
    ) -> Result<()> {
        self.lease.hear(&event.data);
        self.lease.look(self.host.now().as_millisecond());
        Ok(())
    }

    /// Wakes the check of the modules as soon as the state of one changes.
    pub(crate) fn module_changed(&mut self, _: &Event<'_, ModuleStateChanged>) -> Result<()> {
        self.workers.wake(check::MODULES);
        Ok(())
    }

    /// Counts requests that ended. It never fails: what cannot be counted is no reason to hold up
    /// those that follow.
    pub(crate) fn completed(&mut self, events: Vec<Event<'_, LlmRequestCompleted>>) -> Result<()> {
        self.is_heard = true;
        let clock_ms = self.host.now().as_millisecond();
        for event in events {
            let (request, now) = (event.data, self.now);
            if self.requests.is_new(&request.dedupe_key) {
                let sample = Sample::of(&request);
                let age_ms = clock_ms.saturating_sub(request.ended_at);
                self.requests.take(&sample, age_ms, now);
                self.objectives.take(&sample, age_ms, now);
            }
        }
        Ok(())
    }

    /// Hears of a budget that is exceeded, or nearly so.
    pub(crate) fn budget(&mut self, event: &Event<'_, Value>) -> Result<()> {
        self.is_heard = true;
        let named = ["budget", "name", "project"].into_iter();
        let mut named = named.filter_map(|key| event.data.get(key)?.as_str());
        let name = named.find(|name| !name.is_empty()).unwrap_or("all");
        let component = self.budgets.hear(name, event.topic.ends_with(".exceeded"));
        self.monitor.take_event(event.topic, event.data.clone(), component);
        Ok(())
    }

    /// Reports to the monitor what was heard, as the checks report what they read.
    pub(crate) fn report_heard(&mut self, now: Moment) {
        let is_due = |last: u64| now.steady_ms.saturating_sub(last) >= REPORT_MS;
        if !self.heard_ms.is_none_or(is_due) {
            return;
        }
        self.heard_ms = Some(now.steady_ms);
        let board = self.monitor.board();
        let known = board.iter().filter(|(_, entry)| entry.check != requests::CHECK);
        self.requests.join(known.map(|(component, _)| component));
        let report = self.requests.report(board, now);
        self.monitor.take(requests::CHECK, report, now);
        self.monitor.take(slo::CHECK, self.objectives.report(now), now);
        self.monitor.take(BUDGET_CHECK, self.budgets.report(), now);
    }

    /// Writes down how the objectives stand. What cannot be written waits; the health of the
    /// database tells of it.
    pub(crate) fn keep_objectives(&mut self) -> Result<()> {
        if let Err(error) = self.objectives.keep(&mut self.store, self.now) {
            tracing::debug!(%error, "counts of objectives wait for the database");
        }
        Ok(())
    }

    /// Returns the windows of requests for the next generation.
    pub(crate) fn snapshot_requests(&self) -> Result<Snapshot> {
        let data = serde_json::to_vec(&self.requests.keep(self.now))?;
        Ok(Snapshot { version: SNAPSHOT, data })
    }

    /// Takes over the windows of the generation before. Those of another version are left: they are
    /// full again in an hour.
    pub(crate) fn restore_requests(&mut self, snapshot: &Snapshot) {
        if snapshot.version != SNAPSHOT {
            return;
        }
        match serde_json::from_slice::<Kept>(&snapshot.data) {
            Ok(kept) => self.requests.take_over(kept, self.now),
            Err(error) => {
                tracing::warn!(%error, "the requests of the last hour cannot be taken over");
            }
        }
    }
}
