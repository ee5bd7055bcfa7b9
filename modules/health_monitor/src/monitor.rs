//! The heart: reports of checks go in, changes and alerts come out. It knows no thread, no file
//! and no clock of its own, so that a month can be replayed in a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use module_sdk::events::{AlertSeverity, CheckStatus, fits};

use crate::{
    alert::{Alert, Engine, Holding, Transition},
    board::{Board, Change, Trouble},
    metric::{Kind, Metric, Unit},
    reading::{Component, Presence, Report, Series},
    rule::{Condition, Function, Rule, RuleSet, Subject, Test},
    text,
    time::Moment,
    values::Values,
};

/// Subject of rules about states: no metric that anything measures.
static STATE: Metric = Metric {
    name: "state",
    unit: Unit::Flag,
    kind: Kind::Gauge,
    help: "State of a component.",
    labels: &[],
    exported: false,
};

/// Events that wait for the next step at most; it comes within a second.
const EVENTS: usize = 1_000;

/// Values of requests over a time, which rules ask for.
pub trait Requests {
    /// Returns every series of a metric of requests, with the value of a function over a time in
    /// milliseconds.
    fn each(
        &self,
        metric: &'static Metric,
        function: Function,
        over_ms: u64,
        now: Moment,
    ) -> Vec<(Arc<Series>, f64)>;
}

/// No requests at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRequests;

impl Requests for NoRequests {
    fn each(&self, _: &'static Metric, _: Function, _: u64, _: Moment) -> Vec<(Arc<Series>, f64)> {
        Vec::new()
    }
}

/// All that is known, and the rules that judge it.
#[derive(Debug)]
pub struct Monitor {
    rules: RuleSet,
    values: Values,
    board: Board,
    engine: Engine,
    /// Components that rules about states and events speak of.
    states: BTreeMap<Component, Arc<Series>>,
    /// Events that came since the last step: topic, fields, component.
    events: Vec<(String, serde_json::Value, Component)>,
}

/// Result of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Components whose state changed.
    pub changes: Vec<Change>,
    /// Alerts that began and ended.
    pub transitions: Vec<Transition>,
}

impl Monitor {
    /// Begins with rules, and with the alerts that fired before a restart.
    #[must_use]
    pub fn new(rules: RuleSet, firing: Vec<Alert>) -> Self {
        Self {
            rules,
            values: Values::default(),
            board: Board::default(),
            engine: Engine::resume(firing),
            states: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Takes the report of a check.
    pub fn take(&mut self, check: &'static str, report: Report, now: Moment) {
        if let Some(message) = &report.hangs {
            self.board.hang(check, message, now.at);
            return self.values.expire(check);
        }
        let of_presence = |presence: Presence| {
            let meant = report.found.iter().filter(move |found| found.presence == presence);
            meant.map(|found| found.component.clone())
        };
        let unknown: BTreeSet<Component> = of_presence(Presence::Unknown).collect();
        let absent: Vec<Component> = of_presence(Presence::Absent).collect();
        self.values.take(check, report.readings, &self.rules, now.steady_ms);
        // What a check no longer reads is not what it read last.
        self.values.forget(check, now.steady_ms, |component| unknown.contains(component));
        let gone = self.board.take(check, report.found, now.at);
        for component in gone.iter().chain(&absent) {
            self.states.remove(component);
        }
    }

    /// Takes an event that a rule may look for.
    pub fn take_event(&mut self, topic: &str, fields: serde_json::Value, component: Component) {
        let is_wanted = self.rules.iter().any(|rule| match &rule.condition.subject {
            Subject::Event { topic: filter, .. } => fits(filter, topic),
            _ => false,
        });
        if is_wanted && self.events.len() < EVENTS {
            self.events.push((topic.to_owned(), fields, component));
        }
    }

    /// Judges everything at a moment.
    pub fn step(&mut self, requests: &dyn Requests, now: Moment) -> Step {
        let mut transitions = Vec::new();
        let mut troubles: BTreeMap<Component, Trouble> = BTreeMap::new();
        let rules = self.rules.clone();
        for rule in rules.iter() {
            let holding = self.holding(rule, requests, now);
            for holding in &holding {
                note(&mut troubles, rule, holding);
            }
            transitions.extend(self.engine.step(rule, &holding, now));
            if let Subject::Event { .. } = rule.condition.subject {
                // An event is over at once; its trouble lasts as long as its alert.
                let firing = self.engine.firing().filter(|alert| alert.name == rule.name);
                firing.for_each(|alert| note_event(&mut troubles, alert));
            }
        }
        self.events.clear();
        transitions.extend(self.engine.end_former(&self.rules, now));
        let (values, rules) = (&self.values, &self.rules);
        let changes = self.board.judge(
            &troubles,
            |series| values.latest(series),
            |series| limit(rules, series),
            now.at,
        );
        Step { changes, transitions }
    }

    /// Returns the series for which the condition of a rule holds.
    fn holding(&mut self, rule: &Rule, requests: &dyn Requests, now: Moment) -> Vec<Holding> {
        match &rule.condition.subject {
            Subject::Metric { test, .. } => {
                let all = self.candidates(&rule.condition, requests, now);
                let mut holding = Vec::new();
                for (series, value) in all {
                    let is_firing = self.engine.is_firing(rule, &series);
                    if self.holds(&rule.condition, &series, value, is_firing, requests, now) {
                        let (value, threshold) = (Some(value), Some(test.threshold));
                        let reason = self.said(&series.component);
                        holding.push(Holding { series, value, threshold, reason });
                    }
                }
                holding
            }
            Subject::Check { component, status } => {
                let meant = |name: &str, presence: Presence| {
                    let is_so = match status {
                        CheckStatus::Absent => presence == Presence::Absent,
                        _ => presence == Presence::Unknown,
                    };
                    is_so && component.fits(name)
                };
                let names: Vec<Component> = self
                    .board
                    .iter()
                    .filter(|(name, entry)| meant(name, entry.presence))
                    .map(|(name, _)| name.clone())
                    .collect();
                names.into_iter().map(|name| self.state(name)).collect()
            }
            Subject::Event { topic, fields } => {
                let came: Vec<Component> = self
                    .events
                    .iter()
                    .filter(|(came, ..)| fits(topic, came))
                    .filter(|(_, data, _)| {
                        fields.iter().all(|(name, pattern)| match &data[name] {
                            serde_json::Value::Null => false,
                            serde_json::Value::String(text) => pattern.fits(text),
                            other => pattern.fits(&other.to_string()),
                        })
                    })
                    .map(|(.., component)| component.clone())
                    .collect();
                came.into_iter().map(|name| self.state(name)).collect()
            }
        }
    }

    fn said(&self, component: &str) -> String {
        self.board.get(component).map(|entry| entry.said.clone()).unwrap_or_default()
    }

    fn state(&mut self, component: Component) -> Holding {
        let reason = self.said(&component);
        let series = self
            .states
            .entry(component)
            .or_insert_with_key(|component| Series::new(&STATE, component, []))
            .clone();
        Holding { series, value: None, threshold: None, reason }
    }

    /// Returns the series that a condition judges, with their values.
    fn candidates(
        &self,
        condition: &Condition,
        requests: &dyn Requests,
        now: Moment,
    ) -> Vec<(Arc<Series>, f64)> {
        let Subject::Metric { metric, labels, component, function, .. } = &condition.subject else {
            return Vec::new();
        };
        let is_meant = |series: &Series| {
            component.fits(&series.component)
                && labels.iter().all(|(name, pattern)| {
                    series.pairs().any(|(label, value)| label == *name && pattern.fits(value))
                })
        };
        match (metric.kind, function) {
            (Kind::Requests, Some((function, over_ms))) => {
                let all = requests.each(metric, *function, *over_ms, now).into_iter();
                all.filter(|(series, _)| is_meant(series)).collect()
            }
            _ => {
                let all = self.values.each(metric, *function, now.steady_ms);
                let meant = all.filter(|(series, _)| is_meant(series));
                meant.map(|(series, value)| (series.clone(), value)).collect()
            }
        }
    }

    fn holds(
        &self,
        condition: &Condition,
        series: &Series,
        value: f64,
        is_firing: bool,
        requests: &dyn Requests,
        now: Moment,
    ) -> bool {
        let Subject::Metric { test, .. } = &condition.subject else { return false };
        let others = |conditions: &[Condition], all: bool| {
            let mut each = conditions
                .iter()
                .map(|other| self.holds_for(other, &series.component, is_firing, requests, now));
            if all { each.all(|holds| holds) } else { each.any(|holds| holds) }
        };
        (test.holds(value, is_firing) && others(&condition.and, true))
            || others(&condition.or, false)
    }

    /// Returns whether a further condition holds for a component.
    fn holds_for(
        &self,
        condition: &Condition,
        component: &str,
        is_firing: bool,
        requests: &dyn Requests,
        now: Moment,
    ) -> bool {
        let all = self.candidates(condition, requests, now);
        let own = all.iter().filter(|(series, _)| &*series.component == component);
        let mut own: Vec<_> = own.collect();
        // What belongs to nobody, or was picked by its labels, goes for every component.
        let goes_for_all = matches!(&condition.subject, Subject::Metric { metric, labels, .. }
            if metric.labels.is_empty() || !labels.is_empty());
        if own.is_empty() && all.len() == 1 && goes_for_all {
            own.extend(&all);
        }
        own.into_iter()
            .any(|(series, value)| self.holds(condition, series, *value, is_firing, requests, now))
    }

    /// Returns the states of the components.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Returns the latest values.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Returns the rules.
    #[must_use]
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Returns the alerts that fire, in no order.
    pub fn firing(&self) -> impl Iterator<Item = &Alert> {
        self.engine.firing()
    }

    /// Returns the alerts that fire, the worst and oldest first.
    #[must_use]
    pub fn alerts(&self) -> Vec<&Alert> {
        let mut alerts: Vec<&Alert> = self.engine.firing().collect();
        alerts.sort_by(|left, right| {
            (rank(left), left.since, &left.id).cmp(&(rank(right), right.since, &right.id))
        });
        alerts
    }
}

fn rank(alert: &Alert) -> usize {
    let all = AlertSeverity::ALL;
    all.iter().position(|severity| *severity == alert.severity).unwrap_or(all.len())
}

/// Notes the trouble of a component where it has no worse one.
fn note(troubles: &mut BTreeMap<Component, Trouble>, rule: &Rule, holding: &Holding) {
    let component = &holding.series.component;
    if has_worse(troubles, component, rule.severity) {
        return;
    }
    let mut labels: BTreeMap<String, String> =
        holding.series.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    labels.insert("component".to_owned(), component.to_string());
    let trouble = Trouble {
        severity: rule.severity,
        message: text::message(rule, holding, &labels),
        unit: rule.unit(&holding.series),
        value: holding.value,
        threshold: holding.threshold,
    };
    troubles.insert(component.clone(), trouble);
}

/// Notes the trouble that an alert about an event stands for.
fn note_event(troubles: &mut BTreeMap<Component, Trouble>, alert: &Alert) {
    if !has_worse(troubles, &alert.component, alert.severity) {
        let trouble = Trouble {
            severity: alert.severity,
            message: alert.message.clone(),
            unit: STATE.unit,
            value: None,
            threshold: None,
        };
        troubles.insert(alert.component.clone(), trouble);
    }
}

/// Returns whether a trouble as bad as this one is known of a component.
fn has_worse(
    troubles: &BTreeMap<Component, Trouble>,
    component: &str,
    severity: AlertSeverity,
) -> bool {
    let weight = |severity| match severity {
        AlertSeverity::Critical => 2,
        AlertSeverity::Warning => 1,
        AlertSeverity::Info => 0,
    };
    let known = troubles.get(component).map(|trouble| weight(trouble.severity));
    known.is_some_and(|known| known >= weight(severity))
}

/// Returns the limit nearest to being passed of a series: the threshold of the mildest rule that
/// judges its latest value.
fn limit(rules: &RuleSet, series: &Series) -> Option<f64> {
    let mut nearest: Option<Test> = None;
    for rule in rules.iter() {
        if let Subject::Metric { metric, component, function: None, test, .. } =
            &rule.condition.subject
            && metric.name == series.metric.name
            && component.fits(&series.component)
        {
            let is_nearer = nearest.is_none_or(|nearest| match test.comparison {
                crate::rule::Comparison::Below => test.threshold > nearest.threshold,
                _ => test.threshold < nearest.threshold,
            });
            if is_nearer {
                nearest = Some(*test);
            }
        }
    }
    nearest.map(|test| test.threshold)
}

#[cfg(test)]
mod tests;
