//! Warns when a day costs more than it may: a whole module.

use module_sdk::{
    Error, Event, Host, Module, NoArgs, Reply, Result, Usd, Wiring, Zone,
    events::LlmRequestCompleted, human, jiff::civil::Date,
};

/// Its section of `modules.yaml`; the defaults stand in `config.yaml`.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Limit of the cost of a day, in USD.
    limit_usd: Usd,
    /// The IANA time zone whose days are meant, `Europe/Vienna`. Default: that of the system.
    #[serde(default)]
    timezone: Zone,
}

/// Cost of one day so far. It is kept over a restart.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Spent {
    day: Date,
    nano_usd: i64,
}

struct BudgetGuard {
    config: Config,
    host: Host,
    spent: Spent,
}

impl Module for BudgetGuard {
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        if config.limit_usd > Usd::default() {
            return Ok(());
        }
        Err(Error::config_at("limit_usd", "must be more than 0"))
    }

    fn start(config: Config, host: &Host) -> Result<Self> {
        let nothing = Spent { day: config.timezone.date(host.now()), nano_usd: 0 };
        let spent = host.load_state("spent")?.unwrap_or(nothing);
        Ok(Self { config, host: host.clone(), spent })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring
            .on_batch(Self::requests_completed)
            .daily("00:00", |guard| guard.config.timezone.clone(), Self::begin_day)
            .command("status", Self::status);
    }
}

impl BudgetGuard {
    fn requests_completed(&mut self, events: Vec<Event<'_, LlmRequestCompleted>>) -> Result<()> {
        let before = self.today();
        let zone = &self.config.timezone;
        // One that comes late belongs to the day on which it ended.
        let of_today = events.iter().filter(|event| zone.date(event.time) >= before.day);
        let costs = of_today.map(|event| event.data.cost_nano_usd.unwrap_or(0));
        let nano_usd = costs.fold(before.nano_usd, i64::saturating_add);
        self.keep(Spent { nano_usd, ..before })?;
        let limit = self.config.limit_usd.nano();
        if before.nano_usd <= limit && limit < nano_usd {
            let spent = human::usd(Usd::from_nano(nano_usd));
            tracing::warn!(spent, "today costs more than it may");
        }
        Ok(())
    }

    fn begin_day(&mut self) -> Result<()> {
        self.keep(self.today())
    }

    /// Returns what today has cost, by the calendar of the configured zone.
    fn today(&self) -> Spent {
        let day = self.config.timezone.date(self.host.now());
        if self.spent.day == day { self.spent } else { Spent { day, nano_usd: 0 } }
    }

    fn keep(&mut self, spent: Spent) -> Result<()> {
        self.host.save_state("spent", &spent)?;
        self.spent = spent;
        Ok(())
    }

    fn status(&mut self, _: NoArgs) -> Result<Reply> {
        let Spent { day, nano_usd } = self.today();
        Reply::json(&serde_json::json!({"day": day, "spent_nano_usd": nano_usd}))
    }
}

module_sdk::export!(BudgetGuard);

#[cfg(test)]
mod tests;
