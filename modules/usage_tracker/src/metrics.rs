//! The metrics of the module, with names by `gen_ai.*` where OpenTelemetry defines them.

use foldhash::HashMap;
use module_sdk::{
    Counter, CounterFamily, Gauge, Histogram, Host, Result, Usd, events::LlmRequestCompleted,
};

use crate::{
    prices::priced_model,
    store::{Store, Written},
};

/// Largest number of models with series of their own; further ones share `other`.
const MODELS: usize = 100;
/// Largest number of providers with series of their own.
const PROVIDERS: usize = 30;
/// Number of outcomes: `ok` and every status of a request. With [`MODELS`] models, the series stay
/// within the limit of one family.
const OUTCOMES: usize = 8;

/// The metrics of the module.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: CounterFamily<2>,
    spend: CounterFamily<1>,
    duration: Histogram,
    ttft: Histogram,
    commit: Histogram,
    main_bytes: Gauge,
    wal_bytes: Gauge,
    too_late: Counter,
}

impl Metrics {
    pub(crate) fn new(host: &Host) -> Result<Self> {
        let size = |file| {
            let help = "Size of the database and its write-ahead log.";
            host.gauge("lodestar_storage_size_bytes", help, &[("file", file)])
        };
        let histogram = |name, help| host.histogram(name, help, &[]);
        Ok(Self {
            requests: host.counter_family(
                "lodestar_requests_total",
                "Requests by model and outcome.",
                [("gen_ai_request_model", MODELS), ("outcome", OUTCOMES)],
            ),
            spend: host.counter_family(
                "lodestar_spend_usd_total",
                "Money spent on model calls in US dollars.",
                [("gen_ai_provider_name", PROVIDERS)],
            ),
            duration: histogram(
                "gen_ai_client_operation_duration_seconds",
                "GenAI operation duration.",
            )?,
            ttft: histogram("gen_ai_server_time_to_first_token_seconds", "Time to first token.")?,
            commit: histogram(
                "lodestar_storage_commit_duration_seconds",
                "Duration of database commits.",
            )?,
            too_late: host.counter(
                "lodestar_usage_late_withdrawals_total",
                "Requests withdrawn after retention had deleted them; the totals keep them.",
                &[],
            )?,
            main_bytes: size("main")?,
            wal_bytes: size("wal")?,
        })
    }

    /// Counts what a batch wrote. Every request counts once, when it is first seen.
    pub(crate) fn written(&self, written: &Written, seconds: f64, store: &Store) {
        self.commit.observe(seconds);
        self.sizes(store);
        // One call to the host for all that counts into the same series.
        let (mut requests, mut spend) = (HashMap::default(), HashMap::default());
        for stored in &written.counted {
            let request = &stored.report.request;
            self.times(request);
            let model = priced_model(request).unwrap_or("unknown");
            let outcome = request.status.map_or("ok", |status| status.as_str());
            *requests.entry((model, outcome)).or_insert(0.0) += 1.0;
            if let Some(cost) = request.cost_nano_usd {
                let provider = request.provider.as_deref().unwrap_or("unknown");
                let spent: &mut i64 = spend.entry(provider).or_default();
                *spent = spent.saturating_add(cost);
            }
        }
        for ((model, outcome), count) in requests {
            self.requests.add([model, outcome], count);
        }
        for (provider, nano_usd) in spend {
            self.spend.add([provider], Usd::from_nano(nano_usd).as_f64());
        }
    }

    /// Counts requests that were withdrawn after retention had deleted them.
    pub(crate) fn too_late(&self, requests: u32) {
        self.too_late.add(f64::from(requests));
    }

    pub(crate) fn sizes(&self, store: &Store) {
        let (main, wal) = store.sizes();
        self.main_bytes.set(bytes(main));
        self.wal_bytes.set(bytes(wal));
    }

    fn times(&self, request: &LlmRequestCompleted) {
        if let Some(ms) = request.duration_ms {
            self.duration.observe(f64::from(ms) / 1e3);
        }
        if let Some(ms) = request.ttft_ms {
            self.ttft.observe(f64::from(ms) / 1e3);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point")]
const fn bytes(size: u64) -> f64 {
    size as f64
}
