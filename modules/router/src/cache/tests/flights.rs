//! Equal requests at one time.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::task::JoinHandle;

use super::{Found, Lookup, Site, Tier};
use crate::{cache::NotStored, redis_link::testing::wait_until};

const BODY: &str = r#"{"seed":1}"#;

/// Begins to look up, and returns when it waits.
async fn waiter(site: &Arc<Site>, lookup: Lookup, number: usize) -> JoinHandle<Found> {
    let waiting = site.clone();
    let task = tokio::spawn(async move { waiting.cache.look_up(lookup).await });
    let flights = site.cache.inner.flights.clone();
    wait_until("it waits", || flights.waiting(&lookup.slot()) == number).await;
    task
}

#[tokio::test]
async fn one_asks_and_all_get_the_answer() {
    let site = Arc::new(Site::new(json!({})));
    let lookup = site.lookup(BODY);
    let leader = site.lead(lookup).await;
    let mut waiting = Vec::new();
    for number in 1..=20 {
        waiting.push(waiter(&site, lookup, number).await);
    }
    leader.offer(site.answer("{}")).expect("it is kept");
    for task in waiting {
        let found = task.await.expect("it ended");
        assert!(matches!(found, Found::Hit(_, Tier::Flight)), "{found:?}");
    }
    let stats = site.stats();
    assert_eq!((&stats["hits"]["flight"], &stats["misses"]), (&json!(20), &json!(1)));
    assert_eq!(stats["in_flight"], 0);
}

#[tokio::test]
async fn a_leader_that_fails_hands_over_to_the_next_that_is_still_there() {
    let site = Arc::new(Site::new(json!({})));
    let lookup = site.lookup(BODY);
    let leader = site.lead(lookup).await;
    let gone = waiter(&site, lookup, 1).await;
    let second = waiter(&site, lookup, 2).await;
    let third = waiter(&site, lookup, 3).await;
    gone.abort();
    assert!(gone.await.expect_err("it was aborted").is_cancelled());
    drop(leader);
    let Found::Miss(leader) = second.await.expect("it ended") else {
        panic!("the second one leads")
    };
    assert!(!third.is_finished());
    leader.offer(site.answer("{}")).expect("it is kept");
    assert!(matches!(third.await.expect("it ended"), Found::Hit(..)));
}

#[tokio::test]
async fn a_hand_over_that_nobody_takes_goes_on_to_the_next() {
    let site = Arc::new(Site::new(json!({})));
    let lookup = site.lookup(BODY);
    let leader = site.lead(lookup).await;
    let second = waiter(&site, lookup, 1).await;
    let third = waiter(&site, lookup, 2).await;
    // The second one is told, and aborted before it can listen.
    drop(leader);
    second.abort();
    let _ = second.await;
    let found = tokio::time::timeout(Duration::from_secs(10), third).await;
    let found = found.expect("it does not wait for ever").expect("it ended");
    assert!(matches!(found, Found::Miss(_)), "{found:?}");
}

#[tokio::test]
async fn after_the_last_one_is_gone_the_next_begins_anew() {
    let site = Arc::new(Site::new(json!({})));
    let lookup = site.lookup(BODY);
    let leader = site.lead(lookup).await;
    let tasks = [waiter(&site, lookup, 1).await, waiter(&site, lookup, 2).await];
    for task in tasks {
        task.abort();
        let _ = task.await;
    }
    drop(leader);
    assert_eq!(site.stats()["in_flight"], 0);
    drop(site.lead(lookup).await);
    assert_eq!(site.stats()["not_stored"]["no_answer"], 2);
}

#[tokio::test]
async fn an_answer_that_others_may_not_have_lets_all_ask() {
    let site = Arc::new(Site::new(json!({})));
    let lookup = site.lookup(BODY);
    let leader = site.lead(lookup).await;
    let tasks = [waiter(&site, lookup, 1).await, waiter(&site, lookup, 2).await];
    let mut error = site.answer("{}");
    error.status = 400;
    assert_eq!(leader.offer(error), Err(NotStored::Error));
    for task in tasks {
        let Found::Miss(alone) = task.await.expect("it ended") else { panic!("it asks") };
        alone.offer(site.answer("{}")).expect("it is kept all the same");
    }
    assert_eq!(site.stats()["asked_alone"], 2);
    let leader = site.lead(site.lookup(r#"{"seed":2}"#)).await;
    leader.decline(NotStored::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let site = Arc::new(Site::new(json!({"wait_s": 15})));
    let lookup = site.lookup(BODY);
    let leader = site.lead(lookup).await;
    let begin = tokio::time::Instant::now();
    drop(site.lead(lookup).await);
    assert_eq!(begin.elapsed().as_secs(), 15);
    leader.offer(site.answer("{}")).expect("it is kept");
    site.hit(lookup).await;
}

#[tokio::test]
async fn other_requests_do_not_wait() {
    let site = Arc::new(Site::new(json!({})));
    let one = site.lead(site.lookup(r#"{"seed":1}"#)).await;
    let two = site.lead(site.lookup(r#"{"seed":2}"#)).await;
    drop((one, two));
}
