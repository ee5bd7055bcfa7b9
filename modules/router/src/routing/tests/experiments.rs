//! Experiments that a command begins.

use std::sync::Arc;

use module_sdk::testing::FakeHost;
use serde_json::json;

use super::{Site, asked};
use crate::{
    routing::{Request, experiment::Unit, running::Begun},
    target::Availability,
};

/// Begins an experiment at a site.
fn begin(site: &Site, change: impl FnOnce(&mut Begun)) {
    let mut begun = Begun {
        id: "v2-a1".to_owned(),
        models: vec!["*".to_owned()],
        targets: vec!["home/qwen3:8b".to_owned()],
        share: 0.25,
        by: Unit::Session,
        salt: "pepper".to_owned(),
        shadow: None,
        lease_seconds: None,
        created_at: jiff::Timestamp::UNIX_EPOCH,
    };
    change(&mut begun);
    let directory = tempfile::tempdir().expect("a directory");
    let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
    site.policy.running.begin(&host, begun).expect("it begins");
}

/// Returns side and order for each of forty sessions, each pair once.
fn drawn(site: &Site, model: &str) -> Vec<String> {
    let inspected = asked(model, "Translate this.");
    let mut all: Vec<String> = (0..40)
        .map(|session| {
            let session = session.to_string();
            let request = Request { session: Some(&session), ..site.request(&inspected) };
            let decision = site.decide(&request).expect("decided");
            let side = decision.variant.as_deref().unwrap_or("-");
            let shadow = decision.shadow.as_ref().map(|it| format!(" beside {it}"));
            format!("{side}: {}{}", super::order(&decision), shadow.unwrap_or_default())
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn the_share_gets_the_variant_and_all_others_are_compared_with_it() {
    let site = Site::new(json!({}));
    begin(&site, |_| {});
    let inspected = asked("llama3", "Translate this.");
    let mut variants = 0;
    for session in 0..4_000 {
        let session = format!("session-{session}");
        let request = Request { session: Some(&session), ..site.request(&inspected) };
        let variant = site.decide(&request).expect("decided").variant.expect("all take part");
        // GrowthBook's hash, version 2, as it is published.
        let fnv = |text: &str| {
            text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
                (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
            })
        };
        let bucket = fnv(&fnv(&format!("pepper{session}")).to_string()) % 10_000;
        let side = if bucket < 2_500 { "variant" } else { "control" };
        assert_eq!(variant, format!("v2-a1:{side}"));
        variants += u32::from(side == "variant");
    }
    assert!((900..1_100).contains(&variants), "{variants}");
    // Without a session nobody takes part; by person it is the person that counts.
    assert_eq!(site.decide(&site.request(&inspected)).expect("decided").variant, None);
    let site = Site::new(json!({}));
    begin(&site, |it| it.by = Unit::User);
    let request = Request { session: Some("s"), ..site.request(&inspected) };
    assert_eq!(site.decide(&request).expect("decided").variant, None);
    let request = Request { user: Some("ada"), ..request };
    assert!(site.decide(&request).expect("decided").variant.is_some());
}

#[test]
fn what_would_answer_anyway_stands_behind_the_variant() {
    let home = "home/llama3:latest";
    let both =
        |variant: &str| vec![format!("v2-a1:control: {home}"), format!("v2-a1:variant: {variant}")];
    let site = Site::new(json!({}));
    begin(&site, |_| {});
    assert_eq!(drawn(&site, "llama3"), both(&format!("home/qwen3:8b {home}")));
    // One that is down is asked last, and the one that needs more than it has not at all.
    let down = |view: &mut crate::target::TargetView| {
        view.availability = Availability::BreakerOpen;
    };
    let site = Site::new(json!({})).with("home/qwen3:8b", down);
    begin(&site, |_| {});
    assert_eq!(drawn(&site, "llama3"), both(&format!("{home} home/qwen3:8b")));
    let small = |view: &mut crate::target::TargetView| view.context_tokens = Some(1);
    let site = Site::new(json!({})).with("home/qwen3:8b", small);
    begin(&site, |_| {});
    assert_eq!(drawn(&site, "llama3"), both(home));
}

#[test]
fn who_may_not_get_the_variant_is_on_neither_side() {
    let check = |options: serde_json::Value, change: fn(&mut Site)| {
        let mut site = Site::new(options);
        change(&mut site);
        begin(&site, |it| it.targets = vec!["cloud/big".to_owned()]);
        let all = drawn(&site, "llama3");
        assert!(all.iter().all(|it| it.starts_with("-: ")), "{all:?}");
        let sides = drawn(&site, "cloud/mini").len();
        assert!(sides > 0, "it is decided");
    };
    // A name keeps at home, and a key's list, hold.
    check(json!({}), |_| {});
    check(json!({}), |site| site.allowed = vec!["home/*".to_owned(), "cloud/mini".to_owned()]);
    let site = Site::new(json!({}));
    begin(&site, |it| it.targets = vec!["cloud/big".to_owned()]);
    let inspected = asked("cloud/mini", "Translate this.");
    let side = |left: i64| {
        let budget_left_nano_usd = Some(left);
        let request =
            Request { session: Some("1"), budget_left_nano_usd, ..site.request(&inspected) };
        site.decide(&request).expect("decided").variant
    };
    assert!(side(i64::MAX).is_some(), "there is money for it");
    assert_eq!(side(1), None, "it is no part where the budget is used up");
}

#[test]
fn a_shadow_alone_is_asked_for_the_share() {
    let site = Site::new(json!({}));
    begin(&site, |it| {
        it.targets.clear();
        it.shadow = Some("home/qwen3:8b".to_owned());
    });
    let home = "home/llama3:latest";
    let expected = [format!("-: {home}"), format!("v2-a1:control: {home} beside home/qwen3:8b")];
    assert_eq!(drawn(&site, "llama3"), expected);
}
