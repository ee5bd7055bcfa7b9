//! Marks that tell a process that runs a module from other processes of the same user.
//!
//! There are two marks: the process gains no privileges, and it has no POSIX message queues for
//! good. Each alone is usual, both are not. Every process that it starts inherits them, and none
//! can remove them: no call ends the first, and a hard limit is raised only with
//! `CAP_SYS_RESOURCE`, which is given up with every other capability, and which a process without
//! new privileges cannot regain.

use crate::process_stats::text_of;
use rustix::{
    io::Result,
    process::{Pid, Resource, Rlimit, setrlimit},
    thread::set_no_new_privs,
};

/// Marks this thread and all that it starts; there is no other yet.
pub(super) fn put_on_this_thread() -> Result<()> {
    set_no_new_privs(true)?;
    setrlimit(Resource::Msgqueue, Rlimit { current: Some(0), maximum: Some(0) })
}

/// Returns whether a process has the marks; `None` where it is gone or `/proc` does not tell.
#[must_use]
pub fn is_marked(process: Pid) -> Option<bool> {
    let read = |file| text_of(&format!("/proc/{}/{file}", process.as_raw_nonzero())).ok();
    bears_both(&read("status")?, &read("limits")?)
}

fn bears_both(status: &str, limits: &str) -> Option<bool> {
    let privileges = after(status, "NoNewPrivs:")?.trim();
    // The soft limit, the hard one and the unit.
    let queues = after(limits, "Max msgqueue size")?.split_whitespace().nth(1)?;
    Some(privileges == "1" && queues == "0")
}

/// Returns the rest of the first line that begins with this head.
fn after<'a>(text: &'a str, head: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_marks_make_one() {
        let head = "Max file locks            unlimited            unlimited            locks\n";
        let check = |privileges: &str, queues: &str, expected| {
            let status = format!("Name:\tmodule\n{privileges}\nSeccomp:\t0\n");
            let limits = format!("{head}Max msgqueue size         {queues}\n");
            assert_eq!(bears_both(&status, &limits), expected, "{privileges} {queues}");
        };
        check("NoNewPrivs:\t1", "0                    0                    bytes", Some(true));
        check("NoNewPrivs:\t1", "0                    819200               bytes", Some(false));
        check("NoNewPrivs:\t1", "unlimited            unlimited            bytes", Some(false));
        check("NoNewPrivs:\t0", "0                    0                    bytes", Some(false));
        check("", "0                    0                    bytes", None);
        check("NoNewPrivs:\t1", "", None);
    }

    #[test]
    fn this_process_is_no_modules_and_one_that_is_gone_is_unknown() {
        let own = rustix::process::getpid();
        assert_eq!(is_marked(own), Some(false));
        let mut child =
            std::process::Command::new("true").spawn().expect("there is such a program");
        let number = Pid::from_child(&child);
        child.wait().expect("it ends");
        assert_eq!(is_marked(number), None);
    }
}
