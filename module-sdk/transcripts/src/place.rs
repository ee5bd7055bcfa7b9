//! Places where transcripts lie.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use crate::{FindError, Found, Tool, find};

/// Place where transcripts of a tool lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The tool that writes them.
    pub tool: Tool,
    /// A folder, or one file.
    pub path: PathBuf,
    /// Files of it that count.
    pub holds: Holds,
}

/// Content of a place, by the names of the files: `rollout-*.jsonl`, where `*` is anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Files, in the folder and below it.
    Files(&'static [&'static str]),
    /// SQLite databases in the folder.
    Databases(&'static [&'static str]),
}

impl Place {
    /// Finds the transcripts that lie here, in order: none where there is no such place.
    ///
    /// # Errors
    ///
    /// When there are too many.
    pub fn find(&self) -> Result<Vec<Found>, FindError> {
        find::at_place(self)
    }
}

impl Holds {
    /// Checks whether a file of this name counts.
    pub(crate) fn takes(self, name: &str) -> bool {
        let (Self::Files(patterns) | Self::Databases(patterns)) = self;
        patterns.iter().any(|pattern| fits(pattern, name))
    }
}

/// Returns those places that exist, each once, whatever links lead to it.
#[must_use]
pub fn existing(places: Vec<Place>) -> Vec<Place> {
    let mut seen = HashSet::new();
    let mut is_new = |place: &Place| {
        // What exists and cannot be looked at is a matter for the search.
        let about = match fs::metadata(&place.path) {
            Ok(about) => about,
            Err(error) => return !is_absent(&error),
        };
        let (Holds::Files(names) | Holds::Databases(names)) = place.holds;
        seen.insert((place.tool, about.dev(), about.ino(), names))
    };
    places.into_iter().filter(|place| is_new(place)).collect()
}

/// Checks whether an error says that there is nothing at a path.
pub(crate) fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Checks whether a name fits a pattern, in which `*` is anything.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((begin, mut rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(begin) else { return false };
    while let Some((part, after)) = rest.split_once('*') {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
        rest = after;
    }
    name.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::Path};

    use super::*;

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, expected) in [
            ("a.db", "a.db", true),
            ("a.db", "a.db-wal", false),
            ("*", "", true),
            ("*.jsonl", "x.jsonl", true),
            ("*.jsonl", "x.jsonl.zst", false),
            ("rollout-*.jsonl", "rollout-1.jsonl", true),
            ("rollout-*.jsonl", "rollout.jsonl", false),
            ("*.jsonl.deleted.*", "a.jsonl.deleted.2026", true),
            ("*.jsonl.deleted.*", "a.jsonl.reset.2026", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_place_counts_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join(".claude/projects")).expect("a folder");
        fs::create_dir(root.join(".config")).expect("a folder");
        symlink(root.join(".claude"), root.join(".config/claude")).expect("a link");
        let places = Tool::ClaudeCode.places(Some(root), &|_| None);
        assert_eq!(places.len(), 2);
        let found = existing(places);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(existing(Tool::Codex.places(Some(root), &|_| None)).is_empty());
        assert!(existing(Tool::Codex.places(Some(Path::new("/dev/null")), &|_| None)).is_empty());
    }

    #[test]
    fn one_folder_may_hold_databases_and_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = directory.path().join("opencode/storage/message");
        fs::create_dir_all(&messages).expect("a folder");
        let set =
            |name: &str| (name == "XDG_DATA_HOME").then(|| directory.path().as_os_str().to_owned());
        assert_eq!(existing(Tool::Opencode.places(None, &set)).len(), 2);
    }
}
