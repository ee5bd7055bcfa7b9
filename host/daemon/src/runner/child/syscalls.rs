//! Filter of the system calls that a module's process must not make: those that reach other
//! processes, what processes of one user share, or attributes of files that the sandbox does not
//! open.
//!
//! Landlock decides who opens a file or sends a signal; nothing but a filter decides on these
//! calls. A filter sees numbers, not what a pointer leads to, so that whole families are refused.
//! Each refusal has its reason in `adr/0053`. What needs a capability is refused already: none is
//! left.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule, TargetArch, apply_filter,
    sock_filter,
};

/// The newest call that was reviewed, `file_setattr` of Linux 6.17. Newer ones, and those of the
/// x32 interface, whose numbers are greater, do not exist for a module.
const NEWEST: u32 = 469;

/// Calls that the C library's headers do not name yet. Since Linux 5.2 numbers are the same on
/// every machine.
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;
const FILE_SETATTR: c_long = 469;

/// Calls that change a file's permissions or times, which neither Landlock nor a descriptor opened
/// for reading prevents.
const FILE_ATTRIBUTES: &[c_long] = &[
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    REMOVEXATTRAT,
    FILE_SETATTR,
];

/// Older variants of these calls, which newer machines do not have.
#[cfg(target_arch = "x86_64")]
const OLDER_FILE_ATTRIBUTES: &[c_long] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_FILE_ATTRIBUTES: &[c_long] = &[];

/// Calls that look into other processes or act on them, or offer more of the kernel than a module
/// needs.
const OTHER_PROCESSES: &[c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_setns,
    // Every process that a module starts stays in its process group, by which it is counted and
    // ended.
    libc::SYS_setsid,
    libc::SYS_setpgid,
];

/// Calls on what all processes of a user share: keys, queues, semaphores, and memory that outlives
/// its creator.
const SHARED_BY_A_USER: &[c_long] = &[
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

/// Calls whose first argument is a process, where zero is the caller. A filter cannot know the
/// numbers of threads that are to come, so that theirs are refused as well.
const FIRST_IS_A_PROCESS: &[c_long] = &[
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setaffinity,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
];

/// Calls that seem not to exist, so that programs go another way: by `clone`, whose flags a filter
/// sees; without a ring, whose calls no filter sees; and by polling instead of one of the few
/// watchers that a user has.
const ABSENT: &[c_long] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_inotify_init1, libc::SYS_fanotify_init];

#[cfg(target_arch = "x86_64")]
const OLDER_ABSENT: &[c_long] = &[libc::SYS_inotify_init];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_ABSENT: &[c_long] = &[];

/// Calls that create memory that belongs to a descriptor and to no process: nobody counts it.
const MEMORY_FILES: &[c_long] = &[libc::SYS_memfd_create, libc::SYS_memfd_secret];

/// Flags for new namespaces of any kind: in a user namespace a process has every capability.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Flag for a child that is the daemon's, which does not know of it and never waits for it.
const CHILD_OF_ANOTHER: u64 = libc::CLONE_PARENT.unsigned_abs() as u64;

/// Flag for a new time namespace, for `unshare` only: in `clone` these bits are a signal.
const NEW_TIME: u64 = 0x80;

/// Requests of `ioctl` that change attributes of a file (flags, project, verity, encryption), or
/// type into a terminal.
const REQUESTS: [u64; 8] = [
    0x4008_6602,
    0x4004_6602,
    0x401c_5820,
    0x4080_6685,
    0x800c_6613,
    0x4020_6616,
    libc::TIOCSTI,
    libc::TIOCLINUX,
];

/// Option of `prctl` with which a process lets others look into it or not.
const HIDE: u64 = libc::PR_SET_DUMPABLE.unsigned_abs() as u64;

/// Value of `ioprio_set` that selects one process.
const IOPRIO_WHO_PROCESS: u64 = 1;

/// Reason why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoFilter {
    /// The filter is not written for this kind of machine.
    #[error("it cannot be made: {0}")]
    Made(#[from] BackendError),
    /// The kernel does not take the filter.
    #[error("{0}")]
    Taken(#[from] seccompiler::Error),
}

/// Permission of a process to change the mode of a file that it has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenFiles {
    /// No change at all.
    Keep,
    /// Any change but to let others write the file or run it as its owner: all that the process can
    /// open of its user's files is its own, and programs that copy files insist on their modes.
    MayChange,
}

/// Mode bits that nobody may set: writable by others, set-user-ID, set-group-ID.
const FORBIDDEN_MODES: [u64; 3] = [0o2, 0o4000, 0o2000];

/// Refuses those calls to this thread and all that it starts, for good; there is no other thread
/// yet. With `counted`, memory in files that belong to no process is refused too.
pub(super) fn refuse(counted: bool, open_files: OpenFiles) -> Result<(), NoFilter> {
    let mut absent: Vec<c_long> = [ABSENT, OLDER_ABSENT].concat();
    if counted {
        absent.extend(MEMORY_FILES);
    }
    let absent = absent.into_iter().map(|call| (call, Vec::new())).collect();
    let absent = program(absent, libc::ENOSYS)?;
    let refused = program(refused(open_files)?, libc::EPERM)?;
    // The first program runs first, and the strictest answer counts.
    apply_filter(&refused)?;
    apply_filter(&newest_first(absent))?;
    Ok(())
}

fn program(rules: BTreeMap<c_long, Vec<Rule>>, error: i32) -> Result<BpfProgram, BackendError> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    let answer = SeccompAction::Errno(error.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, machine)?.try_into()
}

/// Prepends a check to a program that refuses calls newer than all that were reviewed.
fn newest_first(program: BpfProgram) -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    let mut first = vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_GREATER, jt: 0, jf: 1, k: NEWEST },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: absent },
    ];
    first.extend(program);
    first
}

/// Returns the refused calls with their conditions; no condition means always.
fn refused(open_files: OpenFiles) -> Result<BTreeMap<c_long, Vec<Rule>>, BackendError> {
    let always = [FILE_ATTRIBUTES, OLDER_FILE_ATTRIBUTES, OTHER_PROCESSES, SHARED_BY_A_USER];
    let mut rules: BTreeMap<c_long, Vec<Rule>> =
        always.concat().into_iter().map(|call| (call, Vec::new())).collect();
    let modes = match open_files {
        OpenFiles::Keep => Vec::new(),
        OpenFiles::MayChange => {
            FORBIDDEN_MODES.map(|bit| has(1, bit)).into_iter().collect::<Result<_, _>>()?
        }
    };
    rules.insert(libc::SYS_fchmod, modes);
    for call in FIRST_IS_A_PROCESS {
        rules.insert(*call, vec![Rule::new(vec![not(0, 0)?])?]);
    }
    // Reading another's limits is harmless.
    let changes = Condition::new(2, Length::Qword, Is::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![Rule::new(vec![not(0, 0)?, changes])?]);
    let priority = |process| Ok(vec![Rule::new(vec![not(0, process)?])?, only_itself()?]);
    rules.insert(libc::SYS_setpriority, priority(u64::from(libc::PRIO_PROCESS))?);
    rules.insert(libc::SYS_ioprio_set, priority(IOPRIO_WHO_PROCESS)?);
    let namespaces = NAMESPACES.map(|flag| u64::from(flag.unsigned_abs()));
    let any = |flags: &[u64]| {
        flags.iter().map(|flag| has(0, *flag)).collect::<Result<Vec<_>, BackendError>>()
    };
    rules.insert(libc::SYS_clone, any(&[&namespaces[..], &[CHILD_OF_ANOTHER]].concat())?);
    rules.insert(libc::SYS_unshare, any(&[&namespaces[..], &[NEW_TIME]].concat())?);
    let requests = REQUESTS.into_iter().map(|request| {
        // The kernel reads 32 bits.
        Rule::new(vec![Condition::new(1, Length::Dword, Is::Eq, request)?])
    });
    // The daemon reads what a module's processes have open, to count it.
    let hides = Condition::new(0, Length::Dword, Is::Eq, HIDE)?;
    rules.insert(libc::SYS_prctl, vec![Rule::new(vec![hides])?]);
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    Ok(rules)
}

/// Returns the rule that the second argument is anybody but the caller.
fn only_itself() -> Result<Rule, BackendError> {
    Rule::new(vec![not(1, 0)?])
}

fn not(argument: u8, value: u64) -> Result<Condition, BackendError> {
    Condition::new(argument, Length::Dword, Is::Ne, value)
}

fn has(argument: u8, flag: u64) -> Result<Rule, BackendError> {
    Rule::new(vec![Condition::new(argument, Length::Dword, Is::MaskedEq(flag), flag)?])
}
