//! The part of the configuration about the cache.

use module_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::redis_link::RedisUrl;

/// Settings of the cache of answers.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CacheOptions {
    /// Answer a request that was asked before from the cache.
    pub enabled: bool,
    /// Time for which an answer is kept, in seconds.
    #[schemars(range(min = 1, max = 2_592_000))]
    pub ttl_s: u64,
    /// Most memory for answers, in bytes.
    #[schemars(range(min = 1_024, max = 17_179_869_184_u64))]
    pub max_bytes: u64,
    /// Largest answer that is kept, in bytes.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub max_answer_bytes: usize,
    /// Largest request whose answer is kept, in bytes.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub max_request_bytes: usize,
    /// Keep answers to requests with a temperature above 0 too, which would differ each time.
    pub any_temperature: bool,
    /// Keep answers in words to requests that offer tools too. Calls of tools are never kept.
    pub with_tools: bool,
    /// Longest time to wait for the answer to an equal request that is under way, in seconds.
    #[schemars(range(max = 600))]
    pub wait_s: u64,
    /// Redis in which instances share answers: `redis://host:6379`, best as a reference where it
    /// holds a password. The answers lie there as text. Default: each keeps its own.
    pub redis: Option<RedisUrl>,
    /// Time that Redis has for an answer, in milliseconds; then the request goes on without.
    #[schemars(range(min = 1, max = 1_000))]
    pub redis_timeout_ms: u64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl_s: 30 * 60,
            max_bytes: 16 << 20,
            max_answer_bytes: 512 << 10,
            max_request_bytes: 512 << 10,
            any_temperature: false,
            with_tools: false,
            wait_s: 15,
            redis: None,
            redis_timeout_ms: 5,
        }
    }
}

impl CacheOptions {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        let largest = u64::try_from(self.max_answer_bytes).unwrap_or(u64::MAX);
        if largest > self.max_bytes {
            return Err(Error::config_at("cache.max_answer_bytes", "is more than cache.max_bytes")
                .hint("make it smaller, or the cache larger"));
        }
        Ok(())
    }
}
