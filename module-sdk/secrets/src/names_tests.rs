//! Texts that are no secrets and must stay, though they look a little like one.

use super::*;

#[test]
fn names_of_models_stay() {
    let redactor = Redactor::new();
    let names = include_str!("../../src/events/model_name/names.txt");
    let names: Vec<&str> = names.lines().filter(|line| !line.starts_with(['#', '/'])).collect();
    assert!(names.len() > 400);
    for name in names {
        assert_eq!(redactor.redact(name), name);
        let id = format!("openai:{name}:2026-11-29T10:00:00Z");
        assert_eq!(redactor.redact(&id), id);
    }
}

#[test]
fn names_that_begin_like_a_secret_stay() {
    let redactor = Redactor::new();
    let marks = KINDS.iter().flat_map(|kind| kind.marks).filter(|mark| mark.len() <= 5);
    let short: Vec<&&str> = marks.filter(|mark| mark.ends_with(['-', '_', '.'])).collect();
    assert!(short.len() > 40);
    for mark in short {
        for rest in [
            "implement-new-payment-authorization-flow-for-all-customers-of-the-shop",
            "1234-implement-new-payment-authorization-flow-for-all-customers",
            "pricing_model_comparison_of_the_second_quarter_2026_with_claude_sonnet_4_5",
            "AddNewPayment-ForAllCustomers-OfTheShop-AndOfOthers",
            "datacenter-agents-nightly-v3p1-405b-2026-11-29",
        ] {
            for name in [format!("{mark}{rest}"), format!("feature/{mark}{rest}")] {
                assert_eq!(redactor.redact(&name), name);
            }
        }
    }
}

#[test]
fn where_a_secret_is_may_be_told() {
    let redactor = Redactor::new();
    for text in [
        "write `api_key: ${OPENAI_API_KEY}` into its section",
        "api_key: ${OPENAI_API_KEY}",
        "password=\"${DB_PASSWORD}\"",
        "client_secret: file:/run/secrets/client",
        "Authorization: Bearer ${TOKEN_OF_MINE}",
        "https://joe:${PASSWORD}@host/x?api_key=${API_KEY}",
        r#"{"api_key":"${OPENAI_API_KEY}","password":"file:~/password"}"#,
    ] {
        assert_eq!(redactor.redact(text), text);
        assert_eq!(redactor.redact_data(text.as_bytes()), None, "{text}");
    }
    for text in ["password: ${A}hunter22hunter", "api_key: ${A:-hunter22}", "secret=file:hunter22"]
    {
        assert!(!redactor.redact(text).contains("hunter22"), "{text}");
    }
}

#[test]
fn settings_that_are_no_secrets_stay_in_data() {
    let redactor = Redactor::new();
    // `project: ${PROJECT}`, `password: postgres`, and two that are secrets.
    redactor.learn("billing");
    redactor.learn("an_unusually_long_project_name");
    redactor.learn_secret("postgres");
    redactor.learn_secret("correct-horse-battery");
    redactor.learn_secret("hunter2Hunt3r");
    let kept = r#"{"model":"billing","an_unusually_long_project_name":"my postgres","a":["billing"],
        "correct-horse-battery":1}"#;
    assert_eq!(redactor.redact_data(kept.as_bytes()), None);
    assert_eq!(redactor.redact_data_to_alias(kept.as_bytes(), &|_| "x".to_owned()), None);
    assert_eq!(redactor.redact_name("postgres.billing"), "postgres.billing");
    assert_eq!(redactor.redact_name_to_alias("billing", &|_| "x".to_owned()), "billing");
    assert_eq!(redactor.redact("a billing, my postgres"), "a [redacted], my [redacted]");
    let logged = redactor.redact_json(br#"{"billing":"postgres"}"#).expect("both are found");
    assert_eq!(logged, br#"{"[redacted]":"[redacted]"}"#);
    for secret in ["correct-horse-battery", "hunter2Hunt3r"] {
        let data = format!(r#"{{"model":"a {secret}"}}"#);
        let data = redactor.redact_data(data.as_bytes()).expect("it is found");
        assert_eq!(data, br#"{"model":"a [redacted]"}"#);
        assert_eq!(redactor.redact_name(secret), REPLACEMENT);
    }
    // The same text behind two settings is a secret in both.
    redactor.learn_secret("an_unusually_long_project_name");
    assert_eq!(redactor.redact_name("an_unusually_long_project_name"), REPLACEMENT);
}

#[test]
fn keys_of_chance_are_taken_for_keys() {
    // A generator of its own: the same keys each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = |of: &[u8]| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(of[usize::try_from(state >> 33).expect("31 bits") % of.len()])
    };
    let base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (of, length) in [(&base64[..62], 24), (b"0123456789abcdef", 32), (&base64[..], 40)] {
        let keys = (0..1000).map(|_| (0..length).map(|_| letter(of)).collect::<String>());
        let missed: Vec<String> = keys.filter(|key| !looks_random(key)).collect();
        assert!(missed.len() < 10, "{missed:?}");
    }
}
