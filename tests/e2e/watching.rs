//! A configuration behind links that are replaced, and a system without watchers.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use harness::{Daemon, Sandbox, run, skip_even_in_ci, tool_or_skip, wait_until};

/// Replaces a link atomically, as `ln -sfT` and Kubernetes do.
fn turn(link: &Path, target: &str) {
    let new = link.with_file_name("turned");
    symlink(target, &new).expect("it is new");
    fs::rename(&new, link).expect("it is ours");
}

/// Returns the configuration with its modules enabled or disabled.
fn switched(sandbox: &Sandbox, on: bool) -> String {
    sandbox.configuration().replace(
        if on { "enabled: false" } else { "enabled: true" },
        if on { "enabled: true" } else { "enabled: false" },
    )
}

/// Mounts a `ConfigMap` as Kubernetes does: the file is a link through `..data`, which is replaced
/// by a link to a new directory with each version.
#[test]
fn every_version_of_a_mounted_volume_is_taken() {
    let sandbox = Sandbox::usual();
    let on = sandbox.configuration();
    let off = switched(&sandbox, false);
    let publish = |version: u32, text: &str| {
        let name = format!("..2026_{version}");
        fs::create_dir(sandbox.path(&name)).expect("it is new");
        fs::write(sandbox.path(&name).join("modules.yaml"), text).expect("it is writable");
        turn(&sandbox.path("..data"), &name);
        if version > 0 {
            let before = sandbox.path(&format!("..2026_{}", version - 1));
            fs::remove_dir_all(before).expect("it is ours");
        }
    };
    publish(0, &on);
    fs::remove_file(sandbox.path("modules.yaml")).expect("it is ours");
    symlink("..data/modules.yaml", sandbox.path("modules.yaml")).expect("it is gone");
    let daemon = sandbox.start();
    for version in 1..6 {
        let (text, state) = if version % 2 == 1 { (&off, "disabled") } else { (&on, "running") };
        publish(version, text);
        daemon.wait_state("usage_tracker", state);
        daemon.wait_state("ingest", state);
    }
    assert_eq!(sandbox.json(&["status"])["warnings"], serde_json::json!([]));
}

/// Links as with managers of dotfiles: a link in the home, and the file in a repository.
#[test]
fn every_edit_behind_a_chain_of_links_is_taken() {
    let sandbox = Sandbox::usual();
    let (on, off) = (sandbox.configuration(), switched(&sandbox, false));
    let place = |name: &str| -> PathBuf { sandbox.path(name) };
    for folder in ["dots", "store", "store/1", "store/2"] {
        fs::create_dir(place(folder)).expect("it is new");
    }
    fs::write(place("store/1/m.yaml"), &on).expect("it is writable");
    fs::write(place("store/2/m.yaml"), &off).expect("it is writable");
    symlink("../store/1/m.yaml", place("dots/m.yaml")).expect("it is new");
    fs::remove_file(place("modules.yaml")).expect("it is ours");
    symlink("dots/m.yaml", place("modules.yaml")).expect("it is gone");
    let daemon = sandbox.start();
    for _ in 0..2 {
        turn(&place("dots/m.yaml"), "../store/2/m.yaml");
        daemon.wait_state("usage_tracker", "disabled");
        turn(&place("dots/m.yaml"), "../store/1/m.yaml");
        daemon.wait_state("usage_tracker", "running");
        // In the place where it leads to now.
        fs::write(place("store/1/m.yaml"), &off).expect("it is writable");
        daemon.wait_state("usage_tracker", "disabled");
        fs::write(place("store/1/new"), &on).expect("it is writable");
        fs::rename(place("store/1/new"), place("store/1/m.yaml")).expect("it is ours");
        daemon.wait_state("usage_tracker", "running");
    }
    // An edit through the links stays one of the file behind them.
    assert_eq!(sandbox.lodestar(&["modules", "disable", "ingest"]).code, 0);
    daemon.wait_state("ingest", "disabled");
    assert!(place("modules.yaml").is_symlink() && place("dots/m.yaml").is_symlink());
    assert_ne!(fs::read_to_string(place("store/1/m.yaml")).expect("it is there"), on);
}

/// Module path that is a link, which is replaced by one to the next release.
#[test]
fn libraries_behind_a_link_that_is_turned_are_loaded() {
    let sandbox = Sandbox::usual();
    let copy = |version: &str| {
        let folder = sandbox.path(version).join("ingest");
        fs::create_dir_all(&folder).expect("it is new");
        let bytes = [harness::library("ingest"), version.as_bytes().to_vec()].concat();
        fs::write(folder.join("libingest.so"), bytes).expect("it is writable");
    };
    ["1", "2", "3"].map(copy).into_iter().for_each(drop);
    let config = sandbox.configuration().replace("  usage_tracker:\n    enabled: true\n", "");
    sandbox.configure(&config);
    turn(&sandbox.path("current"), "1");
    let mut command = sandbox.lodestard();
    command.env("LODESTAR_MODULE_PATH", "").arg("--set").arg("ingest.join_window_seconds=3");
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut again = sandbox.isolated(Path::new(command.get_program()));
    let modules = sandbox.path("modules");
    again.args(args.iter().map(|it| {
        if *it == *modules { sandbox.path("current").into_os_string() } else { it.clone() }
    }));
    let daemon = Daemon::spawn(&sandbox, again);
    daemon.wait_state("ingest", "running");
    for (version, generation) in [("2", 2), ("3", 3)] {
        turn(&sandbox.path("current"), version);
        wait_until("the next release runs", || {
            let ingest = daemon.module("ingest");
            (ingest["generation"] == generation && ingest["state"] == "running").then_some(())
        });
    }
}

#[test]
fn without_a_watcher_the_daemon_looks_by_itself_and_says_so() {
    let test = "watching::without_a_watcher_the_daemon_looks_by_itself_and_says_so";
    let sandbox = Sandbox::usual();
    let Some(unshare) = tool_or_skip("unshare", test) else { return };
    // In a user namespace of its own, which has limits of its own.
    let limited = |program: &Path| {
        let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
        let mut command = sandbox.isolated(&unshare);
        command.args(["--user", "--map-root-user", "sh", "-c", script]).arg(program);
        command
    };
    if run(&mut limited(Path::new("true"))).code != 0 {
        return skip_even_in_ci(test, "this machine gives nobody a user namespace");
    }
    let lodestard = sandbox.lodestard();
    let mut command = limited(Path::new(lodestard.get_program()));
    command.args(lodestard.get_args());
    let daemon = Daemon::spawn(&sandbox, command);
    daemon.wait_state("usage_tracker", "running");
    daemon.wait_state("ingest", "running");
    let warning = || sandbox.json(&["status"])["warnings"][0].clone();
    wait_until("it is told", || (warning()["name"] == "watching").then_some(()));
    let warning = warning();
    let (message, remedy) = (warning["message"].to_string(), warning["remedy"].to_string());
    assert!(message.contains("max_user_instances") && message.contains("30 s"), "{warning:#}");
    assert!(remedy.contains("sysctl fs.inotify.max_user_instances="), "{warning:#}");
    for output in [sandbox.lodestar(&["doctor"]), sandbox.lodestar(&["status"])] {
        assert!(output.stdout.contains("sysctl fs.inotify.max_user_instances="), "{output:#?}");
    }
    // Every change is seen, of the file and of a library.
    for (on, state) in [(false, "disabled"), (true, "running")] {
        sandbox.configure(&switched(&sandbox, on));
        wait_until("the edit is taken", || {
            (daemon.module("usage_tracker")["state"] == state).then_some(())
        });
    }
    let generation = daemon.module("ingest")["generation"].clone();
    sandbox.replace_library("ingest", 1);
    wait_until("the library is taken", || {
        (daemon.module("ingest")["generation"] != generation).then_some(())
    });
}
