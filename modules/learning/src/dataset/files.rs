//! Files of datasets: written whole or not at all, read by lines, checked, erased.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use module_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::build::{Built, Meta, id_of};
use crate::store::{Split, hex};

/// Folder of all datasets in the module's data directory.
const FOLDER: &str = "datasets";

/// Folder of a dataset that is being written; what is left of one is deleted at the start.
const UNFINISHED: &str = ".unfinished";

/// File with the lines to train on.
pub const TRAIN: &str = "train.jsonl";
/// File with the lines that are held out.
pub const EVAL: &str = "eval.jsonl";
/// File with pairs of a good and a bad answer.
pub const PREFERENCE: &str = "preference.jsonl";
/// File with what is known of each line.
pub const META: &str = "meta.jsonl";
/// The card.
pub const CARD: &str = "README.md";

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// Its SHA-256.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Number of its lines.
    pub lines: u64,
}

/// The folder of datasets.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Returns the folder of datasets in a data directory.
    #[must_use]
    pub fn within(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FOLDER) }
    }

    /// Returns the folder of one dataset.
    #[must_use]
    pub fn of(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }

    /// Deletes what is left of a build that did not end.
    ///
    /// # Errors
    ///
    /// When it cannot be deleted.
    pub fn clean(&self) -> io::Result<()> {
        gone(&self.path.join(UNFINISHED))
    }

    /// Writes the files of a dataset, to be put in place by [`place`](Self::place), and returns
    /// what they are. The card comes later, since it says so.
    ///
    /// # Errors
    ///
    /// When they cannot be written; nothing of them is left then.
    pub fn write(&self, built: &Built) -> Result<BTreeMap<String, Printed>> {
        let written = self.write_all(built);
        if written.is_err() {
            self.discard();
        }
        written.map_err(|error| unwritable(&self.path, &error))
    }

    fn write_all(&self, built: &Built) -> io::Result<BTreeMap<String, Printed>> {
        self.clean()?;
        let folder = self.path.join(UNFINISHED);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let of = |split| built.rows.iter().filter(move |row| row.split == split);
        let mut files = BTreeMap::new();
        let mut write = |name: &str, lines: &mut dyn Iterator<Item = io::Result<String>>| {
            files.insert(name.to_owned(), write_lines(&folder.join(name), lines)?);
            io::Result::Ok(())
        };
        write(TRAIN, &mut of(Split::Train).map(|row| Ok(row.text.clone())))?;
        write(EVAL, &mut of(Split::Eval).map(|row| Ok(row.text.clone())))?;
        write(META, &mut built.rows.iter().map(|row| Ok(serde_json::to_string(&row.meta)?)))?;
        if !built.pairs.is_empty() {
            write(PREFERENCE, &mut built.pairs.iter().cloned().map(Ok))?;
        }
        Ok(files)
    }

    /// Adds the card to the files that were written.
    ///
    /// # Errors
    ///
    /// When it cannot be written; nothing of the dataset is left then.
    pub fn write_card(&self, text: &str) -> Result<()> {
        let path = self.path.join(UNFINISHED).join(CARD);
        let written = create(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        if written.is_err() {
            self.discard();
        }
        written.map_err(|error| unwritable(&self.path, &error))
    }

    /// Puts the files that were written in the place of the dataset.
    ///
    /// # Errors
    ///
    /// When they cannot be moved.
    pub fn place(&self, id: &str) -> Result<()> {
        let place = || {
            gone(&self.of(id))?;
            fs::rename(self.path.join(UNFINISHED), self.of(id))?;
            File::open(&self.path)?.sync_all()
        };
        place().map_err(|error| unwritable(&self.path, &error))
    }

    /// Deletes the files that were written and not put in place.
    pub fn discard(&self) {
        if let Err(error) = self.clean() {
            tracing::warn!(%error, "cannot delete what is left of a dataset");
        }
    }

    /// Deletes the text of a dataset; the card stays.
    ///
    /// # Errors
    ///
    /// When a file cannot be deleted.
    pub fn erase(&self, id: &str) -> io::Result<()> {
        for name in [TRAIN, EVAL, PREFERENCE, META] {
            match fs::remove_file(self.of(id).join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the lines of a file of a dataset, where it has such a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn lines(&self, id: &str, name: &str) -> Result<Vec<String>> {
        let path = self.of(id).join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let lines: io::Result<Vec<String>> = BufReader::new(file).lines().collect();
        lines.map_err(|error| unreadable(&path, &error))
    }

    /// Returns what is wrong with the files of a dataset: nothing where they are as they were
    /// written.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn problems(&self, id: &str, files: &BTreeMap<String, Printed>) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for (name, expected) in files {
            match fs::read(self.of(id).join(name)) {
                Ok(bytes) if hex(&Sha256::digest(&bytes)) == expected.sha256 => {}
                Ok(_) => problems.push(format!("{name} was changed")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    problems.push(format!("{name} is missing"));
                }
                Err(error) => return Err(unreadable(&self.of(id).join(name), &error)),
            }
        }
        let (train, eval) = (self.lines(id, TRAIN)?, self.lines(id, EVAL)?);
        let pairs = self.lines(id, PREFERENCE)?;
        let found = id_of(texts(&train), texts(&eval), texts(&pairs));
        if found != id {
            problems.push("the lines are not those that the id names".to_owned());
        }
        problems.extend(self.crossings(id)?);
        Ok(problems)
    }

    /// Returns whether a cluster, a conversation or a line lies on both sides of the split.
    fn crossings(&self, id: &str) -> Result<Vec<String>> {
        let mut sides: HashMap<(&str, String), HashSet<String>> = HashMap::new();
        for line in self.lines(id, META)? {
            let Ok(meta) = serde_json::from_str::<Meta>(&line) else {
                return Ok(vec![format!("{META} has a line that is no description")]);
            };
            let keys = [
                ("cluster", meta.cluster_id),
                ("conversation", meta.conversation_id),
                ("line", meta.line_sha256),
            ];
            for key in keys {
                sides.entry(key).or_default().insert(meta.split.clone());
            }
        }
        let crossing = |kind: &str| {
            let on_both = |(key, splits): &(&(&str, String), &HashSet<String>)| {
                key.0 == kind && splits.len() > 1
            };
            sides.iter().filter(on_both).count()
        };
        let kinds = ["cluster", "conversation", "line"];
        let found = kinds.map(|kind| (kind, crossing(kind)));
        let told = |(kind, number): (&str, usize)| match number {
            0 => None,
            1 => Some(format!("1 {kind} lies both in train and in eval")),
            _ => Some(format!("{number} {kind}s lie both in train and in eval")),
        };
        Ok(found.into_iter().filter_map(told).collect())
    }
}

fn texts(lines: &[String]) -> impl Iterator<Item = &str> {
    lines.iter().map(String::as_str)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn write_lines(
    path: &Path,
    lines: &mut dyn Iterator<Item = io::Result<String>>,
) -> io::Result<Printed> {
    let mut file = BufWriter::new(create(path)?);
    let (mut hash, mut printed) = (Sha256::new(), (0_u64, 0_u64));
    for line in lines {
        let mut line = line?;
        line.push('\n');
        file.write_all(line.as_bytes())?;
        hash.update(&line);
        printed = (printed.0 + line.len() as u64, printed.1 + 1);
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(Printed { sha256: hex(&hash.finalize()), bytes: printed.0, lines: printed.1 })
}

/// Deletes a folder, if it is there.
fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    if error.kind() == io::ErrorKind::StorageFull {
        return Error::unavailable(format!("no space is left for a dataset in {path}"))
            .hint("free some on its disk");
    }
    Error::new(format!("cannot write a dataset in {path}: {error}"))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::dataset::{
        build::{Settings, build},
        sample,
    };

    fn written() -> (tempfile::TempDir, Folder, Built, BTreeMap<String, Printed>) {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = Folder::within(directory.path());
        let settings = Settings { quality: crate::quality::Config::default(), eval_share: 0.2 };
        let examples = (0..10).map(sample::example).collect();
        let built = build(&settings, examples, &mut |_, _| {}, &AtomicBool::new(false));
        let built = built.expect("it is built");
        let files = folder.write(&built).expect("it is written");
        folder.write_card("# card\n").expect("it is written");
        folder.place(&built.id).expect("it is placed");
        (directory, folder, built, files)
    }

    #[test]
    fn a_dataset_is_as_it_was_written() {
        let (_directory, folder, built, files) = written();
        assert_eq!(folder.problems(&built.id, &files).expect("it is read"), [""; 0]);
        assert_eq!(files[TRAIN].lines, 8);
        assert_eq!(folder.lines(&built.id, EVAL).expect("it is read").len(), 2);
        assert!(!folder.path.join(UNFINISHED).exists());
        folder.erase(&built.id).expect("it is erased");
        folder.erase(&built.id).expect("it is erased already");
        assert!(folder.of(&built.id).join(CARD).exists());
        let problems = folder.problems(&built.id, &files).expect("it is read");
        assert!(problems.contains(&"train.jsonl is missing".to_owned()), "{problems:?}");
    }

    #[test]
    fn a_change_is_found() {
        let (_directory, folder, built, files) = written();
        let path = folder.of(&built.id).join(EVAL);
        let text = fs::read_to_string(&path).expect("it is read");
        fs::write(&path, text.replace("euros", "pounds")).expect("it is changed");
        let problems = folder.problems(&built.id, &files).expect("it is read");
        let expected = ["eval.jsonl was changed", "the lines are not those that the id names"];
        assert_eq!(problems, expected);
    }

    #[test]
    fn a_crossing_is_found() {
        let (_directory, folder, built, files) = written();
        let path = folder.of(&built.id).join(META);
        let text = fs::read_to_string(&path).expect("it is read");
        let of = |split: Split| {
            let mut rows = built.rows.iter().filter(|row| row.split == split);
            rows.next().expect("it has one").meta.cluster_id.clone()
        };
        fs::write(&path, text.replace(&of(Split::Eval), &of(Split::Train))).expect("it is changed");
        let problems = folder.problems(&built.id, &files).expect("it is read");
        let crossing = "1 cluster lies both in train and in eval".to_owned();
        assert!(problems.contains(&crossing), "{problems:?}");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(FOLDER), "a file").expect("it is in the way");
        let folder = Folder::within(directory.path());
        let built = Built {
            id: String::new(),
            rows: Vec::new(),
            pairs: Vec::new(),
            rejected: Vec::new(),
            steps: Vec::new(),
        };
        let error = folder.write(&built).expect_err("it cannot be written");
        assert!(error.to_string().starts_with("cannot write a dataset in "), "{error}");
    }
}
