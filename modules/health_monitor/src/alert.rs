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
    states: HashMap<Arc<str>, HashMap<Arc<Series>, State>>,
    /// Alerts of the time before a restart whose series has not been read yet.
    taken_up: Vec<Alert>,
    started_ms: u64,
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
    /// Goes on with the alerts that fired before a restart.
    #[must_use]
    pub fn resume(alerts: Vec<Alert>) -> Self {
        Self { taken_up: alerts, ..Self::default() }
    }

    /// Returns whether an alert of a rule fires for a series.
    #[must_use]
    pub fn is_firing(&self, rule: &Rule, series: &Series) -> bool {
        let states = self.states.get(&rule.name);
        matches!(states.and_then(|states| states.get(series)), Some(State::Firing { .. }))
    }

    /// Takes what holds of one rule at a moment; returns the alerts that begin and end.
    pub fn step(&mut self, rule: &Rule, holding: &[Holding], now: Moment) -> Vec<Transition> {
        let mut transitions = Vec::new();
        let states = self.states.entry(rule.name.clone()).or_default();
        for one in holding {
            let Holding { series, value, .. } = one;
            if !states.contains_key(series) {
                let state = match take_up(&mut self.taken_up, rule, series) {
                    Some(alert) => State::Firing { alert: Box::new(alert), held_ms: now.steady_ms },
                    None => State::Pending { since_ms: now.steady_ms },
                };
                states.insert(series.clone(), state);
            }
            let Some(state) = states.get_mut(series) else { continue };
            match state {
                State::Firing { alert, held_ms } => {
                    (alert.value, *held_ms) = (*value, now.steady_ms);
                }
                State::Pending { since_ms } => {
                    if now.steady_ms.saturating_sub(*since_ms) >= rule.for_ms {
                        let alert = raise(rule, one, now.at);
                        transitions.push(Transition::Raised(alert.clone()));
                        let alert = Box::new(alert);
                        *state = State::Firing { alert, held_ms: now.steady_ms };
                    }
                }
            }
        }
        states.retain(|series, state| {
            if holding.iter().any(|holding| holding.series == *series) {
                return true;
            }
            match state {
                State::Pending { .. } => false,
                State::Firing { alert, held_ms } => {
                    let is_over = now.steady_ms.saturating_sub(*held_ms) >= rule.keep_ms;
                    if is_over {
                        transitions.push(Transition::Resolved((**alert).clone(), now.at));
                    }
                    !is_over
                }
            }
        });
        transitions
    }

    /// Ends alerts of rules that are no more, and of the time before a restart whose condition has
    /// not been seen since.
    pub fn end_former(&mut self, rules: &RuleSet, now: Moment) -> Vec<Transition> {
        let mut transitions = Vec::new();
        let mut end = |alert: Alert| transitions.push(Transition::Resolved(alert, now.at));
        self.states.retain(|name, states| {
            let is_known = rules.get(name).is_some();
            if !is_known {
                for (_, state) in states.drain() {
                    if let State::Firing { alert, .. } = state {
                        end(*alert);
                    }
                }
            }
            is_known
        });
        let waited_ms = now.steady_ms.saturating_sub(self.started_ms);
        let former = std::mem::take(&mut self.taken_up).into_iter();
        let (over, waiting): (Vec<Alert>, Vec<Alert>) = former.partition(|alert| {
            let keep_ms = rules.get(&alert.name).map_or(0, |rule| rule.keep_ms.max(TAKING_UP_MS));
            waited_ms >= keep_ms
        });
        self.taken_up = waiting;
        over.into_iter().for_each(end);
        transitions
    }

    /// Returns the alerts that fire.
    pub fn firing(&self) -> impl Iterator<Item = &Alert> {
        let states = self.states.values().flat_map(HashMap::values);
        let firing = states.filter_map(|state| match state {
            State::Firing { alert, .. } => Some(&**alert),
            State::Pending { .. } => None,
        });
        firing.chain(&self.taken_up)
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
