//! Budgets that other modules watch: what their events say, and what is spent here since.

use std::time::Duration;

use module_sdk::{events::BudgetUse, jiff::Timestamp};
use serde::{Deserialize, Serialize};

use super::hit::{Scope, ScopeError};

/// Budgets that are remembered, at most.
const MOST: usize = 1_000;

/// Budgets that other modules watch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Budgets(Vec<Budget>);

/// Budget that another module watches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Budget {
    scope: Scope,
    name: String,
    is_exceeded: bool,
    /// Amount of it, in nano-USD.
    #[serde(default)]
    limit: Option<i64>,
    /// Amount that is used, in nano-USD: what was told, and what was spent here since.
    #[serde(default)]
    spent: Option<i64>,
    #[serde(default)]
    since: Option<Timestamp>,
    #[serde(default)]
    until: Option<Timestamp>,
    /// `true` where this generation heard of it, and did not read it.
    #[serde(skip)]
    is_heard: bool,
}

/// Budget of which it can be asked what was spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenBudget {
    /// Those whose it is.
    pub scope: Scope,
    name: String,
    /// Beginning of its period.
    pub since: Timestamp,
}

impl Budgets {
    /// Takes over what an event says.
    ///
    /// # Errors
    ///
    /// When it does not say whose the budget is.
    pub(super) fn hear(
        &mut self,
        told: &BudgetUse,
        is_exceeded: bool,
        now: Timestamp,
    ) -> Result<(), ScopeError> {
        let scope = match told.scope.as_str() {
            "" => Scope::All,
            scope => Scope::try_from(scope.to_owned())?,
        };
        let time = |ms: Option<i64>| ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let budget = Budget {
            scope,
            name: told.budget.clone(),
            is_exceeded,
            limit: told.limit_nano_usd,
            spent: told.spent_nano_usd,
            since: time(told.since),
            until: time(told.until),
            is_heard: true,
        };
        self.0.retain(|it| {
            let is_same = it.scope == budget.scope && it.name == budget.name;
            !is_same && it.is_current(now)
        });
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(budget);
        Ok(())
    }

    /// Takes over the budgets of a former generation, where nothing newer was heard of them.
    pub(super) fn take_over(&mut self, former: Self) {
        let newer = std::mem::replace(self, former);
        for budget in newer.0.into_iter().filter(|budget| budget.is_heard) {
            self.0.retain(|it| it.scope != budget.scope || it.name != budget.name);
            self.0.push(budget);
        }
    }

    /// Returns the first scope of which a budget is exceeded, and for how long: of several budgets
    /// of it the longest time, `None` where nobody knows.
    pub(super) fn exceeded(
        &self,
        scopes: &[Scope],
        now: Timestamp,
    ) -> Option<(usize, Option<Duration>)> {
        scopes.iter().enumerate().find_map(|(index, scope)| {
            let is_it = |it: &&Budget| it.scope == *scope && it.is_exceeded && it.is_current(now);
            let left = |it: &Budget| {
                it.until.and_then(|until| Duration::try_from(until.duration_since(now)).ok())
            };
            let longest = |a: Option<Duration>, b: Option<Duration>| Some(a?.max(b?));
            let exceeded = self.0.iter().filter(is_it).map(left).reduce(longest)?;
            Some((index, exceeded))
        })
    }

    /// Returns what is left of the tightest budget of these scopes, in nano-USD; `None` where
    /// nothing is known.
    pub(super) fn left(&self, scopes: &[Scope], now: Timestamp) -> Option<i64> {
        let of_them = self.0.iter().filter(|it| scopes.contains(&it.scope) && it.is_current(now));
        of_them.filter_map(Budget::left).min()
    }

    /// Counts what was spent here. Returns whether that changes a budget.
    pub(super) fn spend(&mut self, scopes: &[Scope], nano_usd: i64, now: Timestamp) -> bool {
        let mut is_changed = false;
        for budget in self.0.iter_mut().filter(|it| scopes.contains(&it.scope)) {
            if let Some(spent) = budget.spent.filter(|_| budget.is_current(now)) {
                budget.spent = Some(spent.saturating_add(nano_usd));
                is_changed = true;
            }
        }
        is_changed
    }

    /// Returns the budgets of which the costs of all requests say what was spent.
    pub(super) fn to_ask(&self, now: Timestamp) -> Vec<OpenBudget> {
        let known = self.0.iter().filter(|it| {
            it.is_current(now) && it.limit.is_some() && !matches!(it.scope, Scope::Key(_))
        });
        let asked = |it: &Budget| {
            Some(OpenBudget { scope: it.scope.clone(), name: it.name.clone(), since: it.since? })
        };
        known.filter_map(asked).collect()
    }

    /// Takes over what was spent of a budget in its period.
    pub(super) fn told(&mut self, asked: &OpenBudget, spent: i64) {
        let is_it = |it: &&mut Budget| {
            it.scope == asked.scope && it.name == asked.name && it.since == Some(asked.since)
        };
        if let Some(budget) = self.0.iter_mut().find(is_it) {
            budget.spent = Some(spent);
        }
    }

    /// Forgets those whose period is over.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        self.0.retain(|it| it.is_current(now));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Budget {
    fn is_current(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn left(&self) -> Option<i64> {
        let left = self.limit.zip(self.spent).map(|(limit, spent)| limit.saturating_sub(spent));
        if self.is_exceeded { Some(left.unwrap_or(0).min(0)) } else { left }
    }
}
