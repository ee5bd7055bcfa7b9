//! Access to the control socket for processes of the daemon's user.

use std::path::Path;

use harness::{Sandbox, program, run, tool_or_skip};

fn sandbox(isolation: &str) -> Sandbox {
    let config = format!("modules:\n  misbehaver:\n    isolation: {isolation}\n");
    Sandbox::new(&["misbehaver"], &config)
}

/// Returns the daemon's answer to the module, or a child of it, that asks for the configuration.
fn asked(sandbox: &Sandbox, from: &str) -> String {
    // `--socket` alone is the command line's own.
    let socket = sandbox.socket().display().to_string();
    let answer = sandbox.json(&["misbehaver", "ask", "--arg-socket", &socket, "--from", from]);
    answer.as_str().expect("it is text").to_owned()
}

#[test]
fn a_module_in_a_process_of_its_own_and_what_it_starts_are_refused() {
    let isolated = sandbox("process");
    let daemon = isolated.start();
    for from in ["itself", "child"] {
        let answer = asked(&isolated, from);
        // From Landlock 9 on the kernel refuses.
        if !answer.contains("ermission denied") {
            assert!(answer.starts_with("HTTP/1.1 403"), "{from}: {answer}");
            assert!(answer.contains("a module in a process of its own"), "{from}: {answer}");
            assert!(daemon.log().contains("refused a client"), "{}", daemon.log());
        }
    }
    assert!(daemon.stop().success());

    let trusted = sandbox("in_process");
    let daemon = trusted.start();
    let answer = asked(&trusted, "itself");
    assert!(answer.starts_with("HTTP/1.1 200"), "in the daemon it is the daemon: {answer}");
    assert!(daemon.stop().success());
}

#[test]
fn only_both_marks_of_a_module_keep_a_command_out() {
    let sandbox = sandbox("process");
    let daemon = sandbox.start();
    let tool = |name| tool_or_skip(name, "only_both_marks_of_a_module_keep_a_command_out");
    let (Some(setpriv), Some(prlimit)) = (tool("setpriv"), tool("prlimit")) else { return };
    let privileges = [setpriv.as_path(), Path::new("--no-new-privs")];
    let queues = [prlimit.as_path(), Path::new("--msgqueue=0")];
    for (marks, code) in [
        (privileges.to_vec(), 0),
        (queues.to_vec(), 0),
        ([privileges, queues].concat(), 4),
        ([queues, privileges].concat(), 4),
    ] {
        let mut command = sandbox.isolated(marks[0]);
        let output = run(command.args(&marks[1..]).arg(program("lodestar")).arg("status"));
        assert_eq!(output.code, code, "{marks:?}: {output:#?}");
    }
    assert!(daemon.stop().success());
}
