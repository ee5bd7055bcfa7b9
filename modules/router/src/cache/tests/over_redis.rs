//! Several instances that share answers over a Redis, which may be gone, slow or full.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Lookup, Site, Tier};
use crate::redis_link::testing::{RedisServer, wait_until};

fn options(server: &RedisServer) -> Value {
    // A busy machine answers late, which is what another test is about.
    json!({"redis": format!("unix://{}", server.url()), "redis_timeout_ms": 500})
}

async fn connected(options: Value) -> Site {
    let site = Site::new(options);
    let link = site.cache.inner.link.clone().expect("it has one");
    wait_until("the link is up", || link.is_up()).await;
    site
}

async fn offer(site: &Site, body: &str) -> Lookup {
    let lookup = site.lookup(body);
    site.lead(lookup).await.offer(site.answer(body)).expect("it is kept");
    let writes = site.cache.inner.writes.clone();
    wait_until("it is shared", || writes.available_permits() == super::super::MOST_WRITES).await;
    lookup
}

#[tokio::test]
async fn two_instances_share_answers_and_clear_them() {
    let Some(server) = RedisServer::start_or_skip("router::cache::shared", &[]) else { return };
    let (one, two) = (connected(options(&server)).await, connected(options(&server)).await);
    let lookup = offer(&one, r#"{"seed":1}"#).await;
    let (found, tier) = two.hit(lookup).await;
    assert_eq!((tier, &found.body[..]), (Tier::Redis, &br#"{"seed":1}"#[..]));
    assert_eq!(found.cost_nano_usd, Some(12_345));
    assert_eq!(two.hit(lookup).await.1, Tier::Memory, "it is kept here too");
    let link = server.link().await;
    let mut time_left = redis::cmd("TTL");
    time_left.arg(super::super::name(lookup.slot()));
    let left: i64 = link.ask(super::super::Access::Read, &time_left).await.expect("it is there");
    assert!((1_700..=1_800).contains(&left), "{left}");

    for seed in 2..1_500 {
        let mut set = redis::cmd("SET");
        set.arg(format!("lodestar:answers:{seed}")).arg("x");
        link.ask::<()>(super::super::Access::Write, &set).await.expect("it is stored");
    }
    let cache = one.cache.clone();
    let cleared = tokio::task::spawn_blocking(move || cache.clear()).await.expect("it ended");
    assert_eq!(cleared.expect("it is done").data["removed_in_redis"], 1_499);
    two.cache.inner.memory.invalidate_all();
    drop(two.lead(lookup).await);
}

#[tokio::test]
async fn a_wrong_value_in_redis_is_no_answer() {
    let Some(server) = RedisServer::start_or_skip("router::cache::wrong", &[]) else { return };
    let site = connected(options(&server)).await;
    let lookup = site.lookup(r#"{"seed":1}"#);
    let link = server.link().await;
    let mut set = redis::cmd("SET");
    set.arg(super::super::name(lookup.slot())).arg("{}\nrubbish");
    link.ask::<()>(super::super::Access::Write, &set).await.expect("it is stored");
    drop(site.lead(lookup).await);
}

#[tokio::test]
async fn a_killed_redis_costs_nothing() {
    let Some(mut server) = RedisServer::start_or_skip("router::cache::killed", &[]) else {
        return;
    };
    let site = connected(options(&server)).await;
    let lookup = offer(&site, r#"{"seed":1}"#).await;
    server.kill();
    let begin = Instant::now();
    for seed in 2..200 {
        let _ = offer(&site, &format!(r#"{{"seed":{seed}}}"#)).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    site.hit(lookup).await;
    let trouble = site.cache.trouble().expect("it is told");
    assert!(trouble.contains("cached by this instance alone"), "{trouble}");
    let cache = site.cache.clone();
    let cleared = tokio::task::spawn_blocking(move || cache.clear()).await.expect("it ended");
    let cleared = cleared.expect("it answers");
    assert_eq!((cleared.exit_code, &cleared.data["removed_in_redis"]), (1, &Value::Null));
    server.start();
    let link = site.cache.inner.link.clone().expect("it has one");
    wait_until("the link is up again", || link.is_up()).await;
    let lookup = offer(&site, r#"{"seed":1}"#).await;
    let other = connected(options(&server)).await;
    assert_eq!(other.hit(lookup).await.1, Tier::Redis);
}

#[tokio::test]
async fn a_slow_redis_costs_its_deadline_three_times() {
    let Some(server) = RedisServer::start_or_skip("router::cache::slow", &[]) else { return };
    let road = server.road().await;
    let options = json!({"redis": format!("redis://{}", road.url()), "redis_timeout_ms": 40});
    let site = connected(options).await;
    road.delay(Duration::from_secs(1));
    let begin = Instant::now();
    for seed in 0..100 {
        drop(site.lead(site.lookup(&format!(r#"{{"seed":{seed}}}"#))).await);
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(site.cache.trouble().is_some_and(|it| it.contains("longer than 40ms")));
}

#[tokio::test]
async fn a_full_redis_keeps_no_more_and_harms_nobody() {
    let full = ["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"];
    let Some(server) = RedisServer::start_or_skip("router::cache::full", &full) else { return };
    let site = connected(options(&server)).await;
    for seed in 0..40 {
        let lookup = site.lookup(&format!(r#"{{"seed":{seed}}}"#));
        let large = site.answer(&"x".repeat(100_000));
        site.lead(lookup).await.offer(large).expect("it is kept");
        site.hit(lookup).await;
        let writes = site.cache.inner.writes.clone();
        let most = super::super::MOST_WRITES;
        wait_until("it is tried", || writes.available_permits() == most).await;
    }
    let stats = site.stats();
    assert!(stats["not_shared"].as_u64().is_some_and(|number| number > 20), "{stats}");
    assert!(site.cache.trouble().is_some_and(|it| it.contains("it is full")));
}
