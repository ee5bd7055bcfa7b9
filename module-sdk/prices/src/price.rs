//! Prices, tokens, and the cost of the ones at the other.

use module_sdk::events::{ApiFormat, LlmRequestCompleted};

use crate::ServiceTier;

/// Prices in nano-USD per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Price of input that was neither read from a cache nor written to one.
    pub input: i64,
    /// Price of input read from the provider's cache.
    pub cache_read: i64,
    /// Price of input written to the cache for five minutes.
    pub cache_write_5m: i64,
    /// Price of input written to the cache for an hour.
    pub cache_write_1h: i64,
    /// Price of output.
    pub output: i64,
    /// Price of reasoning, which is a part of the output.
    pub reasoning: i64,
}

impl Rates {
    /// The rates of a local model.
    pub const FREE: Self = Self {
        input: 0,
        cache_read: 0,
        cache_write_5m: 0,
        cache_write_1h: 0,
        output: 0,
        reasoning: 0,
    };
}

/// The price of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Rates for every request to which no tier applies.
    pub rates: Rates,
    /// Rates for requests with more input tokens than the number, in ascending order.
    pub tiers: Vec<(u64, Rates)>,
    /// Prices of the tiers of service that have a price of their own.
    pub service_tiers: Vec<ServiceTier>,
    /// Version of the table, or `config`.
    pub version: String,
}

impl Price {
    /// Creates a price without tiers. `version` says where it comes from.
    #[must_use]
    pub fn plain(rates: Rates, version: impl Into<String>) -> Self {
        Self { rates, tiers: Vec::new(), service_tiers: Vec::new(), version: version.into() }
    }

    /// Computes the cost of the tokens at the ordinary tier of service, in nano-USD.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> i64 {
        cost(&self.rates, &self.tiers, tokens)
    }
}

/// Computes the cost of the tokens, in nano-USD.
pub(crate) fn cost(rates: &Rates, tiers: &[(u64, Rates)], tokens: &Tokens) -> i64 {
    let over = tiers.iter().rev().find(|(above, _)| tokens.input > *above);
    let rates = over.map_or(rates, |(_, rates)| rates);
    let cached = [tokens.cache_read, tokens.cache_write_5m, tokens.cache_write_1h];
    let plain = cached.iter().fold(tokens.input, |rest, part| rest.saturating_sub(*part));
    let reasoning = tokens.reasoning.min(tokens.output);
    let sum: i128 = [
        (plain, rates.input),
        (tokens.cache_read, rates.cache_read),
        (tokens.cache_write_5m, rates.cache_write_5m),
        (tokens.cache_write_1h, rates.cache_write_1h),
        (tokens.output - reasoning, rates.output),
        (reasoning, rates.reasoning),
    ]
    .iter()
    .map(|(tokens, rate)| i128::from(*tokens) * i128::from(*rate))
    .sum();
    i64::try_from((sum + 500_000) / 1_000_000).unwrap_or(i64::MAX)
}

/// The tokens of one request, as `llm.request.completed` counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The whole input, caches included.
    pub input: u64,
    /// Input read from the cache, a part of `input`.
    pub cache_read: u64,
    /// Input written to the cache for five minutes, a part of `input`.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour, a part of `input`.
    pub cache_write_1h: u64,
    /// The whole output.
    pub output: u64,
    /// Reasoning, a part of `output`.
    pub reasoning: u64,
}

impl Tokens {
    /// Returns the tokens of a request; `None` when too few counts are known for a cost. Only
    /// embeddings have no output.
    #[must_use]
    pub fn of(request: &LlmRequestCompleted) -> Option<Self> {
        let embeds = request.dialect == Some(ApiFormat::Embeddings)
            || request.operation.as_deref() == Some("embeddings");
        Some(Self {
            input: request.input_tokens?,
            cache_read: request.cache_read_tokens.unwrap_or(0),
            cache_write_5m: request.cache_write_5m_tokens.unwrap_or(0),
            cache_write_1h: request.cache_write_1h_tokens.unwrap_or(0),
            output: if embeds {
                request.output_tokens.unwrap_or(0)
            } else {
                request.output_tokens?
            },
            reasoning: request.reasoning_tokens.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_nano_is_rounded_up() {
        let rates = Rates { input: 37_500_000, ..Rates::FREE };
        let price = Price::plain(rates, String::new());
        let check = |input, nano| {
            assert_eq!(price.cost(&Tokens { input, ..Tokens::default() }), nano);
        };
        check(1, 38);
        check(2, 75);
        check(u64::MAX, i64::MAX);
    }
}
