//! Limits of keys, projects and all requests together.
//!
//! A request reserves what it may need under all its limits, or is refused, and settles what it
//! used. Counts are whole numbers: requests, tokens, billionths of a US dollar. They lie in memory,
//! go to the next generation of the module, and are written every few seconds; with a Redis
//! several instances count together. While it is lost each counts alone, allows its part of the
//! rates and of what is left of the budgets, and tells Redis afterwards what was used meanwhile.

mod allowance;
mod budgets;
mod counter;
mod hit;
mod instance;
mod ledger;
mod options;
mod reservation;
mod shared;
#[cfg(test)]
mod tests;
mod window;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use module_sdk::{Error, Host, Result, events::BudgetUse};

pub(crate) use allowance::{Allowance, Limit};
pub(crate) use budgets::OpenBudget;
pub(crate) use hit::{HitReason, LimitHit, Scope};
pub(crate) use ledger::LimitsState;
pub(crate) use options::{BudgetAction, LimitOptions, Unpriced};
pub(crate) use reservation::{Actual, Reservation};
pub(crate) use window::{Amounts, Period, Quantity};

use crate::{keys::Identity, redis_link::RedisLink};
use instance::Instance;
use ledger::Ledger;

/// Name of the state.
const STATE: &str = "limits";
/// Beginning of the names of states that hold what a generation settled after its hand-over.
const LATE: &str = "limits_late_";

/// The limits in force. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    inner: Arc<Instance>,
}

/// Amounts that a request may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// Requests: 1, and 0 for a further attempt of the same one.
    pub requests: u64,
    /// Tokens of input and output together.
    pub tokens: u64,
    /// Cost in billionths of a US dollar; `None` where the model has no known price.
    pub nano_usd: Option<u64>,
}

impl Limits {
    /// Reads the counts, and begins to connect to the Redis where there is one.
    ///
    /// # Errors
    ///
    /// When the Redis cannot be used as configured, or the runtime does not start.
    pub(crate) fn load(host: &Host, options: LimitOptions) -> Result<Self> {
        let runtime = host.runtime()?;
        let deadline = Duration::from_millis(options.redis_timeout_ms);
        let link = options.redis.as_ref().map(|url| RedisLink::start(url, deadline, &runtime));
        let link = link
            .transpose()
            .map_err(|error| Error::config_at("quotas.redis", error.to_string()))?;
        let mut ledger = Ledger::new(options.timezone.clone(), host.generation());
        match host.load_state(STATE) {
            Ok(state) => state.into_iter().for_each(|state| ledger.restore(state)),
            // Without its counts the router still answers; only this day begins anew.
            Err(error) => tracing::warn!(%error, "limits begin anew"),
        }
        ledger.begin();
        let ledger = Mutex::new(ledger);
        let (host, handed_over_at) = (host.clone(), Mutex::default());
        Ok(Self {
            inner: Arc::new(Instance { options, ledger, link, runtime, host, handed_over_at }),
        })
    }

    /// Reserves what a request may need under the limits of its key, its project and all requests.
    ///
    /// # Errors
    ///
    /// The limit that refuses it: of several the one that lasts longest.
    pub(crate) async fn reserve(
        &self,
        identity: &Identity,
        project: Option<&str>,
        estimate: Estimate,
    ) -> Result<Reservation, LimitHit> {
        let now = self.inner.host.now();
        self.inner.ask_budgets(identity, project, estimate, now)?;
        let parties = self.inner.parties(identity, project);
        if parties.is_empty() {
            return Ok(Reservation::default());
        }
        let amounts = self.inner.amounts(&parties, estimate)?;
        match &self.inner.link {
            Some(link) if link.is_up() => {
                let (inner, link) = (self.inner.clone(), link.clone());
                // A task of its own: where the client goes away, Redis may have counted already.
                let task = inner.runtime.clone().spawn(async move {
                    inner.reserve_shared(&link, &parties, amounts, now).await
                });
                match task.await {
                    Ok(outcome) => outcome,
                    // The runtime ends, and with it the request.
                    Err(_) => Ok(Reservation::default()),
                }
            }
            _ => self.inner.reserve_alone(&parties, amounts, now),
        }
    }

    /// Takes over what is said of a budget that another module watches: that it is exceeded, or
    /// that it is not (any more).
    pub(crate) fn hear(&self, told: &BudgetUse, is_exceeded: bool) {
        let mut ledger = self.inner.ledger();
        match ledger.budgets.hear(told, is_exceeded, self.inner.host.now()) {
            Ok(()) => ledger.set_dirty(),
            // Whoever it is for must not be everybody.
            Err(error) => {
                let scope = &*told.scope;
                tracing::warn!(budget = &*told.budget, scope, %error, "a budget is not heeded");
            }
        }
    }

    /// Returns what is left of the tightest budget that a request counts for, in nano-USD: of the
    /// amounts of US dollars of its key, its project and all, and of what other modules watch.
    /// `None` where there is none, or nothing is known of it.
    pub(crate) fn budget_left(&self, identity: &Identity, project: Option<&str>) -> Option<i64> {
        self.inner.budget_left(identity, project)
    }

    /// Counts the cost of an answer against the budgets that other modules watch, until they say
    /// themselves what is used.
    pub(crate) fn spent(&self, identity: &Identity, project: Option<&str>, nano_usd: i64) {
        let mut ledger = self.inner.ledger();
        if nano_usd == 0 || ledger.budgets.is_empty() {
            return;
        }
        let scopes = instance::scopes(identity, project);
        if ledger.budgets.spend(&scopes, nano_usd, self.inner.host.now()) {
            ledger.set_dirty();
        }
    }

    /// Returns the budgets of which `usage_tracker` can say what was spent.
    pub(crate) fn budgets_to_ask(&self) -> Vec<OpenBudget> {
        self.inner.ledger().budgets.to_ask(self.inner.host.now())
    }

    /// Takes over what `usage_tracker` says was spent of a budget.
    pub(crate) fn budget_told(&self, asked: &OpenBudget, spent_nano_usd: i64) {
        let mut ledger = self.inner.ledger();
        ledger.budgets.told(asked, spent_nano_usd);
        ledger.set_dirty();
    }

    /// Returns the consequence of an amount of US dollars that is used up.
    pub(crate) fn budget_action(&self) -> BudgetAction {
        self.inner.options.budget_action
    }

    /// Returns whether a budget of a scope, which another module watches, is exceeded.
    pub(crate) fn is_exceeded(&self, scope: &Scope) -> bool {
        let now = self.inner.host.now();
        self.inner.ledger().budgets.exceeded(std::slice::from_ref(scope), now).is_some()
    }

    /// Returns what is used of the limits of a scope: each limit by its name, with its count.
    pub(crate) fn used(&self, scope: &Scope) -> Vec<(Quantity, Period, u64)> {
        let ledger = self.inner.ledger();
        ledger.used(scope).map(|it| (it.quantity, it.period, it.used)).collect()
    }

    /// Returns what is wrong, in words for the health of the module.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.inner.link.as_ref()?.trouble()?;
        let alone = match self.inner.options.instances {
            1 => "limits are counted by this instance alone".to_owned(),
            n => format!("limits are counted by this instance alone, which allows 1/{n} of them"),
        };
        Some(format!("{trouble}; {alone}"))
    }

    /// Writes the counts where they changed, and takes over what a former generation settled late:
    /// called every few seconds, on the module's thread.
    ///
    /// # Errors
    ///
    /// When they cannot be written; the next call tries again.
    pub(crate) fn save(&self) -> Result<()> {
        let host = &self.inner.host;
        if self.inner.ledger().is_handed_over() && !self.inner.is_left_alone() {
            return Ok(());
        }
        self.inner.take_late()?;
        let Some(state) = self.inner.ledger().changed(host.now()) else { return Ok(()) };
        host.save_state(STATE, &state).inspect_err(|_| self.inner.ledger().set_dirty())
    }

    /// Returns the counts for the next generation. What this one settles from now on is kept apart
    /// and written by [`finish`](Self::finish).
    pub(crate) fn hand_over(&self) -> LimitsState {
        *self.inner.handed_over_at.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(self.inner.host.now());
        let mut ledger = self.inner.ledger();
        ledger.hand_over();
        ledger.state(self.inner.host.now())
    }

    /// Takes over the counts of the previous generation.
    pub(crate) fn restore(&self, state: LimitsState) {
        self.inner.ledger().restore(state);
    }

    /// Writes the counts at the end: all of them, or after a hand-over those since.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub(crate) fn finish(&self) -> Result<()> {
        let host = &self.inner.host;
        let (is_handed_over, late) = {
            let mut ledger = self.inner.ledger();
            (ledger.is_handed_over(), ledger.late())
        };
        match (is_handed_over, late.is_empty()) {
            (false, _) => self.save(),
            (true, true) => Ok(()),
            (true, false) => host.save_state(&format!("{LATE}{}", host.generation()), &late),
        }
    }
}
