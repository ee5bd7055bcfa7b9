//! `lodestar usage backup`: a copy of the database as it is now, while it is written on.

use std::{
    ffi::OsString,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use module_sdk::{Error, Job, Reply, Result, Table, human};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// Copies the database as it is now, while the daemon writes on. The copy is a database like it, to
/// be put in its place.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupArgs {
    /// The file to write, where the daemon's user may: an absolute path, or one in the module's
    /// data directory.
    #[schemars(extend("x-positional" = true))]
    file: PathBuf,
    /// Replace the file that is there, once the copy is whole.
    #[serde(default)]
    force: bool,
}

/// Time between two reports of progress.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Right to make a backup, held by one backup at a time.
#[derive(Debug)]
pub(crate) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// Takes the right, if no other backup holds it.
    ///
    /// # Errors
    ///
    /// When another backup is being made.
    pub(crate) fn take(taken: &Arc<AtomicBool>) -> Result<Self> {
        if taken.swap(true, Ordering::AcqRel) {
            let error = Error::unavailable("another backup is being made");
            return Err(error.hint("try again when that has ended"));
        }
        Ok(Self(taken.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl BackupArgs {
    /// Returns where the copy goes.
    ///
    /// # Errors
    ///
    /// When something is there that is not to be replaced.
    pub(crate) fn target(&self, data_dir: &Path) -> Result<PathBuf> {
        if self.file.as_os_str().is_empty() {
            return Err(Error::usage("the file has no name"));
        }
        let to = data_dir.join(&self.file);
        if !self.force && to.symlink_metadata().is_ok() {
            let error = Error::usage(format!("{} is there already", to.display()));
            return Err(error.hint("name another file, or replace it with --force"));
        }
        Ok(to)
    }

    /// Creates the job of a backup to `to`, of about `bytes`. `stopping` ends it when the module
    /// stops.
    pub(crate) fn job(
        &self,
        reader: module_sqlite::Reader,
        to: PathBuf,
        bytes: u64,
        turn: Turn,
        stopping: Arc<AtomicBool>,
    ) -> Job {
        let force = self.force;
        Job::new(move |output| {
            let _turn = turn;
            let given_up = Arc::new(AtomicBool::new(false));
            let (tell, told) = mpsc::channel();
            let stop = {
                let (given_up, new) = (given_up.clone(), unfinished(&to));
                let mut next = Instant::now() + TELL_EVERY;
                move || {
                    if Instant::now() >= next {
                        next = Instant::now() + TELL_EVERY;
                        let done = new.metadata().map_or(0, |it| it.len());
                        // An error means that nobody listens, which `given_up` says.
                        let _ = tell.send(done);
                    }
                    given_up.load(Ordering::Relaxed) || stopping.load(Ordering::Relaxed)
                }
            };
            let copying = thread::spawn({
                let to = to.clone();
                move || match force {
                    true => reader.replace_backup(&to, stop),
                    false => reader.backup(&to, stop),
                }
            });
            for done in told {
                if output.progress(done.min(bytes), Some(bytes), "bytes").is_err() {
                    given_up.store(true, Ordering::Relaxed);
                }
            }
            copying.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            let written = to.metadata().map_or(0, |it| it.len());
            output.progress(written, Some(written), "bytes")?;
            let note = format!("{} written to {}", human::bytes(written), to.display());
            let table = Table { notes: vec![note], ..Table::default() };
            Ok(Reply::json(&json!({"file": to, "bytes": written}))?.table(table))
        })
    }
}

/// Returns the path to which the SDK writes an unfinished copy.
fn unfinished(to: &Path) -> PathBuf {
    let mut name: OsString = to.as_os_str().to_owned();
    name.push(".new");
    name.into()
}
