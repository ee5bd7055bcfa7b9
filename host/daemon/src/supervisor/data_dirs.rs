//! Data directories of modules: creates them, and detects those that were deleted or emptied.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use lodestar_api::Warning;
use lodestar_platform::{files, state_dir::private_directory};

use super::Daemon;

/// Name of a file in each data directory that holds the time when it was written, in milliseconds
/// since the Unix epoch. It is not hidden, so that whoever deletes the module's files deletes it
/// too.
const MARK: &str = "lodestar.began";

/// Time that a loss is shown, in milliseconds.
const TOLD_MS: i64 = 7 * 24 * 3600 * 1000;

/// Creates the data directory of a module. Notes a loss where a directory that existed before is
/// gone or empty: to the module this looks like a first start.
pub(super) fn make_data_dir(daemon: &Daemon, module: &str) -> io::Result<PathBuf> {
    let directory = daemon.data_dir(module);
    let is_new = directory.symlink_metadata().is_err();
    private_directory(&directory)?;
    let mark = directory.join(MARK);
    if mark.symlink_metadata().is_ok() {
        let began = files::read_text(&mark).ok().and_then(|text| text.trim().parse().ok());
        // One from before the loss came back.
        daemon.histories.decide(module, |decisions| {
            let is_back = |lost: &i64| began.is_some_and(|began: i64| began < *lost);
            decisions.data_lost = decisions.data_lost.filter(|lost| !is_back(lost));
        });
        return Ok(directory);
    }
    let now = Timestamp::now().as_millisecond();
    let is_known = || daemon.histories.decisions(module).has_data_dir;
    let is_lost = fs::read_dir(&directory)?.next().is_none()
        && (is_known() || (is_new && has_handled_events(daemon, module)));
    if is_lost {
        let what = lost(&directory);
        tracing::error!(module, remedy = remedy(module), "{what}");
        daemon.histories.record(module, "data lost", what);
    }
    let marked = put(&mark, now);
    if let Err(error) = &marked {
        tracing::warn!(module, %error, "a loss of its data directory would not be noticed");
    }
    daemon.histories.decide(module, |decisions| {
        decisions.has_data_dir |= marked.is_ok();
        // Where there are files and no mark, they came from a backup without one.
        decisions.data_lost = is_lost.then_some(now);
    });
    Ok(directory)
}

fn has_handled_events(daemon: &Daemon, module: &str) -> bool {
    let counters = daemon.context.bus.counters();
    counters.iter().any(|it| it.module == module && it.ledger.handled + it.live.handled > 0)
}

/// Returns a warning for each data directory that was lost in the last seven days.
pub(super) fn lost_data_dirs(daemon: &Daemon) -> Vec<Warning> {
    let now = Timestamp::now().as_millisecond();
    let told = |name: &str| {
        let lost_at = daemon.histories.decisions(name).data_lost?;
        (now.saturating_sub(lost_at) < TOLD_MS).then(|| Warning {
            name: "data directory".to_owned(),
            message: format!("{}; told for seven days", lost(&daemon.data_dir(name))),
            remedy: remedy(name),
        })
    };
    daemon.modules.all().iter().filter_map(|slot| told(&slot.entry.name)).collect()
}

fn lost(directory: &Path) -> String {
    format!(
        "{} was deleted or emptied: what the module kept there is gone, and it began anew",
        directory.display()
    )
}

fn remedy(module: &str) -> String {
    format!(
        "stop lodestard and restore the directory from a backup; without one, `lodestar events \
         replay {module} --since TIME` gives it the events that the ledger still has"
    )
}

/// Writes the mark. The module can write there as well, so an existing file or link is never
/// followed.
fn put(mark: &Path, now: i64) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(mark)?;
    writeln!(file, "{now}")
}
