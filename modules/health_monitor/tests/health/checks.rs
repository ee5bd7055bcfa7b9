//! Checks of this very machine: which components there are, and who is told of a run.

use std::{collections::BTreeSet, fs};

use module_sdk::events::HealthCheckCompleted;
use serde_json::json;

use crate::common::{start, until};

#[test]
fn a_bare_machine_has_memory_disks_and_pressure() {
    let mut bench = start(json!({"interval_ms": 100}));
    let names: BTreeSet<String> = until(&mut bench, "all checks have run", |bench| {
        let checks = bench.command("checks", json!({})).expect("it answers").data;
        let checks = checks.as_array().expect("a list").iter();
        let names = checks.map(|check| check["name"].as_str().expect("a name").to_owned());
        let names: BTreeSet<String> = names.collect();
        let has = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
        (has("disk") && has("memory") && has("swap") && has("pressure")).then_some(names)
    });
    for resource in ["cpu", "io", "memory"] {
        assert!(names.contains(&format!("pressure.{resource}")), "{names:?}");
    }
    let shown = until(&mut bench, "their values are shown", |bench| {
        let shown = bench.host().metrics();
        shown.contains_key("system_memory_utilization_ratio").then_some(shown)
    });
    assert!(shown["system_memory_utilization_ratio"] > 0.0);
    let stalls = shown.keys().filter(|name| name.starts_with("lodestar_pressure_stall_seconds"));
    let has_pressure = fs::read_to_string("/proc/pressure/cpu").is_ok();
    assert_eq!(stalls.count(), if has_pressure { 5 } else { 0 }, "{shown:#?}");
    assert!(!shown.keys().any(|name| name.starts_with("lodestar_pressure_stall_ratio")));
    bench.stop().expect("it ends");
}

#[test]
fn a_check_that_is_switched_off_has_no_component() {
    let off = json!({"enabled": false});
    let mut bench = start(json!({"interval_ms": 100, "checks": {"pressure": off, "disk": off}}));
    until(&mut bench, "memory was looked at", |bench| {
        let checks = bench.command("checks", json!({})).expect("it answers").data;
        let checks = checks.as_array().expect("a list");
        let has = |part: &str| {
            checks.iter().any(|it| it["name"].as_str().is_some_and(|it| it.starts_with(part)))
        };
        has("memory").then(|| assert!(!has("disk") && !has("pressure"), "{checks:?}"))
    });
    bench.stop().expect("it ends");
}

#[test]
fn each_run_is_told_where_somebody_wants_to_know() {
    let mut bench = start(json!({"interval_ms": 100}));
    let runs = |bench: &mut module_sdk::testing::Bench<_>| {
        bench.host().emitted_as::<HealthCheckCompleted>().expect("they have the form")
    };
    until(&mut bench, "memory was looked at", |bench| {
        bench.host().metrics().contains_key("system_memory_utilization_ratio").then_some(())
    });
    assert_eq!(runs(&mut bench), [], "nobody asked");
    bench.host().want("health.check.*");
    let run = until(&mut bench, "runs are told", |bench| {
        let runs = runs(bench);
        let of = |name: &str| runs.iter().filter(|run| run.component == name).count();
        (of("memory") >= 2 && of("pressure.memory") >= 2)
            .then(|| runs.iter().find(|run| run.component == "memory").cloned())
    });
    let run = run.expect("it was counted");
    assert_eq!(run.unit.as_deref(), Some("ratio"));
    assert!(run.value.is_some_and(|value| value > 0.0 && value < 1.0), "{run:?}");
    let live = bench.host().emitted().into_iter().find(|event| event.subject == "memory");
    assert!(!live.expect("it was counted").ledger, "no run belongs into the ledger");
    bench.stop().expect("it ends");
}
