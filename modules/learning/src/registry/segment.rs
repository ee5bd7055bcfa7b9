//! Segments of the log: what goes on behind entries that are not as they were written.
//!
//! A broken chain is never mended. A person may begin a new segment: an entry that names the last
//! entry that is whole, and the hash of all rows between, so that these cannot be changed once
//! more. What they told counts no more, and neither does any approval of before.

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Deed, Digest, Ledger,
    audit::{Entry, Finding, Head},
};

/// Column of a row with all of its values as SQL writes them.
const QUOTED: usize = 11;

/// Entries that do not count, as the entry behind them names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Number of the last entry that is whole; 0 where none is.
    pub after: i64,
    /// Hash of that entry.
    pub after_hash: String,
    /// Number of rows between it and the new segment.
    pub rows: u64,
    /// Digest of these rows as they are.
    pub digest: Digest,
}

/// A segment that a person began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// Number of the entry that begins it.
    pub entry: i64,
    /// Hash of that entry.
    pub hash: String,
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The one who began it.
    pub actor: String,
    /// Their reason.
    pub reason: String,
    /// The fault that was found.
    pub found: String,
    /// Entries before it that do not count.
    pub broken: Broken,
}

/// Entries from a fault on, while the log is read.
pub(super) struct BrokenPart {
    number: i64,
    fault: &'static str,
    rows: u64,
    hasher: Sha256,
    /// Hash of the last row, whatever it is.
    last: Option<String>,
}

impl BrokenPart {
    pub(super) fn begin(number: i64, fault: &'static str, row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut part = Self { number, fault, rows: 0, hasher: Sha256::new(), last: None };
        part.add(row)?;
        Ok(part)
    }

    pub(super) fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let text: String = row.get(QUOTED)?;
        self.hasher.update((text.len() as u64).to_be_bytes());
        self.hasher.update(text);
        self.rows += 1;
        self.last = row.get(QUOTED - 1).ok();
        Ok(())
    }

    pub(super) const fn finding(&self) -> Finding {
        Finding::Broken { entry: self.number, fault: self.fault }
    }

    /// Returns what a segment behind it has to name.
    fn named(&self, whole: &Head) -> Broken {
        Broken {
            after: whole.entries,
            after_hash: whole.hash.clone(),
            rows: self.rows,
            digest: Digest::from(<[u8; 32]>::from(self.hasher.clone().finalize())),
        }
    }

    /// Returns the segment that an entry begins, and notes it in the ledger.
    pub(super) fn ended_by(
        &self,
        entry: &Entry,
        whole: &Head,
        ledger: &mut Ledger,
    ) -> Option<Segment> {
        let draft = entry.draft()?;
        let Deed::Segment { found, broken } = &draft.deed else { return None };
        let is_it = entry.hash == entry.hashed()
            && self.last.as_ref() == Some(&entry.previous)
            && *broken == self.named(whole)
            && entry.from.is_none()
            && entry.to.is_none();
        let (found, broken) = (found.clone(), broken.clone());
        if !is_it || ledger.admit(&draft).is_err() {
            return None;
        }
        Some(Segment {
            entry: entry.seq,
            hash: entry.hash.clone(),
            at: entry.at,
            actor: entry.actor.clone(),
            reason: entry.reason.clone(),
            found,
            broken,
        })
    }
}

/// Returns what a segment at the end of a broken log names, and the last row, behind which it
/// stands; `None` where that row has no hash to go on from.
///
/// # Errors
///
/// When the database cannot be read.
pub(super) fn of_end(
    connection: &Connection,
    whole: &Head,
) -> rusqlite::Result<Option<(Broken, Head)>> {
    let mut statement = connection.prepare_cached(super::audit::READ)?;
    let mut rows = statement.query([])?;
    let mut part = BrokenPart {
        number: whole.entries + 1,
        fault: "",
        rows: 0,
        hasher: Sha256::new(),
        last: None,
    };
    while let Some(row) = rows.next()? {
        // Numbers are the key of the table: they are whole numbers whatever else was written. Where
        // nothing is whole there may be some below the first.
        if whole.entries == 0 || row.get::<_, i64>(0)? > whole.entries {
            part.add(row)?;
        }
    }
    let end = "SELECT seq FROM registry_event ORDER BY seq DESC LIMIT 1";
    let end: Option<i64> = connection.query_row(end, [], |row| row.get(0)).optional()?;
    let last = part.last.clone().zip(end);
    Ok(last.map(|(hash, entries)| (part.named(whole), Head { entries, hash })))
}
