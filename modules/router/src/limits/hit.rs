//! Limits that were reached.

use std::{sync::Arc, time::Duration};

use module_sdk::human;
use serde::{Deserialize, Serialize};

use super::{
    allowance::Limit,
    options::BudgetAction,
    window::{Period, Quantity},
};

/// Those whose requests a limit counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Scope {
    /// All requests together.
    All,
    /// A project.
    Project(Arc<str>),
    /// A virtual key, by its id; `anonymous` for those without one.
    Key(Arc<str>),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Project(name) => write!(f, "project:{name}"),
            Self::Key(id) => write!(f, "key:{id}"),
        }
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

/// Text that names no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no scope of limits; `all`, `project:NAME` and `key:ID` are")]
pub(crate) struct ScopeError;

impl TryFrom<String> for Scope {
    type Error = ScopeError;

    fn try_from(text: String) -> Result<Self, ScopeError> {
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            Some(("project", name)) => Ok(Self::Project(name.into())),
            Some(("key", id)) => Ok(Self::Key(id.into())),
            _ => Err(ScopeError),
        }
    }
}

/// Refusal of a request by a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitHit {
    /// Those whose limit it is.
    pub scope: Scope,
    /// Their name for people: the key's name, the project's.
    pub name: String,
    /// Reason.
    pub reason: HitReason,
    /// Time after which the same request would fit; `None` where it never will, or nobody knows.
    pub retry_after: Option<Duration>,
    /// Consequence: with [`BudgetAction::Reroute`] a model that costs nothing may answer.
    pub action: BudgetAction,
}

/// Reason for which a limit refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HitReason {
    /// Too little is left.
    Used {
        /// Limit that is reached.
        limit: Limit,
        /// Amount that was used before.
        used: u64,
    },
    /// The request alone is larger than the limit.
    TooLarge {
        /// Limit that is too small.
        limit: Limit,
        /// Amount that the request needs.
        needed: u64,
    },
    /// The model has no known price, and an amount of US dollars is limited.
    Unpriced {
        /// Limit that could not be kept.
        limit: Limit,
    },
    /// A budget that another module watches is exceeded.
    Budget,
}

impl LimitHit {
    /// Returns whether money is the reason: a model that costs nothing would not be refused.
    pub(crate) const fn is_about_money(&self) -> bool {
        match self.reason {
            HitReason::Used { limit, .. }
            | HitReason::TooLarge { limit, .. }
            | HitReason::Unpriced { limit } => matches!(limit.quantity, Quantity::NanoUsd),
            HitReason::Budget => true,
        }
    }

    /// Returns the HTTP status of the refusal.
    pub(crate) const fn status(&self) -> u16 {
        match self.reason {
            HitReason::Used { .. } | HitReason::Budget => 429,
            HitReason::TooLarge { .. } | HitReason::Unpriced { .. } => 403,
        }
    }

    /// Returns the name of the refusal in errors and events.
    pub(crate) const fn code(&self) -> &'static str {
        match self.reason {
            HitReason::Unpriced { .. } => "unpriced_model",
            HitReason::Budget => "budget_exceeded",
            HitReason::Used { limit, .. } | HitReason::TooLarge { limit, .. } => {
                match (limit.quantity, limit.period) {
                    (Quantity::NanoUsd, Period::Day | Period::Month) => "budget_exceeded",
                    (Quantity::Tokens, _) => "token_limit_exceeded",
                    _ => "rate_limit_exceeded",
                }
            }
        }
    }
}

impl std::fmt::Display for LimitHit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let owner = match &self.scope {
            Scope::All => "all clients together".to_owned(),
            Scope::Project(name) => format!("the project `{name}`"),
            Scope::Key(_) if self.name.is_empty() => "clients without a key".to_owned(),
            Scope::Key(_) => format!("the key `{}`", self.name),
        };
        match self.reason {
            HitReason::Used { limit, used } => {
                write!(f, "{owner}: {} of {limit} are used", limit.amount(used))?;
            }
            HitReason::TooLarge { limit, needed } => {
                let needed = limit.amount(needed);
                return write!(f, "{owner}: the request may need {needed}, more than {limit}");
            }
            HitReason::Unpriced { limit } => {
                return write!(
                    f,
                    "{owner}: the model has no known price, so {limit} could not be kept; give it \
                     a price, or set quotas.unpriced to `allow`"
                );
            }
            HitReason::Budget => write!(f, "{owner}: the budget is exceeded")?,
        }
        match self.retry_after {
            Some(wait) => write!(f, "; try again in {}", human::duration(round_up(wait))),
            None => Ok(()),
        }
    }
}

fn round_up(wait: Duration) -> Duration {
    if wait.subsec_nanos() == 0 { wait } else { Duration::from_secs(wait.as_secs() + 1) }
}
