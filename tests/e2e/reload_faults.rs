//! Failed reloads, for both ways to reload and both kinds of isolation: the old generation goes on.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use harness::{Daemon, KeepAlive, Sandbox, SetOnDrop, breakage, library, wait_until};

use crate::reloads::{config, gear, history, seen, send};

pub(super) const MODES: [&str; 2] = ["overlap", "handover"];
pub(super) const ISOLATIONS: [&str; 2] = ["in_process", "process"];

/// Runs a check for both ways to reload and both kinds of isolation, all at once.
fn everywhere(check: fn(&str, &str)) {
    thread::scope(|scope| {
        for mode in MODES {
            for isolation in ISOLATIONS {
                let name = format!("{mode}, {isolation}");
                let named = thread::Builder::new().name(name);
                named.spawn_scoped(scope, move || check(mode, isolation)).expect("a thread");
            }
        }
    });
}

fn sandbox(mode: &str, isolation: &str) -> Sandbox {
    let keys = format!("    isolation: {isolation}\n    unload: true\n");
    let sandbox = Sandbox::new(&["ingest", "gear"], &config(&keys));
    sandbox.replace_bytes("gear", &gear(mode));
    sandbox
}

/// Changes keys of the module's section.
fn configure(sandbox: &Sandbox, isolation: &str, keys: &str) {
    let common = format!("    isolation: {isolation}\n    unload: true\n");
    sandbox.configure(&config(&format!("{common}{keys}")));
}

/// Checks that every accepted event is handled once.
fn handled_once(sandbox: &Sandbox, count: u64) {
    wait_until("all is handled", || (seen(sandbox) == count).then_some(()));
    let deliveries = fs::read_to_string(sandbox.state().join("data/gear/deliveries"));
    let deliveries = deliveries.expect("gear writes them");
    let ids: HashSet<&str> = deliveries.lines().collect();
    assert_eq!((ids.len() as u64, deliveries.lines().count() as u64), (count, count));
}

fn sha256(sandbox: &Sandbox) -> String {
    let info = sandbox.json(&["modules", "info", "gear"]);
    info["sha256"].as_str().expect("it runs").to_owned()
}

#[test]
fn a_new_generation_that_fails_leaves_the_old_one_running() {
    everywhere(|mode, isolation| {
        let sandbox = sandbox(mode, isolation);
        let daemon = sandbox.start();
        let mut sent = 0;
        let mut handles = |id: &str| {
            send(&daemon, id);
            sent += 1;
            handled_once(&sandbox, sent);
        };
        handles("before");
        let before = daemon.module("gear");
        // One that keeps its connection; a generation that stops would wait for it in vain.
        let mut client = KeepAlive::new(&daemon.address("gear", "http"));
        for (fault, words) in [
            ("start_panics", "planted: a start that panics"),
            ("start_fails", "planted: a start that fails"),
            ("health_fails", "planted: health"),
            ("restore_fails", "planted: no state"),
        ] {
            if mode == "overlap" {
                assert_eq!(client.get("/").expect("it serves"), 200);
            }
            configure(&sandbox, isolation, &format!("    fault: {fault}\n"));
            wait_until("it was refused", || {
                history(&sandbox, "gear").contains(words).then_some(())
            });
            let mut another = KeepAlive::new(&daemon.address("gear", "http"));
            assert_eq!(another.get("/").expect("it serves on"), 200, "{fault}");
            daemon.wait_state("gear", "running");
            handles(fault);
            let after = daemon.module("gear");
            assert_eq!(after["isolation"], isolation, "{fault}");
            assert_eq!(after["restarts"], 0, "{fault}: {after:#}");
            let never_stopped = after["generation"] == before["generation"];
            assert_eq!(never_stopped, mode == "overlap", "{mode}, {fault}: {after:#}");
            if never_stopped {
                assert_eq!(client.get("/").expect("it serves on"), 200, "{fault}");
            }
        }
        assert_eq!(client.connections, u64::from(mode == "overlap"), "it kept its connection");
        // A good one is taken again.
        configure(&sandbox, isolation, "    state_version: 2\n");
        wait_until("a new one runs", || {
            history(&sandbox, "gear").contains("its events waited").then_some(())
        });
        handles("after");
        assert!(daemon.stop().success());
    });
}

#[test]
fn a_start_that_hangs_after_a_handover_is_said_to_hang_and_nothing_else() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let sandbox = sandbox("handover", "in_process");
            let daemon = sandbox.start();
            configure(&sandbox, "in_process", "    fault: start_hangs\n");
            wait_until("the reload is given up", || {
                history(&sandbox, "gear").contains("its events wait until lodestard").then_some(())
            });
            assert!(!history(&sandbox, "gear").contains("goes on"), "nothing goes on");
            // What the two must not have at once the new one may hold.
            let module = daemon.wait_state("gear", "stalled");
            assert!(module["reason"].to_string().contains("its events wait"), "{module:#}");
            send(&daemon, "meanwhile");
            configure(&sandbox, "in_process", "");
            assert!(daemon.stop().success(), "it ends without the module");
            let daemon = sandbox.start();
            handled_once(&sandbox, 1);
            assert!(daemon.stop().success());
        });
        scope.spawn(|| {
            let sandbox = sandbox("handover", "process");
            let daemon = sandbox.start();
            configure(&sandbox, "process", "    fault: start_hangs\n");
            send(&daemon, "meanwhile");
            wait_until("the new one is ended", || {
                let history = history(&sandbox, "gear");
                history.contains("the generation before goes on").then_some(())
            });
            daemon.wait_state("gear", "running");
            handled_once(&sandbox, 1);
            assert!(daemon.stop().success());
        });
    });
}

/// An invalid replacement of a good library, with the words of its error.
struct Bad<'a> {
    words: &'a str,
    put: Box<dyn Fn(&Sandbox) + 'a>,
}

fn bytes<'a>(words: &'a str, bytes: &'a [u8]) -> Bad<'a> {
    Bad { words, put: Box::new(move |sandbox| sandbox.replace_bytes("gear", bytes)) }
}

/// Replaces the library by a link to the same library.
fn linked_file(sandbox: &Sandbox) {
    let (file, elsewhere) = (sandbox.path("modules/gear/libgear.so"), sandbox.path("libgear.so"));
    fs::write(&elsewhere, library("gear")).expect("the sandbox is writable");
    fs::remove_file(&file).expect("it is there");
    symlink(elsewhere, file).expect("it is gone");
}

/// Moves the folder of the module, and puts a link to it in its place.
fn linked_folder(sandbox: &Sandbox) {
    let (folder, elsewhere) = (sandbox.path("modules/gear"), sandbox.path("elsewhere"));
    // No link any more, so that only the folder is one.
    sandbox.replace_bytes("gear", &library("gear"));
    fs::rename(&folder, &elsewhere).expect("the sandbox is writable");
    symlink(elsewhere, folder).expect("it is gone");
}

#[test]
fn a_reload_to_something_bad_changes_nothing() {
    everywhere(|mode, isolation| {
        let good = gear(mode);
        let cut = breakage::truncated(good.clone(), good.len() / 2);
        let other_machine = breakage::of_another_machine(good.clone());
        let older = breakage::with_epoch(good.clone(), 0);
        let newer = breakage::with_epoch(good.clone(), 99);
        let sandbox = sandbox(mode, isolation);
        let daemon = sandbox.start();
        send(&daemon, "before");
        handled_once(&sandbox, 1);
        let before = (daemon.module("gear")["generation"].clone(), sha256(&sandbox));
        for Bad { words, put } in [
            bytes("truncated", &cut),
            bytes("ELF", b"no library"),
            bytes("machine", &other_machine),
            bytes("epoch 0", &older),
            bytes("epoch 99", &newer),
            Bad { words: "symbolic link", put: Box::new(linked_file) },
            Bad { words: "symbolic link", put: Box::new(linked_folder) },
        ] {
            put(&sandbox);
            let output = sandbox.lodestar(&["modules", "reload", "gear"]);
            assert_eq!(output.code, 4, "{output:#?}");
            assert!(output.stderr.contains(words), "{words}: {output:#?}");
            assert!(output.stderr.contains("the generation before goes on"), "{output:#?}");
            let module = daemon.wait_state("gear", "running");
            assert_eq!(module["isolation"], isolation, "{words}");
            assert_eq!((module["generation"].clone(), sha256(&sandbox)), before, "{words}");
            handled_once(&sandbox, 1);
        }
        fs::remove_file(sandbox.path("modules/gear")).expect("it is a link");
        fs::rename(sandbox.path("elsewhere"), sandbox.path("modules/gear")).expect("it is gone");
        sandbox.replace_bytes("gear", &good);
        let output = sandbox.lodestar(&["modules", "reload", "gear"]);
        assert_eq!(output.code, 0, "{output:#?}");
        handled_once(&sandbox, 1);
        assert!(daemon.stop().success());
    });
}

#[test]
fn a_newer_version_takes_over_the_state_and_an_older_one_refuses_it() {
    everywhere(|mode, isolation| {
        let sandbox = sandbox(mode, isolation);
        let daemon = sandbox.start();
        send(&daemon, "by version 1");
        handled_once(&sandbox, 1);
        configure(&sandbox, isolation, "    state_version: 2\n");
        wait_until("version 2 runs", || {
            history(&sandbox, "gear").contains("its events waited").then_some(())
        });
        send(&daemon, "by version 2");
        handled_once(&sandbox, 2);
        // From version 2 to version 2 there is nothing to convert.
        assert_eq!(sandbox.lodestar(&["modules", "reload", "gear"]).code, 0);
        handled_once(&sandbox, 2);
        configure(&sandbox, isolation, "    state_version: 1\n");
        let words = "the state has version 2, and this reads up to 1";
        wait_until("version 1 refuses it", || {
            history(&sandbox, "gear").contains(words).then_some(())
        });
        daemon.wait_state("gear", "running");
        send(&daemon, "by version 2 once more");
        handled_once(&sandbox, 3);
        assert!(daemon.stop().success());
    });
}

/// Swaps two valid builds, as fast as possible and in both ways, until `stop` is set; leaves the
/// first.
fn swap(sandbox: &Sandbox, builds: &[Vec<u8>; 2], stop: &AtomicBool) {
    let file = sandbox.path("modules/gear/libgear.so");
    for turn in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return sandbox.replace_bytes("gear", &builds[0]);
        }
        let build = &builds[turn % 2];
        if turn / 2 % 2 == 0 {
            sandbox.replace_bytes("gear", build);
        } else {
            // Truncated, then written: who looks meanwhile sees a part.
            fs::write(&file, build).expect("the sandbox is writable");
        }
    }
}

#[test]
fn what_is_swapped_between_check_and_load_is_loaded_whole_or_not_at_all() {
    thread::scope(|scope| {
        for isolation in ISOLATIONS {
            scope.spawn(move || swapped_while_reloading(isolation));
        }
    });
}

fn swapped_while_reloading(isolation: &str) {
    // They differ in a byte in their middle: beyond its end a cut would not be seen.
    let first = library("gear");
    let second = breakage::with_text(first.clone(), b"Serves HTTP, ", b"Serves HTTP; ");
    let sandbox = sandbox("overlap", isolation);
    let daemon = sandbox.start();
    send(&daemon, "before");
    handled_once(&sandbox, 1);
    let builds = [first, second];
    let stop = AtomicBool::new(false);
    let (mut taken, mut refused) = (HashSet::new(), 0);
    let whole = builds.each_ref().map(|bytes| harness::sha256(bytes));
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        scope.spawn(|| swap(&sandbox, &builds, &stop));
        // Each of the swaps is a reload of its own beside these.
        for _ in 0..12 {
            let output = sandbox.lodestar(&["modules", "reload", "gear"]);
            if output.code == 0 {
                taken.insert(sha256(&sandbox));
            } else {
                assert_eq!(output.code, 4, "{output:#?}");
                assert!(output.stderr.contains("the generation before goes on"), "{output:#?}");
                refused += 1;
            }
            let runs = sha256(&sandbox);
            assert!(whole.contains(&runs), "{runs} is none of {whole:?}");
            assert_eq!(seen(&sandbox), 1);
        }
    });
    assert!(!taken.is_empty(), "some are taken ({refused} were refused)");
    let output = sandbox.lodestar(&["modules", "reload", "gear"]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert_eq!(sha256(&sandbox), whole[0]);
    still_works(&sandbox, &daemon);
    assert!(daemon.stop().success());
}

fn still_works(sandbox: &Sandbox, daemon: &Daemon<'_>) {
    send(daemon, "after");
    handled_once(sandbox, 2);
    let mut client = KeepAlive::new(&daemon.address("gear", "http"));
    assert_eq!(client.get("/").expect("it serves"), 200);
}
