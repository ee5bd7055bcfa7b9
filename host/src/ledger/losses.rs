//! What the ledger lost and found out about: told until it is a week old.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{checked, store::now_ms};
use crate::files;

/// For how long a loss is told, in milliseconds.
const KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// How many losses are told; more are only counted, for each module.
const MAX_LOSSES: usize = 256;

/// What became of a part of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Records whose checksums are wrong.
    Damaged,
    /// A segment that ends before its last record.
    Cut,
    /// A segment that lodestard did not delete.
    Missing,
    /// A segment that the system does not let lodestard read, or that is none.
    Unreadable,
    /// Both files with the places of the modules: what is kept is delivered once more.
    Subscriptions,
    /// One of the two files with the places of the modules. It costs nothing.
    Copy,
    /// Dead letters of a module, as many as `last` says.
    DeadLetters,
}

/// One loss, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When, in milliseconds since the Unix epoch.
    pub found_ms: u64,
    /// What became of it.
    pub kind: LossKind,
    /// The file.
    pub file: String,
    /// The sequence of the first event, 0 where it is not about single events.
    pub first: u64,
    /// The sequence of the last event that may have been in it; how many, for dead letters.
    pub last: u64,
}

impl Loss {
    fn is_told(&self) -> bool {
        now_ms().saturating_sub(self.found_ms) < KEPT_MS
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    losses: Vec<Loss>,
}

/// A wrong number would cost events that are there.
fn parse(bytes: &[u8]) -> Option<Vec<Loss>> {
    let content = checked::is_whole(bytes).then(|| serde_json::from_slice::<Content>(bytes));
    Some(content?.ok()?.losses)
}

impl LossKind {
    /// The name that the control API shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Cut => "cut",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Subscriptions => "subscriptions",
            Self::Copy => "copy",
            Self::DeadLetters => "dead_letters",
        }
    }

    /// What happened to a file, and what it cost.
    #[must_use]
    pub fn sentence(self, file: &str, first: u64, last: u64) -> String {
        let events = match last.saturating_sub(first) {
            0 => format!("event {first}"),
            _ => format!("events {first} to {last}"),
        };
        match self {
            Self::Damaged => format!("{events} in {file} can no longer be read: damaged"),
            Self::Cut => format!("{file} was cut short: up to {events} lost"),
            Self::Missing => {
                format!("{file} is gone and lodestard did not delete it: {events} lost")
            }
            Self::Unreadable => format!("{file} cannot be read: up to {events} lost"),
            Self::Subscriptions => format!(
                "{file} and its copy were lost: every module gets the events that are kept once \
                 more"
            ),
            Self::Copy => format!("{file} was lost and restored from its copy: no event is lost"),
            Self::DeadLetters => {
                let letters = if last == 1 { "letter" } else { "letters" };
                format!("{file} is damaged or gone: {last} dead {letters} lost")
            }
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Damaged | Self::Cut => {
                "check the disk and its file system; the events before and after were delivered"
            }
            Self::Missing => "find out what deletes files there; nothing but lodestard may",
            Self::Unreadable => {
                "check the owner, the mode and the disk; once the file can be read again, \
                 `lodestar events replay MODULE --since TIME` delivers what is in it"
            }
            Self::Subscriptions | Self::Copy | Self::DeadLetters => {
                "check the disk, and find out what writes or deletes files there"
            }
        }
    }
}

/// The losses of a ledger, and the file that keeps them over a restart.
#[derive(Debug)]
pub(crate) struct Losses {
    path: PathBuf,
    list: Mutex<Vec<Loss>>,
}

impl Losses {
    /// Those that the file in `directory` remembers; one that cannot be read remembers none.
    pub(crate) fn open(directory: &Path) -> Self {
        let path = directory.join("losses.json");
        let list = match files::read(&path, files::MAX_TEXT) {
            Ok(bytes) => parse(&bytes).unwrap_or_else(|| {
                tracing::error!(path = %path.display(), "what the event ledger lost is forgotten");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        // Not before a start, which counts anew what waits: it may be there again.
        let list = list.into_iter().filter(Loss::is_told).collect();
        Self { path, list: Mutex::new(list) }
    }

    /// Those that are told.
    pub(crate) fn list(&self) -> Vec<Loss> {
        let list = self.lock();
        list.iter().filter(|loss| loss.is_told()).cloned().collect()
    }

    /// Notes a loss of the events `first` to `last`, unless it is known; neighbours are one loss.
    pub(crate) fn note(&self, kind: LossKind, file: &str, first: u64, last: u64) {
        let mut list = self.lock();
        let is_known =
            |loss: &Loss| loss.first > 0 && first > 0 && loss.first <= first && loss.last >= last;
        if list.iter().any(is_known) {
            return;
        }
        let same = list.iter_mut().rev().find(|loss| {
            let is_next = (loss.first..=loss.last.saturating_add(1)).contains(&first);
            loss.kind == kind && loss.file == file && (first == 0 || is_next)
        });
        let found_ms = now_ms();
        if let Some(same) = same {
            // What is not about single events is about so many more.
            let last = if first == 0 { same.last + last } else { last.max(same.last) };
            (same.last, same.found_ms) = (last, found_ms);
        } else if list.iter().filter(|loss| loss.is_told()).count() < MAX_LOSSES {
            let what = kind.sentence(file, first, last);
            tracing::error!("event ledger: {what}; {}", kind.remedy());
            list.push(Loss { found_ms, kind, file: file.to_owned(), first, last });
        } else {
            return;
        }
        if let Err(error) = self.save(&list) {
            tracing::error!(path = %self.path.display(), %error, "cannot write down the losses");
        }
    }

    /// First and last sequence of what was lost: were it there again, it would be lost still, since
    /// nobody waits for it any more.
    pub(crate) fn ranges(&self) -> Vec<RangeInclusive<u64>> {
        let list = self.lock();
        list.iter().filter(|loss| loss.first > 0).map(|loss| loss.first..=loss.last).collect()
    }

    /// Not synced: what was lost can be found again.
    fn save(&self, list: &[Loss]) -> io::Result<()> {
        let temporary = self.path.with_extension("json.new");
        fs::write(&temporary, checked::encode(&Content { losses: list.to_vec() })?)?;
        fs::rename(&temporary, &self.path)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Loss>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_once_and_over_a_restart_until_it_is_a_week_old() {
        let directory = tempfile::tempdir().expect("a directory");
        let losses = Losses::open(directory.path());
        losses.note(LossKind::Damaged, "1.log", 5, 5);
        losses.note(LossKind::Damaged, "1.log", 6, 7);
        losses.note(LossKind::Cut, "1.log", 6, 6);
        losses.note(LossKind::Subscriptions, "subscriptions.json", 0, 0);
        losses.note(LossKind::Subscriptions, "subscriptions.json", 0, 0);
        let told = losses.list();
        let ranges: Vec<_> = told.iter().map(|loss| (loss.kind, loss.first, loss.last)).collect();
        assert_eq!(ranges, [(LossKind::Damaged, 5, 7), (LossKind::Subscriptions, 0, 0)]);
        let losses = Losses::open(directory.path());
        assert_eq!(losses.list(), told);
        losses.lock()[0].found_ms -= KEPT_MS;
        assert_eq!(losses.list(), told[1..]);
    }

    #[test]
    fn no_more_losses_are_told_than_a_reader_can_use() {
        let directory = tempfile::tempdir().expect("a directory");
        let losses = Losses::open(directory.path());
        for number in 1..=100 {
            losses.note(LossKind::Damaged, "1.log", number * 2, number * 2);
        }
        assert_eq!(losses.list().len(), 100);
        for number in 101..=300 {
            losses.note(LossKind::Damaged, "1.log", number * 2, number * 2);
        }
        let told = losses.list();
        assert_eq!((told.len(), told[MAX_LOSSES - 1].first), (MAX_LOSSES, 512));
        let mut bytes = fs::read(&losses.path).expect("a file");
        bytes[100] ^= 1;
        fs::write(&losses.path, bytes).expect("damaged");
        assert_eq!(Losses::open(directory.path()).list(), []);
    }
}
