//! What happened to each module, for whoever asks why; and what must not be forgotten when the
//! daemon ends: that a module is in quarantine, and which library proved bad.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use lodestar_api::Chapter;
use lodestar_platform::files;

/// How many chapters are told; at twice as many the older ones go.
const CHAPTERS: usize = 200;

/// A decision about a module that holds until somebody takes it back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Why it is left alone.
    pub quarantined: Option<String>,
    /// The library that proved bad, and what runs in its place.
    pub refused: Option<Refused>,
    /// Why it runs in a process of its own although its section does not say so.
    pub isolated: Option<String>,
    /// The generation that took over last, while it is on probation.
    pub probation: Option<Probation>,
    /// Its data directory was there.
    pub has_data_dir: bool,
    /// When its data directory was found gone, in milliseconds since the Unix epoch.
    pub data_lost: Option<i64>,
}

/// A generation on probation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probation {
    /// The hash of its library.
    pub sha256: String,
    /// The hash of the one before it.
    pub former: String,
    /// When the probation ends, in seconds since the Unix epoch.
    pub until_s: i64,
}

/// A library that proved bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its hash.
    pub sha256: String,
    /// The hash of the kept generation that runs in its place.
    pub instead: String,
    /// What it did, or who asked.
    pub reason: String,
}

/// The stories and standings of all modules, in files of the state directory.
#[derive(Debug)]
pub struct Stories {
    directory: PathBuf,
    writing: Mutex<()>,
}

impl Stories {
    /// Those in this state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("supervision"), writing: Mutex::default() }
    }

    /// Adds a chapter. A disk that takes none is told about once, in the log.
    pub fn tell(&self, module: &str, what: &str, detail: impl Into<String>) {
        let at = format!("{:.3}", Timestamp::now());
        let chapter = Chapter { at, what: what.to_owned(), detail: detail.into() };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(module, &chapter) {
            tracing::warn!(module, %error, "cannot write the module's story");
        }
    }

    /// The chapters of a module, oldest first.
    #[must_use]
    pub fn read(&self, module: &str) -> Vec<Chapter> {
        let text = files::read_text(&self.story_path(module)).unwrap_or_default();
        let mut chapters: Vec<Chapter> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        chapters.drain(..chapters.len().saturating_sub(CHAPTERS));
        chapters
    }

    /// What was decided about a module.
    #[must_use]
    pub fn standing(&self, module: &str) -> Standing {
        let text = files::read_text(&self.standing_path(module)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Changes what was decided about a module.
    pub fn decide(&self, module: &str, change: impl FnOnce(&mut Standing)) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.standing(module);
        let mut after = before.clone();
        change(&mut after);
        if before == after {
            return;
        }
        if let Err(error) = self.write_standing(module, &after) {
            tracing::error!(
                module, %error,
                "cannot write down what was decided; a restart of the daemon will forget it"
            );
        }
    }

    /// Forgets a module that was removed.
    pub fn forget(&self, module: &str) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for path in [self.story_path(module), self.standing_path(module)] {
            // An error means that there was nothing to forget.
            let _ = fs::remove_file(path);
        }
    }

    fn append(&self, module: &str, chapter: &Chapter) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.story_path(module);
        files::clear_irregular(&path)?;
        let text = files::read_text(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() >= 2 * CHAPTERS {
            let mut kept = lines[lines.len() - CHAPTERS..].join("\n");
            kept.push('\n');
            replace(&path, &kept)?;
        }
        let mut line = serde_json::to_string(chapter)?;
        line.push('\n');
        let mut options = fs::OpenOptions::new();
        options.create(true).append(true).mode(0o600).open(&path)?.write_all(line.as_bytes())
    }

    fn write_standing(&self, module: &str, standing: &Standing) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        replace(&self.standing_path(module), &serde_json::to_string(standing)?)
    }

    fn story_path(&self, module: &str) -> PathBuf {
        self.directory.join(format!("{module}.story.jsonl"))
    }

    fn standing_path(&self, module: &str) -> PathBuf {
        self.directory.join(format!("{module}.standing.json"))
    }
}

/// Writes a file so that a kill leaves the old or the new one.
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
        let stories = Stories::new(directory.path());
        assert_eq!(stories.standing("ingest"), Standing::default());
        stories.decide("ingest", |standing| standing.quarantined = Some("it panicked".to_owned()));
        let again = Stories::new(directory.path());
        assert_eq!(again.standing("ingest").quarantined.as_deref(), Some("it panicked"));
        again.forget("ingest");
        assert_eq!(again.standing("ingest"), Standing::default());
    }

    #[test]
    fn a_story_keeps_its_newest_chapters() {
        let directory = tempfile::tempdir().expect("a directory");
        let stories = Stories::new(directory.path());
        for number in 0..3 * CHAPTERS {
            stories.tell("ingest", "restarted", number.to_string());
        }
        let chapters = stories.read("ingest");
        assert_eq!(chapters.len(), CHAPTERS);
        assert_eq!(chapters.last().map(|it| it.detail.as_str()), Some("599"));
        let text = fs::read_to_string(stories.story_path("ingest")).expect("it is there");
        assert!(text.lines().count() < 2 * CHAPTERS + 1);
    }
}
