//! Resource limits of this process (`ulimit`): raised as far as allowed, and reported if they are
//! too small.

use std::{fs, os::unix::fs::MetadataExt as _};

use anyhow::bail;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::Trouble;

/// Required amount of a resource.
struct Need {
    resource: Resource,
    /// Name of the warning about it.
    name: &'static str,
    /// Description of the resource, as it follows "the limit of".
    what: &'static str,
    /// Minimum, below which the daemon does not start.
    least: u64,
    /// Amount below which something fails sooner or later.
    enough: u64,
    /// Maximum to set even if more is allowed.
    most: u64,
    why: &'static str,
    remedy: &'static str,
}

const NEEDS: [Need; 6] = [
    Need {
        resource: Resource::Fsize,
        name: "ulimit -f",
        what: "bytes that a file may have",
        least: 64 << 20,
        enough: 2 << 30,
        most: u64::MAX,
        why: "the event ledger and the databases of modules grow",
        remedy: "run `ulimit -f unlimited` where lodestard is started, or set LimitFSIZE=infinity \
                 in its unit",
    },
    Need {
        resource: Resource::Stack,
        name: "ulimit -s",
        what: "bytes of the stack",
        least: 512 << 10,
        enough: 2 << 20,
        most: 8 << 20,
        why: "its main thread runs on it",
        remedy: "run `ulimit -s 8192` where lodestard is started, or set LimitSTACK=8M in its unit",
    },
    Need {
        resource: Resource::Nofile,
        name: "ulimit -n",
        what: "open descriptors",
        least: 64,
        enough: 1_024,
        most: 65_536,
        why: "each connection and each file of a module takes one",
        remedy: "run `ulimit -n 8192` where lodestard is started, or set LimitNOFILE=8192 in its \
                 unit",
    },
    Need {
        resource: Resource::As,
        name: "ulimit -v",
        what: "bytes of addresses",
        least: 1 << 30,
        enough: 4 << 30,
        most: u64::MAX,
        why: "each thread and each library takes some, used or not",
        remedy: "run `ulimit -v unlimited` where lodestard is started, or set LimitAS=infinity in \
                 its unit; MemoryMax= limits what is used",
    },
    Need {
        resource: Resource::Data,
        name: "ulimit -d",
        what: "bytes of data",
        least: 128 << 20,
        enough: 1 << 30,
        most: u64::MAX,
        why: "what it and its modules decode and keep is there",
        remedy: "run `ulimit -d unlimited` where lodestard is started, or set LimitDATA=infinity \
                 in its unit; MemoryMax= limits what is used",
    },
    Need {
        resource: Resource::Nproc,
        name: "ulimit -u",
        what: "tasks that its user may have besides those that run",
        least: 64,
        enough: 1_024,
        most: u64::MAX,
        why: "each module has threads, and all processes of the user count",
        remedy: "run `ulimit -u 4096` where lodestard is started, or set LimitNPROC=4096 in its \
                 unit, or end what else runs as this user",
    },
];

/// Raises the limits as far as the system allows. Returns the limits that are still too small, each
/// with its name.
///
/// # Errors
///
/// Returns an error with the required value if a limit is too small to start.
pub fn raise() -> anyhow::Result<Vec<(&'static str, Trouble)>> {
    let mut troubles = Vec::new();
    for need in &NEEDS {
        troubles.extend(raise_one(need)?.map(|trouble| (need.name, trouble)));
    }
    Ok(troubles)
}

/// Raises the limit of the stack alone, without which not even the arguments can be read.
///
/// # Errors
///
/// Returns an error with the required value if it is too small to start.
pub fn expect_stack() -> anyhow::Result<()> {
    let mut needs = NEEDS.iter().filter(|need| need.resource == Resource::Stack);
    needs.try_for_each(|need| raise_one(need).map(drop))
}

fn raise_one(need: &Need) -> anyhow::Result<Option<Trouble>> {
    let limit = getrlimit(need.resource);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(need.most);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = Some(wanted).filter(|wanted| *wanted < u64::MAX);
        // An error shows below: what there is may be too little.
        let _ = setrlimit(need.resource, Rlimit { current, ..limit });
    }
    match verdict(need, available(need.resource)) {
        Verdict::Enough => Ok(None),
        Verdict::Little(trouble) => Ok(Some(trouble)),
        Verdict::TooLittle((message, remedy)) => bail!("{message}; {remedy}"),
    }
}

/// Returns the available amount of a resource, `None` for no limit.
fn available(resource: Resource) -> Option<u64> {
    let limit = getrlimit(resource).current;
    if resource != Resource::Nproc {
        return limit;
    }
    // Root has as many tasks as there can be.
    let limit = limit.filter(|_| !geteuid().is_root())?;
    Some(limit.saturating_sub(tasks_of(geteuid().as_raw())))
}

/// Counts the threads of all processes of a user, as far as they can be seen.
fn tasks_of(user: u32) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = processes.filter(|it| it.metadata().is_ok_and(|it| it.uid() == user));
    let threads = own.filter_map(|process| {
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:"))?;
        line.trim().parse::<u64>().ok()
    });
    threads.sum()
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Enough,
    Little(Trouble),
    TooLittle(Trouble),
}

fn verdict(need: &Need, current: Option<u64>) -> Verdict {
    let Need { name, what, least, enough, why, remedy, .. } = need;
    let Some(current) = current.filter(|current| current < enough) else { return Verdict::Enough };
    let is_too_little = current < *least;
    let needed = if is_too_little { least } else { enough };
    let message =
        format!("the limit of {what} (`{name}`) is {current}, and lodestard needs {needed}: {why}");
    let trouble = (message, (*remedy).to_owned());
    if is_too_little { Verdict::TooLittle(trouble) } else { Verdict::Little(trouble) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_tasks_of_a_user() {
        let me = geteuid().as_raw();
        let (sender, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || held.recv());
        assert!(tasks_of(me) >= 2, "{}", tasks_of(me));
        drop(sender);
        assert!(thread.join().is_ok());
        assert_eq!(tasks_of(u32::MAX - 7), 0);
    }

    #[test]
    fn says_what_is_needed() {
        for need in &NEEDS {
            assert!(need.least < need.enough && need.enough <= need.most);
            assert_eq!(verdict(need, None), Verdict::Enough);
            assert_eq!(verdict(need, Some(need.enough)), Verdict::Enough);
            let told = verdict(need, Some(need.least));
            assert!(
                matches!(&told, Verdict::Little((message, _))
                    if message.contains(&format!("is {}, ", need.least))
                        && message.contains(&format!("needs {}: ", need.enough))),
                "{told:?}"
            );
            let refused = verdict(need, Some(need.least - 1));
            assert!(
                matches!(&refused, Verdict::TooLittle((message, remedy))
                    if message.contains(&format!("needs {}: ", need.least))
                        && remedy.contains(need.name) && remedy.contains("Limit")),
                "{refused:?}"
            );
        }
    }
}
