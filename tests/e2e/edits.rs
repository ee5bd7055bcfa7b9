//! Edits of `modules.yaml` that are refused in part, or take effect later: the differences are
//! shown.

use harness::{Sandbox, wait_until};

#[test]
fn a_bad_section_holds_the_good_ones_back_as_well() {
    let sandbox = Sandbox::usual();
    let good = sandbox.configuration();
    let daemon = sandbox.start();
    let generations =
        || ["ingest", "usage_tracker"].map(|it| daemon.module(it)["generation"].clone());
    let before = generations();
    let listen = "    listen: 127.0.0.1:0\n    rate_limit";
    let valid =
        good.replace(listen, "    listen: 127.0.0.1:0\n    join_window_seconds: 3\n    rate_limit");
    assert_ne!(valid, good);
    let tracker = "  usage_tracker:\n    enabled: true\n";
    let wrong = valid.replace(tracker, &format!("{tracker}    retention_days: many\n"));
    sandbox.configure(&wrong);
    wait_until("it is reported", || {
        let error = sandbox.json(&["status"])["config_error"].clone();
        error.as_str()?.contains("retention_days").then_some(())
    });
    assert_eq!(generations(), before, "neither moves");
    let shown = sandbox.json(&["config", "show", "ingest"]);
    let window = |shown: &serde_json::Value| {
        let settings = shown.as_array().expect("a list").iter();
        let mut settings = settings.filter(|it| it["key"] == "join_window_seconds");
        settings.next().expect("it is one")["value"].clone()
    };
    assert_ne!(window(&shown), 3, "{shown:#}");
    let diff = sandbox.lodestar(&["config", "diff"]);
    let change = "modules.ingest.join_window_seconds: (absent) -> 3";
    assert!(diff.stdout.contains(change), "what would change is shown: {diff:#?}");
    assert!(diff.stderr.contains("nothing of this is taken: "), "{diff:#?}");
    assert!(diff.stderr.contains("retention_days") && diff.code == 4, "{diff:#?}");
    // A value that only the module can judge holds the rest back as well.
    sandbox.configure(&wrong.replace("retention_days: many", "time_zone: Mars/Olympus"));
    let diff = sandbox.lodestar(&["config", "diff", "--json"]);
    assert!(diff.stdout.contains("modules.ingest.join_window_seconds"), "{diff:#?}");
    assert!(diff.stderr.contains("time_zone") && diff.code == 4, "{diff:#?}");
    // Without the mistake the rest of the edit counts.
    sandbox.configure(&valid);
    wait_until("the good change is taken", || {
        (window(&sandbox.json(&["config", "show", "ingest"])) == 3).then_some(())
    });
    wait_until("ingest runs with it", || (generations()[0] != before[0]).then_some(()));
    daemon.wait_state("ingest", "running");
    assert_eq!(generations()[1], before[1], "the other module was left alone");
}

#[test]
fn what_waits_for_a_restart_is_a_difference() {
    let sandbox = Sandbox::usual();
    let good = sandbox.configuration();
    let _daemon = sandbox.start();
    let paths = || {
        let changes = sandbox.json(&["config", "diff"]);
        let changes = changes.as_array().expect("a list").clone();
        changes.iter().map(|change| change["path"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(paths(), [""; 0]);
    sandbox.configure(
        &good.replace("metrics:\n  listen: 127.0.0.1:0", "metrics:\n  listen: 127.0.0.2:0"),
    );
    wait_until("it is taken", || sandbox.json(&["status"])["config_error"].is_null().then_some(()));
    assert_eq!(paths(), ["\"metrics.listen\""]);
    // A mistake in a section that is switched off holds nothing back.
    let off = "  usage_tracker:\n    enabled: false\n    time_zone: Mars/Olympus\n";
    sandbox.configure(&good.replace("  usage_tracker:\n    enabled: true\n", off));
    wait_until("it is taken", || (paths() == [""; 0]).then_some(()));
    assert_eq!(sandbox.lodestar(&["config", "diff"]).code, 0);
    sandbox.configure(&good);
    wait_until("the good one is taken", || (paths() == [""; 0]).then_some(()));
}

#[test]
fn a_new_provider_is_told_with_the_command_that_brings_it() {
    let config = "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  router:\n    listen: \
                  127.0.0.1:0\nmetrics:\n  listen: 127.0.0.1:0\n";
    let sandbox = Sandbox::new(&["ingest", "router"], config);
    let daemon = sandbox.start();
    let provider = "  p: {base_url: 'http://127.0.0.1:9', api: openai, models: [m]}\n";
    sandbox.configure(&format!("{config}providers:\n{provider}"));
    let reason =
        wait_until("it is told", || daemon.module("router")["reason"].as_str().map(str::to_owned));
    let (_, remedy) = reason.split_once("`lodestar ").expect("it names a command");
    let (remedy, _) = remedy.split_once('`').expect("it ends");
    assert_eq!(remedy, "modules reload router", "{reason}");
    assert!(daemon.log().contains("lodestar modules reload router"), "{}", daemon.log());
    assert!(!daemon.log().contains("when lodestard is started again"), "{}", daemon.log());
    // Who is told of no providers has nothing to be reloaded for.
    assert_eq!(daemon.module("ingest")["reason"], serde_json::Value::Null);
    let diff = sandbox.lodestar(&["config", "diff"]);
    assert!(diff.stdout.contains("The configuration file was taken."), "{diff:#?}");
    assert!(diff.stderr.contains(remedy), "{diff:#?}");
    let reloaded = sandbox.lodestar(&remedy.split(' ').collect::<Vec<_>>());
    assert_eq!(reloaded.code, 0, "{reloaded:#?}");
    assert_eq!(daemon.module("router")["reason"], serde_json::Value::Null);
    let targets = sandbox.json(&["router", "targets"]);
    assert_eq!(targets[0]["provider"], "p", "{targets:#}");
}
