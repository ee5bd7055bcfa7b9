use std::sync::Arc;

use super::*;

const NAME: &str = "lodestar_requests_total";

fn label(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

fn model(value: &str) -> Vec<(String, String)> {
    label("model", value)
}

/// Registers a counter by one label and counts one.
fn count(generation: &Instruments, label_name: &str) {
    let series = generation.series(Kind::Counter, NAME, "R.", &label(label_name, "x"));
    generation.record(series.expect("it may"), 1.0);
}

/// Creates a generation that runs.
fn running(metrics: &Arc<Metrics>, owner: &str) -> Instruments {
    let generation = metrics.generation(owner);
    generation.settle();
    generation
}

fn shows(metrics: &Metrics, line: &str) {
    let text = metrics.encode(Vec::new());
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, Vec::from_iter((!line.is_empty()).then_some(line)), "{text}");
}

#[test]
fn a_family_has_one_owner_and_one_form() {
    let metrics = Arc::<Metrics>::default();
    let (tracker, router) = (running(&metrics, "usage_tracker"), running(&metrics, "router"));
    let series =
        |kind, labels: &[(String, String)]| tracker.series(kind, NAME, "Requests.", labels);
    let first = series(Kind::Counter, &model("a")).expect("it is free");
    assert_eq!(series(Kind::Counter, &model("a")), Ok(first));
    assert_ne!(series(Kind::Counter, &model("b")), Ok(first));
    let error = router.series(Kind::Counter, NAME, "Requests.", &model("a"));
    let error = error.expect_err("it is taken").to_string();
    assert!(error.contains("belongs to usage_tracker"), "{error}");
    let changed = Err(MetricError::Changed(NAME.to_owned()));
    assert_eq!(series(Kind::Counter, &[]), changed);
    assert_eq!(series(Kind::Counter, &label("key", "a")), changed);
    assert!(router.series(Kind::Counter, "no_suffix", "h", &[]).is_err());
    assert!(router.series(Kind::Gauge, "no name", "h", &[]).is_err());
    for name in ["lodestar_module_state", "lodestar_config_x", "process_x"] {
        let error = router.series(Kind::Gauge, name, "h", &[]).expect_err("it is the host's");
        assert!(error.to_string().contains("belongs to lodestard"), "{error}");
    }
}

#[test]
fn a_generation_records_only_into_what_it_registered() {
    let metrics = Arc::<Metrics>::default();
    let (own, other) = (running(&metrics, "m"), running(&metrics, "other"));
    let series = own.series(Kind::Counter, "c_total", "C.", &model("x")).expect("it is free");
    own.record(series, 2.0);
    own.record(series, -5.0);
    own.record(99, 1.0);
    other.record(series, 100.0);
    shows(&metrics, "c_total{model=\"x\"} 2");
    own.close();
    own.record(series, 100.0);
    let error = own.series(Kind::Counter, "c_total", "C.", &model("x"));
    assert_eq!(error, Err(MetricError::Ended("c_total".to_owned())));
    shows(&metrics, "c_total{model=\"x\"} 2");
}

#[test]
fn what_did_not_change_goes_on_in_the_next_generation() {
    let metrics = Arc::<Metrics>::default();
    let first = running(&metrics, "m");
    count(&first, "model");
    // By overlap.
    let second = metrics.generation("m");
    count(&second, "model");
    second.settle();
    first.close();
    shows(&metrics, "lodestar_requests_total{model=\"x\"} 2");
    // By handover, or after a panic; with other words.
    second.close();
    let third = running(&metrics, "m");
    let series = third.series(Kind::Counter, NAME, "Better words.", &model("x"));
    third.record(series.expect("it may"), 1.0);
    shows(&metrics, "lodestar_requests_total{model=\"x\"} 3");
    let text = metrics.encode(Vec::new());
    assert!(text.contains("# HELP lodestar_requests_total Better words.\n"), "{text}");
}

#[test]
fn a_generation_may_change_its_families_once_it_runs() {
    let metrics = Arc::<Metrics>::default();
    let first = running(&metrics, "m");
    count(&first, "model");
    let second = metrics.generation("m");
    count(&second, "key");
    shows(&metrics, "lodestar_requests_total{model=\"x\"} 1");
    second.settle();
    shows(&metrics, "lodestar_requests_total{key=\"x\"} 1");
    first.close();
    // The first one comes back, as after a panic on probation.
    second.close();
    let back = running(&metrics, "m");
    count(&back, "model");
    shows(&metrics, "lodestar_requests_total{model=\"x\"} 1");
    // A change that comes late is seen at once.
    back.close();
    let late = running(&metrics, "m");
    shows(&metrics, "lodestar_requests_total{model=\"x\"} 1");
    let gauge = late.series(Kind::Counter, NAME, "R.", &[]).expect("it may");
    late.record(gauge, 4.0);
    shows(&metrics, "lodestar_requests_total 4");
}

#[test]
fn a_generation_that_is_refused_leaves_nothing() {
    for handover in [false, true] {
        let metrics = Arc::<Metrics>::default();
        let first = running(&metrics, "m");
        count(&first, "model");
        if handover {
            first.close();
        }
        let refused = metrics.generation("m");
        count(&refused, "key");
        refused.series(Kind::Gauge, "another", "A.", &[]).expect("it may");
        refused.close();
        let on = if handover { running(&metrics, "m") } else { first };
        count(&on, "model");
        shows(&metrics, "lodestar_requests_total{model=\"x\"} 2");
        assert_eq!(format!("{metrics:?}"), "Metrics(1 families)");
    }
}

#[test]
fn names_are_free_when_the_last_thread_of_their_owner_has_ended() {
    let metrics = Arc::<Metrics>::default();
    let (first, second) = (metrics.arrive("squatter"), metrics.arrive("squatter"));
    let squatter = running(&metrics, "squatter");
    count(&squatter, "model");
    let owner = running(&metrics, "owner");
    let owned = |result: Result<(), MetricError>| matches!(result, Err(MetricError::Owned { .. }));
    let register = || owner.series(Kind::Counter, NAME, "R.", &[]).map(|_| ());
    drop(first);
    assert!(owned(register()), "one of its threads lives");
    drop(second);
    assert_eq!(register(), Ok(()));
    let error = squatter.series(Kind::Counter, "x_total", "X.", &[]);
    assert_eq!(error, Err(MetricError::Ended("x_total".to_owned())));
}

#[test]
fn a_module_has_only_so_much() {
    let metrics = Arc::<Metrics>::default();
    let full = |result: Result<u64, MetricError>, expected: Bound| match result {
        Err(MetricError::Full { bound, .. }) => assert_eq!(bound, expected),
        other => panic!("{expected:?}: {other:?}"),
    };
    let gauge = |of: &Instruments, name: &str, value: &str| {
        of.series(Kind::Gauge, name, "h", &model(value))
    };
    let m = running(&metrics, "m");
    for number in 0..MAX_SERIES_OF_FAMILY {
        gauge(&m, "g", &number.to_string()).expect("there is room");
    }
    full(gauge(&m, "g", "one more"), Bound::SeriesOfFamily);
    gauge(&m, "g", "0").expect("what is there stays");
    for number in MAX_SERIES_OF_FAMILY..MAX_SERIES {
        let name = format!("g{}", number / MAX_SERIES_OF_FAMILY);
        gauge(&m, &name, &number.to_string()).expect("there is room");
    }
    full(gauge(&m, "one_more", ""), Bound::Series);

    let n = running(&metrics, "n");
    for number in 0..MAX_FAMILIES {
        gauge(&n, &format!("n{number}"), "").expect("another module has room");
    }
    full(gauge(&n, "one_more", ""), Bound::Families);

    let o = running(&metrics, "o");
    let half = "x".repeat(MAX_TEXT / 2);
    gauge(&o, "o", &half).expect("there is room");
    full(gauge(&o, "o", &format!("{half}y")), Bound::Text);
    full(o.series(Kind::Gauge, "p", &half, &[]), Bound::Text);
    full(gauge(&o, &half, ""), Bound::Text);
    // Nor by the help of a later generation.
    let later = running(&metrics, "o");
    full(later.series(Kind::Gauge, "o", &half, &model(&half)), Bound::Text);
    gauge(&later, "p", "").expect("there is room");
}

#[test]
fn what_no_generation_asks_for_any_more_makes_room() {
    let metrics = Arc::<Metrics>::default();
    for round in 0..3 {
        let generation = running(&metrics, "m");
        for number in 0..MAX_FAMILIES {
            let name = format!("g{round}_{number}");
            generation.series(Kind::Gauge, &name, "h", &[]).expect("there is room");
        }
    }
    assert_eq!(metrics.state().families.len(), MAX_FAMILIES);

    let add = |generation: &Instruments, name: &str, value: String| {
        generation.series(Kind::Counter, name, "h", &model(&value))
    };
    let n = metrics.generation("n");
    n.settle();
    add(&n, "other_total", String::new()).expect("there is room");
    for number in 0..MAX_SERIES_OF_FAMILY {
        add(&n, "n_total", number.to_string()).expect("there is room");
    }
    n.close();
    let next = running(&metrics, "n");
    add(&next, "n_total", "new".to_owned()).expect("there is room");
    assert!(metrics.state().families.contains_key("other_total"), "it is not in the way");
}

#[test]
fn a_gauge_that_is_cleared_is_not_shown() {
    let metrics = Arc::<Metrics>::default();
    let m = running(&metrics, "m");
    let gauge = |value: &str| m.series(Kind::Gauge, "g", "G.", &model(value)).expect("it may");
    let (first, second) = (gauge("a"), gauge("b"));
    m.record(first, 0.0);
    m.record(second, f64::NAN);
    shows(&metrics, "g{model=\"a\"} 0");
    m.record(first, f64::NAN);
    assert_eq!(metrics.encode(Vec::new()), "", "without a series there is no family");
    m.record(second, f64::INFINITY);
    shows(&metrics, "g{model=\"b\"} inf");
    assert_eq!(gauge("a"), first);
    m.record(first, 1.0);
    m.record(second, f64::NAN);
    shows(&metrics, "g{model=\"a\"} 1");
}

#[test]
fn a_gauge_ends_with_the_last_generation_that_has_it() {
    let metrics = Arc::<Metrics>::default();
    let set = |generation: &Instruments, value: &str| {
        let series = generation.series(Kind::Gauge, "g", "G.", &model(value));
        generation.record(series.expect("it may"), 1.0);
    };
    let first = running(&metrics, "m");
    set(&first, "a");
    // One that is refused takes nothing with it.
    let refused = metrics.generation("m");
    set(&refused, "a");
    refused.close();
    shows(&metrics, "g{model=\"a\"} 1");
    // By overlap.
    let second = metrics.generation("m");
    set(&second, "a");
    second.settle();
    first.close();
    shows(&metrics, "g{model=\"a\"} 1");
    // By handover, with another thing to tell of.
    second.close();
    shows(&metrics, "");
    let third = running(&metrics, "m");
    set(&third, "b");
    shows(&metrics, "g{model=\"b\"} 1");
}

#[test]
fn what_is_cleared_makes_room() {
    let metrics = Arc::<Metrics>::default();
    let m = running(&metrics, "m");
    let gauge = |value: usize| m.series(Kind::Gauge, "g", "G.", &model(&value.to_string()));
    let mut handles = Vec::new();
    for number in 0..10 * MAX_SERIES_OF_FAMILY {
        let handle = gauge(number).expect("there is room");
        m.record(handle, 1.0);
        handles.push(handle);
        if number >= 10 {
            m.record(handles[number - 10], f64::NAN);
        }
    }
    assert_eq!(metrics.encode(Vec::new()).lines().count(), 2 + 10);
    assert!(m.held() <= MAX_SERIES_OF_FAMILY, "{} handles are held", m.held());
    let texts: usize = metrics.state().forms_of("m").map(Form::text).sum();
    assert!(texts <= 4 * MAX_SERIES_OF_FAMILY + 8, "{texts}");
    // One that comes back gets a place again.
    m.record(gauge(0).expect("there is room"), 5.0);
    let text = metrics.encode(Vec::new());
    assert!(text.contains("\ng{model=\"0\"} 5\n"), "{text}");
}

#[test]
fn errors_name_the_bound() {
    let check = |bound, words: &str| {
        let error = MetricError::Full { name: "g".to_owned(), bound };
        assert!(error.to_string().contains(words), "{error}");
    };
    check(Bound::Families, "at most 256 families");
    check(Bound::SeriesOfFamily, "at most 1000 series");
    check(Bound::Series, "at most 10000 series");
    check(Bound::Text, "at most 1048576 bytes");
}

#[test]
fn writes_families_by_name_and_series_by_label() {
    let metrics = Arc::<Metrics>::default();
    let m = running(&metrics, "m");
    for value in ["b", "a"] {
        m.record(m.series(Kind::Counter, "c_total", "C.", &model(value)).expect("free"), 2.0);
    }
    m.record(m.series(Kind::Gauge, "a", "A.", &[]).expect("free"), 0.5);
    let mut own = Snapshot::default();
    own.family(Kind::Gauge, "b", "B.", &[], [(vec![], 1.0)]);
    let expected = "# HELP a A.\n# TYPE a gauge\na 0.5\n# HELP b B.\n# TYPE b gauge\nb 1\n\
                    # HELP c_total C.\n# TYPE c_total counter\nc_total{model=\"a\"} 2\n\
                    c_total{model=\"b\"} 2\n";
    assert_eq!(metrics.encode(own.finish()), expected);
}
