//! Implementation of the ABI's host services on a [`Link`].

use std::sync::Arc;

use jiff::Timestamp;
use lodestar_abi::{
    CallRequest, CompletionBox, HostServices, ModError, NewEvent as AbiNewEvent, RelayedEvent,
    ReplySinkBox,
    abi_stable::std_types::{ROption, RResult, RSlice, RStr, RString, RVec},
    error_kind,
};

use super::link::{HostAnswer, Link};
use crate::runner::wire::HostRequest;

/// The longest text of a log record that is sent, in bytes.
const MAX_LOG_BYTES: usize = 256 << 10;

/// The host services that a module in a runner gets.
pub(super) struct Shared(pub(super) Arc<Link>);

impl HostServices for Shared {
    fn info(&self) -> RVec<u8> {
        self.0.info().into()
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default()
    }

    fn emit(
        &self,
        events: RSlice<'_, AbiNewEvent<'_>>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError> {
        self.0.emit(events.as_slice(), done.into_option()).into()
    }

    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>, fields: RSlice<'_, u8>) {
        if !self.0.logs(level) {
            return;
        }
        let message = shortened(message.as_str());
        let fields = if fields.len() > MAX_LOG_BYTES { b"{}" } else { fields.as_slice() };
        // An error means that the daemon is gone, and this process will be.
        let _ = self.0.send(&HostRequest::Log { level, target: target.as_str(), message, fields });
    }

    fn metric(
        &self,
        kind: u32,
        name: RStr<'_>,
        help: RStr<'_>,
        labels: RSlice<'_, u8>,
    ) -> RResult<u64, ModError> {
        let (name, help, labels) = (name.as_str(), help.as_str(), labels.as_slice());
        let answered = self.0.ask(|ask| HostRequest::Metric { ask, kind, name, help, labels });
        answered
            .and_then(|answered| match answered {
                HostAnswer::Number(handle) => Ok(handle),
                _ => Err(another_answer()),
            })
            .into()
    }

    fn record(&self, handle: u64, value: f64) {
        self.0.record(handle, value);
    }

    fn secret(&self, name: RStr<'_>) -> RResult<RString, ModError> {
        let name = name.as_str();
        self.0.ask(|ask| HostRequest::Secret { ask, name }).and_then(text).into()
    }

    fn pseudonym(&self, kind: RStr<'_>, value: RStr<'_>) -> RString {
        self.0.pseudonym(kind.as_str(), value.as_str()).into()
    }

    fn listener(&self, name: RStr<'_>) -> RResult<i32, ModError> {
        self.0.listener(name.as_str()).into()
    }

    fn cache_get(&self, key: RStr<'_>) -> RVec<u8> {
        let key = key.as_str();
        match self.0.ask(|ask| HostRequest::CacheGet { ask, key }) {
            Ok(HostAnswer::Bytes(bytes)) => bytes.into(),
            _ => RVec::new(),
        }
    }

    fn cache_set(&self, key: RStr<'_>, value: RSlice<'_, u8>, ttl_ms: u64) {
        let (key, value) = (key.as_str(), value.as_slice());
        // A value that is too long for a frame is too long for the cache.
        let _ = self.0.send(&HostRequest::CacheSet { key, value, ttl_ms });
    }

    fn heap_bytes(&self, bytes: u64) {
        self.0.note_heap(bytes);
    }

    fn wanted(&self, topic: RStr<'_>) -> bool {
        let topic = topic.as_str();
        // What is not known may be wanted.
        !matches!(self.0.ask(|ask| HostRequest::Wanted { ask, topic }), Ok(HostAnswer::Number(0)))
    }

    fn relay(
        &self,
        events: RSlice<'_, RelayedEvent<'_>>,
        done: ROption<CompletionBox>,
    ) -> RResult<(), ModError> {
        self.0.relay(events.as_slice(), done.into_option()).into()
    }

    fn call(&self, request: CallRequest<'_>, sink: ReplySinkBox) -> RResult<(), ModError> {
        self.0.call(&request, sink).into()
    }

    fn cancel_call(&self, number: u64) {
        self.0.cancel_call(number);
    }
}

fn text(answered: HostAnswer) -> Result<RString, ModError> {
    match answered {
        HostAnswer::Bytes(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned().into()),
        _ => Err(another_answer()),
    }
}

fn another_answer() -> ModError {
    ModError {
        kind: error_kind::UNAVAILABLE,
        message: "the host gave another answer than asked for".into(),
        place: "".into(),
    }
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MAX_LOG_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
