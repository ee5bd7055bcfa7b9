//! Warns when a day costs more than it may: a whole module.

use std::time::Duration;

use module_sdk::{Event, Host, Module, NoArgs, Reply, Result, Wiring, events::LlmRequestCompleted};

/// Its section of `modules.yaml`; the default stands in `config.yaml`.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How much a day may cost, in USD.
    limit_usd: f64,
}

struct BudgetGuard {
    limit_nano_usd: i64,
    spent_nano_usd: i64,
}

impl Module for BudgetGuard {
    type Config = Config;

    fn start(config: Config, _: &Host) -> Result<Self> {
        Ok(Self { limit_nano_usd: (config.limit_usd * 1e9) as i64, spent_nano_usd: 0 })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring
            .on(Self::request_completed)
            .every(Duration::from_secs(24 * 60 * 60), Self::roll_over)
            .command("status", Self::status);
    }
}

impl BudgetGuard {
    fn request_completed(&mut self, event: &Event<'_, LlmRequestCompleted>) -> Result<()> {
        let before = self.spent_nano_usd;
        self.spent_nano_usd += event.data.cost_nano_usd.unwrap_or(0);
        if before <= self.limit_nano_usd && self.limit_nano_usd < self.spent_nano_usd {
            tracing::warn!(self.spent_nano_usd, "today costs more than it may");
        }
        Ok(())
    }

    fn roll_over(&mut self) -> Result<()> {
        self.spent_nano_usd = 0;
        Ok(())
    }

    fn status(&mut self, _: NoArgs) -> Result<Reply> {
        Reply::json(&serde_json::json!({"spent_nano_usd": self.spent_nano_usd}))
    }
}

module_sdk::export!(BudgetGuard);

#[cfg(test)]
mod tests;
