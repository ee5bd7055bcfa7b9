//! Providers that hang, lie, refuse or shout.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use module_sdk::events::{HealthAlertRaised, HealthAlertResolved};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use serde_json::{Value, json};

use crate::{
    fake_provider::{Answer, FakeProvider, json as answer, typed},
    watching::Watching,
};

const LIST: &str = r#"{"object":"list","data":[{"id":"good"},{"id":"better"}]}"#;

fn openai(server: &FakeProvider) -> Value {
    json!({"api": "openai", "base_url": server.url(), "local": true})
}

fn checks() -> Value {
    json!({"providers": {"deadline_ms": 1_000, "remote_interval_ms": 1_000}})
}

fn redirect(to: &str) -> Answer {
    Answer::Text(format!(
        "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ))
}

/// Makes an authority and a certificate of `localhost` that it signed, until a year.
fn certificate(last_year: i32) -> (String, ServerConfig) {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
    let own = key();
    let signed = params.signed_by(&own, &authority).expect("a certificate");
    let chain: Vec<CertificateDer<'static>> = vec![signed.der().clone()];
    let own = PrivateKeyDer::Pkcs8(own.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, own)
        .expect("a certificate with its key");
    (authority.pem(), config)
}

#[test]
fn every_fault_is_told_in_words_and_delays_no_other() {
    let well = FakeProvider::start(answer(200, LIST));
    let hangs = FakeProvider::start(Answer::Silence);
    let html = FakeProvider::start(typed(200, "text/html", "<html>sign in"));
    let error = FakeProvider::start(answer(200, r#"{"error":{"code":"overloaded"}}"#));
    let (_, tls) = certificate(2090);
    let untrusted = FakeProvider::encrypted(answer(200, LIST), tls);
    let moved = FakeProvider::start(redirect("http://169.254.169.254/latest/meta-data/"));
    let broken = FakeProvider::start(answer(503, ""));
    let limited = FakeProvider::start(answer(429, ""));
    let mut watching = Watching::start(
        json!({
            "well": openai(&well),
            "hangs": openai(&hangs),
            "html": openai(&html),
            "error": openai(&error),
            "untrusted": openai(&untrusted),
            "moved": openai(&moved),
            "broken": openai(&broken),
            "limited": openai(&limited),
            "metadata": {"api": "openai", "base_url": "http://169.254.169.254", "local": true},
            // 10.0.0.1, as a person would not write it.
            "private": {"api": "openai", "base_url": "http://0x0a000001", "local": false},
        }),
        checks(),
    );
    for (name, reason) in [
        ("hangs", "no answer within 1"),
        ("html", "a web page"),
        ("error", "the error overloaded"),
        ("untrusted", "signed by nobody who is trusted"),
        ("moved", "redirects to http://169.254.169.254, which is not followed"),
        ("broken", "HTTP 503"),
        ("metadata", "the metadata service"),
        ("private", "nothing says `local: true`"),
    ] {
        let component = format!("provider.{name}");
        watching.once(&component, |check| check["status"] == "warning");
        watching.says(&component, reason);
    }
    assert_eq!(watching.message("provider.well", "ok"), "");
    assert_eq!(watching.message("provider.limited", "ok"), "");
    assert_eq!(watching.message("model.good", "ok"), "");
    assert!(untrusted.requests().is_empty(), "nothing is sent to who is not trusted");
    let before = well.accepted();
    watching.once("provider.well", |_| well.accepted() > before + 3);
}

#[test]
fn a_provider_that_goes_and_comes_back_is_told_once_each() {
    let server = FakeProvider::start(answer(200, LIST));
    let mut providers = json!({"house": openai(&server)});
    providers["house"]["models"] = json!(["good"]);
    let mut watching = Watching::start(providers, checks());
    watching.once("model.good", |check| check["status"] == "ok");
    watching.once("models", |check| check["value"] == 2.0);

    server.answer(Answer::Text(String::new()));
    watching.once("provider.house", |check| check["status"] == "warning");
    watching.once("models", |check| check["status"] == "critical");
    watching.pass(70);
    let mut alerts = watching.alerts();
    alerts.sort();
    assert_eq!(alerts, ["all_models_down", "model_down", "model_down", "provider_down"]);

    server.answer(answer(200, LIST));
    watching.once("provider.house", |check| check["status"] == "ok");
    watching.once("models", |check| check["status"] == "ok");
    watching.pass(301);
    assert_eq!(watching.alerts(), Vec::<String>::new());
    let host = watching.bench.host();
    let raised: Vec<HealthAlertRaised> = host.emitted_as().expect("they have the form");
    let resolved: Vec<HealthAlertResolved> = host.emitted_as().expect("they have the form");
    assert_eq!((raised.len(), resolved.len()), (4, 4), "{raised:#?}");
}

#[test]
fn a_refused_key_is_a_warning_of_its_own_and_shown_nowhere() {
    let server = FakeProvider::start(answer(401, r#"{"error":"bad key sk-canary-1234"}"#));
    let mut providers = json!({"house": openai(&server), "open": openai(&server)});
    providers["house"]["key"] = json!("sk-canary-1234");
    providers["house"]["models"] = json!(["good"]);
    let mut watching = Watching::start(providers, checks());
    assert!(watching.message("provider.house", "warning").contains("refuses the API key"));
    let keyless = watching.message("provider.open", "ok");
    assert_eq!(keyless, "it answers, and tells more only with a key");
    watching.pass(61);
    assert!(watching.alerts().contains(&"provider_key_refused".to_owned()));
    assert!(!watching.alerts().contains(&"provider_down".to_owned()));
    assert!(server.requests().iter().any(|it| it.contains("Bearer sk-canary-1234")));

    let host = watching.bench.host().clone();
    let shown = format!("{:?} {:?} {:?}", host.logged(), host.emitted(), host.metrics());
    let checks = format!("{:?}", watching.checks());
    assert!(!shown.contains("canary") && !checks.contains("canary"));
    for file in std::fs::read_dir(watching.directory()).expect("it is there") {
        let path = file.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("it is read");
        assert!(!bytes.windows(6).any(|it| it == b"canary"), "{}", path.display());
    }
}

#[test]
fn an_ollama_shows_what_it_has_and_what_is_loaded() {
    // Both questions get the same answer, which has what either is read for.
    let models = r#"{"models":[
        {"name":"qwen3:8b","size":5368709120,"size_vram":2147483648},
        {"name":"\u001b[31mred\nline"}]}"#;
    let server = FakeProvider::start(answer(200, models));
    let mut providers = json!({"gpu": openai(&server)});
    providers["gpu"]["api"] = json!("ollama");
    let mut watching = Watching::start(providers, checks());
    let loaded = watching.message("model.qwen3:8b", "ok");
    assert_eq!(
        loaded,
        "loaded: 2 GiB of 5 GiB in the GPU's memory, the rest runs on the \
                        processor"
    );
    watching.once("model.\\u{1b}[31mred\\u{a}line", |check| check["status"] == "ok");
    let shown = watching.bench.command("checks", json!({})).expect("it answers");
    let shown = serde_json::to_string(&shown.table).expect("a table");
    assert!(!shown.contains("\\u001b") && !shown.contains('\u{1b}'), "{shown}");
    let paths: Vec<String> = server.requests();
    assert!(paths.iter().any(|it| it.starts_with("GET /api/tags ")));
    assert!(paths.iter().any(|it| it.starts_with("GET /api/ps ")));
}

#[test]
fn ten_thousand_models_are_fifty() {
    let names: Vec<Value> = (0..10_000).map(|number| json!({"id": format!("m{number}")})).collect();
    let server = FakeProvider::start(answer(200, &json!({"data": names}).to_string()));
    let mut watching = Watching::start(json!({"many": openai(&server)}), checks());
    let message = watching.message("provider.many", "ok");
    assert_eq!(message, "9,950 of its models are not watched");
    let models = watching.checks().into_iter();
    let models = models.filter(|it| it["name"].as_str().is_some_and(|it| it.starts_with("model.")));
    assert_eq!(models.count(), 50);
}

#[test]
fn a_named_model_that_is_not_listed_is_down() {
    let server = FakeProvider::start(answer(200, LIST));
    let mut providers = json!({"house": openai(&server)});
    providers["house"]["models"] = json!(["good", "gone"]);
    let mut watching = Watching::start(providers, checks());
    let message = watching.message("model.gone", "warning");
    assert!(message.starts_with("gone cannot be asked at house"), "{message}");
    watching.once("model.good", |check| check["status"] == "ok");
    watching.once("models", |check| check["value"] == 2.0 && check["status"] == "ok");
}

#[test]
fn a_certificate_that_ends_is_told_before() {
    let (authority, tls) = certificate(2090);
    let server = FakeProvider::encrypted(answer(200, LIST), tls);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), authority).expect("it is written");
    let mut checks = checks();
    checks["providers"]["certificates"] = json!(file.path());
    let mut watching = Watching::start(json!({"house": openai(&server)}), checks);
    watching.once("provider.house", |check| check["status"] == "ok");
    let at = |time: &str| time.parse().expect("a time");
    watching.bench.host().set_now(at("2089-12-25T00:00:00Z"));
    let message = watching.message("provider.house", "warning");
    assert!(message.starts_with("The certificate of provider.house is valid for 7d"), "{message}");
    watching.bench.host().set_now(at("2089-12-31T00:00:00Z"));
    let message = watching.message("provider.house", "critical");
    assert!(message.contains("valid for 1d"), "{message}");
}

#[test]
fn a_module_without_providers_has_them_absent() {
    let mut watching = Watching::start(json!({}), checks());
    let message = watching.message("providers", "absent");
    assert_eq!(message, "no provider is configured (`providers:` in modules.yaml)");
}

#[test]
fn own_providers_join_those_of_the_configuration() {
    let server = FakeProvider::start(answer(200, LIST));
    let mut checks = checks();
    checks["providers"]["extra"] = json!({"mine": openai(&server)});
    let mut watching = Watching::start(json!({"house": openai(&server)}), checks);
    watching.once("provider.mine", |check| check["status"] == "ok");
    watching.once("provider.house", |check| check["status"] == "ok");
}

#[test]
fn a_probe_that_hangs_does_not_hold_up_a_stop() {
    let server = FakeProvider::start(Answer::Silence);
    let mut checks = checks();
    checks["providers"]["deadline_ms"] = json!(600_000);
    checks["providers"]["interval_ms"] = json!(600_000);
    let mut watching = Watching::start(json!({"house": openai(&server)}), checks);
    let begun = Instant::now();
    while server.requests().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not asked");
        watching.pass(1);
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let begun = Instant::now();
    watching.bench.stop().expect("it stops");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
