//! What `ulimit` says, and what becomes of it.

use std::{fs, path::Path, process::Command};

use harness::{Daemon, Sandbox, run};
use serde_json::json;

/// A daemon that a shell starts with this limit.
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
