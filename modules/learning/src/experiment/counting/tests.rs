use module_sdk::events::{LlmRequestCompleted, RequestSource, RequestStatus};

use super::*;
use crate::experiment::{
    Experiment, Plan, Unit,
    store::{self, Route},
};

/// Time from the assignment to the outcome in these tests.
const WINDOW: i64 = 1_000;

fn database() -> Connection {
    let connection = Connection::open_in_memory().expect("a database");
    connection.execute_batch(store::MIGRATION).expect("the schema is valid");
    connection
}

fn new(id: &str, trial: Trial) -> Stored {
    let model = "shop:v2".to_owned();
    Stored {
        id: id.to_owned(),
        champion: Some("v1".to_owned()),
        challenger: "v2".to_owned(),
        route: Route {
            models: vec!["shop".to_owned()],
            model,
            provider: None,
            percent: 50,
            unit: Unit::Session,
            outcome_seconds: 1,
        },
        trial,
        started_by: "ada".to_owned(),
        reason: "why not".to_owned(),
        created_at: 1,
        ended_at: None,
        end_reason: None,
    }
}

fn split(plan: Plan) -> Trial {
    Trial::Split(Experiment::new(plan).expect("the plan is valid"))
}

fn event(session: &str, request: &str, side: &str) -> LlmRequestCompleted {
    LlmRequestCompleted {
        source: Some(RequestSource::Gateway),
        source_ref: Some(request.to_owned()),
        session_id: Some(session.to_owned()),
        variant: Some(format!("one:{side}")),
        status: Some(RequestStatus::Ok),
        duration_ms: Some(100),
        started_at: 10,
        ended_at: 110,
        ..LlmRequestCompleted::default()
    }
}

fn see(connection: &Connection, stored: &mut Stored, event: &LlmRequestCompleted) {
    let seen = Observation::of(event, "one").expect("it is of it");
    observe(connection, stored, &seen).expect("it is written");
}

fn summary(stored: &Stored) -> crate::experiment::Summary {
    match &stored.trial {
        Trial::Split(experiment) => experiment.summary(),
        Trial::Shadow(_) => panic!("it is no shadow"),
    }
}

/// Returns whether the one session of the events ends with a good outcome.
fn outcome(events: &[LlmRequestCompleted], given: &[Feedback<'_>]) -> bool {
    let connection = database();
    let mut stored = new("one", split(Plan { challenger_percent: 50, ..Plan::default() }));
    assert!(store::begin(&connection, &stored).expect("it is written"));
    for event in events {
        see(&connection, &mut stored, event);
    }
    for given in given {
        feedback(&connection, &stored, given).expect("it is written");
    }
    // The other arm, so that the block is whole.
    see(&connection, &mut stored, &event("other", "other", "variant"));
    let counted = close_due(&connection, &mut stored, 5_000, 10);
    assert_eq!(counted.expect("it is written"), 2);
    let [champion, _] = summary(&stored).outcomes;
    assert_eq!(champion.all, 1);
    champion.good == 1
}

#[test]
fn a_session_has_one_outcome() {
    let served = event("s", "r1", "control");
    let with = |change: fn(&mut LlmRequestCompleted)| {
        let mut event = served.clone();
        change(&mut event);
        event
    };
    let failed = with(|it| it.status = Some(RequestStatus::Error));
    let second = with(|it| it.attempt = Some(2));
    let refused = with(|it| it.finish_reason = Some("refusal".to_owned()));
    let other = with(|it| it.source_ref = Some("r2".to_owned()));
    let given_up = with(|it| it.status = Some(RequestStatus::ClientAbort));
    assert!(outcome(std::slice::from_ref(&served), &[]));
    assert!(outcome(&[served.clone(), other.clone()], &[]));
    assert!(!outcome(std::slice::from_ref(&failed), &[]));
    assert!(!outcome(&[other.clone(), failed.clone()], &[]));
    assert!(!outcome(&[refused], &[]));
    assert!(!outcome(&[given_up], &[]), "nobody got an answer");
    // What was answered in the end was answered, in whichever order that is told.
    assert!(outcome(&[failed.clone(), second.clone()], &[]));
    assert!(outcome(&[second, failed], &[]));
    // The same request once more, of the same size, says that the answer was not good.
    let sized = with(|it| it.request_bytes = Some(900));
    let again = |at: i64| LlmRequestCompleted {
        source_ref: Some("r2".to_owned()),
        request_bytes: Some(900),
        started_at: at,
        ended_at: 900,
        ..served.clone()
    };
    assert!(!outcome(&[sized.clone(), again(500)], &[]));
    assert!(outcome(&[sized.clone(), again(90_000)], &[]));
    let longer = LlmRequestCompleted { request_bytes: Some(901), ..again(500) };
    assert!(outcome(&[sized, longer], &[]));
}

#[test]
fn what_is_said_of_an_answer_counts_for_more() {
    let served = event("s", "r1", "control");
    let failed = LlmRequestCompleted { status: Some(RequestStatus::Error), ..served.clone() };
    let said = |id: &'static str, rating: f64, weight: f64| Feedback {
        id,
        request: Some("r1"),
        session: None,
        rating: Some(rating),
        weight,
        redone: false,
    };
    let check = |event: &LlmRequestCompleted, given: &[Feedback<'_>], expected: bool| {
        assert_eq!(outcome(std::slice::from_ref(event), given), expected, "{given:?}");
    };
    check(&served, &[said("a", 0.0, 1.0)], false);
    check(&failed, &[said("a", 1.0, 1.0)], true);
    check(&served, &[said("a", 0.0, 1.0), said("b", 1.0, 0.3)], false);
    // Told twice it counts once.
    check(&served, &[said("a", 0.0, 0.5), said("b", 1.0, 0.3), said("b", 1.0, 0.3)], false);
    check(&served, &[Feedback { redone: true, ..said("a", 1.0, 1.0) }], false);
    let of_session = Feedback { request: None, session: Some("s"), ..said("a", 0.0, 1.0) };
    check(&served, std::slice::from_ref(&of_session), false);
    check(&served, &[Feedback { session: Some("nobody"), ..of_session }], true);
    check(&served, &[Feedback { rating: None, ..said("a", 0.0, 1.0) }], true);
}

#[test]
fn what_comes_late_or_twice_changes_nothing() {
    let connection = database();
    let mut stored = new("one", split(Plan::default()));
    assert!(store::begin(&connection, &stored).expect("it is written"));
    assert!(!store::begin(&connection, &new("two", split(Plan::default()))).expect("looked at"));
    let served = event("s", "r1", "control");
    for _ in 0..3 {
        see(&connection, &mut stored, &served);
    }
    // Its arm is the one that it was assigned to, whatever it is told to get later.
    see(&connection, &mut stored, &event("s", "r2", "variant"));
    assert_eq!(summary(&stored).assigned, [1, 0]);
    // Another version of the story comes when its time has passed.
    let late = LlmRequestCompleted {
        status: Some(RequestStatus::Error),
        ended_at: 110 + WINDOW + 1,
        ..event("s", "r3", "control")
    };
    see(&connection, &mut stored, &late);
    assert_eq!(close_due(&connection, &mut stored, 110, 10).expect("it is read"), 0);
    assert_eq!(close_due(&connection, &mut stored, 2_000, 10).expect("it is read"), 1);
    let before = stored.clone();
    for event in [&served, &late] {
        see(&connection, &mut stored, event);
    }
    assert_eq!(close_due(&connection, &mut stored, 9_000, 10).expect("it is read"), 0);
    assert_eq!(stored, before);
    store::keep(&connection, &stored).expect("it is written");
    let read = store::going_on(&connection).expect("it is read").expect("it goes on");
    assert_eq!(summary(&read).units, 1);

    // No session can be read from the database, and after the end there is none.
    let plain = "SELECT COUNT(*) FROM experiment_unit WHERE CAST(unit AS TEXT) = 's'";
    let count =
        |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).expect("it is read") };
    assert_eq!(count(plain), 0);
    assert!(store::finish(&connection, "one", "enough", 7).expect("it is written"));
    assert!(!store::finish(&connection, "one", "again", 8).expect("it is looked at"));
    assert_eq!(count("SELECT COUNT(*) FROM experiment_unit"), 0);
    assert_eq!(store::unsettled(&connection).expect("they are read"), ["one"]);
    store::settle(&connection, "one").expect("it is written");
    assert!(store::unsettled(&connection).expect("they are read").is_empty());
    let ended = store::load(&connection, "one").expect("it is read").expect("it is there");
    assert_eq!((ended.ended_at, ended.end_reason.as_deref()), (Some(7), Some("enough")));
    assert!(store::begin(&connection, &new("two", split(Plan::default()))).expect("written"));
    let all = store::list(&connection, 10).expect("they are read");
    assert_eq!(all.len(), 2);
}

#[test]
fn pairs_are_counted_once_both_are_there() {
    let connection = database();
    let paired = Paired::new(Plan::default()).expect("the plan is valid");
    let mut stored = new("one", Trial::Shadow(paired));
    assert!(store::begin(&connection, &stored).expect("it is written"));
    let pairs = |stored: &Stored| match &stored.trial {
        Trial::Shadow(paired) => paired.pairs(),
        Trial::Split(_) => panic!("it is a shadow"),
    };
    let beside = |request: &str| LlmRequestCompleted {
        session_id: None,
        duration_ms: Some(300),
        ..event("", request, "shadow")
    };
    see(&connection, &mut stored, &event("s", "r1", "control"));
    assert_eq!(pairs(&stored), 0);
    see(&connection, &mut stored, &beside("r1"));
    assert_eq!(pairs(&stored), 1);
    for event in [beside("r1"), event("s", "r1", "control"), beside("r2"), beside("r2")] {
        see(&connection, &mut stored, &event);
    }
    assert_eq!(pairs(&stored), 1);
    see(&connection, &mut stored, &event("s", "r2", "control"));
    assert_eq!(pairs(&stored), 2);
    // What nobody was asked beside is forgotten.
    see(&connection, &mut stored, &event("s", "r3", "control"));
    close_due(&connection, &mut stored, 110 + PAIRING_MS + 1, 10).expect("it is written");
    let sql = "SELECT COUNT(*), SUM(paired) FROM experiment_request";
    let kept: (i64, i64) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("it is read");
    assert_eq!(kept, (2, 2));
    let Trial::Shadow(paired) = &stored.trial else { panic!("it is a shadow") };
    let latency = paired.summary().into_iter().find(|it| it.name == crate::experiment::LATENCY);
    let latency = latency.expect("it was measured");
    assert_eq!((latency.served, latency.beside), (100.0, 300.0));
}
