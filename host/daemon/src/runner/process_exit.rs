//! Explanation of why a process ended.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use rustix::process::{Resource, getrlimit};

use super::{
    cgroup::MemoryKill,
    limits::{DataLimit, InForce, MemoryLimit},
};

/// End of a runner, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProcessExit {
    /// Reason, a sentence without a full stop.
    pub(super) reason: String,
    /// `true` when the module is at fault. A `kill` from outside blames nobody, and the events that
    /// the module was handling are delivered again as if nothing had happened.
    pub(super) blamed: bool,
}

/// Signals by which others end a process.
const FROM_OUTSIDE: [i32; 4] = [1, 2, 9, 15];

/// Number of the signal SIGXFSZ.
const TOO_LARGE: i32 = 25;

/// Returns why a process ended. Limits of the daemon apply to its processes as well.
pub(super) fn explain(
    status: ExitStatus,
    last_words: Option<&str>,
    in_force: &InForce,
) -> ProcessExit {
    within(status, last_words, in_force, getrlimit(Resource::As).current)
}

fn within(
    status: ExitStatus,
    last_words: Option<&str>,
    in_force: &InForce,
    address_space: Option<u64>,
) -> ProcessExit {
    let Some(signal) = status.signal() else {
        let code = status.code().unwrap_or_default();
        return ProcessExit {
            reason: format!("its process exited with code {code}"),
            blamed: true,
        };
    };
    if signal == 9
        && let Some(kill) = in_force.memory_kill()
    {
        return for_want_of_memory(kill, in_force);
    }
    let mut reason = format!("its process was ended by signal {signal}{}", name(signal));
    if let Some(words) = last_words {
        reason = format!("{reason}: {words}");
        if words.starts_with(NO_MEMORY) {
            let own = limit(in_force);
            if let (true, Some(bytes)) = (own.is_empty(), address_space) {
                reason = format!(
                    "{reason}; lodestard and its processes are limited to {bytes} bytes by \
                     `ulimit -v`"
                );
                return ProcessExit { reason, blamed: false };
            }
            reason.push_str(&own);
        }
    }
    if let (TOO_LARGE, DataLimit::Given(bytes)) = (signal, in_force.data) {
        reason = format!("{reason}: a file grew too large; limits.data_bytes is {bytes}");
    }
    ProcessExit { reason, blamed: !FROM_OUTSIDE.contains(&signal) }
}

fn for_want_of_memory(kill: MemoryKill, in_force: &InForce) -> ProcessExit {
    match kill {
        MemoryKill::OwnLimit => ProcessExit {
            reason: format!("its process was ended for want of memory{}", limit(in_force)),
            blamed: true,
        },
        MemoryKill::Others => ProcessExit {
            reason: "its process was ended by the kernel: the service or the machine had no more \
                     memory"
                .to_owned(),
            blamed: false,
        },
    }
}

fn limit(in_force: &InForce) -> String {
    match in_force.memory {
        MemoryLimit::Group(bytes) | MemoryLimit::Data { bytes, .. } => {
            format!("; limits.memory_bytes is {bytes}")
        }
        MemoryLimit::None | MemoryLimit::Refused(_) => String::new(),
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

const NO_MEMORY: &str = "memory allocation of ";

/// Returns the part of a line with which a run-time library explains that it aborts. Only these
/// fixed texts go into a reason: anything else on standard error may hold what no event and no
/// state should.
pub(super) fn explains_an_end(line: &str) -> Option<&str> {
    const BEGINNINGS: [&str; 8] = [
        "free(): ",
        "double free or corruption",
        "malloc(): ",
        "realloc(): ",
        "corrupted size vs. prev_size",
        "corrupted double-linked list",
        "munmap_chunk(): ",
        "*** stack smashing detected",
    ];
    const OVERFLOW: &str = "has overflowed its stack";
    if line.ends_with(OVERFLOW) {
        return Some("a thread has overflowed its stack");
    }
    let size = line.strip_prefix(NO_MEMORY).and_then(|rest| rest.strip_suffix(" bytes failed"));
    if size.is_some_and(|size| size.bytes().all(|digit| digit.is_ascii_digit())) {
        return Some(line);
    }
    BEGINNINGS.into_iter().find(|beginning| line.starts_with(beginning)).map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::{super::cgroup::GroupError, *};

    #[test]
    fn tells_how_a_process_ended() {
        let check = |raw: i32, words: Option<&str>, reason: &str, blamed: bool| {
            let no_group = GroupError::NotDelegated;
            let memory = MemoryLimit::Data { bytes: 64, no_group };
            let in_force = InForce { memory, ..InForce::default() };
            let exit = explain(ExitStatus::from_raw(raw), words, &in_force);
            assert_eq!(exit, ProcessExit { reason: reason.to_owned(), blamed });
        };
        check(3 << 8, None, "its process exited with code 3", true);
        check(0, None, "its process exited with code 0", true);
        check(11, None, "its process was ended by signal 11 (SIGSEGV)", true);
        check(9, None, "its process was ended by signal 9 (SIGKILL)", false);
        check(15, None, "its process was ended by signal 15 (SIGTERM)", false);
        check(
            6,
            Some("memory allocation of 9 bytes failed"),
            "its process was ended by signal 6 (SIGABRT): memory allocation of 9 bytes failed; \
             limits.memory_bytes is 64",
            true,
        );
    }

    #[test]
    fn who_let_a_file_grow_too_large_hears_the_limit() {
        let in_force = InForce { data: DataLimit::Given(64), ..InForce::default() };
        let exit = explain(ExitStatus::from_raw(TOO_LARGE), None, &in_force);
        assert!(exit.blamed && exit.reason.ends_with("limits.data_bytes is 64"), "{exit:?}");
    }

    #[test]
    fn who_had_no_more_memory_is_to_blame() {
        let in_force = InForce { memory: MemoryLimit::Group(64), ..InForce::default() };
        let exit = for_want_of_memory(MemoryKill::OwnLimit, &in_force);
        assert!(exit.blamed && exit.reason.ends_with("limits.memory_bytes is 64"), "{exit:?}");
        let exit = for_want_of_memory(MemoryKill::Others, &InForce::default());
        assert!(!exit.blamed && exit.reason.contains("the machine"), "{exit:?}");
    }

    #[test]
    fn a_limit_that_is_not_its_own_is_not_its_fault() {
        let words = Some("memory allocation of 9 bytes failed");
        let check = |memory: MemoryLimit, address_space, said: &str, blamed: bool| {
            let in_force = InForce { memory, ..InForce::default() };
            let exit = within(ExitStatus::from_raw(6), words, &in_force, address_space);
            assert!(exit.reason.ends_with(said) && exit.blamed == blamed, "{exit:?}");
        };
        check(MemoryLimit::None, Some(128), "limited to 128 bytes by `ulimit -v`", false);
        check(MemoryLimit::None, None, "9 bytes failed", true);
        check(MemoryLimit::Group(64), Some(128), "limits.memory_bytes is 64", true);
        let abort = within(ExitStatus::from_raw(6), None, &InForce::default(), Some(128));
        assert!(abort.blamed, "who ends itself: {abort:?}");
    }

    #[test]
    fn only_fixed_texts_explain() {
        let check = |line, expected| assert_eq!(explains_an_end(line), expected, "{line}");
        check(
            "thread 'm:x' (7) has overflowed its stack",
            Some("a thread has overflowed its stack"),
        );
        check("memory allocation of 16 bytes failed", Some("memory allocation of 16 bytes failed"));
        check("free(): the text of a prompt", Some("free():"));
        check("corrupted size vs. prev_size in fastbins", Some("corrupted size vs. prev_size"));
        check("the user asked about memory allocation of 16 bytes failed", None);
        check("memory allocation of the text of a prompt bytes failed", None);
        check("corrupted by the text of a prompt", None);
    }
}
