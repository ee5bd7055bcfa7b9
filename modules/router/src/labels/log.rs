//! Labels with the features of their requests, in a file of lines: numbers and names, no text.
//!
//! A line tells of a request, or of a sign about one that was told before. Lines are added; what is
//! old, beyond the bound, or followed by a newer sign of the same kind, is left out soon after the
//! module has started and each hour.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Time for which labels are kept, in milliseconds.
const KEPT_MS: i64 = 90 * 24 * 60 * 60 * 1000;

/// Labels that are kept, at most; the oldest go first.
const MOST: usize = 4_000;

/// Bytes of their lines, at most.
const MOST_BYTES: usize = 32 << 20;

/// Sign of how good an answer was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sign {
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Origin: `person`, `check`, `judge`, `comparison`.
    pub origin: String,
    /// `true` when the answer of a local model is meant.
    pub local: bool,
    /// `true` when that was right.
    pub right: bool,
}

/// A request that was judged, without its features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// Id of the request, or of the comparison.
    pub id: String,
    /// Time of the request, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Project of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Session of the client, a pseudonym.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A request, with its packed features.
    Request {
        /// The request.
        #[serde(flatten)]
        judged: Judged,
        /// Its features.
        sample: String,
    },
    /// A sign about a request.
    Sign {
        /// Id of the request.
        id: String,
        /// The sign.
        #[serde(flatten)]
        sign: Sign,
    },
}

impl Line {
    fn id(&self) -> &str {
        match self {
            Self::Request { judged, .. } => &judged.id,
            Self::Sign { id, .. } => id,
        }
    }
}

/// A request with all signs about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Labelled {
    /// The request.
    pub judged: Judged,
    /// Signs about its answers, in their order.
    pub signs: Vec<Sign>,
    /// Its packed features.
    pub sample: String,
}

/// Labels that somebody wants forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// Those of a project.
    Project(String),
    /// Those of a session.
    Session(String),
    /// Those of requests before a time.
    Before(i64),
}

impl Forgotten {
    fn means(&self, judged: &Judged) -> bool {
        match self {
            Self::Project(project) => judged.project.as_ref() == Some(project),
            Self::Session(session) => judged.session.as_ref() == Some(session),
            Self::Before(time) => judged.at < *time,
        }
    }
}

/// The file of labels.
#[derive(Debug)]
pub(crate) struct LabelLog {
    path: PathBuf,
    /// Lines that are not written yet.
    waiting: Mutex<Vec<String>>,
    /// Lock of the file.
    file: Mutex<()>,
}

impl LabelLog {
    /// Returns the log in a directory.
    pub(crate) fn within(directory: &Path) -> Self {
        let path = directory.join("labels.jsonl");
        Self { path, waiting: Mutex::default(), file: Mutex::default() }
    }

    /// Adds a line, which [`write`](Self::write) brings to the file.
    pub(crate) fn add(&self, line: &Line) {
        // Strings and numbers: it cannot fail.
        let Ok(text) = serde_json::to_string(line) else { return };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Writes the lines that wait.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; the lines wait on.
    pub(crate) fn write(&self) -> io::Result<()> {
        let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_alone()
    }

    fn write_alone(&self) -> io::Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return Ok(());
        }
        let mut text = waiting.join("\n");
        text.push('\n');
        // It is opened each time: the module that follows may have put another one in its place.
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        file.write_all(text.as_bytes())?;
        waiting.clear();
        Ok(())
    }

    /// Returns the requests with their signs, the oldest first.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub(crate) fn read(&self) -> io::Result<Vec<Labelled>> {
        let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_alone()?;
        Ok(folded(self.lines()?))
    }

    /// Deletes labels; returns the number of requests that are gone.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn forget(&self, forgotten: &Forgotten) -> io::Result<usize> {
        let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_alone()?;
        let lines = self.lines()?;
        let gone: HashSet<String> = lines
            .iter()
            .filter_map(|line| match line {
                Line::Request { judged, .. } if forgotten.means(judged) => Some(judged.id.clone()),
                _ => None,
            })
            .collect();
        if !gone.is_empty() {
            let left = lines.into_iter().filter(|line| !gone.contains(line.id()));
            self.replace(&left.collect::<Vec<_>>())?;
        }
        Ok(gone.len())
    }

    /// Leaves out what is old, what is beyond the bound, and signs that a newer one of the same
    /// origin about the same answer follows: the last one counts.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn tidy(&self, now: i64) -> io::Result<()> {
        let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_alone()?;
        let lines = self.lines()?;
        let mut kept = HashSet::new();
        let (mut bytes, mut is_full) = (0, false);
        for line in lines.iter().rev() {
            let Line::Request { judged, sample } = line else { continue };
            bytes += sample.len();
            is_full |= kept.len() >= MOST || bytes > MOST_BYTES;
            if !is_full && judged.at >= now - KEPT_MS {
                kept.insert(judged.id.clone());
            }
        }
        let number = lines.len();
        let mut left: Vec<Line> = lines.into_iter().filter(|it| kept.contains(it.id())).collect();
        let mut followed = HashSet::new();
        left.reverse();
        left.retain(|line| match line {
            Line::Request { .. } => true,
            Line::Sign { id, sign } => {
                followed.insert((id.clone(), sign.origin.clone(), sign.local))
            }
        });
        left.reverse();
        if left.len() < number { self.replace(&left) } else { Ok(()) }
    }

    fn lines(&self) -> io::Result<Vec<Line>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut lines = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            // A line that a kill cut off is none.
            lines.extend(serde_json::from_slice::<Line>(&line?).ok());
        }
        Ok(lines)
    }

    fn replace(&self, lines: &[Line]) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        let mut text = String::new();
        for line in lines {
            text.push_str(&serde_json::to_string(line)?);
            text.push('\n');
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(beside, &self.path)
    }
}

fn folded(lines: Vec<Line>) -> Vec<Labelled> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut all: Vec<Labelled> = Vec::new();
    for line in lines {
        match line {
            Line::Request { judged, sample } if !places.contains_key(&judged.id) => {
                places.insert(judged.id.clone(), all.len());
                all.push(Labelled { judged, signs: Vec::new(), sample });
            }
            Line::Request { .. } => {}
            Line::Sign { id, sign } => {
                if let Some(place) = places.get(&id) {
                    all[*place].signs.push(sign);
                }
            }
        }
    }
    all.sort_by(|a, b| (a.judged.at, &a.judged.id).cmp(&(b.judged.at, &b.judged.id)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str, at: i64, project: &str) -> Line {
        let (project, session) = (Some(project.to_owned()), Some(format!("s-{id}")));
        Line::Request {
            judged: Judged { id: id.to_owned(), at, project, session },
            sample: "AAAA".to_owned(),
        }
    }

    fn sign(id: &str, right: bool) -> Line {
        let sign = Sign { at: 9, origin: "person".to_owned(), local: true, right };
        Line::Sign { id: id.to_owned(), sign }
    }

    fn log(lines: &[Line]) -> (LabelLog, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let log = LabelLog::within(directory.path());
        lines.iter().for_each(|line| log.add(line));
        (log, directory)
    }

    fn ids(log: &LabelLog) -> Vec<(String, usize)> {
        let all = log.read().expect("it is read");
        all.into_iter().map(|it| (it.judged.id, it.signs.len())).collect()
    }

    #[test]
    fn signs_are_told_with_their_requests() {
        let (log, directory) = log(&[
            request("b", 2, "shop"),
            sign("b", true),
            request("a", 1, "shop"),
            sign("b", false),
            sign("nobody", true),
            request("b", 3, "shop"),
        ]);
        let expected = [("a".to_owned(), 0), ("b".to_owned(), 2)];
        assert_eq!(ids(&log), expected);
        // Half a line is what a kill leaves, and lines are found by the next one.
        let path = directory.path().join("labels.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).expect("it is there");
        file.write_all(b"{\"kind\": \"sig\n").expect("it is written");
        log.add(&request("c", 4, "shop"));
        log.write().expect("it is written");
        assert_eq!(ids(&LabelLog::within(directory.path())).len(), 3);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(path).expect("it is there").permissions(),
        );
        assert_eq!(mode & 0o077, 0, "it is for the daemon's user alone");
    }

    #[test]
    fn what_is_to_be_forgotten_is_deleted_with_its_signs() {
        let check = |forgotten: Forgotten, left: &[&str]| {
            let lines = [request("a", 1, "shop"), request("b", 2, "shop"), request("c", 3, "bank")];
            let (log, directory) = log(&lines);
            lines.iter().for_each(|line| log.add(&sign(line.id(), true)));
            let gone = log.forget(&forgotten).expect("it is written");
            assert_eq!(gone, 3 - left.len(), "{forgotten:?}");
            let found: Vec<String> = ids(&log).into_iter().map(|(id, _)| id).collect();
            assert_eq!(found, left, "{forgotten:?}");
            let text = fs::read_to_string(directory.path().join("labels.jsonl")).expect("a file");
            assert_eq!(text.lines().count(), 2 * left.len(), "{forgotten:?}");
        };
        check(Forgotten::Project("shop".to_owned()), &["c"]);
        check(Forgotten::Session("s-b".to_owned()), &["a", "c"]);
        check(Forgotten::Before(3), &["c"]);
        check(Forgotten::Project("nothing".to_owned()), &["a", "b", "c"]);
    }

    #[test]
    fn of_the_signs_of_one_origin_the_last_stays() {
        let (log, directory) = log(&[request("a", 1, "shop"), request("b", 2, "shop")]);
        for index in 0..500 {
            log.add(&sign("a", index % 2 == 0));
        }
        log.add(&sign("b", true));
        // What waits to be written is looked at as well.
        log.tidy(10).expect("it is written");
        let text = fs::read_to_string(directory.path().join("labels.jsonl")).expect("a file");
        assert_eq!(text.lines().count(), 4, "{text}");
        let all = log.read().expect("it is read");
        assert_eq!((all[0].signs.len(), all[0].signs[0].right), (1, false));
        assert_eq!((all[1].signs.len(), all[1].signs[0].right), (1, true));
    }

    #[test]
    fn old_labels_and_those_beyond_the_bound_go() {
        let (log, _directory) = log(&[]);
        for index in 0..MOST as i64 + 10 {
            log.add(&request(&format!("{index:05}"), 1_000 + index, "shop"));
        }
        log.write().expect("it is written");
        log.tidy(2_000).expect("it is written");
        let all = ids(&log);
        assert_eq!((all.len(), all[0].0.as_str()), (MOST, "00010"));
        log.tidy(KEPT_MS + 1_000 + MOST as i64).expect("it is written");
        assert_eq!(ids(&log).len(), 10);
        log.tidy(2 * KEPT_MS).expect("it is written");
        assert!(ids(&log).is_empty());
    }
}
