//! Files that others can write: they are not read, and the error names the command that closes
//! them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use harness::{Daemon, Sandbox, is_root, run, wait_until};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// Checks that a daemon does not start because others can write to `path`.
#[track_caller]
fn refused(sandbox: &Sandbox, path: &Path) {
    let output = run(&mut sandbox.lodestard());
    assert_ne!(output.code, 0, "{output:#?}");
    let remedy = format!("`chmod o-w {}`", path.display());
    assert!(output.stderr.contains("can be written by others (mode"), "{output:#?}");
    assert!(output.stderr.contains(&remedy), "{remedy}: {output:#?}");
}

#[test]
fn a_daemon_does_not_start_on_what_others_can_write() {
    let sandbox = Sandbox::usual();
    drop(sandbox.start());
    for (name, mode, open) in [
        ("modules.yaml", 0o644, 0o646),
        ("state", 0o700, 0o707),
        ("run", 0o700, 0o707),
        ("", 0o700, 0o777),
        ("state/pseudonym.key", 0o600, 0o602),
    ] {
        set_mode(&sandbox.path(name), open);
        // Without the slash that joining nothing leaves.
        refused(&sandbox, &sandbox.path(name).components().collect::<std::path::PathBuf>());
        set_mode(&sandbox.path(name), mode);
    }
    // Behind a link as well; the mode of the link means nothing.
    fs::create_dir(sandbox.path("dots")).expect("it is new");
    fs::rename(sandbox.path("modules.yaml"), sandbox.path("dots/m.yaml")).expect("it is ours");
    symlink("dots/m.yaml", sandbox.path("modules.yaml")).expect("it is gone");
    set_mode(&sandbox.path("dots"), 0o777);
    refused(&sandbox, &sandbox.path("dots"));
    // Where nobody can replace the files of others, and for the group of the user.
    for mode in [0o1777, 0o775] {
        set_mode(&sandbox.path("dots"), mode);
        let daemon = sandbox.start();
        assert_eq!(sandbox.json(&["status"])["warnings"], serde_json::json!([]), "{mode:o}");
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_daemon_that_runs_goes_on_and_says_what_became_open() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let file = sandbox.path("modules.yaml");
    let before = sandbox.configuration();
    let error = || sandbox.json(&["status"])["config_error"].clone();
    set_mode(&file, 0o666);
    let told = wait_until("it is refused", || error().as_str().map(str::to_owned));
    assert!(told.contains("(mode 666)") && told.contains("`chmod o-w "), "{told}");
    // What somebody else writes there is not taken, by no way.
    fs::write(&file, before.replace("enabled: true", "enabled: false")).expect("it is ours");
    for args in [["modules", "disable", "ingest"], ["modules", "enable", "ingest"]] {
        let output = sandbox.lodestar(&args);
        assert_eq!(output.code, 4, "{output:#?}");
        assert!(output.stderr.contains("`chmod o-w "), "{output:#?}");
    }
    daemon.signal(rustix::process::Signal::HUP);
    for module in ["ingest", "usage_tracker"] {
        let module = daemon.module(module);
        assert_eq!((&module["state"], &module["generation"]), (&"running".into(), &1.into()));
    }
    for args in [&["config", "check"][..], &["doctor"], &["status"]] {
        let output = sandbox.lodestar(args);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(
            said.contains("modules.yaml can be written by others")
                || said.contains("modules.yaml: can be written by others"),
            "{args:?}: {said}"
        );
    }
    set_mode(&file, 0o644);
    daemon.wait_state("ingest", "disabled");
    assert!(error().is_null());
    fs::write(&file, before).expect("it is ours");
    daemon.wait_state("ingest", "running");
    // Everything else that decides is told as well, and its remedy helps.
    fs::create_dir(sandbox.path("trusted_keys")).expect("it is new");
    for name in [
        "modules",
        "trusted_keys",
        "modules/ingest/config.yaml",
        "modules/ingest",
        "modules/ingest/libingest.so",
        "state/data/usage_tracker",
        "state/ledger",
        "run",
    ] {
        let path = sandbox.path(name);
        let mode = path.metadata().expect("it is there").permissions().mode() & 0o777;
        set_mode(&path, mode | 0o002);
        let warnings = sandbox.json(&["status"])["warnings"].clone();
        let warnings = warnings.as_array().expect("a list");
        let told = |it: &&serde_json::Value| {
            let remedy = it["remedy"].as_str().unwrap_or_default();
            it["name"] == "permissions" && remedy == format!("run `chmod o-w {}`", path.display())
        };
        assert!(warnings.iter().any(|it| told(&it)), "{name}: {warnings:#?}");
        let doctor = sandbox.lodestar(&["doctor"]).stdout;
        assert!(doctor.contains(&format!("`chmod o-w {}`", path.display())), "{name}: {doctor}");
        set_mode(&path, mode);
        assert_eq!(sandbox.json(&["status"])["warnings"], serde_json::json!([]), "{name}");
    }
}

#[test]
fn a_module_is_not_loaded_with_what_others_can_write() {
    let sandbox = Sandbox::usual();
    let secret = sandbox.path("secret");
    fs::write(&secret, "a-key-of-sixteen-characters\n").expect("the sandbox is writable");
    let text = sandbox.configuration();
    let projects = format!("    projects: {{shop: {{key: \"file:{}\"}}}}\n", secret.display());
    let listen = "    listen: 127.0.0.1:0\n    rate_limit";
    sandbox.configure(&text.replace(listen, &format!("{projects}{listen}")));
    set_mode(&secret, 0o600);
    drop(sandbox.start());
    for name in ["modules/ingest/config.yaml", "modules", "secret", "state/data/ingest"] {
        let path = sandbox.path(name);
        let mode = path.metadata().expect("it is there").permissions().mode() & 0o777;
        set_mode(&path, mode | 0o002);
        let daemon = sandbox.start();
        let ingest = daemon.module("ingest");
        assert_ne!(ingest["state"], "running", "{name}: {ingest:#}");
        let reason = ingest["reason"].to_string();
        let remedy = format!("`chmod o-w {}`", path.display());
        assert!(reason.contains(&remedy), "{name}: {reason}");
        set_mode(&path, mode);
        let again = sandbox.lodestar(&["modules", "reload", "ingest"]);
        assert_eq!(again.code, 0, "{name}: the remedy helps: {again:#?}");
        assert_eq!(daemon.module("ingest")["state"], "running", "{name}");
    }
}

/// The user who checks a file need not be the user who runs the daemon.
#[test]
fn another_user_may_check_what_belongs_to_root() {
    let test = "permissions::another_user_may_check_what_belongs_to_root";
    if !is_root() {
        return harness::skip(test, "only root has files of root");
    }
    let Some(setpriv) = harness::tool_or_skip("setpriv", test) else { return };
    let sandbox = Sandbox::usual();
    let copy = sandbox.copy_program("lodestard");
    set_mode(&sandbox.path(""), 0o755);
    let check = || {
        let lodestard = sandbox.lodestard();
        let mut command = sandbox.isolated(&setpriv);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        run(command.args(lodestard.get_args()).arg("--check"))
    };
    let output = check();
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(!output.stderr.contains("chmod"), "{output:#?}");
    // A service's file, which its group may write, is not refused by somebody else.
    set_mode(&sandbox.path("modules.yaml"), 0o664);
    std::os::unix::fs::chown(sandbox.path("modules.yaml"), Some(1234), Some(1234)).expect("root");
    let output = check();
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(output.stderr.contains("warning: ") && output.stderr.contains("chown"), "{output:#?}");
    let started = Daemon::spawn(&sandbox, sandbox.lodestard());
    assert!(!started.wait().success(), "root does not run what another user decides");
    assert!(started.log().contains("belongs to another user (1234)"), "{}", started.log());
    assert!(started.log().contains("`chown -h root "), "{}", started.log());
    let instead = "start lodestard as user 1234 instead of root, or run `chown";
    assert!(started.log().contains(instead), "{}", started.log());
}

/// Root must not take over the directory, since its user could not use it any more.
#[test]
fn root_is_told_to_start_as_the_user_whose_directory_it_is() {
    let test = "permissions::root_is_told_to_start_as_the_user_whose_directory_it_is";
    if !is_root() {
        return harness::skip(test, "only root starts what belongs to others");
    }
    let sandbox = Sandbox::usual();
    drop(sandbox.start());
    for name in ["state", "", "modules.yaml"] {
        let path = sandbox.path(name);
        let chown = |user| std::os::unix::fs::chown(&path, Some(user), Some(user)).expect("root");
        chown(65_534);
        let refused = run(&mut sandbox.lodestard());
        chown(0);
        assert_ne!(refused.code, 0, "{refused:#?}");
        let instead = "start lodestard as nobody instead of root, or run `chown -h root ";
        assert!(refused.stderr.contains(instead), "{name}: {refused:#?}");
    }
}
