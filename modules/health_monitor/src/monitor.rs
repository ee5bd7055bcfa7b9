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
    metric::{Kind, Metric, UNLISTED, Unit},
    reading::{Component, Presence, Report, Series},
    rule::{Condition, Function, Rule, RuleSet, Subject},
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
    slot: UNLISTED,
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
    ) -> Arc<[(Arc<Series>, f64)]>;
}

/// No requests at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRequests;

impl Requests for NoRequests {
    fn each(
        &self,
        _: &'static Metric,
        _: Function,
        _: u64,
        _: Moment,
    ) -> Arc<[(Arc<Series>, f64)]> {
        Arc::default()
    }
}

/// All that is known, and the rules that judge it.
#[derive(Debug)]
pub struct Monitor {
    rules: RuleSet,
    /// Subjects of each rule, in their order.
    inputs: Vec<Inputs>,
    values: Values,
    board: Board,
    engine: Engine,
    /// Components that rules about states and events speak of.
    states: BTreeMap<Component, Arc<Series>>,
    /// Events that came since the last step: topic, fields, component.
    events: Vec<(String, serde_json::Value, Component)>,
    /// `true` where a check reported since the last step.
    is_news: bool,
    /// `true` where the last step found troubles.
    is_troubled: bool,
}

/// Subjects of the conditions of a rule.
#[derive(Debug)]
struct Inputs {
    /// Metrics of all conditions.
    metrics: Vec<&'static Metric>,
    /// `true` where time alone may change what holds: with functions over a time.
    is_timed: bool,
}

impl Inputs {
    fn of(rule: &Rule) -> Self {
        let mut inputs = Self { metrics: Vec::new(), is_timed: false };
        rule.condition.walk(&mut |condition| {
            if let Subject::Metric { metric, function, .. } = &condition.subject {
                inputs.metrics.push(metric);
                inputs.is_timed |= function.is_some();
            }
        });
        inputs
    }
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
            values: Values::default(),
            board: Board::default(),
            engine: Engine::resume(&rules, firing),
            inputs: rules.iter().map(|rule| Inputs::of(rule)).collect(),
            rules,
            states: BTreeMap::new(),
            events: Vec::new(),
            is_news: true,
            is_troubled: false,
        }
    }

    /// Takes the report of a check.
    pub fn take(&mut self, check: &'static str, report: Report, now: Moment) {
        self.is_news = true;
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

    /// Returns whether nothing came since the last step, and nothing holds of any rule.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.is_news
            && !self.is_troubled
            && self.events.is_empty()
            && (0..self.inputs.len()).all(|rule| self.engine.is_quiet(rule))
    }

    /// Judges everything at a moment.
    pub fn step(&mut self, requests: &dyn Requests, now: Moment) -> Step {
        let mut transitions = Vec::new();
        let mut troubles: BTreeMap<Component, Trouble> = BTreeMap::new();
        let rules = self.rules.clone();
        for (number, rule) in rules.iter().enumerate() {
            if !self.is_settled(number, rule) {
                let holding = self.holding(number, rule, requests, now);
                for holding in &holding {
                    note(&mut troubles, rule, holding);
                }
                self.engine.step((number, rule), &holding, &mut transitions, now);
            }
            if let Subject::Event { .. } = rule.condition.subject {
                // An event is over at once; its trouble lasts as long as its alert.
                let firing = self.engine.firing_of(number, rule);
                firing.for_each(|alert| note_event(&mut troubles, alert));
            }
        }
        self.events.clear();
        self.values.settle();
        self.engine.end_former(&rules, &mut transitions, now);
        let is_troubled = !troubles.is_empty();
        let is_same = !(self.is_news || is_troubled || self.is_troubled);
        (self.is_news, self.is_troubled) = (false, is_troubled);
        let changes = if is_same { Vec::new() } else { self.judge(&troubles, now) };
        Step { changes, transitions }
    }

    fn judge(&mut self, troubles: &BTreeMap<Component, Trouble>, now: Moment) -> Vec<Change> {
        let (values, rules) = (&self.values, &self.rules);
        self.board.judge(
            troubles,
            |series| values.latest(series),
            |series| rules.limit(series),
            now.at,
        )
    }

    /// Returns whether nothing holds of a rule, as at the last step: nothing held then, and nothing
    /// that it looks at is another since.
    fn is_settled(&self, number: usize, rule: &Rule) -> bool {
        let inputs = &self.inputs[number];
        self.engine.is_quiet(number)
            && match &rule.condition.subject {
                Subject::Metric { metric, .. } if metric.kind == Kind::Requests => false,
                Subject::Metric { metric, .. } => {
                    let is_same = |metric: &&Metric| !self.values.is_changed(metric);
                    self.values.has_none(metric)
                        || (!inputs.is_timed && inputs.metrics.iter().all(is_same))
                }
                Subject::Check { .. } => !self.is_news,
                Subject::Event { .. } => self.events.is_empty(),
            }
    }

    /// Returns the series for which the condition of a rule holds.
    fn holding(
        &mut self,
        number: usize,
        rule: &Rule,
        requests: &dyn Requests,
        now: Moment,
    ) -> Vec<Holding> {
        match &rule.condition.subject {
            Subject::Metric { test, .. } => {
                let mut holding = Vec::new();
                self.each(&rule.condition, requests, now, &mut |series, value| {
                    let is_firing = self.engine.is_firing(number, series);
                    if self.holds(&rule.condition, series, value, is_firing, requests, now) {
                        holding.push(Holding {
                            series: series.clone(),
                            value: Some(value),
                            threshold: Some(test.threshold),
                            reason: self.said(&series.component),
                        });
                    }
                });
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

    /// Calls a function with each series that a condition judges, and its value.
    fn each(
        &self,
        condition: &Condition,
        requests: &dyn Requests,
        now: Moment,
        visit: &mut dyn FnMut(&Arc<Series>, f64),
    ) {
        let Subject::Metric { metric, function, .. } = &condition.subject else { return };
        match (metric.kind, function) {
            (Kind::Requests, Some((function, over_ms))) => {
                for (series, value) in &*requests.each(metric, *function, *over_ms, now) {
                    if condition.is_about(series) {
                        visit(series, *value);
                    }
                }
            }
            _ => {
                let (number, now_ms) = (condition.number, now.steady_ms);
                for (series, value) in self.values.judged_by(number, metric, *function, now_ms) {
                    visit(series, value);
                }
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
        let (mut count, mut is_own, mut holds, mut other) = (0, false, false, None);
        self.each(condition, requests, now, &mut |series, value| {
            count += 1;
            if &*series.component == component {
                is_own = true;
                holds |= self.holds(condition, series, value, is_firing, requests, now);
            } else {
                other = Some((series.clone(), value));
            }
        });
        // What belongs to nobody, or was picked by its labels, goes for every component.
        let goes_for_all = matches!(&condition.subject, Subject::Metric { metric, labels, .. }
            if metric.labels.is_empty() || !labels.is_empty());
        match other.filter(|_| !is_own && count == 1 && goes_for_all) {
            Some((series, value)) => {
                self.holds(condition, &series, value, is_firing, requests, now)
            }
            None => holds,
        }
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

#[cfg(test)]
mod tests;
