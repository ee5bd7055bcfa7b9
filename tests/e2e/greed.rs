//! Modules that take resources which others need too: the module is killed, or gets no more, and
//! others are not affected.

use std::{fs, os::unix::fs::PermissionsExt};

use harness::{Daemon, Sandbox, skip_even_in_ci, wait_until};
use libc::ENOSYS;
use rustix::process::{Pid, test_kill_process_group};

use crate::held_back::{as_root_and_others, errno, runner, says};

/// Returns the keys of a module with one limit on what it takes. Its calls may last: on a busy
/// machine their deadline would end it before the limit does.
fn limits(limit: &str) -> String {
    format!("    limits: {{{limit}, call_deadline_ms: 600000}}\n")
}

/// Takes this amount of a resource, and waits until the process has been killed with all of its
/// children; returns the reason.
fn ended_for_taking(sandbox: &Sandbox, daemon: &Daemon<'_>, what: &str, amount: &str) -> String {
    let before = runner(sandbox);
    // It may have been ended before it could answer.
    let _ = sandbox.lodestar(&["misbehaver", "take", "--what", what, "--amount", amount]);
    let said = || sandbox.json(&["modules", "info", "misbehaver"])["last_errors"].to_string();
    let errors = wait_until("it was ended", || {
        let errors = said();
        errors.contains("limits.").then_some(errors)
    });
    let group = i32::try_from(before).ok().and_then(Pid::from_raw).expect("a number");
    wait_until("nothing of it is left", || {
        // No signal: whether there is anybody to send one to.
        test_kill_process_group(group).is_err().then_some(())
    });
    assert!(daemon.lives(), "{}", daemon.log());
    assert_eq!(sandbox.lodestar(&["counter", "report"]).code, 0, "others go on");
    errors
}

/// Returns whether the daemon counts the resource; a control group refuses it instead, which has
/// its own tests.
fn is_counted(sandbox: &Sandbox, limit: &str) -> bool {
    let info = sandbox.json(&["modules", "info", "misbehaver"]);
    let words = info["process"][limit].as_str().unwrap_or_else(|| panic!("{info:#}"));
    let is_counted = words.contains("the daemon's count");
    if !is_counted {
        skip_even_in_ci("greed", &format!("a control group holds the limit: {words}"));
    }
    is_counted
}

#[test]
fn too_many_tasks_end_only_the_module() {
    for (what, amount) in
        [("children", "400"), ("threads", "400"), ("nameless_threads", "400"), ("bomb", "12")]
    {
        as_root_and_others("too_many_tasks", &limits("tasks: 64"), |sandbox, daemon| {
            if is_counted(sandbox, "tasks_limit") {
                let errors = ended_for_taking(sandbox, daemon, what, amount);
                assert!(errors.contains("limits.tasks is 64"), "{what}: {errors}");
                daemon.wait_state("misbehaver", "running");
            }
        });
    }
}

#[test]
fn memory_that_is_shared_or_spread_over_children_counts() {
    let keys = limits("memory_bytes: 268435456");
    for what in ["shared_memory", "childrens_memory", "nameless_memory", "leaderless_memory"] {
        as_root_and_others("memory_that_is_shared", &keys, |sandbox, daemon| {
            if is_counted(sandbox, "memory_limit") {
                for call in [libc::SYS_memfd_create, libc::SYS_memfd_secret] {
                    let words = format!("{call} @name 0");
                    assert_eq!(errno(sandbox, "itself", &words), i64::from(ENOSYS));
                }
                let errors = ended_for_taking(sandbox, daemon, what, "600000000");
                assert!(errors.contains("limits.memory_bytes is 268435456"), "{what}: {errors}");
                daemon.wait_state("misbehaver", "running");
            }
        });
    }
}

#[test]
fn a_full_data_directory_ends_only_the_module() {
    for (what, amount) in
        [("disk", "200000000"), ("unlinked_disk", "200000000"), ("files", "40000")]
    {
        let keys = limits("data_bytes: 33554432");
        as_root_and_others("a_full_data_directory", &keys, |sandbox, daemon| {
            let errors = ended_for_taking(sandbox, daemon, what, amount);
            assert!(errors.contains("33554432"), "{what}: {errors}");
        });
    }
}

/// Root sees everything; for other users, a process is killed if it prevents counting.
#[test]
fn what_is_hidden_is_counted_or_ends_only_the_module() {
    for (what, unseen) in [
        ("hidden_disk", "a directory in its data directory cannot be read"),
        ("disk_of_the_unseen", "what one of its processes has open cannot be seen"),
    ] {
        let keys = limits("data_bytes: 33554432");
        as_root_and_others("what_is_hidden", &keys, |sandbox, daemon| {
            let is_root = says(u64::from(daemon.pid()), "status", "Uid:").starts_with('0');
            let (amount, reason) = match is_root {
                true => ("200000000", "limits.data_bytes is 33554432"),
                false => ("16777216", unseen),
            };
            let errors = ended_for_taking(sandbox, daemon, what, amount);
            assert!(errors.contains(reason), "{what}: {errors}");
            // So that it can be removed.
            let hidden = sandbox.state().join("data/misbehaver/hidden");
            drop(fs::set_permissions(hidden, PermissionsExt::from_mode(0o700)));
        });
    }
}

#[test]
fn one_file_is_no_larger_than_all_may_be() {
    as_root_and_others("one_file", &limits("data_bytes: 1048576"), |sandbox, daemon| {
        let errors = ended_for_taking(sandbox, daemon, "disk", "16000000");
        assert!(errors.contains("a file grew too large; limits.data_bytes is 1048576"), "{errors}");
        assert!(errors.contains("SIGXFSZ"), "{errors}");
    });
}

#[test]
fn a_flood_of_log_records_is_cut_and_counted() {
    for (isolation, what) in [("process", "log"), ("process", "stderr"), ("in_process", "log")] {
        let config = format!(
            "modules:\n  misbehaver:\n    isolation: {isolation}\n    limits: \
             {{log_records_per_second: 10}}\nmetrics:\n  listen: 127.0.0.1:0\n"
        );
        let sandbox = Sandbox::new(&["misbehaver"], &config);
        let daemon = sandbox.start();
        let info = sandbox.json(&["modules", "info", "misbehaver"]);
        assert_eq!(info["log_records_per_second"], 10, "{info:#}");
        let taken = sandbox.lodestar(&["misbehaver", "take", "--what", what, "--amount", "20000"]);
        assert_eq!(taken.code, 0, "{taken:#?}");
        // Each record was logged or counted.
        let (logged, left_out) = wait_until("all are accounted for", || {
            let log = daemon.log();
            let logged = log.lines().filter(|line| line.contains("planted: ")).count();
            let counts = log.lines().filter(|line| line.contains(" log records were left out"));
            let counts = counts.map(|line| {
                let (before, _) =
                    line.split_once(" log records").unwrap_or_else(|| panic!("{line}"));
                let digits = before.rsplit(|it: char| !it.is_ascii_digit()).next();
                digits.and_then(|it| it.parse::<usize>().ok()).unwrap_or_else(|| panic!("{line}"))
            });
            let left_out: usize = counts.sum();
            (logged + left_out >= 20_000).then_some((logged, left_out))
        });
        assert_eq!(logged + left_out, 20_000);
        assert!(left_out > 10_000, "{isolation} {what}: {logged} were logged");
        assert!(daemon.stop().success());
    }
}
