//! Control groups (version 2), where a part of the tree is delegated to the daemon.
//!
//! With `Delegate=cpu memory pids` systemd marks the daemon's group as its own. No process may live
//! in a group that hands controllers on, so the daemon moves into a child of it before it starts
//! any other process (systemd 254 does that with `DelegateSubgroup=`), and each runner gets a group
//! beside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustix::process::Pid;

/// The most passes over the group to move processes that were started in it meanwhile.
const MOVES: usize = 10;

/// Remedy that makes limits hold.
const DELEGATE: &str = "`Delegate=cpu memory pids` and `ProtectControlGroups=no` in a drop-in of \
                        lodestard.service give it one";

/// The controller that counts tasks.
const TASKS: &str = "pids";

/// Reason why no control group holds a limit, with a remedy where there is one.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum GroupError {
    /// No part of the tree is delegated to the daemon.
    #[error("no control group is delegated to the daemon; {}", DELEGATE)]
    NotDelegated,
    /// The delegated part is mounted read-only.
    #[error(
        "the daemon's control group cannot be divided: it is mounted read-only; \
         `ProtectControlGroups=no` in a drop-in of lodestard.service makes it writable"
    )]
    ReadOnly,
    /// The delegated part cannot be divided.
    #[error("the daemon's control group cannot be divided: {0}")]
    Undivided(#[source] Arc<io::Error>),
    /// No group can be made for a process.
    #[error("no control group can be made for it: {0}")]
    NotMade(#[source] Arc<io::Error>),
    /// The daemon's group does not hand a controller on.
    #[error("the controller `{controller}` is not handed on: {source}")]
    NotHandedOn {
        /// Name of the controller.
        controller: &'static str,
        /// Error of the kernel.
        source: Arc<io::Error>,
    },
    /// The daemon's group has no such controller.
    #[error("the controller `{controller}` is not delegated; {}", DELEGATE)]
    NoController {
        /// Name of the controller.
        controller: &'static str,
    },
    /// The kernel does not take a value.
    #[error("{file}: {source}")]
    Refused {
        /// Name of the group's file.
        file: &'static str,
        /// Error of the kernel.
        source: Arc<io::Error>,
    },
}

/// A controller that is not handed on, with the error.
type Missing = (&'static str, Arc<io::Error>);

/// A control group of one runner. Dropping it removes the group, which the kernel allows once the
/// process has ended.
#[derive(Debug)]
pub(super) struct Group {
    directory: PathBuf,
    missing: &'static [Missing],
}

/// Cause for which the kernel killed processes of a group for lack of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryKill {
    /// The group's own limit.
    OwnLimit,
    /// A lack of memory of the service or the machine.
    Others,
}

/// Divides the daemon's group, where systemd delegated it. To be called before there is any other
/// process.
pub fn divide_control_group() {
    // The reason why there is none is reported where a limit is asked for.
    let _ = tree();
}

/// Makes a group for a process.
pub(super) fn group(name: &str, pid: Pid) -> Result<Group, GroupError> {
    let tree = tree().as_ref().map_err(GroupError::clone)?;
    Group::new(tree, name, pid.as_raw_nonzero().get())
        .map_err(|error| GroupError::NotMade(Arc::new(error)))
}

/// Returns the group that the daemon divides.
fn tree() -> &'static Result<Tree, GroupError> {
    static TREE: OnceLock<Result<Tree, GroupError>> = OnceLock::new();
    TREE.get_or_init(|| {
        let found = delegated(&proc_file("mountinfo"), &proc_file("cgroup"));
        let found = found.ok_or(GroupError::NotDelegated)?;
        let divided = found.divide(std::process::id()).map_err(refusal);
        match &divided {
            Err(error) => tracing::warn!(%error, "limits of modules cannot be made to hold"),
            Ok(Tree { missing, .. }) => {
                // The daemon counts tasks itself then.
                for (controller, error) in missing.iter().filter(|(name, _)| *name != TASKS) {
                    tracing::warn!(controller, %error, "a controller is not handed on to modules");
                }
            }
        }
        divided
    })
}

fn refusal(error: io::Error) -> GroupError {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => GroupError::ReadOnly,
        _ => GroupError::Undivided(Arc::new(error)),
    }
}

fn proc_file(name: &str) -> String {
    fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default()
}

/// A group that the daemon divides among its runners.
#[derive(Debug)]
struct Tree {
    directory: PathBuf,
    missing: Vec<Missing>,
}

/// A part of the tree that is delegated to the daemon.
#[derive(Debug, PartialEq, Eq)]
struct Delegated {
    directory: PathBuf,
    /// `true` when the daemon itself lives directly in it.
    occupied: bool,
}

/// Finds the delegated group: the daemon's own, or its parent.
fn delegated(mounts: &str, groups: &str) -> Option<Delegated> {
    let own = own_directory(mounts, groups)?;
    if is_marked(&own) {
        return Some(Delegated { directory: own, occupied: true });
    }
    let above = own.parent()?.to_owned();
    is_marked(&above).then_some(Delegated { directory: above, occupied: false })
}

/// Returns whether systemd marked a group as delegated. Being able to write is no sign, since root
/// always is.
fn is_marked(directory: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(directory, name, &mut value[..])
            .is_ok_and(|size| &value[..size] == b"1")
    })
}

/// Returns the directory of the group that the daemon is in.
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
    /// Hands the controllers on to the groups below.
    fn divide(self, daemon: u32) -> io::Result<Tree> {
        let Self { directory, occupied } = self;
        if occupied {
            let own = directory.join("daemon");
            fs::create_dir_all(&own)?;
            write(&own, "cgroup.procs", &daemon.to_string())?;
            move_all(&directory, &own)?;
        }
        let mut missing = Vec::new();
        for controller in [TASKS, "memory", "cpu"] {
            let handed = write(&directory, "cgroup.subtree_control", &format!("+{controller}"));
            if let Err(error) = handed {
                missing.push((controller, Arc::new(error)));
            }
        }
        Ok(Tree { directory, missing })
    }
}

/// Moves all processes to another group: the kernel hands nothing on from a group in which a
/// process lives, no matter whose.
fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    for _ in 0..MOVES {
        let processes = fs::read_to_string(from.join("cgroup.procs"))?;
        if processes.is_empty() {
            break;
        }
        for process in processes.lines() {
            match write(to, "cgroup.procs", process) {
                // It has ended.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                moved => moved?,
            }
        }
    }
    Ok(())
}

impl Group {
    fn new(tree: &'static Tree, name: &str, pid: i32) -> io::Result<Self> {
        let directory = tree.directory.join(format!("runner-{name}-{pid}"));
        // A group left by an earlier process of this number would count for this one.
        let _ = fs::remove_dir(&directory);
        fs::create_dir(&directory)?;
        let group = Self { directory, missing: &tree.missing };
        write(&group.directory, "cgroup.procs", &pid.to_string())?;
        Ok(group)
    }

    /// Sets the memory limit, in bytes.
    pub(super) fn limit_memory(&self, bytes: u64) -> Result<(), GroupError> {
        // Swapping would only make a leak slow; where there is no swap there is no such file.
        let _ = write(&self.directory, "memory.swap.max", "0");
        self.set("memory", "memory.max", &bytes.to_string())
    }

    /// Sets the limit on processor time, in percent of one processor.
    pub(super) fn limit_cpu(&self, percent: u64) -> Result<(), GroupError> {
        // Microseconds in each 100 milliseconds.
        self.set("cpu", "cpu.max", &format!("{} 100000", percent * 1000))
    }

    /// Sets the limit on the number of tasks.
    pub(super) fn limit_tasks(&self, most: u64) -> Result<(), GroupError> {
        self.set(TASKS, "pids.max", &most.to_string())
    }

    fn set(
        &self,
        controller: &'static str,
        file: &'static str,
        value: &str,
    ) -> Result<(), GroupError> {
        if let Some((_, error)) = self.missing.iter().find(|(name, _)| *name == controller) {
            return Err(GroupError::NotHandedOn { controller, source: Arc::clone(error) });
        }
        if !self.directory.join(file).exists() {
            return Err(GroupError::NoController { controller });
        }
        write(&self.directory, file, value)
            .map_err(|error| GroupError::Refused { file, source: Arc::new(error) })
    }

    /// Returns why the kernel killed a process of the group for lack of memory, if it did.
    pub(super) fn memory_kill(&self) -> Option<MemoryKill> {
        let events = fs::read_to_string(self.directory.join("memory.events")).unwrap_or_default();
        let happened = |event: &str| {
            let count = events.lines().find_map(|line| line.strip_prefix(event)?.strip_prefix(' '));
            count.is_some_and(|count| count.trim() != "0")
        };
        let by = if happened("oom") { MemoryKill::OwnLimit } else { MemoryKill::Others };
        happened("oom_kill").then_some(by)
    }

    /// Kills every process of the group, including those that left the process's own group.
    pub(super) fn end(&self) {
        // Linux 5.14; before it they end with their process group, or not.
        let _ = write(&self.directory, "cgroup.kill", "1");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
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
    fn a_group_that_is_mounted_read_only_names_the_remedy() {
        let reason = refusal(io::Error::from_raw_os_error(libc::EROFS)).to_string();
        assert!(reason.contains("ProtectControlGroups=no"), "{reason}");
        let other = refusal(io::Error::from_raw_os_error(libc::EBUSY));
        let source = std::error::Error::source(&other).map(ToString::to_string);
        assert!(source.is_some_and(|it| other.to_string().ends_with(&it)), "{other}");
    }

    /// Writes files that the kernel would have made, with their content.
    fn fill(directory: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(directory.join(name), text).expect("it is writable");
        }
    }

    #[test]
    fn every_process_leaves_the_group_before_it_is_divided() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let base = directory.path();
        fill(base, &[("cgroup.procs", "42\n43\n")]);
        let delegated = Delegated { directory: base.to_owned(), occupied: true };
        let tree = delegated.divide(42).expect("it is writable");
        assert!(tree.missing.is_empty(), "{:?}", tree.missing);
        let read = |path: &str| fs::read_to_string(base.join(path)).expect("it was written");
        assert_eq!(read("daemon/cgroup.procs"), "43", "the last one that was moved");
        assert_eq!(read("cgroup.subtree_control"), "+cpu", "the last one");
    }

    #[test]
    fn a_controller_that_is_refused_is_named_by_each_limit() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let base = directory.path();
        fs::create_dir(base.join("cgroup.subtree_control")).expect("it is new");
        let delegated = Delegated { directory: base.to_owned(), occupied: false };
        let tree = Box::leak(Box::new(delegated.divide(42).expect("it is no error")));
        let group = Group::new(tree, "learning", 7).expect("it is writable");
        for (limit, name) in [(group.limit_memory(1), "memory"), (group.limit_cpu(1), "cpu")] {
            let reason = limit.expect_err("it is not handed on").to_string();
            assert!(reason.contains(&format!("`{name}` is not handed on: ")), "{reason}");
        }
    }

    #[test]
    fn writes_what_the_kernel_reads() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let base = directory.path();
        let delegated = Delegated { directory: base.to_owned(), occupied: false };
        let tree = Box::leak(Box::new(delegated.divide(42).expect("it is writable")));
        let group = Group::new(tree, "learning", 7).expect("it is writable");
        let own = base.join("runner-learning-7");
        let read = |file: &str| fs::read_to_string(own.join(file)).expect("it was written");
        assert_eq!(read("cgroup.procs"), "7");
        let reason = group.limit_memory(1 << 20).expect_err("the controller is not there");
        let reason = reason.to_string();
        assert!(reason.contains("Delegate=cpu memory pids"), "{reason}");
        assert!(group.limit_tasks(9).is_err());
        fill(&own, &[("memory.max", "max"), ("cpu.max", "max"), ("pids.max", "max")]);
        group.limit_tasks(9).expect("it is writable");
        assert_eq!(read("pids.max"), "9");
        group.limit_memory(1 << 20).expect("it is writable");
        group.limit_cpu(150).expect("it is writable");
        assert_eq!(
            (read("memory.max"), read("cpu.max")),
            ("1048576".into(), "150000 100000".into())
        );
        let check = |events: &str, expected| {
            fill(&own, &[("memory.events", events)]);
            assert_eq!(group.memory_kill(), expected, "{events}");
        };
        check("oom 0\noom_kill 0\noom_group_kill 0\n", None);
        check("oom 3\noom_kill 2\n", Some(MemoryKill::OwnLimit));
        check("oom 0\noom_kill 1\n", Some(MemoryKill::Others));
        drop(group);
        assert_eq!(read("cgroup.kill"), "1");
    }
}
