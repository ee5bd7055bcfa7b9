//! The checks of the doctor, each a function of what the daemon or the system reports.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use lodestar_api::{Lag, LedgerLoss, Module, ModuleInfo, Status, Warning, once_mended};
use lodestar_platform::listeners::says_taken;
use rustix::fs::{Access, StatVfsMountFlags};

use super::Finding;
use crate::{commands::status::note, human};

/// Free space in bytes below which the databases may soon fail to grow.
const LOW_SPACE_BYTES: u64 = 1024 * 1024 * 1024;

/// Free space in bytes below which the databases fail to grow.
const NO_SPACE_BYTES: u64 = 64 * 1024 * 1024;

pub(super) fn daemon(status: &Status) -> Finding {
    let (daemon, own) = (status.version.as_str(), env!("CARGO_PKG_VERSION"));
    if daemon == own {
        return Finding::ok("daemon", format!("lodestard {daemon} answers, pid {}", status.pid));
    }
    Finding::warning(
        "daemon",
        format!("lodestard is version {daemon} and this lodestar is version {own}"),
        "restart lodestard, or install both from one release",
    )
}

/// Checks whether the daemon runs as root; `None` where it does not, or cannot be looked at.
pub(super) fn root(status: &Status) -> Option<Finding> {
    let owner = fs::metadata(format!("/proc/{}", status.pid)).ok()?.uid();
    (owner == 0).then(|| {
        Finding::warning(
            "user",
            "lodestard runs as root: a module in it has every right on this machine, and one of \
             its own process, without capabilities, may use what root owns where its sandbox opens \
             it; no limit of the kernel holds root's tasks",
            "run it as a user of its own, as the systemd unit does",
        )
    })
}

pub(super) fn socket(path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    let shown = format!("{} has mode {mode:04o}", path.display());
    Some(if mode & 0o007 == 0 {
        Finding::ok("socket", shown)
    } else {
        Finding::problem(
            "socket",
            format!("{shown}: everybody on this machine may steer the daemon"),
            "restart lodestard, which sets it to 0600 or, for the service, 0660",
        )
    })
}

pub(super) fn state_dir(status: &Status) -> Vec<Finding> {
    let path = Path::new(&status.state_dir);
    if status.state_dir.is_empty() {
        return Vec::new();
    }
    let name = "state directory";
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            return vec![Finding::warning(
                name,
                format!("cannot look at {}: {error}", path.display()),
                "run this as the daemon's user",
            )];
        }
    };
    // Only the owner's own view says whether the daemon can write.
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    if is_own && rustix::fs::access(path, Access::WRITE_OK).is_err() {
        return vec![Finding::problem(
            name,
            format!("{} cannot be written", path.display()),
            format!("run `chmod u+rwx {}`, or mount it for writing", path.display()),
        )];
    }
    let mut findings = vec![space(path)];
    if metadata.mode() & 0o007 != 0 {
        findings.push(Finding::warning(
            name,
            format!("{} is open to everybody on this machine", path.display()),
            format!("run `chmod o-rwx {}`", path.display()),
        ));
    }
    findings
}

fn space(path: &Path) -> Finding {
    let name = "state directory";
    let shown = path.display();
    let Ok(system) = rustix::fs::statvfs(path) else {
        let remedy = "look at it with `df`";
        return Finding::warning(name, format!("the file system of {shown} says nothing"), remedy);
    };
    if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let message = format!("the file system of {shown} is mounted read-only");
        return Finding::problem(name, message, "mount it for writing");
    }
    space_verdict(&shown.to_string(), system.f_bavail.saturating_mul(system.f_frsize))
}

fn space_verdict(path: &str, free: u64) -> Finding {
    let message = format!("{path} has {} free", human::bytes(free));
    let remedy = "free space, or lower `retention_days` and `bus.ledger.max_bytes`";
    match free {
        ..NO_SPACE_BYTES => Finding::problem("state directory", message, remedy),
        NO_SPACE_BYTES..LOW_SPACE_BYTES => Finding::warning("state directory", message, remedy),
        _ => Finding::ok("state directory", message),
    }
}

/// Returns the warnings that the daemon itself reports.
pub(super) fn warnings(status: &Status) -> impl Iterator<Item = Finding> {
    let finding = |it: &Warning| Finding::warning(&it.name, it.message.clone(), it.remedy.clone());
    status.warnings.iter().map(finding)
}

pub(super) fn ledger(status: &Status) -> Finding {
    match &status.ledger.trouble {
        None => Finding::ok("event ledger", "it takes events"),
        Some(trouble) => Finding::problem(
            "event ledger",
            format!("no event is accepted: {trouble}"),
            match &status.ledger.remedy {
                Some(remedy) => format!("{remedy}; the next event that is accepted clears this"),
                None => "see the log of lodestard".to_owned(),
            },
        ),
    }
}

/// Number of losses of the event ledger that are shown one by one.
const SHOWN_LOSSES: usize = 20;

/// Reports the losses of the event ledger. They stay for a week, since nobody may have looked
/// before.
pub(super) fn losses(losses: &[LedgerLoss]) -> Vec<Finding> {
    let name = "event ledger";
    let mut findings: Vec<Finding> = losses
        .iter()
        .take(SHOWN_LOSSES)
        .map(|loss| {
            let message = format!("{}; found {}, told for seven days", loss.what, loss.found);
            Finding::warning(name, message, loss.remedy.clone())
        })
        .collect();
    let more = losses.len().saturating_sub(SHOWN_LOSSES);
    if more > 0 {
        let remedy = "see `losses` in `lodestar status --json`";
        findings.push(Finding::warning(name, format!("it has {more} more losses"), remedy));
    }
    findings
}

/// Checks whether modules with processes of their own are confined to their files.
pub(super) fn sandbox(status: &Status, works: bool) -> Option<Finding> {
    let isolated = status.modules.iter().filter(|module| module.isolation == "process").count();
    if isolated == 0 {
        return None;
    }
    let name = "sandbox";
    Some(if works {
        let whom = match isolated {
            1 => "1 module to its".to_owned(),
            _ => format!("{isolated} modules to their"),
        };
        Finding::ok(name, format!("Landlock holds {whom} own files"))
    } else {
        Finding::warning(
            name,
            "this kernel has no Landlock: a module of its own process reaches every file of the \
             daemon's user",
            "add `landlock` to `lsm=` on the kernel's command line",
        )
    })
}

/// Checks whether a control group holds each limit that a module's section asks for.
pub(super) fn limits(info: &ModuleInfo) -> Option<Finding> {
    let process = info.process.as_ref()?;
    let name = format!("limits of {}", info.module.name);
    if !process.limits_without_group.is_empty() {
        let remedy = "after a change of the unit: `systemctl daemon-reload` and `systemctl restart \
                      lodestard`; or remove the limit";
        return Some(Finding::warning(&name, process.limits_without_group.join("\n"), remedy));
    }
    let held: Vec<&str> = [&process.memory_limit, &process.cpu_limit]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    (!held.is_empty()).then(|| Finding::ok(&name, held.join(", ")))
}

pub(super) fn listeners(status: &Status) -> Finding {
    let of_modules = status.modules.iter().flat_map(|module| &module.listeners);
    let all: Vec<_> = status.listeners.iter().chain(of_modules).collect();
    let broken: Vec<String> = all
        .iter()
        .filter(|listener| listener.address.is_none())
        .map(|listener| {
            let error = listener.error.as_deref().unwrap_or("it could not be bound");
            format!("{}: {error}", listener.name)
        })
        .collect();
    if broken.is_empty() {
        return Finding::ok("listeners", format!("addresses in use: {}", all.len()));
    }
    Finding::problem(
        "listeners",
        broken.join("; "),
        "end the program that has the port, or set another `listen:` in the configuration",
    )
}

/// Checks whether the daemon's own listeners have room for their clients. Those of modules are in
/// the health of their modules.
pub(super) fn connections(status: &Status) -> Finding {
    let name = "connections";
    let troubles: Vec<String> = status
        .connections
        .iter()
        .filter_map(|it| Some(format!("{}: {}", it.listener, it.trouble.as_ref()?)))
        .collect();
    if !troubles.is_empty() {
        let remedy = "find who opens so many with `ss -tnp` or `ss -xp` and end it, or raise \
                      `LimitNOFILE=` of the daemon";
        return Finding::problem(name, troubles.join("\n"), remedy);
    }
    let open: u64 = status.connections.iter().map(|it| it.open).sum();
    Finding::ok(name, format!("{open} open, no client was refused in the last minute"))
}

pub(super) fn module(module: &Module) -> Finding {
    let name = format!("module {}", module.name);
    let note = note(module);
    let because = if note.is_empty() { String::new() } else { format!(": {note}") };
    let message = format!("{}{because}", module.state);
    if module.desired != "enabled" {
        return at_rest(module, &name, &message);
    }
    let logs = if says_taken(&message) {
        format!(
            "end what has the address, or give the module another one, then run `lodestar modules \
             reload {}`",
            module.name
        )
    } else {
        format!("see `lodestar modules logs {}`", module.name)
    };
    match (module.state.as_str(), module.health.status.as_str()) {
        ("running", "ok" | "unknown") if module.reason.is_some() => {
            let why = format!("see `lodestar modules why {}`", module.name);
            Finding::warning(&name, message, why)
        }
        ("running", "ok" | "unknown") => Finding::ok(&name, message),
        ("running" | "degraded", "failed") => Finding::problem(&name, message, logs),
        ("running" | "degraded" | "draining" | "reloading" | "loading" | "verified", _) => {
            Finding::warning(&name, message, logs)
        }
        ("absent", _) => Finding::problem(
            &name,
            message,
            "install it on the module path, or remove its section from the configuration",
        ),
        ("quarantined" | "failed", _) if !says_taken(&message) => {
            Finding::problem(&name, message, format!("{logs}; {}", once_mended(&module.name)))
        }
        _ => Finding::problem(&name, message, logs),
    }
}

/// Judges a module that is not to run. Events that wait for it while its section is gone hint at a
/// mistake.
fn at_rest(module: &Module, name: &str, message: &str) -> Finding {
    if module.events.pending == 0 || module.desired != "removed" {
        return Finding::ok(name, module.desired.clone());
    }
    let remedy = format!(
        "put its section back (`lodestar modules enable {0}`; its library as well, where that is \
         gone), or give them up with `lodestar modules remove {0}`",
        module.name
    );
    let waiting = human::count(module.events.pending);
    Finding::warning(name, format!("{message}; {waiting} events wait for it"), remedy)
}

pub(super) fn events(lag: &[Lag]) -> Finding {
    let mut lost = Vec::new();
    for row in lag {
        let dropped: u64 = row.dropped.values().sum();
        for (number, what) in [(row.dead, "dead"), (dropped, "dropped")] {
            if number > 0 {
                lost.push(format!("{} {what} for {}", human::count(number), row.module));
            }
        }
    }
    if lost.is_empty() {
        return Finding::ok("events", "none is dead and none was dropped");
    }
    Finding::warning(
        "events",
        lost.join(", "),
        "see `lodestar events dead` for the reasons and `lodestar events lag` for what was dropped",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use lodestar_api::Connections;

    use super::{super::Verdict, *};
    use crate::tests::sample;

    #[test]
    fn modules_that_do_not_run_are_problems() {
        let check = |desired: &str, state: &str, health: &str, expected: Verdict| {
            let mut sample = sample::status().modules.remove(0);
            (sample.desired, sample.state) = (desired.to_owned(), state.to_owned());
            sample.health.status = health.to_owned();
            assert_eq!(module(&sample).status, expected, "{desired} {state} {health}");
        };
        check("enabled", "running", "ok", Verdict::Ok);
        check("enabled", "running", "degraded", Verdict::Warning);
        check("enabled", "running", "failed", Verdict::Problem);
        check("enabled", "degraded", "degraded", Verdict::Warning);
        check("enabled", "degraded", "failed", Verdict::Problem);
        check("enabled", "failed", "unknown", Verdict::Problem);
        check("enabled", "absent", "unknown", Verdict::Problem);
        check("enabled", "quarantined", "unknown", Verdict::Problem);
        check("disabled", "stopped", "unknown", Verdict::Ok);
    }

    #[test]
    fn events_that_wait_for_a_module_without_a_section_are_told() {
        let mut sample = sample::status().modules.remove(0);
        (sample.desired, sample.state) = ("removed".to_owned(), "absent".to_owned());
        sample.reason = Some("neither in the configuration nor on the module path".to_owned());
        sample.events.pending = 41;
        let finding = module(&sample);
        assert_eq!(finding.status, Verdict::Warning);
        assert!(finding.message.ends_with("; 41 events wait for it"), "{}", finding.message);
        sample.desired = "disabled".to_owned();
        assert_eq!(module(&sample).status, Verdict::Ok);
    }

    #[test]
    fn a_module_without_its_address_names_who_has_it() {
        let mut sample = sample::status().modules.remove(0);
        sample.state = "failed".to_owned();
        let taken = "127.0.0.1:4318 is taken by otelcol (process 9); stop that";
        sample.reason = Some(taken.to_owned());
        let finding = module(&sample);
        assert_eq!(finding.message, format!("failed: {taken}"));
        let remedy = finding.remedy.expect("there is one");
        assert!(remedy.starts_with("end what has the address"), "{remedy}");
        assert!(remedy.ends_with("`lodestar modules reload ingest`"), "{remedy}");
    }

    #[test]
    fn limits_that_no_group_holds_are_shown_with_the_remedy() {
        let mut info = sample::info();
        let check = |info: &ModuleInfo, expected: Option<(Verdict, &str)>| {
            let found = limits(info).map(|finding| (finding.status, finding.message));
            let found = found.as_ref().map(|(status, message)| (*status, message.as_str()));
            assert_eq!(found, expected);
        };
        let process = |info: &mut ModuleInfo, memory: Option<&str>, without: &[&str]| {
            info.process = serde_json::from_value(json!({
                "pid": 7, "threads": 3, "memory_limit": memory, "cpu_limit": null,
                "limits_without_group": without, "sandbox": "",
            }))
            .expect("a process");
        };
        info.process = None;
        check(&info, None);
        process(&mut info, None, &[]);
        check(&info, None);
        process(&mut info, Some("9 bytes by cgroup memory.max"), &[]);
        check(&info, Some((Verdict::Ok, "9 bytes by cgroup memory.max")));
        process(&mut info, Some("9 bytes by RLIMIT_DATA"), &["by RLIMIT_DATA: no group"]);
        check(&info, Some((Verdict::Warning, "by RLIMIT_DATA: no group")));
    }

    #[test]
    fn free_space() {
        let check = |free, expected| assert_eq!(space_verdict("/state", free).status, expected);
        check(1 << 40, Verdict::Ok);
        check(500 << 20, Verdict::Warning);
        check(1 << 20, Verdict::Problem);
    }

    #[test]
    fn the_state_directory() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let mut status = sample::status();
        let mut check = |path: &Path, expected: &str| {
            status.state_dir = path.display().to_string();
            let found: Vec<String> =
                state_dir(&status).into_iter().map(|finding| finding.message).collect();
            assert!(found.join(" | ").contains(expected), "{found:?}");
        };
        check(directory.path(), " free");
        check(&directory.path().join("gone"), "cannot look at");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), open).expect("it is ours");
        check(directory.path(), "open to everybody");
    }

    #[test]
    fn the_socket_is_not_for_everybody() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = tempfile::NamedTempFile::new().expect("a file");
        let check = |mode: u32, expected: Verdict| {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(file.path(), permissions).expect("it is ours");
            assert_eq!(socket(file.path()).expect("a finding").status, expected);
        };
        check(0o600, Verdict::Ok);
        check(0o660, Verdict::Ok);
        check(0o666, Verdict::Problem);
    }

    #[test]
    fn versions_and_listeners() {
        let mut status = sample::status();
        status.version = env!("CARGO_PKG_VERSION").to_owned();
        assert_eq!(daemon(&status).status, Verdict::Ok);
        assert_eq!(listeners(&status).status, Verdict::Ok);
        status.version = "9.0.0".to_owned();
        assert_eq!(daemon(&status).status, Verdict::Warning);
        status.listeners[0].address = None;
        status.listeners[0].error = Some("port 9464 is taken by prometheus (pid 9)".to_owned());
        let finding = listeners(&status);
        assert_eq!(finding.status, Verdict::Problem);
        assert_eq!(finding.message, "metrics: port 9464 is taken by prometheus (pid 9)");
    }

    #[test]
    fn clients_that_were_refused_are_a_problem() {
        let mut status = sample::status();
        assert_eq!(connections(&status).status, Verdict::Ok);
        status.connections = vec![Connections {
            listener: "metrics".to_owned(),
            trouble: Some("all connections were in use".to_owned()),
            ..Connections::default()
        }];
        let finding = connections(&status);
        assert_eq!(finding.status, Verdict::Problem);
        assert_eq!(finding.message, "metrics: all connections were in use");
        assert!(finding.remedy.is_some_and(|remedy| remedy.contains("LimitNOFILE=")));
    }

    #[test]
    fn a_daemon_of_root_is_warned_of() {
        let check = |pid: u32, expected: bool| {
            let mut status = sample::status();
            status.pid = pid;
            assert_eq!(root(&status).is_some(), expected, "{pid}");
        };
        check(1, true);
        check(u32::MAX, false);
        check(std::process::id(), rustix::process::geteuid().is_root());
    }

    #[test]
    fn a_ledger_that_cannot_be_written_is_a_problem() {
        let mut status = sample::status();
        assert_eq!(ledger(&status).status, Verdict::Ok);
        status.ledger.trouble = Some("cannot write /l/1.seg: disk full".to_owned());
        status.ledger.remedy = Some("free space".to_owned());
        let finding = ledger(&status);
        assert_eq!(finding.status, Verdict::Problem);
        assert!(finding.message.ends_with("/l/1.seg: disk full"), "{}", finding.message);
        assert!(finding.remedy.is_some_and(|remedy| remedy.contains("free space")));
    }

    #[test]
    fn lost_events_are_named() {
        let row: Lag = serde_json::from_value(json!({
            "module": "usage_tracker", "accepted": 10, "handled": 1, "dead": 2,
            "dropped": {"retention": 7}, "pending": 0, "oldest_pending_ms": null,
            "state": "running",
        }))
        .expect("a row");
        let message = events(&[row]).message;
        assert_eq!(message, "2 dead for usage_tracker, 7 dropped for usage_tracker");
        assert_eq!(events(&[]).status, Verdict::Ok);
    }
}
