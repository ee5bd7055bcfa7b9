//! The router: whether it answers over HTTP.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use module_http_client::{Client, ClientError, Policy, Request};
use module_sdk::Host;

use super::{
    Check, CheckOptions, Progress,
    outcomes::{Failure, Outcomes},
    status,
};
use crate::{
    reading::{Component, Found, Report},
    text,
};

/// Settings of the check of the router.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouterOptions {
    /// Settings that every check has; a probe has to be answered within its deadline.
    #[serde(flatten)]
    pub check: CheckOptions,
    /// URL that is asked: `http://127.0.0.1:8080/healthz`. Default: `/healthz` at the listener
    /// `http` of the module `router`.
    pub url: Option<String>,
}

/// Name of the module, and of its listener.
const ROUTER: &str = "router";
const LISTENER: &str = "http";

pub(super) struct Router {
    host: Host,
    client: Client,
    url: Option<String>,
    deadline: Duration,
    component: Component,
    outcomes: Outcomes,
    /// Time at which the daemon said that there is to be no router.
    absent_since: Option<Instant>,
}

/// Time after which the daemon is asked again for a router that was not there: its answer costs
/// more than all else that is looked at meanwhile.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Thing that is probed.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// A URL.
    Url(String),
    /// Nothing: there is to be no router.
    Absent,
    /// A router that does not run.
    Stopped(String),
}

impl Router {
    pub(super) fn new(options: &RouterOptions, host: &Host) -> Self {
        let component: Component = "router".into();
        Self {
            host: host.clone(),
            client: Client::new(Policy { local: true, ..Policy::default() }),
            url: options.url.clone(),
            deadline: Duration::from_millis(options.check.deadline_ms),
            outcomes: Outcomes::new(&component),
            component,
            absent_since: None,
        }
    }

    fn target(&mut self) -> Target {
        if let Some(url) = &self.url {
            return Target::Url(url.clone());
        }
        if self.absent_since.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return Target::Absent;
        }
        let target = match status::ask_briefly(&self.host, self.deadline) {
            Ok(status) => status.wanted(ROUTER).map_or(Target::Absent, of_module),
            // The daemon's own state is another check's matter.
            Err(_) => return Target::Absent,
        };
        self.absent_since = matches!(target, Target::Absent).then(Instant::now);
        target
    }

    fn probe(&self, url: String, progress: &Progress) -> Option<Result<f64, Failure>> {
        let runtime = match self.host.runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Some(Err(Failure::new("internal", error.to_string()))),
        };
        let mut request = Request::get(url);
        request.deadline = self.deadline;
        let answer = runtime.block_on(async {
            tokio::select! {
                answer = self.client.send(request) => Some(answer),
                () = progress.over() => None,
            }
        });
        answer.map(|answer| match answer {
            Ok(answer) if answer.status.is_server_error() => {
                Err(Failure::new("status", format!("HTTP {}", answer.status.as_u16())))
            }
            Ok(answer) => Ok(answer.elapsed.as_secs_f64()),
            // It answers, and there is no more to know.
            Err(ClientError::TooLarge(_)) => Ok(self.deadline.as_secs_f64()),
            Err(error) => Err(error.into()),
        })
    }
}

impl Check for Router {
    fn run(&mut self, progress: &Progress) -> Report {
        let mut report = Report::default();
        let outcome = match self.target() {
            Target::Absent => {
                self.outcomes = Outcomes::new(&self.component);
                report.found.push(Found::absent(&self.component, "no router is configured"));
                return report;
            }
            Target::Stopped(message) => Some(Err(Failure::new("stopped", message))),
            Target::Url(url) => self.probe(url, progress),
        };
        if let Some(outcome) = outcome {
            self.outcomes.take(outcome);
        }
        let message = self.outcomes.message().unwrap_or_default();
        report.found.push(match self.outcomes.is_up() {
            None => Found::unknown(&self.component, message),
            Some(_) => Found::present(&self.component, self.outcomes.headline()).saying(message),
        });
        self.outcomes.report(&mut report);
        report
    }

    fn idle(&self) -> Duration {
        self.absent_since.map_or(Duration::ZERO, |asked| ASK_AGAIN.saturating_sub(asked.elapsed()))
    }
}

fn of_module(module: &status::Module) -> Target {
    if !module.runs() {
        let reason = module.reason.as_deref().map(text::visible);
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        return Target::Stopped(format!("the module router is {}{reason}", module.state));
    }
    let listener = module.listeners.iter().find(|listener| listener.name == LISTENER);
    let address = listener.and_then(|listener| listener.address.as_deref());
    match address.and_then(|address| address.parse::<SocketAddr>().ok()) {
        Some(mut address) => {
            // What listens everywhere listens here.
            if address.ip().is_unspecified() {
                address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
            Target::Url(format!("http://{address}/healthz"))
        }
        None => Target::Stopped("the module router does not listen".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_is_probed_follows_from_the_daemons_status() {
        let check = |module: serde_json::Value, expected: Target| {
            let module = from_value(module).expect("a module");
            assert_eq!(of_module(&module), expected);
        };
        let running = |address: &str| {
            let listener = json!({"name": "http", "address": address});
            json!({"state": "running", "listeners": [listener]})
        };
        let url = |url: &str| Target::Url(url.to_owned());
        check(running("127.0.0.1:8080"), url("http://127.0.0.1:8080/healthz"));
        check(running("0.0.0.0:8080"), url("http://127.0.0.1:8080/healthz"));
        check(running("[::1]:8080"), url("http://[::1]:8080/healthz"));
        let stopped = |message: &str| Target::Stopped(message.to_owned());
        let failed = json!({"state": "quarantined", "reason": "it panicked\u{1b}[0m"});
        check(failed, stopped("the module router is quarantined: it panicked\\u{1b}[0m"));
        check(json!({"state": "running"}), stopped("the module router does not listen"));
    }
}
