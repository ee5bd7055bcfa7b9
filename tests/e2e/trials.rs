//! Installs are transactions: a module that fails is not installed.

use std::{fs, path::Path, process::Stdio};

use harness::{Daemon, Sandbox, breakage, library, program, wait_until};
use serde_json::Value;

use crate::install::{install, installed_files, package, refused, salted, sandbox};

/// Creates a sandbox where the module `misbehaver` is installed and enabled.
fn with_misbehaver(isolation: &str) -> Sandbox {
    let config = format!(
        "modules:\n  misbehaver:\n    enabled: true\n    isolation: {isolation}\n    \
         limits: {{call_deadline_ms: 3000}}\nmetrics:\n  listen: 127.0.0.1:0\n"
    );
    let sandbox = Sandbox::new(&[], &config);
    let daemon = sandbox.start();
    install(&sandbox, &package(&sandbox, "misbehaver", &library("misbehaver")));
    assert!(daemon.stop().success());
    sandbox
}

/// Creates another build of `misbehaver`, which has this fault by default.
fn upgrade(sandbox: &Sandbox, salt: u8, fault: &str) -> std::path::PathBuf {
    let folder = package(sandbox, "misbehaver", &salted("misbehaver", salt));
    fs::write(folder.join("config.yaml"), format!("fault: {fault}\n")).expect("it is writable");
    folder
}

fn running(sandbox: &Sandbox, daemon: &Daemon<'_>) -> (Value, Value) {
    let info = sandbox.json(&["modules", "info", "misbehaver"]);
    let module = daemon.module("misbehaver");
    assert_eq!((&module["state"], &module["reason"]), (&"running".into(), &Value::Null));
    (info["sha256"].clone(), info["generation"].clone())
}

#[test]
fn an_upgrade_that_proves_no_good_is_not_installed() {
    for isolation in ["process", "in_process"] {
        let sandbox = with_misbehaver(isolation);
        let daemon = sandbox.start();
        let before = running(&sandbox, &daemon);
        let faults = [
            ("start_fails", "planted: start"),
            ("start_panics", "planted: start"),
            ("health_panics", "planted: health"),
            ("start_hangs", "start"),
        ];
        for (salt, (fault, words)) in (1..).zip(faults) {
            if fault == "start_hangs" && isolation == "in_process" {
                // Such a thread is left to hang, and so would the end of this test.
                continue;
            }
            let folder = upgrade(&sandbox, salt, fault);
            let output = refused(&sandbox, &folder, words);
            for part in ["the generation before goes on", "misbehaver 0.1.0 stays installed"] {
                assert!(output.stderr.contains(part), "{isolation}, {fault}: {output:#?}");
            }
            assert!(!output.stdout.contains("sha256"), "nothing is said to be there: {output:#?}");
            assert_eq!(running(&sandbox, &daemon), before, "{isolation}, {fault}");
            assert_eq!(sandbox.json(&["modules", "verify"])[0]["ok"], true, "{fault}");
        }
        let why = sandbox.lodestar(&["modules", "why", "misbehaver"]).stdout;
        assert!(why.contains("stays installed") && !why.contains("passed over"), "{why}");
        assert!(daemon.stop().success());

        let daemon = sandbox.start();
        assert_eq!(running(&sandbox, &daemon).0, before.0, "after a restart");
        let installed = install(&sandbox, &upgrade(&sandbox, 9, "none"));
        assert_eq!(installed["operation"]["state"], "done", "{installed:#}");
        assert_eq!(running(&sandbox, &daemon).0, installed["sha256"], "the next one is taken");
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_kill_before_the_verdict_undoes_it() {
    let sandbox = with_misbehaver("process");
    let daemon = sandbox.start();
    let (sha256, _) = running(&sandbox, &daemon);
    let before = installed_files(&sandbox);
    // Its deadline is that of an hour: the verdict does not come.
    sandbox.configure(&sandbox.configuration().replace("3000", "3600000"));
    daemon.wait_state("misbehaver", "running");
    let folder = upgrade(&sandbox, 1, "start_hangs");
    let mut client = sandbox.isolated(&program("lodestar"));
    client.args(["modules", "install"]).arg(&folder);
    let client = client.stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = client.spawn().expect("it starts");
    let file = sandbox.state().join("modules/misbehaver/libmisbehaver.so");
    let new = salted("misbehaver", 1);
    wait_until("it is in its place", || (fs::read(&file).ok()? == new).then_some(()));
    daemon.kill();
    drop(client.wait());
    let daemon = sandbox.start();
    assert_eq!(running(&sandbox, &daemon).0, sha256);
    assert_eq!(installed_files(&sandbox), before);
    assert_eq!(sandbox.json(&["modules", "verify"])[0]["ok"], true);
    let why = sandbox.lodestar(&["modules", "why", "misbehaver"]).stdout;
    assert!(why.contains("lodestard ended before it had proved good"), "{why}");
    assert!(daemon.stop().success());
}

#[test]
fn settings_that_do_not_fit_are_refused_before_anything_changes() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let folder = package(&sandbox, "misbehaver", &library("misbehaver"));
    let defaults = |text: &str| fs::write(folder.join("config.yaml"), text).expect("writable");
    defaults("# none\nfault: nonsense\n");
    refused(&sandbox, &folder, "misbehaver/config.yaml:2:1: fault: must be");
    defaults("wrong: 1\n");
    refused(&sandbox, &folder, "misbehaver/config.yaml:1:1: wrong: unknown key");
    // What the operator gives lies above the defaults, and is named where it stands.
    let text = sandbox.configuration();
    let section = "  misbehaver:\n    enabled: false\n    fault: nonsense\n# the end\n";
    defaults("fault: none\n");
    sandbox.configure(&text.replace("# the end\n", section));
    refused(&sandbox, &folder, "modules.yaml:8:5: modules.misbehaver.fault: must be");
    sandbox.configure(&text.replace("# the end\n", &section.replace("nonsense", "none")));
    defaults("fault: nonsense\n");
    assert_eq!(install(&sandbox, &folder)["change"], "new", "the operator's value counts");
    assert_eq!(sandbox.lodestar(&["modules", "enable", "misbehaver"]).code, 0);
    // One that runs is not even reloaded for it.
    let generation = daemon.module("misbehaver")["generation"].clone();
    defaults("fault: none\nmore: [1]\n");
    refused(&sandbox, &folder, "misbehaver/config.yaml:2:1: more: unknown key");
    assert_eq!(daemon.module("misbehaver")["generation"], generation);
    // What a section that is switched off refers to need not be there yet.
    assert_eq!(sandbox.lodestar(&["modules", "disable", "misbehaver"]).code, 0);
    let absent = sandbox.configuration().replace("fault: none", "fault: ${ABSENT}");
    sandbox.configure(&absent);
    defaults("# none\n");
    assert_eq!(install(&sandbox, &folder)["change"], "same version");
    assert!(daemon.stop().success());
}

#[test]
fn a_word_that_means_something_is_no_name() {
    let sandbox = Sandbox::new(&["usage_tracker"], "modules: {}\n");
    let daemon = sandbox.start();
    let good = library("counter");
    let called = |name: &str| {
        let name = format!("name = \"{name}\"");
        breakage::with_manifest(good.clone(), "name = \"counter\"", &name)
    };
    let bus = "[bus]\nconsumes = [\"llm.request.completed\", \"misbehaver.noise\"]";
    let answering_to = |command: &str| {
        let cli = format!("[cli]\ncommand = \"{command}\"");
        breakage::with_manifest(good.clone(), bus, &cli)
    };
    let check = |name: &str, bytes: &[u8], words: &str| {
        let folder = package(&sandbox, name, bytes);
        refused(&sandbox, &folder, words);
    };
    for word in ["status", "install", "events", "help"] {
        check(word, &called(word), "a word of lodestar itself");
    }
    check("metrics", &called("metrics"), "a section of modules.yaml");
    check("usage", &called("usage"), "the module usage_tracker answers to it");
    check("counter", &answering_to("status"), "a word of lodestar itself");
    check("counter", &answering_to("usage"), "the module usage_tracker does");
    check("counter", &answering_to("a b"), "no word of the command line");
    for (name, bytes, remedy) in
        [("status", called("status"), "-> call it"), ("counter", answering_to("top"), "-> choose")]
    {
        let folder = package(&sandbox, name, &bytes).display().to_string();
        let output = sandbox.lodestar(&["modules", "check", &folder]);
        assert_eq!(output.code, 4, "{output:#?}");
        assert!(output.stdout.contains(remedy), "{output:#?}");
    }
    let output = sandbox.lodestar(&["modules", "new", "install"]);
    assert_eq!(output.code, 2, "{output:#?}");
    assert!(output.stderr.contains("a word of lodestar itself"), "{output:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn the_epoch_in_the_manifest_is_the_librarys() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let bytes = breakage::with_manifest(library("counter"), "epoch = 1", "epoch = 2");
    let folder = package(&sandbox, "counter", &bytes);
    refused(&sandbox, &folder, "says `epoch = 2`, the library speaks epoch 1");
    let output = sandbox.lodestar(&["modules", "check", &folder.display().to_string()]);
    assert_eq!(output.code, 4, "{output:#?}");
    assert!(output.stdout.contains("-> write `epoch = 1` below [abi]"), "{output:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_rollback_takes_what_was_kept() {
    let sandbox = with_misbehaver("process");
    let daemon = sandbox.start();
    let (first, _) = running(&sandbox, &daemon);
    // The same library once more, with other defaults: those are the ones to go back to.
    let folder = package(&sandbox, "misbehaver", &library("misbehaver"));
    let defaults = |text: &str| fs::write(folder.join("config.yaml"), text).expect("writable");
    defaults("fault: leaves_thread\n");
    install(&sandbox, &folder);
    let first = first.as_str().expect("a hash");
    let kept = sandbox.state().join("generations/misbehaver").join(first).join("config.yaml");
    let read = |path: &Path| fs::read_to_string(path).expect("it is kept");
    assert_eq!(read(&kept), "fault: leaves_thread\n");
    install(&sandbox, &upgrade(&sandbox, 1, "none"));
    let (second, _) = running(&sandbox, &daemon);

    fs::write(&kept, "fault: none\n").expect("it is ours");
    let output = sandbox.lodestar(&["modules", "rollback", "misbehaver"]);
    assert_eq!(output.code, 4, "{output:#?}");
    assert!(output.stderr.contains("modified since it was kept"), "{output:#?}");
    assert_eq!(running_sha256(&sandbox), second, "what ran goes on");
    fs::write(&kept, "fault: leaves_thread\n").expect("it is ours");
    assert_eq!(sandbox.lodestar(&["modules", "rollback", "misbehaver"]).code, 0);
    assert_eq!(running_sha256(&sandbox), first, "as it was kept");
    assert!(daemon.stop().success());
}

fn running_sha256(sandbox: &Sandbox) -> Value {
    sandbox.json(&["modules", "info", "misbehaver"])["sha256"].clone()
}
