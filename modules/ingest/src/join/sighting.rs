//! What joining remembers of one report: hashes, times and counts, no names.

use module_sdk::events::RequestStatus;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::report::Report;

/// One report of one request. A hash of 0 stands for "not known".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sighting {
    /// The `dedupe_key` that the request has.
    #[serde(rename = "k")]
    pub(super) key: String,
    /// When it was received, Unix milliseconds.
    #[serde(rename = "at")]
    pub(super) seen_ms: i64,
    /// The same for the same record sent again.
    #[serde(rename = "i")]
    pub(super) identity: u64,
    /// Who reported it.
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
    /// The models asked for and answering.
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
    #[serde(rename = "f", skip_serializing_if = "is_false")]
    pub(super) failed: bool,
}

impl Sighting {
    /// Of a report; `key` is the one that it would have on its own.
    pub(super) fn of(report: &Report, seen_ms: i64) -> Self {
        let event = &report.event;
        let provider = event.provider.as_deref().unwrap_or("unknown");
        let trace = event.trace_id.as_deref();
        let id = |id: &Option<String>| optional(id.as_deref(), |id| hash(&["id", provider, id]));
        let in_trace = |span: &Option<String>| {
            optional(trace.zip(span.as_deref()), |(trace, span)| hash(&["span", trace, span]))
        };
        let model = |model: &Option<String>| {
            optional(model.as_deref(), |model| hash(&["model", undated(model)]))
        };
        let text = |kind: &str, text: Option<&str>| optional(text, |text| hash(&[kind, text]));
        let (identity, key) = identity(report, provider);
        Self {
            key,
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
            failed: !matches!(event.status, None | Some(RequestStatus::Ok)),
        }
    }

    /// Whether nothing that both tell says that they are two requests.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        self.reporter != other.reporter
            && agree(self.request, other.request)
            && agree(self.response, other.response)
            && agree(self.session, other.session)
            && (self.session != 0 && self.session == other.session
                || agree(self.trace, other.trace))
            && self.same_model(other)
            && self.failed == other.failed
            && agree_on(self.input, other.input)
            && agree_on(self.output, other.output)
            && agree_on(self.cache_read, other.cache_read)
    }

    /// Whether something that both tell says that they are of one session.
    pub(super) fn tied_to(&self, other: &Self) -> bool {
        let same = |a: u64, b: u64| a != 0 && a == b;
        same(self.session, other.session)
            || same(self.trace, other.trace)
            || same(self.client, other.client) && (self.session == 0 || other.session == 0)
    }

    fn same_model(&self, other: &Self) -> bool {
        let known = |models: &[u64; 2]| models.iter().any(|model| *model != 0);
        !known(&self.models)
            || !known(&other.models)
            || self.models.iter().any(|model| *model != 0 && other.models.contains(model))
    }
}

/// The hash of texts, the same in every process.
pub(super) fn hash(parts: &[&str]) -> u64 {
    let digest = digest(parts);
    let number = u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
    number.max(1)
}

fn identity(report: &Report, provider: &str) -> (u64, String) {
    let event = &report.event;
    if let Some(record) = &report.record_id {
        return (hash(&["record", record]), format!("lynex:{record}"));
    }
    if let Some(id) = event.upstream_request_id.as_ref().or(event.response_id.as_ref()) {
        let key = format!("{provider}:{id}");
        return (hash(&["own id", &report.reporter, &key]), key);
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

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}

/// `claude-sonnet-4-5-20250929` is asked for and told as `claude-sonnet-4-5` as well.
fn undated(model: &str) -> &str {
    let digits = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if let Some((name, date)) = model.rsplit_once('-')
        && digits(date, 8)
    {
        return name;
    }
    match model.len().checked_sub(11).and_then(|at| model.split_at_checked(at)) {
        Some((name, date)) => {
            let parts: Vec<&str> = date.split('-').collect();
            match parts[..] {
                ["", year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2) => {
                    name
                }
                _ => model,
            }
        }
        None => model,
    }
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_models_are_left_out() {
        let check = |model: &str, expected: &str| assert_eq!(undated(model), expected);
        check("claude-sonnet-4-5-20250929", "claude-sonnet-4-5");
        check("gpt-4o-2024-08-06", "gpt-4o");
        check("gpt-5.1-codex", "gpt-5.1-codex");
        check("é-2024-08-06", "é");
        check("m", "m");
    }

    #[test]
    fn hashes_do_not_run_together() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
