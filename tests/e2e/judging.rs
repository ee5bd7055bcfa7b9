//! Modules that take long to say whether they would take their section.

use std::{
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use harness::{Sandbox, program, wait_until};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);

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
    wait_until("it is asked", PATIENCE, || sandbox.path("load-held").exists().then_some(()));
    enabling
}

fn go_on(sandbox: &Sandbox) {
    fs::remove_file(sandbox.path("hold-load")).expect("it is there");
}

#[test]
fn a_module_that_thinks_long_about_its_section_holds_nobody_up() {
    let sandbox = Sandbox::new(&["counter", "misbehaver"], CONFIG);
    let daemon = sandbox.start();
    wait_until("another is reloaded meanwhile", PATIENCE, || {
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

#[test]
fn an_edit_that_was_not_judged_is_taken_back_when_the_daemon_ends() {
    let sandbox = Sandbox::new(&["counter", "misbehaver"], CONFIG);
    wait_until("it ends while it asks", PATIENCE, || {
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
