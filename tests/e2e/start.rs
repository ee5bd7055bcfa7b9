//! Start of a daemon: its output, and the obstacles.

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixDatagram, UnixListener},
    },
    time::Duration,
};

use harness::{Daemon, Sandbox, is_root, program, run, tool_or_skip};
use serde_json::Value;

#[test]
fn starts_answers_and_ends() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let status = sandbox.json(&["status"]);
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["config_path"], sandbox.path("modules.yaml").display().to_string());
    assert!(status["version"].is_string() && status["uptime_s"].is_u64(), "{status:#}");
    assert_eq!(status["listeners"][0]["name"], "metrics");
    let modules = status["modules"].as_array().expect("a list").clone();
    assert_eq!(modules.len(), 2);
    modules.iter().for_each(check_module);
    assert_eq!(sandbox.json(&["modules", "list"]).as_array().expect("a list").len(), 2);
    assert!(daemon.stop().success());
}

/// Checks the stable JSON form of a running module.
fn check_module(module: &Value) {
    let is = |key: &str, check: fn(&Value) -> bool| {
        assert!(module.get(key).is_some_and(check), "{key} of {module:#}");
    };
    for key in ["name", "version", "isolation"] {
        is(key, Value::is_string);
    }
    for key in ["generation", "restarts", "cpu_ms", "memory_bytes"] {
        is(key, Value::is_u64);
    }
    is("listeners", Value::is_array);
    is("reason", Value::is_null);
    assert_eq!((&module["desired"], &module["state"]), (&"enabled".into(), &"running".into()));
    assert_eq!(module["health"]["status"], "ok", "{module:#}");
    assert!(module["health"]["message"].is_string(), "{module:#}");
    for key in ["accepted", "handled", "dead", "dropped", "pending"] {
        assert!(module["events"][key].is_u64(), "{key} of {module:#}");
    }
}

#[test]
fn tells_systemd_when_it_is_ready() {
    let sandbox = Sandbox::usual();
    let notify = UnixDatagram::bind(sandbox.path("notify")).expect("the sandbox is writable");
    notify.set_read_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
    let mut command = sandbox.lodestard();
    command.env("NOTIFY_SOCKET", sandbox.path("notify"));
    let daemon = Daemon::spawn(&sandbox, command);
    loop {
        let mut said = [0; 512];
        let count = notify.recv(&mut said).expect("it says that it is ready");
        if String::from_utf8_lossy(&said[..count]).contains("READY=1") {
            break;
        }
    }
    assert_eq!(daemon.module("usage_tracker")["state"], "running");
}

#[test]
fn a_first_start_writes_the_commented_configuration() {
    let sandbox = Sandbox::usual();
    fs::remove_file(sandbox.path("modules.yaml")).expect("it was written");
    let mut command = sandbox.lodestard();
    command.args(["--set", "ingest.listen=127.0.0.1:0"]);
    let daemon = Daemon::spawn(&sandbox, command);
    daemon.wait_settled();
    assert!(sandbox.configuration().contains("# listen: 127.0.0.1:4318"));
    assert_eq!(daemon.module("usage_tracker")["state"], "running");
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let second = run(&mut sandbox.lodestard_on(&sandbox.path("other.sock")));
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains(&daemon.pid().to_string()), "{second:#?}");
    assert!(second.stderr.contains("--state-dir"), "{second:#?}");
    assert!(daemon.status().is_some(), "the first goes on");
}

#[test]
fn a_socket_that_answers_is_not_taken_and_a_stale_one_is_replaced() {
    let sandbox = Sandbox::usual();
    let held = UnixListener::bind(sandbox.socket()).expect("the sandbox is writable");
    let refused = run(&mut sandbox.lodestard());
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("control.sock"), "{refused:#?}");
    drop(held);
    assert!(sandbox.socket().exists(), "it is stale now");
    let daemon = sandbox.start();
    assert!(daemon.status().is_some());
}

#[test]
fn a_socket_path_that_is_a_file_is_refused_and_kept() {
    let sandbox = Sandbox::usual();
    fs::write(sandbox.socket(), "precious").expect("the sandbox is writable");
    let refused = run(&mut sandbox.lodestard());
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("control.sock"), "{refused:#?}");
    assert_eq!(fs::read_to_string(sandbox.socket()).expect("it is still there"), "precious");
}

#[test]
fn taken_ports_are_warnings_that_name_the_holder() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let config = format!(
        "modules:\n  ingest:\n    listen: {address}\n  usage_tracker:\n    enabled: true\n\
         metrics:\n  listen: {address}\n"
    );
    let sandbox = Sandbox::new(&["ingest", "usage_tracker"], &config);
    let daemon = sandbox.start();
    assert_eq!(daemon.module("usage_tracker")["state"], "running");
    let ingest = daemon.module("ingest");
    assert!(!ingest["reason"].is_null() || ingest["health"]["status"] != "ok", "{ingest:#}");
    let holder = format!("process {}", std::process::id());
    assert!(ingest.to_string().contains(&holder), "{ingest:#}");
    assert!(daemon.log().contains(&holder), "{}", daemon.log());
    let doctor = sandbox.lodestar(&["doctor"]).stdout;
    let about = doctor.split("module ingest: ").nth(1).unwrap_or_else(|| panic!("{doctor}"));
    assert!(about.contains(&holder) && about.contains("modules reload ingest"), "{doctor}");
    // Both keys want it, and each line is named.
    let checked = sandbox.lodestar(&["config", "check"]).stdout;
    assert!(checked.contains("modules.ingest.listen: cannot listen at"), "{checked}");
    assert!(checked.contains("metrics.listen (line 7, "), "{checked}");
    drop(taken);
    let reloaded = sandbox.lodestar(&["modules", "reload", "ingest"]);
    assert_eq!(reloaded.code, 0, "the remedy helps: {reloaded:#?}");
    assert_eq!(daemon.module("ingest")["state"], "running");
}

#[test]
fn an_unwritable_state_directory_is_named() {
    let sandbox = Sandbox::usual();
    let closed = sandbox.path("closed");
    fs::create_dir(&closed).expect("the sandbox is writable");
    let mode = |path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    mode(closed.clone(), 0o555);
    let mut command = if is_root() {
        // Root passes every check: another user must try.
        let Some(setpriv) = tool_or_skip("setpriv", "an_unwritable_state_directory_is_named")
        else {
            return;
        };
        mode(sandbox.path(""), 0o755);
        mode(sandbox.path("run"), 0o777);
        let copy = sandbox.copy_program("lodestard");
        let mut command = sandbox.isolated(&setpriv);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
        command
    } else {
        sandbox.isolated(&program("lodestard"))
    };
    command.arg("--config").arg(sandbox.path("modules.yaml"));
    command.arg("--socket").arg(sandbox.socket()).arg("--state-dir").arg(closed.join("state"));
    let refused = run(&mut command);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("closed/state"), "{refused:#?}");
    assert!(refused.stderr.to_lowercase().contains("permission denied"), "{refused:#?}");
}

#[test]
fn a_daemon_that_is_down_is_said_so() {
    let sandbox = Sandbox::usual();
    for args in [&["status"][..], &["usage", "summary"], &["no_such_command"], &["events", "lag"]] {
        let output = sandbox.lodestar(args);
        assert_eq!(output.code, 3, "{args:?}: {output:#?}");
        assert!(output.stderr.contains("lodestard"), "{output:#?}");
    }
}

#[test]
fn a_command_of_a_disabled_module_says_how_to_enable_it() {
    let sandbox = Sandbox::usual();
    sandbox.configure(&sandbox.configuration().replacen(
        "usage_tracker:\n    enabled: true",
        "usage_tracker:\n    enabled: false",
        1,
    ));
    let _daemon = sandbox.start();
    let unknown = sandbox.lodestar(&["usge"]);
    assert_eq!(unknown.code, 2, "{unknown:#?}");
    let disabled = sandbox.lodestar(&["usage_tracker", "summary"]);
    assert_eq!(disabled.code, 1, "{disabled:#?}");
    assert!(disabled.stderr.contains("usage_tracker is disabled"), "{disabled:#?}");
    assert!(disabled.stderr.contains("modules enable usage_tracker"), "{disabled:#?}");
    let help = sandbox.lodestar(&["usage", "summary", "--help"]);
    assert_eq!(help.code, 0, "{help:#?}");
    assert!(help.stdout.contains("--since"), "its commands are known: {help:#?}");
}
