//! The configuration of the module.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroUsize},
    time::Duration,
};

use module_prices::{PriceOverride, PriceTable};
use module_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cache::CacheOptions, keys::KeyOptions, limits::LimitOptions, quality::QualityOptions,
    routing::options::RoutingOptions, target::breaker::BreakerOptions,
};

/// Answers requests to language models at one address.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address to listen on, `host:port`. Port 0 takes a free one.
    pub(crate) listen: String,
    /// The largest body of a request, bytes.
    pub(crate) max_body_bytes: NonZeroUsize,
    /// The most memory that the bodies of all requests together may hold, bytes; a request beyond
    /// it is asked to try again later.
    pub(crate) max_buffered_bytes: NonZeroUsize,
    /// The largest answer that is no stream, and the most that is kept of one that is, bytes.
    pub(crate) max_answer_bytes: NonZeroUsize,
    /// The most memory that the answers under way may take together, bytes; one beyond it is given
    /// up, and its client asked to try again. Streams pass, and take next to none.
    pub(crate) max_buffered_answer_bytes: NonZeroUsize,
    /// The most connections that may be open at once. Then the one that has been idle for longest
    /// gives way to a new one.
    pub(crate) max_connections: NonZeroU16,
    /// The time that a client may take for the head of a request, seconds.
    pub(crate) header_timeout_seconds: NonZeroU16,
    /// The time that a client may take for the body of a request, seconds.
    pub(crate) body_timeout_seconds: NonZeroU16,
    /// The time that a connection is kept between an answer and the next request, seconds.
    pub(crate) idle_timeout_seconds: NonZeroU16,
    /// The time that a client may take for any part of an answer, seconds.
    pub(crate) write_timeout_seconds: NonZeroU16,
    /// Host names besides those of the loopback under which clients may reach this listener.
    pub(crate) allowed_hosts: Vec<String>,
    /// Web origins (`https://app.example.org`) whose pages may ask here. None by default: a web
    /// page must not reach the loopback.
    pub(crate) allowed_origins: Vec<String>,
    /// `true` where an Ollama on this machine is used though `providers` does not name it.
    pub(crate) discover_ollama: bool,
    /// The time between two looks at which models the providers have, seconds.
    pub(crate) discovery_seconds: NonZeroU16,
    /// The model that savings are counted against: what the same tokens would have cost there.
    pub(crate) baseline_model: String,
    /// The days for which the journal of requests is kept (numbers and names, no text):
    /// `lodestar router explain` and `savings` read it. 0 keeps none.
    #[schemars(range(max = 3650))]
    pub(crate) journal_days: u16,
    /// Checks of the answers of local models.
    pub(crate) quality: QualityOptions,
    /// Patterns of the values of `anthropic-beta` that a provider knows, by its id: it gets no
    /// other ones. Default: all of them.
    pub(crate) anthropic_betas: BTreeMap<String, Vec<String>>,
    /// Prices of models that the table does not know, or knows otherwise.
    pub(crate) prices: BTreeMap<String, PriceOverride>,
    /// Times for which providers are waited for.
    pub(crate) timeouts: Timeouts,
    /// Attempts after one that failed.
    pub(crate) retries: Retries,
    /// Virtual keys.
    pub(crate) keys: KeyOptions,
    /// Limits of requests, tokens and US dollars. (`limits` in the section of a module are those
    /// that the daemon sets it.)
    pub(crate) quotas: LimitOptions,
    /// Cache of answers.
    pub(crate) cache: CacheOptions,
    /// Choice of the model that answers.
    pub(crate) routing: RoutingOptions,
    /// Breakers, one for each model of a provider.
    pub(crate) breaker: BreakerOptions,
}

/// Times for which providers are waited for.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until there is a connection, seconds.
    pub connect_seconds: NonZeroU16,
    /// Until the first byte of a stream, seconds.
    pub first_byte_seconds: NonZeroU16,
    /// Until the head of an answer that is no stream, which comes when all of it is there, seconds.
    pub answer_seconds: NonZeroU16,
    /// Between two pieces of an answer, seconds.
    pub idle_seconds: NonZeroU16,
    /// Until a client that waits for the next piece gets a sign of life, seconds: some give up
    /// after 20 s.
    pub silence_seconds: NonZeroU16,
    /// Until the end of an answer, seconds.
    pub whole_seconds: NonZeroU16,
    /// Until the first byte of a local model that has to be loaded first, seconds.
    pub cold_start_seconds: NonZeroU16,
}

/// Attempts after one that failed, before any content was seen.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Further attempts at the same model before the next one in line is asked.
    #[schemars(range(max = 10))]
    pub attempts: u16,
    /// Pause before the first of them, milliseconds; it doubles, with a random part.
    #[schemars(range(min = 1, max = 60000))]
    pub backoff_ms: u32,
    /// Longest pause, milliseconds; a provider that asks for a longer one is left alone instead.
    #[schemars(range(min = 1, max = 600_000))]
    pub max_backoff_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:4000".to_owned(),
            max_body_bytes: mebibytes(64),
            max_buffered_bytes: mebibytes(512),
            max_answer_bytes: mebibytes(64),
            max_buffered_answer_bytes: mebibytes(512),
            max_connections: small(2048),
            header_timeout_seconds: small(10),
            body_timeout_seconds: small(60),
            idle_timeout_seconds: small(75),
            write_timeout_seconds: small(60),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            discover_ollama: true,
            discovery_seconds: small(60),
            baseline_model: "claude-sonnet-4-5".to_owned(),
            journal_days: 30,
            quality: QualityOptions::default(),
            anthropic_betas: BTreeMap::new(),
            prices: BTreeMap::new(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            keys: KeyOptions::default(),
            quotas: LimitOptions::default(),
            cache: CacheOptions::default(),
            routing: RoutingOptions::default(),
            breaker: BreakerOptions::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_seconds: small(5),
            first_byte_seconds: small(120),
            answer_seconds: small(600),
            idle_seconds: small(120),
            silence_seconds: small(15),
            whole_seconds: small(1800),
            cold_start_seconds: small(300),
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 1, backoff_ms: 250, max_backoff_ms: 8000 }
    }
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// When a value makes no sense.
    pub fn check(&self) -> Result<()> {
        if self.max_body_bytes > self.max_buffered_bytes {
            let message = "one body may not be larger than all of them (max_buffered_bytes)";
            return Err(Error::config_at("max_body_bytes", message));
        }
        if self.max_answer_bytes > self.max_buffered_answer_bytes {
            let message = "one answer may not be larger than all of them \
                           (max_buffered_answer_bytes)";
            return Err(Error::config_at("max_answer_bytes", message));
        }
        if self.journal_days > 3650 {
            return Err(Error::config_at("journal_days", "must be at most 3650"));
        }
        let prices = PriceTable::built_in().with(&self.prices);
        let prices = prices.map_err(|error| Error::config_at("prices", error.to_string()))?;
        prices.baseline(&self.baseline_model).map_err(|_| {
            let message = "has no price; name a model of the price table, or add it under `prices`";
            Error::config_at("baseline_model", message)
        })?;
        self.keys.check().map_err(|error| error.below("keys"))?;
        self.quotas.check()?;
        self.cache.check()?;
        self.quality.check().map_err(|error| error.below("quality"))?;
        self.routing.check().map_err(|error| error.below("routing"))
    }
}

pub(crate) fn seconds(number: NonZeroU16) -> Duration {
    Duration::from_secs(u64::from(number.get()))
}

const fn small(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("a default is not 0")
}

const fn mebibytes(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number * 1024 * 1024).expect("a default is not 0")
}
