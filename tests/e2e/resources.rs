//! Limits of `ulimit`, and their effect.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use harness::{Daemon, Sandbox, is_root, run, tool_or_skip, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

/// Creates the command for a daemon that a shell starts with this limit.
fn limited(sandbox: &Sandbox, limit: &str) -> Command {
    let lodestard = sandbox.lodestard();
    let mut command = sandbox.isolated(Path::new("/bin/sh"));
    command.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]);
    command.arg(lodestard.get_program()).args(lodestard.get_args());
    command
}

#[test]
fn limits_that_are_too_small_are_said_at_start() {
    let sandbox = Sandbox::usual();
    for (limit, parts) in [
        ("-f 8", ["`ulimit -f`", "needs 67108864", "`ulimit -f unlimited`", "LimitFSIZE="]),
        ("-s 64", ["`ulimit -s`", "needs 524288", "`ulimit -s 8192`", "LimitSTACK="]),
        ("-n 32", ["`ulimit -n`", "needs 64", "`ulimit -n 8192`", "LimitNOFILE="]),
        ("-v 500000", ["`ulimit -v`", "needs 1073741824", "`ulimit -v unlimited`", "LimitAS="]),
        ("-d 20000", ["`ulimit -d`", "needs 134217728", "`ulimit -d unlimited`", "LimitDATA="]),
    ] {
        let refused = run(&mut limited(&sandbox, limit));
        assert_eq!(refused.code, 1, "{limit}: {refused:#?}");
        for part in parts {
            assert!(refused.stderr.contains(part), "{limit}: {part}: {refused:#?}");
        }
    }
    // One that is enough for now is told.
    let daemon = Daemon::spawn(&sandbox, limited(&sandbox, "-f 1048576"));
    daemon.wait_settled();
    let warnings = sandbox.json(&["status"])["warnings"].clone();
    assert_eq!(warnings[0]["name"], "ulimit -f", "{warnings:#}");
    assert!(warnings[0]["message"].to_string().contains("needs 2147483648"), "{warnings:#}");
    let doctor = sandbox.lodestar(&["doctor"]).stdout;
    assert!(doctor.contains("warning ulimit -f: "), "{doctor}");
    assert!(daemon.stop().success());
    // What the daemon may raise itself needs no word.
    let daemon = Daemon::spawn(&sandbox, limited(&sandbox, "-S -n 128 && ulimit -S -s 256"));
    daemon.wait_settled();
    assert_eq!(sandbox.json(&["status"])["warnings"], json!([]));
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("it lives");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("it is one");
    let soft = line.split_whitespace().nth(3).and_then(|it| it.parse::<u64>().ok());
    assert!(soft.is_some_and(|soft| soft > 128), "{line}");
}

#[test]
fn too_few_tasks_are_said_at_start() {
    let test = "resources::too_few_tasks_are_said_at_start";
    let Some(prlimit) = tool_or_skip("prlimit", test) else { return };
    let sandbox = Sandbox::usual();
    let mut command = if is_root() {
        // No such limit holds root.
        let Some(setpriv) = tool_or_skip("setpriv", test) else { return };
        fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o755)).expect("ours");
        let mut command = sandbox.isolated(&setpriv);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(prlimit);
        command
    } else {
        sandbox.isolated(&prlimit)
    };
    let copy = sandbox.copy_program("lodestard");
    command.arg("--nproc=32:32").arg(copy).args(sandbox.lodestard().get_args());
    let refused = run(&mut command);
    assert_eq!(refused.code, 1, "{refused:#?}");
    for part in ["`ulimit -u`", "needs 64", "`ulimit -u 4096`", "LimitNPROC="] {
        assert!(refused.stderr.contains(part), "{part}: {refused:#?}");
    }
}

/// The module that asks for memory when none is left need not be the one that took it.
#[test]
fn no_module_is_blamed_for_a_limit_of_the_process() {
    let sandbox = Sandbox::new(
        &["misbehaver", "counter"],
        "modules:\n  counter:\n  misbehaver:\nmetrics:\n  listen: 127.0.0.1:0\n",
    );
    let daemon = sandbox.start();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it lives");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("it has one");
    let size = size.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10;
    let limit = Rlimit { current: Some(size + (256 << 20)), maximum: None };
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::As, limit).expect("it is ours");
    let output = sandbox.lodestar(&["misbehaver", "crash", "--how", "leak"]);
    assert_ne!(output.code, 0, "{output:#?}");
    wait_until("the daemon has ended", || (!daemon.lives()).then_some(()));
    let daemon = sandbox.start();
    let module = daemon.module("misbehaver");
    assert_eq!(module["isolation"], "in_process", "{module:#}\n{}", daemon.log());
    let warnings = sandbox.json(&["status"])["warnings"].clone();
    assert_eq!(warnings[0]["name"], "memory", "{warnings:#}");
    assert!(warnings[0]["message"].to_string().contains("no module is blamed"), "{warnings:#}");
    assert!(sandbox.lodestar(&["doctor"]).stdout.contains("`ulimit -v unlimited`"));
    // One that ends the daemon by itself is.
    prlimit(
        i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw),
        Resource::As,
        Rlimit { current: Some(1 << 40), maximum: None },
    )
    .expect("it is ours");
    let output = sandbox.lodestar(&["misbehaver", "crash", "--how", "abort"]);
    assert_ne!(output.code, 0, "{output:#?}");
    wait_until("the daemon has ended", || (!daemon.lives()).then_some(()));
    let daemon = sandbox.start();
    assert_eq!(daemon.module("misbehaver")["isolation"], "process", "{}", daemon.log());
    assert!(daemon.stop().success());
}
