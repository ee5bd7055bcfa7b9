//! Record of the requests to an upstream, and of its answers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::Value;

use super::{
    answer::{Answer, Fault, Usage, UsagePlace},
    dialect::{Asked, Dialect},
    render::Rendered,
};

/// A request, and what was answered.
#[derive(Debug, Clone, Serialize)]
pub struct Exchange {
    /// Number of the connection, from 0.
    pub connection: u64,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, empty for none.
    pub query: String,
    /// Headers in the order of arrival, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(skip)]
    pub body: Bytes,
    /// The dialect, where the path belongs to one.
    pub dialect: Option<Dialect>,
    /// The model that was asked for.
    pub model: String,
    /// `true` where a stream was asked for.
    pub stream: bool,
    /// Status of the answer; `None` while there is none.
    pub status: Option<u16>,
    /// Id in the answer, where there is one.
    pub response_id: Option<String>,
    /// Id in the header of the answer.
    pub request_id: String,
    /// Counts in the answer, if it is whole.
    pub usage: Option<Usage>,
    /// Number of events that were sent.
    pub events: usize,
    /// Number of bytes of the body that were sent.
    pub bytes: usize,
    /// Outcome of the exchange.
    pub outcome: Outcome,
}

impl Exchange {
    /// Returns a header of the request.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Parses the body as JSON; `null` where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Outcome of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer is under way.
    Pending,
    /// The whole answer was sent.
    Whole,
    /// An error, or a part of the answer, was sent, as the script wants it.
    Faulted,
    /// The client went before the end.
    Abandoned,
}

type Decide = dyn Fn(&Exchange) -> Option<Answer> + Send + Sync;

/// The script and the record.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Beginning of all ids.
    salt: Mutex<String>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) usual: Answer,
    pub(super) next: VecDeque<Answer>,
    pub(super) by_model: HashMap<String, Answer>,
    pub(super) by_path: HashMap<String, Answer>,
    pub(super) decide: Option<Arc<Decide>>,
    pub(super) models: Vec<String>,
    /// `true` where other models are unknown.
    pub(super) only: bool,
    pub(super) exchanges: Vec<Exchange>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn salted(&self, salt: String) {
        *self.salt.lock().unwrap_or_else(PoisonError::into_inner) = salt;
    }

    /// Records a request, and returns the id of its answer.
    pub(super) fn begun(
        self: &Arc<Self>,
        connection: u64,
        head: &Parts,
        body: Bytes,
        asked: Option<&Asked>,
    ) -> (Progress, String) {
        let headers = head.headers.iter().map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let salt = self.salt.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut state = self.state();
        let index = state.exchanges.len();
        let id = format!("{salt}_{index}");
        state.exchanges.push(Exchange {
            connection,
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: headers.collect(),
            body,
            dialect: asked.map(|asked| asked.dialect),
            model: asked.map(|asked| asked.model.clone()).unwrap_or_default(),
            stream: asked.is_some_and(|asked| asked.stream),
            status: None,
            response_id: None,
            request_id: format!("req_{id}"),
            usage: None,
            events: 0,
            bytes: 0,
            outcome: Outcome::Pending,
        });
        drop(state);
        self.changed.notify_all();
        (Progress { shared: self.clone(), index }, id)
    }

    /// Returns the answer to a request, and the models that there are.
    pub(super) fn answer(&self, asked: &Asked, index: usize) -> (Answer, Vec<String>) {
        let mut state = self.state();
        let models = state.models.clone();
        let exchange = state.exchanges[index].clone();
        if let Some(answer) = state.by_path.get(&exchange.path) {
            return (answer.clone(), models);
        }
        if state.only && !asked.model.is_empty() && !models.contains(&asked.model) {
            return (Answer::status(404), models);
        }
        if exchange.method != "POST" || asked.dialect == Dialect::OllamaShow {
            return (Answer::default(), models);
        }
        let decide = state.decide.clone();
        let scripted = state.next.pop_front().or_else(|| state.by_model.get(&asked.model).cloned());
        let usual = state.usual.clone();
        drop(state);
        let decided = || decide.and_then(|decide| decide(&exchange));
        (scripted.or_else(decided).unwrap_or(usual), models)
    }

    /// Waits until `found` finds something in the record; `None` after a time.
    pub(super) fn wait<T>(
        &self,
        patience: Duration,
        mut found: impl FnMut(&[Exchange]) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + patience;
        let mut state = self.state();
        loop {
            if let Some(found) = found(&state.exchanges) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The exchange that is under way. Where it is dropped before its end, the client went.
pub(super) struct Progress {
    shared: Arc<Shared>,
    index: usize,
}

impl Progress {
    pub(super) const fn index(&self) -> usize {
        self.index
    }

    pub(super) fn answered(&self, rendered: &Rendered, answer: &Answer, asked: &Asked) {
        self.change(|exchange| {
            exchange.status = Some(rendered.status);
            exchange.response_id.clone_from(&rendered.id);
            let refused = !matches!(
                answer.fault,
                None | Some(
                    Fault::HangAfter { .. } | Fault::CutAfter { .. } | Fault::ErrorAfter { .. }
                )
            );
            let missing = match answer.usage_place {
                UsagePlace::Missing => true,
                UsagePlace::Usual => {
                    let chunks = matches!(asked.dialect, Dialect::Chat | Dialect::Completions);
                    asked.stream && chunks && !asked.include_usage
                }
                _ => false,
            };
            exchange.usage = Some(answer.usage).filter(|_| !refused && !missing);
        });
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.change(|exchange| {
            exchange.events += 1;
            exchange.bytes += bytes;
        });
    }

    pub(super) fn finished(&self, outcome: Outcome) {
        self.change(|exchange| exchange.outcome = outcome);
    }

    fn change(&self, change: impl FnOnce(&mut Exchange)) {
        let mut state = self.shared.state();
        // The record may have been cleared.
        if let Some(exchange) = state.exchanges.get_mut(self.index) {
            change(exchange);
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.change(|exchange| {
            if exchange.outcome == Outcome::Pending {
                exchange.outcome = Outcome::Abandoned;
            }
        });
    }
}
