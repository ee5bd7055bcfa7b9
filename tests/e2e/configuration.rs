//! `modules.yaml`: invalid versions change nothing, valid ones take effect while the daemon runs.

use std::os::unix::fs::PermissionsExt as _;

use harness::{Daemon, Sandbox, http, run, telemetry, wait_until};

/// Invalid configurations, with the texts that the error must contain: the line, and the remedy or
/// the subject.
const BAD: [(&str, &str, &[&str]); 19] = [
    ("not YAML", "modules: [", &["modules.yaml:1"]),
    ("a list", "- a\n- b\n", &["modules.yaml"]),
    (
        "a duplicate key",
        "modules:\n  ingest:\n    enabled: true\n  ingest:\n    enabled: false\n",
        &["modules.yaml:4", "ingest"],
    ),
    ("an unknown section", "modulse:\n  ingest:\n", &["modules.yaml:1", "modules"]),
    (
        "an unknown key of the daemon",
        "metrics:\n  lisen: 127.0.0.1:0\n",
        &["modules.yaml:2", "listen"],
    ),
    (
        "an unknown key of a module",
        "modules:\n  usage_tracker:\n    retention_day: 3\n",
        &["modules.yaml:3", "retention_days"],
    ),
    (
        "a wrong type",
        "modules:\n  usage_tracker:\n    retention_days: many\n",
        &["modules.yaml:3", "retention_days"],
    ),
    (
        "a switch that is none",
        "modules:\n  ingest:\n    enabled: maybe\n",
        &["modules.yaml:3", "enabled"],
    ),
    (
        "a reference to nothing",
        "modules:\n  ingest:\n    projects: {shop: {key: \"${LODESTAR_NO_SUCH_KEY}\"}}\n",
        &["modules.yaml:3", "LODESTAR_NO_SUCH_KEY"],
    ),
    (
        "a time zone that is none",
        "modules:\n  usage_tracker:\n    timezone: Europe/Viena\n",
        &["modules.yaml:3:5: modules.usage_tracker.timezone: ", "did you mean `Europe/Vienna`?"],
    ),
    (
        "a baseline without a price",
        "modules:\n  usage_tracker:\n    baseline_model: claude-sonet-4-5\n",
        &["modules.yaml:3:5: modules.usage_tracker.baseline_model: ", "`claude-sonnet-4-5`"],
    ),
    (
        "a number out of its range",
        "modules:\n  usage_tracker:\n    retention_days: 40000\n",
        &["modules.yaml:3:5: modules.usage_tracker.retention_days: must be a whole number from 0 \
           to 36500, but is 40000; 0 keeps them for ever"],
    ),
    (
        "a number below its range",
        "modules:\n  usage_tracker:\n    retention_days: -5\n",
        &["retention_days: must be a whole number from 0 to 36500, but is -5"],
    ),
    (
        "several unknown keys",
        "modules:\n  usage_tracker:\n    prices:\n      m: {inptu: 1, outptu: 1}\n    days: 3\n",
        &[
            "modules.yaml:4:11: ",
            "m.inptu: ",
            "`input`",
            "m.outptu: ",
            "`output`",
            "tracker.days: ",
        ],
    ),
    ("a file that was emptied", "", &["modules.yaml: holds nothing", "`modules: {}`"]),
    (
        "a price below nothing",
        "modules:\n  usage_tracker:\n    prices:\n      gpt-5.1: {input: -1, output: 1}\n",
        &["modules.yaml:4:17: modules.usage_tracker.prices.gpt-5.1.input: is -1"],
    ),
    (
        "limits that contradict each other",
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n    max_buffered_bytes: 1024\n",
        &["modules.yaml:4:5: modules.ingest.max_buffered_bytes: is smaller than"],
    ),
    (
        "a port that is none",
        "modules:\n  ingest:\n    listen: 127.0.0.1:99999\n",
        &["modules.yaml:3:5: modules.ingest.listen: must end with a port"],
    ),
    (
        "the network without a key",
        "modules:\n  ingest:\n    listen: 0.0.0.0:0\n",
        &["modules.yaml:3:5: modules.ingest.listen: is open to the network", "projects"],
    ),
];

/// Returns an alias bomb: nine levels of nine.
fn bomb() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}", level - 1);
        let list = [below.as_str(); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    text
}

#[test]
fn a_bad_file_is_explained_before_the_daemon_starts() {
    let sandbox = Sandbox::usual();
    for (what, text, parts) in BAD {
        sandbox.configure(text);
        let checked = run(sandbox.lodestard().arg("--check"));
        assert_ne!(checked.code, 0, "{what}: {checked:#?}");
        let said = format!("{}{}", checked.stdout, checked.stderr);
        for part in parts {
            assert!(said.contains(part), "{what} must name {part}: {said}");
        }
    }
    sandbox.configure(&bomb());
    let checked = run(sandbox.lodestard().arg("--check"));
    assert_ne!(checked.code, 0, "a bomb: {checked:#?}");
}

#[test]
fn what_is_valid_and_hardly_meant_is_a_warning() {
    let sandbox = Sandbox::usual();
    let good = sandbox.configuration();
    let daemon = sandbox.start();
    let other = sandbox.path("other.yaml");
    let misspelt = good.replace("usage_tracker:", "usage_traker:");
    let stops = "these running modules would stop: usage_tracker";
    for (text, parts) in [
        (
            misspelt.as_str(),
            &["other.yaml:6:3: modules.usage_traker", "`usage_tracker`", stops][..],
        ),
        (
            "modules: {}\n",
            &["names no module", "these running modules would stop: ingest, usage_tracker"],
        ),
        ("modules:\n  usage_tracker:\n    api_key: sk-canary\n", &["a secret stands in"]),
    ] {
        std::fs::write(&other, text).expect("the sandbox is writable");
        let checked = sandbox.lodestar(&["config", "check", &other.display().to_string()]);
        for part in parts {
            assert!(checked.stdout.contains(part), "{part}: {checked:#?}");
        }
        assert!(!format!("{checked:?}").contains("canary"), "{checked:#?}");
    }
    // A save on a full disk stops nothing.
    sandbox.configure("");
    wait_until("it is refused", || {
        let error = sandbox.json(&["status"])["config_error"].to_string();
        error.contains("holds nothing").then_some(())
    });
    assert_eq!(daemon.module("usage_tracker")["state"], "running");
    let secret = "modules:\n  usage_tracker:\n    token: sk-canary\n";
    for (mode, is_told) in [(0o644, true), (0o640, true), (0o600, false)] {
        sandbox.configure(secret);
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(sandbox.path("modules.yaml"), permissions).expect("it is ours");
        let checked = run(sandbox.lodestard().arg("--check"));
        let told = format!("{}{}", checked.stdout, checked.stderr).contains("`chmod go-r ");
        assert_eq!(told, is_told, "{mode:o}: {checked:#?}");
    }
    sandbox.configure(&misspelt);
    let offline = run(sandbox.lodestard().arg("--check"));
    assert_eq!(offline.code, 0, "{offline:#?}");
    assert!(offline.stderr.contains("did you mean `usage_tracker`?"), "{offline:#?}");
    // Once it has been taken, the doctor tells.
    daemon.wait_state("usage_traker", "absent");
    let doctor = sandbox.lodestar(&["doctor", "--json"]);
    assert_eq!(doctor.code, 1, "a module is absent: {doctor:#?}");
    let report: serde_json::Value = serde_json::from_str(&doctor.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("checks").iter();
    let found = checks.filter(|check| check["name"] == "configuration").collect::<Vec<_>>();
    assert_eq!(found[0]["status"], "warning", "{report:#}");
}

#[test]
fn each_setting_of_a_module_names_its_origin() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    daemon.wait_state("ingest", "running");
    let shown = sandbox.lodestar(&["config", "show", "ingest"]);
    let line = |key: &str| {
        let line = shown.stdout.lines().find(|line| line.starts_with(&format!("{key}:")));
        line.unwrap_or_else(|| panic!("{key}: {shown:#?}")).to_owned()
    };
    let file = sandbox.path("modules.yaml").display().to_string();
    assert!(line("listen").ends_with(&format!("# {file}:4")), "{shown:#?}");
    assert!(line("rate_limit.burst").starts_with("rate_limit.burst: 100000 "), "{shown:#?}");
    assert!(line("join_window_seconds").ends_with("# default"), "{shown:#?}");
    // As well of one that does not run.
    assert_eq!(sandbox.lodestar(&["modules", "disable", "usage_tracker"]).code, 0);
    let shown = sandbox.json(&["config", "show", "usage_tracker"]);
    let settings = shown.as_array().expect("a list").iter();
    let days = settings.filter(|setting| setting["key"] == "retention_days").collect::<Vec<_>>();
    assert_eq!((&days[0]["value"], &days[0]["origin"]), (&90.into(), &"default".into()));
    let unknown = sandbox.lodestar(&["config", "show", "usage_trakcer"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("did you mean usage_tracker?"), "{unknown:#?}");
}

#[test]
fn a_bad_edit_changes_nothing() {
    let sandbox = Sandbox::usual();
    let good = sandbox.configuration();
    let daemon = sandbox.start();
    let both = || {
        ["ingest", "usage_tracker"].map(|name| {
            let module = daemon.module(name);
            (module["state"].clone(), module["generation"].clone())
        })
    };
    let before = both();
    assert!(before.iter().all(|(state, _)| state == "running"), "{before:?}");
    let mut seen = daemon.log().len();
    let bombs = [("a bomb", bomb(), &["modules.yaml"][..])];
    let bad = BAD.iter().map(|(what, text, parts)| (*what, (*text).to_owned(), *parts));
    for (what, text, parts) in bad.chain(bombs) {
        sandbox.configure(&text);
        wait_until(&format!("{what} is reported"), || {
            let log = daemon.log();
            let new = &log[seen..];
            parts.iter().all(|part| new.contains(part)).then_some(())
        });
        seen = daemon.log().len();
        assert_eq!(both(), before, "{what}");
        assert_ne!(sandbox.lodestar(&["config", "check"]).code, 0, "{what}");
        let error = sandbox.json(&["status"])["config_error"].clone();
        assert!(error.as_str().is_some_and(|error| error.contains(parts[0])), "{what}: {error}");
    }
    sandbox.configure(&good);
    wait_until("the good file is taken again", || {
        sandbox.json(&["status"])["config_error"].is_null().then_some(())
    });
    assert_eq!(sandbox.lodestar(&["config", "check"]).code, 0);
    assert_eq!(both(), before);
}

#[test]
fn a_misspelt_section_costs_no_event() {
    let sandbox = Sandbox::usual();
    let good = sandbox.configuration();
    let daemon = sandbox.start();
    let send = |id: &str| {
        let body = telemetry::claude_code("s", id).to_string();
        let address = daemon.address("ingest", "http");
        let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        assert_eq!(answer.expect("ingest answers").status, 200);
    };
    send("before");
    // Nothing waits for it at the moment.
    assert_eq!(sandbox.json(&["usage", "summary"])["total"]["requests"], 1);
    sandbox.configure(&good.replace("usage_tracker:", "usage_traker:"));
    daemon.wait_state("usage_traker", "absent");
    wait_until("it is said", || {
        daemon.log().contains("its section is gone; its events wait").then_some(())
    });
    send("meanwhile");
    sandbox.configure(&good);
    daemon.wait_state("usage_tracker", "running");
    assert_eq!(sandbox.json(&["usage", "summary"])["total"]["requests"], 2);
    // Unless somebody says that it is meant so.
    sandbox.configure(&good.replace("  usage_tracker:\n    enabled: true\n", ""));
    wait_until("it is gone", || {
        let removed = sandbox.lodestar(&["modules", "remove", "usage_tracker"]);
        (removed.code == 0).then_some(())
    });
    send("for nobody");
    sandbox.configure(&good);
    daemon.wait_state("usage_tracker", "running");
    assert_eq!(sandbox.json(&["usage", "summary"])["total"]["requests"], 2);
}

#[test]
fn a_save_that_switches_on_what_is_wrong_changes_nothing() {
    let sandbox = Sandbox::usual();
    let good = sandbox.configuration().replacen(
        "tracker:\n    enabled: true",
        "tracker:\n    enabled: false",
        1,
    );
    sandbox.configure(&good);
    let daemon = sandbox.start();
    daemon.wait_state("usage_tracker", "disabled");
    let bad =
        sandbox.configuration().replacen("enabled: false", "enabled: true\n    no_such_key: 1", 1);
    let bad = bad.replace("burst: 100000", "burst: 99999");
    sandbox.configure(&bad);
    wait_until("it is refused", || {
        daemon.status()?["config_error"].as_str()?.contains("no_such_key").then_some(())
    });
    assert_eq!(daemon.module("ingest")["generation"], 1, "not half of it is taken");
    daemon.wait_state("usage_tracker", "disabled");
    // Nor is it by the command line, and the file stays as it was.
    let broken = good.replacen("enabled: false", "enabled: false\n    no_such_key: 1", 1);
    sandbox.configure(&broken);
    wait_until("it is taken: nobody runs with it", || {
        daemon.status()?["config_error"].is_null().then_some(())
    });
    let output = sandbox.lodestar(&["modules", "enable", "usage_tracker"]);
    assert_eq!(output.code, 4, "{output:#?}");
    assert!(output.stderr.contains("no_such_key"), "{output:#?}");
    assert_eq!(sandbox.configuration(), broken);
    daemon.wait_state("usage_tracker", "disabled");
}

#[test]
fn two_sections_in_one_save_are_one_reload_each() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let good = sandbox.configuration();
    for (number, generation) in [(3, 2), (4, 3)] {
        let days = format!("tracker:\n    retention_days: {number}");
        let text =
            good.replace("tracker:", &days).replace("burst: 100000", &format!("burst: {number}"));
        sandbox.configure(&text);
        for module in ["ingest", "usage_tracker"] {
            wait_until("it is reloaded", || {
                (daemon.module(module)["generation"] == generation).then_some(())
            });
        }
    }
    // Whatever would come after them comes before these.
    for module in ["ingest", "usage_tracker"] {
        assert_eq!(sandbox.lodestar(&["modules", "reload", module]).code, 0);
        assert_eq!(daemon.module(module)["generation"], 4, "{module}");
    }
}

#[test]
fn a_daemon_runs_without_modules() {
    let sandbox = Sandbox::new(&[], "modules: {}\n");
    let mut command = sandbox.lodestard();
    command.env("LODESTAR_METRICS__LISTEN", "127.0.0.1:0");
    let daemon = Daemon::spawn(&sandbox, command);
    daemon.wait_settled();
    assert_eq!(sandbox.json(&["modules", "list"]), serde_json::json!([]));
}

#[test]
fn a_module_that_is_not_there_is_shown_as_absent() {
    let config = "modules:\n  usage_tracke:\n    enabled: true\n  counter:\n    enabled: true\n\
                  metrics:\n  listen: 127.0.0.1:0\n";
    let sandbox = Sandbox::new(&["usage_tracker", "counter"], config);
    let daemon = sandbox.start();
    let absent = daemon.wait_state("usage_tracke", "absent");
    let reason = absent["reason"].as_str().expect("it has a reason");
    assert!(reason.contains(&sandbox.path("modules").display().to_string()), "{reason}");
    assert!(reason.contains("usage_tracker"), "the nearest name: {reason}");
    daemon.wait_state("counter", "running");
}

#[test]
fn enable_and_disable_edit_one_word_and_keep_the_rest() {
    let text = "# The house.\nmodules:\n  # what it costs\n  usage_tracker:   # ours\n    \
                enabled: false # off for now\n    retention_days: 7\n\n  counter: {enabled: true}\n\
                metrics: {listen: '127.0.0.1:0'} # last line\n";
    let sandbox = Sandbox::new(&["usage_tracker", "counter"], text);
    let daemon = sandbox.start();
    daemon.wait_state("usage_tracker", "disabled");

    let enabled = sandbox.lodestar(&["modules", "enable", "usage_tracker"]);
    assert_eq!(enabled.code, 0, "{enabled:#?}");
    assert_eq!(daemon.module("usage_tracker")["state"], "running");
    assert_eq!(sandbox.configuration(), text.replace("enabled: false #", "enabled: true #"));

    let disabled = sandbox.lodestar(&["modules", "disable", "usage_tracker"]);
    assert_eq!(disabled.code, 0, "{disabled:#?}");
    assert_eq!(daemon.module("usage_tracker")["state"], "disabled");
    assert_eq!(sandbox.configuration(), text);
    assert_eq!(daemon.module("counter")["generation"], 1, "the other module was left alone");

    let unknown = sandbox.lodestar(&["modules", "enable", "usage_trakcer"]);
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("usage_tracker"), "{unknown:#?}");
}

#[test]
fn an_edit_takes_effect_when_it_is_saved() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let on = sandbox.configuration();
    let off =
        on.replacen("usage_tracker:\n    enabled: true", "usage_tracker:\n    enabled: false", 1);
    // Renamed over the old one, as editors do, and more than once.
    for _ in 0..3 {
        sandbox.configure(&off);
        daemon.wait_state("usage_tracker", "disabled");
        sandbox.configure(&on);
        daemon.wait_state("usage_tracker", "running");
    }
    // Written in place.
    std::fs::write(sandbox.path("modules.yaml"), &off).expect("the sandbox is writable");
    daemon.wait_state("usage_tracker", "disabled");
    assert_eq!(daemon.module("ingest")["generation"], 1, "the other module was left alone");
}

#[test]
fn a_hangup_reads_the_file_again() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let off = sandbox.configuration().replace("enabled: true", "enabled: false");
    std::fs::write(sandbox.path("modules.yaml"), off).expect("the sandbox is writable");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_state("ingest", "disabled");
    daemon.wait_state("usage_tracker", "disabled");
    assert!(daemon.lives(), "a hangup is no reason to end");
}

#[test]
fn layers_lie_above_the_file() {
    let sandbox = Sandbox::usual();
    let mut command = sandbox.lodestard();
    command.env("LODESTAR_USAGE_TRACKER__RETENTION_DAYS", "12");
    command.args(["--set", "ingest.join_window_seconds=3"]);
    let daemon = Daemon::spawn(&sandbox, command);
    daemon.wait_settled();
    let shown = sandbox.json(&["config", "show"]);
    assert_eq!(shown["modules"]["usage_tracker"]["retention_days"], 12, "{shown:#}");
    assert_eq!(shown["modules"]["ingest"]["join_window_seconds"], 3, "{shown:#}");
}

#[test]
fn a_secret_is_shown_as_its_reference() {
    let config = "modules:\n  ingest:\n    listen: 127.0.0.1:0\n    projects: \
                  {shop: {key: \"${SHOP_KEY}\"}}\nmetrics:\n  listen: 127.0.0.1:0\n";
    let sandbox = Sandbox::new(&["ingest"], config);
    let mut command = sandbox.lodestard();
    command.env("SHOP_KEY", "sk_live_canary0123456789abcdef");
    let daemon = Daemon::spawn(&sandbox, command);
    daemon.wait_settled();
    daemon.wait_state("ingest", "running");
    let shown = sandbox.lodestar(&["config", "show", "--json"]);
    assert!(shown.stdout.contains("${SHOP_KEY}"), "{shown:#?}");
    assert!(!shown.stdout.contains("canary"), "{shown:#?}");
    assert!(!daemon.log().contains("canary"), "{}", daemon.log());
}

#[test]
fn a_former_name_is_read_and_told() {
    let providers =
        "providers:\n  local:\n    base_url: http://127.0.0.1:11434\n    dialect: ollama\n";
    let others = "modules:\n  misbehaver: {}\nmetrics:\n  listen: 127.0.0.1:0\n";
    let sandbox = Sandbox::new(&["misbehaver"], &format!("{others}{providers}"));
    let daemon = sandbox.start();
    assert_eq!(sandbox.json(&["misbehaver", "providers"])["local"]["api"], "ollama");
    let told =
        "providers.local.dialect: is called `api` now, and is still read; write `api` instead";
    assert!(daemon.log().contains(told), "{}", daemon.log());
    let check = sandbox.json(&["config", "check"]);
    let warnings = check["warnings"].as_array().expect("a list");
    assert!(warnings.iter().any(|it| it["key"] == "providers.local.dialect"), "{check:#}");
    sandbox.configure(&sandbox.configuration().replace("dialect", "api"));
    let check = sandbox.json(&["config", "check"]);
    assert_eq!(check["warnings"], serde_json::json!([]), "{check:#}");
    assert!(daemon.stop().success());
}
