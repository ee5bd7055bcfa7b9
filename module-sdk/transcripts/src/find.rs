//! Search of folders, and what is looked at of a file.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use module_sdk::FileMark;
use sha2::{Digest as _, Sha256};

use crate::{Holds, Place, Tool, database, place::is_absent};

/// Largest number of files that one search finds.
const MOST_FILES: usize = 100_000;

/// Size of the beginning of a file by whose hash it is known again, in bytes.
pub const HEAD_BYTES: u64 = 4096;

/// A file that was found, or a folder that cannot be searched.
#[derive(Debug)]
pub struct Found {
    /// Path where it lies.
    pub path: PathBuf,
    /// The tool whose place it lies in; `None` where a path was named.
    pub tool: Option<Tool>,
    /// `true` for an SQLite database, whose rows are read with [`database::Rows`].
    pub is_database: bool,
    /// `true` for what was named and is no regular file: it is read once, and has no state.
    pub is_pipe: bool,
    /// Its state, or why it cannot be read.
    pub state: io::Result<FileMark>,
}

/// Reason why a search ended early.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The path cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Error of the system.
        #[source]
        error: io::Error,
    },
    /// There is more than a search finds.
    #[error("there are more than {MOST_FILES} files below {path}")]
    TooMany {
        /// The path.
        path: PathBuf,
    },
}

/// Finds the files at a path that somebody named, in order: itself, or those of a folder and of the
/// folders below it whose names have one of the endings (`jsonl`), all where there are none. Links
/// within a folder are not followed.
///
/// # Errors
///
/// When the path cannot be read, or there are too many files. What cannot be read in a folder is
/// among the files.
pub fn find(path: &Path, endings: &[String]) -> Result<Vec<Found>, FindError> {
    let unreadable = |error| FindError::Unreadable { path: path.to_owned(), error };
    let about = fs::metadata(path).map_err(unreadable)?;
    if !about.is_dir() {
        // It is opened here for an error that is told before anything is sent.
        if about.is_file() {
            File::open(path).map_err(unreadable)?;
        }
        let is_database = about.is_file() && database::is_one(path);
        let found = Found::new(path.to_owned(), None, is_database, Ok((&about).into()));
        return Ok(vec![Found { is_pipe: !about.is_file(), ..found }]);
    }
    let top = fs::read_dir(path).map_err(unreadable)?;
    let has = |path: &Path| {
        let ending = path.extension().unwrap_or_default();
        endings.is_empty() || endings.iter().any(|it| ending == it.as_str())
    };
    let takes = |path: &Path| has(path).then(|| is_named_database(path) && database::is_one(path));
    Search { tool: None, deep: true, takes: &takes, files: Vec::new() }.run(path, top)
}

/// Finds the transcripts in a place.
pub(crate) fn at_place(place: &Place) -> Result<Vec<Found>, FindError> {
    let tool = Some(place.tool);
    let is_database = matches!(place.holds, Holds::Databases(_));
    let one = |state| vec![Found::new(place.path.clone(), tool, is_database, state)];
    let about = match fs::metadata(&place.path) {
        Ok(about) => about,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Ok(one(Err(error))),
    };
    if !about.is_dir() {
        return Ok(one(Ok((&about).into())));
    }
    let top = match fs::read_dir(&place.path) {
        Ok(top) => top,
        Err(error) => return Ok(one(Err(error))),
    };
    let takes = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        place.holds.takes(&name).then_some(is_database)
    };
    Search { tool, deep: !is_database, takes: &takes, files: Vec::new() }.run(&place.path, top)
}

/// Hashes the beginning of a file: its first 4,096 bytes, or the given number where that is less.
/// The position of the file does not move. Returns the SHA-256 in hexadecimal digits.
///
/// # Errors
///
/// When it cannot be read.
pub fn head(file: &File, bytes: u64) -> io::Result<String> {
    let mut head = [0; HEAD_BYTES as usize];
    let wanted = bytes.min(HEAD_BYTES) as usize;
    let mut count = 0;
    while count < wanted {
        match file.read_at(&mut head[count..wanted], count as u64) {
            // It has shrunk.
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let hash = Sha256::digest(&head[..count]);
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Found {
    fn new(
        path: PathBuf,
        tool: Option<Tool>,
        is_database: bool,
        state: io::Result<FileMark>,
    ) -> Self {
        let state = if is_database { state.and_then(|_| database::mark(&path)) } else { state };
        Self { path, tool, is_database, is_pipe: false, state }
    }
}

/// Search of a folder.
struct Search<'a> {
    tool: Option<Tool>,
    /// `true` where the folders below are searched too.
    deep: bool,
    /// Says whether a file counts, and whether it is a database.
    takes: &'a dyn Fn(&Path) -> Option<bool>,
    files: Vec<Found>,
}

impl Search<'_> {
    fn run(mut self, top: &Path, entries: fs::ReadDir) -> Result<Vec<Found>, FindError> {
        let mut folders = vec![(top.to_owned(), Ok(entries))];
        while let Some((folder, entries)) = folders.pop() {
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    self.files.push(Found::new(folder, self.tool, false, Err(error)));
                    continue;
                }
            };
            for entry in entries {
                let Ok(entry) = entry else { break };
                let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
                if kind.is_dir() && self.deep {
                    let entries = fs::read_dir(&path);
                    folders.push((path, entries));
                } else if kind.is_file()
                    && let Some(is_database) = (self.takes)(&path)
                {
                    let state = entry.metadata().map(|about| (&about).into());
                    self.files.push(Found::new(path, self.tool, is_database, state));
                }
                if self.files.len() > MOST_FILES {
                    return Err(FindError::TooMany { path: top.to_owned() });
                }
            }
        }
        self.files.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        Ok(self.files)
    }
}

fn is_named_database(path: &Path) -> bool {
    let endings = ["db", "sqlite", "sqlite3"];
    path.extension().is_some_and(|ending| endings.iter().any(|it| ending == *it))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(found: &[Found], root: &Path) -> Vec<String> {
        let name =
            |it: &Found| it.path.strip_prefix(root).expect("it is below").display().to_string();
        found.iter().map(name).collect()
    }

    fn bytes(found: &[Found]) -> u64 {
        found.iter().map(|it| it.state.as_ref().map_or(0, |mark| mark.bytes)).sum()
    }

    /// Returns a folder with files, a circle, and a link to a file elsewhere.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            fs::write(path, "four").expect("a file");
        }
        symlink(directory.path(), directory.path().join("circle")).expect("a link");
        symlink("/etc/passwd", directory.path().join("x.jsonl")).expect("a link");
        directory
    }

    #[test]
    fn a_folder_is_searched_for_endings() {
        let directory = folder(&["b/c/2.jsonl", "b/1.jsonl", "a.jsonl", "b/notes.txt"]);
        let root = directory.path();
        let found = find(root, &["jsonl".to_owned()]).expect("it is read");
        assert_eq!(names(&found, root), ["a.jsonl", "b/1.jsonl", "b/c/2.jsonl"]);
        assert_eq!(bytes(&found), 12);
        assert!(found.iter().all(|it| it.tool.is_none() && !it.is_database));
        assert_eq!(find(root, &[]).expect("it is read").len(), 4);
    }

    #[test]
    fn a_place_is_searched_for_names() {
        let directory = folder(&[
            ".codex/sessions/2026/11/20/rollout-1.jsonl",
            ".codex/sessions/2026/11/20/rollout-2.jsonl.zst",
            ".codex/sessions/2026/notes.jsonl",
            ".codex/archived_sessions/rollout-0.jsonl",
            ".codex/auth.json",
        ]);
        let root = directory.path();
        symlink(root, root.join(".codex/sessions/circle")).expect("a link");
        let places = Tool::Codex.places(Some(root), &|_| None);
        let found: Vec<Found> =
            places.iter().flat_map(|place| place.find().expect("it is read")).collect();
        let expected = [
            ".codex/sessions/2026/11/20/rollout-1.jsonl",
            ".codex/sessions/2026/11/20/rollout-2.jsonl.zst",
            ".codex/archived_sessions/rollout-0.jsonl",
        ];
        assert_eq!(names(&found, root), expected);
        assert!(found.iter().all(|it| it.tool == Some(Tool::Codex)));
        let nowhere = Tool::Gemini.places(Some(root), &|_| None);
        assert!(nowhere[0].find().expect("it is absent").is_empty());
    }

    #[test]
    fn databases_lie_in_the_folder_itself() {
        let directory = folder(&["opencode/opencode.db", "opencode/x/opencode-old.db"]);
        let set = |name: &str| {
            (name == "OPENCODE_DATA_DIR").then(|| directory.path().join("opencode").into())
        };
        let places = Tool::Opencode.places(None, &set);
        let found = places[0].find().expect("it is read");
        assert_eq!(names(&found, directory.path()), ["opencode/opencode.db"]);
        assert!(found[0].is_database && found[0].tool == Some(Tool::Opencode));
    }

    #[test]
    fn a_place_may_be_one_file() {
        let directory = folder(&["log"]);
        let log = directory.path().join("log");
        let set = |name: &str| (name == "AIDER_ANALYTICS_LOG").then(|| log.clone().into());
        let found = Tool::Aider.places(None, &set)[0].find().expect("it is read");
        assert_eq!(names(&found, directory.path()), ["log"]);
    }

    #[test]
    fn what_cannot_be_read_is_among_the_files() {
        let directory = folder(&["b/1.jsonl", "a.jsonl"]);
        let closed = directory.path().join("b");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("it is ours");
        let found = find(directory.path(), &["jsonl".to_owned()]).expect("it goes on");
        let readable = fs::read_dir(&closed).is_ok();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("it is ours");
        // An administrator may read everything.
        let expected: &[&str] =
            if readable { &["a.jsonl", "b/1.jsonl"] } else { &["a.jsonl", "b"] };
        assert_eq!(names(&found, directory.path()), expected);
        assert_eq!(found[1].state.is_err(), !readable);
    }

    #[test]
    fn a_path_is_looked_at_first() {
        let directory = folder(&["a.txt"]);
        let absent = directory.path().join("absent");
        let error = find(&absent, &[]).expect_err("it is absent").to_string();
        assert!(error.starts_with(&format!("cannot read {}", absent.display())), "{error}");
        // A file that is named counts, whatever its name ends with.
        let found = find(&directory.path().join("a.txt"), &["jsonl".to_owned()]);
        assert_eq!(found.expect("it is there").len(), 1);
    }

    #[test]
    fn a_file_is_known_again_by_its_beginning() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "abc").expect("it is written");
        let hash = |bytes| head(&File::open(file.path()).expect("it is there"), bytes);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(3).expect("it is read"), abc);
        // It was longer.
        assert_eq!(hash(9).expect("it is read"), abc);
        fs::write(file.path(), "abcd").expect("it is written");
        assert_eq!(hash(3).expect("it is read"), abc);
        assert_ne!(hash(4).expect("it is read"), abc);
        fs::write(file.path(), vec![b'x'; 9000]).expect("it is written");
        let long = hash(9000).expect("it is read");
        fs::write(file.path(), [vec![b'x'; 4096], b"y".to_vec()].concat()).expect("it is written");
        assert_eq!(hash(4097).expect("it is read"), long);
    }
}
