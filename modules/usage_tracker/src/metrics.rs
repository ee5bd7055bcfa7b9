//! What Prometheus sees. Names by `gen_ai.*` where OpenTelemetry has them.

use std::collections::HashMap;

use module_sdk::{Counter, Gauge, Histogram, Host, Result, events::LlmRequestCompleted};

use crate::{
    prices::priced_model,
    query::Usd,
    store::{Store, Written},
};

/// How many models have series of their own; further ones share `other`.
const MODELS: usize = 100;
/// How many providers have.
const PROVIDERS: usize = 30;

/// The metrics of the module.
#[derive(Debug)]
pub(crate) struct Metrics {
    host: Host,
    requests: HashMap<(String, &'static str), Counter>,
    models: Vec<String>,
    spend: HashMap<String, Counter>,
    duration: Histogram,
    ttft: Histogram,
    commit: Histogram,
    main_bytes: Gauge,
    wal_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new(host: &Host) -> Result<Self> {
        let size = |file| {
            let help = "Size of the database and its write-ahead log.";
            host.gauge("lodestar_storage_size_bytes", help, &[("file", file)])
        };
        let histogram = |name, help| host.histogram(name, help, &[]);
        Ok(Self {
            requests: HashMap::new(),
            models: Vec::new(),
            spend: HashMap::new(),
            duration: histogram(
                "gen_ai_client_operation_duration_seconds",
                "GenAI operation duration.",
            )?,
            ttft: histogram("gen_ai_server_time_to_first_token_seconds", "Time to first token.")?,
            commit: histogram(
                "lodestar_storage_commit_duration_seconds",
                "Duration of database commits.",
            )?,
            main_bytes: size("main")?,
            wal_bytes: size("wal")?,
            host: host.clone(),
        })
    }

    /// A batch was written. Every request counts once, when it is first seen.
    pub(crate) fn written(&mut self, written: &Written, seconds: f64, store: &Store) -> Result<()> {
        self.commit.observe(seconds);
        self.sizes(store);
        for stored in &written.counted {
            self.request(&stored.report.request)?;
        }
        Ok(())
    }

    pub(crate) fn sizes(&self, store: &Store) {
        let (main, wal) = store.sizes();
        self.main_bytes.set(bytes(main));
        self.wal_bytes.set(bytes(wal));
    }

    fn request(&mut self, request: &LlmRequestCompleted) -> Result<()> {
        if let Some(ms) = request.duration_ms {
            self.duration.observe(f64::from(ms) / 1e3);
        }
        if let Some(ms) = request.ttft_ms {
            self.ttft.observe(f64::from(ms) / 1e3);
        }
        let model = self.model(priced_model(request).unwrap_or("unknown"));
        let outcome = request.status.map_or("ok", |status| status.as_str());
        let Self { host, requests, spend, .. } = self;
        let counter = match requests.get(&(model.clone(), outcome)) {
            Some(counter) => counter.clone(),
            None => {
                let labels = [("gen_ai_request_model", model.as_str()), ("outcome", outcome)];
                let help = "Requests by model and outcome.";
                let counter = host.counter("lodestar_requests_total", help, &labels)?;
                requests.entry((model, outcome)).or_insert(counter).clone()
            }
        };
        counter.add(1.0);
        let Some(cost) = request.cost_nano_usd else { return Ok(()) };
        let mut provider = request.provider.as_deref().unwrap_or("unknown");
        if !spend.contains_key(provider) {
            if spend.len() >= PROVIDERS {
                provider = "other";
            }
            let help = "Money spent on model calls in US dollars.";
            let labels = [("gen_ai_provider_name", provider)];
            let counter = host.counter("lodestar_spend_usd_total", help, &labels)?;
            spend.entry(provider.to_owned()).or_insert(counter);
        }
        if let Some(counter) = spend.get(provider) {
            counter.add(Usd(cost).as_f64());
        }
        Ok(())
    }

    fn model(&mut self, model: &str) -> String {
        if !self.models.iter().any(|known| known == model) {
            if self.models.len() >= MODELS {
                return "other".to_owned();
            }
            self.models.push(model.to_owned());
        }
        model.to_owned()
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point")]
const fn bytes(size: u64) -> f64 {
    size as f64
}
