//! Costs of requests and savings, by the price table and by what clients and providers state.

use foldhash::HashMap;
use module_prices::{Price, PriceError, PriceTable, Tokens};
use module_sdk::events::{CostSource, LlmRequestCompleted, RequestSource, RequestStatus};

/// The known cost of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Cost in nano-USD; `None` for unknown.
    pub nano_usd: Option<i64>,
    /// Source of the cost.
    pub source: CostSource,
    /// Version of our prices, where they were used.
    pub version: Option<String>,
    /// Cost of the same tokens at the baseline model, in nano-USD, where `nano_usd` is known.
    pub baseline_nano_usd: Option<i64>,
    /// `true` when the request should have a cost and none is known.
    pub unpriced: bool,
    /// `true` when all cache writes were for an hour, as the cost that the client states shows
    /// where no report says how long they were for.
    pub one_hour: bool,
}

/// Calculator of costs.
#[derive(Debug)]
pub struct Pricer {
    table: PriceTable,
    baseline: Option<Price>,
    /// Prices found in the table, by provider (empty for none) and model: most requests have one of
    /// a few pairs.
    found: HashMap<String, HashMap<String, Option<Price>>>,
    /// Number of pairs in `found`.
    remembered: usize,
}

/// Largest number of pairs of provider and model that are remembered.
const REMEMBERED: usize = 4096;

impl Pricer {
    /// Creates a calculator of costs by a table, and of savings against a model of it.
    ///
    /// # Errors
    ///
    /// When the table has no price for the baseline model.
    pub fn new(table: PriceTable, baseline_model: Option<&str>) -> Result<Self, PriceError> {
        let baseline = baseline_model.map(|model| table.baseline(model)).transpose()?;
        Ok(Self { table, baseline, found: HashMap::default(), remembered: 0 })
    }

    /// Returns the price table.
    #[must_use]
    pub const fn table(&self) -> &PriceTable {
        &self.table
    }

    /// Computes the cost of a request: by the table where it has a price, else the cost that the
    /// client or the provider states (`stated_nano_usd`).
    pub fn cost(&mut self, request: &LlmRequestCompleted, stated_nano_usd: Option<i64>) -> Cost {
        if request.status == Some(RequestStatus::Cached) {
            return self.known(request, 0, CostSource::PriceTable, None);
        }
        // The router knows which of its providers run on one's own machine.
        let is_free = request.source == Some(RequestSource::Gateway)
            && request.cost_source == Some(CostSource::PriceTable)
            && stated_nano_usd == Some(0);
        if is_free {
            return self.known(request, 0, CostSource::PriceTable, None);
        }
        let tokens = Tokens::of(request);
        let price =
            priced_model(request).and_then(|model| self.price(request.provider.as_deref(), model));
        let tier = request.service_tier.as_deref();
        if let (Some(tokens), Some(price)) = (tokens, price)
            && let Some(nano) = price.cost_at(tier, &tokens)
        {
            let long = stated_nano_usd.and_then(|stated| {
                one_hour(request, stated, nano, |long| price.cost_at(tier, long))
            });
            let version = price.version.clone();
            let cost = long.unwrap_or(nano);
            let known = self.known(request, cost, CostSource::PriceTable, Some(version));
            return Cost { one_hour: long.is_some(), ..known };
        }
        match stated_nano_usd {
            Some(nano) => {
                let provider = request.cost_source == Some(CostSource::Provider);
                let source = if provider { CostSource::Provider } else { CostSource::Client };
                self.known(request, nano, source, None)
            }
            None => Cost {
                nano_usd: None,
                source: CostSource::None,
                version: None,
                baseline_nano_usd: None,
                unpriced: billable(request),
                one_hour: false,
            },
        }
    }

    fn known(
        &self,
        request: &LlmRequestCompleted,
        nano: i64,
        source: CostSource,
        version: Option<String>,
    ) -> Cost {
        let baseline = self.baseline.as_ref().zip(Tokens::of(request));
        Cost {
            nano_usd: Some(nano),
            source,
            version,
            baseline_nano_usd: baseline.map(|(price, tokens)| price.cost(&tokens)),
            unpriced: false,
            one_hour: false,
        }
    }

    fn price(&mut self, provider: Option<&str>, model: &str) -> Option<&Price> {
        let by = provider.unwrap_or_default();
        let known = self.found.get(by).is_some_and(|models| models.contains_key(model));
        if !known {
            if self.remembered >= REMEMBERED {
                self.found.clear();
                self.remembered = 0;
            }
            let price = self.table.find(provider, model);
            self.found.entry(by.to_owned()).or_default().insert(model.to_owned(), price);
            self.remembered += 1;
        }
        self.found.get(by)?.get(model)?.as_ref()
    }
}

/// Computes the cost with all cache writes taken as those for an hour, where no report says how
/// long they were for and the cost that the client states fits only this.
fn one_hour(
    request: &LlmRequestCompleted,
    stated: i64,
    cost: i64,
    at: impl Fn(&Tokens) -> Option<i64>,
) -> Option<i64> {
    let written = request.cache_write_5m_tokens.filter(|written| *written > 0)?;
    if request.cache_write_1h_tokens.is_some() || fits(stated, cost) {
        return None;
    }
    let tokens = Tokens { cache_write_5m: 0, cache_write_1h: written, ..Tokens::of(request)? };
    at(&tokens).filter(|long| fits(stated, *long))
}

/// Returns whether two costs are equal except for the rounding of a client that counts in
/// micro-dollars.
const fn fits(stated: i64, cost: i64) -> bool {
    stated.abs_diff(cost) <= 500
}

/// Returns the model that answered, else the one that was routed to or requested.
#[must_use]
pub fn priced_model(request: &LlmRequestCompleted) -> Option<&str> {
    let models = [&request.response_model, &request.routed_model, &request.request_model];
    models.into_iter().find_map(|model| model.as_deref())
}

/// Returns whether a provider will have charged for the request: one that failed before a single
/// token was counted costs nothing, and nothing is missing when its cost is unknown.
fn billable(request: &LlmRequestCompleted) -> bool {
    let answered = matches!(
        request.status,
        None | Some(RequestStatus::Ok | RequestStatus::UpstreamCut | RequestStatus::ClientAbort)
    );
    answered || request.input_tokens.is_some() || request.output_tokens.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(model: &str, input: u64, output: u64) -> LlmRequestCompleted {
        LlmRequestCompleted {
            request_model: Some(model.to_owned()),
            input_tokens: Some(input),
            output_tokens: Some(output),
            status: Some(RequestStatus::Ok),
            ..Default::default()
        }
    }

    fn pricer(baseline: &str) -> Pricer {
        Pricer::new(PriceTable::built_in(), Some(baseline)).expect("the baseline has a price")
    }

    #[test]
    fn the_agreed_request_costs_what_was_agreed() {
        let request = LlmRequestCompleted {
            cache_write_5m_tokens: Some(100),
            cache_write_1h_tokens: Some(200),
            cache_read_tokens: Some(500),
            ..request("claude-sonnet-4-5-20250929", 1200, 34)
        };
        let cost = pricer("claude-opus-4-5").cost(&request, None);
        assert_eq!(cost.nano_usd, Some(3_435_000));
        assert_eq!(cost.source, CostSource::PriceTable);
        // 400×5 + 100×6.25 + 200×10 + 500×0.5 + 34×25, per million.
        assert_eq!(cost.baseline_nano_usd, Some(5_725_000));
    }

    #[test]
    fn costs_follow_the_table() {
        let check = |model: &str, input, output, nano: Option<i64>| {
            let cost = pricer("claude-sonnet-4-5").cost(&request(model, input, output), None);
            assert_eq!(cost.nano_usd, nano, "{model}");
            assert_eq!(cost.unpriced, nano.is_none(), "{model}");
        };
        check("gpt-4o", 1_000_000, 1_000_000, Some(12_500_000_000));
        check("gemini-2.5-pro", 200_000, 0, Some(250_000_000));
        check("gemini-2.5-pro", 200_001, 0, Some(500_002_500));
        check("gpt-5-nano", 1, 0, Some(50));
        check("text-embedding-3-small", 7, 0, Some(140));
        check("llama3.2:3b", 1_000, 1_000, Some(0));
        check("no-such-model", 1, 1, None);
    }

    #[test]
    fn the_client_is_believed_only_where_the_table_is_silent() {
        let mut pricer = pricer("claude-sonnet-4-5");
        let mut told = |model: &str| pricer.cost(&request(model, 1_000_000, 0), Some(42));
        assert_eq!(told("gpt-5").nano_usd, Some(1_250_000_000));
        let cost = told("house-model");
        assert_eq!((cost.nano_usd, cost.source), (Some(42), CostSource::Client));
        assert_eq!(cost.version, None);
    }

    #[test]
    fn what_failed_before_a_token_is_not_missing_a_price() {
        let mut pricer = pricer("claude-sonnet-4-5");
        let failed = LlmRequestCompleted {
            status: Some(RequestStatus::Error),
            request_model: Some("gpt-5".to_owned()),
            ..Default::default()
        };
        let cost = pricer.cost(&failed, None);
        assert_eq!((cost.nano_usd, cost.unpriced), (None, false));
        let counted = LlmRequestCompleted { input_tokens: Some(5), ..failed };
        assert!(pricer.cost(&counted, None).unpriced, "without the output it has no cost");
        let cached = LlmRequestCompleted {
            status: Some(RequestStatus::Cached),
            ..request("gpt-5", 1_000_000, 0)
        };
        let cost = pricer.cost(&cached, None);
        assert_eq!((cost.nano_usd, cost.baseline_nano_usd), (Some(0), Some(3_000_000_000)));
    }

    #[test]
    fn what_a_client_says_counts_where_a_tier_has_no_price() {
        let request = LlmRequestCompleted {
            service_tier: Some("fast".to_owned()),
            ..request("claude-opus-4-6", 10_000, 2_000)
        };
        let mut pricer = pricer("claude-sonnet-4-5");
        let cost = pricer.cost(&request, None);
        assert_eq!((cost.nano_usd, cost.unpriced), (None, true));
        let cost = pricer.cost(&request, Some(7));
        assert_eq!((cost.nano_usd, cost.unpriced), (Some(7), false));
    }

    #[test]
    fn a_baseline_without_a_price_is_refused() {
        let error = Pricer::new(PriceTable::built_in(), Some("gpt-99"));
        assert!(error.is_err_and(|error| error.to_string().contains("gpt-99")));
    }
}
