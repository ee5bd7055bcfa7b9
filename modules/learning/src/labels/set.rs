//! Sets of labels: files of lines, named by their hash, and what is known of them.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use module_sdk::{Error, ErrorKind, Result};
use module_sqlite::rusqlite::{self, Row as SqlRow, params};
use serde::{Deserialize, Serialize};

use super::Row;
use crate::{
    registry::Digest,
    store::{Store, Target},
};

/// Folder of the sets in the module's data directory.
const FOLDER: &str = "labels";

/// Counts of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests in it.
    pub requests: u64,
    /// Judged answers of local models.
    pub local: u64,
    /// Those of them that were right.
    pub local_right: u64,
    /// Judged answers of paid models.
    pub paid: u64,
    /// Those of them that were right.
    pub paid_right: u64,
    /// Requests that are held back.
    pub held_out: u64,
    /// Requests by the origin of their signs.
    pub sources: std::collections::BTreeMap<String, u64>,
}

impl Summary {
    /// Counts labels.
    #[must_use]
    pub fn of(rows: &[Row]) -> Self {
        let mut summary = Self { requests: rows.len() as u64, ..Self::default() };
        for row in rows {
            summary.local += u64::from(row.local.is_some());
            summary.local_right += u64::from(row.local == Some(true));
            summary.paid += u64::from(row.paid.is_some());
            summary.paid_right += u64::from(row.paid == Some(true));
            summary.held_out += u64::from(row.held_out);
            for source in &row.sources {
                *summary.sources.entry(source.clone()).or_default() += 1;
            }
        }
        summary
    }
}

/// A set of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSet {
    /// Its id: the hash of its lines.
    pub id: String,
    /// Time of the first build, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Counts of it.
    pub summary: Summary,
    /// The reason for which nothing may be learnt from it any more.
    pub stale: Option<String>,
    /// Time at which its lines were deleted.
    pub erased_at: Option<i64>,
}

/// All sets of labels.
#[derive(Debug, Clone)]
pub struct Sets {
    store: Store,
    path: PathBuf,
}

impl Sets {
    /// Returns the sets in a data directory.
    #[must_use]
    pub fn within(store: &Store, data_dir: &Path) -> Self {
        Self { store: store.clone(), path: data_dir.join(FOLDER) }
    }

    /// Writes a set down, and returns it. The same lines are the same set.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, rows: &[Row], now: i64) -> Result<LabelSet> {
        let mut text = String::new();
        for row in rows {
            text.push_str(&serde_json::to_string(row)?);
            text.push('\n');
        }
        let id = Digest::of(text.as_bytes()).to_string();
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let (path, beside) = (self.file(&id), self.path.join(".unfinished"));
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let summary = Summary::of(rows);
        let sql = "INSERT INTO label_set (id, created_at, summary) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (id) DO UPDATE SET stale = NULL, erased_at = NULL, \
                   created_at = excluded.created_at";
        let json = serde_json::to_string(&summary)?;
        self.store.write(|transaction| {
            transaction.prepare_cached(sql)?.execute(params![id, now, json])
        })?;
        Ok(LabelSet { id, created_at: now, summary, stale: None, erased_at: None })
    }

    /// Returns all sets, the newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<LabelSet>> {
        let sql = "SELECT id, created_at, summary, stale, erased_at FROM label_set \
                   ORDER BY created_at DESC, id";
        self.store.read(|connection| connection.prepare_cached(sql)?.query_map([], set)?.collect())
    }

    /// Returns the set whose id begins with some digits.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one.
    pub fn find(&self, begin: &str) -> Result<LabelSet> {
        let mut found = self.list()?.into_iter().filter(|set| set.id.starts_with(begin));
        match (found.next(), found.next()) {
            (Some(set), None) => Ok(set),
            (Some(_), Some(_)) => Err(Error::usage("several sets of labels begin with that id")
                .hint("write more of the id")),
            _ => Err(Error::of(ErrorKind::NotFound, "there is no such set of labels")
                .hint("`lodestar learning labels build` makes one")),
        }
    }

    /// Returns the lines of a set.
    ///
    /// # Errors
    ///
    /// When they are gone, or are not those that were written.
    pub fn rows(&self, id: &str) -> Result<Vec<Row>> {
        let text = self.text(id)?.ok_or_else(|| {
            Error::of(ErrorKind::Refused, "the labels of this set are gone")
                .hint("`lodestar learning labels build` makes another one")
        })?;
        if Digest::of(text.as_bytes()).as_str() != id {
            let words = "the labels of this set are not those that were written";
            return Err(Error::of(ErrorKind::Refused, words).hint("build another one"));
        }
        let rows = text.lines().map(serde_json::from_str);
        Ok(rows.collect::<serde_json::Result<Vec<Row>>>()?)
    }

    /// Returns the digest of the lines that are there now; none where they are gone.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn digest(&self, id: &str) -> Result<Option<Digest>> {
        Ok(self.text(id)?.map(|text| Digest::of(text.as_bytes())))
    }

    /// Deletes the sets that hold a label which somebody wants forgotten, and returns their ids.
    /// Nothing is learnt from them any more.
    ///
    /// # Errors
    ///
    /// When they cannot be deleted.
    pub fn forget(&self, target: &Target, now: i64) -> Result<Vec<String>> {
        let is_meant = |row: &Row| match target {
            Target::Session(session) => row.session.as_ref() == Some(session),
            Target::Project(project) => row.project.as_ref() == Some(project),
            Target::Before(time) => row.at < *time,
        };
        let mut gone = Vec::new();
        for set in self.list()?.into_iter().filter(|set| set.erased_at.is_none()) {
            // One that cannot be read may hold what is meant.
            let holds_it = match self.rows(&set.id) {
                Ok(rows) => rows.iter().any(is_meant),
                Err(_) => true,
            };
            if holds_it {
                self.erase(&set.id, Some("some of it was forgotten"), now)?;
                gone.push(set.id);
            }
        }
        Ok(gone)
    }

    /// Deletes the lines of sets that were built before a time.
    ///
    /// # Errors
    ///
    /// When they cannot be deleted.
    pub fn delete_older(&self, built_before: i64, now: i64) -> Result<()> {
        let old = |set: &LabelSet| set.erased_at.is_none() && set.created_at < built_before;
        for set in self.list()?.into_iter().filter(old) {
            self.erase(&set.id, None, now)?;
        }
        Ok(())
    }

    fn erase(&self, id: &str, stale: Option<&str>, now: i64) -> Result<()> {
        match fs::remove_file(self.file(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let sql = "UPDATE label_set SET erased_at = ?2, stale = coalesce(stale, ?3) WHERE id = ?1";
        self.store.write(|transaction| {
            transaction.prepare_cached(sql)?.execute(params![id, now, stale])
        })?;
        Ok(())
    }

    fn text(&self, id: &str) -> Result<Option<String>> {
        match fs::read_to_string(self.file(id)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.path.join(format!("{id}.jsonl"))
    }
}

fn set(row: &SqlRow<'_>) -> rusqlite::Result<LabelSet> {
    let summary: String = row.get(2)?;
    Ok(LabelSet {
        id: row.get(0)?,
        created_at: row.get(1)?,
        summary: serde_json::from_str(&summary).unwrap_or_default(),
        stale: row.get(3)?,
        erased_at: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, project: &str) -> Row {
        Row {
            id: id.to_owned(),
            at: 5,
            project: Some(project.to_owned()),
            session: Some(format!("s-{id}")),
            features: "f".to_owned(),
            local: Some(true),
            paid: None,
            sources: vec!["person".to_owned()],
            held_out: false,
        }
    }

    fn sets() -> (Sets, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(Store::options(directory.path(), None)).expect("it opens");
        (Sets::within(&store, directory.path()), directory)
    }

    #[test]
    fn a_set_is_named_by_its_lines() {
        let (sets, directory) = sets();
        let rows = [row("a", "shop"), row("b", "bank")];
        let set = sets.write(&rows, 1).expect("it is written");
        assert_eq!(sets.write(&rows, 2).expect("it is written").id, set.id);
        assert_eq!(sets.list().expect("they are read").len(), 1);
        assert_eq!(sets.find(&set.id[..8]).expect("it is found").summary.local_right, 2);
        assert_eq!(sets.rows(&set.id).expect("they are read"), rows);
        let error = sets.find("nothing").expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let path = directory.path().join(format!("labels/{}.jsonl", set.id));
        fs::write(path, "{}\n").expect("it is written");
        let error = sets.rows(&set.id).expect_err("it is another one").to_string();
        assert!(error.contains("not those that were written"), "{error}");
    }

    #[test]
    fn what_is_forgotten_takes_its_sets_along_and_age_makes_none_stale() {
        for (target, is_gone) in [
            (Target::Project("bank".to_owned()), true),
            (Target::Session("s-a".to_owned()), true),
            (Target::Before(6), true),
            (Target::Before(5), false),
            (Target::Project("nothing".to_owned()), false),
        ] {
            let (sets, _directory) = sets();
            let set = sets.write(&[row("a", "shop"), row("b", "bank")], 1).expect("it is written");
            let gone = sets.forget(&target, 9).expect("it is deleted");
            assert_eq!(gone.contains(&set.id), is_gone, "{target:?}");
            let stale = sets.find(&set.id).expect("it is listed").stale;
            assert_eq!((stale.is_some(), sets.rows(&set.id).is_err()), (is_gone, is_gone));
        }
        let (sets, _directory) = sets();
        let set = sets.write(&[row("a", "shop")], 1).expect("it is written");
        sets.delete_older(2, 9).expect("it is deleted");
        let after = sets.find(&set.id).expect("it is listed");
        assert_eq!((after.stale, after.erased_at), (None, Some(9)));
        assert_eq!(sets.digest(&set.id).expect("it is read"), None);
    }
}
