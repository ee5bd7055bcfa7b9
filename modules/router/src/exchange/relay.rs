//! A stream on its way to the client: whole events, a sign of life where it is silent, and an error
//! where it breaks off.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use module_sdk::events::RequestStatus;
use tokio::time::timeout;

use super::{Answered, Plan, caching, failure::Failed, sending::answer_context};
use crate::{
    app::App,
    cache,
    config::seconds,
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
        observe::{Observer, Role},
        sse::{Event, Splitter},
        translate::{StreamTranslator, TranslateError},
    },
    report::{Outcome, Recorder},
    target::{Slot, TargetName},
    upstream::{Pieces, UpstreamError},
};

/// Time for which the end of an answer is waited for that says it is whole.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Translation of the events of a provider into those of the client.
pub(super) enum Translation {
    /// They are the same.
    None,
    /// They are the same, but for the usage that the client did not ask for.
    WithoutUsage,
    /// They are of another dialect.
    Other(Box<StreamTranslator>),
}

impl Translation {
    pub(super) fn new(
        upstream: Dialect,
        plan: &Plan,
        strips_usage: bool,
        model: &str,
    ) -> Result<Self, TranslateError> {
        if upstream != plan.dialect {
            let context = answer_context(plan, model);
            let translator = StreamTranslator::new(upstream, plan.dialect, &context)?;
            return Ok(Self::Other(Box::new(translator)));
        }
        Ok(if strips_usage { Self::WithoutUsage } else { Self::None })
    }

    /// Appends what the client gets of an event.
    pub(super) fn event(
        &mut self,
        raw: &[u8],
        event: &Event<'_>,
        role: Role,
        out: &mut Vec<u8>,
    ) -> Result<(), TranslateError> {
        match self {
            Self::None => out.extend_from_slice(raw),
            Self::WithoutUsage if role == Role::Usage => {}
            Self::WithoutUsage => out.extend_from_slice(raw),
            Self::Other(translator) => {
                if role != Role::Failure {
                    translator.push(event.name, &event.data, out)?;
                }
            }
        }
        Ok(())
    }
}

/// A stream that has begun.
pub(crate) struct Relay {
    app: Arc<App>,
    /// Copy of what the client gets, for the cache.
    copy: Option<cache::Recorder>,
    /// Cost of an answer that came whole.
    cost: Option<Option<i64>>,
    plan: Arc<Plan>,
    pieces: Pieces,
    splitter: Splitter,
    observer: Observer,
    translation: Translation,
    held: Bytes,
    /// Report and place, until the end is known.
    open: Option<(Recorder, Slot)>,
    target: TargetName,
    is_over: bool,
}

impl Relay {
    #[expect(clippy::too_many_arguments, reason = "it takes over the state of an attempt")]
    pub(super) fn new(
        app: Arc<App>,
        plan: Arc<Plan>,
        pieces: Pieces,
        splitter: Splitter,
        observer: Observer,
        translation: Translation,
        held: Bytes,
        recorder: Recorder,
        slot: Slot,
        target: TargetName,
    ) -> Self {
        let open = Some((recorder, slot));
        let leader = plan.leader.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = leader.as_ref().map(cache::Leader::recorder);
        drop(leader);
        Self {
            app,
            copy,
            cost: None,
            plan,
            pieces,
            splitter,
            observer,
            translation,
            held,
            open,
            target,
            is_over: false,
        }
    }

    /// Returns the target that answers, `provider/model`.
    pub(crate) fn target(&self) -> &TargetName {
        &self.target
    }

    /// Returns the next part for the client; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let part = self.produce().await;
        if let (Some(part), Some(copy)) = (&part, &mut self.copy) {
            copy.push(part);
        }
        if self.is_over
            && let Some(cost) = self.cost.take()
            && let Some(copy) = self.copy.take()
        {
            let found = &self.observer.found;
            match copy.finish() {
                Some(body) => {
                    let form = cache::Form::Stream;
                    let target = &self.target;
                    caching::keep(&self.app, &self.plan, target, form, body, found, cost);
                }
                None => caching::decline(&self.plan, cache::NotStored::TooLarge),
            }
        }
        part
    }

    async fn produce(&mut self) -> Option<Bytes> {
        if !self.held.is_empty() {
            return Some(std::mem::take(&mut self.held));
        }
        if self.is_over {
            return None;
        }
        loop {
            let is_whole = self.observer.found.is_ended;
            let patience = if is_whole { AFTERWARDS } else { silence(&self.app) };
            let next = match timeout(patience, self.pieces.next()).await {
                Ok(next) => next,
                Err(_) if is_whole => Ok(None),
                Err(_) => {
                    // An answer with gaps in it is not to be given again.
                    self.copy = None;
                    return Some(sign_of_life(&self.plan));
                }
            };
            match next {
                Ok(Some(piece)) => match self.take(&piece) {
                    Ok(out) if out.is_empty() => {}
                    Ok(out) => return Some(out),
                    Err(word) => return self.fail(RequestStatus::Error, word, "damaged"),
                },
                Ok(None) => return self.end(),
                Err(error) => return self.lost(&error),
            }
        }
    }

    fn take(&mut self, piece: &Bytes) -> Result<Bytes, &'static str> {
        if let Some((recorder, _)) = &mut self.open {
            recorder.received(piece.len());
        }
        let whole = self.splitter.push(piece).map_err(|_| "too_large")?;
        self.keep()?;
        self.events(&whole)
    }

    /// Takes the memory for what is kept of the stream.
    fn keep(&mut self) -> Result<(), &'static str> {
        let copied = self.copy.as_ref().map_or(0, cache::Recorder::held);
        let held = self.splitter.held();
        if self.pieces.keep(held + copied).is_ok() {
            return Ok(());
        }
        // The answer goes before its copy.
        self.copy = None;
        self.pieces.keep(held).map_err(|error| error.word())
    }

    fn events(&mut self, whole: &Bytes) -> Result<Bytes, &'static str> {
        let is_json_lines = self.splitter.is_json_lines();
        let mut out = Vec::new();
        let is_same = matches!(self.translation, Translation::None);
        for (at, event) in Splitter::events(is_json_lines, whole) {
            let role = self.observer.event(&event);
            if role == Role::Damaged {
                return Err("bad_event");
            }
            if !is_same {
                let written = self.translation.event(&whole[at], &event, role, &mut out);
                written.map_err(|_| "bad_event")?;
            }
        }
        Ok(if is_same { whole.clone() } else { out.into() })
    }

    /// Ends the stream where the provider's has.
    fn end(&mut self) -> Option<Bytes> {
        let rest = self.splitter.finish();
        let out = self.events(&rest);
        self.observer.ended();
        let found = &self.observer.found;
        if found.has_failed {
            let is_told = !matches!(self.translation, Translation::Other(_));
            if is_told {
                self.report(RequestStatus::Error, "error_in_stream");
                self.is_over = true;
                return out.ok().filter(|out| !out.is_empty());
            }
            return self.fail(RequestStatus::Error, "error_in_stream", "reported an error in");
        }
        if !found.is_whole {
            // Half an event would be taken for a whole one.
            return self.fail(RequestStatus::UpstreamCut, "cut", "broke off in the middle of");
        }
        self.report(RequestStatus::Ok, "");
        self.is_over = true;
        let mut out = out.map(Vec::from).unwrap_or_default();
        if let Translation::Other(translator) = &mut self.translation {
            translator.finish(&mut out);
        }
        (!out.is_empty()).then(|| out.into())
    }

    fn lost(&mut self, error: &UpstreamError) -> Option<Bytes> {
        if self.observer.found.is_whole {
            return self.end();
        }
        let (status, words) = if error.is_timeout() {
            (RequestStatus::Timeout, "fell silent in the middle of")
        } else {
            (RequestStatus::UpstreamCut, "broke off in the middle of")
        };
        self.fail(status, error.word(), words)
    }

    /// Ends the stream with an error: it must not look whole.
    fn fail(
        &mut self,
        status: RequestStatus,
        error_type: &'static str,
        words: &str,
    ) -> Option<Bytes> {
        self.report(status, error_type);
        self.is_over = true;
        let message = format!("{} {words} its answer; what came before is not whole", self.target);
        if let Translation::Other(translator) = &mut self.translation {
            let mut out = Vec::new();
            translator.fail(&message, &mut out);
            return Some(out.into());
        }
        let fault = Fault::new(FaultKind::Upstream, message);
        Some(fault.event(self.plan.dialect, &self.plan.id).into())
    }

    fn report(&mut self, status: RequestStatus, error_type: &str) {
        let Some((recorder, mut slot)) = self.open.take() else { return };
        if status == RequestStatus::Ok {
            self.app.labels.answered(&self.plan.id, slot.target().is_local());
            let (latency, ttft) = recorder.times_ms();
            if slot.succeed(latency, ttft) {
                self.app.target_changed(slot.target());
            }
        } else if status != RequestStatus::ClientAbort && slot.fail() {
            self.app.target_changed(slot.target());
        }
        let cost = recorder.finish(Outcome { status, error_type }, &self.observer.found);
        if status == RequestStatus::Ok {
            self.cost = Some(cost);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.observer.found.has_failed {
            self.report(RequestStatus::Error, "error_in_stream");
            return;
        }
        // A client that goes after the last event has all of it.
        if self.observer.found.is_whole {
            self.report(RequestStatus::Ok, "");
        } else {
            self.report(RequestStatus::ClientAbort, "client_abort");
        }
    }
}

/// Returns what a client ignores, and by which it knows that the connection lives.
fn sign_of_life(plan: &Plan) -> Bytes {
    if plan.dialect.is_json_lines() {
        // Its clients read every line as a part of the answer: so it is one without text.
        let mut part = serde_json::json!({
            "model": plan.model,
            "created_at": "1970-01-01T00:00:00Z",
            "done": false,
        });
        if plan.dialect == Dialect::OllamaGenerate {
            part["response"] = "".into();
        } else {
            part["message"] = serde_json::json!({"role": "assistant", "content": ""});
        }
        return format!("{part}\n").into();
    }
    Bytes::from_static(match plan.dialect {
        Dialect::Messages => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
        _ => b": waiting\n\n",
    })
}

/// Returns the silence after which the client gets a sign of life.
pub(super) fn silence(app: &App) -> Duration {
    seconds(app.config.timeouts.silence_seconds)
}

/// Returns the body of a stream.
pub(super) fn body(relay: Box<Relay>) -> Body {
    let parts = stream::unfold(relay, |mut relay| async move {
        let part = relay.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Frame::data(part)), relay))
    });
    Body::new(StreamBody::new(parts))
}

type Work = Pin<Box<dyn Future<Output = Result<Answered, Failed>> + Send>>;

enum Waiting {
    ForAnswer(Work),
    Relaying(Box<Relay>),
    Ended,
}

/// Returns the body of an answer of which nothing is there yet.
pub(super) fn waiting(work: Work, plan: Arc<Plan>, silence: Duration) -> Body {
    let parts = stream::unfold((Waiting::ForAnswer(work), false), move |(state, was_told)| {
        let plan = plan.clone();
        async move {
            let (part, state) = wait(state, was_told, &plan, silence).await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(part)), (state, true)))
        }
    });
    Body::new(StreamBody::new(parts))
}

async fn wait(
    state: Waiting,
    was_told: bool,
    plan: &Plan,
    silence: Duration,
) -> Option<(Bytes, Waiting)> {
    match state {
        Waiting::ForAnswer(mut work) => {
            // The first sign of life goes out with the head.
            let patience = if was_told { silence } else { Duration::ZERO };
            match timeout(patience, &mut work).await {
                Err(_) => Some((sign_of_life(plan), Waiting::ForAnswer(work))),
                Ok(Ok(Answered::Stream { mut relay, .. })) => {
                    let part = relay.next().await?;
                    Some((part, Waiting::Relaying(relay)))
                }
                Ok(Ok(Answered::Whole { body, .. } | Answered::Replayed { body, .. })) => {
                    Some((body, Waiting::Ended))
                }
                Ok(Err(failed)) => {
                    let event = failed.fault.event(plan.dialect, &plan.id);
                    Some((event.into(), Waiting::Ended))
                }
            }
        }
        Waiting::Relaying(mut relay) => {
            let part = relay.next().await?;
            Some((part, Waiting::Relaying(relay)))
        }
        Waiting::Ended => None,
    }
}
