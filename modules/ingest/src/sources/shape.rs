//! The steps that all mappers share: times and identities.

use module_sdk::{
    clock,
    events::{LlmRequestCompleted, RequestSource},
};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::{Context, Log, SpanRecord, keys, name};
use crate::report::Report;

/// A clock that decides which of several times can be true.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Time when the record was received, in nanoseconds since the Unix epoch.
    pub(crate) now_ns: u64,
}

/// Earliest time that is believed, 2020-01-01: before it no tool reported requests, so an earlier
/// time is an unset clock.
const EARLIEST_NS: u64 = 1_577_836_800_000_000_000;

/// Largest time by which a sender's clock may be ahead before it is not believed.
const AHEAD_NS: u64 = 24 * 3600 * 1_000_000_000;

/// Before and after these a daemon's clock is an unset one.
const OURS_NS: (u64, u64) = (ns(clock::EARLIEST_S), ns(clock::LATEST_S));

const fn ns(unix_seconds: i64) -> u64 {
    unix_seconds.cast_unsigned() * 1_000_000_000
}

impl Clock {
    /// Picks the first possible time, else now. Returns it in milliseconds since the Unix epoch,
    /// and whether it differs from the time that the sender states (its first that is not 0).
    pub(crate) fn pick(self, candidates: &[u64]) -> (i64, bool) {
        let stated = candidates.iter().copied().find(|time| *time != 0);
        // Where our own clock cannot be right, the sender's is all that is known.
        let ours = (OURS_NS.0..=OURS_NS.1).contains(&self.now_ns);
        let latest = if ours { self.now_ns.saturating_add(AHEAD_NS) } else { OURS_NS.1 };
        let believable = |time: &&u64| (EARLIEST_NS..=latest).contains(*time);
        let picked = candidates.iter().find(believable).copied().unwrap_or(self.now_ns);
        (to_ms(picked), stated.is_some_and(|stated| stated != picked))
    }
}

/// Converts nanoseconds to milliseconds.
pub(crate) const fn to_ms(ns: u64) -> i64 {
    (ns / 1_000_000) as i64
}

/// Creates a report with all that any tool's log record holds.
pub(crate) fn from_log(log: &Log<'_>, context: &Context<'_>) -> Report {
    let record = log.record;
    let event_time = log.attributes.time_ns(keys::EVENT_TIMESTAMP).unwrap_or(0);
    let candidates = [record.time_unix_nano, event_time, record.observed_time_unix_nano];
    let (ended_at, clock_corrected) = context.clock.pick(&candidates);
    let mut report = common(context, RequestSource::OtlpLog);
    report.stated_time_ns = candidates.into_iter().find(|time| *time != 0).unwrap_or(0);
    report.clock_corrected = clock_corrected;
    let event = &mut report.event;
    event.ended_at = ended_at;
    event.started_at = ended_at;
    event.trace_id = hex(&record.trace_id, 16);
    event.span_id = hex(&record.span_id, 8);
    report
}

/// Creates a report with all that any tool's span holds.
pub(crate) fn from_span(record: &SpanRecord<'_>, context: &Context<'_>) -> Report {
    let span = record.span;
    let (ended_at, clock_corrected) =
        context.clock.pick(&[span.end_time_unix_nano, span.start_time_unix_nano]);
    let mut report = common(context, RequestSource::OtlpSpan);
    report.stated_time_ns = span.end_time_unix_nano;
    report.clock_corrected = clock_corrected;
    report.parent_span_id = hex(&span.parent_span_id, 8);
    let duration = duration_ms(span);
    let event = &mut report.event;
    event.ended_at = ended_at;
    event.started_at = ended_at - i64::from(duration.unwrap_or(0));
    event.duration_ms = duration;
    event.trace_id = hex(&span.trace_id, 16);
    event.span_id = hex(&span.span_id, 8);
    report
}

/// Sets the duration of a request whose end is known.
pub(crate) fn lasted(event: &mut LlmRequestCompleted, duration_ms: Option<u32>) {
    event.duration_ms = duration_ms;
    event.started_at = event.ended_at - i64::from(duration_ms.unwrap_or(0));
}

fn common(context: &Context<'_>, source: RequestSource) -> Report {
    let resource = context.resource;
    let scope = name(context.scope.0);
    let mut report = Report {
        reporter: format!("{source} {}", scope.as_deref().unwrap_or("-")),
        ..Report::default()
    };
    let event = &mut report.event;
    event.schema = 1;
    event.source = Some(source);
    event.source_ref = scope;
    event.client = client(context);
    event.client_version = resource.name(&[keys::SERVICE_VERSION]);
    event.project = resource.name(&[keys::PROJECT]).or_else(|| context.project.and_then(name));
    event.branch = resource.name(&[keys::BRANCH]);
    report
}

fn client(context: &Context<'_>) -> Option<String> {
    // OpenTelemetry's own word for "nobody set a name", with the interpreter behind it.
    context.resource.name(&[keys::SERVICE_NAME]).filter(|name| !name.starts_with("unknown_service"))
}

fn duration_ms(span: &Span) -> Option<u32> {
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    if start == 0 || end < start {
        return None;
    }
    u32::try_from((end - start + 500_000) / 1_000_000).ok()
}

/// Returns an id of `length` bytes in hexadecimal; the all-zero id means none.
pub(crate) fn hex(bytes: &[u8], length: usize) -> Option<String> {
    let valid = bytes.len() == length && bytes.iter().any(|byte| *byte != 0);
    valid.then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_gives_way() {
        const NOW: u64 = 1_795_218_560_000_000_000;
        let check = |candidates: &[u64], expected: (i64, bool)| {
            assert_eq!(Clock { now_ns: NOW }.pick(candidates), expected, "{candidates:?}");
        };
        let now_ms = to_ms(NOW);
        check(&[NOW - 5_000_000, NOW], (now_ms - 5, false));
        check(&[0, NOW - 7_000_000], (now_ms - 7, false));
        check(&[1_000_000_000, NOW - 7_000_000], (now_ms - 7, true));
        check(&[4_070_908_800_000_000_000, 0], (now_ms, true));
        check(&[u64::MAX], (now_ms, true));
        check(&[0, 0], (now_ms, false));
    }

    #[test]
    fn where_our_clock_stands_wrong_the_senders_counts() {
        for now_ns in [63_072_000_000_000_000, 4_070_908_800_000_000_000] {
            let check = |candidates: &[u64], expected: (i64, bool)| {
                assert_eq!(Clock { now_ns }.pick(candidates), expected, "{candidates:?}");
            };
            check(&[1_795_218_560_000_000_000], (1_795_218_560_000, false));
            check(&[63_072_000_000_000_000, 1_795_218_560_000_000_000], (1_795_218_560_000, true));
            check(&[0], (to_ms(now_ns), false));
        }
    }

    #[test]
    fn ids_of_zeros_are_none() {
        assert_eq!(hex(&[0; 16], 16), None);
        assert_eq!(hex(&[1; 3], 8), None);
        assert_eq!(hex(&[0xab; 8], 8).as_deref(), Some("abababababababab"));
    }
}
