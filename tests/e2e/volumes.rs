//! Volumes of containers: they belong to root, are open to all by their mode, and are mounted anew
//! each time.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    process::Command,
};

use harness::{Daemon, Sandbox, is_root, run, skip_even_in_ci, tool_or_skip};
use serde_json::json;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// Creates the command for a daemon with its own mounts and, as in a container, as the first
/// process.
fn container(sandbox: &Sandbox, mounts: &str, is_first: bool, test: &str) -> Option<Command> {
    let unshare = tool_or_skip("unshare", test)?;
    let begin = |script: &str| {
        let mut command = sandbox.isolated(&unshare);
        command.arg(if is_root() { "-m" } else { "-rm" });
        if is_first {
            command.args(["-p", "-f", "--mount-proc", "--kill-child"]);
        }
        command.args(["sh", "-c", &format!("{mounts} && {script}"), "sh"]);
        command
    };
    if run(&mut begin("true")).code != 0 {
        skip_even_in_ci(test, "this machine lets nobody mount a file system");
        return None;
    }
    let mut command = begin("exec \"$@\"");
    let lodestard = sandbox.lodestard();
    command.arg(lodestard.get_program()).args(lodestard.get_args());
    Some(command)
}

/// Checks that the daemon refuses to start, and returns the error output.
#[track_caller]
fn refusal(mut command: Command) -> String {
    let output = run(&mut command);
    assert_eq!(output.code, 1, "{output:#?}");
    output.stderr
}

#[test]
fn a_config_map_is_taken_where_it_is_read_only_for_all() {
    let test = "volumes::a_config_map_is_taken_where_it_is_read_only_for_all";
    let sandbox = Sandbox::usual();
    let on = sandbox.configuration();
    let volume = sandbox.path("volume");
    let publish = |version: &str, text: &str| {
        fs::create_dir_all(volume.join(version)).expect("it is writable");
        fs::write(volume.join(version).join("modules.yaml"), text).expect("it is writable");
        symlink(version, volume.join("..new")).expect("it is new");
        fs::rename(volume.join("..new"), volume.join("..data")).expect("it is ours");
    };
    publish("..2026_0", &on);
    symlink("..data/modules.yaml", volume.join("modules.yaml")).expect("it is new");
    set_mode(&volume, 0o777);
    fs::create_dir(sandbox.path("mounted")).expect("it is new");
    fs::remove_file(sandbox.path("modules.yaml")).expect("it is ours");
    symlink("mounted/modules.yaml", sandbox.path("modules.yaml")).expect("it is gone");
    let writable = "mount --bind volume mounted";
    let read_only = format!("{writable} && mount -o remount,bind,ro mounted");
    let place = sandbox.path("mounted").display().to_string();
    // Others can write it where it is read-only for this process alone (`ProtectSystem=`).
    for (mounts, is_first) in [(writable, true), (read_only.as_str(), false)] {
        let Some(command) = container(&sandbox, mounts, is_first, test) else { return };
        let said = refusal(command);
        assert!(said.contains(&format!("{place} can be written by others (mode 777)")), "{said}");
        assert!(said.contains("or accept it by `--trust-files=everyone`"), "{said}");
    }
    let Some(command) = container(&sandbox, &read_only, true, test) else { return };
    let daemon = Daemon::spawn(&sandbox, command);
    daemon.wait_state("usage_tracker", "running");
    assert_eq!(sandbox.json(&["status"])["warnings"], json!([]));
    publish("..2026_1", &on.replace("enabled: true", "enabled: false"));
    daemon.wait_state("usage_tracker", "disabled");
}

#[test]
fn an_empty_volume_is_a_state_directory_once_the_operator_says_so() {
    let test = "volumes::an_empty_volume_is_a_state_directory_once_the_operator_says_so";
    let sandbox = Sandbox::usual();
    fs::create_dir(sandbox.state()).expect("it is new");
    let mounts = "mount -t tmpfs -o size=48m,mode=0777 tmpfs state";
    let container = || container(&sandbox, mounts, true, test);
    let Some(command) = container() else { return };
    let said = refusal(command);
    assert!(said.contains("`chmod o-w ") && said.contains("LODESTAR_TRUST_FILES"), "{said}");
    let Some(mut command) = container() else { return };
    command.env("LODESTAR_TRUST_FILES", "all");
    assert!(run(&mut command).stderr.contains("owner:USER, group:GROUP and everyone"));
    let Some(mut command) = container() else { return };
    let daemon = {
        command.env("LODESTAR_TRUST_FILES", "everyone");
        Daemon::spawn(&sandbox, command)
    };
    daemon.wait_state("ingest", "running");
    daemon.wait_state("usage_tracker", "running");
    expect_told(&sandbox, "everyone");
}

/// Checks that the only warning is about the accounts that the operator accepted.
#[track_caller]
fn expect_told(sandbox: &Sandbox, accepted: &str) {
    let warnings = sandbox.json(&["status"])["warnings"].clone();
    let names = warnings.as_array().expect("a list").iter().map(|it| &it["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["trusted files"], "{warnings:#}");
    let message = warnings[0]["message"].to_string();
    assert!(message.contains(&format!("{accepted} may change what lodestard")), "{message}");
    assert!(sandbox.lodestar(&["doctor"]).stdout.contains("--trust-files"));
}

#[test]
fn a_volume_of_another_group_or_user_needs_the_word_of_the_operator() {
    let test = "volumes::a_volume_of_another_group_or_user_needs_the_word_of_the_operator";
    if !is_root() {
        return harness::skip(test, "only root gives a directory away");
    }
    // As with `fsGroup`, and as a volume that was filled by somebody else.
    for (owner, group, mode, accepted) in [
        (0, 2000, 0o2775, "group:2000"),
        (1000, 2000, 0o755, "owner:1000"),
        (1000, 2000, 0o2775, "owner:1000,group:2000"),
    ] {
        let sandbox = Sandbox::usual();
        fs::create_dir(sandbox.state()).expect("it is new");
        chown(sandbox.state(), Some(owner), Some(group)).expect("root may");
        set_mode(&sandbox.state(), mode);
        let said = refusal(sandbox.lodestard());
        let offer = format!("or accept it by `--trust-files={accepted}`");
        assert_eq!(said.contains(&offer), owner != 0, "{said}");
        let start = || {
            let mut command = sandbox.lodestard();
            command.arg("--trust-files").arg(accepted);
            let daemon = Daemon::spawn(&sandbox, command);
            daemon.wait_settled();
            daemon
        };
        assert!(start().stop().success());
        // The group may write to all that is on the volume the next time that it is mounted.
        if accepted.contains("group") {
            open_to_group(&sandbox.state(), group);
        }
        let daemon = start();
        for module in ["ingest", "usage_tracker"] {
            assert_eq!(daemon.module(module)["state"], "running", "{accepted}");
        }
        expect_told(&sandbox, accepted);
        assert!(daemon.stop().success());
    }
}

fn open_to_group(place: &Path, group: u32) {
    let metadata = place.symlink_metadata().expect("it is there");
    chown(place, None, Some(group)).expect("root may");
    let more = if metadata.is_dir() { 0o2070 } else { 0o060 };
    set_mode(place, metadata.permissions().mode() & 0o7777 | more);
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        open_to_group(&entry.path(), group);
    }
}
