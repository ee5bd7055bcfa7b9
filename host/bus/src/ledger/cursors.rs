//! The cursors and counters of the subscribers: one small file and a copy of it, each replaced
//! whole.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use lodestar_platform::files;
use serde::{Deserialize, Serialize};

use super::{LedgerError, LossKind, Losses, checked, io_error, store::now_ms};

/// Version of the file's format. Format 1 had no checksum, no copy, and nothing about segments.
const FORMAT: u32 = 2;
const OLD_FORMAT: u32 = 1;
/// Reason for which an event was not handled and never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// An event beyond the ledger's limits of age and size.
    Retention,
    /// A live event that found its inbox full of newer ones.
    Overflow,
    /// A live event whose handler failed.
    Failed,
    /// A live event whose module stopped first.
    Stopped,
    /// A live event that waited when the daemon ended.
    Restart,
    /// An event that the ledger lost: damage, a file removed by hand, a power cut with durability
    /// `process`.
    Lost,
    /// A dead letter that was purged, or was pushed out by newer ones.
    Purged,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Retention,
        Self::Overflow,
        Self::Failed,
        Self::Stopped,
        Self::Restart,
        Self::Lost,
        Self::Purged,
    ];

    /// Returns the label that metrics and tables show.
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

/// Number of dropped events for each reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Reasons", into = "Reasons")]
pub struct Dropped([u64; DropReason::ALL.len()]);

type Reasons = std::collections::BTreeMap<String, u64>;

impl Dropped {
    /// Returns the number of events dropped for this reason.
    #[must_use]
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Returns the number of events dropped for all reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns the reasons that occurred, each with its number of events.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let counts = self.0;
        DropReason::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// Adds `count` events to a reason.
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

/// The counters of one class of events of one subscriber. Each figure is counted where its event
/// happens; none is derived from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Number of events taken in for this subscriber.
    pub accepted: u64,
    /// Number of events that the subscriber's handler handled.
    pub handled: u64,
    /// Number of events in the subscriber's list of dead letters.
    pub dead: u64,
    /// Number of events given up.
    pub dropped: Dropped,
    /// Number of events that are not yet handled, dead or dropped.
    pub pending: u64,
}

impl Counts {
    /// Checks whether `accepted = handled + dead + dropped + pending`.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.accepted == self.handled + self.dead + self.dropped.total() + self.pending
    }

    /// Returns the sum of both counters.
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

    /// Moves lost events to the pending ones.
    pub(crate) const fn find_again(&mut self, count: u64) {
        self.dropped.0[DropReason::Lost as usize] -= count;
        self.pending += count;
    }
}

/// Filters that hold from a sequence on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    pub(crate) from: u64,
    pub(crate) filters: Vec<String>,
}

/// State of one subscriber at one moment, as it is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    pub(crate) module: String,
    /// Filters of the subscriber, oldest first; what was accepted under old ones stays accepted.
    pub(crate) epochs: Vec<Epoch>,
    /// Sequence up to which every event is settled.
    pub(crate) acked: u64,
    /// Sequence up to which every event is counted in `ledger.accepted`.
    pub(crate) seen: u64,
    pub(crate) ledger: Counts,
    pub(crate) live: Counts,
}

/// Content of the cursors' file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Content {
    /// Bases of the segments that are not to be deleted.
    #[serde(default)]
    pub(crate) segments: Vec<u64>,
    /// Last sequence that is redelivered after the cursors were lost, 0 where they were not. A
    /// module that subscribes for the first time begins with the oldest event kept, for as long as
    /// an event up to this sequence is.
    #[serde(default)]
    pub(crate) redeliver_upto: u64,
    /// True when no event was accepted after the file was written, since the bus was closed.
    #[serde(default)]
    pub(crate) is_closed: bool,
    pub(crate) modules: Vec<Cursor>,
}

/// The file of the cursors and its copy.
#[derive(Debug)]
pub(crate) struct Cursors {
    path: PathBuf,
    copy: PathBuf,
    sync: bool,
}

#[derive(Serialize, Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    #[serde(flatten)]
    content: &'a Content,
}

/// Content of one of the two files, as it was read.
enum Read {
    Content(Content),
    /// Content that was written before there were copies.
    Old(Content),
    Absent,
    Damaged(String),
}

/// Content of both files together, as it was loaded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Loaded {
    Content(Content),
    /// Neither file exists; none is missed unless events are there.
    Nothing,
    /// At least one file was there and none could be read: a module that subscribes next must begin
    /// with the oldest event kept, since redelivery is better than loss.
    Damaged,
}

impl Cursors {
    /// Returns the files in `directory`; with `sync` they survive a power cut.
    pub(crate) fn new(directory: &Path, sync: bool) -> Self {
        let file = |name: &str| directory.join(name);
        Self { path: file("subscriptions.json"), copy: file("subscriptions.copy.json"), sync }
    }

    /// Reads both files. A damaged one is moved aside, and noted as a loss where the other one
    /// makes up for it.
    pub(crate) fn load(&self, losses: &Losses) -> Result<Loaded, LedgerError> {
        let (first, second) = (read(&self.path)?, read(&self.copy)?);
        for (file, path) in [(&first, &self.path), (&second, &self.copy)] {
            if let Read::Damaged(error) = file {
                let aside = path.with_extension(format!("damaged-{}", now_ms()));
                fs::rename(path, &aside).map_err(io_error("move aside", path))?;
                tracing::error!(
                    path = %path.display(), %error, kept = %aside.display(),
                    "the places of the modules in the event ledger cannot be read from this file"
                );
            }
        }
        Ok(match (first, second) {
            (Read::Content(content), Read::Content(_)) | (Read::Old(content), _) => {
                Loaded::Content(content)
            }
            (Read::Content(content), second) => {
                // A kill between the two first replacements leaves no copy, but what is to be it.
                let is_begun = matches!(second, Read::Absent)
                    && matches!(read(&beside(&self.copy))?, Read::Content(_));
                if !is_begun {
                    losses.note_some(LossKind::Copy, &super::store::name(&self.copy), 0);
                }
                Loaded::Content(content)
            }
            (_, Read::Content(content) | Read::Old(content)) => {
                losses.note_some(LossKind::Copy, &self.name(), 0);
                Loaded::Content(content)
            }
            (Read::Absent, Read::Absent) => Loaded::Nothing,
            _ => Loaded::Damaged,
        })
    }

    /// Returns the name of the first file.
    pub(crate) fn name(&self) -> String {
        super::store::name(&self.path)
    }

    /// Replaces both files, one after the other, once both new ones are written.
    pub(crate) fn save(&self, content: &Content) -> Result<(), LedgerError> {
        let document = Document { format: FORMAT, content };
        let bytes = checked::encode(&document).map_err(io_error("write", &self.path))?;
        for path in [&self.path, &self.copy] {
            self.write(&beside(path), &bytes).map_err(io_error("write", path))?;
        }
        for path in [&self.path, &self.copy] {
            self.replace(path).map_err(io_error("write", path))?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        if self.sync { file.sync_all() } else { Ok(()) }
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        fs::rename(beside(path), path)?;
        if self.sync
            && let Some(directory) = path.parent()
        {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}

/// Largest file that is read, in bytes: thousands of modules have room in it.
const MAX_BYTES: u64 = 64 << 20;

/// Returns the path of the file that is to replace `path`.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("json.new")
}

fn read(path: &Path) -> Result<Read, LedgerError> {
    let bytes = match files::read(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Absent),
        Err(error) if super::error::stays(&error) => return Ok(Read::Damaged(error.to_string())),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let format = serde_json::from_slice(&bytes).map(|Format { format }| format);
    if let Ok(found) = format
        && found > FORMAT
        && (checked::is_whole(&bytes) || !checked::is_meant(&bytes))
    {
        return Err(LedgerError::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    let content = serde_json::from_slice::<Content>(&bytes);
    Ok(match (format, content) {
        (Ok(FORMAT), Ok(content)) if checked::is_whole(&bytes) => Read::Content(content),
        (Ok(OLD_FORMAT), Ok(content)) if !checked::is_meant(&bytes) => Read::Old(content),
        (_, Err(error)) => Read::Damaged(error.to_string()),
        (_, Ok(_)) => Read::Damaged("its checksum is wrong".to_owned()),
    })
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

    fn content() -> Content {
        Content {
            segments: vec![1, 70],
            redeliver_upto: 7,
            is_closed: true,
            modules: vec![cursor()],
        }
    }

    fn kinds(losses: &Losses) -> Vec<(LossKind, String)> {
        losses.list().into_iter().map(|loss| (loss.kind, loss.file)).collect()
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().expect("a directory");
        let losses = Losses::open(directory.path());
        for sync in [false, true] {
            let cursors = Cursors::new(directory.path(), sync);
            cursors.save(&content()).expect("room");
            let loaded = cursors.load(&losses).expect("readable");
            assert_eq!(loaded, Loaded::Content(content()));
        }
        assert!(cursor().ledger.balanced());
        assert_eq!(losses.list(), []);
    }

    #[test]
    fn any_damage_to_one_file_costs_nothing_and_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let cursors = Cursors::new(directory.path(), false);
        cursors.save(&content()).expect("room");
        let whole = fs::read(&cursors.path).expect("a file");
        for path in [&cursors.path, &cursors.copy] {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let told = [(LossKind::Copy, name)];
            let check = |what: &dyn std::fmt::Debug| {
                let losses = Losses::open(&directory.path().join(format!("none{what:?}")));
                let loaded = cursors.load(&losses).expect("readable");
                assert_eq!(loaded, Loaded::Content(content()), "{what:?}");
                assert_eq!(kinds(&losses), told, "{what:?}");
                cursors.save(&content()).expect("room");
            };
            let is_damaged = || matches!(read(path), Ok(Read::Damaged(_)));
            for at in 0..whole.len() {
                for bit in [0x01, 0x80] {
                    let mut bytes = whole.clone();
                    bytes[at] ^= bit;
                    fs::write(path, bytes).expect("damaged");
                    assert!(is_damaged(), "{at} {bit}");
                }
                if at % 40 == 0 {
                    check(&at);
                }
                fs::write(path, &whole[..at]).expect("cut");
                assert!(is_damaged(), "{at}");
            }
            check(&"cut");
            fs::remove_file(path).expect("removed");
            check(&"removed");
        }
    }

    #[test]
    fn damage_to_both_is_told_from_a_first_start_and_a_newer_format_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let cursors = Cursors::new(directory.path(), false);
        let losses = Losses::open(directory.path());
        assert_eq!(cursors.load(&losses).expect("nothing there"), Loaded::Nothing);
        for text in ["", "{}", "{\"format\":1,\"modules\":[", "{\"format\":2,\"modules\":[]}"] {
            fs::write(&cursors.path, text).expect("written");
            assert_eq!(cursors.load(&losses).expect("moved aside"), Loaded::Damaged, "{text}");
            assert!(!cursors.path.exists());
        }
        fs::write(&cursors.path, b"{\"format\":3,\"people\":[]}").expect("written");
        let error = cursors.load(&losses).expect_err("newer").to_string();
        assert!(error.contains("format 3") && error.contains("newer daemon"), "{error}");
    }

    #[test]
    fn the_format_before_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let cursors = Cursors::new(directory.path(), false);
        let losses = Losses::open(directory.path());
        for modules in [vec![cursor()], Vec::new()] {
            let old = serde_json::json!({"format": 1, "modules": modules});
            fs::write(&cursors.path, old.to_string()).expect("written");
            let content = Content { modules, ..Content::default() };
            assert_eq!(cursors.load(&losses).expect("readable"), Loaded::Content(content));
            assert_eq!(losses.list(), []);
        }
    }

    #[test]
    fn a_kill_between_the_two_first_replacements_is_no_loss() {
        let directory = tempfile::tempdir().expect("a directory");
        let cursors = Cursors::new(directory.path(), false);
        let losses = Losses::open(directory.path());
        cursors.save(&content()).expect("room");
        fs::rename(&cursors.copy, beside(&cursors.copy)).expect("not yet replaced");
        assert_eq!(cursors.load(&losses).expect("readable"), Loaded::Content(content()));
        assert_eq!(losses.list(), []);
        fs::write(beside(&cursors.copy), b"{").expect("damaged");
        assert_eq!(cursors.load(&losses).expect("readable"), Loaded::Content(content()));
        assert_eq!(kinds(&losses), [(LossKind::Copy, "subscriptions.copy.json".to_owned())]);
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
