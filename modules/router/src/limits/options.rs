//! The part of the configuration about limits.

use std::collections::BTreeMap;

use module_sdk::{Error, Result, Zone};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Allowance;
use crate::redis_link::RedisUrl;

/// Settings of limits. Those of a virtual key are set when it is made.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitOptions {
    /// Limits of all requests together.
    pub all: Allowance,
    /// Limits of all clients without a virtual key together.
    pub anonymous: Allowance,
    /// Limits of projects by name.
    pub projects: BTreeMap<String, Allowance>,
    /// Consequence of an amount of US dollars that is used up: `stop` refuses requests, `reroute`
    /// lets models answer that cost nothing.
    pub budget_action: BudgetAction,
    /// Treatment of a model without a known price where an amount of US dollars is limited:
    /// `refuse` or `allow` it, which then counts as nothing.
    pub unpriced: Unpriced,
    /// Time zone in which days and months begin. Default: the system's. Instances that share a
    /// Redis need the same.
    pub timezone: Zone,
    /// Redis in which instances count together: `redis://host:6379`, best as a reference where it
    /// holds a password. Default: each counts alone.
    pub redis: Option<RedisUrl>,
    /// Number of instances that share the Redis: while it is lost each allows its part.
    #[schemars(range(min = 1, max = 1_000))]
    pub instances: u32,
    /// Time that Redis has for an answer, in milliseconds; then this instance counts alone.
    #[schemars(range(min = 1, max = 1_000))]
    pub redis_timeout_ms: u64,
}

/// Consequence of an amount of US dollars that is used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BudgetAction {
    /// Requests are refused.
    #[default]
    Stop,
    /// Models that cost nothing answer.
    Reroute,
}

/// Treatment of a model without a price where an amount of US dollars is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unpriced {
    /// It is refused: nobody could say what it costs.
    #[default]
    Refuse,
    /// It answers, and counts as nothing.
    Allow,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            all: Allowance::default(),
            anonymous: Allowance::default(),
            projects: BTreeMap::new(),
            budget_action: BudgetAction::default(),
            unpriced: Unpriced::default(),
            timezone: Zone::default(),
            redis: None,
            instances: 1,
            redis_timeout_ms: 5,
        }
    }
}

impl LimitOptions {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        self.all.check("quotas.all")?;
        self.anonymous.check("quotas.anonymous")?;
        for (name, allowance) in &self.projects {
            allowance.check(&format!("quotas.projects.{name}"))?;
        }
        if self.instances > 1 && self.redis.is_none() {
            return Err(Error::config_at("quotas.instances", "has no meaning without a Redis")
                .hint("set quotas.redis, or leave it out"));
        }
        Ok(())
    }
}
