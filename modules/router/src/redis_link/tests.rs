//! Tests of the link with a Redis that is gone, slow or full.

use std::time::{Duration, Instant};

use super::{
    Access, RedisFault, RedisLink,
    testing::{PATIENT, RedisServer, connected, url, wait_until},
};

fn set(key: &str, bytes: usize) -> redis::Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(vec![b'x'; bytes]);
    command
}

async fn get(link: &RedisLink) -> Result<Option<Vec<u8>>, RedisFault> {
    link.ask(Access::Read, redis::cmd("GET").arg("a")).await
}

#[tokio::test]
async fn a_killed_redis_costs_nothing_and_is_found_again() {
    let Some(mut server) = RedisServer::start_or_skip("router::redis_link::killed", &[]) else {
        return;
    };
    let link = server.link().await;
    link.ask::<()>(Access::Write, &set("a", 1)).await.expect("it is stored");
    assert_eq!(get(&link).await, Ok(Some(b"x".to_vec())));
    assert_eq!(link.trouble(), None);
    server.kill();
    let first = get(&link).await;
    assert!(matches!(first, Err(RedisFault::Broken | RedisFault::Down)), "{first:?}");
    let begin = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(get(&link).await, Err(RedisFault::Down));
    }
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    let trouble = link.trouble().expect("it is told");
    assert!(trouble.contains("redis.sock") && trouble.contains("since"), "{trouble}");
    server.start();
    wait_until("the link is up again", || link.is_up()).await;
    assert_eq!(get(&link).await, Ok(None));
    assert_eq!(link.trouble(), None);
}

#[tokio::test]
async fn a_slow_redis_is_left_alone_until_it_is_fast() {
    let Some(server) = RedisServer::start_or_skip("router::redis_link::slow", &[]) else { return };
    let road = server.road().await;
    let link = connected(&road.url(), Duration::from_millis(40)).await;
    assert_eq!(get(&link).await, Ok(None));
    road.delay(Duration::from_millis(400));
    for _ in 0..3 {
        let begin = Instant::now();
        assert_eq!(get(&link).await, Err(RedisFault::Late));
        assert!(begin.elapsed() < Duration::from_millis(350), "{:?}", begin.elapsed());
    }
    assert_eq!(get(&link).await, Err(RedisFault::Down));
    let trouble = link.trouble().expect("it is told");
    assert!(trouble.contains("answers take longer than 40ms"), "{trouble}");
    road.delay(Duration::ZERO);
    wait_until("the link is up again", || link.is_up()).await;
    assert_eq!(get(&link).await, Ok(None));
}

#[tokio::test]
async fn a_full_redis_is_read_and_written_no_more() {
    let options = ["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"];
    let Some(server) = RedisServer::start_or_skip("router::redis_link::full", &options) else {
        return;
    };
    let link = server.link().await;
    let full = Err(RedisFault::Refused("OOM".to_owned()));
    let mut answer = Ok(());
    for index in 0..100 {
        answer = link.ask(Access::Write, &set(&index.to_string(), 100_000)).await;
        if answer.is_err() {
            break;
        }
    }
    assert_eq!(answer, full);
    let trouble = link.trouble().expect("it is told");
    assert!(trouble.contains("it is full"), "{trouble}");
    let begin = Instant::now();
    assert_eq!(link.ask::<()>(Access::Write, &set("a", 1)).await, full);
    assert!(begin.elapsed() < Duration::from_millis(50), "nothing is sent");
    assert_eq!(get(&link).await, Ok(None), "what reads still works");
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let options = ["--requirepass", "right-one"];
    let Some(server) = RedisServer::start_or_skip("router::redis_link::password", &options) else {
        return;
    };
    let road = server.road().await;
    let address = road.url().to_string();
    let runtime = tokio::runtime::Handle::current();
    let wrong = url(&format!("redis://:wrong-one@{address}"));
    let link = RedisLink::start(&wrong, PATIENT, &runtime).expect("it is an address");
    wait_until("it is told", || link.trouble().is_some()).await;
    let trouble = link.trouble().expect("it was there");
    assert!(trouble.contains("refuses the password"), "{trouble}");
    assert!(!trouble.contains("wrong-one") && !format!("{link:?}").contains("wrong-one"));
    let right = connected(&url(&format!("redis://:right-one@{address}")), PATIENT).await;
    assert_eq!(get(&right).await, Ok(None));
}

#[tokio::test]
async fn nobody_at_the_address_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let nobody = url(&format!("unix://{}/none.sock", directory.path().display()));
    let runtime = tokio::runtime::Handle::current();
    let link = RedisLink::start(&nobody, PATIENT, &runtime).expect("it is an address");
    assert_eq!(get(&link).await, Err(RedisFault::Down));
    wait_until("it is told", || link.trouble().is_some()).await;
    assert!(link.trouble().expect("it was there").contains("nothing listens there"));
}
