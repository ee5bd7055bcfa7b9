//! Consequences of a step: entries of the history, events, and words to people.

use module_sdk::{
    EventType, Result,
    events::{
        HealthAlertRaised, HealthAlertResolved, HealthCheckCompleted, HealthComponentChanged,
    },
};
use module_sqlite::rusqlite::Connection;

use crate::{
    HealthMonitor,
    alert::Transition,
    metric::Unit,
    monitor::Step,
    reading::{Component, Report},
    time::Moment,
};

impl HealthMonitor {
    /// Returns the components that reports looked at, where somebody wants to know each run.
    pub(crate) fn checked(&self, reports: &[(&'static str, Report)]) -> Vec<Component> {
        if reports.is_empty() || !self.host.wanted(HealthCheckCompleted::TOPIC) {
            return Vec::new();
        }
        let found = reports.iter().flat_map(|(_, report)| &report.found);
        found.map(|found| found.component.clone()).collect()
    }

    /// Publishes that components were looked at, with the state that was found.
    pub(crate) fn tell_checked(&self, components: &[Component], now: Moment) {
        for component in components {
            let Some(entry) = self.monitor.board().get(component) else { continue };
            self.publish(&HealthCheckCompleted {
                component: component.to_string(),
                status: entry.status,
                value: entry.value.filter(|value| value.is_finite()),
                unit: entry.unit.map(|unit: Unit| unit.as_str().to_owned()),
                at: now.at.as_millisecond(),
            });
        }
    }

    /// Publishes what changed, writes it down, and tells people of it.
    pub(crate) fn tell(&mut self, step: &Step, now: Moment) -> Result<()> {
        self.watchers.tell(step, self.monitor.board().overall(), now);
        for change in &step.changes {
            self.publish(&HealthComponentChanged {
                component: change.component.to_string(),
                from: change.from,
                to: change.to,
                message: change.message.clone(),
                at: now.at.as_millisecond(),
            });
        }
        for transition in &step.transitions {
            match transition {
                Transition::Raised(alert) => self.publish(&HealthAlertRaised {
                    id: alert.id.clone(),
                    name: alert.name.to_string(),
                    severity: alert.severity,
                    component: alert.component.to_string(),
                    labels: alert.labels.clone(),
                    message: alert.message.clone(),
                    value: alert.value.filter(|value| value.is_finite()),
                    since: alert.since.as_millisecond(),
                }),
                Transition::Resolved(alert, at) => self.publish(&HealthAlertResolved {
                    id: alert.id.clone(),
                    name: alert.name.to_string(),
                    severity: alert.severity,
                    component: alert.component.to_string(),
                    since: alert.since.as_millisecond(),
                    at: at.as_millisecond(),
                }),
            }
        }
        self.notify.step(&step.transitions, self.monitor.rules(), now);
        let notify = &self.notify;
        let also = |connection: &Connection| notify.write(connection, now);
        let is_unwritten = notify.is_unwritten();
        let written = self.store.record(&step.transitions, is_unwritten.then_some(&also));
        if written.is_ok() {
            self.notify.written();
        }
        // What waits is written before it is sent. Without the database it is sent all the same.
        self.notify.send(now);
        Ok(written?)
    }

    fn publish<T: EventType>(&self, event: &T) {
        if let Err(error) = self.host.emit(event) {
            tracing::warn!(%error, topic = T::TOPIC, "an event could not be published");
        }
    }
}
