//! The log of the registry: entries that are only ever added, each bound to the one before by
//! SHA-256.
//!
//! The database refuses to change and to delete entries, and to add one out of order. Whoever opens
//! the file with other means can take those triggers away; then the chain of hashes tells the first
//! entry that was changed, and the head that is kept in a file beside the database tells that
//! entries at the end are missing. The chain is not signed: someone who can write both files can
//! write a new log with new hashes. Only a head that was noted elsewhere shows that; so every
//! command that lists the log prints its head.

use std::{
    fmt,
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Actor, Change, Deed, Digest, Draft, Ledger, State,
    segment::{BrokenPart, Segment},
};

/// Name of what is hashed, so that no hash of another kind fits.
const DOMAIN: &[u8] = b"lodestar-registry-1";

/// An entry of the log as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Number of the entry, from 1.
    pub seq: i64,
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The one who acted: `lodestar` or `person:NAME`.
    pub actor: String,
    /// Name of the deed.
    pub action: String,
    /// Id of the version.
    pub version: String,
    /// State before.
    pub from: Option<String>,
    /// State after.
    pub to: Option<String>,
    /// The reason that was given.
    pub reason: String,
    /// The deed as JSON.
    pub evidence: String,
    /// Hash of the entry before; of nothing for the first.
    pub previous: String,
    /// Hash of this entry.
    pub hash: String,
}

impl Entry {
    /// Returns the hash that the entry has to have.
    pub(super) fn hashed(&self) -> String {
        let mut hasher = Sha256::new_with_prefix(DOMAIN);
        hasher.update(self.seq.to_be_bytes());
        hasher.update(self.at.to_be_bytes());
        let [from, to] = [&self.from, &self.to].map(|state| state.as_deref().unwrap_or_default());
        let texts = [
            &self.previous,
            &self.actor,
            &self.action,
            &self.version,
            from,
            to,
            &self.reason,
            &self.evidence,
        ];
        for text in texts {
            // With its length: no text can pass for the end of the one before.
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        Digest::from(<[u8; 32]>::from(hasher.finalize())).into()
    }

    /// Returns the deed that the entry tells of.
    pub(super) fn draft(&self) -> Option<Draft> {
        let deed: Deed = serde_json::from_str(&self.evidence).ok()?;
        (deed.name() == self.action).then_some(())?;
        let actor = Actor::from_text(&self.actor)?;
        let (version, reason) = (self.version.clone(), self.reason.clone());
        Some(Draft { at: self.at, actor, version, reason, deed })
    }

    fn change(&self) -> Option<Change> {
        let state = |text: &Option<String>| match text {
            None => Some(None),
            Some(text) => State::named(text).map(Some),
        };
        Some((state(&self.from)?, state(&self.to)?))
    }
}

/// Number and hash of the last entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of entries.
    pub entries: i64,
    /// Hash of the last one.
    pub hash: String,
}

impl Head {
    /// Returns the head of a log without entries.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self { entries: 0, hash: Digest::of(DOMAIN).into() }
    }

    /// Reads the head that was kept in a file; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be read or holds something else.
    pub fn read(path: &Path) -> std::io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(Into::into),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the head in a file, whole or not at all. Call it once the entries are committed.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be written.
    pub fn keep(&self, path: &Path) -> std::io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(serde_json::to_string(self)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }
}

/// A fault that was found in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// An entry is not the one that was written.
    Broken {
        /// Number of the first such entry.
        entry: i64,
        /// Its fault.
        fault: &'static str,
    },
    /// Entries at the end are missing.
    Cut {
        /// Number of entries that there are.
        entries: i64,
        /// Number of entries that the kept head names.
        kept: i64,
    },
    /// The log is another one than that of the kept head.
    Other {
        /// Number of the entry with another hash.
        entry: i64,
    },
    /// The head that should be kept beside the database is missing.
    NoHead,
    /// A table does not fit the log.
    Table {
        /// Name of the table.
        table: &'static str,
        /// Id of the first version that differs; empty where none can be named.
        version: String,
    },
}

impl Finding {
    /// Returns whether the entries themselves are whole, so that what follows from them holds.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        !matches!(self, Self::Broken { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken { entry, fault } => write!(f, "entry {entry} {fault}"),
            Self::Cut { entries, kept } => {
                write!(f, "the log ends at entry {entries}, and was at {kept} before")
            }
            Self::Other { entry } => write!(f, "entry {entry} is not the one of the kept head"),
            Self::NoHead => f.write_str("the head that was kept beside the database is missing"),
            Self::Table { table, version } if version.is_empty() => {
                write!(f, "table {table} was changed")
            }
            Self::Table { table, version } => {
                write!(f, "table {table} was changed at version {version:?}")
            }
        }
    }
}

/// The log after it was read: its end, the ledger that it gives, and its first fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Number and hash of the last entry that is whole.
    pub head: Head,
    /// The ledger up to there.
    pub ledger: Ledger,
    /// The first fault.
    pub finding: Option<Finding>,
    /// Segments that a person began behind entries that were not as they were written.
    pub segments: Vec<Segment>,
}

/// Reads the whole log, checks each entry against its hash, the one before and the rules of the
/// registry, and the end against the head that was kept.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn read(connection: &Connection, kept: Option<&Head>) -> rusqlite::Result<Reading> {
    let mut ledger = Ledger::default();
    let mut head = Head::of_nothing();
    let (mut differs, mut segments) = (None, Vec::new());
    let mut broken: Option<BrokenPart> = None;
    let mut statement = connection.prepare_cached(READ)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // A value of another type was not written by this module.
        let read = entry(row).map_err(|_| "cannot be read");
        if let Some(part) = &mut broken {
            match read.ok().and_then(|entry| part.ended_by(&entry, &head, &mut ledger)) {
                Some(segment) => {
                    head = Head { entries: segment.entry, hash: segment.hash.clone() };
                    segments.push(segment);
                    broken = None;
                }
                None => part.add(row)?,
            }
        } else {
            let number = head.entries + 1;
            let noted = read.and_then(|entry| {
                check(&entry, &head, &mut ledger)
                    .map(|()| Head { entries: number, hash: entry.hash })
            });
            match noted {
                Ok(next) => head = next,
                Err(fault) => broken = Some(BrokenPart::begin(number, fault, row)?),
            }
        }
        if kept.is_some_and(|kept| kept.entries == head.entries && kept.hash != head.hash) {
            differs = Some(Finding::Other { entry: head.entries });
        }
    }
    let finding = match (broken, kept) {
        (Some(part), _) => Some(part.finding()),
        (None, None) if head.entries > 0 => Some(Finding::NoHead),
        (None, Some(kept)) if kept.entries > head.entries => {
            Some(Finding::Cut { entries: head.entries, kept: kept.entries })
        }
        _ => differs,
    };
    Ok(Reading { head, ledger, finding, segments })
}

/// All entries in order, the last column their values as SQL writes them.
pub(super) const READ: &str =
    "SELECT seq, at, actor, action, version, from_state, to_state, reason,
        evidence, previous, hash,
        quote(seq) || ',' || quote(at) || ',' || quote(actor)
            || ',' || quote(action) || ',' || quote(version) || ',' || quote(from_state)
            || ',' || quote(to_state) || ',' || quote(reason) || ',' || quote(evidence)
            || ',' || quote(previous) || ',' || quote(hash)
    FROM registry_event ORDER BY seq";

/// Checks an entry, and notes it in the ledger.
fn check(entry: &Entry, head: &Head, ledger: &mut Ledger) -> Result<(), &'static str> {
    if entry.seq != head.entries + 1 {
        return Err("is missing");
    }
    if entry.previous != head.hash {
        return Err("does not follow the one before");
    }
    if entry.hash != entry.hashed() {
        return Err("was changed after it was written");
    }
    let draft = entry.draft().ok_or("cannot be read")?;
    if matches!(draft.deed, Deed::Segment { .. }) {
        return Err("begins a segment where nothing was broken");
    }
    let change = ledger.admit(&draft).map_err(|_| "is not allowed by the rules")?;
    if entry.change() != Some(change) {
        return Err("tells another state than the rules give");
    }
    Ok(())
}

/// Adds a deed to the log, and returns its entry.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub(super) fn append(
    connection: &Connection,
    head: &Head,
    draft: &Draft,
    change: Change,
) -> rusqlite::Result<Entry> {
    let evidence = serde_json::to_string(&draft.deed)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let [from, to] = [change.0, change.1].map(|state| state.map(|state| state.to_string()));
    let mut entry = Entry {
        seq: head.entries + 1,
        at: draft.at,
        actor: draft.actor.to_text(),
        action: draft.deed.name().to_owned(),
        version: draft.version.clone(),
        from,
        to,
        reason: draft.reason.clone(),
        evidence,
        previous: head.hash.clone(),
        hash: String::new(),
    };
    entry.hash = entry.hashed();
    let mut insert = connection.prepare_cached(
        "INSERT INTO registry_event
            (seq, at, actor, action, version, from_state, to_state, reason, evidence, previous,
             hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    insert.execute(params![
        entry.seq,
        entry.at,
        entry.actor,
        entry.action,
        entry.version,
        entry.from,
        entry.to,
        entry.reason,
        entry.evidence,
        entry.previous,
        entry.hash,
    ])?;
    Ok(entry)
}

/// Returns the last entries, the newest first, as they are stored.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn last(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, at, actor, action, version, from_state, to_state, reason, evidence, previous,
                hash
         FROM registry_event ORDER BY seq DESC LIMIT ?1",
    )?;
    statement.query_map([limit], entry)?.collect()
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: row.get(0)?,
        at: row.get(1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        version: row.get(4)?,
        from: row.get(5)?,
        to: row.get(6)?,
        reason: row.get(7)?,
        evidence: row.get(8)?,
        previous: row.get(9)?,
        hash: row.get(10)?,
    })
}
