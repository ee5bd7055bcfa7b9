//! The counts of this instance.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use module_sdk::{Zone, jiff::Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    allowance::{Allowance, Limit},
    budgets::Budgets,
    counter::{Counter, Verdict},
    hit::{HitReason, Scope},
    window::{Amounts, Calendar, CalendarClock, Period, Quantity},
};

/// Version of the state.
const VERSION: u32 = 1;

/// The counts of this instance, by those whose they are.
#[derive(Debug)]
pub(super) struct Ledger {
    generation: u64,
    clock: CalendarClock,
    counters: BTreeMap<Scope, Vec<Counter>>,
    /// Budgets that other modules watch.
    pub(super) budgets: Budgets,
    /// `true` when something changed since it was written.
    is_dirty: bool,
    /// Changes since the counts were handed over to the next generation.
    late: Option<BTreeMap<Scope, Late>>,
    /// Changes since the start, until the former generation has handed over its counts: it still
    /// had them when these requests came.
    early: Option<BTreeMap<Scope, Late>>,
}

/// Counts on their way to the next generation, or to the disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LimitsState {
    version: u32,
    /// Generation of the module that wrote it.
    #[serde(default)]
    pub(super) generation: u64,
    counters: Vec<(Scope, Vec<Counter>)>,
    #[serde(default)]
    budgets: Budgets,
}

/// Changes of the counts of one scope, each limit by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Late(Vec<(Quantity, Period, i64)>);

/// Those who are asked about one request, with their limits.
#[derive(Debug, Clone)]
pub(super) struct Party {
    pub(super) scope: Scope,
    pub(super) name: Arc<str>,
    pub(super) allowance: Allowance,
}

/// Count that a request was added to.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Position of the party.
    pub(super) party: usize,
    pub(super) limit: Limit,
    pub(super) amount: u64,
    /// Beginning of the window.
    pub(super) window: i64,
    /// Amount that Redis has not been told.
    pub(super) unsent: i64,
}

/// Limit that a request does not fit under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full {
    pub(super) party: usize,
    pub(super) reason: HitReason,
    pub(super) retry_after: Option<Duration>,
}

impl Ledger {
    pub(super) fn new(zone: Zone, generation: u64) -> Self {
        Self {
            generation,
            clock: CalendarClock::new(zone),
            counters: BTreeMap::new(),
            budgets: Budgets::default(),
            is_dirty: false,
            late: None,
            early: None,
        }
    }

    pub(super) fn calendar(&mut self, now: Timestamp) -> Calendar {
        self.clock.at(now)
    }

    /// Returns the counts that a request touches, moved to this moment.
    pub(super) fn entries(
        &mut self,
        parties: &[Party],
        amounts: Amounts,
        now: Timestamp,
    ) -> Vec<Entry> {
        let (calendar, now_ms) = (self.clock.at(now), now.as_millisecond());
        let mut entries = Vec::new();
        for (index, party) in parties.iter().enumerate() {
            for limit in party.allowance.limits() {
                let counter = counter(&mut self.counters, &party.scope, limit, now_ms, &calendar);
                entries.push(Entry {
                    party: index,
                    limit,
                    amount: amounts.of(limit.quantity),
                    window: counter.window(),
                    unsent: counter.unsent,
                });
            }
        }
        entries
    }

    /// Checks a request against all its limits, of which this instance may allow one part in
    /// `instances`.
    pub(super) fn check(
        &mut self,
        parties: &[Party],
        entries: &[Entry],
        instances: u64,
        now: Timestamp,
    ) -> Result<(), Full> {
        let (calendar, now_ms) = (self.clock.at(now), now.as_millisecond());
        let mut worst: Option<Full> = None;
        for entry in entries {
            let scope = &parties[entry.party].scope;
            let counter = counter(&mut self.counters, scope, entry.limit, now_ms, &calendar);
            let most = counter.part(entry.limit.most, instances);
            let full = match counter.verdict(most, entry.amount, now_ms, &calendar) {
                Verdict::Fits => continue,
                Verdict::Full(wait) => full(entry, counter.used, wait),
            };
            if worst.is_none_or(|worst| is_longer(full.retry_after, worst.retry_after)) {
                worst = Some(full);
            }
        }
        worst.map_or(Ok(()), Err)
    }

    /// Adds the amounts of a request. What Redis will not be told now is noted as such.
    pub(super) fn add(&mut self, parties: &[Party], entries: &[Entry], is_unsent: bool) {
        for entry in entries {
            let amount = i64::try_from(entry.amount).unwrap_or(i64::MAX);
            self.change(&parties[entry.party].scope, entry, amount, is_unsent);
        }
    }

    /// Changes one count. What Redis will not be told now is noted as such.
    pub(super) fn change(&mut self, scope: &Scope, entry: &Entry, amount: i64, is_unsent: bool) {
        self.is_dirty = true;
        if let Some(late) = &mut self.late {
            late.entry(scope.clone()).or_default().add(entry.limit, amount);
        }
        if let Some(early) = &mut self.early {
            early.entry(scope.clone()).or_default().add(entry.limit, amount);
        }
        let Some(counter) = find(&mut self.counters, scope, entry.limit) else { return };
        let changed = counter.add(amount, entry.window);
        if is_unsent && entry.limit.period.bucket_ms().is_none() {
            counter.unsent = counter.unsent.saturating_add(changed);
        }
    }

    /// Takes over a count that Redis told.
    pub(super) fn take_over(&mut self, scope: &Scope, entry: &Entry, told: u64, window: i64) {
        self.is_dirty = true;
        if let Some(counter) = find(&mut self.counters, scope, entry.limit) {
            counter.take_over(told, window, entry.unsent);
        }
    }

    /// Notes an amount that Redis should have been told.
    pub(super) fn note_unsent(&mut self, scope: &Scope, entry: &Entry, amount: i64) {
        if let Some(counter) = find(&mut self.counters, scope, entry.limit)
            && entry.limit.period.bucket_ms().is_none()
        {
            counter.unsent = counter.unsent.saturating_add(amount);
        }
    }

    /// Returns what is left of the tightest amount of US dollars of a day or a month, in nano-USD;
    /// `None` where none is limited.
    pub(super) fn money_left(&mut self, parties: &[Party], now: Timestamp) -> Option<i64> {
        let (calendar, now_ms) = (self.clock.at(now), now.as_millisecond());
        let mut least: Option<i64> = None;
        for party in parties {
            let is_budget = |limit: &Limit| {
                limit.quantity == Quantity::NanoUsd && limit.period.bucket_ms().is_none()
            };
            for limit in party.allowance.limits().filter(is_budget) {
                let counter = counter(&mut self.counters, &party.scope, limit, now_ms, &calendar);
                let amount = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
                let left = amount(limit.most).saturating_sub(amount(counter.used));
                least = Some(least.map_or(left, |least| least.min(left)));
            }
        }
        least
    }

    /// Returns what a scope used of its limits.
    pub(super) fn used(&self, scope: &Scope) -> impl Iterator<Item = &Counter> {
        self.counters.get(scope).into_iter().flatten()
    }

    /// Returns the counts without those that are over.
    pub(super) fn state(&mut self, now: Timestamp) -> LimitsState {
        let (calendar, now_ms) = (self.clock.at(now), now.as_millisecond());
        for counters in self.counters.values_mut() {
            counters.retain(|counter| !counter.is_over(now_ms, &calendar));
        }
        self.counters.retain(|_, counters| !counters.is_empty());
        self.budgets.forget_old(now);
        LimitsState {
            version: VERSION,
            generation: self.generation,
            counters: self.counters.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            budgets: self.budgets.clone(),
        }
    }

    /// Returns the counts where they changed since the last time.
    pub(super) fn changed(&mut self, now: Timestamp) -> Option<LimitsState> {
        std::mem::take(&mut self.is_dirty).then(|| self.state(now))
    }

    pub(super) fn set_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// Begins to note what changes, until counts are taken over.
    pub(super) fn begin(&mut self) {
        self.early.get_or_insert_default();
    }

    /// Takes over counts, and adds what has changed since this one began.
    pub(super) fn restore(&mut self, state: LimitsState) {
        if state.version != VERSION {
            tracing::warn!(version = state.version, "limits begin anew: their state is unknown");
            return;
        }
        let own = std::mem::replace(&mut self.counters, state.counters.into_iter().collect());
        self.budgets.take_over(state.budgets);
        if let Some(early) = self.early.take() {
            self.keep_new(own);
            self.add_late(early.into_iter().collect());
        }
        self.is_dirty = true;
    }

    /// Keeps counts of limits that the former generation did not count: all of them came early.
    fn keep_new(&mut self, own: BTreeMap<Scope, Vec<Counter>>) {
        for (scope, counters) in own {
            let known = self.counters.entry(scope).or_default();
            for mut counter in counters {
                let is_same =
                    |it: &Counter| it.quantity == counter.quantity && it.period == counter.period;
                if !known.iter().any(is_same) {
                    let window = counter.window();
                    counter.add(-i64::try_from(counter.used).unwrap_or(i64::MAX), window);
                    known.push(counter);
                }
            }
        }
    }

    /// Begins to note what changes from now on, for the next generation, which has the rest.
    pub(super) fn hand_over(&mut self) {
        self.late.get_or_insert_default();
    }

    pub(super) const fn is_handed_over(&self) -> bool {
        self.late.is_some()
    }

    /// Goes on as if nothing had been handed over: there is no next generation.
    pub(super) fn take_back(&mut self) {
        self.late = None;
        self.is_dirty = true;
    }

    /// Returns what changed since the hand-over.
    pub(super) fn late(&mut self) -> Vec<(Scope, Late)> {
        self.late.take().unwrap_or_default().into_iter().collect()
    }

    /// Adds what the previous generation settled after the hand-over.
    pub(super) fn add_late(&mut self, late: Vec<(Scope, Late)>) {
        for (scope, late) in late {
            for counter in self.counters.get_mut(&scope).into_iter().flatten() {
                let window = counter.window();
                counter.add(late.of(counter), window);
            }
        }
        self.is_dirty = true;
    }
}

impl Late {
    fn add(&mut self, limit: Limit, amount: i64) {
        let is_its =
            |it: &&mut (Quantity, Period, i64)| it.0 == limit.quantity && it.1 == limit.period;
        match self.0.iter_mut().find(is_its) {
            Some((_, _, sum)) => *sum = sum.saturating_add(amount),
            None => self.0.push((limit.quantity, limit.period, amount)),
        }
    }

    fn of(&self, counter: &Counter) -> i64 {
        let is_its =
            |it: &&(Quantity, Period, i64)| it.0 == counter.quantity && it.1 == counter.period;
        self.0.iter().find(is_its).map_or(0, |(_, _, sum)| *sum)
    }
}

/// Returns the reason for which an entry does not fit.
pub(super) fn full(entry: &Entry, used: u64, wait: Option<Duration>) -> Full {
    let limit = entry.limit;
    let reason = if entry.amount > limit.most {
        HitReason::TooLarge { limit, needed: entry.amount }
    } else {
        HitReason::Used { limit, used }
    };
    Full { party: entry.party, reason, retry_after: wait }
}

/// Returns whether a wait is longer than another; none at all is the longest.
fn is_longer(wait: Option<Duration>, other: Option<Duration>) -> bool {
    wait.unwrap_or(Duration::MAX) > other.unwrap_or(Duration::MAX)
}

fn counter<'a>(
    counters: &'a mut BTreeMap<Scope, Vec<Counter>>,
    scope: &Scope,
    limit: Limit,
    now_ms: i64,
    calendar: &Calendar,
) -> &'a mut Counter {
    if !counters.contains_key(scope) {
        counters.insert(scope.clone(), Vec::new());
    }
    let of_scope = counters.get_mut(scope).expect("it was just inserted");
    let fits = |it: &Counter| it.quantity == limit.quantity && it.period == limit.period;
    let index = match of_scope.iter().position(fits) {
        Some(index) => index,
        None => {
            of_scope.push(Counter::new(limit, now_ms, calendar));
            of_scope.len() - 1
        }
    };
    let counter = &mut of_scope[index];
    counter.advance(limit.most, now_ms, calendar);
    counter
}

fn find<'a>(
    counters: &'a mut BTreeMap<Scope, Vec<Counter>>,
    scope: &Scope,
    limit: Limit,
) -> Option<&'a mut Counter> {
    let of_scope = counters.get_mut(scope)?;
    of_scope.iter_mut().find(|it| it.quantity == limit.quantity && it.period == limit.period)
}
