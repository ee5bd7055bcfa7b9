//! A full disk: running work goes on, nothing changes, and the error names the remedy.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use harness::{
    Daemon, Sandbox, http, is_root, library, run, skip_even_in_ci, telemetry, tool_or_skip,
    wait_until,
};

use crate::install::package;

/// Starts a daemon whose state is on a small disk of its own; returns the path of that disk.
pub(crate) fn on_a_small_disk<'a>(
    sandbox: &'a Sandbox,
    size: &str,
    test: &str,
) -> Option<(Daemon<'a>, PathBuf)> {
    let unshare = tool_or_skip("unshare", test)?;
    fs::create_dir(sandbox.state()).expect("the sandbox is writable");
    // In a mount namespace of its own: gone with the daemon.
    let script = format!("mount -t tmpfs -o size={size},mode=0700 tmpfs \"$0\" && exec \"$@\"");
    let with_disk = || {
        let mut command = sandbox.isolated(&unshare);
        command.arg(if is_root() { "-m" } else { "-rm" }).args(["sh", "-c", &script]);
        command.arg(sandbox.state());
        command
    };
    if run(with_disk().arg("true")).code != 0 {
        skip_even_in_ci(test, "this machine lets nobody mount a file system");
        return None;
    }
    let mut command = with_disk();
    let lodestard = sandbox.lodestard();
    command.arg(lodestard.get_program()).args(lodestard.get_args());
    let daemon = Daemon::spawn(sandbox, command);
    daemon.wait_settled();
    // From outside the namespace the disk is seen through the process.
    let disk = PathBuf::from(format!("/proc/{}/root", daemon.pid()));
    let disk = disk.join(sandbox.state().strip_prefix("/").expect("it is absolute"));
    Some((daemon, disk))
}

/// Writes until the disk is full.
pub(crate) fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("it is ours");
    for size in [64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

fn half_written(generations: &Path) -> usize {
    let entries = fs::read_dir(generations).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count()
}

#[test]
fn an_install_changes_nothing() {
    let sandbox = crate::install::sandbox();
    let test = "full_disk::an_install_changes_nothing";
    let Some((daemon, _)) = on_a_small_disk(&sandbox, "48m", test) else { return };
    let folder = package(&sandbox, "sink", &library("sink"));
    let output = sandbox.lodestar(&["modules", "install", &folder.display().to_string()]);
    assert_eq!(output.code, 0, "there is room for one: {output:#?}");
    let mut large = library("sink");
    large.resize(64 << 20, 0);
    package(&sandbox, "sink", &large);
    let before = sandbox.configuration();
    let output = sandbox.lodestar(&["modules", "install", &folder.display().to_string()]);
    assert_eq!(output.code, 1, "{output:#?}");
    assert!(output.stderr.contains("No space left"), "{output:#?}");
    assert!(output.stderr.contains("make room"), "{output:#?}");
    assert_eq!(sandbox.configuration(), before);
    assert_eq!(sandbox.json(&["modules", "verify"])[0]["ok"], true);
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_changes_nothing() {
    for isolation in ["in_process", "process"] {
        reload_on_a_full_disk(isolation);
    }
}

fn reload_on_a_full_disk(isolation: &str) {
    let config = format!(
        "modules:\n  counter:\n    enabled: true\n    isolation: {isolation}\n\
         metrics:\n  listen: 127.0.0.1:0\n"
    );
    let sandbox = Sandbox::new(&["counter"], &config);
    let test = "full_disk::a_reload_changes_nothing";
    let Some((daemon, disk)) = on_a_small_disk(&sandbox, "48m", test) else { return };
    let generations = disk.join("generations/counter");
    let before = daemon.module("counter");
    let sha256 = || sandbox.json(&["modules", "info", "counter"])["sha256"].clone();
    let old = sha256();
    let filler = disk.join("filler");
    fill(&filler);
    sandbox.replace_library("counter", 1);
    let output = sandbox.lodestar(&["modules", "reload", "counter"]);
    assert_eq!(output.code, 4, "{isolation}: {output:#?}");
    for part in ["No space left", "make room", "generations", "the generation before goes on"] {
        assert!(output.stderr.contains(part), "{isolation}, {part}: {output:#?}");
    }
    let after = daemon.module("counter");
    assert_eq!((&after["state"], &after["generation"]), (&"running".into(), &before["generation"]));
    assert_eq!(after["restarts"], 0);
    assert_eq!(sha256(), old, "{isolation}");
    assert_eq!(sandbox.lodestar(&["counter", "report"]).code, 0, "it answers");
    assert_eq!(half_written(&generations), 0);

    fs::remove_file(filler).expect("it is there");
    let output = sandbox.lodestar(&["modules", "reload", "counter"]);
    assert_eq!(output.code, 0, "{isolation}: {output:#?}");
    assert_ne!(sha256(), old, "{isolation}");
    assert_eq!(fs::read_dir(&generations).expect("it is there").count(), 2, "both are kept");
    let output = sandbox.lodestar(&["modules", "rollback", "counter"]);
    assert_eq!(output.code, 0, "there is a way back, {isolation}: {output:#?}");
    assert_eq!(sha256(), old, "{isolation}");
    assert!(daemon.stop().success());
}

#[test]
fn the_books_are_written_with_the_room_that_is_kept_for_them() {
    let config = "modules:\n  ingest:\n    enabled: true\n    listen: 127.0.0.1:0\n  counter:\n    \
                  enabled: true\nmetrics:\n  listen: 127.0.0.1:0\n";
    let sandbox = Sandbox::new(&["ingest", "counter"], config);
    let test = "full_disk::the_books_are_written_with_the_room_that_is_kept_for_them";
    let Some((daemon, disk)) = on_a_small_disk(&sandbox, "48m", test) else { return };
    let post = |id: &str| {
        let body = telemetry::claude_code("s", id).to_string();
        let address = daemon.address("ingest", "http");
        let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        answer.expect("ingest answers").status
    };
    let written = || {
        let text = fs::read_to_string(disk.join("ledger/subscriptions.json")).ok()?;
        let content: serde_json::Value = serde_json::from_str(&text).ok()?;
        let mut modules = content["modules"].as_array()?.iter();
        modules.find(|it| it["module"] == "counter")?["ledger"]["handled"].as_u64()
    };
    let kept = || fs::metadata(disk.join("ledger/reserve")).map_or(0, |it| it.len());
    let all = kept();
    assert!(all > 256 << 10, "a part of the disk is kept: {all}");
    assert_eq!(post("before"), 200);
    wait_until("it is in the counters", || (written()? == 1).then_some(()));
    assert_eq!(sandbox.lodestar(&["modules", "disable", "counter"]).code, 0);
    for number in 0..5 {
        assert_eq!(post(&format!("waits-{number}")), 200);
    }
    let filler = disk.join("filler");
    fill(&filler);
    assert_eq!(sandbox.lodestar(&["modules", "enable", "counter"]).code, 0);
    wait_until("the counters are written on a full disk", || (written()? == 6).then_some(()));
    assert!((1..all).contains(&kept()), "{} of {all}", kept());
    // Events get none of that room, and are refused until there is other.
    assert_eq!(post("refused"), 503);
    let status = daemon.status().expect("it answers");
    let trouble = status["ledger"]["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("disk is full"), "{trouble}");
    assert!((1..all).contains(&kept()));
    fs::remove_file(&filler).expect("it is there");
    assert_eq!(post("after"), 200);
    assert_eq!(kept(), all, "it is kept again");
    assert!(daemon.stop().success());
}
