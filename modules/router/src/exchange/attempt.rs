//! One attempt: a request to one target, until it is clear that it answers.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use module_sdk::events::RequestStatus;
use tokio::time::Instant;

use super::{
    Answered, Plan,
    failure::{Failed, FailureClass},
    head,
    relay::{Relay, Translation},
    sending::{headers_for, is_anthropic, names_context, passed_query, retry_after, spoken},
    whole::begins_object,
};
use crate::{
    app::{App, COME_AGAIN},
    config::seconds,
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
        inspect::inspect,
        observe::{Observed, Observer, Role},
        rewrite::{rewrite, without},
        sse::Splitter,
        translate::{self, Dropped, RequestOptions},
    },
    report::{Outcome, Recorder},
    target::{Slot, Target, endpoint},
    upstream::{self, Answer, Times, UpstreamError},
};

/// Most that is held back before the first content, in bytes.
const LARGEST_HELD: usize = 1024 * 1024;

/// Largest body of an error that is passed on, in bytes.
pub(super) const LARGEST_ERROR: usize = 1024 * 1024;

/// Tokens of an answer where a dialect wants a limit and the client gives none.
const DEFAULT_MAX_TOKENS: u32 = 8192;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const REQUEST_IDS: [HeaderName; 2] =
    [HeaderName::from_static("request-id"), HeaderName::from_static("x-request-id")];

pub(super) const OK: Outcome<'_> = Outcome { status: RequestStatus::Ok, error_type: "" };

/// Makes an attempt.
pub(super) async fn make(
    app: &Arc<App>,
    plan: &Arc<Plan>,
    target: &Arc<Target>,
    slot: Slot,
    recorder: Recorder,
    is_stream: bool,
) -> Result<Answered, Failed> {
    // One load of a model at a time: two would push each other out of the card's memory.
    let mut loading = None;
    if target.is_cold() {
        let longest = seconds(app.config.timeouts.cold_start_seconds);
        loading = tokio::time::timeout(longest, target.provider.loading.lock()).await.ok();
        // Whoever was first has loaded it.
        loading = loading.filter(|_| target.is_cold());
    }
    let is_cold = loading.is_some();
    let upstream = spoken(plan.dialect, target);
    let sent = Sent { app, plan, target, upstream, is_stream, left_out: OnceLock::new() };
    let begun = sent.begin(slot, recorder, is_cold).await?;
    let result = if is_stream && begun.answer.status.is_success() {
        sent.stream(begun).await
    } else {
        sent.whole(begun).await
    };
    drop(loading);
    result
}

/// A request that is sent.
pub(super) struct Sent<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) plan: &'a Arc<Plan>,
    pub(super) target: &'a Arc<Target>,
    /// Dialect of the provider.
    pub(super) upstream: Dialect,
    /// `true` when a stream is asked for.
    pub(super) is_stream: bool,
    /// Parts of the request that the provider has no word for.
    left_out: OnceLock<Dropped>,
}

/// An answer of which the head is there.
pub(super) struct Begun {
    pub(super) answer: Answer,
    pub(super) slot: Slot,
    pub(super) recorder: Recorder,
    /// `true` when the usage was asked for and the client did not.
    strips_usage: bool,
}

impl Sent<'_> {
    pub(super) fn is_same(&self) -> bool {
        self.upstream == self.plan.dialect
    }

    async fn begin(
        &self,
        mut slot: Slot,
        mut recorder: Recorder,
        is_cold: bool,
    ) -> Result<Begun, Failed> {
        let (body, strips_usage) = match self.body() {
            Ok(body) => body,
            Err(fault) => {
                let outcome = Outcome { status: RequestStatus::Rejected, error_type: fault.word() };
                recorder.finish(outcome, &Observed::default());
                return Err(Failed::own(fault));
            }
        };
        let provider = &self.target.provider.provider;
        let model = &self.target.name.model;
        let mut url = endpoint::url(provider, self.upstream, model, self.is_stream);
        if self.is_same()
            && self.plan.dialect != Dialect::Gemini
            && let Some(query) = passed_query(self.plan.query.as_deref())
        {
            url.push('?');
            url.push_str(&query);
        }
        let headers = self.headers(&recorder);
        recorder.sent();
        let (times, room) = (self.times(is_cold), self.app.room());
        let sent = upstream::send(&self.app.pool, &url, headers, body, times, room).await;
        match sent {
            Ok(answer) => {
                let id = REQUEST_IDS.iter().find_map(|name| answer.headers.get(name));
                let id = id.and_then(|id| id.to_str().ok()).filter(|id| id.len() <= 128);
                recorder.answered(answer.status.as_u16(), id);
                Ok(Begun { answer, slot, recorder, strips_usage })
            }
            Err(error) => {
                self.note_failure(&mut slot, error.word());
                Err(self.lost(recorder, &error, &Observed::default()))
            }
        }
    }

    /// Returns the body that the provider gets, and whether its usage is not for the client.
    fn body(&self) -> Result<(Bytes, bool), Fault> {
        let (plan, model) = (self.plan, &*self.target.name.model);
        if self.is_same() {
            let asks_for_usage = self.is_stream
                && matches!(plan.dialect, Dialect::Chat | Dialect::Completions)
                && !plan.includes_usage;
            let as_whole = plan.is_stream && !self.is_stream;
            let is_as_asked = plan.model == model && !asks_for_usage && !as_whole;
            let body = if is_as_asked || plan.dialect == Dialect::Gemini {
                plan.body.clone()
            } else {
                rewrite(&plan.body, &plan.places, model, asks_for_usage, as_whole).into()
            };
            let body = for_target(body, plan, self.target);
            // Another provider's reasoning, written for the client before, means nothing to this
            // one, and it would refuse it.
            let own = translate::foreign::without_foreign_reasoning(plan.dialect, &body);
            let own = own.map_err(|error| Fault::new(FaultKind::InvalidRequest, error.to_string()));
            return Ok((own?.map_or(body, Bytes::from), asks_for_usage));
        }
        let options = RequestOptions {
            model,
            stream: self.is_stream,
            num_ctx: self.context(),
            default_max_tokens: DEFAULT_MAX_TOKENS,
            include_usage: true,
        };
        let translated =
            translate::request_with_report(plan.dialect, self.upstream, &plan.body, &options);
        let translated = translated.map_err(|error| {
            Fault::new(FaultKind::InvalidRequest, format!("{}: {error}", self.target.name))
        })?;
        // A request has one body for a target.
        let _ = self.left_out.set(translated.dropped);
        Ok((translated.body.into(), false))
    }

    /// Returns the context that Ollama is to give the model: as much as the request needs, in
    /// steps, since another value loads the model anew.
    fn context(&self) -> Option<u32> {
        let known = self.target.view().context_tokens.and_then(|it| u32::try_from(it).ok());
        let output = self.plan.max_tokens.unwrap_or(2048);
        let needed = u32::try_from(self.plan.estimated_tokens).unwrap_or(u32::MAX);
        let needed = needed.saturating_add(output).max(4096);
        let stepped = needed.checked_next_power_of_two().unwrap_or(u32::MAX);
        Some(known.map_or(stepped, |known| stepped.min(known)))
    }

    fn headers(&self, recorder: &Recorder) -> HeaderMap {
        let mut headers = headers_for(self.app, self.plan, self.target, self.is_same());
        if let Some((trace, span)) = self.plan.client.trace.as_ref().zip(recorder.span())
            && let Ok(value) = HeaderValue::from_str(&trace.header(span))
        {
            headers.insert(TRACEPARENT, value);
        }
        headers
    }

    fn times(&self, is_cold: bool) -> Times {
        let timeouts = &self.app.config.timeouts;
        let whole = seconds(timeouts.whole_seconds);
        let first = match (is_cold, self.is_stream) {
            (true, _) => timeouts.cold_start_seconds,
            (false, true) => timeouts.first_byte_seconds,
            // Its head comes when all of it is there.
            (false, false) => timeouts.answer_seconds,
        };
        Times {
            first_byte: seconds(first),
            idle: seconds(timeouts.idle_seconds),
            end: Instant::now() + whole,
            whole,
        }
    }

    pub(super) fn note_failure(&self, slot: &mut Slot, why: &str) {
        if slot.fail() {
            tracing::warn!(target = %self.target.name, why, "a model is left alone for a while");
            self.app.target_changed(self.target);
        }
    }

    /// Reports a request whose answer did not come.
    pub(super) fn lost(
        &self,
        recorder: Recorder,
        error: &UpstreamError,
        found: &Observed,
    ) -> Failed {
        let is_timeout = error.is_timeout();
        let status = match error {
            _ if is_timeout => RequestStatus::Timeout,
            UpstreamError::Client(_) if recorder.was_answered() => RequestStatus::UpstreamCut,
            _ => RequestStatus::Error,
        };
        recorder.finish(Outcome { status, error_type: error.word() }, found);
        let (class, kind) = match error {
            _ if is_timeout => (FailureClass::Silent, FaultKind::Timeout),
            // Another answer needs as much.
            UpstreamError::NoRoom => (FailureClass::Request, FaultKind::Unavailable),
            UpstreamError::TooLarge(_) => (FailureClass::Target, FaultKind::Upstream),
            _ => (FailureClass::Transient, FaultKind::Upstream),
        };
        let message = format!("{} cannot be asked: {error}", self.target.name);
        let mut fault = Fault::new(kind, message);
        if *error == UpstreamError::NoRoom {
            fault = fault.after(COME_AGAIN);
        }
        Failed { class, fault, passed: None }
    }

    pub(super) fn told(&self, headers: &HeaderMap) -> HeaderMap {
        let mut told = upstream::answer_headers(headers);
        head::answered_by(&mut told, self.plan, &self.target.name);
        if let Some(dropped) = self.left_out.get() {
            head::left_out(&mut told, dropped.parts());
        }
        told
    }

    /// Returns whether a refusal says that there is no such endpoint, and keeps it in mind: many
    /// that are compatible otherwise have only that of chat.
    fn lacks_endpoint(&self, code: u16, body: &[u8]) -> bool {
        let names = |words: &str| memchr::memmem::find(body, words.as_bytes()).is_some();
        let names_model = names("model") || names("not found with id");
        let lacks = match (code, self.upstream) {
            (404 | 405 | 501, Dialect::Responses) if !names_model => {
                &self.target.provider.lacks_responses
            }
            // Whether a model has them is another matter with each of a provider.
            (404 | 405 | 501, Dialect::Completions) if !names_model || names("v1/completions") => {
                &self.target.lacks_completions
            }
            _ => return false,
        };
        lacks.store(true, Ordering::Relaxed);
        true
    }

    /// Takes an answer that is an error.
    pub(super) fn refused(
        &self,
        slot: &mut Slot,
        recorder: Recorder,
        status: StatusCode,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Failed {
        let code = status.as_u16();
        let name = &self.target.name;
        let pause = retry_after(headers);
        let names_context = names_context(&body);
        let (class, kind) = match code {
            _ if self.lacks_endpoint(code, &body) => (FailureClass::Endpoint, FaultKind::NotFound),
            300..=399 => (FailureClass::Target, FaultKind::Misconfigured),
            // The client's own credentials: it has to know, and may have others.
            401..=403 if self.target.provider.takes_credentials => {
                (FailureClass::Request, FaultKind::Authentication)
            }
            401..=403 => (FailureClass::Target, FaultKind::Misconfigured),
            404 | 405 | 410 => (FailureClass::Target, FaultKind::NotFound),
            413 => (FailureClass::Target, FaultKind::TooLarge),
            400 | 422 if names_context => (FailureClass::Target, FaultKind::ContextLength),
            408 | 409 | 425 => (FailureClass::Transient, FaultKind::Upstream),
            429 => {
                let at_least = pause.unwrap_or(Duration::from_secs(1));
                // The limit of one client's account is not that of all.
                if !self.target.provider.takes_credentials {
                    slot.rate_limited(at_least);
                }
                (FailureClass::RateLimited(Some(at_least)), FaultKind::RateLimited)
            }
            400..=499 => (FailureClass::Request, FaultKind::InvalidRequest),
            503 | 529 if pause.is_some() => {
                (FailureClass::RateLimited(pause), FaultKind::Unavailable)
            }
            503 | 529 => (FailureClass::Transient, FaultKind::Unavailable),
            _ => (FailureClass::Transient, FaultKind::Upstream),
        };
        if class == FailureClass::Transient {
            self.note_failure(slot, "error");
        }
        let error_type = code.to_string();
        let outcome = Outcome { status: RequestStatus::Error, error_type: &error_type };
        recorder.finish(outcome, &Observed::default());
        let hint = match code {
            300..=399 => "; a redirect is not followed, mend its base_url",
            401 | 403 => "; check its key in `providers`",
            404 => "; it may not have this model",
            _ if body.trim_ascii_start().starts_with(b"<") => {
                " with a web page; a proxy before it may be at fault"
            }
            _ => "",
        };
        let mut fault = Fault::new(kind, format!("{name} answered {code}{hint}"));
        fault.retry_after = pause;
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        // Words about our own key are of no use to the client, and may tell of it.
        let is_theirs = !matches!(code, 300..=399 | 401 | 403)
            || (self.target.provider.takes_credentials && code >= 400);
        let passed =
            (self.is_same() && is_json && is_theirs).then(|| (status, self.told(headers), body));
        Failed { class, fault, passed }
    }

    /// Takes a stream until its first content.
    async fn stream(&self, begun: Begun) -> Result<Answered, Failed> {
        let Begun { answer, mut slot, mut recorder, strips_usage } = begun;
        let Answer { status, headers, body: mut pieces } = answer;
        let is_json_lines = self.upstream.is_json_lines();
        let mut splitter = Splitter::new(is_json_lines);
        let mut observer = Observer::new(self.upstream).of_choices(self.plan.choices);
        if recorder.wants_text() {
            observer.keep_text();
        }
        let model = &self.target.name.model;
        let translation = Translation::new(self.upstream, self.plan, strips_usage, model);
        let mut translation = match translation {
            Ok(translation) => translation,
            Err(error) => {
                let message = format!("{}: {error}", self.target.name);
                let fault = Fault::new(FaultKind::InvalidRequest, message);
                let outcome = Outcome { status: RequestStatus::Rejected, error_type: fault.word() };
                recorder.finish(outcome, &observer.found);
                return Err(Failed::own(fault));
            }
        };
        let (mut held, mut is_first) = (Vec::new(), true);
        let why = loop {
            let piece = match pieces.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    let rest = splitter.finish();
                    let ended =
                        take(&rest, is_json_lines, &mut observer, &mut translation, &mut held);
                    observer.ended();
                    if ended.is_ok() && observer.found.is_whole {
                        break None;
                    }
                    break Some("cut");
                }
                Err(error) => {
                    if error != UpstreamError::NoRoom {
                        self.note_failure(&mut slot, error.word());
                    }
                    return Err(self.lost(recorder, &error, &observer.found));
                }
            };
            if !is_json_lines && is_first && begins_object(&piece) {
                // It answers as if no stream had been asked for.
                let (body, room) = match pieces.whole(Some(piece), usize::MAX).await {
                    Ok(whole) => whole,
                    Err(error) => return Err(self.broken(&mut slot, recorder, &error)),
                };
                recorder.received(body.len());
                let read = self.read(slot, recorder, status, &headers, body, room);
                return read.map_err(|failed| *failed);
            }
            is_first &= piece.trim_ascii().is_empty();
            recorder.received(piece.len());
            let Ok(whole) = splitter.push(&piece) else { break Some("too_large") };
            if let Err(error) = pieces.keep(splitter.held() + held.len()) {
                return Err(self.broken(&mut slot, recorder, &error));
            }
            if held.len() > LARGEST_HELD {
                break Some("too_large");
            }
            match take(&whole, is_json_lines, &mut observer, &mut translation, &mut held) {
                Err(word) => break Some(word),
                Ok(()) if observer.found.has_content || observer.found.is_whole => break None,
                Ok(()) => {}
            }
        };
        if let Some(error_type) = why {
            self.note_failure(&mut slot, error_type);
            let status =
                if error_type == "cut" { RequestStatus::UpstreamCut } else { RequestStatus::Error };
            recorder.finish(Outcome { status, error_type }, &observer.found);
            let message = format!("{} ended its stream before any content", self.target.name);
            let fault = Fault::new(FaultKind::Upstream, message);
            return Err(Failed { class: FailureClass::Transient, fault, passed: None });
        }
        recorder.content();
        let relay = Relay::new(
            self.app.clone(),
            self.plan.clone(),
            pieces,
            splitter,
            observer,
            translation,
            held.into(),
            recorder,
            slot,
            self.target.name.clone(),
        );
        Ok(Answered::Stream { headers: self.told(&headers), relay: Box::new(relay) })
    }
}

/// Returns a body as a target gets it: `safeguards` is a word of Claude Code to its own provider,
/// and nobody else knows what to do with it.
pub(super) fn for_target(body: Bytes, plan: &Plan, target: &Target) -> Bytes {
    let is_for_anthropic = plan.dialect == Dialect::Messages && plan.places.safeguards.is_some();
    if !is_for_anthropic || is_anthropic(target) {
        return body;
    }
    // The places have moved where the body was rewritten.
    let at = inspect(Dialect::Messages, &body).ok().and_then(|found| found.places.safeguards);
    match at {
        Some(at) => without(&body, &at, "safeguards"),
        None => body,
    }
}

/// Takes whole events. Fails where one of them is an error and there was no content before.
fn take(
    whole: &Bytes,
    is_json_lines: bool,
    observer: &mut Observer,
    translation: &mut Translation,
    held: &mut Vec<u8>,
) -> Result<(), &'static str> {
    for (at, event) in Splitter::events(is_json_lines, whole) {
        let had_content = observer.found.has_content;
        let role = observer.event(&event);
        match role {
            Role::Failure if !had_content => return Err("error_in_stream"),
            Role::Damaged => return Err("bad_event"),
            _ => {}
        }
        translation.event(&whole[at], &event, role, held).map_err(|_| "bad_event")?;
    }
    Ok(())
}
