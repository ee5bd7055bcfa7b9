//! Libraries that are no good: each is refused by name, with the remedy, and the rest runs.

use harness::{Sandbox, breakage, library};

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

/// Puts `bytes` in place of the library of `misbehaver`; its state and reason must be these.
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
