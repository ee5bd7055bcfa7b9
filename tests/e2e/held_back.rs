//! Attempts of a module in a process of its own against the daemon and other processes of its user.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
};

use harness::{
    Daemon, Sandbox, http, is_root, skip_even_in_ci, telemetry, tool_or_skip, wait_until,
};
use libc::{EACCES, ENOSYS, EPERM};
use rustix::process::{Pid, Resource, Rlimit, getpgid, prlimit};

/// Id of another user.
const NOBODY: u32 = 65_534;

/// The idle class of input and output, which everybody may set.
const IDLE: i32 = 3 << 13;

/// Creates a sandbox with the misbehaver in a process of its own with these keys, and a module in
/// the daemon.
fn sandbox(keys: &str) -> Sandbox {
    let config = format!(
        "modules:\n  counter:\n  misbehaver:\n    isolation: process\n    restart: {{limit: \
         1000, backoff_max_ms: 1}}\n{keys}metrics:\n  listen: 127.0.0.1:0\n"
    );
    Sandbox::new(&["misbehaver", "counter"], &config)
}

/// Runs `work` with a daemon of the current user and, if that is root, with one of another user.
pub(crate) fn as_root_and_others(test: &str, keys: &str, work: impl Fn(&Sandbox, &Daemon<'_>)) {
    let own = sandbox(keys);
    let daemon = own.start();
    work(&own, &daemon);
    assert!(daemon.stop().success());
    if !is_root() {
        return;
    }
    let Some(setpriv) = tool_or_skip("setpriv", test) else { return };
    let others = sandbox(keys);
    let copy = others.copy_program("lodestard");
    give_away(&others.path(""));
    let mut command = others.isolated(&setpriv);
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    command.args(ids).args(["--clear-groups"]).arg(copy).args(others.lodestard().get_args());
    let daemon = Daemon::spawn(&others, command);
    daemon.wait_settled();
    work(&others, &daemon);
    assert!(daemon.stop().success());
}

fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("it is a directory");
        entries.for_each(|entry| give_away(&entry.expect("it is there").path()));
    }
}

/// Returns the error number of a system call that the module makes; zero for none.
pub(crate) fn errno(sandbox: &Sandbox, from: &str, words: &str) -> i64 {
    let answer = sandbox.json(&["misbehaver", "call", "--words", words, "--from", from]);
    answer["errno"].as_i64().unwrap_or_else(|| panic!("{words}: {answer:#}"))
}

/// Returns the value after `head` in a file of `/proc` about a process.
pub(crate) fn says(pid: u64, file: &str, head: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix(head));
    line.unwrap_or_else(|| panic!("{head} in {text}")).trim().to_owned()
}

pub(crate) fn runner(sandbox: &Sandbox) -> u64 {
    let info = sandbox.json(&["modules", "info", "misbehaver"]);
    info["process"]["pid"].as_u64().unwrap_or_else(|| panic!("{info:#}"))
}

#[test]
fn calls_that_reach_other_processes_reach_only_the_module() {
    as_root_and_others("calls_that_reach_other_processes", "", |sandbox, daemon| {
        let (pid, runner) = (daemon.pid(), runner(sandbox));
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
        let group = getpgid(i32::try_from(pid).ok().and_then(Pid::from_raw));
        let group = group.expect("it lives").as_raw_nonzero();
        let others = vec![
            format!("{} {pid} 1 * 0", libc::SYS_prlimit64),
            format!("{} {pid} 9 * *", libc::SYS_prlimit64),
            format!("{} 1 0 * 0", libc::SYS_prlimit64),
            format!("{} 0 {pid} 19", libc::SYS_setpriority),
            format!("{} 1 {group} 19", libc::SYS_setpriority),
            format!("{} 1 0 19", libc::SYS_setpriority),
            format!("{} 2 0 19", libc::SYS_setpriority),
            format!("{} 1 {pid} 24583", libc::SYS_ioprio_set),
            format!("{} 2 {group} 24583", libc::SYS_ioprio_set),
            format!("{} 3 0 24583", libc::SYS_ioprio_set),
            format!("{} {pid} 5 *", libc::SYS_sched_setscheduler),
            format!("{} {pid} *", libc::SYS_sched_setparam),
            format!("{} {pid} * 0", libc::SYS_sched_setattr),
            format!("{} {pid} 8 *", libc::SYS_sched_setaffinity),
            format!("{} {pid} 0 0 0 0 0", libc::SYS_move_pages),
            format!("{} {pid} 1 * *", libc::SYS_migrate_pages),
            format!("{} 16 {pid} 0 0", libc::SYS_ptrace),
            format!("{} {pid} * 0 * 0 0", libc::SYS_process_vm_readv),
            format!("{} {pid} * 0 * 0 0", libc::SYS_process_vm_writev),
            format!("{} 0 0 0", libc::SYS_pidfd_getfd),
            format!("{} {pid} {pid} 0 0 0", libc::SYS_kcmp),
            format!("{} * {pid} -1 -1 0", libc::SYS_perf_event_open),
            format!("{} 0 * 0", libc::SYS_bpf),
            format!("{} 0", libc::SYS_userfaultfd),
            format!("{} 0 -4 0", libc::SYS_keyctl),
            format!("{} @user @name * 1 -4", libc::SYS_add_key),
            format!("{} {}", libc::SYS_unshare, libc::CLONE_NEWUSER),
            format!("{} {}", libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD),
            format!("{} {}", libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD),
            format!("{} {} 0", libc::SYS_prctl, libc::PR_SET_DUMPABLE),
            format!("{} 0 4096 896", libc::SYS_shmget),
            format!("{} 0 896", libc::SYS_msgget),
            format!("{} @name 66 384 0", libc::SYS_mq_open),
            format!("{}", libc::SYS_setsid),
            format!("{} 0 {group}", libc::SYS_setpgid),
            format!("{} 0 {} *", libc::SYS_ioctl, libc::TIOCSTI),
        ];
        for words in others {
            for from in ["itself", "child"] {
                assert_eq!(errno(sandbox, from, &words), i64::from(EPERM), "{from}: {words}");
            }
        }
        let after = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
        assert_eq!(after, limits);
        // Not there, so that programs go another way.
        for words in [
            format!("{} 0 0", libc::SYS_clone3),
            format!("{} 8 *", libc::SYS_io_uring_setup),
            format!("{} 0", libc::SYS_inotify_init1),
            "470".to_owned(),
            // By the numbers of the x32 interface.
            format!("{} {pid} 1 * 0", 0x4000_0000 + libc::SYS_prlimit64),
            format!("{} @modules.yaml 511", 0x4000_0000 + libc::SYS_fchmodat),
        ] {
            assert_eq!(errno(sandbox, "itself", &words), i64::from(ENOSYS), "{words}");
        }
        // What a process does to itself.
        for words in [
            format!("{} 0 7 0 *", libc::SYS_prlimit64),
            format!("{} {runner} 7 0 *", libc::SYS_prlimit64),
            // The least that there is, which whoever began with any other may still ask for.
            format!("{} 0 0 19", libc::SYS_setpriority),
            format!("{} 1 0 {IDLE}", libc::SYS_ioprio_set),
            format!("{} 0 128 *", libc::SYS_sched_getaffinity),
            format!("{} 0", libc::SYS_getpgid),
        ] {
            assert_eq!(errno(sandbox, "child", &words), 0, "{words}");
        }
    });
}

#[test]
fn what_files_are_to_others_is_not_the_modules_to_say() {
    as_root_and_others("what_files_are_to_others", "", |sandbox, _| {
        let files = [sandbox.path("modules.yaml"), sandbox.state(), sandbox.state().join("data")];
        for file in files {
            let text = file.display().to_string();
            let before = fs::metadata(&file).expect("it is there");
            let here = libc::AT_FDCWD;
            let mut calls = vec![
                format!("{} {here} @{text} 511", libc::SYS_fchmodat),
                format!("452 {here} @{text} 511 0"),
                format!("{} {here} @{text} 1 1 0", libc::SYS_fchownat),
                format!("{} {here} @{text} * 0", libc::SYS_utimensat),
                format!("{} @{text} @user.x * 1 0", libc::SYS_setxattr),
                format!("{} @{text} @user.x * 1 0", libc::SYS_lsetxattr),
                format!("{} @{text} @user.x", libc::SYS_removexattr),
                format!("463 {here} @{text} 0 @user.x * 16"),
                format!("469 {here} @{text} * 24 0"),
            ];
            #[cfg(target_arch = "x86_64")]
            calls.extend([
                format!("{} @{text} 511", libc::SYS_chmod),
                format!("{} @{text} 1 1", libc::SYS_chown),
                format!("{} @{text} 1 1", libc::SYS_lchown),
                format!("{} @{text} *", libc::SYS_utime),
                format!("{} @{text} *", libc::SYS_utimes),
                format!("{} {here} @{text} *", libc::SYS_futimesat),
            ]);
            for words in calls {
                for from in ["itself", "child"] {
                    let errno = errno(sandbox, from, &words);
                    assert!([EPERM, EACCES].map(i64::from).contains(&errno), "{words}: {errno}");
                }
            }
            let after = fs::metadata(&file).expect("it is there");
            let told = |it: &fs::Metadata| (it.permissions().mode(), it.uid(), it.mtime());
            assert_eq!(told(&after), told(&before), "{text}");
        }
    });
}

#[test]
fn a_module_copies_files_of_its_own_and_opens_them_to_nobody() {
    as_root_and_others("a_module_copies_files", "", |sandbox, daemon| {
        let data = sandbox.state().join("data/misbehaver");
        let script = "umask 077; echo well > from; exec 3< from; chmod 600 from || echo kept";
        let told = sandbox.json(&["misbehaver", "run", "--script", script]);
        assert_eq!(told["printed"].as_str().map(str::trim), Some("kept"), "by its name: {told:#}");
        let mine = fs::metadata(data.join("from")).expect("it is there");
        let of_root = fs::metadata(format!("/proc/{}", daemon.pid())).expect("it lives").uid() == 0;
        let copied = sandbox.lodestar(&["misbehaver", "copy", "--from", "from", "--to", "to"]);
        assert_eq!(copied.code == 0, !of_root, "{copied:?}");
        let open = format!("{} {} @from 0", libc::SYS_openat, libc::AT_FDCWD);
        let open = sandbox.json(&["misbehaver", "call", "--words", &open, "--from", "itself"]);
        let file = open["value"].as_i64().expect("its own files it opens");
        for mode in [0o666, 0o4700, 0o2700] {
            let words = format!("{} {file} {mode}", libc::SYS_fchmod);
            assert_eq!(errno(sandbox, "itself", &words), i64::from(EPERM), "{mode:o}");
        }
        let after = fs::metadata(data.join("from")).expect("it is there");
        assert_eq!(after.permissions().mode(), mine.permissions().mode());
    });
}

/// Other processes of the same user can set such a limit too.
#[test]
fn the_daemon_survives_a_limit_on_the_size_of_its_files() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    let send = |id: &str| {
        let body = telemetry::claude_code_many("s", &[id]).to_string();
        let address = daemon.address("ingest", "http");
        let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        answer.expect("ingest answers").status
    };
    let before = prlimit(pid, Resource::Fsize, Rlimit { current: Some(1), maximum: None });
    let before = before.expect("it is ours");
    assert_ne!(send("refused"), 200, "it cannot be written");
    assert!(daemon.lives(), "{}", daemon.log());
    prlimit(pid, Resource::Fsize, before).expect("it is ours");
    wait_until("it is taken again", || (send("taken") == 200).then_some(()));
    assert!(daemon.stop().success());
}

/// Programs use alternatives to calls that are refused.
#[test]
fn programs_that_a_module_starts_work() {
    let python = "import sqlite3, subprocess, tempfile, threading; \
                  thread = threading.Thread(target=lambda: None); thread.start(); thread.join(); \
                  sqlite3.connect(tempfile.mktemp()).execute('create table t (x)'); \
                  print(subprocess.check_output(['echo', 'well']).decode().strip())";
    let node = "const { Worker } = require('worker_threads'); const fs = require('fs'); \
                fs.writeFileSync('note', 'well'); \
                const work = 'require(\\'child_process\\').execSync(\\'cat note\\')'; \
                new Worker(work, { eval: true }) \
                .on('exit', () => console.log(fs.readFileSync('note', 'utf8')))";
    as_root_and_others("programs_that_a_module_starts", "", |sandbox, _| {
        for (program, code) in [("sh", "echo well | cat"), ("python3", python), ("node", node)] {
            // What lies elsewhere the sandbox does not open.
            if !Path::new("/usr/bin").join(program).is_file() {
                let test = "held_back::programs_that_a_module_starts_work";
                skip_even_in_ci(test, &format!("there is no /usr/bin/{program}"));
                continue;
            }
            let switch = if program == "node" { "-e" } else { "-c" };
            let script = format!("/usr/bin/{program} {switch} \"{code}\"");
            let told = sandbox.json(&["misbehaver", "run", "--script", &script]);
            assert_eq!(
                told["printed"].as_str().map(str::trim),
                Some("well"),
                "{program}: {told:#}"
            );
        }
    });
}

#[test]
fn it_has_no_capabilities() {
    as_root_and_others("it_has_no_capabilities", "", |sandbox, daemon| {
        let runner = runner(sandbox);
        let none = "0000000000000000";
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(says(runner, "status", &format!("{set}:")), none, "{set}");
        }
        // Whoever has none at the beginning cannot give up what he may get, and gets it never.
        let may_give_up = says(u64::from(daemon.pid()), "status", "CapEff:") != none;
        assert!(!may_give_up || says(runner, "status", "CapBnd:") == none);
        assert_eq!(says(runner, "status", "NoNewPrivs:"), "1");
        assert_eq!(says(runner, "status", "Seccomp:"), "2");
        let info = sandbox.json(&["modules", "info", "misbehaver"]);
        let words = info["process"]["sandbox"].to_string();
        assert!(!words.contains("capabilities") && !words.contains("filter"), "{words}");
        assert!(!daemon.log().contains("the sandbox is not whole"), "{}", daemon.log());
    });
}
