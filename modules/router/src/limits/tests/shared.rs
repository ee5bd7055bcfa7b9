//! Several instances that count together over a Redis.

use module_sdk::jiff::Timestamp;
use serde_json::{Value, json};

use super::{SECOND, Site, actual};
use crate::{
    limits::{Period, Quantity, Scope},
    redis_link::testing::{RedisServer, wait_until},
};

fn options(server: &RedisServer, limits: Value, instances: u32) -> Value {
    // A busy machine answers late, which is what another test is about.
    json!({
        "anonymous": limits,
        "redis": format!("unix://{}", server.url()),
        "redis_timeout_ms": 500,
        "instances": instances,
        "timezone": far_from_midnight(),
    })
}

/// Returns a time zone in which no day ends within the next six hours.
fn far_from_midnight() -> &'static str {
    match Timestamp::now().as_second() / 3_600 % 24 {
        6..18 => "UTC",
        _ => "Etc/GMT-12",
    }
}

async fn connected(options: Value) -> Site {
    let site = Site::new(options);
    // Redis has a clock of its own.
    site.fake.set_now(Timestamp::now());
    let link = site.limits.inner.link.clone().expect("it has one");
    wait_until("the link is up", || link.is_up()).await;
    site
}

async fn spent(site: &Site) -> u64 {
    // What is settled is sent beside the way of the request.
    site.ask_for(None, 0, Some(0)).await.expect("it fits").release();
    let all = site.limits.used(&Scope::Key("anonymous".into()));
    let day = |it: &&(Quantity, Period, u64)| (it.0, it.1) == (Quantity::NanoUsd, Period::Day);
    all.iter().find(day).map_or(0, |it| it.2)
}

async fn wait_for(site: &Site, expected: u64) {
    for _ in 0..2_000 {
        if spent(site).await == expected {
            return;
        }
        tokio::time::sleep(SECOND / 500).await;
    }
    assert_eq!(spent(site).await, expected);
}

#[tokio::test]
async fn two_instances_share_their_limits() {
    let Some(server) = RedisServer::start_or_skip("router::limits::shared", &[]) else { return };
    let limits = json!({"requests_per_minute": 20, "usd_per_day": 1, "tokens_per_hour": 1_000});
    let options = options(&server, limits, 2);
    let (one, two) = (connected(options.clone()).await, connected(options).await);
    let mut first = one.ask(600, 600_000_000).await.expect("it fits");
    let hit = two.ask(500, 1).await.expect_err("the other one has 600");
    assert_eq!(hit.code(), "token_limit_exceeded");
    assert!(
        hit.retry_after.is_some_and(|wait| wait > 350 * SECOND && wait < 370 * SECOND),
        "{hit:?}"
    );
    let hit = two.ask(1, 500_000_000).await.expect_err("the other one has 0.6");
    assert_eq!(hit.code(), "budget_exceeded");
    let hit = two.ask(1, 1_500_000_000).await.expect_err("it never fits");
    assert_eq!((hit.status(), hit.retry_after), (403, None));
    first.settle(actual(100, 100_000_001));
    wait_for(&two, 100_000_001).await;
    two.ask(500, 899_999_999).await.expect("the rest was given back, to the billionth").release();
    wait_for(&one, 100_000_001).await;
}

#[tokio::test]
async fn a_refused_request_counts_nowhere() {
    let Some(server) = RedisServer::start_or_skip("router::limits::refused", &[]) else { return };
    let limits = json!({"requests_per_minute": 5, "usd_per_day": 1});
    let site = connected(options(&server, limits, 1)).await;
    for _ in 0..20 {
        site.ask(0, 2_000_000_000).await.expect_err("it is too dear");
    }
    for _ in 0..5 {
        site.spend(0, 1).await.expect("it fits");
    }
    site.spend(0, 1).await.expect_err("five are enough");
}

#[tokio::test]
async fn a_killed_redis_is_replaced_by_the_own_ledger_and_told_afterwards() {
    let Some(mut server) = RedisServer::start_or_skip("router::limits::killed", &[]) else {
        return;
    };
    let options = options(&server, json!({"requests_per_minute": 100, "usd_per_day": 1}), 2);
    let site = connected(options.clone()).await;
    site.spend(0, 600_000_000).await.expect("it fits");
    server.kill();
    site.spend(0, 150_000_000).await.expect("a half of the rest is its part");
    let trouble = site.limits.trouble().expect("it is told");
    assert!(trouble.contains("which allows 1/2 of them"), "{trouble}");
    let hit = site.spend(0, 100_000_000).await.expect_err("its part is used up");
    assert!(hit.is_about_money(), "{hit}");
    let mut requests = 2;
    while site.spend(0, 0).await.is_ok() {
        requests += 1;
        assert!(requests <= 52, "half of the rate, and what leaked");
    }
    assert!(requests >= 49, "{requests}");
    // An empty Redis, as after a loss of its memory.
    server.start();
    let link = site.limits.inner.link.clone().expect("it has one");
    wait_until("the link is up again", || link.is_up()).await;
    site.spend(0, 1).await.expect("it fits");
    let other = connected(options).await;
    wait_for(&other, 150_000_001).await;
}

#[tokio::test]
async fn a_slow_redis_delays_no_more_than_its_deadline() {
    let Some(server) = RedisServer::start_or_skip("router::limits::slow", &[]) else { return };
    let road = server.road().await;
    let mut options = options(&server, json!({"requests_per_minute": 1_000}), 1);
    options["redis"] = format!("redis://{}", road.url()).into();
    options["redis_timeout_ms"] = 40.into();
    let site = connected(options).await;
    road.delay(SECOND);
    let begin = std::time::Instant::now();
    for _ in 0..100 {
        site.spend(0, 0).await.expect("it is counted here");
    }
    assert!(begin.elapsed() < SECOND, "{:?}: three late answers at most", begin.elapsed());
    assert!(site.limits.trouble().is_some_and(|it| it.contains("longer than 40ms")));
}

#[tokio::test]
async fn a_full_redis_is_replaced_by_the_own_ledger() {
    let full = ["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"];
    let Some(server) = RedisServer::start_or_skip("router::limits::full", &full) else { return };
    let link = server.link().await;
    let mut index = 0;
    loop {
        let mut set = redis::cmd("SET");
        set.arg(index).arg(vec![b'x'; 100_000]);
        if link.ask::<()>(crate::redis_link::Access::Write, &set).await.is_err() {
            break;
        }
        index += 1;
    }
    let site = connected(options(&server, json!({"requests_per_minute": 3}), 1)).await;
    for _ in 0..3 {
        site.spend(0, 0).await.expect("it is counted here");
    }
    site.spend(0, 0).await.expect_err("and limited here");
    let trouble = site.limits.trouble().expect("it is told");
    assert!(trouble.contains("it is full"), "{trouble}");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_reserved() {
    let Some(server) = RedisServer::start_or_skip("router::limits::gone", &[]) else { return };
    let road = server.road().await;
    let mut options = options(&server, json!({"usd_per_day": 1}), 1);
    options["redis"] = format!("redis://{}", road.url()).into();
    options["redis_timeout_ms"] = 10_000.into();
    let site = connected(options).await;
    // No answer comes before the client goes.
    road.delay(SECOND);
    for _ in 0..20 {
        let mut asking = Box::pin(site.ask(0, 40_000_000));
        // Polled once, and dropped.
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(asking.as_mut().poll(context).is_ready())
        });
        assert!(!polled.await, "it waits for Redis");
        drop(asking);
    }
    road.delay(std::time::Duration::ZERO);
    wait_for(&site, 0).await;
}
