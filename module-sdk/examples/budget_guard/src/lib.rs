//! Warns when a day costs more than it may: a whole module, and a small one.

use module_sdk::{
    Event, Health, Host, Module, NoArgs, Reply, Result, Wiring, events::LlmRequestCompleted,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// How much a day may cost, in USD.
    limit_usd: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { limit_usd: 10.0 }
    }
}

struct BudgetGuard {
    host: Host,
    limit_nano_usd: i64,
    day: i64,
    spent_nano_usd: i64,
}

impl Module for BudgetGuard {
    type Config = Config;

    fn start(config: Config, host: &Host) -> Result<Self> {
        let limit_nano_usd = (config.limit_usd * 1e9) as i64;
        Ok(Self { host: host.clone(), limit_nano_usd, day: 0, spent_nano_usd: 0 })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring.on(Self::request_completed).command("status", Self::status);
    }

    fn health(&self) -> Health {
        if self.spent_nano_usd <= self.limit_nano_usd {
            return Health::ok("");
        }
        Health::degraded("today costs more than limit_usd; raise it, or use a cheaper model")
    }
}

impl BudgetGuard {
    fn request_completed(&mut self, event: &Event<'_, LlmRequestCompleted>) -> Result<()> {
        self.roll_over();
        let before = self.spent_nano_usd;
        self.spent_nano_usd += event.data.cost_nano_usd.unwrap_or(0);
        if before <= self.limit_nano_usd && self.limit_nano_usd < self.spent_nano_usd {
            tracing::warn!(self.spent_nano_usd, "today costs more than it may");
        }
        Ok(())
    }

    fn status(&mut self, _: NoArgs) -> Result<Reply> {
        self.roll_over();
        let (spent, limit) = (self.spent_nano_usd, self.limit_nano_usd);
        Reply::json(&json!({"spent_nano_usd": spent, "limit_nano_usd": limit}))
    }

    /// A new day (UTC) begins with nothing spent.
    fn roll_over(&mut self) {
        let today = self.host.now().as_second().div_euclid(86_400);
        if today != self.day {
            (self.day, self.spent_nano_usd) = (today, 0);
        }
    }
}

module_sdk::export!(BudgetGuard);

#[cfg(test)]
mod tests;
