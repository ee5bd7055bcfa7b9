//! Answers that are there whole, in the form that the client asked for.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use module_sdk::events::RequestStatus;

use super::{
    Answered,
    attempt::{Begun, LARGEST_ERROR, OK, Sent},
    caching,
    failure::{Failed, FailureClass},
    sending::answer_context,
};
use crate::{
    cache::Form,
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
        observe::{Observed, Observer, Role},
        sse::Splitter,
        translate::{self, AnswerContext, TranslateError},
    },
    report::{Outcome, Recorder},
    target::Slot,
    upstream::{Answer, Room, UpstreamError},
};

impl Sent<'_> {
    /// Takes an answer that is no stream, or an error.
    pub(super) async fn whole(&self, begun: Begun) -> Result<Answered, Failed> {
        let Begun { answer, mut slot, mut recorder, .. } = begun;
        let Answer { status, headers, body } = answer;
        let largest = if status.is_success() { usize::MAX } else { LARGEST_ERROR };
        let (body, room) = match body.whole(None, largest).await {
            Ok(whole) => whole,
            Err(error) => return Err(self.broken(&mut slot, recorder, &error)),
        };
        recorder.received(body.len());
        if !status.is_success() {
            return Err(self.refused(&mut slot, recorder, status, &headers, body));
        }
        self.read(slot, recorder, status, &headers, body, room).map_err(|failed| *failed)
    }

    /// Reads a whole answer, and writes it in the form that the client asked for: as it came, in
    /// another dialect, or as a stream. A provider may have answered in the other form.
    pub(super) fn read(
        &self,
        mut slot: Slot,
        mut recorder: Recorder,
        status: StatusCode,
        headers: &HeaderMap,
        body: Bytes,
        room: Room,
    ) -> Result<Answered, Box<Failed>> {
        let mut observer = Observer::new(self.upstream);
        if recorder.wants_text() {
            observer.keep_text();
        }
        let is_whole = observer.whole(&body);
        let streamed = if is_whole || self.is_stream {
            None
        } else {
            self.streamed(&body, recorder.wants_text())
        };
        let is_stream = streamed.is_some();
        if let Some(streamed) = streamed {
            observer = streamed;
        }
        if !is_whole && !is_stream {
            self.note_failure(&mut slot, "bad answer");
            let error_type = if observer.found.has_failed { "error_in_200" } else { "no_json" };
            let outcome = Outcome { status: RequestStatus::Error, error_type };
            recorder.finish(outcome, &observer.found);
            let message = format!("{} answered 200 with what is no answer", self.target.name);
            let fault = Fault::new(FaultKind::Upstream, message);
            let class = FailureClass::Transient;
            return Err(Box::new(Failed { class, fault, passed: None }));
        }
        let (from, to, context) =
            (self.upstream, self.plan.dialect, answer_context(self.plan, &self.target.name.model));
        let written = if self.is_stream {
            as_stream(from, to, &body, &context)
        } else if is_stream {
            translate::collect(from, to, &body, &context).map(Bytes::from)
        } else if self.is_same() {
            Ok(body)
        } else {
            translate::answer(from, to, &body, &context).map(Bytes::from)
        };
        let body = match written {
            Ok(body) => body,
            Err(error) => {
                self.note_failure(&mut slot, "bad answer");
                let outcome = Outcome { status: RequestStatus::Error, error_type: "bad_answer" };
                recorder.finish(outcome, &observer.found);
                let message = format!("{} answered in another form: {error}", self.target.name);
                let fault = Fault::new(FaultKind::Upstream, message);
                let class = FailureClass::Transient;
                return Err(Box::new(Failed { class, fault, passed: None }));
            }
        };
        recorder.content();
        let (latency, ttft) = recorder.times_ms();
        if slot.succeed(latency, ttft) {
            self.app.target_changed(self.target);
        }
        self.app.labels.answered(&self.plan.id, self.target.is_local());
        let cost = recorder.finish(OK, &observer.found);
        // A draft has to stand its check first.
        if self.plan.is_stream == self.is_stream && !self.plan.decision.is_checked {
            let form = if self.is_stream { Form::Stream } else { Form::Whole };
            let (plan, name, found) = (self.plan, &self.target.name, &observer.found);
            caching::keep(self.app, plan, name, form, body.clone(), found, cost);
        }
        let (headers, body) = (self.told(headers), room.hold(body));
        Ok(if self.is_stream {
            Answered::Replayed { headers, body }
        } else {
            Answered::Whole { status, headers, body }
        })
    }

    /// Reads a body as the stream that nobody asked for; `None` where it is no whole one.
    fn streamed(&self, body: &Bytes, wants_text: bool) -> Option<Observer> {
        if self.plan.choices > 1 {
            return None;
        }
        let mut observer = Observer::new(self.upstream);
        if wants_text {
            observer.keep_text();
        }
        for (_, event) in Splitter::events(self.upstream.is_json_lines(), body) {
            if matches!(observer.event(&event), Role::Failure | Role::Damaged) {
                return None;
            }
        }
        observer.ended();
        observer.found.is_whole.then_some(observer)
    }

    /// Reports an answer that did not come to its end.
    pub(super) fn broken(
        &self,
        slot: &mut Slot,
        recorder: Recorder,
        error: &UpstreamError,
    ) -> Failed {
        if *error != UpstreamError::NoRoom {
            self.note_failure(slot, error.word());
        }
        self.lost(recorder, error, &Observed::default())
    }
}

/// Returns whether a body begins as one object, and not as a stream of events.
pub(super) fn begins_object(piece: &[u8]) -> bool {
    piece.trim_ascii_start().first() == Some(&b'{')
}

/// Writes a whole answer as the stream that the client asked for.
fn as_stream(
    from: Dialect,
    to: Dialect,
    body: &Bytes,
    context: &AnswerContext<'_>,
) -> Result<Bytes, TranslateError> {
    let mut events = Vec::new();
    match (from, to) {
        // A whole answer has the form of an event.
        (Dialect::Completions, Dialect::Completions) | (Dialect::Gemini, Dialect::Gemini) => {
            events.extend_from_slice(b"data: ");
            // No line break stands within a text of JSON.
            let is_break = |byte: u8| matches!(byte, b'\n' | b'\r');
            events.extend(body.iter().map(|byte| if is_break(*byte) { b' ' } else { *byte }));
            events.extend_from_slice(b"\n\n");
            if to == Dialect::Completions {
                events.extend_from_slice(b"data: [DONE]\n\n");
            }
        }
        _ => translate::replay(from, to, body, context, &mut events)?,
    }
    Ok(events.into())
}
