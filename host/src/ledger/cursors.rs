//! How far each subscriber has come, and its books: one small file, replaced whole.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{LedgerError, io_error, store::now_ms};

const FORMAT: u32 = 1;

/// Why an event was not handled and never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Beyond what the ledger keeps.
    Retention,
    /// A live event that found its inbox full of newer ones.
    Overflow,
    /// A live event whose handler failed.
    Failed,
    /// A live event whose module stopped first.
    Stopped,
    /// A live event that the end of the daemon met.
    Restart,
    /// The ledger lost it: damage, a file removed by hand, a power cut with durability `process`.
    Lost,
    /// A dead letter that was purged, or was pushed out by newer ones.
    Purged,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Retention,
        Self::Overflow,
        Self::Failed,
        Self::Stopped,
        Self::Restart,
        Self::Lost,
        Self::Purged,
    ];

    /// The label that metrics and tables show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Overflow => "overflow",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Restart => "restart",
            Self::Lost => "lost",
            Self::Purged => "purged",
        }
    }
}

/// Dropped events by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Reasons", into = "Reasons")]
pub struct Dropped([u64; DropReason::ALL.len()]);

type Reasons = std::collections::BTreeMap<String, u64>;

impl Dropped {
    /// How many for this reason.
    #[must_use]
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many for all reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let counts = self.0;
        DropReason::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// Counts some more.
    pub(crate) const fn add(&mut self, reason: DropReason, count: u64) {
        self.0[reason as usize] += count;
    }
}

impl From<Reasons> for Dropped {
    fn from(reasons: Reasons) -> Self {
        Self(DropReason::ALL.map(|reason| reasons.get(reason.name()).copied().unwrap_or_default()))
    }
}

impl From<Dropped> for Reasons {
    fn from(dropped: Dropped) -> Self {
        dropped.iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect()
    }
}

/// The books of one class of events of one subscriber. Each figure is counted where its event
/// happens; none is derived from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Taken in for this subscriber.
    pub accepted: u64,
    /// Its handler said `Ok`.
    pub handled: u64,
    /// In its list of dead letters.
    pub dead: u64,
    /// Given up.
    pub dropped: Dropped,
    /// Not yet any of these.
    pub pending: u64,
}

impl Counts {
    /// `accepted = handled + dead + dropped + pending`.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.accepted == self.handled + self.dead + self.dropped.total() + self.pending
    }

    /// Both classes together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut dropped = self.dropped;
        for (reason, count) in other.dropped.iter() {
            dropped.add(reason, count);
        }
        Self {
            accepted: self.accepted + other.accepted,
            handled: self.handled + other.handled,
            dead: self.dead + other.dead,
            dropped,
            pending: self.pending + other.pending,
        }
    }

    /// Moves pending events to the dropped ones.
    pub(crate) const fn drop_pending(&mut self, reason: DropReason, count: u64) {
        self.pending -= count;
        self.dropped.add(reason, count);
    }
}

/// Filters that hold from a sequence on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    pub(crate) from: u64,
    pub(crate) filters: Vec<String>,
}

/// One subscriber at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    pub(crate) module: String,
    /// Its filters, oldest first; what was accepted under old ones stays accepted.
    pub(crate) epochs: Vec<Epoch>,
    /// Every event up to here is settled.
    pub(crate) acked: u64,
    /// Every event up to here is in `ledger.accepted`.
    pub(crate) seen: u64,
    pub(crate) ledger: Counts,
    pub(crate) live: Counts,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Cursors {
    path: PathBuf,
    sync: bool,
}

#[derive(Serialize, Deserialize)]
struct Content {
    format: u32,
    modules: Vec<Cursor>,
}

/// What the file said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) cursors: Vec<Cursor>,
    /// The file was there and could not be read: whoever subscribes next must begin with the
    /// oldest event kept, since redelivery is better than loss.
    pub(crate) damaged: bool,
}

impl Cursors {
    /// The file in `directory`; with `sync` it survives a power cut.
    pub(crate) fn new(directory: &Path, sync: bool) -> Self {
        Self { path: directory.join("subscriptions.json"), sync }
    }

    /// Reads it. A damaged file is moved aside.
    pub(crate) fn load(&self) -> Result<Loaded, LedgerError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Loaded { cursors: Vec::new(), damaged: false });
            }
            Err(error) => return Err(io_error("read", &self.path)(error)),
        };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if let Ok(Format { format }) = serde_json::from_slice(&bytes)
            && format > FORMAT
        {
            return Err(LedgerError::Newer {
                path: self.path.clone(),
                found: format,
                known: FORMAT,
            });
        }
        match serde_json::from_slice::<Content>(&bytes) {
            Ok(content) => Ok(Loaded { cursors: content.modules, damaged: false }),
            Err(error) => {
                let aside = self.path.with_extension(format!("damaged-{}", now_ms()));
                fs::rename(&self.path, &aside).map_err(io_error("move aside", &self.path))?;
                tracing::error!(
                    %error, kept = %aside.display(),
                    "the subscriptions of the event ledger cannot be read; every module gets the \
                     events that are kept once more"
                );
                Ok(Loaded { cursors: Vec::new(), damaged: true })
            }
        }
    }

    /// Replaces it.
    pub(crate) fn save(&self, modules: Vec<Cursor>) -> Result<(), LedgerError> {
        let temporary = self.path.with_extension("json.new");
        let save = || -> std::io::Result<()> {
            let bytes = serde_json::to_vec_pretty(&Content { format: FORMAT, modules })?;
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            if self.sync {
                file.sync_all()?;
            }
            fs::rename(&temporary, &self.path)?;
            if self.sync
                && let Some(directory) = self.path.parent()
            {
                File::open(directory)?.sync_all()?;
            }
            Ok(())
        };
        save().map_err(io_error("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        let mut ledger =
            Counts { accepted: 9, handled: 4, dead: 1, pending: 3, ..Counts::default() };
        ledger.dropped.add(DropReason::Retention, 1);
        Cursor {
            module: "usage_tracker".to_owned(),
            epochs: vec![Epoch { from: 1, filters: vec!["llm.>".to_owned()] }],
            acked: 6,
            seen: 9,
            ledger,
            live: Counts::default(),
        }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().expect("a directory");
        for sync in [false, true] {
            let cursors = Cursors::new(directory.path(), sync);
            cursors.save(vec![cursor()]).expect("room");
            let loaded = cursors.load().expect("readable");
            assert_eq!(loaded, Loaded { cursors: vec![cursor()], damaged: false });
            assert!(loaded.cursors[0].ledger.balanced());
        }
    }

    #[test]
    fn a_damaged_file_is_moved_aside_and_a_newer_one_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let cursors = Cursors::new(directory.path(), false);
        assert!(!cursors.load().expect("nothing there").damaged);
        fs::write(&cursors.path, b"{\"format\":1,\"modules\":[{").expect("written");
        assert!(cursors.load().expect("moved aside").damaged);
        assert!(!cursors.path.exists());
        fs::write(&cursors.path, b"{\"format\":2,\"people\":[]}").expect("written");
        let error = cursors.load().expect_err("newer").to_string();
        assert!(error.contains("format 2") && error.contains("newer daemon"), "{error}");
    }

    #[test]
    fn reasons_keep_their_names() {
        let mut dropped = Dropped::default();
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            dropped.add(reason, index as u64);
        }
        let text = serde_json::to_string(&dropped).expect("json");
        assert_eq!(serde_json::from_str::<Dropped>(&text).expect("json"), dropped);
        assert_eq!(dropped.total(), 21);
    }
}
