use module_sdk::events::{LlmRequestCompleted, RequestStatus};

use super::*;

const NOW: i64 = 1_795_218_560_000;

fn correlator() -> Correlator {
    Correlator::in_memory(Duration::from_secs(2), Duration::from_secs(3600))
}

/// Creates a report: its reporter, its time in milliseconds after `NOW`, its output tokens, then
/// what else is known.
fn report(
    reporter: &str,
    after_ms: i64,
    output: u64,
    set: impl FnOnce(&mut LlmRequestCompleted),
) -> Report {
    let mut report = Report {
        reporter: reporter.to_owned(),
        stated_time_ns: u64::try_from(NOW + after_ms).expect("after 1970") * 1_000_000,
        ..Report::default()
    };
    report.event = LlmRequestCompleted {
        provider: Some("anthropic".to_owned()),
        client: Some("tool".to_owned()),
        request_model: Some("claude-sonnet-4-5".to_owned()),
        session_id: Some("session-1".to_owned()),
        status: Some(RequestStatus::Ok),
        ended_at: NOW + after_ms,
        input_tokens: Some(1200),
        output_tokens: Some(output),
        ..LlmRequestCompleted::default()
    };
    set(&mut report.event);
    report
}

fn request_id(id: &str) -> impl FnOnce(&mut LlmRequestCompleted) {
    move |event| event.upstream_request_id = Some(id.to_owned())
}

fn response_id(id: &str) -> impl FnOnce(&mut LlmRequestCompleted) {
    move |event| event.response_id = Some(id.to_owned())
}

fn nothing(_: &mut LlmRequestCompleted) {}

/// Resolves reports in order; returns how each was correlated and the number of keys.
fn resolve(correlator: &mut Correlator, reports: Vec<Report>) -> (Vec<Correlated>, usize) {
    let mut keys = std::collections::BTreeSet::new();
    let joined = reports
        .into_iter()
        .map(|mut report| {
            let joined = correlator.resolve(&mut report, NOW);
            keys.insert(report.event.dedupe_key);
            joined
        })
        .collect();
    (joined, keys.len())
}

fn check(reports: Vec<Report>, expected: &[Correlated], requests: usize) {
    let (joined, keys) = resolve(&mut correlator(), reports);
    assert_eq!((joined.as_slice(), keys), (expected, requests));
}

#[test]
fn ids_make_the_key() {
    let key = |mut report: Report| {
        correlator().resolve(&mut report, NOW);
        report.event.dedupe_key
    };
    assert_eq!(key(report("log", 0, 34, request_id("req_1"))), "anthropic:req_1");
    assert_eq!(key(report("log", 0, 34, response_id("msg_1"))), "anthropic:msg_1");
    for id in [
        "req_011CSHoEeqs5C35K2UUqR7Fy",
        "chatcmpl-9aBcDeFgHiJkLmNoPq",
        "gen-1712345678-AbCdEf",
        "019aa3c1-7b5e-7000-8000-000000000001",
        "req_d17677f0_0004",
        "poison-1",
    ] {
        assert_eq!(key(report("log", 0, 34, request_id(id))), format!("anthropic:{id}"));
    }
    for id in
        ["sk-ant-api03-aB3dE5fG7hJ9kL1mN2", "req_sk-ant-api03-aB3dE5fG7h", "AKIAQWERTZUIOPASDFGH"]
    {
        let hashed = key(report("log", 0, 34, request_id(id)));
        assert!(hashed.starts_with("anthropic:hash:") && hashed.len() == 47, "{hashed}");
        assert_eq!(hashed, key(report("log", 5, 34, request_id(id))));
    }
    let hashed = key(report("log", 0, 34, nothing));
    assert!(hashed.starts_with("hash:") && hashed.len() == 37, "{hashed}");
    assert_eq!(hashed, key(report("log", 0, 34, nothing)));
    assert_ne!(hashed, key(report("log", 1, 34, nothing)));
}

#[test]
fn one_id_is_one_request_whoever_tells() {
    use Correlated::{ById, New, Resent};
    let log = || report("log", 0, 34, request_id("req_1"));
    check(vec![log(), report("span", 900_000, 35, request_id("req_1"))], &[New, ById], 1);
    check(vec![log(), log(), log()], &[New, Resent, Resent], 1);
    check(vec![log(), report("log", 0, 34, request_id("req_2"))], &[New, New], 2);
}

#[test]
fn a_report_with_both_ids_links_them() {
    use Correlated::{ById, New};
    let both = |reporter: &str| {
        report(reporter, 0, 34, |event| {
            event.upstream_request_id = Some("req_1".to_owned());
            event.response_id = Some("msg_1".to_owned());
        })
    };
    let reports =
        vec![both("sdk"), report("span", 99_000, 34, response_id("msg_1")), both("other")];
    check(reports, &[New, ById, ById], 1);
    let reports = vec![report("span", 99_000, 34, response_id("msg_1")), both("sdk"), both("log")];
    check(reports, &[New, ById, ById], 1);
}

#[test]
fn the_weak_match_is_for_different_reporters_only() {
    use Correlated::{ByCounts, New};
    let log = |after| report("log", after, 34, nothing);
    let span = |after| report("span", after, 34, nothing);
    check(vec![log(0), span(1500)], &[New, ByCounts], 1);
    check(vec![log(0), span(2500)], &[New, New], 2);
    check(vec![log(0), log(1)], &[New, New], 2);
    check(vec![log(0), log(100), span(1), span(101)], &[New, New, ByCounts, ByCounts], 2);
    check(vec![log(0), span(1), span(2)], &[New, ByCounts, New], 2);
}

#[test]
fn what_contradicts_is_not_joined() {
    use Correlated::New;
    let log = || report("log", 0, 34, request_id("req_1"));
    let check_two = |other: Report| check(vec![log(), other], &[New, New], 2);
    check_two(report("span", 1, 34, request_id("req_2")));
    check_two(report("span", 1, 35, nothing));
    check_two(report("span", 1, 34, |event| event.session_id = Some("session-2".to_owned())));
    check_two(report("span", 1, 34, |event| event.request_model = Some("gpt-5".to_owned())));
    check_two(report("span", 1, 34, |event| event.client = Some("other".to_owned())));
    check_two(report("span", 1, 34, |event| event.status = Some(RequestStatus::Error)));
}

#[test]
fn what_is_unknown_does_not_contradict() {
    use Correlated::{ByCounts, New};
    let check_one = |other: Report| {
        check(vec![report("log", 0, 34, request_id("req_1")), other], &[New, ByCounts], 1);
    };
    check_one(report("span", 1, 34, |event| event.session_id = None));
    check_one(report("span", 1, 34, |event| event.request_model = None));
    check_one(report("span", 1, 34, |event| {
        event.request_model = Some("claude-sonnet-4-5-20250929".to_owned());
    }));
}

#[test]
fn a_parent_and_its_child_span_are_one_request() {
    use Correlated::{BySpan, New};
    let span = |reporter: &str, id: &str, parent: Option<&str>, error: bool| {
        let mut report = report(reporter, 0, 34, |event| {
            event.session_id = None;
            event.trace_id = Some("t".to_owned());
            event.span_id = Some(id.to_owned());
            if error {
                event.status = Some(RequestStatus::Error);
                (event.input_tokens, event.output_tokens) = (None, None);
            }
        });
        report.parent_span_id = parent.map(str::to_owned);
        report
    };
    for error in [false, true] {
        let child = || span("sdk", "c", Some("p"), error);
        let parent = || span("instrumentation", "p", None, error);
        check(vec![child(), parent()], &[New, BySpan], 1);
        check(vec![parent(), child()], &[New, BySpan], 1);
        // A parent that tried twice has two children, which are two requests.
        let second = span("sdk", "d", Some("p"), error);
        check(vec![child(), second, parent()], &[New, New, BySpan], 2);
    }
}

#[test]
fn failures_are_joined_by_session_and_time() {
    use Correlated::{ByCounts, New};
    let failure = |reporter: &str, session: Option<&str>| {
        report(reporter, 0, 0, |event| {
            event.session_id = session.map(str::to_owned);
            event.status = Some(RequestStatus::Error);
            (event.input_tokens, event.output_tokens) = (None, None);
        })
    };
    check(vec![failure("log", Some("s")), failure("span", Some("s"))], &[New, ByCounts], 1);
    check(vec![failure("log", Some("s")), failure("span", None)], &[New, New], 2);
}

#[test]
fn a_pair_is_joined_whatever_the_time() {
    use Correlated::{ByPair, New};
    let lynex = |reporter: &str, after: i64, id: &str, output: Option<u64>| {
        let mut report = report(reporter, after, 0, |event| {
            event.output_tokens = output;
            event.input_tokens = output.map(|_| 1200);
            event.session_id = None;
        });
        report.record_id = Some(format!("p:{id}"));
        report.pair = Some("p:trace".to_owned());
        report
    };
    let usage = |after, id: &str| lynex("token_usage", after, id, Some(34));
    let response = |after, id: &str| lynex("model_response", after, id, None);
    check(vec![usage(0, "a"), response(9_000, "b")], &[New, ByPair], 1);
    check(vec![response(0, "b"), usage(9_000, "a")], &[New, ByPair], 1);
    let two = vec![usage(0, "a"), response(5, "b"), usage(7_000, "c"), response(7_005, "d")];
    check(two, &[New, ByPair, New, ByPair], 2);
}

#[test]
fn a_restart_changes_no_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || {
        let window = Duration::from_secs(2);
        Correlator::open(directory.path(), window, Duration::from_secs(3600), NOW)
            .expect("it opens")
    };
    let reports = || {
        vec![
            report("span", 0, 34, response_id("msg_1")),
            report("sdk", 0, 34, |event| {
                event.upstream_request_id = Some("req_1".to_owned());
                event.response_id = Some("msg_1".to_owned());
            }),
            report("log", 9_000, 50, nothing),
            report("span", 9_001, 50, nothing),
        ]
    };
    let keys = |correlator: &mut Correlator, mut reports: Vec<Report>| -> Vec<String> {
        for report in &mut reports {
            correlator.resolve(report, NOW);
        }
        correlator.commit(NOW).expect("it writes");
        reports.into_iter().map(|report| report.event.dedupe_key).collect()
    };
    let before = keys(&mut open(), reports());
    assert_eq!(before[0], before[1]);
    assert_eq!(before[2], before[3]);
    // Resent as a whole, and one by one from the other end.
    assert_eq!(keys(&mut open(), reports()), before);
    for index in (0..4).rev() {
        let again = keys(&mut open(), vec![reports().remove(index)]);
        assert_eq!(again, [before[index].clone()]);
    }
    // News after the restart still find their request.
    let late = report("log", 0, 34, request_id("req_1"));
    assert_eq!(keys(&mut open(), vec![late]), [before[0].clone()]);
}

#[test]
fn memory_is_bounded_in_time() {
    let mut correlator = correlator();
    let mut first = report("log", 0, 34, request_id("req_1"));
    correlator.resolve(&mut first, NOW);
    assert_eq!(correlator.len(), 1);
    correlator.refresh(NOW + 3_600_001).expect("nothing to read");
    assert_eq!(correlator.len(), 0);
    assert!(correlator.one.is_empty() && correlator.many.is_empty());
}

#[test]
fn memory_is_bounded_in_reports_of_one_request() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || {
        let window = Duration::from_secs(2);
        Correlator::open(directory.path(), window, Duration::from_secs(3600), NOW)
            .expect("it opens")
    };
    let mut correlator = open();
    let mut keys = std::collections::HashSet::new();
    for index in 0..10 * MAX_SIGHTINGS {
        // One id for everything, told by ever new reporters.
        let mut report = report(&format!("r{index}"), 0, index as u64, request_id("always"));
        correlator.resolve(&mut report, NOW);
        keys.insert(report.event.dedupe_key);
    }
    correlator.commit(NOW).expect("it writes");
    assert_eq!(keys.len(), 1, "they all join");
    assert_eq!(correlator.request(0).map(|known| known.len()), Some(MAX_SIGHTINGS));
    assert!(correlator.one.len() <= 4 * MAX_SIGHTINGS, "{}", correlator.one.len());
    assert!(correlator.many.len() <= 4 * MAX_SIGHTINGS, "{}", correlator.many.len());
    let again = open();
    assert_eq!(again.request(0).map(|known| known.len()), Some(MAX_SIGHTINGS));
    correlator.refresh(NOW + 3_600_001).expect("nothing to read");
    assert!(correlator.one.is_empty() && correlator.many.is_empty(), "all marks go with it");
}

#[test]
fn memory_is_bounded_in_number() {
    let mut correlator = correlator();
    for index in 0..=MAX_REQUESTS {
        let mut report = report("log", 0, 34, request_id(&format!("req_{index}")));
        correlator.resolve(&mut report, NOW);
    }
    correlator.refresh(NOW).expect("nothing to read");
    assert_eq!(correlator.len(), MAX_REQUESTS);
}
