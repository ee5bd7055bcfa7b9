//! What is chosen, and what is told of it.

use super::*;

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
