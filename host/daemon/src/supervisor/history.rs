//! History of each module, as `modules why` shows it, and the decisions that outlive the daemon,
//! such as a quarantine or a library that proved bad.

use std::{
    collections::HashMap,
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use lodestar_api::HistoryEntry;
use lodestar_platform::files;

/// Number of entries that are shown. At twice as many the older half is removed.
const MAX_ENTRIES: usize = 200;

/// Decisions about a module, which hold until somebody takes them back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decisions {
    /// Reason for its quarantine; `None` when it is in none.
    pub quarantined: Option<String>,
    /// The library that proved bad, and what runs in its place.
    pub refused: Option<Refused>,
    /// Reason why it runs in a process of its own although its section does not say so.
    pub isolated: Option<String>,
    /// The generation that took over last, while it is on probation.
    pub probation: Option<Probation>,
    /// True once its data directory was created.
    pub has_data_dir: bool,
    /// Time when its data directory was found gone, in milliseconds since the Unix epoch.
    pub data_lost: Option<i64>,
}

/// A generation on probation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probation {
    /// Hash of its library.
    pub sha256: String,
    /// Hash of the library of the generation before it.
    #[serde(alias = "former")]
    pub previous: String,
    /// End of the probation, in seconds since the Unix epoch.
    pub until_s: i64,
}

/// A library that proved bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Hash of the bad library.
    pub sha256: String,
    /// Hash of the generation kept on disk that runs in its place.
    pub instead: String,
    /// Description of its failure, or of the request for a rollback.
    pub reason: String,
}

/// Endings of file names: those of earlier versions, and those of today.
const FORMER_NAMES: [(&str, &str); 2] =
    [(".story.jsonl", ".history.jsonl"), (".standing.json", ".decisions.json")];

/// The histories and decisions of all modules, in files of the state directory.
#[derive(Debug)]
pub struct Histories {
    directory: PathBuf,
    writing: Mutex<()>,
    /// Decisions by module, as they were read or made: nobody else writes them while a daemon has
    /// the state directory.
    decisions: Mutex<HashMap<String, Decisions>>,
}

impl Histories {
    /// Opens the histories and decisions in a state directory. Renames files of earlier versions.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        let directory = state_dir.join("supervision");
        if let Err(error) = rename_former(&directory) {
            let path = directory.display();
            tracing::error!(%path, %error, "cannot take up what was decided about modules before");
        }
        Self { directory, writing: Mutex::default(), decisions: Mutex::default() }
    }

    /// Adds an entry to the history of a module. A failed write is logged.
    pub fn record(&self, module: &str, what: &str, detail: impl Into<String>) {
        let at = format!("{:.3}", Timestamp::now());
        let entry = HistoryEntry { at, what: what.to_owned(), detail: detail.into() };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(module, &entry) {
            tracing::warn!(module, %error, "cannot write the module's history");
        }
    }

    /// Returns the newest entries of a module's history, oldest first.
    #[must_use]
    pub fn read(&self, module: &str) -> Vec<HistoryEntry> {
        let text = files::read_text(&self.history_path(module)).unwrap_or_default();
        let mut entries: Vec<HistoryEntry> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        entries.drain(..entries.len().saturating_sub(MAX_ENTRIES));
        entries
    }

    /// Returns the decisions about a module.
    #[must_use]
    pub fn decisions(&self, module: &str) -> Decisions {
        let mut known = self.known_decisions();
        if let Some(decisions) = known.get(module) {
            return decisions.clone();
        }
        let Ok(text) = files::read_text(&self.decisions_path(module)) else {
            return Decisions::default();
        };
        let decisions: Decisions = serde_json::from_str(&text).unwrap_or_default();
        known.insert(module.to_owned(), decisions.clone());
        decisions
    }

    fn known_decisions(&self) -> MutexGuard<'_, HashMap<String, Decisions>> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the decisions about a module. A failed write is logged.
    pub fn decide(&self, module: &str, change: impl FnOnce(&mut Decisions)) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.decisions(module);
        let mut after = before.clone();
        change(&mut after);
        if before == after {
            return;
        }
        if let Err(error) = self.write_decisions(module, &after) {
            tracing::error!(
                module, %error,
                "cannot write down what was decided; a restart of the daemon will forget it"
            );
        }
        self.known_decisions().insert(module.to_owned(), after);
    }

    /// Deletes the history and the decisions of a module that was removed.
    pub fn forget(&self, module: &str) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for path in [self.history_path(module), self.decisions_path(module)] {
            // An error means that there was nothing to forget.
            let _ = fs::remove_file(path);
        }
        self.known_decisions().remove(module);
    }

    fn append(&self, module: &str, entry: &HistoryEntry) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.history_path(module);
        files::clear_irregular(&path)?;
        let text = files::read_text(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() >= 2 * MAX_ENTRIES {
            let mut kept = lines[lines.len() - MAX_ENTRIES..].join("\n");
            kept.push('\n');
            replace(&path, &kept)?;
        }
        let mut line = serde_json::to_string(entry)?;
        line.push('\n');
        let mut options = fs::OpenOptions::new();
        options.create(true).append(true).mode(0o600).open(&path)?.write_all(line.as_bytes())
    }

    fn write_decisions(&self, module: &str, decisions: &Decisions) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        replace(&self.decisions_path(module), &serde_json::to_string(decisions)?)
    }

    fn history_path(&self, module: &str) -> PathBuf {
        self.directory.join(format!("{module}.history.jsonl"))
    }

    fn decisions_path(&self, module: &str) -> PathBuf {
        self.directory.join(format!("{module}.decisions.json"))
    }
}

/// Renames files that an earlier version wrote. Never overwrites a file of today's name.
fn rename_former(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (former, ending) in FORMER_NAMES {
            let Some(module) = name.strip_suffix(former) else { continue };
            let to = directory.join(format!("{module}{ending}"));
            if !to.exists() {
                fs::rename(&path, to)?;
            }
        }
    }
    Ok(())
}

/// Replaces a file atomically: a kill leaves the old or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_decided_outlives_the_daemon() {
        let directory = tempfile::tempdir().expect("a directory");
        let histories = Histories::new(directory.path());
        assert_eq!(histories.decisions("ingest"), Decisions::default());
        histories
            .decide("ingest", |decisions| decisions.quarantined = Some("it panicked".to_owned()));
        let again = Histories::new(directory.path());
        assert_eq!(again.decisions("ingest").quarantined.as_deref(), Some("it panicked"));
        again.forget("ingest");
        assert_eq!(again.decisions("ingest"), Decisions::default());
    }

    #[test]
    fn what_cannot_be_written_down_holds_until_the_daemon_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let histories = Histories::new(directory.path());
        // Nothing can be put into a file.
        fs::write(directory.path().join("supervision"), "").expect("it is writable");
        let decide = |why: &str| {
            histories.decide("ingest", |decisions| decisions.quarantined = Some(why.to_owned()));
        };
        for why in ["it panicked", "it panicked again"] {
            decide(why);
            assert_eq!(histories.decisions("ingest").quarantined.as_deref(), Some(why));
        }
        histories.forget("ingest");
        assert_eq!(histories.decisions("ingest"), Decisions::default());
    }

    #[test]
    fn files_with_former_names_are_taken_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = directory.path().join("supervision");
        fs::create_dir(&files).expect("it is new");
        let entry = r#"{"at":"2026-11-02T00:00:00.000Z","what":"runs","detail":"0.1.0"}"#;
        fs::write(files.join("ingest.story.jsonl"), format!("{entry}\n")).expect("written");
        let decided = r#"{"quarantined":"it panicked",
            "probation":{"sha256":"b","former":"a","until_s":7}}"#;
        fs::write(files.join("ingest.standing.json"), decided).expect("written");
        let histories = Histories::new(directory.path());
        assert_eq!(histories.read("ingest").len(), 1);
        let decisions = histories.decisions("ingest");
        assert_eq!(decisions.quarantined.as_deref(), Some("it panicked"));
        assert_eq!(decisions.probation.map(|it| it.previous).as_deref(), Some("a"));
        histories.record("ingest", "runs", "0.1.1");
        fs::write(files.join("ingest.story.jsonl"), "").expect("written by an older one");
        assert_eq!(Histories::new(directory.path()).read("ingest").len(), 2, "the new one stays");
    }

    #[test]
    fn a_history_keeps_its_newest_entries() {
        let directory = tempfile::tempdir().expect("a directory");
        let histories = Histories::new(directory.path());
        for number in 0..3 * MAX_ENTRIES {
            histories.record("ingest", "restarted", number.to_string());
        }
        let entries = histories.read("ingest");
        assert_eq!(entries.len(), MAX_ENTRIES);
        assert_eq!(entries.last().map(|it| it.detail.as_str()), Some("599"));
        let text = fs::read_to_string(histories.history_path("ingest")).expect("it is there");
        assert!(text.lines().count() < 2 * MAX_ENTRIES + 1);
    }
}
