//! The price table: `config/prices.toml` and the prices of the configuration.

use std::collections::{BTreeMap, HashMap};

use module_sdk::{Usd, events::ModelName};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Price, Rates,
    entry::{File, Local},
};

/// The price table that is shipped.
const BUILT_IN: &str = include_str!("../../../config/prices.toml");

/// Version of the prices from the configuration.
const CONFIGURED: &str = "config";

/// The reason why prices cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// A file that is no price table.
    #[error("the price table cannot be read: {0}")]
    Table(String),
    /// A value that is no price.
    #[error(
        "the price of {model:?}: {key} is {value}, it must be US dollars per million tokens, from \
         0 to {MOST_USD}"
    )]
    Value {
        /// Name of the model.
        model: String,
        /// Key of the price.
        key: &'static str,
        /// The value that was given.
        value: Usd,
    },
    /// A tier of service with tiers of its own.
    #[error("the price of {0:?} is that of a tier of service; put its `service_tiers` beside it")]
    Nested(String),
    /// A baseline model without a price.
    #[error(
        "baseline_model {0:?} has no price; name a model of the price table (`lodestar usage \
         models` shows those in use) or add it under `prices`"
    )]
    Baseline(String),
}

/// The highest price that is believed, US dollars per million tokens.
pub const MOST_USD: Usd = Usd::from_nano(100_000 * 1_000_000_000);

/// A price of your own, in US dollars per million tokens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceOverride {
    /// Input that came neither from a cache nor went into one.
    pub input: Usd,
    /// Output, reasoning included.
    pub output: Usd,
    /// Input read from the provider's cache (default: as `input`).
    #[serde(default)]
    pub cache_read: Option<Usd>,
    /// Input written to the cache for five minutes (default: as `input`).
    #[serde(default)]
    pub cache_write_5m: Option<Usd>,
    /// Input written to the cache for an hour (default: as `cache_write_5m`).
    #[serde(default)]
    pub cache_write_1h: Option<Usd>,
    /// Reasoning, where it is priced apart (default: as `output`).
    #[serde(default)]
    pub reasoning: Option<Usd>,
    /// Prices of speeds and tiers of service that a request may name: `fast`, `batch`, `flex`,
    /// `priority`. A tier that is not here has no price, and none has tiers of its own.
    #[serde(default)]
    pub service_tiers: BTreeMap<String, Self>,
}

/// The prices of models.
#[derive(Debug)]
pub struct PriceTable {
    version: String,
    configured: HashMap<String, Price>,
    /// Prices by the spelling of [`ModelName`], then by maker.
    models: HashMap<String, Vec<(String, Price)>>,
    /// The models as the table spells them.
    names: Vec<String>,
    local: Local,
}

impl PriceTable {
    /// Returns the table that is shipped.
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
        let mut names = Vec::new();
        for entry in &file.price {
            for model in &entry.models {
                let price = entry.price(model, &file.version)?;
                let maker = entry.provider.clone();
                models.entry(spelt(model)).or_default().push((maker, price));
                names.push(model.clone());
            }
        }
        let (version, local) = (file.version, file.local);
        Ok(Self { version, configured: HashMap::new(), models, names, local })
    }

    /// Adds prices of the configuration, which take precedence over those of the table. A key is
    /// `model` or `provider/model`.
    ///
    /// # Errors
    ///
    /// When a price is no price.
    pub fn with(mut self, prices: &BTreeMap<String, PriceOverride>) -> Result<Self, PriceError> {
        for (model, price) in prices {
            let price = price.price(model, CONFIGURED)?;
            let key = model.to_ascii_lowercase();
            let spelt = match key.split_once('/') {
                Some((provider, model)) => format!("{provider}/{}", spelt(model)),
                None => spelt(&key),
            };
            self.configured.insert(spelt, price.clone());
            self.configured.insert(key, price);
            self.names.push(model.clone());
        }
        Ok(self)
    }

    /// Returns the date of the table.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Finds the price of a model. `provider` is a `gen_ai.provider.name`.
    #[must_use]
    pub fn find(&self, provider: Option<&str>, model: &str) -> Option<Price> {
        let provider = provider.map(str::to_ascii_lowercase);
        let name = ModelName::of(model);
        if let Some(price) = self.configured(provider.as_deref(), model, &name) {
            return Some(price);
        }
        if name.is_free() {
            return Some(self.free());
        }
        let whole = &name.editions()[0];
        let hosted = whole.ends_with("-cloud") || whole.ends_with(":cloud");
        let local = provider.as_ref().is_some_and(|name| self.local.providers.contains(name));
        if local {
            return if hosted { None } else { Some(self.free()) };
        }
        let maker = provider.as_deref().and_then(maker);
        let found = name.editions().iter().find_map(|edition| {
            let prices = self.models.get(edition)?;
            let (_, price) = prices
                .iter()
                .find(|(by, _)| maker == Some(by.as_str()))
                .or_else(|| prices.first())?;
            Some((edition, price))
        });
        match found {
            Some((edition, price)) => as_named(&name, edition, price),
            None => {
                let open = matches!(provider.as_deref(), None | Some("openai"))
                    && !hosted
                    && !self.sold(model);
                (open && self.has_family(whole)).then(|| self.free())
            }
        }
    }

    /// Returns the names of the models that have a price of their own.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Returns the price that savings are measured against: [`Price::cost`] of it is the cost of
    /// the tokens of a request at the baseline model, with the same cache buckets.
    ///
    /// # Errors
    ///
    /// When the model has no price.
    pub fn baseline(&self, model: &str) -> Result<Price, PriceError> {
        self.find(None, model).ok_or_else(|| PriceError::Baseline(model.to_owned()))
    }

    fn configured(&self, provider: Option<&str>, model: &str, name: &ModelName) -> Option<Price> {
        let found = |key: &dyn Fn(&str) -> String| {
            let editions = name.editions().iter();
            editions.map(|name| Some((name, self.configured.get(&key(name))?))).find_map(|it| it)
        };
        let by_provider =
            provider.and_then(|provider| found(&|edition| format!("{provider}/{edition}")));
        if let Some((edition, price)) = by_provider {
            return as_named(name, edition, price);
        }
        if let Some(price) = self.configured.get(&model.to_ascii_lowercase()) {
            return Some(price.clone());
        }
        let (edition, price) = found(&str::to_owned)?;
        as_named(name, edition, price)
    }

    fn free(&self) -> Price {
        Price::plain(Rates::FREE, self.version.clone())
    }

    /// Returns whether a name begins with a provider that sells the model, as in
    /// `qwen/qwen3:instruct`. The prefixes of Ollama's model files and local providers do not
    /// count.
    fn sold(&self, model: &str) -> bool {
        let Some((seller, _)) = model.trim().split_once('/') else { return false };
        let seller = seller.to_ascii_lowercase();
        !["hf.co", "huggingface.co", "library"].contains(&seller.as_str())
            && !self.local.providers.contains(&seller)
    }

    /// Returns whether a name is of a family that is run locally and has Ollama's tag, as
    /// `llama3.2:3b`.
    fn has_family(&self, name: &str) -> bool {
        let tagged = name.split_once(':').is_some_and(|(_, tag)| !tag.is_empty());
        tagged && self.local.families.iter().any(|family| name.starts_with(family.as_str()))
    }
}

/// Returns the price for a name: where the name states a tier of service and the table entry
/// `edition` does not, the price of that tier, else `price`.
fn as_named(name: &ModelName, edition: &str, price: &Price) -> Option<Price> {
    match name.service_tier() {
        Some(tier) if !edition.split('-').any(|part| part == tier) => price.only(tier),
        _ => Some(price.clone()),
    }
}

/// Returns the spelling under which a model is looked up.
fn spelt(model: &str) -> String {
    ModelName::of(model).editions()[0].clone()
}

/// Returns the maker of the models of a provider that sells its own. Resellers have no maker: for
/// them the name of the model decides, at the maker's list price.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokens;

    #[test]
    fn the_shipped_table_is_sound() {
        let table = PriceTable::parse(BUILT_IN).expect("it is a table");
        assert!(table.version().parse::<jiff::civil::Date>().is_ok(), "{}", table.version());
        for (model, prices) in &table.models {
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
        check(None, "ollama/llama3.2:3b", Some(0));
        check(None, "hf.co/Qwen/Qwen3-8B-GGUF:Q4_K_M", Some(0));
        // Where a path names a seller it is not one's own machine.
        check(None, "qwen/qwen3-30b:instruct", None);
        check(Some("openai"), "qwen/qwen3-30b:thinking", None);
        check(Some("groq"), "llama-3.3-70b:versatile", None);
        check(Some("openrouter"), "qwen/qwen3:free", Some(0));
        check(Some("openrouter"), "anthropic/claude-sonnet-4.6:thinking", Some(3_000_000_000));
        check(Some("github"), "claude-sonnet-4.6", Some(3_000_000_000));
        check(Some("github"), "gpt-4.1", Some(2_000_000_000));
        check(Some("azure"), "gpt-35-turbo", Some(500_000_000));
        check(None, "anthropic/claude-4.5-sonnet:beta", Some(3_000_000_000));
        check(None, "us.anthropic.claude-opus-4-6-v1", Some(5_000_000_000));
        check(None, "gemini-2-5-pro", Some(1_250_000_000));
        check(None, "gpt-5.1-codex-max-xhigh", Some(1_250_000_000));
        check(None, "github_copilot/claude-opus-4.8-fast", Some(10_000_000_000));
        check(None, "claude-sonnet-4.6-fast", None);
        check(None, "ft:gpt-4o-2024-08-06:acme::1", None);
        check(None, "gpt-4o-2024-08-06.ft-abc", None);
        check(None, "gpt-5-unheard-of", None);
    }

    #[test]
    fn no_edition_takes_a_price_that_was_not_its_own() {
        let table = PriceTable::built_in();
        let check = |model: &str, expected: Option<&str>| {
            let found = table.find(None, model).map(|price| price.rates.input);
            assert_eq!(found, expected.map(|text| usd(text).nano()), "{model}");
        };
        check("gpt-4o-2024-05-13", Some("5"));
        check("gpt-4o-2024-08-06", Some("2.5"));
        check("gpt-4-1106-preview", Some("10"));
        check("gpt-4-1106", Some("10"));
        check("gpt-4-0125", Some("10"));
        check("gpt-4-0613", Some("30"));
        check("o1-preview", Some("15"));
        check("gemini-2.0-flash-thinking", None);
        check("gemini-2.0-flash-thinking-exp-01-21", None);
        check("gpt-4-8192", None);
        check("gpt-4-vision-preview", None);
        check("gpt-3.5-turbo-0613", Some("1.5"));
        check("gpt-3.5-turbo-0125", Some("0.5"));
        check("models/gemini-2.5-flash-preview-05-20", None);
        check("gemini-2.5-flash-preview-09-2025", Some("0.3"));
        check("gemini-2.5-pro-exp-03-25", None);
        check("gemini-3.1-pro-preview", Some("2"));
        check("gemini-3.1-pro-preview-12-2026", None);
        check("gemini-3-flash", None);
        check("claude-sonnet-4-5-preview", None);
        check("xai/grok-4.20-experimental-beta-0304", Some("1.25"));
    }

    fn usd(text: &str) -> Usd {
        text.parse().expect("it is an amount")
    }

    #[test]
    fn a_price_of_ones_own_may_have_tiers_of_service() {
        let tier = PriceOverride { input: usd("7"), output: usd("1"), ..Default::default() };
        let price = PriceOverride {
            input: usd("3"),
            output: usd("1"),
            service_tiers: BTreeMap::from([("Fast".to_owned(), tier)]),
            ..Default::default()
        };
        let prices = BTreeMap::from([("Claude-Opus-4.6".to_owned(), price)]);
        let table = PriceTable::built_in().with(&prices).expect("they are prices");
        let tokens = Tokens { input: 1_000_000, ..Tokens::default() };
        let price = table.find(None, "anthropic/claude-opus-4-6").expect("it has a price");
        assert_eq!(price.cost_at(None, &tokens), Some(3_000_000_000));
        assert_eq!(price.cost_at(Some("fast"), &tokens), Some(7_000_000_000));
        assert_eq!(price.cost_at(Some("batch"), &tokens), None);
    }

    #[test]
    fn the_configuration_wins() {
        let price =
            |input| PriceOverride { input: usd(input), output: usd("1"), ..Default::default() };
        let prices = BTreeMap::from([
            ("gpt-5".to_owned(), price("9")),
            ("azure/gpt-5".to_owned(), price("8")),
            ("Our-Model".to_owned(), price("0.0375")),
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

    /// Neither as the nearest binary fraction nor rounded: nine decimals, and none more.
    #[test]
    fn a_price_is_what_is_written() {
        let table = |price: &str| {
            PriceTable::parse(&format!(
                "version = \"2026-11-29\"\n[[price]]\nprovider = \"p\"\nmodels = [\"m\"]\n\
                 input = {price}\noutput = 1\n[local]\nproviders = []\nfamilies = []\n"
            ))
        };
        let configured = |price: &str| -> Result<PriceOverride, _> {
            serde_json::from_str(&format!("{{\"input\": {price}, \"output\": 1}}"))
        };
        let check = |price: &str, nano: i64| {
            let read = table(price).expect("it is a table").find(Some("p"), "m");
            assert_eq!(read.expect("it has a price").rates.input, nano, "{price}");
            assert_eq!(configured(price).expect("it is a price").input.nano(), nano, "{price}");
        };
        check("3", 3_000_000_000);
        check("0.000000001", 1);
        check("8.116", 8_116_000_000);
        // As many digits as a price may have.
        check("99999.999999999", 99_999_999_999_999);
        check("70368.744177663", 70_368_744_177_663);
        for price in ["0.0000000001", "1.2345678901", "nan", "inf"] {
            assert!(table(price).is_err(), "{price}");
            assert!(configured(price).is_err(), "{price}");
        }
    }

    #[test]
    fn a_price_that_is_none_is_refused() {
        for wrong in ["-1", "-0.000000001", "100000.000000001", "1000000"] {
            let prices = BTreeMap::from([(
                "m".to_owned(),
                PriceOverride { input: usd(wrong), ..Default::default() },
            )]);
            let error = PriceTable::built_in().with(&prices).expect_err("it is no price");
            let part = format!("\"m\": input is {wrong}, it must be US dollars");
            assert!(error.to_string().contains(&part), "{error}");
        }
        let error = PriceTable::built_in().baseline("gpt-99").expect_err("it has no price");
        assert!(error.to_string().contains("gpt-99"), "{error}");
        assert!(PriceTable::parse("version = 1").is_err());
    }
}
