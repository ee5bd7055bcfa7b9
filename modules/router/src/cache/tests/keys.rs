//! Equal requests, those that are for the cache, and the answers that are kept.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::{Ask, Bypass, Form, Site, Stored, Tier, answer};
use crate::{
    cache::{CacheOptions, NotStored},
    dialect::{Dialect, inspect::Inspected},
};

const BODY: &str = r#"{"messages":[{"role":"user","content":"hi"}],"model":"auto","seed":7}"#;

#[test]
fn what_does_not_change_the_answer_does_not_count() {
    let site = Site::new(json!({}));
    let same = |body: &str| {
        assert_eq!(site.lookup(body).key, site.lookup(BODY).key, "{body}");
    };
    same(r#"{"seed": 7, "model": "gpt-5", "messages": [{"content": "hi", "role": "user"}]}"#);
    same(r#"{"messages":[{"role":"user","content":"\u0068i"}],"seed":7,"stream":true}"#);
    same(
        r#"{"messages":[{"role":"user","content":"hi"}],"seed":7,"user":"me","metadata":{"a":1},
            "prompt_cache_key":"x"}"#,
    );
    same(
        r#"{"messages":[{"role":"user","content":"hi"}],"seed":7,"background":false,
            "previous_response_id":null,"functions":[]}"#,
    );
}

#[test]
fn what_changes_the_answer_counts() {
    let site = Site::new(json!({}));
    let key = |ask: &Ask| site.key(ask).expect("it is for the cache").key;
    let base = Ask::new(BODY);
    let other = |change: &dyn Fn(&mut Ask)| {
        let mut ask = base.clone();
        change(&mut ask);
        assert_ne!(key(&ask), key(&base), "{} {:?}", ask.body, ask.headers);
    };
    other(&|ask| ask.identity = "k_2");
    other(&|ask| ask.project = Some("shop"));
    other(&|ask| ask.project = Some(""));
    other(&|ask| ask.credential = Some("sk-ant-oat01"));
    other(&|ask| ask.dialect = Dialect::Responses);
    other(&|ask| ask.model = "gpt-5");
    other(&|ask| ask.headers = &[("anthropic-beta", "x")]);
    other(&|ask| ask.headers = &[("openai-organization", "x")]);
    other(&|ask| ask.headers = &[("x-provider-options", "terse")]);
    other(&|ask| ask.query = Some("beta=true"));
    other(&|ask| ask.body = BODY.replace("hi", "hi "));
    other(&|ask| ask.body = BODY.replace("7", "8"));
    other(&|ask| ask.body = BODY.replace("7", "\"7\""));
    other(&|ask| ask.body = BODY.replace("user", "system"));
    other(&|ask| ask.body = BODY.replace("[{", "[[{").replace("}]", "}]]"));
}

#[test]
fn headers_that_say_who_asks_and_how_often_do_not_count() {
    let site = Site::new(json!({}));
    let key = |headers| {
        let ask = Ask { headers, ..Ask::new(BODY) };
        site.key(&ask).expect("it is for the cache").key
    };
    let one: &[_] = &[
        ("user-agent", "OpenAI/Python 2.20.0"),
        ("x-stainless-retry-count", "0"),
        ("x-request-id", "1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-lodestar-session", "1"),
        ("authorization", "Bearer lk_1"),
        ("content-length", "70"),
    ];
    assert_eq!(key(one), key(&[]));
    let two: &[_] = &[("openai-beta", "a"), ("x-b", "1"), ("x-b", "2")];
    assert_eq!(key(two), key(&[("x-b", "1"), ("openai-beta", "a"), ("x-b", "2")]));
    assert_ne!(key(two), key(&[("openai-beta", "a"), ("x-b", "2"), ("x-b", "1")]));
}

#[test]
fn what_is_not_for_the_cache() {
    let site = Site::new(json!({}));
    let check = |change: &dyn Fn(&mut Ask), expected: Result<(), Bypass>| {
        let mut ask = Ask::new(BODY);
        change(&mut ask);
        assert_eq!(site.key(&ask).map(|_| ()), expected, "{} {:?}", ask.body, ask.headers);
    };
    check(&|_| {}, Ok(()));
    check(&|ask| ask.inspected.temperature = Some(0.0), Ok(()));
    check(&|ask| ask.inspected.temperature = Some(0.2), Err(Bypass::Temperature));
    check(&|ask| ask.inspected.choices = 2, Err(Bypass::Choices));
    check(&|ask| ask.inspected.tools = 1, Err(Bypass::Tools));
    check(&|ask| ask.inspected.continues_tool = true, Err(Bypass::Tools));
    check(&|ask| ask.headers = &[("x-lodestar-cache", "bypass")], Err(Bypass::Asked));
    check(&|ask| ask.headers = &[("cache-control", "max-age=0, No-Store")], Err(Bypass::Asked));
    check(&|ask| ask.headers = &[("cache-control", "no-cache")], Ok(()));
    let body = |body: &'static str, expected| {
        check(&|ask: &mut Ask| ask.body = body.to_owned(), Err(expected));
    };
    body(r#"{"previous_response_id":"resp_1"}"#, Bypass::Stateful);
    body(r#"{"keep_alive":0}"#, Bypass::Stateful);
    body(r#"{"background":true}"#, Bypass::Stateful);
    body(r#"{"functions":[{"name":"f"}]}"#, Bypass::Tools);
    body(r#"{"seed":1,"seed":2}"#, Bypass::Unreadable);
    body(r#"{"messages":[{"role":"a","r\u006fle":"b"}]}"#, Bypass::Unreadable);
    body("[1]", Bypass::Unreadable);
    body(r#"{"a":1"#, Bypass::Unreadable);
    body(r#"{"a":1} x"#, Bypass::Unreadable);
    body("", Bypass::Unreadable);
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    check(&|ask| ask.body.clone_from(&deep), Err(Bypass::Unreadable));
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(600_000));
    check(&|ask| ask.body.clone_from(&large), Err(Bypass::TooLarge));
    let stats = site.stats();
    assert_eq!((&stats["bypassed"]["tools"], &stats["bypassed"]["asked"]), (&json!(3), &json!(2)));

    let off = Site::new(json!({"enabled": false}));
    assert_eq!(off.key(&Ask::new(BODY)), Err(Bypass::Disabled));
    let free = Site::new(json!({"any_temperature": true, "with_tools": true}));
    let mut ask = Ask::new(BODY);
    ask.inspected = Inspected { temperature: Some(1.0), tools: 2, choices: 1, ..ask.inspected };
    free.key(&ask).expect("it is for the cache");
    ask.inspected.continues_tool = true;
    assert_eq!(free.key(&ask), Err(Bypass::Tools));
}

#[tokio::test]
async fn an_answer_is_given_again_and_costs_nothing() {
    let site = Site::new(json!({}));
    let lookup = site.lookup(BODY);
    let leader = site.lead(lookup).await;
    leader.offer(site.answer("{\"a\":1}")).expect("it is kept");
    let (found, tier) = site.hit(lookup).await;
    assert_eq!((tier, found.status, &found.body[..]), (Tier::Memory, 200, &b"{\"a\":1}"[..]));
    assert_eq!((found.cost_nano_usd, found.usage.input), (Some(12_345), Some(10)));
    let replay = found.replay(Form::Whole).expect("it has this form");
    assert_eq!(replay.content_type, "application/json");
    assert!(found.replay(Form::Stream).is_none());

    let mut streamed = Ask::new(BODY);
    streamed.inspected.stream = true;
    let streamed = site.key(&streamed).expect("it is for the cache");
    assert_eq!(streamed.key, lookup.key);
    drop(site.lead(streamed).await);

    let mut refresh = Ask::new(BODY);
    refresh.headers = &[("x-lodestar-cache", "refresh")];
    let refresh = site.key(&refresh).expect("it is for the cache");
    site.lead(refresh).await.offer(site.answer("{\"a\":2}")).expect("it is kept");
    let (found, _) = site.hit(lookup).await;
    assert_eq!(&found.body[..], b"{\"a\":2}", "the newer one");
    let stats = site.stats();
    assert_eq!(stats["hits"]["memory"], 2);
    assert_eq!((&stats["entries"], &stats["saved_usd"]), (&json!(1), &json!("0.00002469")));
    let cleared = site.cache.clear().expect("it is cleared");
    assert_eq!(cleared.data, json!({"removed": 1, "removed_in_redis": null}));
    drop(site.lead(lookup).await);
}

/// Prints the time of a hit: `cargo test -- --nocapture`.
#[tokio::test]
async fn a_hit_takes_little_time() {
    let site = Site::new(json!({}));
    let lookup = site.lookup(BODY);
    site.lead(lookup).await.offer(site.answer("{}")).expect("it is kept");
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let begin = Instant::now();
        for _ in 0..500 {
            site.hit(lookup).await;
        }
        best = best.min(begin.elapsed() / 500);
    }
    println!("a hit in memory, by its key: {best:?}");
    assert!(best < Duration::from_micros(100), "{best:?}");
}

#[tokio::test]
async fn an_answer_ages() {
    let site = Site::new(json!({"ttl_s": 60}));
    let lookup = site.lookup(BODY);
    site.lead(lookup).await.offer(site.answer("{}")).expect("it is kept");
    site.fake.set_now(site.fake.now() + Duration::from_secs(59));
    site.hit(lookup).await;
    site.fake.set_now(site.fake.now() + Duration::from_secs(1));
    drop(site.lead(lookup).await);
}

#[tokio::test]
async fn what_is_not_kept() {
    let site = Site::new(json!({"max_answer_bytes": 2_000}));
    let check = async |change: &dyn Fn(&mut Stored), expected| {
        let mut it = site.answer("{}");
        change(&mut it);
        let lookup = site.lookup(BODY);
        assert_eq!(site.lead(lookup).await.offer(it.clone()), Err(expected), "{it:?}");
        drop(site.lead(lookup).await);
    };
    check(&|it| it.status = 500, NotStored::Error).await;
    check(&|it| it.status = 206, NotStored::Error).await;
    check(&|it| it.finish_reason = Some("length".into()), NotStored::Unfinished).await;
    check(&|it| it.finish_reason = Some("max_tokens".into()), NotStored::Unfinished).await;
    check(&|it| it.finish_reason = Some("content_filter".into()), NotStored::Unfinished).await;
    check(&|it| it.finish_reason = Some("load".into()), NotStored::Unfinished).await;
    check(&|it| it.finish_reason = None, NotStored::Unfinished).await;
    check(&|it| it.finish_reason = Some("tool_calls".into()), NotStored::ToolCall).await;
    check(&|it| it.calls_tool = true, NotStored::ToolCall).await;
    check(&|it| it.body = vec![b'x'; 2_001].into(), NotStored::TooLarge).await;
    assert_eq!(site.stats()["not_stored"]["unfinished"], 5);
    let mut embeddings = Ask::new(BODY);
    embeddings.dialect = Dialect::Embeddings;
    let lookup = site.key(&embeddings).expect("it is for the cache");
    let mut it = site.answer("{}");
    it.finish_reason = None;
    site.lead(lookup).await.offer(it).expect("they end without a reason");
}

#[tokio::test]
async fn memory_is_bounded() {
    let site = Site::new(json!({"max_bytes": 100_000, "max_answer_bytes": 10_000}));
    for index in 0..200 {
        let lookup = site.lookup(&format!(r#"{{"seed":{index}}}"#));
        site.lead(lookup).await.offer(site.answer(&"x".repeat(5_000))).expect("it is kept");
    }
    let stats = site.stats();
    let bytes = stats["bytes"].as_u64().expect("a number");
    assert!((40_000..=100_000).contains(&bytes), "{stats}");
}

#[test]
fn a_recorder_gives_up_on_what_is_too_large() {
    let mut recorder = super::super::Recorder::new(4);
    recorder.push(b"ab");
    recorder.push(b"cd");
    assert_eq!(recorder.finish().expect("it is small"), "abcd");
    let mut recorder = super::super::Recorder::new(4);
    recorder.push(b"abc");
    recorder.push(b"de");
    recorder.push(b"f");
    assert_eq!(recorder.finish(), None);
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    let it = answer("{\"a\":\n1}", "2026-12-01T00:00:00Z".parse().expect("a time"));
    let bytes = it.encode();
    assert_eq!(Stored::decode(bytes.clone()), Some(it));
    for cut in [0, 1, 20, bytes.len() - 1] {
        assert_eq!(Stored::decode(bytes[..cut].to_vec()), None, "{cut}");
    }
    assert_eq!(Stored::decode(b"{}\nx".to_vec()), None);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let options = CacheOptions { max_bytes: 10_000, ..CacheOptions::default() };
    let error = options.check().expect_err("it is too small").to_string();
    assert!(error.starts_with("cache.max_answer_bytes: is more than"), "{error}");
}

/// Prints the time of a key: `cargo test -- --nocapture`.
#[test]
fn a_key_is_made_in_little_time() {
    let site = Site::new(json!({}));
    let time = |bytes: usize| {
        let text = "word ".repeat(bytes / 5 / 20);
        let message = json!({"role": "user", "content": text});
        let body = json!({"messages": vec![message; 20], "model": "auto"}).to_string();
        let ask = Ask::new(&body);
        let best = (0..50).map(|_| {
            let begin = Instant::now();
            site.key(&ask).expect("it is for the cache");
            begin.elapsed()
        });
        let best = best.min().expect("there are 50");
        println!("key of a body of {} bytes: {best:?}", body.len());
        best
    };
    assert!(time(4_000) < Duration::from_millis(1));
    assert!(time(200_000) < Duration::from_millis(20));
}

proptest! {
    /// Checks that spaces and the order of keys never count.
    #[test]
    fn a_body_has_one_key_however_it_is_written(value in json_value(), seed in any::<u64>()) {
        let site = Site::new(json!({}));
        let body = json!({"input": value});
        let mut random = fastrand::Rng::with_seed(seed);
        let other = shuffled(&body, &mut random);
        prop_assert_eq!(site.lookup(&body.to_string()).key, site.lookup(&other).key, "{}", other);
    }

    /// Checks that nothing panics, whatever is sent.
    #[test]
    fn any_text_has_a_key_or_none(body in ".*") {
        let site = Site::new(json!({}));
        let _ = site.key(&Ask::new(&body));
    }
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|it| json!(it)),
        any::<i64>().prop_map(|it| json!(it)),
        any::<f32>()
            .prop_filter("JSON has no others", |it| it.is_finite())
            .prop_map(|it| json!(it)),
        "[a-z\"\\\\é]{0,6}".prop_map(|it| json!(it)),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|it| json!(it)),
            proptest::collection::btree_map("[a-z]{1,4}", inner, 0..5).prop_map(|it| json!(it)),
        ]
    })
}

/// Writes a value with its keys in another order and with spaces.
fn shuffled(value: &serde_json::Value, random: &mut fastrand::Rng) -> String {
    match value {
        serde_json::Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|it| shuffled(it, random)).collect();
            format!("[ {} ]", items.join(" ,\n"))
        }
        serde_json::Value::Object(map) => {
            let mut members: Vec<String> = map
                .iter()
                .map(|(key, it)| format!("{} : {}", json!(key), shuffled(it, random)))
                .collect();
            random.shuffle(&mut members);
            format!("{{ {} }}", members.join(" ,\t"))
        }
        other => other.to_string(),
    }
}
