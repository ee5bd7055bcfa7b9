//! The preparation of a report before it is stored: impossible figures become unknown, and
//! identifiers of people become pseudonyms.

use module_sdk::events::{CostSource, LlmRequestCompleted, RequestSource};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::clock::{Arrival, LATEST_REPORT_MS};

/// A report of a request, ready to be stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Id of the event with the report.
    pub event_id: Uuid,
    /// Content of the report.
    pub request: LlmRequestCompleted,
    /// Cost that the client or the provider states, in nano-USD. It is stored beside our own
    /// figure.
    pub stated_nano_usd: Option<i64>,
    /// Flags for what was wrong with the report, and for what was concluded: [`flag`].
    pub flags: u8,
    /// The sources that have reported the request: a bit for each one, in the order of
    /// [`RequestSource`].
    pub sources: u8,
}

/// Bits of [`Report::flags`].
pub mod flag {
    /// Bit of a report whose sender's clock was wrong; the time of arrival is stored instead.
    pub const CLOCK: u8 = 1;
    /// Bit of a report with an impossible count or cost, which is unknown now.
    pub const COUNT: u8 = 2;
    /// Bit of a report with a text that was too long and was cut.
    pub const TEXT: u8 = 4;
    /// Bit of a report that does not say how long cache writes were for, but whose stated cost fits
    /// an hour.
    pub const ONE_HOUR: u8 = 8;
    /// Bit of what a side chain says, which may repeat its parent under other ids.
    pub const SIDE_CHAIN: u8 = 16;
    /// Bit of a request of which two sources say different counts.
    pub const DISAGREE: u8 = 32;
}

/// Returns the bit of a source in [`Report::sources`], 0 for none.
pub(crate) fn bit(source: Option<RequestSource>) -> u8 {
    let position = RequestSource::ALL.iter().position(|known| Some(*known) == source);
    position.map_or(0, |position| 1 << position)
}

/// Earliest time that is believed, 2015: no earlier request can be one to a language model.
const EARLIEST_MS: i64 = 1_420_070_400_000;
/// Largest time by which a sender's clock may be ahead of ours.
const AHEAD_MS: i64 = 24 * 3_600_000;
/// Longest duration of a request.
const LONGEST_MS: i64 = 7 * 24 * 3_600_000;
/// Largest number of tokens of a request: the largest context windows hold some ten million.
const MOST_TOKENS: u64 = 1_000_000_000;
/// Largest cost of a request, a million dollars.
const MOST_NANO_USD: i64 = 1_000_000_000_000_000;
/// Largest length of a name, in bytes.
const NAME_BYTES: usize = 256;
/// Largest length of an identifier, in bytes.
const ID_BYTES: usize = 512;

impl Report {
    /// Creates a report: impossible values become unknown and are flagged. `now_ms` is the time of
    /// arrival, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(event_id: Uuid, request: LlmRequestCompleted, now_ms: i64) -> Self {
        Self::received(event_id, request, Arrival { at_ms: now_ms, by_clock: true })
    }

    /// Creates a report that arrived while the clock of the machine may have been wrong.
    pub(crate) fn received(
        event_id: Uuid,
        mut request: LlmRequestCompleted,
        arrival: Arrival,
    ) -> Self {
        if request.dedupe_key.is_empty() {
            request.dedupe_key = format!("event:{event_id}");
        }
        request.content_ref = None;
        let mut flags = 0;
        set(&mut flags, flag::CLOCK, clock(&mut request, arrival));
        set(&mut flags, flag::COUNT, counts(&mut request));
        set(&mut flags, flag::TEXT, texts(&mut request));
        let stated_nano_usd = stated(&request);
        let sources = bit(request.source);
        Self { event_id, request, stated_nano_usd, flags, sources }
    }

    /// Replaces the names of persons, sessions and transcript files by `pseudonym(kind, value)`,
    /// where that has not been done yet.
    pub fn anonymise(&mut self, pseudonym: impl Fn(&str, &str) -> String) {
        let request = &mut self.request;
        let fields = [
            ("session", &mut request.session_id),
            ("turn", &mut request.turn_id),
            ("user", &mut request.user),
        ];
        for (kind, value) in fields {
            if let Some(value) = value.as_mut().filter(|value| !is_pseudonym(kind, value)) {
                *value = pseudonym(kind, value);
            }
        }
        // The path of a transcript holds the names of a person and of a session.
        if request.source == Some(RequestSource::Transcript)
            && let Some(place) = &mut request.source_ref
        {
            let (file, offset) = place.rsplit_once(':').unwrap_or((place, ""));
            if !is_pseudonym("file", file) {
                *place = format!("{}:{offset}", pseudonym("file", file));
            }
        }
    }
}

/// Returns whether a value has the form that a host's `pseudonym` returns: `session_` and 26
/// characters of base 32, which real identifiers of that length (upper case, 0, 1, 8, 9) hardly
/// ever have.
fn is_pseudonym(kind: &str, value: &str) -> bool {
    let rest = value.strip_prefix(kind).and_then(|rest| rest.strip_prefix('_'));
    rest.is_some_and(|rest| {
        rest.len() == 26 && rest.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
    })
}

/// Returns the cost of a request, if it was stated by a client or provider and not computed by us.
pub(crate) fn stated(request: &LlmRequestCompleted) -> Option<i64> {
    let said =
        matches!(request.cost_source, None | Some(CostSource::Client | CostSource::Provider));
    request.cost_nano_usd.filter(|_| said)
}

const fn set(flags: &mut u8, bit: u8, wrong: bool) {
    if wrong {
        *flags |= bit;
    }
}

/// Corrects the times so that `started_at <= ended_at`, both near enough to now. Returns `true`
/// when the clock was wrong. Where our own clock is wrong, the sender's is believed.
fn clock(request: &mut LlmRequestCompleted, arrival: Arrival) -> bool {
    let now_ms = arrival.at_ms;
    let latest = if arrival.by_clock { now_ms.saturating_add(AHEAD_MS) } else { LATEST_REPORT_MS };
    let sane = |time: i64| (EARLIEST_MS..=latest).contains(&time);
    let took = request.duration_ms.map_or(0, i64::from).min(LONGEST_MS);
    let mut wrong = false;
    if !sane(request.ended_at) {
        // Absent is not wrong.
        wrong = request.ended_at != 0 || (request.started_at != 0 && !sane(request.started_at));
        request.ended_at = if sane(request.started_at) && sane(request.started_at + took) {
            request.started_at + took
        } else {
            wrong |= !arrival.by_clock;
            now_ms.max(EARLIEST_MS)
        };
    }
    let elapsed = request.ended_at.saturating_sub(request.started_at);
    if !(0..=LONGEST_MS).contains(&elapsed) {
        wrong |= request.started_at != 0;
        request.started_at = request.ended_at - took;
    }
    wrong
}

/// Removes impossible counts and costs. Returns `true` when there were some.
fn counts(request: &mut LlmRequestCompleted) -> bool {
    let mut wrong = false;
    for count in [
        &mut request.input_tokens,
        &mut request.cache_read_tokens,
        &mut request.cache_write_5m_tokens,
        &mut request.cache_write_1h_tokens,
        &mut request.output_tokens,
        &mut request.reasoning_tokens,
    ] {
        wrong |= count.take_if(|count| *count > MOST_TOKENS).is_some();
    }
    for size in [&mut request.request_bytes, &mut request.response_bytes] {
        wrong |= size.take_if(|size| i64::try_from(*size).is_err()).is_some();
    }
    let cost = &mut request.cost_nano_usd;
    wrong |= cost.take_if(|cost| !(0..=MOST_NANO_USD).contains(cost)).is_some();
    wrong
}

/// Cuts texts that are too long and removes empty ones. Returns `true` when one was cut.
fn texts(request: &mut LlmRequestCompleted) -> bool {
    let mut wrong = false;
    if request.dedupe_key.len() > ID_BYTES {
        // Cutting it would make two keys one.
        let digest = Sha256::digest(&request.dedupe_key);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        request.dedupe_key = format!("sha256:{hex}");
        wrong = true;
    }
    for id in [
        &mut request.source_ref,
        &mut request.session_id,
        &mut request.turn_id,
        &mut request.trace_id,
        &mut request.span_id,
        &mut request.retry_of,
        &mut request.response_id,
        &mut request.upstream_request_id,
    ] {
        wrong |= text(id, ID_BYTES);
    }
    for name in [
        &mut request.client,
        &mut request.client_version,
        &mut request.project,
        &mut request.branch,
        &mut request.user,
        &mut request.provider,
        &mut request.upstream,
        &mut request.operation,
        &mut request.request_model,
        &mut request.response_model,
        &mut request.routed_model,
        &mut request.service_tier,
        &mut request.error_type,
        &mut request.finish_reason,
        &mut request.price_version,
        &mut request.route_rule,
        &mut request.variant,
        &mut request.fallback_from,
    ] {
        wrong |= text(name, NAME_BYTES);
    }
    wrong
}

fn text(value: &mut Option<String>, most: usize) -> bool {
    value.take_if(|text| text.is_empty());
    value.as_mut().is_some_and(|text| cut(text, most))
}

fn cut(text: &mut String, most: usize) -> bool {
    let long = text.len() > most;
    if long {
        text.truncate(text.floor_char_boundary(most));
    }
    long
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn take(request: LlmRequestCompleted) -> Report {
        Report::new(Uuid::nil(), request, NOW)
    }

    #[test]
    fn clocks_that_stand_wrong_are_set() {
        let check = |started_at, ended_at, duration_ms, expected: (i64, i64, bool)| {
            let report = take(LlmRequestCompleted {
                started_at,
                ended_at,
                duration_ms,
                ..Default::default()
            });
            let request = &report.request;
            let clock = report.flags & flag::CLOCK != 0;
            assert_eq!((request.started_at, request.ended_at, clock), expected);
        };
        let hour = 3_600_000;
        check(NOW - 900, NOW - 100, None, (NOW - 900, NOW - 100, false));
        check(0, 0, None, (NOW, NOW, false));
        check(0, NOW - 5, Some(20), (NOW - 25, NOW - 5, false));
        check(NOW - 50, 0, Some(20), (NOW - 50, NOW - 30, false));
        check(1, 2, Some(30), (NOW - 30, NOW, true));
        check(4_070_908_800_000, 4_070_908_800_001, None, (NOW, NOW, true));
        check(i64::MIN, i64::MAX, Some(u32::MAX), (NOW - LONGEST_MS, NOW, true));
        check(NOW, NOW - hour, None, (NOW - hour, NOW - hour, true));
        check(NOW, NOW + hour, None, (NOW, NOW + hour, false));
    }

    #[test]
    fn where_our_clock_stands_wrong_the_senders_is_believed() {
        let check = |ended_at, expected: i64, clock: bool| {
            let request = LlmRequestCompleted { ended_at, ..Default::default() };
            let arrival = Arrival { at_ms: NOW, by_clock: false };
            let report = Report::received(Uuid::nil(), request, arrival);
            assert_eq!(report.request.ended_at, expected);
            assert_eq!(report.flags & flag::CLOCK != 0, clock);
        };
        let later = NOW + 400 * AHEAD_MS;
        check(later, later, false);
        // The sender is on the same machine, or has no clock.
        check(63_072_000_000, NOW, true);
        check(4_070_908_800_000, NOW, true);
        check(0, NOW, true);
    }

    #[test]
    fn absurd_figures_become_unknown() {
        let report = take(LlmRequestCompleted {
            input_tokens: Some(u64::MAX),
            output_tokens: Some(7),
            cost_nano_usd: Some(-1),
            request_bytes: Some(u64::MAX),
            project: Some("p".repeat(1000)),
            branch: Some(String::new()),
            content_ref: Some("blob:1".to_owned()),
            ..Default::default()
        });
        let request = &report.request;
        assert_eq!((request.input_tokens, request.output_tokens), (None, Some(7)));
        assert_eq!((request.cost_nano_usd, request.request_bytes), (None, None));
        assert_eq!(request.project.as_ref().map(String::len), Some(NAME_BYTES));
        assert_eq!((&request.branch, &request.content_ref), (&None, &None));
        assert_eq!(report.flags, flag::COUNT | flag::TEXT);
        assert_eq!(request.dedupe_key, format!("event:{}", Uuid::nil()));
    }

    #[test]
    fn people_become_pseudonyms_once() {
        let known = format!("session_{}", "a".repeat(26));
        let mut report = take(LlmRequestCompleted {
            source: Some(RequestSource::Transcript),
            source_ref: Some("/home/eve/.tool/projects/x.jsonl:77".to_owned()),
            session_id: Some(known.clone()),
            user: Some("user_eve".to_owned()),
            turn_id: Some("turn".to_owned()),
            ..Default::default()
        });
        report.anonymise(|kind, _| format!("{kind}_abcdefghijklmnopqrstuvwxyz"));
        let first = report.clone();
        assert_eq!(first.request.session_id, Some(known));
        assert_eq!(first.request.user.as_deref(), Some("user_abcdefghijklmnopqrstuvwxyz"));
        assert_eq!(first.request.turn_id.as_deref(), Some("turn_abcdefghijklmnopqrstuvwxyz"));
        assert_eq!(first.request.source_ref.as_deref(), Some("file_abcdefghijklmnopqrstuvwxyz:77"));
        report.anonymise(|_, _| unreachable!("everything is done already"));
        assert_eq!(report, first);
    }
}
