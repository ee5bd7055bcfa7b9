//! The entries of a price table, and the defaults of prices that they omit.

use module_sdk::Usd;
use serde::Deserialize;

use crate::{MOST_USD, Price, PriceError, PriceOverride, Rates, ServiceTier};

/// A price table as it is written in its file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) version: String,
    pub(crate) price: Vec<Entry>,
    pub(crate) local: Local,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) provider: String,
    pub(crate) models: Vec<String>,
    input: Usd,
    output: Usd,
    cache_read: Option<Usd>,
    cache_write_5m: Option<Usd>,
    cache_write_1h: Option<Usd>,
    reasoning: Option<Usd>,
    #[serde(default)]
    tier: Vec<Tier>,
    #[serde(default)]
    service_tier: Vec<Service>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tier {
    above_input_tokens: u64,
    input: Option<Usd>,
    output: Option<Usd>,
    cache_read: Option<Usd>,
    cache_write_5m: Option<Usd>,
    cache_write_1h: Option<Usd>,
    reasoning: Option<Usd>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    names: Vec<String>,
    /// Factor by which this tier of service multiplies the prices of the model.
    factor: Option<Usd>,
    up_to_input_tokens: Option<u64>,
    input: Option<Usd>,
    output: Option<Usd>,
    cache_read: Option<Usd>,
    cache_write_5m: Option<Usd>,
    cache_write_1h: Option<Usd>,
    reasoning: Option<Usd>,
}

/// The models that are run on one's own machine.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Local {
    pub(crate) providers: Vec<String>,
    pub(crate) families: Vec<String>,
}

/// The six prices of one line, in the order of [`Rates`], with the base for missing ones.
struct Line<'a> {
    model: &'a str,
    base: Option<&'a Rates>,
    input: Option<Usd>,
    cache_read: Option<Usd>,
    cache_write_5m: Option<Usd>,
    cache_write_1h: Option<Usd>,
    output: Option<Usd>,
    reasoning: Option<Usd>,
}

impl Line<'_> {
    fn rates(&self) -> Result<Rates, PriceError> {
        let nano = |key, usd: Option<Usd>| usd.map(|usd| nano(self.model, key, usd)).transpose();
        let base = |pick: fn(&Rates) -> i64| self.base.map(pick);
        let input = nano("input", self.input)?.or(base(|r| r.input)).unwrap_or(0);
        let output = nano("output", self.output)?.or(base(|r| r.output)).unwrap_or(0);
        let write_5m = nano("cache_write_5m", self.cache_write_5m)?;
        let cache_write_5m = write_5m.or(base(|r| r.cache_write_5m)).unwrap_or(input);
        let write_1h = nano("cache_write_1h", self.cache_write_1h)?;
        // A tier that names the one but not the other prices both alike.
        let base_1h = if write_5m.is_some() { None } else { base(|r| r.cache_write_1h) };
        let reasoning = nano("reasoning", self.reasoning)?;
        Ok(Rates {
            input,
            cache_read: nano("cache_read", self.cache_read)?
                .or(base(|r| r.cache_read))
                .unwrap_or(input),
            cache_write_5m,
            cache_write_1h: write_1h.or(base_1h).unwrap_or(cache_write_5m),
            output,
            reasoning: reasoning.unwrap_or(output),
        })
    }
}

impl Entry {
    /// Returns the price of one of its models.
    pub(crate) fn price(&self, model: &str, version: &str) -> Result<Price, PriceError> {
        let line = Line {
            model,
            base: None,
            input: Some(self.input),
            cache_read: self.cache_read,
            cache_write_5m: self.cache_write_5m,
            cache_write_1h: self.cache_write_1h,
            output: Some(self.output),
            reasoning: self.reasoning,
        };
        let rates = line.rates()?;
        let tier = |tier: &Tier| {
            let line = Line {
                model,
                base: Some(&rates),
                input: tier.input,
                cache_read: tier.cache_read,
                cache_write_5m: tier.cache_write_5m,
                cache_write_1h: tier.cache_write_1h,
                output: tier.output,
                reasoning: tier.reasoning,
            };
            Ok((tier.above_input_tokens, line.rates()?))
        };
        let mut tiers = self.tier.iter().map(tier).collect::<Result<Vec<_>, PriceError>>()?;
        tiers.sort_by_key(|(above, _)| *above);
        let mut price = Price { tiers, ..Price::plain(rates, version.to_owned()) };
        for service in &self.service_tier {
            price.service_tiers.push(service.of(model, &price)?);
        }
        Ok(price)
    }
}

impl Service {
    fn of(&self, model: &str, price: &Price) -> Result<ServiceTier, PriceError> {
        let factor = self.factor.map(|factor| nano(model, "factor", factor)).transpose()?;
        let times = |rates: &Rates| factor.map(|factor| rates.times(factor, 1_000_000_000));
        let base = times(&price.rates);
        let line = Line {
            model,
            base: base.as_ref(),
            input: self.input,
            cache_read: self.cache_read,
            cache_write_5m: self.cache_write_5m,
            cache_write_1h: self.cache_write_1h,
            output: self.output,
            reasoning: self.reasoning,
        };
        let rates = line.rates()?;
        // What a long prompt costs more, it costs more at every speed.
        let long = |(above, long): &(u64, Rates)| (*above, long.scaled(&price.rates, &rates));
        Ok(ServiceTier {
            names: self.names.clone(),
            rates,
            tiers: price.tiers.iter().map(long).collect(),
            up_to_input_tokens: self.up_to_input_tokens,
        })
    }
}

impl PriceOverride {
    /// Returns the price, with its tiers of service.
    pub(crate) fn price(&self, model: &str, version: &str) -> Result<Price, PriceError> {
        let mut price = Price::plain(self.rates(model)?, version.to_owned());
        for (name, tier) in &self.service_tiers {
            let place = format!("{model}.service_tiers.{name}");
            if !tier.service_tiers.is_empty() {
                return Err(PriceError::Nested(place));
            }
            price.service_tiers.push(ServiceTier {
                names: vec![name.to_ascii_lowercase()],
                rates: tier.rates(&place)?,
                tiers: Vec::new(),
                up_to_input_tokens: None,
            });
        }
        Ok(price)
    }

    fn rates(&self, model: &str) -> Result<Rates, PriceError> {
        let line = Line {
            model,
            base: None,
            input: Some(self.input),
            cache_read: self.cache_read,
            cache_write_5m: self.cache_write_5m,
            cache_write_1h: self.cache_write_1h,
            output: Some(self.output),
            reasoning: self.reasoning,
        };
        line.rates()
    }
}

/// Returns a price in nano-USD, if it is one that is believed.
fn nano(model: &str, key: &'static str, usd: Usd) -> Result<i64, PriceError> {
    if (Usd::default()..=MOST_USD).contains(&usd) {
        Ok(usd.nano())
    } else {
        Err(PriceError::Value { model: model.to_owned(), key, value: usd })
    }
}
