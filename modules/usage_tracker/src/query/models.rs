//! `lodestar usage models`: the models in use, and their prices.

use module_prices::{PriceTable, Rates};
use module_sdk::{TimeRange, Usd};
use serde::Serialize;

use super::{
    Figures, Reader,
    summary::{Key, Sums},
};
use crate::store::StoreError;

/// A model of a provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelUse {
    /// Name of the model that answered.
    pub model: Option<String>,
    /// Provider of the model.
    pub provider: Option<String>,
    /// Current price of the model; `null` for none.
    pub price: Option<ModelPrice>,
    /// Figures of the requests that the model answered.
    #[serde(flatten)]
    pub figures: Figures,
}

/// A price in US dollars per million tokens, without its tiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelPrice {
    /// Date of the table, or `config`.
    pub version: String,
    /// Price of input that was neither read from a cache nor written to one.
    pub input: Usd,
    /// Price of input read from a cache.
    pub cache_read: Usd,
    /// Price of input written to a cache for five minutes.
    pub cache_write_5m: Usd,
    /// Price of input written to a cache for an hour.
    pub cache_write_1h: Usd,
    /// Price of output.
    pub output: Usd,
    /// Price of reasoning.
    pub reasoning: Usd,
    /// `true` when long prompts have other prices.
    pub tiers: bool,
}

/// Returns the models that were used in a period, the most expensive first.
///
/// # Errors
///
/// When the database cannot be read.
pub fn models(
    reader: &mut Reader,
    period: &TimeRange,
    prices: &PriceTable,
) -> Result<Vec<ModelUse>, StoreError> {
    reader.ask(|connection, texts| {
        let connection = connection.unchecked_transaction()?;
        let mut sums = Sums::new(&connection, period)?;
        let mut models = Vec::new();
        for (key, total) in sums.by_key(&connection, Key::ProviderAndModel)? {
            if total.sums.requests == 0 {
                continue;
            }
            let provider = texts.text(&connection, Some(key >> 32))?;
            let model = texts.text(&connection, Some(key & 0xffff_ffff))?;
            let price = model.as_deref().and_then(|model| prices.find(provider.as_deref(), model));
            let price = price.map(|price| {
                let Rates { input, cache_read, cache_write_5m, cache_write_1h, .. } = price.rates;
                ModelPrice {
                    version: price.version,
                    input: Usd::from_nano(input),
                    cache_read: Usd::from_nano(cache_read),
                    cache_write_5m: Usd::from_nano(cache_write_5m),
                    cache_write_1h: Usd::from_nano(cache_write_1h),
                    output: Usd::from_nano(price.rates.output),
                    reasoning: Usd::from_nano(price.rates.reasoning),
                    tiers: !price.tiers.is_empty(),
                }
            });
            models.push(ModelUse { model, provider, price, figures: total.figures() });
        }
        models.sort_by(|one, two| {
            let rank = |model: &ModelUse| (model.figures.cost_usd, model.figures.requests);
            rank(two).cmp(&rank(one)).then_with(|| one.model.cmp(&two.model))
        });
        Ok(models)
    })
}
