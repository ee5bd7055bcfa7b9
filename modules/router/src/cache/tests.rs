//! Tests of the cache: what is kept, for whom, and who asks.

mod flights;
mod keys;
mod over_redis;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use module_sdk::{Host, jiff::Timestamp, testing::FakeHost};
use serde_json::Value;

use super::{
    Bypass, CacheOptions, Form, Found, Leader, Lookup, Question, ResponseCache, Sharers, Stored,
    Tier,
};
use crate::{
    dialect::{Dialect, inspect::Inspected, usage::Usage},
    target::TargetName,
};

struct Site {
    fake: Arc<FakeHost>,
    host: Host,
    cache: ResponseCache,
    _directory: tempfile::TempDir,
}

/// A request of a test.
#[derive(Clone)]
struct Ask {
    identity: &'static str,
    project: Option<&'static str>,
    credential: Option<&'static str>,
    dialect: Dialect,
    model: &'static str,
    headers: &'static [(&'static str, &'static str)],
    query: Option<&'static str>,
    body: String,
    inspected: Inspected<'static>,
}

impl Ask {
    fn new(body: &str) -> Self {
        Self {
            identity: "k_1",
            project: None,
            credential: None,
            dialect: Dialect::Chat,
            model: "gpt-5-mini",
            headers: &[],
            query: None,
            body: body.to_owned(),
            inspected: Inspected { choices: 1, ..Inspected::default() },
        }
    }
}

impl Site {
    fn new(options: Value) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let fake = Arc::new(FakeHost::new(directory.path()));
        let host = fake.host().expect("it tells about itself");
        let options: CacheOptions = serde_json::from_value(options).expect("they are settings");
        options.check().expect("they can be used");
        let cache = ResponseCache::start(&host, options).expect("it starts");
        Self { fake, host, cache, _directory: directory }
    }

    fn key(&self, ask: &Ask) -> Result<Lookup, Bypass> {
        let mut headers = HeaderMap::new();
        for (name, value) in ask.headers {
            headers.append(*name, value.parse().expect("it is visible ASCII"));
        }
        let target = TargetName { provider: "cloud".into(), model: ask.model.into() };
        self.cache.key(Question {
            sharers: Sharers {
                identity: ask.identity,
                project: ask.project,
                credential: ask.credential,
            },
            dialect: ask.dialect,
            target: &target,
            headers: &headers,
            query: ask.query,
            body: ask.body.as_bytes(),
            inspected: &ask.inspected,
        })
    }

    fn lookup(&self, body: &str) -> Lookup {
        self.key(&Ask::new(body)).expect("it is for the cache")
    }

    async fn lead(&self, lookup: Lookup) -> Leader {
        match self.cache.look_up(lookup).await {
            Found::Miss(leader) => leader,
            Found::Hit(answer, tier) => panic!("{tier:?} has {answer:?}"),
        }
    }

    async fn hit(&self, lookup: Lookup) -> (Arc<Stored>, Tier) {
        match self.cache.look_up(lookup).await {
            Found::Hit(answer, tier) => (answer, tier),
            Found::Miss(_) => panic!("it is not there"),
        }
    }

    fn answer(&self, body: &str) -> Stored {
        answer(body, self.host.now())
    }

    fn stats(&self) -> Value {
        self.cache.stats().expect("it answers").data
    }
}

fn answer(body: &str, now: Timestamp) -> Stored {
    Stored {
        status: 200,
        content_type: "application/json".to_owned(),
        form: Form::Whole,
        body: Bytes::copy_from_slice(body.as_bytes()),
        response_model: Some("gpt-5-mini-2026".to_owned()),
        finish_reason: Some("stop".to_owned()),
        calls_tool: false,
        usage: Usage { input: Some(10), output: Some(5), ..Usage::default() },
        cost_nano_usd: Some(12_345),
        stored_at: now.as_millisecond(),
    }
}
