//! Tests of the choice of a server, and of what is told of it.

use super::*;
use crate::{
    registry::{Digest, Lineage},
    run::RunError,
};

#[test]
fn urls_of_the_same_place_are_known_however_they_are_written() {
    let url = "http://127.0.0.1:4011/v1";
    for same in ["http://localhost:4011", "http://127.0.0.1:4011/v1", "http://[::1]:4011/v1/"] {
        assert!(is_same_place(same, url), "{same}");
    }
    for other in ["http://127.0.0.1:4012/v1", "https://127.0.0.1:4011/v1", "http://a:4011"] {
        assert!(!is_same_place(other, url), "{other}");
    }
}

#[test]
fn keys_are_long_differ_and_are_not_shown() {
    let (one, other) = (key().expect("a key"), key().expect("a key"));
    assert_ne!(one.expose(), other.expose());
    assert_eq!(one.expose().len(), 64);
    assert_eq!(format!("{one:?}"), "[redacted]");
}

#[test]
fn errors_name_the_remedy_and_have_their_kinds() {
    let looked = "/opt/lodestar-trainer".to_owned();
    let cases = [
        (ServingError::NoProgram(RunError::NoTrainer { looked }), ErrorKind::NotFound, "`serving`"),
        (ServingError::BaseChanged { base: "/b".into() }, ErrorKind::Refused, "put it back"),
        (ServingError::Ended("no".to_owned()), ErrorKind::Unavailable, "ended: no"),
        (ServingError::Address("taken".to_owned()), ErrorKind::Unavailable, "serving.listen"),
        (ServingError::Left, ErrorKind::Cancelled, "stopping"),
    ];
    for (error, kind, words) in cases {
        let error = told(error);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_policy_of_the_router_is_nothing_that_a_server_has() {
    let version = |id: &str, state, base: &str, created_at| {
        let digest = Digest::of(id.as_bytes());
        let lineage = Lineage {
            run: "r".to_owned(),
            base: base.to_owned(),
            base_digest: digest.clone(),
            dataset: "d".to_owned(),
            dataset_digest: digest.clone(),
            examples: 60,
            consents: Vec::new(),
            trainer: String::new(),
        };
        Version {
            id: id.to_owned(),
            state,
            created_at,
            updated_at: created_at,
            lineage,
            artifact: Some(digest),
            evaluation: 0,
            bench: None,
            gates: Vec::new(),
            approvals: Vec::new(),
            tainted: false,
        }
    };
    let mut ledger = Ledger::default();
    for it in [
        version("v1", State::RolledBack, "/models/base", 1),
        version("r1", State::Superseded, "router", 2),
        version("r2", State::Trained, "router", 3),
    ] {
        ledger.versions.insert(it.id.clone(), it);
    }
    assert_eq!(last_served(&ledger).map(|it| it.id.as_str()), Some("v1"));
    assert_eq!(newest_trained(&ledger).map(|it| it.id.as_str()), Some("v1"));
    ledger.versions.remove("v1");
    assert!(last_served(&ledger).is_none() && newest_trained(&ledger).is_none());
}
