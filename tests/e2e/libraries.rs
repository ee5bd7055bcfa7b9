//! Invalid libraries: each is refused by name, with the remedy, and the other modules run.

use harness::{Daemon, Sandbox, breakage, library, sha256, wait_until};

const CONFIG: &str = "\
modules:
  misbehaver:
    enabled: true
  layout_changed:
    enabled: true
  no_entry:
    enabled: true
  counter:
    enabled: true
metrics:
  listen: 127.0.0.1:0
";

/// Installs `bytes` as the library of `misbehaver`, and checks its state and reason.
#[track_caller]
fn check(what: &str, bytes: Vec<u8>, state: &str, parts: &[&str]) {
    let sandbox = Sandbox::new(&["counter"], CONFIG);
    sandbox.install_bytes("misbehaver", &bytes);
    let daemon = sandbox.start();
    let module = daemon.module("misbehaver");
    assert_eq!(module["state"], state, "{what}: {module:#}");
    let reason = module["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("libmisbehaver.so"), "{what}: {reason}");
    for part in parts {
        assert!(reason.contains(part), "{what} must say {part}: {reason}");
    }
    assert_eq!(daemon.module("counter")["state"], "running", "{what}: the rest runs");
    let info = sandbox.lodestar(&["modules", "info", "misbehaver"]);
    assert!(info.stdout.contains(state), "{what}: {info:#?}");
}

#[test]
fn a_text_file() {
    check("text", b"#!/bin/sh\necho not a library\n".repeat(99), "failed", &["ELF"]);
    check("a short text", b"x".to_vec(), "failed", &["ELF"]);
    check("nothing", Vec::new(), "failed", &[]);
}

#[test]
fn a_truncated_library() {
    let good = library("misbehaver");
    for bytes in [64, 1_000, 100_000, good.len() - 1] {
        let cut = breakage::truncated(good.clone(), bytes);
        check(&format!("the first {bytes} bytes"), cut, "failed", &[]);
    }
}

#[test]
fn a_library_for_another_machine() {
    let other = breakage::of_another_machine(library("misbehaver"));
    let own = std::env::consts::ARCH.replace("_", "-");
    check("another machine", other, "failed", &[&own]);
}

#[test]
fn a_library_that_is_no_module() {
    check("without the entry", breakage::without_entry(library("misbehaver")), "failed", &[]);
    check("another library", library("no_entry"), "failed", &["export!"]);
}

#[test]
fn a_module_of_another_epoch() {
    let good = library("misbehaver");
    let older = breakage::with_epoch(good.clone(), 0);
    check("an older ABI", older, "incompatible", &["epoch 0", "rebuild"]);
    let newer = breakage::with_epoch(good, 2);
    check("a newer ABI", newer, "incompatible", &["epoch 2", "update the host"]);
}

#[test]
fn a_module_whose_panics_abort() {
    let aborting = breakage::with_abort_panic(library("misbehaver"));
    check("abort", aborting, "incompatible", &["panic = \"unwind\""]);
}

#[test]
fn a_module_with_another_layout() {
    let sandbox = Sandbox::new(&["counter", "layout_changed"], CONFIG);
    let daemon = sandbox.start();
    let module = daemon.module("layout_changed");
    assert_eq!(module["state"], "incompatible", "{module:#}");
    let reason = module["reason"].as_str().unwrap_or_default();
    for part in ["Event", "attempt", "u32", "u64", "rebuild"] {
        assert!(reason.contains(part), "it must say {part}: {reason}");
    }
    assert!(reason.len() < 1_000, "a sentence, not {} bytes", reason.len());
    assert_eq!(daemon.module("counter")["state"], "running");
}

#[test]
fn a_folder_without_a_library() {
    let sandbox = Sandbox::new(&["counter", "misbehaver"], CONFIG);
    std::fs::remove_file(sandbox.path("modules/misbehaver/libmisbehaver.so")).expect("it is there");
    let daemon = sandbox.start();
    let module = daemon.module("misbehaver");
    assert!(["failed", "absent"].contains(&module["state"].as_str().unwrap_or("")), "{module:#}");
    assert!(!module["reason"].is_null(), "{module:#}");
    assert_eq!(daemon.module("counter")["state"], "running");
}

#[test]
fn the_file_may_change_under_a_running_module() {
    let sandbox = Sandbox::new(&["counter"], CONFIG);
    let daemon = sandbox.start();
    // In place, and truncated: who had mapped this very file would die.
    std::fs::write(sandbox.path("modules/counter/libcounter.so"), "gone").expect("it is writable");
    let report = sandbox.json(&["counter", "report"]);
    assert_eq!(report["deliveries"], 0);
    assert!(daemon.lives());
}

/// Starts a daemon whose module `misbehaver` is read but not mapped until the file `hold-load` is
/// removed.
fn held_in_its_first_load(sandbox: &Sandbox) -> Daemon<'_> {
    std::fs::write(sandbox.path("hold-load"), "").expect("the sandbox is writable");
    let daemon = sandbox.spawn();
    wait_until("its first load is under way", || {
        let is_held = sandbox.path("load-held").exists();
        (is_held && daemon.module("counter")["state"] == "running").then_some(())
    });
    daemon
}

/// Replaces the library of `counter` and waits for its reload: by then the daemon has noticed
/// earlier changes of libraries.
fn notice(sandbox: &Sandbox, daemon: &Daemon<'_>) {
    sandbox.replace_library("counter", 1);
    wait_until("the other module is reloaded", || {
        (daemon.module("counter")["generation"] == 2).then_some(())
    });
}

fn go_on(sandbox: &Sandbox, daemon: &Daemon<'_>) {
    std::fs::remove_file(sandbox.path("hold-load")).expect("it is ours");
    daemon.wait_state("misbehaver", "running");
}

#[test]
fn a_library_that_comes_while_its_module_starts_is_loaded_once() {
    let sandbox = Sandbox::new(&["counter", "misbehaver"], CONFIG);
    let daemon = held_in_its_first_load(&sandbox);
    // The same bytes again: what was noticed late is what runs.
    sandbox.install("misbehaver");
    notice(&sandbox, &daemon);
    go_on(&sandbox, &daemon);
    // An answer that counts what this instance handled comes of the first one.
    assert_eq!(sandbox.json(&["misbehaver", "handled"])["handled"], 0);
    let history = sandbox.json(&["modules", "why", "misbehaver"]).to_string();
    assert!(!history.contains("its library was replaced"), "{history}");
    assert_eq!(daemon.module("misbehaver")["generation"], 1);
}

#[test]
fn a_library_that_is_replaced_while_its_module_starts_is_taken_up() {
    let sandbox = Sandbox::new(&["counter", "misbehaver"], CONFIG);
    let daemon = held_in_its_first_load(&sandbox);
    sandbox.replace_library("misbehaver", 1);
    notice(&sandbox, &daemon);
    go_on(&sandbox, &daemon);
    let expected = sha256(&[library("misbehaver"), vec![b'#', 1]].concat());
    wait_until("the new library runs", || {
        let info = sandbox.json(&["modules", "info", "misbehaver"]);
        (info["sha256"] == *expected).then_some(())
    });
    assert_eq!(daemon.module("misbehaver")["generation"], 2);
}
