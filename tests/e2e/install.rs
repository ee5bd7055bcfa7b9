//! Install, verify, remove: nothing is installed unchecked, and nothing of it remains.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use harness::{Output, Sandbox, breakage, http, library, telemetry, wait_until};
use serde_json::Value;

const CONFIG: &str = "\
# mine
modules:
  ingest:
    enabled: true
    listen: 127.0.0.1:0
# the end
metrics:
  listen: 127.0.0.1:0
";

pub(super) fn sandbox() -> Sandbox {
    Sandbox::new(&["ingest"], CONFIG)
}

/// Creates a folder with a module as an author packs it.
pub(super) fn package(sandbox: &Sandbox, module: &str, bytes: &[u8]) -> PathBuf {
    let folder = sandbox.path("download").join(module);
    fs::create_dir_all(&folder).expect("the sandbox is writable");
    fs::write(folder.join(format!("lib{module}.so")), bytes).expect("the sandbox is writable");
    folder
}

pub(super) fn salted(module: &str, salt: u8) -> Vec<u8> {
    let mut bytes = library(module);
    bytes.extend([b'#', salt]);
    bytes
}

pub(super) fn install(sandbox: &Sandbox, path: &std::path::Path) -> Value {
    sandbox.json(&["modules", "install", &path.display().to_string()])
}

/// Returns the installed files with their content, and the records about them.
pub(super) fn installed_files(sandbox: &Sandbox) -> Vec<(PathBuf, Vec<u8>)> {
    let state = sandbox.state();
    let places = [state.join("modules"), state.join("modules.lock"), state.join("incoming")];
    let mut files = sandbox.state_files();
    files.retain(|(path, _)| places.iter().any(|place| path.starts_with(place)));
    files.sort();
    files
}

#[track_caller]
pub(super) fn refused(sandbox: &Sandbox, path: &std::path::Path, words: &str) -> Output {
    let before = (sandbox.configuration(), installed_files(sandbox));
    let output = sandbox.lodestar(&["modules", "install", &path.display().to_string()]);
    assert_eq!(output.code, 4, "{words}: {output:#?}");
    assert!(output.stderr.contains(words), "{words}: {output:#?}");
    assert!(!output.stderr.contains("incoming"), "no place that means nothing: {output:#?}");
    assert_eq!((sandbox.configuration(), installed_files(sandbox)), before, "{words}");
    output
}

#[test]
fn a_module_is_installed_upgraded_verified_and_removed() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let folder = package(&sandbox, "sink", &library("sink"));
    fs::write(folder.join("config.yaml"), "# none\n").expect("the sandbox is writable");
    let installed = install(&sandbox, &folder);
    assert_eq!(installed["change"], "new", "{installed:#}");
    assert_eq!((&installed["signer"], &installed["isolation"]), (&Value::Null, &"process".into()));
    let text = sandbox.configuration();
    assert!(text.starts_with("# mine\nmodules:\n  ingest:\n"), "{text}");
    assert!(text.contains("  sink:\n    enabled: false\n    # sink 0.1.0"), "{text}");
    assert!(text.contains("    # # none\n"), "{text}");
    assert!(text.contains("# the end\nmetrics:\n"), "{text}");
    assert_eq!(daemon.module("sink")["state"], "disabled");
    let lock = fs::read_to_string(sandbox.state().join("modules.lock")).expect("it is written");
    assert!(lock.contains(installed["sha256"].as_str().expect("a hash")), "{lock}");
    let file = sandbox.state().join("modules/sink/libsink.so");
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);

    // Whoever trusts it says so; then it runs in the daemon, and an install is an upgrade.
    let trusting = text.replace(
        "    enabled: false\n    # sink",
        "    enabled: true\n    isolation: in_process\n    # sink",
    );
    sandbox.configure(&trusting);
    daemon.wait_state("sink", "running");
    package(&sandbox, "sink", &salted("sink", 1));
    let upgraded = install(&sandbox, &folder);
    assert_eq!(upgraded["change"], "same version", "{upgraded:#}");
    assert_eq!(upgraded["operation"]["state"], "done", "{upgraded:#}");
    assert_eq!(sandbox.configuration(), trusting, "its section stays");
    let info = sandbox.json(&["modules", "info", "sink"]);
    assert_eq!(info["sha256"], upgraded["sha256"], "{info:#}");
    let verified = sandbox.json(&["modules", "verify"]);
    assert_eq!((&verified[0]["name"], &verified[0]["ok"]), (&"sink".into(), &true.into()));

    let output = sandbox.lodestar(&["modules", "remove", "sink", "--yes"]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(output.stdout.contains("sink is removed"), "{output:#?}");
    assert_eq!(sandbox.configuration(), CONFIG, "as if it had never been there");
    assert!(!file.exists() && !sandbox.state().join("generations/sink").exists());
    assert_eq!(daemon.module("sink"), Value::Null);
    let lag = sandbox.json(&["events", "audit"]).to_string();
    assert!(!lag.contains("sink"), "its subscription is ended: {lag}");
    assert_eq!(sandbox.lodestar(&["modules", "remove", "sink"]).code, 1, "it is gone");
    assert!(daemon.stop().success());
}

#[test]
fn what_is_no_good_is_refused_and_changes_nothing() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let good = library("counter");
    let table = [
        (b"#!/bin/sh\n".to_vec(), "no ELF"),
        (breakage::truncated(good.clone(), good.len() / 2), "truncated"),
        (breakage::of_another_machine(good.clone()), "another machine"),
        (breakage::with_epoch(good.clone(), 0), "epoch 0"),
        (breakage::with_epoch(good.clone(), 99), "epoch 99"),
        (breakage::with_abort_panic(good.clone()), "panic"),
        (breakage::with_needed(good.clone()), "needs the shared library libq.so.6"),
        (breakage::with_hidden_needed(good.clone()), "needs the shared library libq.so.6"),
        (breakage::without_entry(good.clone()), "entry symbol"),
        (library("misbehaver"), "calls itself"),
    ];
    for (bytes, words) in table {
        refused(&sandbox, &package(&sandbox, "counter", &bytes), words);
    }
    let unfit = package(&sandbox, "layout_changed", &library("layout_changed"));
    refused(&sandbox, &unfit, "does not fit this host");
    refused(&sandbox, &package(&sandbox, "ingest", &library("ingest")), "already");
    let folder = package(&sandbox, "counter", &good);
    fs::write(folder.join("config.yaml"), "- a list\n").expect("the sandbox is writable");
    refused(&sandbox, &folder, "config.yaml");
    fs::remove_file(folder.join("config.yaml")).expect("it is there");
    std::os::unix::fs::symlink("/etc/hostname", folder.join("config.yaml")).expect("it is new");
    refused(&sandbox, &folder, "symbolic link");
    fs::remove_file(folder.join("config.yaml")).expect("it is there");
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(folder.join("libcounter.so"), mode(0o666)).expect("it is ours");
    refused(&sandbox, &folder, "written by others");
    fs::set_permissions(folder.join("libcounter.so"), mode(0o644)).expect("it is ours");
    if harness::is_root() {
        let owner = |user| std::os::unix::fs::chown(folder.join("libcounter.so"), Some(user), None);
        owner(65_534).expect("root may");
        refused(&sandbox, &folder, "belongs to another user (65534)");
        owner(0).expect("root may");
        let group =
            |group| std::os::unix::fs::chown(folder.join("libcounter.so"), None, Some(group));
        group(65_534).expect("root may");
        fs::set_permissions(folder.join("libcounter.so"), mode(0o664)).expect("it is ours");
        refused(&sandbox, &folder, "written by others");
        group(0).expect("root may");
        fs::set_permissions(folder.join("libcounter.so"), mode(0o644)).expect("it is ours");
    } else {
        harness::skip("install: files of another user", "only root can give files away");
    }
    sandbox.configure(&format!("{CONFIG}nonsense\n"));
    refused(&sandbox, &folder, "correct the file first");
    sandbox.configure(CONFIG);
    assert_eq!(install(&sandbox, &folder)["change"], "new", "it was good");
    assert!(daemon.stop().success());
    let output = sandbox.lodestar(&["modules", "install", &folder.display().to_string()]);
    assert_eq!(output.code, 3, "without a daemon: {output:#?}");
}

#[test]
fn what_was_modified_is_not_loaded() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    install(&sandbox, &package(&sandbox, "counter", &library("counter")));
    let file = sandbox.state().join("modules/counter/libcounter.so");
    fs::write(&file, salted("counter", 7)).expect("it is ours");
    let on = "  counter:\n    enabled: true\n    isolation: in_process\n";
    sandbox.configure(&CONFIG.replace("# the end\n", &format!("{on}# the end\n")));
    let module = daemon.wait_state("counter", "incompatible");
    let reason = module["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("modified since it was installed"), "{reason}");
    assert!(reason.contains("modules verify counter"), "{reason}");
    let advice = sandbox.json(&["modules", "why", "counter"])["advice"].to_string();
    assert!(advice.contains("modules verify counter"), "{advice}");
    assert!(advice.contains("modules install"), "{advice}");
    let output = sandbox.lodestar(&["modules", "verify"]);
    assert_eq!(output.code, 4, "{output:#?}");
    assert!(output.stdout.contains("modified"), "{output:#?}");
    // A link that leads to the right bytes is none of them.
    fs::write(sandbox.path("same.so"), library("counter")).expect("the sandbox is writable");
    fs::remove_file(&file).expect("it is there");
    std::os::unix::fs::symlink(sandbox.path("same.so"), &file).expect("it is gone");
    let output = sandbox.lodestar(&["modules", "reload", "counter"]);
    assert_ne!(output.code, 0, "{output:#?}");
    assert!(output.stderr.contains("symbolic link"), "{output:#?}");
    // An install puts it right.
    install(&sandbox, &package(&sandbox, "counter", &library("counter")));
    daemon.wait_state("counter", "running");
    assert_eq!(sandbox.lodestar(&["modules", "verify", "counter"]).code, 0);
    assert!(daemon.stop().success());
}

#[test]
fn a_signature_by_a_trusted_key_counts_and_a_false_one_does_not() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let pair = minisign::KeyPair::generate_unencrypted_keypair().expect("there is randomness");
    let sign = |bytes: &[u8]| {
        minisign::sign(None, &pair.sk, bytes, None, None).expect("it signs").into_string()
    };
    let bytes = library("counter");
    let folder = package(&sandbox, "counter", &bytes);
    let signature = folder.join("libcounter.so.minisig");
    fs::write(&signature, sign(&bytes)).expect("the sandbox is writable");
    let unknown = install(&sandbox, &folder);
    assert_eq!(unknown["signer"], Value::Null);
    assert!(unknown["notes"].to_string().contains("no key in"), "{unknown:#}");

    fs::create_dir(sandbox.path("trusted_keys")).expect("it is new");
    let key = pair.pk.to_box().expect("a box").into_string();
    fs::write(sandbox.path("trusted_keys/acme.pub"), key).expect("the sandbox is writable");
    let signed = install(&sandbox, &folder);
    assert_eq!((&signed["signer"], &signed["isolation"]), (&"acme".into(), &"in_process".into()));
    assert_eq!(sandbox.lodestar(&["modules", "enable", "counter"]).code, 0);
    assert_eq!(sandbox.json(&["modules", "verify"])[0]["signature"], "acme");

    fs::write(&signature, sign(b"other bytes")).expect("the sandbox is writable");
    refused(&sandbox, &folder, "is of other bytes");
    fs::remove_file(&signature).expect("it is there");
    refused(&sandbox, &folder, "installed with a signature by acme");
    fs::remove_file(sandbox.path("trusted_keys/acme.pub")).expect("it is there");
    let output = sandbox.lodestar(&["modules", "verify"]);
    assert_eq!(output.code, 4, "{output:#?}");
    assert!(output.stdout.contains("no longer trusted"), "{output:#?}");
    let info = || sandbox.json(&["modules", "info", "counter"]);
    let reason = info()["isolation_reason"].to_string();
    assert!(reason.contains("process from its next start on: its signer acme is no"), "{reason}");
    assert_eq!(sandbox.lodestar(&["modules", "reload", "counter"]).code, 0);
    assert!(info()["process"]["pid"].is_number(), "{:#}", info());
    assert!(daemon.stop().success());
}

#[test]
fn keys_of_providers_are_the_operators_to_give() {
    let sandbox = sandbox();
    let providers = "providers:\n  acme:\n    base_url: https://acme.example\n    \
                     api: openai\n    key: file:acme.key\n";
    let key = sandbox.path("acme.key");
    fs::write(&key, "sk-0123456789").expect("the sandbox is writable");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let providers = providers.replace("acme.key", &key.display().to_string());
    sandbox.configure(&format!("{CONFIG}{providers}"));
    let daemon = sandbox.start();
    install(&sandbox, &package(&sandbox, "misbehaver", &library("misbehaver")));
    assert_eq!(sandbox.lodestar(&["modules", "enable", "misbehaver"]).code, 0);
    let shown = sandbox.json(&["misbehaver", "providers"]);
    assert_eq!(shown["acme"]["base_url"], "https://acme.example", "{shown:#}");
    assert_eq!(shown["acme"]["key"], Value::Null, "its manifest gives it nothing: {shown:#}");
    assert!(daemon.log().contains("provider_keys: true"), "{}", daemon.log());
    let section = "  misbehaver:\n    enabled: true\n";
    let given = format!("{section}    provider_keys: true\n");
    sandbox.configure(&sandbox.configuration().replace(section, &given));
    wait_until("it has the key", || {
        (sandbox.lodestar(&["misbehaver", "providers", "--json"]).stdout.contains("13"))
            .then_some(())
    });
    assert!(daemon.stop().success());

    // One on the module path has them unless its section says otherwise.
    for (section, key) in [("", 13.into()), ("    provider_keys: false\n", Value::Null)] {
        let config = format!("modules:\n  misbehaver:\n    enabled: true\n{section}{providers}");
        let sandbox = Sandbox::new(&["misbehaver"], &config);
        let daemon = sandbox.start();
        assert_eq!(sandbox.json(&["misbehaver", "providers"])["acme"]["key"], key, "{section}");
        assert!(daemon.stop().success());
    }
}

#[test]
fn events_that_wait_are_not_thrown_away_unasked() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let refusal = sandbox.lodestar(&["modules", "remove", "ingest"]);
    assert_eq!(refusal.code, 4, "{refusal:#?}");
    assert!(refusal.stderr.contains("was not installed by lodestar"), "{refusal:#?}");
    install(&sandbox, &package(&sandbox, "counter", &library("counter")));
    let on = "  counter:\n    enabled: true\n    isolation: in_process\n";
    sandbox.configure(&CONFIG.replace("# the end\n", &format!("{on}# the end\n")));
    daemon.wait_state("counter", "running");
    assert_eq!(sandbox.lodestar(&["modules", "disable", "counter"]).code, 0);
    let body = telemetry::claude_code("s", "waits").to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    wait_until("an event waits", || {
        (daemon.module("counter")["events"]["pending"].as_u64()? > 0).then_some(())
    });
    let refusal = sandbox.lodestar(&["modules", "remove", "counter"]);
    assert_eq!(refusal.code, 4, "{refusal:#?}");
    assert!(refusal.stderr.contains("--yes"), "{refusal:#?}");
    assert!(sandbox.state().join("data/counter").is_dir());
    let output = sandbox.lodestar(&["modules", "remove", "counter", "--purge"]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(output.stdout.contains("events that waited for it are gone"), "{output:#?}");
    assert!(!sandbox.state().join("data/counter").exists());
    assert!(daemon.stop().success());
}

#[test]
fn a_kill_in_the_middle_leaves_the_old_or_the_new() {
    let sandbox = sandbox();
    let hash = |sandbox: &Sandbox| sandbox.json(&["modules", "verify"])[0]["sha256"].clone();
    let mut daemon = sandbox.start();
    let folder = package(&sandbox, "sink", &library("sink"));
    install(&sandbox, &folder);
    let (mut olds, mut news) = (0, 0);
    for salt in 0..12 {
        let before = hash(&sandbox);
        let sent = salted("sink", salt);
        package(&sandbox, "sink", &sent);
        let mut client = sandbox.isolated(&harness::program("lodestar"));
        let mut client = client
            .args(["modules", "install"])
            .arg(&folder)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        // The writing begins with the folder `incoming`; how far it gets until the kill differs.
        // The steps one by one are tested in host/library/src/install/transaction.rs.
        let incoming = sandbox.state().join("incoming");
        wait_until("it is written", || {
            let begun = incoming.exists().then(|| fs::read_dir(&incoming).ok()?.next())?;
            (begun.is_some() || client.try_wait().ok()?.is_some()).then_some(())
        });
        let mut spins = u64::from(salt) * 40_000;
        while std::hint::black_box(spins) > 0 {
            spins -= 1;
        }
        if salt == 11 {
            drop(client.wait());
        }
        daemon.kill();
        drop(client.wait());
        daemon = sandbox.start();
        let verified = sandbox.json(&["modules", "verify"]);
        assert_eq!(verified[0]["ok"], true, "{verified:#}");
        let after = hash(&sandbox);
        let sent = Value::String(harness::sha256(&sent));
        assert!(after == before || after == sent, "{after} is neither {before} nor {sent}");
        if after == before { olds += 1 } else { news += 1 }
    }
    assert!(olds > 0 && news > 0, "{olds} came too early and {news} too late");
    assert!(!sandbox.state().join("incoming").exists(), "nothing is left over");
    assert!(daemon.stop().success());
}
