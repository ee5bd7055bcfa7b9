use module_sdk::events::{LlmRequestCompleted, RequestSource, RequestStatus};

use super::*;

const NOW: i64 = 1_795_218_560_000;

fn span(id: &str, parent: Option<&str>, response: &str, counts: (u64, u64)) -> Report {
    Report {
        reporter: "otlp_span ai".to_owned(),
        parent_span_id: parent.map(str::to_owned),
        event: LlmRequestCompleted {
            source: Some(RequestSource::OtlpSpan),
            provider: Some("openai".to_owned()),
            operation: Some("chat".to_owned()),
            status: Some(RequestStatus::Ok),
            ended_at: NOW,
            trace_id: Some("t".to_owned()),
            span_id: Some(id.to_owned()),
            response_id: Some(response.to_owned()).filter(|id| !id.is_empty()),
            input_tokens: Some(counts.0),
            output_tokens: Some(counts.1),
            ..LlmRequestCompleted::default()
        },
        ..Report::default()
    }
}

fn open(directory: &Path) -> Correlator {
    let window = Duration::from_secs(2);
    Correlator::open(directory, window, Duration::from_secs(3600), NOW).expect("it opens")
}

fn resolve(correlator: &mut Correlator, mut report: Report) -> (Correlated, String, Vec<String>) {
    let joined = correlator.resolve(&mut report, NOW);
    let withdrawn = correlator.untold();
    correlator.commit(NOW).expect("it writes");
    (joined, report.event.dedupe_key, withdrawn)
}

#[test]
fn a_withdrawal_is_told_until_it_is_heard_also_across_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let outer = || span("o", None, "r-2", (30, 3));
    let (first, last) =
        (|| span("a", Some("o"), "r-1", (10, 1)), || span("b", Some("o"), "r-2", (20, 2)));
    let mut correlator = open(directory.path());
    let (joined, key, _) = resolve(&mut correlator, outer());
    assert_eq!((joined, key.as_str()), (Correlated::New, "openai:r-2"));
    // It has an id of its own as far as is known, so it is withdrawn with the last part.
    assert_eq!(resolve(&mut correlator, first()).2, Vec::<String>::new());
    let (joined, key, withdrawn) = resolve(&mut correlator, last());
    assert_eq!((joined, withdrawn), (Correlated::New, vec!["openai:r-2".to_owned()]));
    assert_ne!(key, "openai:r-2", "that key is gone for ever");
    let log = |mut report: Report| {
        report.reporter = "otlp_log x".to_owned();
        report.event.source = Some(RequestSource::OtlpLog);
        report.event.span_id = None;
        report
    };
    for _ in 0..2 {
        assert_eq!(correlator.untold(), ["openai:r-2"]);
        correlator = open(directory.path());
        // Nobody is known to have heard of it, so it is judged again.
        assert_eq!(resolve(&mut correlator, outer()).0, Correlated::Resent);
        let again = resolve(&mut correlator, last());
        assert_eq!(again, (Correlated::Resent, key.clone(), vec!["openai:r-2".to_owned()]));
    }
    correlator.told(&["openai:r-2".to_owned()]);
    correlator.commit(NOW).expect("it writes");
    for _ in 0..2 {
        assert_eq!(correlator.untold(), Vec::<String>::new());
        correlator = open(directory.path());
        assert_eq!(resolve(&mut correlator, outer()).0, Correlated::Sum);
        assert_eq!(resolve(&mut correlator, last()), (Correlated::Resent, key.clone(), vec![]));
        // Whoever knows its id still finds the call.
        assert_eq!(resolve(&mut correlator, log(last())).1, key);
    }
}

#[test]
fn a_sum_that_came_last_stays_one_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut correlator = open(directory.path());
    let inner = || span("a", Some("o"), "r-1", (10, 1));
    let outer = || span("o", None, "r-1", (10, 1));
    let (_, key, _) = resolve(&mut correlator, inner());
    assert_eq!(resolve(&mut correlator, outer()).0, Correlated::Sum);
    let mut correlator = open(directory.path());
    assert_eq!(resolve(&mut correlator, outer()).0, Correlated::Sum);
    assert_eq!(resolve(&mut correlator, inner()), (Correlated::Resent, key, vec![]));
}

#[test]
fn what_is_kept_of_sums_goes_with_time() {
    let mut correlator = Correlator::in_memory(Duration::from_secs(2), Duration::from_secs(3600));
    resolve(&mut correlator, span("o", None, "", (10, 1)));
    resolve(&mut correlator, span("a", Some("o"), "", (10, 1)));
    resolve(&mut correlator, span("p", None, "", (10, 1)));
    resolve(&mut correlator, span("b", Some("a"), "", (10, 1)));
    correlator.refresh(NOW + 3_600_001).expect("nothing to read");
    assert_eq!(correlator.len(), 0);
    assert!(
        correlator.one.is_empty() && correlator.many.is_empty() && correlator.by_span.is_empty()
    );
}

/// A request in each of 64 nested spans, then as many leaves as one body holds.
#[test]
fn each_report_of_a_body_costs_the_same_however_many_spans_are_around_it() {
    let mut correlator = Correlator::in_memory(Duration::from_secs(2), Duration::from_secs(3600));
    let name = |depth: u32| format!("o{depth}");
    for depth in 1..=64 {
        let (id, counts) = (format!("r-{depth}"), (1_000_000 * u64::from(depth), 1));
        let told =
            resolve(&mut correlator, span(&name(depth), Some(&name(depth - 1)), &id, counts));
        assert_eq!((told.0, told.2.len()), (Correlated::New, 0));
    }
    correlator.end_turn();
    let before = correlator.visited;
    let leaves = 440;
    for leaf in 0..leaves {
        let mut report = span(&format!("l{leaf}"), Some(&name(64)), &format!("l-{leaf}"), (10, 1));
        assert_eq!(correlator.resolve(&mut report, NOW), Correlated::New);
    }
    let visited = correlator.visited - before;
    assert!((1..leaves * 20).contains(&visited), "{visited}");
}

#[test]
fn links_of_a_body_judge_each_request_around_them_once() {
    let mut correlator = Correlator::in_memory(Duration::from_secs(2), Duration::from_secs(3600));
    resolve(&mut correlator, span("o", None, "", (30, 3)));
    resolve(&mut correlator, span("a", Some("s"), "r-1", (10, 1)));
    resolve(&mut correlator, span("b", Some("s"), "r-2", (20, 2)));
    let mark = |id: &str| hash(&["span", "t", id]);
    let mut links: Vec<Link> =
        (0..440).map(|step| Link { span: mark(&format!("s{step}")), parent: mark("o") }).collect();
    links.push(Link { span: mark("s"), parent: mark("o") });
    let learned = correlator.learn(&links);
    assert_eq!((learned.len(), correlator.learn(&links).len()), (441, 0));
    let around = correlator.around(&learned);
    assert_eq!(around, [mark("o")]);
    let before = correlator.visited;
    assert_eq!(correlator.withdraw_sums_in(around[0], None), 1);
    assert_eq!(correlator.untold().len(), 1);
    assert!(correlator.visited - before < 1000);
}
