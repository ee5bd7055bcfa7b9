//! Tokens that a trainer expects of a serving runtime: it is asked in a process of its own, and
//! what it writes, which holds text of examples, is deleted at once.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use module_sdk::Result;

use crate::{
    gate::{Fault, Reference},
    registry::Version,
    run::{self, Job, Launch, RunError, Short},
    trainers::Trainers,
    versions::Versions,
};

/// Largest file that a trainer may write, in bytes.
const MOST: u64 = 64 << 20;

/// Folder of what trainers write for comparison, which is removed however it ends.
struct Folder(PathBuf);

impl Folder {
    fn create(path: PathBuf) -> std::io::Result<Self> {
        // What a daemon that was killed left behind.
        let _: std::io::Result<()> = fs::remove_dir_all(&path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "what a trainer wrote for comparison cannot be removed");
        }
    }
}

/// Removes what comparisons left behind that a stop of the daemon cut off.
pub(crate) fn tidy(versions: &Versions, version: &Version) {
    run::sweep(&mark(version));
    // There is none as a rule.
    let _: std::io::Result<()> = fs::remove_dir_all(folder(versions, &version.id));
}

/// Asks the trainer of a version which tokens it expects, until a time at most. `alive` is called
/// while it works, and ends it by an error.
pub(crate) fn reference(
    versions: &Versions,
    trainers: &Trainers,
    version: &Version,
    until: Instant,
    alive: &mut dyn FnMut() -> Result<()>,
) -> std::result::Result<Reference, Fault> {
    let run = versions.store.read(|connection| run::load(connection, &version.lineage.run))?;
    let Some(run) = run else {
        return Err(Fault::NotMeasured("the run that made it is not known any more".to_owned()));
    };
    let unknown = |error: module_sdk::Error| Fault::NotMeasured(error.to_string());
    let trainer = trainers.named(&run.trainer).map_err(unknown)?;
    let unwritable = |error: std::io::Error| {
        Fault::NotMeasured(format!("the trainer's job cannot be written: {error}"))
    };
    let folder = Folder::create(folder(versions, &version.id)).map_err(unwritable)?;
    let (job_file, out) = (folder.0.join("job.json"), folder.0.join("parity.json"));
    let launch = match trainer.parity(&job_file, &out) {
        Ok(Some(launch)) => launch,
        Ok(None) => {
            return Err(Fault::NotApplicable(format!(
                "the trainer `{}` does not tell which tokens it expects",
                trainer.name()
            )));
        }
        Err(error) => return Err(Fault::NotMeasured(error.to_string())),
    };
    let job = Job { output_dir: versions.folder(&version.id), resume_from: None, ..run.job };
    let text = serde_json::to_vec_pretty(&job).map_err(module_sdk::Error::from)?;
    fs::write(&job_file, text).map_err(unwritable)?;
    let is_plain = trainer.has_plain_messages();
    told(&launch, &mark(version), &folder.0, until, alive, is_plain)?;
    read(&out)
}

fn told(
    launch: &Launch,
    mark: &str,
    folder: &Path,
    until: Instant,
    alive: &mut dyn FnMut() -> Result<()>,
    is_plain: bool,
) -> std::result::Result<(), Fault> {
    let ended = run::short(launch, mark, folder, until, alive)?;
    let reason = match ended {
        Ok(Short::Done) => return Ok(()),
        Ok(Short::Failed(message)) if is_plain => format!("the trainer: {message}"),
        Ok(Short::Failed(_)) => "the trainer failed".to_owned(),
        Ok(Short::Late) => {
            "the trainer was not ready before the time was over (`gates.minutes`)".to_owned()
        }
        Err(error @ RunError::NoTrainer { .. }) => error.to_string(),
        Err(error) => format!("the trainer could not be asked: {error}"),
    };
    Err(Fault::NotMeasured(reason))
}

fn read(path: &Path) -> std::result::Result<Reference, Fault> {
    let mut text = Vec::new();
    let file = fs::File::open(path);
    let read = file.and_then(|file| file.take(MOST + 1).read_to_end(&mut text));
    let is_small = read.is_ok_and(|length| length as u64 <= MOST);
    // The parser's words may repeat the text.
    let parsed = serde_json::from_slice(&text).ok().filter(|_| is_small);
    parsed.ok_or_else(|| {
        Fault::NotMeasured("the trainer does not write which tokens it expects".to_owned())
    })
}

fn folder(versions: &Versions, id: &str) -> PathBuf {
    versions.host.data_dir().join("gates").join(id)
}

/// Returns the mark of a comparison's processes. Another daemon has versions of the same names, and
/// no run of the same one.
fn mark(version: &Version) -> String {
    format!("{}-parity", version.lineage.run)
}
