//! Tests of timers by the calendar on the bench: over clock changes, restarts and crashes.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::json;

use crate::{
    Error, ErrorKind, Host, Module, NoArgs, Reply, Result, Wiring, Zone,
    testing::{Bench, FakeHost},
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A module that records its runs, and fails or crashes as it is told.
struct Diary {
    host: Host,
    zone: Zone,
    ran: Vec<String>,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Config {
    zone: Zone,
}

impl Module for Diary {
    type Config = Config;

    fn start(config: Config, host: &Host) -> Result<Self> {
        Ok(Self { host: host.clone(), zone: config.zone, ran: Vec::new() })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        let zone = |diary: &Self| diary.zone.clone();
        wiring
            .daily("00:00", zone, Self::midnight)
            .daily("06:00", zone, |_| Err(Error::new("never well")))
            .daily("06:00", zone, |diary| diary.note("second"))
            .command("ran", Self::ran);
    }
}

impl Diary {
    fn note(&mut self, what: &str) -> Result<()> {
        let now = self.host.now().to_zoned(self.zone.time_zone().clone());
        self.ran.push(format!("{what} {}", now.strftime("%m-%d %H:%M")));
        Ok(())
    }

    fn midnight(&mut self) -> Result<()> {
        assert!(!self.host.data_dir().join("crash").exists(), "as the test wants it");
        self.note("midnight")
    }

    fn ran(&mut self, _: NoArgs) -> Result<Reply> {
        Reply::json(&std::mem::take(&mut self.ran))
    }
}

fn host(directory: &Path, now: &str) -> Arc<FakeHost> {
    let host = Arc::new(FakeHost::new(directory));
    host.set_now(now.parse().expect("a time"));
    host
}

fn start(host: &Arc<FakeHost>) -> Bench<Diary> {
    Bench::start_on(host.clone(), json!({"zone": "Europe/Vienna"})).expect("it starts")
}

/// Passes time; ignores errors, which other tests check.
fn pass(bench: &mut Bench<Diary>, time: Duration) {
    let until = bench.host().now() + time;
    while bench.host().now() < until {
        let left = Duration::try_from(until - bench.host().now()).expect("it is not over");
        if let Err(error) = bench.advance(left) {
            assert_eq!(error.to_string(), "never well");
        }
    }
}

fn ran(bench: &mut Bench<Diary>) -> Vec<String> {
    let reply = bench.command("ran", json!({})).expect("it answers");
    serde_json::from_value(reply.data).expect("a list of texts")
}

#[test]
fn it_runs_by_the_clock_on_the_wall_over_a_change_of_clocks() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = host(directory.path(), "2026-10-24T10:00:00Z");
    let mut bench = start(&host);
    pass(&mut bench, 60 * HOUR);
    let expected = [
        "midnight 10-25 00:00",
        "second 10-25 06:00",
        "midnight 10-26 00:00",
        "second 10-26 06:00",
    ];
    assert_eq!(ran(&mut bench), expected, "the 25th has 25 hours");
}

#[test]
fn a_restart_neither_repeats_nor_forgets_a_day() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = host(directory.path(), "2026-11-20T22:00:00Z");
    let mut bench = start(&host);
    pass(&mut bench, 2 * HOUR);
    assert_eq!(ran(&mut bench), ["midnight 11-21 00:00"]);
    // The same day: nothing more.
    bench.stop().expect("it stops");
    let mut bench = start(&host);
    pass(&mut bench, HOUR);
    assert_eq!(ran(&mut bench), [""; 0]);
    bench.stop().expect("it stops");
    // Off over three midnights: once.
    host.set_now("2026-11-24T10:00:00Z".parse().expect("a time"));
    let mut bench = start(&host);
    pass(&mut bench, HOUR);
    assert_eq!(ran(&mut bench), ["midnight 11-24 11:00", "second 11-24 11:00"]);
}

#[test]
fn the_start_of_a_module_is_no_midnight() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = host(directory.path(), "2026-11-20T22:59:55Z");
    let mut bench = start(&host);
    pass(&mut bench, Duration::from_secs(4));
    assert_eq!(ran(&mut bench), [""; 0]);
    // Begun right before it, it does not miss the first one.
    pass(&mut bench, Duration::from_secs(10));
    assert_eq!(ran(&mut bench), ["midnight 11-21 00:00"]);
}

#[test]
fn a_clock_that_is_set_runs_nothing_twice() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = host(directory.path(), "2026-11-20T22:59:00Z");
    let set = |time: &str| host.set_now(time.parse().expect("a time"));
    let mut bench = start(&host);
    pass(&mut bench, HOUR);
    assert_eq!(ran(&mut bench), ["midnight 11-21 00:00"]);
    // Back over midnight, and over it again.
    set("2026-11-20T22:58:00Z");
    pass(&mut bench, HOUR);
    // A board without a battery, then the right time of the same day.
    set("1970-01-01T00:00:00Z");
    pass(&mut bench, 48 * HOUR);
    set("2099-06-01T00:00:00Z");
    pass(&mut bench, 48 * HOUR);
    set("2026-11-21T03:00:00Z");
    pass(&mut bench, HOUR);
    assert_eq!(ran(&mut bench), [""; 0]);
    // Ahead by a week counts as the days having passed: once, and back again they count anew.
    set("2026-11-28T03:00:00Z");
    pass(&mut bench, HOUR);
    assert_eq!(ran(&mut bench), ["midnight 11-28 04:00", "second 11-28 04:00"]);
    set("2026-11-21T03:30:00Z");
    pass(&mut bench, 20 * HOUR);
    assert_eq!(ran(&mut bench), ["second 11-21 06:00", "midnight 11-22 00:00"]);
}

#[test]
fn a_run_that_crashed_is_done_again_after_the_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = host(directory.path(), "2026-11-20T22:59:00Z");
    let crash = directory.path().join("crash");
    std::fs::write(&crash, "").expect("it is ours");
    let mut bench = start(&host);
    let error = bench.advance(HOUR).expect_err("it crashes");
    assert_eq!(error.kind(), ErrorKind::Panic, "{error}");
    drop(bench);
    std::fs::remove_file(&crash).expect("it is ours");
    let mut bench = start(&host);
    pass(&mut bench, Duration::from_secs(30));
    assert_eq!(ran(&mut bench), ["midnight 11-21 00:00"]);
}

#[test]
fn what_it_ran_last_may_be_lost() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = host(directory.path(), "2026-11-20T22:30:00Z");
    std::fs::write(directory.path().join("lodestar_daily.json"), "torn").expect("it is ours");
    let mut bench = start(&host);
    let told = |line: &crate::testing::Logged| line.message.contains("they begin today");
    assert!(host.logged().iter().any(told), "{:?}", host.logged());
    pass(&mut bench, HOUR);
    assert_eq!(ran(&mut bench), ["midnight 11-21 00:00"]);
}
