//! The remembered data of one report: hashes, times and counts, no names.

use std::borrow::Cow;

use module_sdk::events::{LlmRequestCompleted, ModelName, RequestSource, RequestStatus};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::key::Key;
use crate::{report::Report, sources::hex};

/// One report of one request. A hash of 0 means "not known".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sighting {
    /// The `dedupe_key` that the request has.
    #[serde(rename = "k")]
    pub(super) key: Key,
    /// Time when it was received, in milliseconds since the Unix epoch.
    #[serde(rename = "at")]
    pub(super) seen_ms: i64,
    /// Hash that is the same when the same record is sent again.
    #[serde(rename = "i")]
    pub(super) identity: u64,
    /// Hash of the reporter: signal and instrumentation.
    #[serde(rename = "by")]
    pub(super) reporter: u64,
    #[serde(rename = "rq", skip_serializing_if = "is_zero")]
    pub(super) request: u64,
    #[serde(rename = "rs", skip_serializing_if = "is_zero")]
    pub(super) response: u64,
    #[serde(rename = "sp", skip_serializing_if = "is_zero")]
    pub(super) span: u64,
    #[serde(rename = "pa", skip_serializing_if = "is_zero")]
    pub(super) parent: u64,
    #[serde(rename = "tr", skip_serializing_if = "is_zero")]
    pub(super) trace: u64,
    #[serde(rename = "se", skip_serializing_if = "is_zero")]
    pub(super) session: u64,
    #[serde(rename = "cl", skip_serializing_if = "is_zero")]
    pub(super) client: u64,
    #[serde(rename = "pr", skip_serializing_if = "is_zero")]
    pub(super) pair: u64,
    /// The requested model and the model that answered.
    #[serde(rename = "m")]
    pub(super) models: [u64; 2],
    #[serde(rename = "t")]
    pub(super) ended_ms: i64,
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub(super) input: Option<u64>,
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<u64>,
    #[serde(rename = "cr", skip_serializing_if = "Option::is_none")]
    pub(super) cache_read: Option<u64>,
    #[serde(rename = "cw", skip_serializing_if = "Option::is_none")]
    pub(super) cache_write: Option<u64>,
    #[serde(rename = "f", skip_serializing_if = "is_false")]
    pub(super) failed: bool,
    /// The request and response id, independent of the provider.
    #[serde(rename = "ids", skip_serializing_if = "are_zero")]
    pub(super) ids: [u64; 2],
    /// The kind of request, such as a chat or embeddings.
    #[serde(rename = "op", skip_serializing_if = "is_zero")]
    pub(super) operation: u64,
    /// True when the report is a span.
    #[serde(rename = "s", skip_serializing_if = "is_false")]
    pub(super) is_span: bool,
    /// True when the report states that it is one call of a model.
    #[serde(rename = "ca", skip_serializing_if = "is_false")]
    pub(super) calls: bool,
    /// True when it is no request but holds the sum of some.
    #[serde(rename = "su", skip_serializing_if = "is_false")]
    pub(super) sum: bool,
}

impl Sighting {
    /// Creates the sighting of a report, with the `key` that the report would have on its own.
    pub(super) fn of(report: &Report, seen_ms: i64) -> Self {
        let event = &report.event;
        let provider = event.provider.as_deref().unwrap_or("unknown");
        let trace = event.trace_id.as_deref();
        let id = |id: &Option<String>| optional(id.as_deref(), |id| hash(&["id", provider, id]));
        let in_trace = |span: &Option<String>| {
            optional(trace.zip(span.as_deref()), |(trace, span)| hash(&["span", trace, span]))
        };
        let model = |model: &Option<String>| {
            optional(model.as_deref(), |model| hash(&["model", ModelName::of(model).model()]))
        };
        let bare = |id: &Option<String>| optional(id.as_deref(), |id| hash(&["bare id", id]));
        let text = |kind: &str, text: Option<&str>| optional(text, |text| hash(&[kind, text]));
        let (identity, key) = identity(report, provider);
        Self {
            key: key.into(),
            seen_ms,
            identity,
            reporter: hash(&["reporter", &report.reporter]),
            request: id(&event.upstream_request_id),
            response: id(&event.response_id),
            span: in_trace(&event.span_id),
            parent: in_trace(&report.parent_span_id),
            trace: text("trace", trace),
            session: text("session", event.session_id.as_deref()),
            client: text("client", event.client.as_deref()),
            pair: text("pair", report.pair.as_deref()),
            models: [model(&event.request_model), model(&event.response_model)],
            ended_ms: event.ended_at,
            input: event.input_tokens,
            output: event.output_tokens,
            cache_read: event.cache_read_tokens,
            cache_write: cache_write(event),
            ids: [bare(&event.upstream_request_id), bare(&event.response_id)],
            operation: text("operation", event.operation.as_deref()),
            is_span: is_span(event) && span_of(report).is_some(),
            calls: event.operation.is_some() || event.response_id.is_some(),
            sum: false,
            failed: !matches!(event.status, None | Some(RequestStatus::Ok)),
        }
    }

    /// Returns whether no field that both have contradicts that they report one request.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        self.reporter != other.reporter
            && agree(self.ids[0], other.ids[0])
            && agree(self.ids[1], other.ids[1])
            && agree(self.session, other.session)
            && (self.session != 0 && self.session == other.session
                || agree(self.trace, other.trace))
            && self.same_model(other)
            && self.failed == other.failed
            && agree_on(self.input, other.input)
            && agree_on(self.output, other.output)
            && agree_on(self.cache_read, other.cache_read)
    }

    /// Returns whether a field that both have shows that they are of one session.
    pub(super) fn tied_to(&self, other: &Self) -> bool {
        let same = |a: u64, b: u64| a != 0 && a == b;
        same(self.session, other.session)
            || same(self.trace, other.trace)
            || same(self.client, other.client) && (self.session == 0 || other.session == 0)
    }

    /// Returns whether this and a span within it report one call: by two reporters, of which one
    /// may count less, leave out the cache or know of an error that came later.
    pub(super) fn is_one_call_with(&self, inner: &Self) -> bool {
        self.reporter != inner.reporter
            && agree(self.ids[0], inner.ids[0])
            && agree(self.ids[1], inner.ids[1])
            && self.same_model(inner)
            && (self.failed || !inner.failed)
    }

    /// Returns whether input and output are the same.
    pub(super) fn same_counts(&self, other: &Self) -> bool {
        self.input == other.input && self.output == other.output
    }

    /// Returns whether both counts are larger by more than another way of counting explains, so
    /// that there are other calls beside `inner`.
    pub(super) fn exceeds(&self, inner: &Self) -> bool {
        // What only began has no counts to compare.
        if inner.input() == 0 || inner.output() <= 1 {
            return false;
        }
        let (read, written) = (self.cache_read.unwrap_or(0), self.cache_write.unwrap_or(0));
        let explained = [0, read, written, read + written]
            .into_iter()
            .any(|left_out| is_near(self.input().saturating_sub(left_out), inner.input()));
        !explained
            && self.input() > inner.input()
            && self.output() > inner.output()
            && !is_near(self.output(), inner.output())
    }

    /// Returns the input tokens, 0 where they are not known.
    pub(super) fn input(&self) -> u64 {
        self.input.unwrap_or(0)
    }

    /// Returns the output tokens, 0 where they are not known.
    pub(super) fn output(&self) -> u64 {
        self.output.unwrap_or(0)
    }

    /// Returns the input tokens that were neither read from nor written to the cache.
    pub(super) fn uncached_input(&self) -> u64 {
        let cached = self.cache_read.unwrap_or(0) + self.cache_write.unwrap_or(0);
        self.input().saturating_sub(cached)
    }

    /// Returns whether it has a request or response id.
    pub(super) fn has_id(&self) -> bool {
        self.ids != [0, 0]
    }

    /// Returns whether both have an id in common.
    pub(super) fn shares_id(&self, other: &Self) -> bool {
        self.ids.iter().zip(other.ids).any(|(one, other)| *one != 0 && *one == other)
    }

    /// Turns it into a sum, which is no request. Its key is that of no other report.
    pub(super) fn make_sum(&mut self) {
        self.sum = true;
        self.key = format!("sum:{:016x}", self.identity).into();
    }

    /// Returns a key for a request whose own key is taken.
    pub(super) fn other_key(&self) -> String {
        format!("hash:{:016x}{:016x}", self.identity, self.span)
    }

    pub(super) fn same_model(&self, other: &Self) -> bool {
        let known = |models: &[u64; 2]| models.iter().any(|model| *model != 0);
        !known(&self.models)
            || !known(&other.models)
            || self.models.iter().any(|model| *model != 0 && other.models.contains(model))
    }
}

/// Returns the hash of texts, the same in every process.
pub(super) fn hash(parts: &[&str]) -> u64 {
    let digest = digest(parts);
    let number = u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
    number.max(1)
}

/// Returns the mark of a span within its trace; `None` where an id is missing or malformed.
pub(crate) fn span_mark(trace: &[u8], span: &[u8]) -> Option<u64> {
    let (trace, span) = (hex(trace, 16)?, hex(span, 8)?);
    Some(hash(&["span", &trace, &span]))
}

/// Returns the mark of the span of a report.
pub(super) fn span_of(report: &Report) -> Option<u64> {
    let event = &report.event;
    let (trace, span) = event.trace_id.as_deref().zip(event.span_id.as_deref())?;
    Some(hash(&["span", trace, span]))
}

fn is_span(event: &LlmRequestCompleted) -> bool {
    event.source == Some(RequestSource::OtlpSpan)
}

fn cache_write(event: &LlmRequestCompleted) -> Option<u64> {
    match (event.cache_write_5m_tokens, event.cache_write_1h_tokens) {
        (None, None) => None,
        (short, long) => Some(short.unwrap_or(0) + long.unwrap_or(0)),
    }
}

/// Returns whether two counts differ by a few tokens at most.
fn is_near(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= 3.max(one.max(other) / 20)
}

fn identity(report: &Report, provider: &str) -> (u64, String) {
    let event = &report.event;
    if let Some(record) = &report.record_id {
        return (hash(&["record", record]), format!("lynex:{}", readable(record)));
    }
    if let Some(id) = event.upstream_request_id.as_ref().or(event.response_id.as_ref()) {
        let key = format!("{provider}:{id}");
        let own_id = ["own id", &report.reporter, &key];
        // Two spans of one reporter may have one id, an outer and an inner one.
        let identity = match span_of(report).filter(|_| is_span(event)) {
            Some(span) => hash(&[own_id.as_slice(), &[&span.to_string()]].concat()),
            None => hash(&own_id),
        };
        return (identity, format!("{}:{}", readable(provider), readable(id)));
    }
    let number = |count: Option<u64>| count.map_or_else(String::new, |count| count.to_string());
    let known = |text: &Option<String>| text.clone().unwrap_or_default();
    let parts = [
        report.reporter.clone(),
        known(&event.session_id),
        report.stated_time_ns.to_string(),
        known(&event.trace_id),
        // Logs of one span may be several requests, two spans are never one record.
        known(&event.span_id),
        known(&event.request_model),
        number(event.input_tokens),
        number(event.output_tokens),
        number(event.cache_read_tokens),
        number(event.http_status.map(u64::from)),
        number(event.attempt.map(u64::from)),
    ];
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let hex: String = digest(&parts)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    (hash(&parts), format!("hash:{hex}"))
}

/// Prefixes of the ids that providers assign, before a number or random characters.
const PREFIXES: [&str; 9] =
    ["req_", "msg_", "resp_", "chatcmpl-", "cmpl-", "gen-", "run_", "call_", "batch_"];

/// Length below which no id is taken for a secret, in bytes.
const SHORT: usize = 16;

/// Returns an id as it is shown in a key: an id that is short, or has the form that providers give
/// theirs, as it is, and any other as its hash, as a sender may have put a secret there.
fn readable(id: &str) -> Cow<'_, str> {
    let rest = PREFIXES.iter().find_map(|prefix| id.strip_prefix(prefix));
    let (first, last) =
        rest.unwrap_or(id).rsplit_once(['-', '_']).unwrap_or(("", rest.unwrap_or(id)));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_random = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let numbers = first.split(['-', '_']).all(is_number);
    let ends_well = is_number(last) || rest.is_some() && is_random(last);
    if id.len() < SHORT || numbers && ends_well {
        return Cow::Borrowed(id);
    }
    let hex: String = digest(&[id])[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Cow::Owned(format!("hash:{hex}"))
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

fn optional<T>(value: Option<T>, hash: impl FnOnce(T) -> u64) -> u64 {
    value.map_or(0, hash)
}

const fn agree(a: u64, b: u64) -> bool {
    a == 0 || b == 0 || a == b
}

fn agree_on(a: Option<u64>, b: Option<u64>) -> bool {
    a.zip(b).is_none_or(|(a, b)| a == b)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn are_zero(numbers: &[u64; 2]) -> bool {
    *numbers == [0, 0]
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_do_not_run_together() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
