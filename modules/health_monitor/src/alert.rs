//! Alerts: from conditions that hold to alerts that are raised once and resolved once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use module_sdk::{events::AlertSeverity, jiff::Timestamp};

use crate::{
    reading::Series,
    rule::{Rule, RuleSet},
    text,
    time::Moment,
};

/// An alert that fires.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Id, the same for its beginning and its end.
    pub id: String,
    /// Name of its rule.
    pub name: Arc<str>,
    /// Severity.
    pub severity: AlertSeverity,
    /// The component.
    pub component: Arc<str>,
    /// Labels, the component among them.
    pub labels: BTreeMap<String, String>,
    /// Text for a person: the trouble and the next step.
    pub message: String,
    /// Latest value that made it fire.
    pub value: Option<f64>,
    /// Time at which it was raised.
    pub since: Timestamp,
}

/// Beginning or end of an alert.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// Beginning.
    Raised(Alert),
    /// End, with the time.
    Resolved(Alert, Timestamp),
}

/// A condition that holds at the moment for a series.
#[derive(Debug, Clone)]
pub struct Holding {
    /// Series that it holds for.
    pub series: Arc<Series>,
    /// Value of the series, as the rule sees it.
    pub value: Option<f64>,
    /// Threshold that it is beyond.
    pub threshold: Option<f64>,
    /// Explanation by the check of the component, empty for none.
    pub reason: String,
}

/// Alerts by rule and series.
#[derive(Debug, Default)]
pub struct Engine {
    /// Series of each rule for which its condition holds or held, in the order of the rules.
    states: Vec<HashMap<Arc<Series>, Standing>>,
    /// Alerts of the time before a restart whose series has not been read yet.
    taken_up: Vec<Alert>,
    started_ms: u64,
    /// Count of the steps.
    round: u64,
}

#[derive(Debug)]
struct Standing {
    state: State,
    /// Step in which the condition held last.
    round: u64,
}

#[derive(Debug)]
enum State {
    /// The condition holds, and has to go on.
    Pending { since_ms: u64 },
    /// The alert fires; the condition held last at this time.
    Firing { alert: Box<Alert>, held_ms: u64 },
}

/// Time after a start within which an alert of the time before is not resolved, in milliseconds:
/// checks have to report first.
const TAKING_UP_MS: u64 = 60_000;

impl Engine {
    /// Goes on with the alerts that fired before a restart. Rules are known by their numbers from
    /// here on.
    #[must_use]
    pub fn resume(rules: &RuleSet, alerts: Vec<Alert>) -> Self {
        let states = rules.iter().map(|_| HashMap::new()).collect();
        Self { states, taken_up: alerts, ..Self::default() }
    }

    /// Returns whether the condition of a rule neither holds nor held, so that only what is new
    /// concerns it.
    #[must_use]
    pub fn is_quiet(&self, rule: usize) -> bool {
        self.states[rule].is_empty()
    }

    /// Returns whether an alert of a rule fires for a series.
    #[must_use]
    pub fn is_firing(&self, rule: usize, series: &Series) -> bool {
        let standing = self.states[rule].get(series);
        standing.is_some_and(|it| matches!(it.state, State::Firing { .. }))
    }

    /// Takes what holds of one rule at a moment; adds the alerts that begin and end.
    pub fn step(
        &mut self,
        (number, rule): (usize, &Rule),
        holding: &[Holding],
        transitions: &mut Vec<Transition>,
        now: Moment,
    ) {
        self.round += 1;
        let (round, states) = (self.round, &mut self.states[number]);
        for one in holding {
            let Holding { series, value, .. } = one;
            let standing = states.entry(series.clone()).or_insert_with(|| {
                let state = match take_up(&mut self.taken_up, rule, series) {
                    Some(alert) => State::Firing { alert: Box::new(alert), held_ms: now.steady_ms },
                    None => State::Pending { since_ms: now.steady_ms },
                };
                Standing { state, round }
            });
            standing.round = round;
            match &mut standing.state {
                State::Firing { alert, held_ms } => {
                    (alert.value, *held_ms) = (*value, now.steady_ms);
                }
                State::Pending { since_ms } => {
                    if now.steady_ms.saturating_sub(*since_ms) >= rule.for_ms {
                        let alert = raise(rule, one, now.at);
                        transitions.push(Transition::Raised(alert.clone()));
                        let alert = Box::new(alert);
                        standing.state = State::Firing { alert, held_ms: now.steady_ms };
                    }
                }
            }
        }
        states.retain(|_, standing| match &standing.state {
            _ if standing.round == round => true,
            State::Pending { .. } => false,
            State::Firing { alert, held_ms } => {
                let is_over = now.steady_ms.saturating_sub(*held_ms) >= rule.keep_ms;
                if is_over {
                    transitions.push(Transition::Resolved((**alert).clone(), now.at));
                }
                !is_over
            }
        });
    }

    /// Ends alerts of the time before a restart whose rule is no more, or whose condition has not
    /// been seen since.
    pub fn end_former(&mut self, rules: &RuleSet, transitions: &mut Vec<Transition>, now: Moment) {
        if self.taken_up.is_empty() {
            return;
        }
        let waited_ms = now.steady_ms.saturating_sub(self.started_ms);
        let former = std::mem::take(&mut self.taken_up).into_iter();
        let (over, waiting): (Vec<Alert>, Vec<Alert>) = former.partition(|alert| {
            let keep_ms = rules.get(&alert.name).map_or(0, |rule| rule.keep_ms.max(TAKING_UP_MS));
            waited_ms >= keep_ms
        });
        self.taken_up = waiting;
        transitions.extend(over.into_iter().map(|alert| Transition::Resolved(alert, now.at)));
    }

    /// Returns the alerts that fire.
    pub fn firing(&self) -> impl Iterator<Item = &Alert> {
        self.states
            .iter()
            .flat_map(HashMap::values)
            .filter_map(Standing::alert)
            .chain(&self.taken_up)
    }

    /// Returns the alerts of a rule that fire.
    pub fn firing_of<'a>(
        &'a self,
        number: usize,
        rule: &'a Rule,
    ) -> impl Iterator<Item = &'a Alert> {
        let former = self.taken_up.iter().filter(|alert| alert.name == rule.name);
        self.states[number].values().filter_map(Standing::alert).chain(former)
    }
}

impl Standing {
    fn alert(&self) -> Option<&Alert> {
        match &self.state {
            State::Firing { alert, .. } => Some(alert),
            State::Pending { .. } => None,
        }
    }
}

/// Takes the alert of the time before a restart that belongs to a series.
fn take_up(alerts: &mut Vec<Alert>, rule: &Rule, series: &Series) -> Option<Alert> {
    let labels = labels(rule, series);
    let at = alerts.iter().position(|alert| alert.name == rule.name && alert.labels == labels)?;
    Some(alerts.swap_remove(at))
}

fn raise(rule: &Rule, holding: &Holding, at: Timestamp) -> Alert {
    let series = &holding.series;
    let labels = labels(rule, series);
    Alert {
        id: id(rule, &labels, at),
        name: rule.name.clone(),
        severity: rule.severity,
        component: series.component.clone(),
        message: text::message(rule, holding, &labels),
        labels,
        value: holding.value,
        since: at,
    }
}

/// Returns the labels of an alert: those of the series and of the rule, and the component.
fn labels(rule: &Rule, series: &Series) -> BTreeMap<String, String> {
    let own = series.pairs().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut labels: BTreeMap<String, String> = own.collect();
    labels.extend(rule.labels.clone());
    labels.insert("component".to_owned(), series.component.to_string());
    labels
}

/// Returns an id that a person can type: the rule, and eight digits of a hash of labels and time.
fn id(rule: &Rule, labels: &BTreeMap<String, String>, at: Timestamp) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    let mut hasher = DefaultHasher::new();
    (labels, at.as_millisecond()).hash(&mut hasher);
    format!("{}-{:08x}", rule.name, hasher.finish() & 0xffff_ffff)
}
