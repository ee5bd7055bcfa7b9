//! Decides who is told what, and when: alerts that begin and end go in, notes come out. It knows no
//! file, no network and no clock of its own.
//!
//! For every channel and every trouble (a rule and its labels) it keeps what was told last, and
//! compares that with how things are. What differs waits for a moment, so that what comes together
//! is told together, and goes into one note. Because the difference counts and not the event,
//! nothing is told twice, and what was silenced or hidden is told when it is not any more.

mod teller;

use std::collections::{BTreeMap, BTreeSet};

use module_sdk::{events::AlertSeverity, jiff::Timestamp};
use serde::{Deserialize, Serialize};

use self::teller::Teller;
use super::{
    maintenance::Window,
    matcher::Matcher,
    note::{Note, Subject, rank},
};
use crate::{
    alert::{Alert, Transition},
    rule::RuleSet,
    time::Moment,
};

/// Rules of telling: whom, and how often. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Time for which a critical alert waits for others.
    pub critical_wait_ms: u64,
    /// Time for which any other news waits for others.
    pub wait_ms: u64,
    /// Time between two notes about the same trouble, except that it is critical again.
    pub interval_ms: u64,
    /// Time between two reminders of a critical alert; `None` for none.
    pub critical_reminder_ms: Option<u64>,
    /// Time between two reminders of a warning; `None` for none.
    pub warning_reminder_ms: Option<u64>,
    /// Windows in which nobody is told.
    pub windows: Vec<Window>,
    /// The channels.
    pub routes: Vec<Route>,
}

/// News that a channel gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Name of the channel.
    pub channel: String,
    /// Severity from which on it is told.
    pub min_severity: AlertSeverity,
    /// Alerts that it is told of.
    pub matcher: Matcher,
    /// `true` where it is told of ends.
    pub send_resolved: bool,
    /// Notes within an hour, at most; `None` for any number.
    pub cap_per_hour: Option<u32>,
}

/// Circumstances of a moment.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// The rules in force.
    pub rules: &'a RuleSet,
    /// Silences in force.
    pub silences: &'a [Matcher],
    /// Ids of alerts that somebody works on.
    pub acknowledged: &'a BTreeSet<String>,
}

/// Result of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Notes by channel.
    pub notes: Vec<(String, Note)>,
    /// Reasons why a channel was not told of an alert, each counted once.
    pub suppressed: Vec<Suppressed>,
}

/// Reason why a channel is not told of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suppressed {
    /// A silence fits it.
    Silenced,
    /// A maintenance window covers it.
    Maintenance,
    /// An alert that it follows from fires.
    Hidden,
    /// It begins and ends again and again.
    Flapping,
    /// The channel had told as much as it may in an hour; a digest follows.
    Capped,
}

impl Suppressed {
    /// Returns the word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silenced => "silenced",
            Self::Maintenance => "maintenance",
            Self::Hidden => "inhibited",
            Self::Flapping => "flapping",
            Self::Capped => "capped",
        }
    }
}

/// Troubles, and what each channel knows of them.
#[derive(Debug)]
pub struct Notifier {
    policy: Policy,
    state: State,
    is_changed: bool,
}

/// State that survives a restart. Times are milliseconds of the steady clock, and may lie before
/// its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct State {
    troubles: BTreeMap<String, Trouble>,
    channels: BTreeMap<String, Known>,
}

/// A state with the moment at which it was written.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    at: Timestamp,
    steady_ms: i64,
    state: State,
}

/// A rule and its labels, with the alert that they raised last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trouble {
    alert: Subject,
    ended_at: Option<Timestamp>,
    /// Beginnings and ends within the last hour.
    begun_ms: Vec<i64>,
    ended_ms: Vec<i64>,
    changed_ms: i64,
    is_flapping: bool,
}

/// Knowledge of a channel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    entries: BTreeMap<String, Entry>,
    /// Times of the notes within the last hour.
    sent_ms: Vec<i64>,
    /// `true` while news are held back.
    holds: bool,
}

/// Knowledge of a channel of one trouble.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Entry {
    told: Last,
    told_ms: Option<i64>,
    /// Time since which there is something to tell.
    waiting_ms: Option<i64>,
    /// Reason why it is not told.
    suppressed: Option<Suppressed>,
    /// `true` once a note about it was held back.
    is_held: bool,
}

/// News that were told last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Last {
    #[default]
    Nothing,
    Firing,
    Flapping,
}

/// Beginnings and ends within an hour that make an alert a flapping one.
const FLAPS: usize = 3;
/// Time within which they are counted, in milliseconds.
const FLAP_MS: i64 = 3_600_000;
/// Time of quiet after which an alert flaps no more, in milliseconds.
const QUIET_MS: i64 = 1_800_000;
/// Time of quiet after which the end of an alert is told that began more than once within the
/// hour, in milliseconds: what comes back is not over, and who was told that it fires need not be
/// told of each time.
const RECURRING_MS: i64 = 900_000;
/// Time within which the notes of a channel are counted, in milliseconds.
const HOUR_MS: i64 = 3_600_000;
/// Troubles that are kept, at most: beyond it those that are over are forgotten first.
const TROUBLES: usize = 10_000;

impl Notifier {
    /// Begins anew, with the alerts that fire.
    #[must_use]
    pub fn new(policy: Policy, firing: &[Alert], now: Moment) -> Self {
        let mut notifier = Self { policy, state: State::default(), is_changed: false };
        notifier.adopt(firing, now);
        notifier
    }

    /// Goes on from a state that [`save`](Self::save) returned, with the alerts that fire.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn resume(
        policy: Policy,
        saved: &str,
        firing: &[Alert],
        now: Moment,
    ) -> Result<Self, serde_json::Error> {
        let Saved { at, steady_ms, mut state } = serde_json::from_str(saved)?;
        let passed = now.at.as_millisecond().saturating_sub(at.as_millisecond()).max(0);
        let by = steady(now).saturating_sub(steady_ms).saturating_sub(passed);
        state.shift(by);
        let is_wanted = |name: &String| policy.routes.iter().any(|route| route.channel == *name);
        state.channels.retain(|name, _| is_wanted(name));
        let mut notifier = Self { policy, state, is_changed: true };
        notifier.adopt(firing, now);
        Ok(notifier)
    }

    /// Makes the troubles be those that fire, whatever was missed.
    fn adopt(&mut self, firing: &[Alert], now: Moment) {
        let keys: BTreeSet<String> = firing.iter().map(|alert| key(&alert.into())).collect();
        for alert in firing {
            let known = self.state.troubles.get(&key(&alert.into()));
            if known.is_none_or(|trouble| trouble.ended_at.is_some()) {
                self.take(&Transition::Raised(alert.clone()), now);
            }
        }
        for (key, trouble) in &mut self.state.troubles {
            if trouble.ended_at.is_none() && !keys.contains(key) {
                (trouble.ended_at, trouble.changed_ms) = (Some(now.at), steady(now));
                self.is_changed = true;
            }
        }
    }

    /// Returns the state where it changed since the last call, to be kept over a restart.
    pub fn save(&mut self, now: Moment) -> Option<String> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let state = self.state.clone();
        serde_json::to_string(&Saved { at: now.at, steady_ms: steady(now), state }).ok()
    }

    /// Returns whether there is no trouble of which anything may be told.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.state.troubles.is_empty()
    }

    /// Takes what began and ended, and returns what is to be told.
    pub fn step(
        &mut self,
        transitions: &[Transition],
        circumstances: &Circumstances<'_>,
        now: Moment,
    ) -> Told {
        for transition in transitions {
            self.take(transition, now);
        }
        let mut told = Told::default();
        if self.state.troubles.is_empty() {
            return told;
        }
        self.settle(now);
        for route in &self.policy.routes {
            let known = self.state.channels.entry(route.channel.clone()).or_default();
            let mut teller = Teller {
                policy: &self.policy,
                route,
                troubles: &self.state.troubles,
                circumstances,
                now,
                suppressed: &mut told.suppressed,
                is_changed: &mut self.is_changed,
            };
            if let Some(note) = teller.tell(known) {
                told.notes.push((route.channel.clone(), note));
            }
        }
        self.forget(now);
        told
    }

    fn take(&mut self, transition: &Transition, now: Moment) {
        let at = steady(now);
        self.is_changed = true;
        match transition {
            Transition::Raised(alert) => {
                let alert = Subject::from(alert);
                let key = key(&alert);
                let trouble = self.state.troubles.entry(key).or_insert_with(|| Trouble {
                    alert: alert.clone(),
                    ended_at: None,
                    begun_ms: Vec::new(),
                    ended_ms: Vec::new(),
                    changed_ms: at,
                    is_flapping: false,
                });
                (trouble.alert, trouble.ended_at, trouble.changed_ms) = (alert, None, at);
                trouble.begun_ms.push(at);
            }
            Transition::Resolved(alert, end) => {
                if let Some(trouble) = self.state.troubles.get_mut(&key(&alert.into())) {
                    (trouble.ended_at, trouble.changed_ms) = (Some(*end), at);
                    trouble.ended_ms.push(at);
                }
            }
        }
    }

    /// Notes which troubles flap, and which do not any more.
    fn settle(&mut self, now: Moment) {
        let at = steady(now);
        for trouble in self.state.troubles.values_mut() {
            for times in [&mut trouble.begun_ms, &mut trouble.ended_ms] {
                times.retain(|time| at.saturating_sub(*time) < FLAP_MS);
            }
            if trouble.is_flapping {
                if at.saturating_sub(trouble.changed_ms) >= QUIET_MS {
                    trouble.is_flapping = false;
                    trouble.begun_ms.clear();
                    trouble.ended_ms.clear();
                    self.is_changed = true;
                }
            } else if trouble.begun_ms.len().min(trouble.ended_ms.len()) >= FLAPS {
                trouble.is_flapping = true;
                self.is_changed = true;
            }
        }
    }

    /// Forgets troubles that are over, of which everybody knows, and that could not flap.
    fn forget(&mut self, now: Moment) {
        let at = steady(now);
        let channels = &self.state.channels;
        let is_open = |key: &str| {
            let mut entries = channels.values().filter_map(|known| known.entries.get(key));
            entries.any(|entry| entry.told != Last::Nothing || entry.is_held)
        };
        let mut over: Vec<(i64, String)> = Vec::new();
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for (key, trouble) in &self.state.troubles {
            if trouble.ended_at.is_none() {
                continue;
            }
            let is_quiet = at.saturating_sub(trouble.changed_ms) >= FLAP_MS;
            if is_quiet && !trouble.is_flapping && !is_open(key) {
                gone.insert(key.clone());
            } else {
                over.push((trouble.changed_ms, key.clone()));
            }
        }
        let beyond = self.state.troubles.len().saturating_sub(gone.len() + TROUBLES);
        if beyond > 0 {
            over.sort_unstable();
            gone.extend(over.into_iter().take(beyond).map(|(_, key)| key));
        }
        if gone.is_empty() {
            return;
        }
        self.is_changed = true;
        self.state.troubles.retain(|key, _| !gone.contains(key));
        for known in self.state.channels.values_mut() {
            known.entries.retain(|key, _| !gone.contains(key));
        }
    }
}

impl State {
    /// Moves all times by a number of milliseconds.
    fn shift(&mut self, by: i64) {
        let shift = |time: &mut i64| *time = time.saturating_add(by);
        for trouble in self.troubles.values_mut() {
            shift(&mut trouble.changed_ms);
            trouble.begun_ms.iter_mut().chain(&mut trouble.ended_ms).for_each(shift);
        }
        for known in self.channels.values_mut() {
            known.sent_ms.iter_mut().for_each(shift);
            for entry in known.entries.values_mut() {
                entry.told_ms.iter_mut().chain(&mut entry.waiting_ms).for_each(shift);
            }
        }
    }
}

impl Route {
    /// Returns whether the channel is told of an alert. It is not told of its own troubles.
    #[must_use]
    pub fn takes(&self, alert: &Subject) -> bool {
        rank(alert.severity) <= rank(self.min_severity)
            && alert.component.strip_prefix("channel.") != Some(&self.channel)
            && self.matcher.fits(alert)
    }
}

/// Returns the identity of a trouble: the rule and the labels, whenever it happens.
fn key(alert: &Subject) -> String {
    let labels = serde_json::to_string(&alert.labels).unwrap_or_default();
    format!("{}{labels}", alert.name)
}

fn steady(now: Moment) -> i64 {
    ms(now.steady_ms)
}

fn ms(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
