//! Files of the wrong kind or content: nothing hangs, no module is disabled, no access is granted.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
};

use harness::{Sandbox, run, wait_until};

/// Function that creates a file that is not a valid configuration.
type Make = fn(&Path);

const WRONG: [(&str, Make, &str); 8] = [
    ("an empty file", |path| fs::write(path, "").expect("it is gone"), "holds nothing"),
    ("a comment", |path| fs::write(path, "# modules:\n").expect("it is gone"), "holds nothing"),
    ("half a file", |path| fs::write(path, "modules:\n  ingest: {").expect("it is gone"), ":2:"),
    ("a pipe", pipe, "is not a regular file"),
    ("a directory", |path| fs::create_dir(path).expect("it is gone"), "is not a regular file"),
    ("a device", |path| symlink("/dev/zero", path).expect("it is gone"), "is not a regular file"),
    ("ten gigabytes", hole, "is larger than 262144 bytes"),
    ("noise", |path| fs::write(path, b"modules: \xff").expect("it is gone"), "is not UTF-8 text"),
];

fn pipe(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).expect("it is gone");
}

fn hole(path: &Path) {
    File::create(path).and_then(|file| file.set_len(10 << 30)).expect("it takes no room");
}

fn clear(path: &Path) {
    if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.expect("it is ours");
}

/// Returns kind, size and content of a file, without reading endless or large ones.
fn seen(path: &Path) -> (fs::FileType, u64, Option<Vec<u8>>) {
    let metadata = path.symlink_metadata().expect("it is there");
    let small = metadata.is_file() && metadata.len() < 1 << 20;
    (metadata.file_type(), metadata.len(), small.then(|| fs::read(path).expect("it is readable")))
}

#[test]
fn no_edit_of_a_file_that_is_none_switches_anything_off() {
    let sandbox = Sandbox::usual();
    let good = sandbox.configuration();
    let daemon = sandbox.start();
    let package = crate::install::package(&sandbox, "sink", &harness::library("sink"));
    let package = package.display().to_string();
    let runs = || ["ingest", "usage_tracker"].map(|it| daemon.module(it)["generation"].clone());
    let before = runs();
    let file = sandbox.path("modules.yaml");
    for (what, make, words) in WRONG {
        clear(&file);
        make(&file);
        wait_until(&format!("{what} is refused"), || {
            let error = sandbox.json(&["status"])["config_error"].to_string();
            error.contains(words).then_some(())
        });
        let lies_there = seen(&file);
        for args in [
            &["modules", "enable", "ingest"][..],
            &["modules", "disable", "usage_tracker"],
            &["modules", "enable", "usage_tracker"],
            &["modules", "install", &package],
            &["config", "check"],
            &["config", "diff"],
        ] {
            let output = sandbox.lodestar(args);
            assert_eq!(output.code, 4, "{what}: {args:?}: {output:#?}");
            let said = format!("{}{}", output.stdout, output.stderr);
            assert!(said.contains(words), "{what}: {args:?}: {said}");
        }
        daemon.signal(rustix::process::Signal::HUP);
        assert_eq!(seen(&file), lies_there, "{what}");
        assert_eq!(runs(), before, "{what}");
        for module in ["ingest", "usage_tracker"] {
            assert_eq!(daemon.module(module)["state"], "running", "{what}");
        }
        let checked = run(sandbox.lodestard_on(&sandbox.path("other.sock")).arg("--check"));
        assert_eq!(checked.code, 4, "{what}: {checked:#?}");
        clear(&file);
        fs::write(&file, &good).expect("it is gone");
        wait_until(&format!("it is taken after {what}"), || {
            sandbox.json(&["status"])["config_error"].is_null().then_some(())
        });
    }
    assert_eq!(runs(), before);
    assert_eq!(sandbox.lodestar(&["modules", "install", &package]).code, 0);
    // Nor is the section of an installed module taken out of such a file.
    fs::write(&file, "").expect("it is ours");
    let removed = sandbox.lodestar(&["modules", "remove", "sink"]);
    assert_eq!((removed.code, fs::read(&file).expect("it is there")), (4, Vec::new()));
    assert!(removed.stderr.contains("holds nothing"), "{removed:#?}");
}

#[test]
fn a_file_that_was_cut_off_stops_nothing() {
    let sandbox = Sandbox::usual();
    let good = format!("{}bus:\n  inbox_events: 4096\n", sandbox.configuration());
    sandbox.configure(&good);
    let daemon = sandbox.start();
    let file = sandbox.path("modules.yaml");
    let (whole, _) = good.split_once("metrics:").expect("it has metrics");
    let cut = whole.find("enabled: true").expect("it is there") + "enabled: t".len();
    for (text, words) in [
        ("modules:\n", "nothing below `modules:`"),
        ("metrics:\n  listen: 127.0.0.1:0\n", "nothing below `modules:`"),
        (&good[..good.len() - 3], "ends within a line"),
        (&good[..cut], "modules.ingest.enabled"),
    ] {
        fs::write(&file, text).expect("it is ours");
        wait_until(&format!("{text:?} is refused"), || {
            let error = sandbox.json(&["status"])["config_error"].to_string();
            error.contains(words).then_some(())
        });
        for args in
            [&["config", "check"][..], &["config", "diff"], &["modules", "disable", "ingest"]]
        {
            let output = sandbox.lodestar(args);
            assert_eq!(output.code, 4, "{args:?}: {output:#?}");
            let said = format!("{}{}", output.stdout, output.stderr);
            assert!(said.contains(words), "{args:?}: {said}");
        }
        assert!(sandbox.lodestar(&["doctor"]).stdout.contains(words), "{text:?}");
        for module in ["ingest", "usage_tracker"] {
            let module = daemon.module(module);
            assert_eq!((&module["state"], &module["generation"]), (&"running".into(), &1.into()));
        }
    }
    fs::write(&file, "modules: {}\n").expect("it is ours");
    wait_until("what is said on purpose is taken", || {
        (daemon.module("ingest")["state"] != "running").then_some(())
    });
    // At first start it is what it says.
    assert!(daemon.stop().success());
    fs::write(&file, "modules:\n").expect("it is ours");
    let daemon = sandbox.start();
    assert!(sandbox.json(&["status"])["config_error"].is_null());
    // What the daemon itself writes is whole.
    let package = crate::install::package(&sandbox, "sink", &harness::library("sink"));
    let package = package.display().to_string();
    for args in [["modules", "install", &package], ["modules", "remove", "sink"]] {
        let output = sandbox.lodestar(&args);
        assert_eq!(output.code, 0, "{output:#?}");
    }
    assert_eq!(sandbox.configuration(), "modules:\n");
    assert!(sandbox.json(&["status"])["config_error"].is_null());
    assert!(daemon.stop().success());
}

#[test]
fn nothing_waits_for_a_pipe_in_the_place_of_any_other_file() {
    let sandbox = Sandbox::usual();
    drop(sandbox.start());
    clear(&sandbox.path("modules/usage_tracker/module.toml"));
    pipe(&sandbox.path("modules/usage_tracker/module.toml"));
    fs::create_dir(sandbox.path("trusted_keys")).expect("it is new");
    pipe(&sandbox.path("trusted_keys/acme.pub"));
    for name in ["lock", "crash"] {
        clear(&sandbox.state().join(name));
        pipe(&sandbox.state().join(name));
    }
    let stories = sandbox.state().join("supervision");
    for name in ["ingest.history.jsonl", "usage_tracker.decisions.json"] {
        // Not every daemon has written each of them.
        let _ = fs::remove_file(stories.join(name));
        pipe(&stories.join(name));
    }
    let daemon = sandbox.start();
    daemon.wait_state("ingest", "running");
    daemon.wait_state("usage_tracker", "running");
    for args in [&["status"][..], &["modules", "why", "ingest"], &["config", "check"]] {
        assert_eq!(sandbox.lodestar(args).code, 0, "{args:?}");
    }
    assert!(daemon.stop().success());
    // What must not be guessed at is refused.
    for (name, words) in [("pseudonym.key", "not a regular file"), ("modules.lock", "")] {
        let path = sandbox.state().join(name);
        let _ = fs::remove_file(&path);
        pipe(&path);
        if !words.is_empty() {
            let refused = run(&mut sandbox.lodestard());
            assert!(refused.code != 0 && refused.stderr.contains(words), "{name}: {refused:#?}");
        }
        clear(&path);
    }
}

/// Files that cannot be read as defaults, with the error.
const NO_DEFAULTS: [(Make, &str); 6] = [
    (pipe, "it is not a regular file but a pipe"),
    (|path| fs::create_dir(path).expect("it is gone"), "it is not a regular file but a directory"),
    (
        |path| symlink("/dev/zero", path).expect("it is gone"),
        "it is not a regular file but a device",
    ),
    (|path| symlink("gone", path).expect("it is gone"), "No such file"),
    (hole, "it has more than 262144 bytes"),
    (|path| fs::write(path, b"a: \xff").expect("it is gone"), "it is not UTF-8 text"),
];

#[test]
fn no_module_runs_without_the_defaults_that_cannot_be_read() {
    let sandbox = Sandbox::usual();
    let mut daemon = sandbox.start();
    let defaults = sandbox.path("modules/usage_tracker/config.yaml");
    let good = fs::read(&defaults).expect("the package has some");
    let says_it = |said: &str, words: &str| {
        for part in ["usage_tracker/config.yaml", words, "write it anew or remove it"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    };
    for (make, words) in NO_DEFAULTS {
        clear(&defaults);
        make(&defaults);
        // A reload is refused, and what ran goes on.
        let before = daemon.module("usage_tracker");
        let refused = sandbox.lodestar(&["modules", "reload", "usage_tracker"]);
        assert_eq!(refused.code, 4, "{words}: {refused:#?}");
        says_it(&refused.stderr, words);
        let after = daemon.module("usage_tracker");
        assert_eq!(after["state"], "running", "{words}");
        assert_eq!(after["generation"], before["generation"], "{words}");
        assert!(daemon.stop().success());
        // It does not start either; the others do.
        daemon = sandbox.start();
        daemon.wait_state("ingest", "running");
        let said = wait_until(&format!("{words} is told"), || {
            let module = daemon.module("usage_tracker");
            (module["state"] == "failed").then(|| module.to_string())
        });
        says_it(&said, words);
        let checked = sandbox.lodestar(&["config", "check"]);
        assert_eq!(checked.code, 4, "{words}: {checked:#?}");
        says_it(&format!("{}{}", checked.stdout, checked.stderr), words);
        clear(&defaults);
        fs::write(&defaults, &good).expect("it is gone");
        assert_eq!(sandbox.lodestar(&["modules", "reload", "usage_tracker"]).code, 0, "{words}");
        daemon.wait_state("usage_tracker", "running");
    }
    // None at all is a module's right.
    clear(&defaults);
    assert_eq!(sandbox.lodestar(&["modules", "reload", "usage_tracker"]).code, 0);
    daemon.wait_state("usage_tracker", "running");
}

#[test]
fn a_second_daemon_is_refused_although_the_lock_was_deleted() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let lock = sandbox.state().join("lock");
    for replaced in [None, Some(""), Some("not a number")] {
        fs::remove_file(&lock).expect("it is ours");
        if let Some(text) = replaced {
            fs::write(&lock, text).expect("it is gone");
        }
        let second = run(&mut sandbox.lodestard_on(&sandbox.path("other.sock")));
        assert_ne!(second.code, 0, "{replaced:?}");
        assert!(second.stderr.contains("another lodestard (process "), "{second:#?}");
        assert!(second.stderr.contains(&daemon.pid().to_string()), "{replaced:?}: {second:#?}");
        fs::write(&lock, "").expect("it is ours");
    }
    assert!(daemon.status().is_some(), "the first goes on");
    assert!(daemon.stop().success());
    assert!(sandbox.start().lives(), "it is free again");
}
