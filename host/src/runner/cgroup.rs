//! Control groups (version 2), where the daemon was given a part of the tree.
//!
//! With `Delegate=cpu memory` systemd marks the daemon's group as its own. No process may live in
//! a group that hands controllers on, so the daemon moves into a child of it (systemd 254 does
//! that with `DelegateSubgroup=`), and each runner gets one beside.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::process::Pid;

/// A control group of one runner. It is removed when this is dropped, which the kernel grants
/// once the process has ended.
#[derive(Debug)]
pub(super) struct Group {
    directory: PathBuf,
}

/// Makes a group for a process, where the daemon may.
pub(super) fn group(name: &str, pid: Pid) -> io::Result<Option<Group>> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let found = delegated(&proc_file("mountinfo"), &proc_file("cgroup"))?;
        let pid = std::process::id();
        found
            .prepare(pid)
            .inspect_err(|error| tracing::warn!(%error, "the control group cannot be divided"))
            .ok()
    });
    base.as_deref().map(|base| Group::new(base, name, pid.as_raw_nonzero().get())).transpose()
}

fn proc_file(name: &str) -> String {
    fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default()
}

/// A part of the tree that is the daemon's.
#[derive(Debug, PartialEq, Eq)]
struct Delegated {
    directory: PathBuf,
    /// Whether the daemon itself lives directly in it.
    occupied: bool,
}

/// Finds what was delegated: the daemon's own group, or the one above.
fn delegated(mounts: &str, groups: &str) -> Option<Delegated> {
    let own = own_directory(mounts, groups)?;
    if is_marked(&own) {
        return Some(Delegated { directory: own, occupied: true });
    }
    let above = own.parent()?.to_owned();
    is_marked(&above).then_some(Delegated { directory: above, occupied: false })
}

/// systemd marks what it delegates; being able to write is no sign, since root always is.
fn is_marked(directory: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(directory, name, &mut value[..])
            .is_ok_and(|size| &value[..size] == b"1")
    })
}

/// The directory of the group that the daemon is in.
fn own_directory(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_cgroup2 = after.split(' ').next() == Some("cgroup2");
        is_cgroup2.then(|| before.split(' ').nth(4))?
    })?;
    Some(Path::new(mount).join(group.trim_start_matches('/')))
}

impl Delegated {
    /// Hands the controllers on to the groups below; answers the directory for them.
    fn prepare(&self, daemon: u32) -> io::Result<PathBuf> {
        if self.occupied {
            let own = self.directory.join("daemon");
            fs::create_dir_all(&own)?;
            write(&own, "cgroup.procs", &daemon.to_string())?;
        }
        for controller in ["+memory", "+cpu"] {
            // What is not there is not handed on; a limit then says so.
            if let Err(error) = write(&self.directory, "cgroup.subtree_control", controller) {
                tracing::debug!(controller, %error, "a controller is not handed on");
            }
        }
        Ok(self.directory.clone())
    }
}

impl Group {
    fn new(base: &Path, name: &str, pid: i32) -> io::Result<Self> {
        let directory = base.join(format!("runner-{name}-{pid}"));
        fs::create_dir(&directory)?;
        let group = Self { directory };
        write(&group.directory, "cgroup.procs", &pid.to_string())?;
        Ok(group)
    }

    /// Whether the limit holds from now on.
    pub(super) fn limit_memory(&self, bytes: u64) -> bool {
        // Swapping would only make a leak slow; where there is no swap there is no such file.
        let _ = write(&self.directory, "memory.swap.max", "0");
        self.set("memory.max", &bytes.to_string())
    }

    /// Whether the limit holds from now on.
    pub(super) fn limit_cpu(&self, percent: u64) -> bool {
        // Microseconds in each 100 milliseconds.
        self.set("cpu.max", &format!("{} 100000", percent * 1000))
    }

    fn set(&self, file: &str, value: &str) -> bool {
        self.directory.join(file).exists() && write(&self.directory, file, value).is_ok()
    }

    /// How often the kernel ended a process of the group for want of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.directory.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What cannot be removed is empty and harms nobody.
        let _ = fs::remove_dir(&self.directory);
    }
}

fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::write(directory.join(file), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_group_of_the_daemon() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n\
                      31 22 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let check = |mounts: &str, groups: &str, expected: Option<&str>| {
            assert_eq!(own_directory(mounts, groups).as_deref(), expected.map(Path::new));
        };
        let unit = "/sys/fs/cgroup/system.slice/lodestard.service";
        check(mounts, "0::/system.slice/lodestard.service\n", Some(unit));
        check(mounts, "4:memory:/x\n0::/\n", Some("/sys/fs/cgroup"));
        check(mounts, "4:memory:/x\n", None);
        check("22 1 0:20 / /proc rw - proc proc rw\n", "0::/\n", None);
    }

    #[test]
    fn what_is_not_marked_is_not_ours() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mounts = format!("31 22 0:27 / {} rw - cgroup2 c rw\n", directory.path().display());
        fs::create_dir(directory.path().join("unit")).expect("it is new");
        assert_eq!(delegated(&mounts, "0::/unit\n"), None);
    }

    #[test]
    fn writes_what_the_kernel_reads() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let base = directory.path();
        let read = |path: &str| fs::read_to_string(base.join(path)).expect("it was written");
        let delegated = Delegated { directory: base.to_owned(), occupied: true };
        delegated.prepare(42).expect("it is writable");
        assert_eq!(read("daemon/cgroup.procs"), "42");
        let group = Group::new(base, "learning", 7).expect("it is writable");
        assert_eq!(read("runner-learning-7/cgroup.procs"), "7");
        assert!(!group.limit_memory(1 << 20), "the controller is not there");
        for file in ["memory.max", "cpu.max"] {
            fs::write(base.join("runner-learning-7").join(file), "max").expect("it is writable");
        }
        assert!(group.limit_memory(1 << 20) && group.limit_cpu(150));
        assert_eq!(read("runner-learning-7/memory.max"), "1048576");
        assert_eq!(read("runner-learning-7/cpu.max"), "150000 100000");
        assert_eq!(group.oom_kills(), 0);
        fs::write(base.join("runner-learning-7/memory.events"), "oom 3\noom_kill 2\n")
            .expect("it is writable");
        assert_eq!(group.oom_kills(), 2);
    }
}
