//! Modules that take long to say whether they would take their section.

use std::{
    cell::Cell,
    fs,
    process::{Child, Output, Stdio},
};

use harness::{Daemon, Sandbox, program, sha256, wait_until};
use rustix::process::Signal;

use crate::install::{install, package, salted};

const CONFIG: &str = "modules:\n  counter:\n  misbehaver:\n    enabled: false\n\
                      metrics:\n  listen: 127.0.0.1:0\n";

/// Enables `misbehaver`, and returns when the module is asked whether it accepts its section. It
/// does not answer as long as there is a file `hold-load`; after ten seconds nobody waits for it.
fn enabling(sandbox: &Sandbox) -> Child {
    drop(fs::remove_file(sandbox.path("load-held")));
    fs::write(sandbox.path("hold-load"), "").expect("the sandbox is writable");
    let mut enabling = sandbox.isolated(&program("lodestar"));
    enabling.args(["modules", "enable", "misbehaver"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let enabling = enabling.spawn().expect("it is built");
    wait_until("it is asked", || sandbox.path("load-held").exists().then_some(()));
    enabling
}

fn go_on(sandbox: &Sandbox) {
    fs::remove_file(sandbox.path("hold-load")).expect("it is there");
}

#[test]
fn a_module_that_thinks_long_about_its_section_holds_nobody_up() {
    let sandbox = Sandbox::new(&["counter", "misbehaver"], CONFIG);
    let daemon = sandbox.start();
    wait_until("another is reloaded meanwhile", || {
        let enabling = enabling(&sandbox);
        let reloaded = sandbox.lodestar(&["modules", "reload", "counter"]);
        assert_eq!(reloaded.code, 0, "{reloaded:#?}");
        // A machine that took ten seconds for that shows nothing: the file is taken by now.
        let meanwhile = daemon.module("misbehaver")["desired"] == "disabled";
        go_on(&sandbox);
        let enabled = enabling.wait_with_output().expect("it is ours");
        assert!(enabled.status.success(), "it gets its verdict: {enabled:#?}");
        daemon.wait_state("misbehaver", "running");
        let disabled = sandbox.lodestar(&["modules", "disable", "misbehaver"]);
        assert_eq!(disabled.code, 0, "{disabled:#?}");
        meanwhile.then_some(())
    });
}

/// Installs a new build of `counter` while `misbehaver` thinks about its section, and does
/// `meanwhile` when the build lies in its place. Returns what that returned and the outcome of the
/// install, or `None` where the machine was so slow that the verdict came before.
fn installed_behind<T>(
    sandbox: &Sandbox,
    daemon: &Daemon<'_>,
    build: &[u8],
    meanwhile: impl FnOnce() -> T,
) -> Option<(T, Output)> {
    let enabling = enabling(sandbox);
    let folder = package(sandbox, "counter", build);
    let mut installing = sandbox.isolated(&program("lodestar"));
    installing.args(["modules", "install"]).arg(folder);
    let installing = installing.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut installing = installing.expect("it is built");
    let place = sandbox.state().join("modules/counter/libcounter.so");
    wait_until("it lies in its place", || {
        fs::read(&place).is_ok_and(|bytes| bytes == build).then_some(())
    });
    let met = meanwhile();
    let waits = installing.try_wait().expect("it is ours").is_none();
    let waits = waits && daemon.module("misbehaver")["desired"] == "disabled";
    go_on(sandbox);
    let installed = installing.wait_with_output().expect("it is ours");
    enabling.wait_with_output().expect("it is ours");
    waits.then_some((met, installed))
}

#[test]
fn an_install_that_awaits_its_verdict_is_loaded_by_nobody_else() {
    let config = CONFIG.replace("  counter:\n", "  sink:\n");
    let sandbox = Sandbox::new(&["sink", "misbehaver"], &config);
    let daemon = sandbox.start();
    let runs = |module: &str| sandbox.json(&["modules", "info", module])["sha256"].clone();
    install(&sandbox, &package(&sandbox, "counter", &salted("counter", u8::MAX)));
    assert_eq!(sandbox.lodestar(&["modules", "enable", "counter"]).code, 0);
    let at_rest = sandbox.configuration();
    let refused =
        at_rest.replace("  misbehaver:\n    enabled: false", "  misbehaver:\n    fault: no");
    assert_ne!(refused, at_rest);
    let salts = Cell::new(0);
    let salt = || salts.replace(salts.get() + 1);
    let look_around = || {
        let sink = runs("sink");
        sandbox.replace_library("sink", salt());
        wait_until("all libraries are looked at", || (runs("sink") != sink).then_some(()));
    };
    for is_refused in [false, true] {
        wait_until("it waits behind the verdict on another", || {
            sandbox.configure(&at_rest);
            wait_until("nothing waits", || {
                (daemon.module("misbehaver")["state"] == "disabled").then_some(())
            });
            let (before, build) = (runs("counter"), salted("counter", salt()));
            let (ran, installed) = installed_behind(&sandbox, &daemon, &build, || {
                look_around();
                if is_refused {
                    sandbox.configure(&refused);
                }
                runs("counter")
            })?;
            assert_eq!(ran, before, "its own transaction loads it");
            let said = String::from_utf8_lossy(&installed.stderr);
            assert_eq!(installed.status.success(), !is_refused, "{said}");
            if is_refused {
                assert!(said.contains("stays installed"), "{said}");
                look_around();
                assert_eq!(runs("counter"), before, "it was rolled back");
            } else {
                assert_eq!(runs("counter"), sha256(&build).as_str());
            }
            Some(())
        });
    }
    assert!(daemon.stop().success());
}

#[test]
fn an_edit_that_was_not_judged_is_taken_back_when_the_daemon_ends() {
    let sandbox = Sandbox::new(&["counter", "misbehaver"], CONFIG);
    wait_until("it ends while it asks", || {
        sandbox.configure(CONFIG);
        let daemon = sandbox.start();
        let before = daemon.log().len();
        let enabling = enabling(&sandbox);
        assert_ne!(sandbox.configuration(), CONFIG, "it is written before it is judged");
        daemon.signal(Signal::TERM);
        assert!(daemon.wait().success());
        let log = daemon.log().split_off(before);
        let meanwhile = !log.contains("took the configuration");
        go_on(&sandbox);
        let enabled = enabling.wait_with_output().expect("it is ours");
        if !meanwhile {
            return None;
        }
        let said = String::from_utf8_lossy(&enabled.stderr);
        assert!(said.contains("the daemon ends"), "{said}");
        assert_eq!(sandbox.configuration(), CONFIG);
        Some(())
    });
}

#[test]
fn a_removal_is_taken_back_when_the_file_is_refused() {
    let sandbox = Sandbox::new(&["counter", "misbehaver"], CONFIG);
    let daemon = sandbox.start();
    fs::remove_dir_all(sandbox.path("modules/counter")).expect("the sandbox is writable");
    let refused = CONFIG.replace("enabled: false", "fault: no_such_fault");
    assert_ne!(refused, CONFIG);
    sandbox.configure(&refused);
    let removed = sandbox.lodestar(&["modules", "remove", "counter", "--purge", "--yes"]);
    assert_ne!(removed.code, 0, "{removed:#?}");
    assert!(removed.stderr.contains("nothing was changed"), "{removed:#?}");
    assert_eq!(sandbox.configuration(), refused);
    assert!(daemon.stop().success());
}
