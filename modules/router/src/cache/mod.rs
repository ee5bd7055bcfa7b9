//! Answers to requests that were asked before.
//!
//! [`ResponseCache::key`] says whether the cache is asked at all, and under which key;
//! [`ResponseCache::look_up`] gives an answer, or the duty to get one for all who ask the same at
//! this time. Answers lie in memory and, where it is configured, in a Redis. A Redis that is gone,
//! slow or full costs a request its deadline at most, and after a few nothing.

#![expect(unused_imports, reason = "rooms are built one after another")]

mod commands;
mod flight;
mod key;
mod options;
mod policy;
mod stats;
mod stored;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use module_sdk::{Error, Host, Result};
use tokio::sync::Semaphore;

pub(crate) use commands::CacheArgs;
pub(crate) use key::{CacheKey, Sharers};
pub(crate) use options::CacheOptions;
pub(crate) use policy::{Bypass, CACHE_HEADER, NotStored};
pub(crate) use stored::{Form, Recorder, Replay, Stored};

use crate::{
    dialect::{Dialect, inspect::Inspected},
    redis_link::{Access, RedisFault, RedisLink},
    target::TargetName,
};
use flight::{Baton, Flights, Lead, Part, Slot};
use stats::Stats;

/// Beginning of the keys in Redis.
const NAMESPACE: &str = "lodestar:answers:";
/// Answers on their way to Redis at most; further ones are not shared.
const MOST_WRITES: usize = 32;

/// The cache of answers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ResponseCache {
    inner: Arc<Inner>,
}

struct Inner {
    options: CacheOptions,
    memory: moka::sync::Cache<Slot, Arc<Stored>, foldhash::fast::RandomState>,
    flights: Arc<Flights>,
    link: Option<RedisLink>,
    writes: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
    host: Host,
    stats: Stats,
}

// What it holds are texts of answers.
impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answers", self.memory.entry_count())
    }
}

/// A request, as the cache sees it.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    /// Those among whom its answer is shared.
    pub sharers: Sharers<'a>,
    /// API of the request.
    pub dialect: Dialect,
    /// Target that would answer.
    pub target: &'a TargetName,
    /// Headers of the request.
    pub headers: &'a HeaderMap,
    /// Part of its query that goes on to the provider.
    pub query: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
    /// Findings in the body.
    pub inspected: &'a Inspected<'a>,
}

/// Place of an answer, with what the client wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lookup {
    /// Key of the answer.
    pub key: CacheKey,
    dialect: Dialect,
    form: Form,
    reads: bool,
}

/// Place where an answer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Memory of this instance.
    Memory,
    /// Redis.
    Redis,
    /// An equal request that was under way.
    Flight,
}

/// Outcome of a lookup.
#[derive(Debug)]
pub(crate) enum Found {
    /// An answer: it costs nothing, and `cost_nano_usd` of it is saved.
    Hit(Arc<Stored>, Tier),
    /// None: the request is asked, and its answer offered to the cache.
    Miss(Leader),
}

/// Duty to offer the cache the answer to a request. Dropped, it goes to the next request that waits
/// for the same answer: so drop it when the attempt failed or the client went away.
#[derive(Debug)]
pub(crate) struct Leader {
    inner: Arc<Inner>,
    lookup: Lookup,
    /// `None` for a request that asks for itself.
    lead: Option<Lead>,
    is_settled: bool,
}

impl ResponseCache {
    /// Makes an empty cache, and begins to connect to the Redis where there is one.
    ///
    /// # Errors
    ///
    /// When the Redis cannot be used as configured, or the runtime does not start.
    pub(crate) fn start(host: &Host, options: CacheOptions) -> Result<Self> {
        let runtime = host.runtime()?;
        let deadline = Duration::from_millis(options.redis_timeout_ms);
        let url = options.redis.as_ref().filter(|_| options.enabled);
        let link = url
            .map(|url| RedisLink::start(url, deadline, &runtime))
            .transpose()
            .map_err(|error| Error::config_at("cache.redis", error.to_string()))?;
        let memory = moka::sync::Cache::builder()
            .max_capacity(options.max_bytes)
            .weigher(|_: &Slot, answer: &Arc<Stored>| answer.weight())
            .time_to_live(Duration::from_secs(options.ttl_s))
            .build_with_hasher(foldhash::fast::RandomState::default());
        let inner = Inner {
            options,
            memory,
            flights: Arc::default(),
            link,
            writes: Arc::new(Semaphore::new(MOST_WRITES)),
            runtime,
            host: host.clone(),
            stats: Stats::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns where the answer to a request would lie.
    ///
    /// # Errors
    ///
    /// The reason for which the cache is not asked.
    pub(crate) fn key(&self, question: Question<'_>) -> Result<Lookup, Bypass> {
        let Question { sharers, dialect, target, headers, query, body, inspected } = question;
        let judged = policy::judge(&self.inner.options, inspected, body.len(), headers);
        let lookup = judged.and_then(|wish| {
            let key = CacheKey::of(sharers, dialect, target, (headers, query), body)?;
            let form = if inspected.stream { Form::Stream } else { Form::Whole };
            Ok(Lookup { key, dialect, form, reads: wish.reads })
        });
        lookup.inspect_err(|reason| self.inner.stats.bypass(*reason))
    }

    /// Returns the answer that is kept, or that an equal request gets just now; otherwise the duty
    /// to get one. Dropped while it waits, it leaves no trace.
    pub(crate) async fn look_up(&self, lookup: Lookup) -> Found {
        let inner = &self.inner;
        if !lookup.reads {
            inner.stats.miss();
            return self.miss(lookup, None);
        }
        if let Some(answer) = inner.in_memory(lookup.slot()) {
            return inner.hit(answer, Tier::Memory);
        }
        let lead = match inner.flights.join(lookup.slot()) {
            Part::Lead(lead) => lead,
            Part::Wait(receiver) => {
                let wait = Duration::from_secs(inner.options.wait_s);
                match tokio::time::timeout(wait, receiver).await {
                    Ok(Ok(Baton::Answer(answer))) => return inner.hit(answer, Tier::Flight),
                    // The one before failed: nothing was found since.
                    Ok(Ok(Baton::Lead(lead))) => {
                        inner.stats.miss();
                        return self.miss(lookup, Some(lead));
                    }
                    Ok(Ok(Baton::Alone) | Err(_)) | Err(_) => return self.alone(lookup),
                }
            }
            Part::Alone => return self.alone(lookup),
        };
        // It may have come between the look and the lead.
        if let Some(answer) = inner.in_memory(lookup.slot()) {
            lead.end(Some(&answer));
            return inner.hit(answer, Tier::Memory);
        }
        if let Some(answer) = inner.in_redis(lookup.slot()).await {
            inner.memory.insert(lookup.slot(), answer.clone());
            lead.end(Some(&answer));
            return inner.hit(answer, Tier::Redis);
        }
        inner.stats.miss();
        self.miss(lookup, Some(lead))
    }

    fn alone(&self, lookup: Lookup) -> Found {
        self.inner.stats.alone();
        self.inner.stats.miss();
        self.miss(lookup, None)
    }

    fn miss(&self, lookup: Lookup, lead: Option<Lead>) -> Found {
        Found::Miss(Leader { inner: self.inner.clone(), lookup, lead, is_settled: false })
    }

    /// Returns what is wrong, in words for the health of the module.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.inner.link.as_ref()?.trouble()?;
        Some(format!("{trouble}; answers are cached by this instance alone"))
    }
}

impl Lookup {
    const fn slot(self) -> Slot {
        (self.key, self.form)
    }
}

impl Leader {
    /// Returns a copy of the answer to be filled while it goes to the client.
    pub(crate) fn recorder(&self) -> Recorder {
        Recorder::new(self.inner.options.max_answer_bytes)
    }

    /// Keeps an answer that came whole, and gives it to all that wait for it. One that may not be
    /// kept is given to nobody, and those that wait ask for themselves.
    ///
    /// # Errors
    ///
    /// The reason for which it is not kept.
    pub(crate) fn offer(mut self, answer: Stored) -> Result<(), NotStored> {
        self.is_settled = true;
        let inner = self.inner.clone();
        let keepable = policy::keepable(&inner.options, self.lookup.dialect, &answer);
        if let Err(reason) = keepable {
            inner.stats.not_stored(reason);
            self.end(None);
            return Err(reason);
        }
        let answer = Arc::new(answer);
        inner.memory.insert(self.lookup.slot(), answer.clone());
        inner.stats.stored();
        self.end(Some(&answer));
        inner.share(self.lookup.slot(), answer);
        Ok(())
    }

    /// Notes that there was an answer and it cannot be kept: those that wait ask for themselves.
    pub(crate) fn decline(mut self, reason: NotStored) {
        self.is_settled = true;
        self.inner.stats.not_stored(reason);
        self.end(None);
    }

    fn end(&mut self, answer: Option<&Arc<Stored>>) {
        if let Some(lead) = self.lead.take() {
            lead.end(answer);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.is_settled {
            self.inner.stats.not_stored(NotStored::NoAnswer);
        }
    }
}

impl Inner {
    fn hit(&self, answer: Arc<Stored>, tier: Tier) -> Found {
        self.stats.hit(tier, answer.cost_nano_usd);
        Found::Hit(answer, tier)
    }

    fn in_memory(&self, slot: Slot) -> Option<Arc<Stored>> {
        self.memory.get(&slot).filter(|answer| self.is_fresh(answer))
    }

    /// Returns whether an answer is young enough: one from Redis came with an age.
    fn is_fresh(&self, answer: &Stored) -> bool {
        let age_ms = self.host.now().as_millisecond() - answer.stored_at;
        u64::try_from(age_ms).unwrap_or(0) < self.options.ttl_s * 1_000
    }

    async fn in_redis(&self, slot: Slot) -> Option<Arc<Stored>> {
        let link = self.link.as_ref()?;
        let mut get = redis::cmd("GET");
        get.arg(name(slot));
        let bytes: Option<Vec<u8>> = link.ask(Access::Read, &get).await.ok()?;
        let answer = Stored::decode(bytes?).filter(|answer| answer.form == slot.1)?;
        self.is_fresh(&answer).then(|| Arc::new(answer))
    }

    /// Gives an answer to Redis, beside the way of the request.
    fn share(self: &Arc<Self>, slot: Slot, answer: Arc<Stored>) {
        let Some(link) = self.link.clone() else { return };
        let Ok(permit) = self.writes.clone().try_acquire_owned() else {
            self.stats.not_shared();
            return;
        };
        let inner = self.clone();
        self.runtime.spawn(async move {
            let mut set = redis::cmd("SET");
            set.arg(name(slot)).arg(answer.encode()).arg("EX").arg(inner.options.ttl_s);
            if link.ask::<()>(Access::Write, &set).await.is_err() {
                inner.stats.not_shared();
            }
            drop(permit);
        });
    }

    /// Removes all answers of all instances from Redis, and returns how many there were.
    async fn clear_redis(&self, link: &RedisLink) -> Result<u64, RedisFault> {
        let (mut cursor, mut removed) = (0_u64, 0);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{NAMESPACE}*")).arg("COUNT").arg(500);
            let (next, keys): (u64, Vec<String>) = link.ask(Access::Read, &scan).await?;
            if !keys.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(keys);
                removed += link.ask::<u64>(Access::Read, &unlink).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }
}

fn name(slot: Slot) -> String {
    let form = match slot.1 {
        Form::Whole => 'w',
        Form::Stream => 's',
    };
    format!("{NAMESPACE}{}:{form}", slot.0)
}
