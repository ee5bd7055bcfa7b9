//! Libraries and thread-local keys that stay mapped after a reload, and those that do not.

use harness::{Daemon, KeepAlive, Sandbox, wait_until};

use crate::reloads;

fn sandbox(fault: &str, unload: bool) -> Sandbox {
    let config = format!(
        "modules:\n  misbehaver:\n    fault: {fault}\n    unload: {unload}\nmetrics:\n  listen: \
         127.0.0.1:0\n"
    );
    Sandbox::new(&["misbehaver"], &config)
}

/// Installs another build, and waits until it runs.
fn replace(sandbox: &Sandbox, daemon: &Daemon<'_>, generation: u8) {
    sandbox.replace_library("misbehaver", generation);
    wait_until("the new one runs", || {
        (daemon.module("misbehaver")["generation"] == generation).then_some(())
    });
}

#[test]
fn a_library_is_not_unmapped_while_anything_of_it_is_in_use() {
    // The one that runs, and the first, the last good one, which is kept for a way back. Each of
    // the others leaves a thread; one of them leaves a handler, which is enough for a signal.
    for (fault, resident, reason) in [
        ("none", 2, ""),
        ("leaves_thread", 4, "a thread that it started is alive"),
        ("handles_signal", 3, "it handles a signal"),
    ] {
        let sandbox = sandbox(fault, true);
        let daemon = sandbox.start();
        for generation in 2..=4 {
            replace(&sandbox, &daemon, generation);
        }
        let mapped =
            || sandbox.json(&["modules", "info", "misbehaver"])["resident_generations"].clone();
        wait_until(&format!("{fault}: {resident} are mapped"), || {
            (mapped() == resident).then_some(())
        });
        let kept = "an old library stays mapped";
        if reason.is_empty() {
            assert!(!daemon.log().contains(kept), "{}", daemon.log());
        } else {
            wait_until(&format!("{fault}: it is said why"), || {
                let log = daemon.log();
                log.lines().any(|line| line.contains(kept) && line.contains(reason)).then_some(())
            });
            assert_eq!(mapped(), resident, "{fault}: it stays");
        }
        assert_eq!(sandbox.json(&["misbehaver", "handled"])["handled"], 0, "{fault}: it works");
        assert!(daemon.stop().success(), "{fault}");
    }
}

#[test]
fn thread_local_keys_of_old_libraries_are_taken_back() {
    for unload in [true, false] {
        let sandbox = sandbox("holds_key", unload);
        let daemon = sandbox.start();
        let lowest_free = || {
            let key = sandbox.json(&["misbehaver", "key"])["lowest_free"].as_u64();
            key.expect("a number")
        };
        let before = lowest_free();
        for generation in 2..=12 {
            replace(&sandbox, &daemon, generation);
        }
        // The one that runs, the one before it, and one that has just ended.
        wait_until("the keys of the others are free", || {
            (lowest_free() <= before + 2).then_some(())
        });
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_restart_is_asked_for_before_too_many_are_mapped() {
    let sandbox = reloads::sandbox();
    let daemon = sandbox.start();
    reloads::send(&daemon, "before");
    let mut client = KeepAlive::new(&daemon.address("gear", "http"));
    assert_eq!(client.get("/").expect("it serves"), 200);
    let mut reloads = 0;
    let refused = loop {
        let output = sandbox.lodestar(&["modules", "reload", "gear"]);
        if output.code != 0 {
            break output;
        }
        reloads += 1;
        assert!(reloads < 100, "there is an end to what may be mapped");
    };
    assert_eq!(refused.code, 4, "{refused:#?}");
    assert!(refused.stderr.contains("restart needed"), "{refused:#?}");
    assert!(refused.stderr.contains("the generation before goes on"), "{refused:#?}");
    let module = daemon.wait_state("gear", "running");
    assert_eq!(module["generation"], 1 + reloads, "{module:#}");
    assert_eq!(client.get("/").expect("it serves on"), 200);
    reloads::send(&daemon, "after");
    wait_until("it handles on", || (reloads::seen(&sandbox) == 2).then_some(()));
    assert!(daemon.stop().success());

    let daemon = sandbox.start();
    assert_eq!(sandbox.lodestar(&["modules", "reload", "gear"]).code, 0, "the restart helps");
    assert!(daemon.stop().success());
}
