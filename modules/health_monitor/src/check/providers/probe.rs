//! A probe of a provider.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use module_http_client::{Answer, Client};
use module_sdk::{Host, Provider, ProviderApi, jiff::Timestamp};
use serde::Deserialize as _;

use super::{
    judge::{Loaded, LoadedModel, Verdict, judge},
    target,
};
use crate::check::outcomes::Failure;

/// Result of a probe.
pub(super) struct Probe {
    /// Time of the answer and what it says, or why there is none.
    pub(super) outcome: Result<(Duration, Verdict), Failure>,
    /// Models that are loaded, where the provider says it.
    pub(super) loaded: Vec<LoadedModel>,
    /// End of the server's certificate.
    pub(super) expires_at: Option<Timestamp>,
    /// Seconds by which the clock here is ahead of the server's.
    pub(super) skew: Option<f64>,
}

impl Probe {
    pub(super) fn failed(failure: impl Into<Failure>) -> Self {
        let outcome = Err(failure.into());
        Self { outcome, loaded: Vec::new(), expires_at: None, skew: None }
    }
}

/// Asks a provider for its models, within a deadline for all of it.
pub(super) async fn probe(
    client: Client,
    provider: Arc<Provider>,
    host: Host,
    deadline: Duration,
) -> Probe {
    let begun = Instant::now();
    let mut request = target::list(&provider);
    request.deadline = deadline;
    let path = target::path(&request).to_owned();
    let answer = match client.send(request).await {
        Ok(answer) => answer,
        Err(error) => return Probe::failed(error),
    };
    let skew = skew(&answer, host.now());
    let has_key = provider.key.is_some();
    let verdict = judge(provider.api, has_key, &path, &answer);
    let mut loaded = Vec::new();
    if provider.api == ProviderApi::Ollama && verdict.is_ok() {
        let mut request = target::loaded(&provider);
        request.deadline = deadline.saturating_sub(begun.elapsed());
        // An older one does not know the question; what is loaded is then not known.
        if let Ok(answer) = client.send(request).await {
            loaded = read(&answer.body);
        }
    }
    Probe {
        outcome: verdict.map(|verdict| (answer.elapsed, verdict)),
        loaded,
        expires_at: answer.certificate_expires_at,
        skew,
    }
}

fn read(body: &[u8]) -> Vec<LoadedModel> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Loaded::deserialize(&mut deserializer).map(|loaded| loaded.models).unwrap_or_default()
}

/// Returns by how many seconds the clock here is ahead of the server's, whose `Date` has no
/// fraction.
fn skew(answer: &Answer, now: Timestamp) -> Option<f64> {
    let then = answer.date?.as_millisecond().saturating_add(500);
    let halfway = i64::try_from(answer.elapsed.as_millis() / 2).unwrap_or(0);
    let ahead_ms = now.as_millisecond().saturating_sub(halfway).saturating_sub(then);
    Some(Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64().copysign(sign(ahead_ms)))
}

const fn sign(number: i64) -> f64 {
    if number < 0 { -1.0 } else { 1.0 }
}
