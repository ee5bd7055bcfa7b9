//! The merge of two reports of one request.

use module_sdk::events::{LlmRequestCompleted, RequestSource};

use crate::sanitize::{Report, flag};

/// Merges a further report of a request into the stored one.
///
/// The more trusted source takes precedence ([`RequestSource`] is in order of trust); of one source
/// what is no side chain does, and then the report with more output, since tools repeat a growing
/// answer. Fields that the first report lacks are taken from the second. Merging a report again
/// changes nothing.
#[must_use]
pub(crate) fn merge(stored: &Report, further: &Report) -> Report {
    let rank = |report: &Report| (distrust(report), report.flags & flag::SIDE_CHAIN);
    let takes_over = match rank(further).cmp(&rank(stored)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => output(further) > output(stored),
        std::cmp::Ordering::Greater => false,
    };
    let (first, second) = if takes_over { (further, stored) } else { (stored, further) };
    let clock = if first.flags & !second.flags & flag::CLOCK == 0 { first } else { second };
    let mut request = fill(&first.request, &second.request);
    (request.cache_write_5m_tokens, request.cache_write_1h_tokens) = cache_writes(first, second);
    if distrust(first) == distrust(second) {
        fuller(&mut request, second);
    }
    request.dedupe_key.clone_from(&stored.request.dedupe_key);
    request.started_at = clock.request.started_at;
    request.ended_at = clock.request.ended_at;
    let said = [first, second].into_iter().find(|report| report.stated_nano_usd.is_some());
    let stated_nano_usd = said.and_then(|report| report.stated_nano_usd);
    request.cost_nano_usd = stated_nano_usd;
    request.cost_source = said.and_then(|report| report.request.cost_source);
    request.price_version = None;
    // What was concluded from a cost is concluded again.
    let of_both = (first.flags | second.flags) & flag::DISAGREE;
    let of_first = first.flags & !(flag::CLOCK | flag::ONE_HOUR | flag::SIDE_CHAIN);
    let side_chain = first.flags & second.flags & flag::SIDE_CHAIN;
    let flags =
        of_first | (clock.flags & flag::CLOCK) | side_chain | of_both | disagree(first, second);
    let sources = stored.sources | further.sources;
    Report { event_id: stored.event_id, request, stated_nano_usd, flags, sources }
}

/// Returns the flag for two sources that say different counts.
fn disagree(one: &Report, other: &Report) -> u8 {
    if distrust(one) == distrust(other) {
        return 0;
    }
    let differ = |one: Option<u64>, other: Option<u64>| {
        one.zip(other).is_some_and(|(one, other)| one != other)
    };
    let (one, other) = (&one.request, &other.request);
    let differ = differ(one.input_tokens, other.input_tokens)
        || differ(one.output_tokens, other.output_tokens);
    if differ { flag::DISAGREE } else { 0 }
}

fn distrust(report: &Report) -> usize {
    let source = report.request.source;
    RequestSource::ALL.iter().position(|known| Some(*known) == source).unwrap_or(usize::MAX)
}

fn output(report: &Report) -> u64 {
    report.request.output_tokens.unwrap_or(0)
}

/// Takes the larger of each count from a report that is trusted as much: two instrumentations of
/// one call leave out different things, and neither counts what was not there.
fn fuller(request: &mut LlmRequestCompleted, other: &Report) {
    let all = |parts: (Option<u64>, Option<u64>)| {
        parts.0.unwrap_or_default().saturating_add(parts.1.unwrap_or_default())
    };
    let written = stated_writes(other);
    if all(written) > all((request.cache_write_5m_tokens, request.cache_write_1h_tokens)) {
        (request.cache_write_5m_tokens, request.cache_write_1h_tokens) = written;
    }
    let other = &other.request;
    for (count, other) in [
        (&mut request.input_tokens, other.input_tokens),
        (&mut request.cache_read_tokens, other.cache_read_tokens),
        (&mut request.output_tokens, other.output_tokens),
        (&mut request.reasoning_tokens, other.reasoning_tokens),
    ] {
        *count = (*count).max(other);
    }
}

/// Returns the cache writes for 5 minutes and for an hour, as they were reported.
fn stated_writes(report: &Report) -> (Option<u64>, Option<u64>) {
    let request = &report.request;
    let (short, long) = (request.cache_write_5m_tokens, request.cache_write_1h_tokens);
    if report.flags & flag::ONE_HOUR == 0 { (short, long) } else { (long, None) }
}

/// Returns the cache writes for 5 minutes and for an hour, which belong together: those of the
/// first report that has any, but split as in the other one where only that one splits them. A
/// split that was concluded from a cost is ignored.
fn cache_writes(first: &Report, second: &Report) -> (Option<u64>, Option<u64>) {
    match (stated_writes(first), stated_writes(second)) {
        ((None, None), second) => second,
        ((Some(all), None), (Some(short), Some(long))) if short.saturating_add(long) == all => {
            (Some(short), Some(long))
        }
        (first, _) => first,
    }
}

macro_rules! fill {
    ($first:ident, $second:ident, $($field:ident),+ $(,)?) => {
        LlmRequestCompleted {
            schema: $first.schema.max($second.schema),
            dedupe_key: $first.dedupe_key.clone(),
            started_at: $first.started_at,
            ended_at: $first.ended_at,
            content_ref: None,
            $($field: $first.$field.clone().or_else(|| $second.$field.clone()),)+
        }
    };
}

/// Fills the fields that `first` lacks from `second`. Every field of the type is listed, so that a
/// new one is not forgotten.
fn fill(first: &LlmRequestCompleted, second: &LlmRequestCompleted) -> LlmRequestCompleted {
    fill!(
        first,
        second,
        source,
        source_ref,
        client,
        client_version,
        session_id,
        turn_id,
        trace_id,
        span_id,
        project,
        branch,
        user,
        provider,
        upstream,
        dialect,
        operation,
        request_model,
        response_model,
        routed_model,
        service_tier,
        stream,
        status,
        http_status,
        attempt,
        retry_of,
        error_type,
        finish_reason,
        input_tokens,
        cache_read_tokens,
        cache_write_5m_tokens,
        cache_write_1h_tokens,
        output_tokens,
        reasoning_tokens,
        usage_source,
        cost_nano_usd,
        cost_source,
        price_version,
        duration_ms,
        ttfb_ms,
        ttft_ms,
        upstream_ms,
        queue_ms,
        load_ms,
        prompt_eval_ms,
        eval_ms,
        cache,
        route_rule,
        variant,
        fallback_from,
        response_id,
        upstream_request_id,
        request_bytes,
        response_bytes,
    )
}

#[cfg(test)]
mod tests {
    use module_sdk::events::CostSource;

    use super::*;

    fn report(source: RequestSource, output: Option<u64>, project: Option<&str>) -> Report {
        let request = LlmRequestCompleted {
            source: Some(source),
            output_tokens: output,
            project: project.map(str::to_owned),
            ..Default::default()
        };
        Report { request, ..Default::default() }
    }

    #[test]
    fn trust_decides_then_the_greater_output() {
        use RequestSource::{Gateway, OtlpLog, OtlpSpan};
        let check = |one: (RequestSource, u64), two: (RequestSource, u64), expected: u64| {
            let one = report(one.0, Some(one.1), None);
            let two = report(two.0, Some(two.1), None);
            for (stored, further) in [(&one, &two), (&two, &one)] {
                let merged = merge(stored, further);
                assert_eq!(merged.request.output_tokens, Some(expected));
                assert_eq!(merge(&merged, further), merged, "again changes nothing");
                assert_eq!(merge(&merged, stored), merged, "again changes nothing");
            }
        };
        check((OtlpLog, 34), (OtlpSpan, 35), 34);
        check((Gateway, 1), (OtlpLog, 34), 1);
        check((OtlpLog, 1), (OtlpLog, 34), 34);
        check((OtlpLog, 34), (OtlpLog, 34), 34);
    }

    #[test]
    fn of_two_trusted_alike_the_fuller_count_wins_field_by_field() {
        type Counts = [Option<u64>; 6];
        let of = |counts: Counts| {
            let mut report = report(RequestSource::OtlpSpan, counts[4], None);
            let request = &mut report.request;
            [
                request.input_tokens,
                request.cache_read_tokens,
                request.cache_write_5m_tokens,
                request.cache_write_1h_tokens,
                request.output_tokens,
                request.reasoning_tokens,
            ] = counts;
            report
        };
        let check = |one: Counts, other: Counts, expected: Counts| {
            let (one, other, expected) = (of(one), of(other), of(expected));
            for (stored, further) in [(&one, &other), (&other, &one)] {
                let merged = merge(stored, further);
                assert_eq!(merged, expected, "{stored:?} {further:?}");
                assert_eq!(merge(&merged, further), merged, "again changes nothing");
                assert_eq!(merge(&merged, stored), merged, "again changes nothing");
            }
        };
        let (none, whole) =
            (None, [Some(1200), Some(500), Some(100), Some(200), Some(34), Some(9)]);
        check(whole, [Some(400), none, none, none, Some(34), none], whole);
        check(whole, [Some(1200), Some(0), Some(0), Some(0), Some(34), Some(0)], whole);
        check(whole, [Some(1200), Some(500), Some(300), none, Some(1), none], whole);
        check(
            [Some(1200), Some(500), none, none, Some(33), none],
            [Some(400), none, Some(300), none, Some(34), Some(9)],
            [Some(1200), Some(500), Some(300), none, Some(34), Some(9)],
        );
        check(whole, [none; 6], whole);
    }

    #[test]
    fn what_is_unknown_is_filled_in() {
        let log = report(RequestSource::OtlpLog, None, Some("site"));
        let span = report(RequestSource::OtlpSpan, Some(5), None);
        let merged = merge(&span, &log).request;
        assert_eq!(merged.source, Some(RequestSource::OtlpLog));
        assert_eq!((merged.output_tokens, merged.project.as_deref()), (Some(5), Some("site")));
    }

    #[test]
    fn the_split_of_cache_writes_is_corrected_by_who_knows_it() {
        type Writes = (Option<u64>, Option<u64>);
        let check = |log: Writes, span: Writes, expected: Writes| {
            let of = |source, writes: Writes| {
                let mut report = report(source, Some(34), None);
                report.request.cache_write_5m_tokens = writes.0;
                report.request.cache_write_1h_tokens = writes.1;
                report
            };
            let (log, span) = (of(RequestSource::OtlpLog, log), of(RequestSource::OtlpSpan, span));
            for (stored, further) in [(&log, &span), (&span, &log)] {
                let merged = merge(stored, further);
                let request = &merged.request;
                let writes = (request.cache_write_5m_tokens, request.cache_write_1h_tokens);
                assert_eq!(writes, expected, "{stored:?} {further:?}");
                assert_eq!(merge(&merged, further), merged, "again changes nothing");
                assert_eq!(merge(&merged, stored), merged, "again changes nothing");
            }
        };
        let split = (Some(100), Some(200));
        check((Some(300), None), split, split);
        check(split, (Some(300), None), split);
        check((None, None), split, split);
        check((Some(300), None), (None, None), (Some(300), None));
        // Another total is another opinion, and the log is trusted more.
        check((Some(400), None), split, (Some(400), None));
        check((Some(300), Some(0)), split, (Some(300), Some(0)));
    }

    #[test]
    fn a_right_clock_beats_a_wrong_one() {
        let mut wrong = report(RequestSource::Gateway, None, None);
        wrong.flags = flag::CLOCK | flag::COUNT;
        let mut right = report(RequestSource::OtlpSpan, None, None);
        right.request.ended_at = 77;
        let merged = merge(&wrong, &right);
        assert_eq!((merged.request.ended_at, merged.flags), (77, flag::COUNT));
    }

    #[test]
    fn a_cost_that_was_said_is_kept_and_ours_is_not() {
        let mut ours = report(RequestSource::Gateway, None, None);
        ours.request.cost_nano_usd = Some(1);
        ours.request.cost_source = Some(CostSource::PriceTable);
        let mut said = report(RequestSource::OtlpLog, None, None);
        said.stated_nano_usd = Some(2);
        said.request.cost_source = Some(CostSource::Provider);
        for merged in [merge(&ours, &said), merge(&said, &ours)] {
            assert_eq!((merged.stated_nano_usd, merged.request.cost_nano_usd), (Some(2), Some(2)));
            assert_eq!(merged.request.cost_source, Some(CostSource::Provider));
        }
        assert_eq!(merge(&ours, &ours).request.cost_nano_usd, None);
    }

    #[test]
    fn a_split_concluded_from_a_cost_gives_way_to_one_that_was_told() {
        let mut concluded = report(RequestSource::OtlpLog, Some(34), None);
        concluded.request.cache_write_5m_tokens = Some(0);
        concluded.request.cache_write_1h_tokens = Some(300);
        concluded.flags = flag::ONE_HOUR;
        let mut told = report(RequestSource::OtlpSpan, Some(34), None);
        told.request.cache_write_5m_tokens = Some(100);
        told.request.cache_write_1h_tokens = Some(200);
        let writes = |report: &Report| {
            (report.request.cache_write_5m_tokens, report.request.cache_write_1h_tokens)
        };
        let merged = merge(&concluded, &told);
        assert_eq!((writes(&merged), merged.flags), ((Some(100), Some(200)), 0));
        let silent = report(RequestSource::OtlpSpan, Some(34), None);
        let merged = merge(&concluded, &silent);
        assert_eq!((writes(&merged), merged.flags), ((Some(300), None), 0));
    }
}
