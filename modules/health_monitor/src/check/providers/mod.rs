//! Providers and their models: whether they answer, take the key, and list what is to be asked.
//!
//! Providers on hardware of one's own are asked at every run. Those that are paid for are asked
//! seldom while they are well, and at every run from a probe that failed until it is decided
//! whether they are down. All are asked at once, and one that is slow delays no other: a run takes
//! what has come, and leaves the rest to the next one.

mod judge;
mod models;
mod options;
mod probe;
mod target;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use module_http_client::{Client, Policy};
use module_sdk::{Host, Provider, human, jiff::Timestamp};
use tokio::{runtime::Handle, task::JoinHandle, time};

pub use options::{ExtraProvider, ProviderOptions};

use self::{
    judge::Verdict,
    models::{Asked, Models},
    options::ProvidersError,
    probe::Probe,
};
use super::{
    Check, Progress,
    clock::Observations,
    outcomes::{Failure, Outcomes},
};
use crate::{
    metric::{CERTIFICATE_EXPIRY, KEY_REFUSED, MODELS_UP},
    reading::{Component, Found, Report, Series},
    text,
};

/// Providers that are watched at most.
const PROVIDERS: usize = 50;
/// Time for which a run waits for probes, at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two runs that have nobody to ask.
const UNCONFIGURED: Duration = Duration::from_secs(3_600);
/// Age of a comparison of clocks from which on it says nothing any more.
const LATEST_SKEW: Duration = Duration::from_secs(300);

/// The check.
pub(super) struct Providers {
    host: Host,
    schedule: Schedule,
    clock: Arc<Observations>,
    known: Result<Vec<Known>, ProvidersError>,
    all: Component,
    models: Component,
    models_up: Arc<Series>,
}

/// Times of the probes.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    /// Time between two runs.
    interval: Duration,
    /// Time between two probes of a provider that is paid for and well.
    remote_interval: Duration,
    /// Time within which a probe has to be answered.
    deadline: Duration,
}

/// A provider with what is known of it.
struct Known {
    provider: Arc<Provider>,
    client: Client,
    component: Component,
    outcomes: Outcomes,
    models: Models,
    begun: Option<Instant>,
    flight: Option<JoinHandle<Probe>>,
    key: Key,
    expires_at: Option<Timestamp>,
    skew: Option<(Instant, f64)>,
    refused: Arc<Series>,
    expiry: Arc<Series>,
}

/// Key of a provider, as its last answer shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Taken, or not asked for.
    Taken,
    /// Refused.
    Refused,
    /// Asked for, and there is none.
    Missing,
}

impl Providers {
    pub(super) fn new(
        options: &ProviderOptions,
        interval: Duration,
        host: &Host,
        clock: &Arc<Observations>,
    ) -> Self {
        let models: Component = "models".into();
        Self {
            host: host.clone(),
            schedule: Schedule {
                interval,
                remote_interval: Duration::from_millis(options.remote_interval_ms),
                deadline: Duration::from_millis(options.check.deadline_ms),
            },
            clock: clock.clone(),
            known: known(options, host),
            all: "providers".into(),
            models_up: Series::new(&MODELS_UP, &models, []),
            models,
        }
    }
}

/// Returns the providers of the configuration and those of the check's own settings.
fn known(options: &ProviderOptions, host: &Host) -> Result<Vec<Known>, ProvidersError> {
    let told = host.providers().map_err(ProvidersError::Told)?;
    let own = options.extra.iter().map(|(id, extra)| extra.provider(id));
    let mut all: BTreeMap<String, Provider> =
        told.into_iter().map(|provider| (provider.id.clone(), provider)).collect();
    all.extend(own.map(|provider| (provider.id.clone(), provider)));
    let trusted = options.trusted()?;
    let client = |local| Client::new(Policy { local, trusted: trusted.clone() });
    let (local, remote) = (client(true), client(false));
    let all = all.into_values().take(PROVIDERS);
    Ok(all
        .map(|provider| {
            // What the operator wrote down is what they mean; a name must not lead there.
            let is_near = provider.local || target::is_near(&provider.base_url);
            let client = if is_near { &local } else { &remote };
            Known::new(provider, client)
        })
        .collect())
}

impl Check for Providers {
    fn run(&mut self, progress: &Progress) -> Report {
        let mut report = Report::default();
        let known = match &mut self.known {
            Ok(known) if known.is_empty() => {
                let message = "no provider is configured (`providers:` in modules.yaml)";
                report.found.push(Found::absent(&self.all, message));
                return report;
            }
            Ok(known) => known,
            Err(error) => {
                let message = text::visible(&error.to_string());
                report.found.push(Found::unknown(&self.all, message));
                return report;
            }
        };
        let runtime = match self.host.runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                let message = format!("no provider can be asked: {error}");
                report.found.push(Found::unknown(&self.all, message));
                return report;
            }
        };
        let now = Instant::now();
        for known in known.iter_mut().filter(|known| known.is_due(now, self.schedule)) {
            known.begin(now, &runtime, &self.host, self.schedule.deadline);
        }
        let until = now + PATIENCE.min(self.schedule.interval);
        runtime.block_on(collect(known, until, progress));

        let (mut up, mut watched) = (0, 0);
        for known in known.iter_mut() {
            let (can_be_asked, of) = known.report(self.host.now(), &mut report);
            (up, watched) = (up + can_be_asked, watched + of);
        }
        // Several providers may have one model, which is one component.
        let mut found = BTreeMap::new();
        for one in report.found.drain(..) {
            let first = found.entry(one.component.clone()).or_insert_with(|| one.clone());
            // What is said of it at one provider is more than nothing at another.
            if first.message.is_empty() {
                *first = one;
            }
        }
        report.found.extend(found.into_values());
        if watched > 0 {
            let message = format!("{up} of {watched} can be asked");
            report.found.push(Found::present(&self.models, &self.models_up).saying(message));
            report.read(&self.models_up, f64::from(up));
        }
        let is_recent = |at: Instant| now.saturating_duration_since(at) < LATEST_SKEW;
        let skews = known.iter().filter_map(|known| known.skew);
        self.clock.ahead_of(skews.filter(|(at, _)| is_recent(*at)).map(|(_, skew)| skew).collect());
        report
    }

    fn idle(&self) -> Duration {
        // What is configured is the same until the next start.
        if self.known.as_ref().is_ok_and(|known| !known.is_empty()) {
            Duration::ZERO
        } else {
            UNCONFIGURED
        }
    }
}

/// Takes the probes that end until a time, or until the check is to end.
async fn collect(all: &mut [Known], until: Instant, progress: &Progress) {
    for known in all {
        let Some(flight) = &mut known.flight else { continue };
        let probe = tokio::select! {
            probe = time::timeout_at(until.into(), flight) => probe,
            () = progress.over() => return,
        };
        let Ok(probe) = probe else { continue };
        known.flight = None;
        known.take(probe.unwrap_or_else(|error| Probe::failed(&error)));
    }
}

impl Known {
    fn new(provider: Provider, client: &Client) -> Self {
        let shown: Arc<str> = text::visible(&provider.id).into();
        let component: Component = format!("provider.{shown}").into();
        Self {
            client: client.clone(),
            outcomes: Outcomes::new(&component),
            models: Models::new(&provider, &shown),
            begun: None,
            flight: None,
            key: Key::Taken,
            expires_at: None,
            skew: None,
            refused: Series::new(&KEY_REFUSED, &component, [&shown]),
            expiry: Series::new(&CERTIFICATE_EXPIRY, &component, [&component]),
            provider: Arc::new(provider),
            component,
        }
    }

    fn is_due(&self, now: Instant, schedule: Schedule) -> bool {
        let waited = self.begun.map(|begun| now.saturating_duration_since(begun));
        // A run may come a little early.
        let is_time = |waited| waited + schedule.interval / 2 >= schedule.remote_interval;
        self.flight.is_none()
            && (self.provider.local || !self.outcomes.is_settled() || waited.is_none_or(is_time))
    }

    fn begin(&mut self, now: Instant, runtime: &Handle, host: &Host, deadline: Duration) {
        let probe =
            probe::probe(self.client.clone(), self.provider.clone(), host.clone(), deadline);
        (self.begun, self.flight) = (Some(now), Some(runtime.spawn(probe)));
    }

    fn take(&mut self, probe: Probe) {
        self.expires_at = probe.expires_at.or(self.expires_at);
        if let Some(skew) = probe.skew.filter(|_| !self.provider.local) {
            self.skew = Some((Instant::now(), skew));
        }
        let outcome = probe.outcome.map(|(elapsed, verdict)| {
            self.key = match &verdict {
                Verdict::Lists(_) | Verdict::IsBusy => Key::Taken,
                Verdict::RefusesKey => Key::Refused,
                Verdict::WantsKey => Key::Missing,
            };
            if let Verdict::Lists(names) = &verdict {
                self.models.list(names);
                self.models.load(&probe.loaded);
            }
            elapsed.as_secs_f64()
        });
        self.outcomes.take(outcome);
    }

    /// Adds the provider and its models; returns how many of these can be asked, and of how many
    /// that is known.
    fn report(&mut self, now: Timestamp, report: &mut Report) -> (u32, u32) {
        let asked = match (self.outcomes.is_up(), self.key) {
            (None, _) => Asked::Undecided,
            (Some(false), _) => Asked::Down,
            (Some(true), Key::Taken) => Asked::Up,
            (Some(true), Key::Refused) => Asked::Refused,
            (Some(true), Key::Missing) => Asked::NoKey,
        };
        let message = self.outcomes.message().unwrap_or_else(|| self.message(asked));
        report.found.push(match asked {
            Asked::Undecided => Found::unknown(&self.component, message),
            _ => Found::present(&self.component, self.outcomes.headline()).saying(message),
        });
        self.outcomes.report(report);
        if matches!(asked, Asked::Up | Asked::Refused) && self.provider.key.is_some() {
            report.read(&self.refused, f64::from(u8::from(asked == Asked::Refused)));
        }
        if let Some(expires_at) = self.expires_at {
            report.read(&self.expiry, expires_at.duration_since(now).as_secs_f64());
        }
        self.models.report(asked, report)
    }

    fn message(&self, asked: Asked) -> String {
        match asked {
            Asked::Undecided => "no answer yet".to_owned(),
            Asked::Refused => "it refuses the key".to_owned(),
            Asked::NoKey => "it answers, and tells more only with a key".to_owned(),
            Asked::Up | Asked::Down if self.models.left_out() > 0 => {
                format!("{} of its models are not watched", human::count(self.left_out()))
            }
            Asked::Up | Asked::Down => String::new(),
        }
    }

    fn left_out(&self) -> i128 {
        i128::try_from(self.models.left_out()).unwrap_or(i128::MAX)
    }
}

impl From<&tokio::task::JoinError> for Failure {
    fn from(_: &tokio::task::JoinError) -> Self {
        Self::new("internal", "the probe did not end; the log has more")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn who_is_paid_is_asked_seldom_while_it_is_well() {
        let seconds = Duration::from_secs;
        let schedule =
            Schedule { interval: seconds(5), remote_interval: seconds(30), deadline: seconds(5) };
        let start = Instant::now();
        let known = |local: bool, outcomes: &str| {
            let provider = json!({"api": "openai", "base_url": "http://a", "local": local});
            let client = Client::new(Policy::default());
            let mut known = Known::new(from_value(provider).expect("a provider"), &client);
            for outcome in outcomes.chars() {
                let failure = Failure::new("connect", "connection refused");
                known.outcomes.take(if outcome == '+' { Ok(0.1) } else { Err(failure) });
                known.begun = Some(start);
            }
            known
        };
        let check = |local: bool, outcomes: &str, after: u64, is_due: bool| {
            let known = known(local, outcomes);
            assert_eq!(known.is_due(start + seconds(after), schedule), is_due, "{outcomes}");
        };
        check(false, "", 0, true);
        check(false, "+", 5, false);
        check(false, "+", 26, false);
        check(false, "+", 29, true);
        check(false, "+-", 5, true);
        check(false, "+--", 5, true);
        check(false, "+---", 5, false);
        check(false, "----+", 5, true);
        check(false, "----++", 5, false);
        check(true, "+", 5, true);
        check(true, "+---", 5, true);
    }
}
