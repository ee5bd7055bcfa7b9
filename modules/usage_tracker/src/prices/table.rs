//! The price table: `config/prices.toml` and the prices of the configuration.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Price, Rates, names};

/// The table that is shipped.
const BUILT_IN: &str = include_str!("../../../../config/prices.toml");

/// The version that prices of the configuration carry.
const CONFIGURED: &str = "config";

/// Why prices cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The file is no price table.
    #[error("the price table cannot be read: {0}")]
    Table(String),
    /// A price is no price.
    #[error(
        "the price of {model:?}: {key} is {value}, it must be US dollars per million tokens, from \
         0 to {MOST_USD}"
    )]
    Value {
        /// The model.
        model: String,
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
    },
    /// The baseline has no price.
    #[error(
        "baseline_model {0:?} has no price; name a model of the price table (`lodestar usage \
         models` shows those in use) or add it under `prices`"
    )]
    Baseline(String),
}

/// The highest price that is believed, US dollars per million tokens.
pub const MOST_USD: f64 = 100_000.0;

/// A price of your own, in US dollars per million tokens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceOverride {
    /// Input that came neither from a cache nor went into one.
    pub input: f64,
    /// Output, reasoning included.
    pub output: f64,
    /// Input read from the provider's cache (default: as `input`).
    #[serde(default)]
    pub cache_read: Option<f64>,
    /// Input written to the cache for five minutes (default: as `input`).
    #[serde(default)]
    pub cache_write_5m: Option<f64>,
    /// Input written to the cache for an hour (default: as `cache_write_5m`).
    #[serde(default)]
    pub cache_write_1h: Option<f64>,
    /// Reasoning, where it is priced apart (default: as `output`).
    #[serde(default)]
    pub reasoning: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    price: Vec<Entry>,
    local: Local,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    provider: String,
    models: Vec<String>,
    input: f64,
    output: f64,
    cache_read: Option<f64>,
    cache_write_5m: Option<f64>,
    cache_write_1h: Option<f64>,
    reasoning: Option<f64>,
    #[serde(default)]
    tier: Vec<Tier>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tier {
    above_input_tokens: u64,
    input: Option<f64>,
    output: Option<f64>,
    cache_read: Option<f64>,
    cache_write_5m: Option<f64>,
    cache_write_1h: Option<f64>,
    reasoning: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Local {
    providers: Vec<String>,
    families: Vec<String>,
}

/// The prices of models.
#[derive(Debug)]
pub struct PriceTable {
    version: String,
    configured: HashMap<String, Price>,
    /// By model, then by maker.
    models: HashMap<String, Vec<(String, Price)>>,
    local: Local,
}

impl PriceTable {
    /// The table that is shipped.
    ///
    /// # Panics
    ///
    /// Never: a test reads the file.
    #[must_use]
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("a test reads the shipped price table")
    }

    /// Reads a table.
    ///
    /// # Errors
    ///
    /// When the text is no price table.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let file: File =
            toml::from_str(text).map_err(|error| PriceError::Table(error.to_string()))?;
        let mut models: HashMap<String, Vec<(String, Price)>> = HashMap::new();
        for entry in &file.price {
            for model in &entry.models {
                let price = entry.price(model, &file.version)?;
                models.entry(model.clone()).or_default().push((entry.provider.clone(), price));
            }
        }
        Ok(Self { version: file.version, configured: HashMap::new(), models, local: file.local })
    }

    /// Puts prices of the configuration before those of the table. A key is `model` or
    /// `provider/model`.
    ///
    /// # Errors
    ///
    /// When a price is no price.
    pub fn with(mut self, prices: &BTreeMap<String, PriceOverride>) -> Result<Self, PriceError> {
        for (model, price) in prices {
            let rates = price.rates(model)?;
            let price = Price { rates, tiers: Vec::new(), version: CONFIGURED.to_owned() };
            self.configured.insert(model.to_ascii_lowercase(), price);
        }
        Ok(self)
    }

    /// The date of the table.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The price of a model, if there is one. `provider` is a `gen_ai.provider.name`.
    #[must_use]
    pub fn find(&self, provider: Option<&str>, model: &str) -> Option<Price> {
        let provider = provider.map(str::to_ascii_lowercase);
        let candidates = names::candidates(model);
        if let Some(price) = self.configured(provider.as_deref(), model, &candidates) {
            return Some(price.clone());
        }
        let hosted = candidates[0].ends_with("-cloud") || candidates[0].ends_with(":cloud");
        let local = provider.as_ref().is_some_and(|name| self.local.providers.contains(name));
        if local {
            return if hosted { None } else { Some(self.free()) };
        }
        let maker = provider.as_deref().and_then(maker);
        let found = candidates.iter().find_map(|name| {
            let prices = self.models.get(name)?;
            prices.iter().find(|(by, _)| maker == Some(by.as_str())).or_else(|| prices.first())
        });
        found.map(|(_, price)| price.clone()).or_else(|| {
            let open = matches!(provider.as_deref(), None | Some("openai")) && !hosted;
            (open && self.has_family(&candidates[0])).then(|| self.free())
        })
    }

    /// The models that have a price of their own.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().chain(self.configured.keys()).map(String::as_str)
    }

    /// The price that savings are measured against.
    pub(super) fn baseline(&self, model: &str) -> Result<Price, PriceError> {
        self.find(None, model).ok_or_else(|| PriceError::Baseline(model.to_owned()))
    }

    fn configured(
        &self,
        provider: Option<&str>,
        model: &str,
        candidates: &[String],
    ) -> Option<&Price> {
        let by_provider = provider.map(|name| format!("{name}/{}", candidates[0]));
        by_provider
            .and_then(|name| self.configured.get(&name))
            .or_else(|| self.configured.get(&model.to_ascii_lowercase()))
            .or_else(|| candidates.iter().find_map(|name| self.configured.get(name)))
    }

    fn free(&self) -> Price {
        Price { rates: Rates::FREE, tiers: Vec::new(), version: self.version.clone() }
    }

    /// `llama3.2:3b`: a name of a family that one runs locally, with Ollama's tag.
    fn has_family(&self, name: &str) -> bool {
        let tagged = name.split_once(':').is_some_and(|(_, tag)| !tag.is_empty());
        tagged && self.local.families.iter().any(|family| name.starts_with(family.as_str()))
    }
}

/// Who makes the models of a provider that sells its own. Resellers have no maker: there the name
/// of the model decides, at the maker's list price.
fn maker(provider: &str) -> Option<&'static str> {
    match provider {
        "anthropic" => Some("anthropic"),
        "openai" | "azure.ai.openai" | "azure.ai.inference" | "azure" => Some("openai"),
        "gcp.gemini" | "gcp.gen_ai" | "gemini" | "google" => Some("google"),
        "x_ai" | "xai" => Some("xai"),
        "deepseek" => Some("deepseek"),
        "mistral_ai" | "mistral" => Some("mistral"),
        _ => None,
    }
}

/// The six prices of one line, in the order of [`Rates`], with what a missing one falls back to.
struct Line<'a> {
    model: &'a str,
    base: Option<&'a Rates>,
    input: Option<f64>,
    cache_read: Option<f64>,
    cache_write_5m: Option<f64>,
    cache_write_1h: Option<f64>,
    output: Option<f64>,
    reasoning: Option<f64>,
}

impl Line<'_> {
    fn rates(&self) -> Result<Rates, PriceError> {
        let nano = |key, usd: Option<f64>| usd.map(|usd| nano(self.model, key, usd)).transpose();
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
    fn price(&self, model: &str, version: &str) -> Result<Price, PriceError> {
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
        Ok(Price { rates, tiers, version: version.to_owned() })
    }
}

impl PriceOverride {
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

/// US dollars as integer nano-USD. A price has at most nine decimals, so rounding only undoes the
/// binary form of the decimal number.
#[expect(clippy::cast_possible_truncation, reason = "the value was checked against its range")]
fn nano(model: &str, key: &'static str, usd: f64) -> Result<i64, PriceError> {
    if (0.0..=MOST_USD).contains(&usd) {
        Ok((usd * 1e9).round() as i64)
    } else {
        let value = usd.to_string();
        Err(PriceError::Value { model: model.to_owned(), key, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_is_sound() {
        let table = PriceTable::parse(BUILT_IN).expect("it is a table");
        assert!(table.version().parse::<jiff::civil::Date>().is_ok(), "{}", table.version());
        for (model, prices) in &table.models {
            assert_eq!(names::plain(model), *model, "names are plain");
            for (maker, price) in prices {
                let rates = price.rates;
                assert!(rates.input > 0 && rates.cache_read <= rates.input, "{maker} {model}");
                let dearer = |(_, tier): &(u64, Rates)| tier.input >= rates.input;
                assert!(price.tiers.iter().all(dearer), "{maker} {model}");
            }
        }
    }

    #[test]
    fn the_provider_decides_where_a_name_does_not() {
        let table = PriceTable::built_in();
        let check = |provider: Option<&str>, model: &str, input: Option<i64>| {
            let found = table.find(provider, model).map(|price| price.rates.input);
            assert_eq!(found, input, "{provider:?} {model}");
        };
        check(Some("anthropic"), "claude-sonnet-4-5", Some(3_000_000_000));
        check(Some("aws.bedrock"), "eu.anthropic.claude-haiku-4-5", Some(1_000_000_000));
        check(Some("gcp.vertex_ai"), "claude-sonnet-4-5@20250929", Some(3_000_000_000));
        check(Some("openai"), "openai/gpt-5", Some(1_250_000_000));
        check(Some("x_ai"), "grok-code-fast-1", Some(1_000_000_000));
        check(Some("ollama"), "anything-at-all", Some(0));
        check(Some("ollama"), "gpt-oss:120b-cloud", None);
        check(Some("openai"), "qwen3:8b", Some(0));
        check(None, "qwen3:8b", Some(0));
        check(None, "qwen3", None);
        check(Some("groq"), "llama-3.3-70b:versatile", None);
        check(Some("openrouter"), "qwen/qwen3:free", None);
        check(None, "gpt-5-unheard-of", None);
    }

    #[test]
    fn the_configuration_wins() {
        let price = |input| PriceOverride { input, output: 1.0, ..Default::default() };
        let prices = BTreeMap::from([
            ("gpt-5".to_owned(), price(9.0)),
            ("azure/gpt-5".to_owned(), price(8.0)),
            ("Our-Model".to_owned(), price(0.0375)),
        ]);
        let table = PriceTable::built_in().with(&prices).expect("they are prices");
        let check = |provider: Option<&str>, model: &str, input| {
            let price = table.find(provider, model).expect("it has a price");
            assert_eq!((price.rates.input, price.version.as_str()), (input, "config"));
        };
        check(Some("openai"), "gpt-5-2025-08-07", 9_000_000_000);
        check(Some("azure"), "gpt-5", 8_000_000_000);
        check(None, "our-model", 37_500_000);
    }

    #[test]
    fn a_price_that_is_none_is_refused() {
        for usd in [-1.0, f64::NAN, f64::INFINITY, 1e6] {
            let prices = BTreeMap::from([(
                "m".to_owned(),
                PriceOverride { input: usd, ..Default::default() },
            )]);
            let error = PriceTable::built_in().with(&prices).expect_err("it is no price");
            assert!(error.to_string().contains("\"m\""), "{error}");
        }
        let error = super::super::Pricer::new(PriceTable::built_in(), Some("gpt-99"));
        assert!(error.is_err_and(|error| error.to_string().contains("gpt-99")));
        assert!(PriceTable::parse("version = 1").is_err());
    }
}
