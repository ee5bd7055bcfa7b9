//! Alerts and the command of GPUs, through the whole module.

use std::time::{Duration, Instant};

use fake_nvml::{Fake, code};
use health_monitor::HealthMonitor;
use module_sdk::{
    events::{AlertSeverity, HealthAlertRaised, LearningRunProgressed},
    testing::Bench,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Starts the module over a library of its own.
fn start(fake: &Fake) -> Bench<HealthMonitor> {
    let gpu = json!({
        "library": fake.library(),
        "interval_ms": 100,
        "deadline_ms": 200,
        "retry_ms": 1_000,
    });
    let config = json!({"interval_ms": 100, "checks": {"disk": {"enabled": false}, "gpu": gpu}});
    Bench::start(config).expect("it starts")
}

fn fake() -> (TempDir, Fake) {
    let directory = tempfile::tempdir().expect("a directory");
    let fake = Fake::new(directory.path());
    (directory, fake)
}

/// Lets time pass, a second at a time, until something is so.
fn until(bench: &mut Bench<HealthMonitor>, is_so: impl Fn(&mut Bench<HealthMonitor>) -> bool) {
    let begun = Instant::now();
    while !is_so(bench) {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it never came: {:#?}",
            bench.command("checks", json!({})).map(|reply| reply.data)
        );
        bench.advance(Duration::from_secs(1)).expect("no timer fails");
        std::thread::yield_now();
    }
}

fn status(bench: &mut Bench<HealthMonitor>, component: &str) -> Value {
    let checks = bench.command("checks", json!({})).expect("it answers").data;
    let checks = checks.as_array().expect("a list");
    let found = checks.iter().find(|check| check["name"] == component);
    found.map_or(Value::Null, |check| check["status"].clone())
}

fn raised(bench: &Bench<HealthMonitor>, name: &str) -> Option<HealthAlertRaised> {
    let all = bench.host().emitted_as::<HealthAlertRaised>().expect("they can be read");
    all.into_iter().find(|alert| alert.name == name)
}

/// Checks that a state of the card raises one alert, and this one.
fn raises(key: &str, value: u64, name: &str, severity: AlertSeverity, component: &str) {
    let (_directory, fake) = fake();
    let mut bench = start(&fake);
    until(&mut bench, |bench| status(bench, component) == "ok");
    fake.set(key, value);
    until(&mut bench, |bench| raised(bench, name).is_some());
    let alert = raised(&bench, name).expect("it was raised");
    assert_eq!((alert.severity, &*alert.component), (severity, component), "{alert:?}");
    fake.unset(key);
    until(&mut bench, |bench| {
        bench.command("alerts", json!({})).expect("it answers").data == json!([])
    });
    bench.stop().expect("it stops");
}

#[test]
fn troubles_of_a_card_are_told_and_end() {
    raises("0.code", code::GPU_IS_LOST.into(), "gpu_lost", AlertSeverity::Critical, "gpu");
    raises("0.temperature", 94, "gpu_hot", AlertSeverity::Warning, "gpu");
    raises("0.temperature", 98, "gpu_too_hot", AlertSeverity::Critical, "gpu");
    raises("0.memory_used", 3_960 << 20, "gpu_memory_full", AlertSeverity::Warning, "gpu");
}

#[test]
fn a_training_run_may_fill_the_memory_of_the_card() {
    let (_directory, fake) = fake();
    let mut bench = start(&fake);
    let news = |bench: &mut Bench<HealthMonitor>, run: &str, state: &str, on_card| {
        let event = LearningRunProgressed {
            schema: 1,
            run: run.to_owned(),
            version: "v1".to_owned(),
            state: state.to_owned(),
            on_card,
            step: 0,
            max_steps: None,
            loss: None,
            eval_loss: None,
            at: bench.host().now().as_millisecond(),
        };
        bench.send(&event).expect("it is handled");
    };
    let leased = |bench: &mut Bench<HealthMonitor>| {
        bench.command("gpu", json!({})).expect("it answers").data[0]["leased"].clone()
    };
    until(&mut bench, |bench| leased(bench) == false);
    // A run beside the card does not have it. Time may pass faster here than checks look, so that
    // the one that has it is heard of again and again.
    news(&mut bench, "other", "training", false);
    let has_it = |bench: &mut Bench<HealthMonitor>| {
        news(bench, "run", "training", true);
        leased(bench) == true
    };
    until(&mut bench, has_it);
    fake.set("0.memory_used", 3_960_u64 << 20);
    until(&mut bench, |bench| {
        let cards = bench.command("gpu", json!({})).expect("it answers").data;
        has_it(bench) && cards[0]["memory_used_bytes"] == 4_152_360_960.0
    });
    for _ in 0..900 {
        bench.advance(Duration::from_secs(1)).expect("no timer fails");
    }
    news(&mut bench, "other", "done", false);
    until(&mut bench, has_it);
    assert_eq!(raised(&bench, "gpu_memory_full"), None);
    news(&mut bench, "run", "done", false);
    until(&mut bench, |bench| leased(bench) == false);
    until(&mut bench, |bench| raised(bench, "gpu_memory_full").is_some());
    // One of which nothing is heard any more has it for an hour.
    until(&mut bench, has_it);
    bench.advance(Duration::from_secs(3_600)).expect("no timer fails");
    until(&mut bench, |bench| leased(bench) == false);
    bench.stop().expect("it stops");
}

#[test]
fn a_temperature_is_hot_by_the_limit_of_the_card() {
    let (_directory, fake) = fake();
    // Far from a limit at 105 °C, 90 °C is as it should be.
    fake.set("0.slowdown", 105);
    fake.set("0.temperature", 90);
    let mut bench = start(&fake);
    until(&mut bench, |bench| status(bench, "gpu") == "ok");
    bench.advance(Duration::from_secs(300)).expect("no timer fails");
    assert_eq!(raised(&bench, "gpu_hot"), None);
    // Where a card does not say its limit, there is one.
    let directory = tempfile::tempdir().expect("a directory");
    let fake = Fake::without(directory.path(), &["nvmlDeviceGetTemperatureThreshold"]);
    fake.set("0.temperature", 90);
    let mut bench = start(&fake);
    until(&mut bench, |bench| raised(bench, "gpu_hot").is_some());
}

#[test]
fn the_limit_of_one_card_is_none_of_another() {
    let (_directory, fake) = fake();
    fake.set("cards", 2);
    fake.set("0.slowdown", "unsupported");
    fake.set("1.temperature", 94);
    let mut bench = start(&fake);
    until(&mut bench, |bench| raised(bench, "gpu_hot").is_some());
    bench.advance(Duration::from_secs(300)).expect("no timer fails");
    let all = bench.host().emitted_as::<HealthAlertRaised>().expect("they can be read");
    let hot: Vec<&str> = all.iter().map(|alert| &*alert.component).collect();
    assert_eq!(hot, ["gpu.1"]);
}

#[test]
fn a_driver_that_was_updated_is_told_with_the_remedy() {
    let (_directory, fake) = fake();
    fake.set("nvmlInit_v2", code::VERSION_MISMATCH);
    let mut bench = start(&fake);
    until(&mut bench, |bench| raised(bench, "gpu_driver_mismatch").is_some());
    let alert = raised(&bench, "gpu_driver_mismatch").expect("it was raised");
    assert!(alert.message.contains("Reboot"), "{alert:?}");
    assert_eq!(status(&mut bench, "gpu"), "warning");
}

#[test]
fn an_xid_is_told_by_what_it_means() {
    let (_directory, fake) = fake();
    let mut bench = start(&fake);
    until(&mut bench, |bench| status(bench, "gpu") == "ok");
    fake.xid(0, 13);
    until(&mut bench, |bench| raised(bench, "gpu_xid_app").is_some());
    fake.xid(0, 79);
    until(&mut bench, |bench| raised(bench, "gpu_xid_fatal").is_some());
    let alert = raised(&bench, "gpu_xid_fatal").expect("it was raised");
    assert_eq!(alert.labels["error_type"], "xid_79");
    assert_eq!(alert.severity, AlertSeverity::Critical);
}

#[test]
fn a_card_that_hangs_is_unknown_while_everything_else_goes_on() {
    let (_directory, fake) = fake();
    let mut bench = start(&fake);
    until(&mut bench, |bench| status(bench, "gpu") == "ok");
    let hang = fake.hang("nvmlDeviceGetTemperature");
    until(&mut bench, |bench| raised(bench, "gpu_unknown").is_some());
    assert_eq!(status(&mut bench, "gpu"), "unknown");
    assert_eq!(status(&mut bench, "memory"), "ok");
    drop(hang);
    until(&mut bench, |bench| status(bench, "gpu") == "ok");
    // The end of the module waits for no call that hangs.
    let _hang = fake.hang("nvmlDeviceGetPowerUsage");
    until(&mut bench, |bench| status(bench, "gpu") == "unknown");
    let begun = Instant::now();
    bench.stop().expect("it stops");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn of_two_cards_the_one_that_hangs_is_unknown() {
    let (_directory, fake) = fake();
    fake.set("cards", 2);
    let mut bench = start(&fake);
    until(&mut bench, |bench| status(bench, "gpu.1") == "ok");
    let _hang = fake.hang("0.nvmlDeviceGetTemperature");
    until(&mut bench, |bench| status(bench, "gpu.0") == "unknown");
    until(&mut bench, |bench| status(bench, "gpu.1") == "ok");
    assert_eq!(status(&mut bench, "gpu.0"), "unknown");
}

#[test]
fn a_library_that_hangs_at_the_start_is_unknown() {
    let (_directory, fake) = fake();
    let hang = fake.hang("nvmlInit_v2");
    let mut bench = start(&fake);
    until(&mut bench, |bench| status(bench, "gpu") == "unknown");
    assert_eq!(status(&mut bench, "memory"), "ok");
    drop(hang);
    until(&mut bench, |bench| status(bench, "gpu") == "ok");
}

#[test]
fn the_session_ends_with_the_module() {
    let (_directory, fake) = fake();
    drop(fake.calls());
    let mut bench = start(&fake);
    until(&mut bench, |bench| status(bench, "gpu") == "ok");
    bench.stop().expect("it stops");
    let calls = fake.calls();
    let count = |name: &str| calls.iter().filter(|call| call.ends_with(name)).count();
    assert_eq!((count("nvmlInit_v2"), count("nvmlShutdown")), (1, 1), "{calls:?}");
    assert_eq!(calls.last().map(String::as_str), Some("nvmlShutdown"));
}

#[test]
fn the_command_shows_cards_side_by_side() {
    let (_directory, fake) = fake();
    fake.set("cards", 2);
    fake.set("1.fan", "unsupported");
    fake.set("0.processes", "1:2147483648");
    fake.set("1.code", code::GPU_IS_LOST);
    fake.set("1.uuid", "GPU-1");
    let mut bench = start(&fake);
    until(&mut bench, |bench| status(bench, "gpu.0") == "ok");
    let reply = bench.command("gpu", json!({})).expect("it answers");
    let (ours, lost) = (&reply.data[0], &reply.data[1]);
    assert_eq!(ours["component"], "gpu.0");
    assert_eq!(ours["name"], "NVIDIA T600");
    assert_eq!(ours["driver"], "550.163.01");
    assert_eq!(ours["temperature_celsius"], 51.0);
    assert_eq!(ours["memory_used_bytes"], 2_147_483_648.0);
    assert_eq!(ours["unsupported"], json!(["ecc"]));
    assert_eq!(ours["processes"][0]["memory_bytes"], 2_147_483_648_u64);
    assert_eq!(lost["temperature_celsius"], Value::Null);
    let table = reply.table.expect("people see a table");
    let titles: Vec<&str> = table.columns.iter().map(|column| column.title.as_str()).collect();
    assert_eq!(titles, ["GPU", "gpu.0", "gpu.1"]);
    let row = |name: &str| {
        let row = table.rows.iter().find(|row| row[0] == name);
        row.unwrap_or_else(|| panic!("no row {name} in {table:#?}")).clone()
    };
    assert_eq!(row("temperature"), ["temperature", "51 °C (slows down at 99 °C)", "-"]);
    assert_eq!(row("memory"), ["memory", "2 GiB of 4 GiB", "-"]);
    assert_eq!(row("power"), ["power", "22 W of 40 W", "-"]);
    assert_eq!(row("performance state"), ["performance state", "P0", "-"]);
    assert!(row("process")[1].ends_with(": 2 GiB"), "{:?}", row("process"));
}

#[test]
fn without_a_card_the_command_says_what_was_looked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let gpu = json!({"library": directory.path().join("absent.so")});
    let config = json!({"checks": {"disk": {"enabled": false}, "gpu": gpu}});
    let mut bench = Bench::<HealthMonitor>::start(config).expect("it starts");
    until(&mut bench, |bench| status(bench, "gpu") == "absent");
    let reply = bench.command("gpu", json!({})).expect("it answers");
    assert_eq!(reply.data, json!([]));
    let notes = reply.table.expect("people see a line").notes;
    assert!(
        notes[0].contains("libnvidia-ml.so.1") && notes[0].contains("apt install"),
        "{notes:?}"
    );
    assert!(notes[0].contains("absent.so"), "{notes:?}");
}
