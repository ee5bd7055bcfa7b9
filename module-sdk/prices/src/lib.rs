//! Prices of models: the dated table that is shipped, prices of one's own, and exact costs.
//!
//! A [`PriceTable`] finds the [`Price`] of a model by its name and provider, and a price computes
//! the cost of [`Tokens`]. Money is an integer number of nano-USD (1e-9 USD), and a price an
//! integer number of nano-USD per million tokens: a sum is exact and is rounded once, half up. A
//! model that the table does not know has no price. Models that run on one's own machine cost 0.
//!
//! Savings are the cost of the same tokens, in the same cache buckets, at a baseline model, less
//! what they cost.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use module_prices::{PriceOverride, PriceTable, Tokens};
//!
//! // From the configuration, in US dollars per million tokens.
//! let house = PriceOverride { input: "0.5".parse()?, output: "2".parse()?, ..Default::default() };
//! let table = PriceTable::built_in().with(&BTreeMap::from([("house".to_owned(), house)]))?;
//!
//! // 1,200 tokens of input, 500 of them from the cache.
//! let tokens = Tokens { input: 1_200, cache_read: 500, output: 34, ..Tokens::default() };
//! let price = table.find(Some("anthropic"), "claude-haiku-4-5").expect("it has a price");
//! let cost = price.cost(&tokens);
//! assert_eq!(cost, 920_000);
//! assert_eq!(price.cost_at(Some("batch"), &tokens), Some(cost / 2));
//!
//! let baseline = table.baseline("claude-sonnet-4-5")?;
//! assert_eq!(baseline.cost(&tokens) - cost, 1_840_000);
//!
//! assert_eq!(table.find(None, "house").map(|price| price.cost(&tokens)), Some(668_000));
//! assert_eq!(table.find(None, "llama3.2:3b").map(|price| price.cost(&tokens)), Some(0));
//! assert!(table.find(None, "unheard-of").is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod entry;
mod price;
mod service_tier;
mod table;

pub use price::{Price, Rates, Tokens};
pub use service_tier::ServiceTier;
pub use table::{MOST_USD, PriceError, PriceOverride, PriceTable};
