//! Sandbox of a runner, entered before it maps its library.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, LandlockStatus, RestrictionStatus,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use super::{
    privileges,
    syscalls::{self, OpenFiles},
};
use crate::runner::{sandbox_marker, wire::Setup};

/// The newest Landlock version that is known; older kernels enforce the rules that they know.
const NEWEST: ABI = ABI::V9;

/// Paths of programs and libraries, of what name resolution, TLS and time zones need, and of what
/// the kernel tells everybody about the machine.
const SYSTEM: [&str; 43] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/passwd",
    "/etc/group",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/alternatives",
    "/etc/os-release",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/version",
    "/proc/vmstat",
    "/proc/filesystems",
    "/proc/pressure",
    "/proc/sys",
    "/proc/driver/nvidia",
    "/sys/devices",
    "/sys/class",
    "/sys/bus",
    "/sys/module/nvidia",
];

/// Devices without a memory, and the graphics card.
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/nvidiactl",
    "/dev/nvidia0",
    "/dev/nvidia-uvm",
];

/// Number of the user's tasks, and of a process's descriptors, that stay reserved for the daemon. A
/// message takes 253 descriptors at most, and until it has been read the user's processes together
/// can send no more of them than their limits allow.
const RESERVE: u64 = 256;

/// Result of entering the sandbox: whether it holds, and a description.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) in_words: String,
    pub(super) holds: bool,
}

/// Gives up everything that the module is not granted, for this thread and all that it starts;
/// there is no other thread yet.
pub(super) fn enter(setup: &Setup) -> Sandbox {
    enter_with(&setup.readable, &setup.writable, setup.counted)
}

/// Confines this process to the files of the system and these, before it asks a library for its
/// description. Without Landlock nothing is held back, as with a module that runs.
pub fn confine(readable: &[PathBuf]) {
    enter_with(readable, &[], true);
}

fn enter_with(readable: &[PathBuf], writable: &[PathBuf], counted: bool) -> Sandbox {
    // Its memory holds secrets, which have no place in a core file.
    let core = hold(Resource::Core, 0);
    let reserve = leave_reserve();
    let marks = sandbox_marker::put_on_this_thread();
    let mut sandbox = match restrict(readable, writable) {
        Ok(status) => judge(&status.landlock),
        Err(error) => Sandbox { in_words: format!("no Landlock: {error}"), holds: false },
    };
    let holds = sandbox.holds;
    let mut note = |words: String| {
        sandbox.in_words = format!("{}; {words}", sandbox.in_words);
        sandbox.holds = false;
    };
    let capabilities = privileges::give_up();
    // Its daemon, and no other user, reads what it has open.
    let looks = set_dumpable_behavior(DumpableBehavior::Dumpable);
    for (what, result) in [
        ("core files", core),
        ("the daemon's tasks and descriptors", reserve),
        ("marks of a module", marks),
        ("capabilities", capabilities),
        ("what it has open", looks),
    ] {
        if let Err(error) = result {
            note(format!("{what}: {error}"));
        }
    }
    // Root owns what the sandbox opens for reading, and so may whoever gave a path to be read.
    let owns_all_it_opens = holds && readable.is_empty() && !rustix::process::geteuid().is_root();
    let open_files = if owns_all_it_opens { OpenFiles::MayChange } else { OpenFiles::Keep };
    if let Err(error) = syscalls::refuse(counted, open_files) {
        note(format!("no filter of system calls: {error}"));
    }
    sandbox
}

/// Leaves some of the tasks and descriptors that the daemon's user may have to the daemon. Root has
/// no limit on tasks.
fn leave_reserve() -> rustix::io::Result<()> {
    let of_kernel = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let tasks =
        [getrlimit(Resource::Nproc).current, of_kernel("pid_max"), of_kernel("threads-max")];
    if let Some(most) = tasks.into_iter().flatten().min() {
        hold(Resource::Nproc, without_reserve(most))?;
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        hold(Resource::Nofile, without_reserve(most))?;
    }
    Ok(())
}

fn without_reserve(most: u64) -> u64 {
    most - RESERVE.min(most / 4)
}

fn hold(resource: Resource, most: u64) -> rustix::io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
}

fn restrict(readable: &[PathBuf], writable: &[PathBuf]) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::from_read(NEWEST);
    let all = AccessFs::from_all(NEWEST);
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM.map(Path::new), read))?
        .add_rules(path_beneath_rules(readable, read))?
        .add_rules(path_beneath_rules(DEVICES.map(Path::new), all))?
        .add_rules(path_beneath_rules(writable, all))?
        .restrict_self()
}

fn judge(status: &LandlockStatus) -> Sandbox {
    match status {
        LandlockStatus::Available { effective_abi, .. } => {
            Sandbox { in_words: in_words(*effective_abi as i32), holds: true }
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => {
            let in_words = "this kernel has no Landlock: it can reach every file of the daemon's \
                            user; add `landlock` to the kernel's `lsm=`";
            Sandbox { in_words: in_words.to_owned(), holds: false }
        }
    }
}

fn in_words(version: i32) -> String {
    match version {
        ..=5 => format!("Landlock {version}: files; not signals to other processes"),
        6..=8 => format!("Landlock {version}: files, signals; not other programs' sockets"),
        _ => format!("Landlock {version}: files, signals, other programs' sockets"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_far_it_holds() {
        assert!(in_words(3).contains("not signals"));
        assert!(in_words(7).ends_with("not other programs' sockets"));
        assert!(!in_words(9).contains("not"));
        assert!(!judge(&LandlockStatus::NotEnabled).holds);
    }

    #[test]
    fn the_daemon_keeps_a_part_of_its_own() {
        for (most, left) in [(1024, 768), (96_365, 96_109), (512, 384), (4, 3), (1, 1)] {
            assert_eq!(without_reserve(most), left);
        }
    }
}
