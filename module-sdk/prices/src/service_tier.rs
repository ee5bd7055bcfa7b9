//! Speeds and tiers of service, which have prices of their own.

use crate::{Price, Rates, Tokens, price::cost};

/// The price of a model at a tier of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTier {
    /// Names of the tier in records, in lower case: `fast`, `batch`.
    pub names: Vec<String>,
    /// Rates for every request to which no tier by input tokens applies.
    pub rates: Rates,
    /// Rates for requests with more input tokens than the number, in ascending order.
    pub tiers: Vec<(u64, Rates)>,
    /// Largest number of input tokens; larger requests are not sold at this tier.
    pub up_to_input_tokens: Option<u64>,
}

/// Returns whether a tier of service, as a record names it, is the ordinary one.
fn ordinary(tier: &str) -> bool {
    const ORDINARY: [&str; 8] = [
        "standard",
        "default",
        "auto",
        "standard_only",
        "on_demand",
        "normal",
        "none",
        "unspecified",
    ];
    tier.is_empty() || ORDINARY.iter().any(|word| tier.eq_ignore_ascii_case(word))
}

/// Returns one spelling for the names that several makers give a tier.
fn plain(tier: &str) -> String {
    let tier = tier.to_ascii_lowercase().replace('-', "_");
    let tier = tier.strip_prefix("on_demand_").unwrap_or(&tier);
    match tier {
        "batches" => "batch".to_owned(),
        tier => tier.to_owned(),
    }
}

impl Price {
    /// Computes the cost of the tokens at a tier of service, in nano-USD; `None` when the tier has
    /// no price. A free model is free at every tier, and a name of the ordinary tier, as `default`
    /// or `standard`, is as good as none.
    #[must_use]
    pub fn cost_at(&self, tier: Option<&str>, tokens: &Tokens) -> Option<i64> {
        let tier = tier.map(str::trim).filter(|tier| !ordinary(tier));
        let Some(tier) = tier.filter(|_| self.rates != Rates::FREE) else {
            return Some(self.cost(tokens));
        };
        let sold = self.service_tier(tier)?;
        let within = sold.up_to_input_tokens.is_none_or(|most| tokens.input <= most);
        within.then(|| cost(&sold.rates, &sold.tiers, tokens))
    }

    /// Returns the price for a model name that states its tier of service: that of the tier alone.
    pub(crate) fn only(&self, tier: &str) -> Option<Self> {
        let sold = self.service_tier(tier)?;
        Some(Self {
            rates: sold.rates,
            tiers: sold.tiers.clone(),
            service_tiers: vec![sold.clone()],
            version: self.version.clone(),
        })
    }

    fn service_tier(&self, tier: &str) -> Option<&ServiceTier> {
        let tier = plain(tier);
        self.service_tiers.iter().find(|sold| sold.names.contains(&tier))
    }
}

impl Rates {
    /// Returns the rates times a fraction.
    pub(crate) fn times(&self, numerator: i64, denominator: i64) -> Self {
        self.map(|rate| scale(rate, numerator, denominator))
    }

    /// Returns the rates, each scaled by the ratio of `to` to `from`.
    pub(crate) fn scaled(&self, from: &Self, to: &Self) -> Self {
        Self {
            input: scale(self.input, to.input, from.input),
            cache_read: scale(self.cache_read, to.cache_read, from.cache_read),
            cache_write_5m: scale(self.cache_write_5m, to.cache_write_5m, from.cache_write_5m),
            cache_write_1h: scale(self.cache_write_1h, to.cache_write_1h, from.cache_write_1h),
            output: scale(self.output, to.output, from.output),
            reasoning: scale(self.reasoning, to.reasoning, from.reasoning),
        }
    }

    fn map(&self, of: impl Fn(i64) -> i64) -> Self {
        Self {
            input: of(self.input),
            cache_read: of(self.cache_read),
            cache_write_5m: of(self.cache_write_5m),
            cache_write_1h: of(self.cache_write_1h),
            output: of(self.output),
            reasoning: of(self.reasoning),
        }
    }
}

/// Computes `rate × numerator ÷ denominator`, rounded half up; returns `rate` where `denominator`
/// is 0.
fn scale(rate: i64, numerator: i64, denominator: i64) -> i64 {
    if denominator == 0 {
        return rate;
    }
    let (numerator, denominator) = (i128::from(numerator), i128::from(denominator));
    let scaled = (i128::from(rate) * numerator + denominator / 2) / denominator;
    i64::try_from(scaled).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::{PriceTable, Tokens};

    #[test]
    fn a_tier_of_service_has_a_price_of_its_own_or_none() {
        let table = PriceTable::built_in();
        let check = |model: &str, tier: &str, input, output, nano: Option<i64>| {
            let price = table.find(None, model).expect("it has a price");
            let tokens = Tokens { input, output, ..Tokens::default() };
            assert_eq!(price.cost_at(Some(tier), &tokens), nano, "{model} {tier}");
        };
        check("claude-opus-5", "fast", 10_000, 2_000, Some(200_000_000));
        check("claude-opus-5", "Standard", 10_000, 2_000, Some(100_000_000));
        check("claude-opus-5", "", 10_000, 2_000, Some(100_000_000));
        check("claude-opus-5", "batch", 10_000, 2_000, Some(50_000_000));
        check("claude-opus-4.8-fast", "fast", 10_000, 2_000, Some(200_000_000));
        check("claude-opus-4.8-fast", "standard", 10_000, 2_000, Some(200_000_000));
        // Nobody knows what these cost.
        check("claude-opus-4-6", "fast", 10_000, 2_000, None);
        check("claude-opus-5", "priority", 10_000, 2_000, None);
        check("gpt-5", "scale", 10_000, 2_000, None);
        check("gpt-5", "default", 10_000, 2_000, Some(32_500_000));
        check("gpt-5", "flex", 10_000, 2_000, Some(16_250_000));
        check("gpt-5", "priority", 10_000, 2_000, Some(65_000_000));
        check("gpt-5", "fast", 10_000, 2_000, Some(65_000_000));
        check("gpt-5", "batches", 10_000, 2_000, Some(16_250_000));
        check("gemini-2.5-pro", "ON_DEMAND_PRIORITY", 10_000, 0, Some(22_500_000));
        check("gemini-2.5-pro", "ON_DEMAND", 10_000, 0, Some(12_500_000));
        check("gemini-2.5-pro", "PROVISIONED_THROUGHPUT", 10_000, 0, None);
        // Long prompts cost more at every speed, and some are not sold at it.
        check("gemini-2.5-pro", "priority", 300_000, 0, Some(1_350_000_000));
        check("gpt-5.5", "priority", 272_000, 0, Some(3_400_000_000));
        check("gpt-5.5", "priority", 272_001, 0, None);
        check("gpt-4o-mini", "priority", 1_000_000, 1_000_000, Some(1_250_000_000));
        // What is free is free.
        check("llama3.2:3b", "priority", 10_000, 2_000, Some(0));
    }
}
