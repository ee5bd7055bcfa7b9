//! The losses that were found in the ledger: reported until they are a week old.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lodestar_platform::files;
use serde::{Deserialize, Serialize};

use super::{checked, store::now_ms};

/// Time for which a loss is reported, in milliseconds.
const KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// Number of losses that are reported at most; more are only counted, for each module.
const MAX_LOSSES: usize = 256;

/// Kind of a loss in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Records whose checksums are wrong.
    Damaged,
    /// A segment that ends before its last record.
    Cut,
    /// A segment that lodestard did not delete.
    Missing,
    /// A segment that the system does not let lodestard read, or a file that is no segment.
    Unreadable,
    /// Both files with the cursors of the modules: all events kept are delivered once more.
    Subscriptions,
    /// One of the two files with the cursors of the modules. No event is lost.
    Copy,
    /// Dead letters of a module, as many as `last` says.
    DeadLetters,
}

/// Certainty of the range of events that a loss names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Exactly these events.
    #[default]
    Exact,
    /// These events, and perhaps some that were accepted behind them.
    AtLeast,
    /// Some of these events, perhaps all.
    AtMost,
}

/// One loss, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Time when the loss was found, in milliseconds since the Unix epoch.
    pub found_ms: u64,
    /// Kind of the loss.
    pub kind: LossKind,
    /// Name of the file.
    pub file: String,
    /// The sequence of the first event, 0 where it is not about single events.
    pub first: u64,
    /// The sequence of the last event; for dead letters, their number.
    pub last: u64,
    /// Certainty of `first` and `last`.
    #[serde(default)]
    pub extent: Extent,
}

impl Loss {
    /// Returns a sentence that says what happened to the file, and which events it cost.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { file, last, .. } = self;
        let events = self.events();
        let no_longer = format!("the ledger no longer has {events}");
        match self.kind {
            LossKind::Damaged => format!("{file} is damaged: {no_longer}"),
            LossKind::Cut => format!("{file} was cut short: {no_longer}"),
            LossKind::Missing => {
                format!("{file} is gone, and lodestard did not delete it: {no_longer}")
            }
            LossKind::Unreadable => {
                format!("{file} cannot be read: the ledger went on without {events}")
            }
            LossKind::Subscriptions => format!(
                "{file} and its copy were lost: every module gets all events that are kept, once \
                 it runs, those that it had handled as well"
            ),
            LossKind::Copy => {
                format!("{file} was lost and restored from its copy: no event is lost")
            }
            LossKind::DeadLetters => {
                let dead_letters = if *last == 1 { "letter" } else { "letters" };
                format!("{file} is damaged or gone: {last} dead {dead_letters} lost")
            }
        }
    }

    /// Returns the numbers of the events, and how many they are where that is not certain.
    fn events(&self) -> String {
        let Self { first, last, .. } = self;
        let count = last.saturating_sub(*first) + 1;
        let plural = if count == 1 { "" } else { "s" };
        let numbers = if count == 1 { first.to_string() } else { format!("{first} to {last}") };
        match self.extent {
            Extent::Exact => format!("event{plural} {numbers}"),
            Extent::AtLeast => format!("at least {count} event{plural} ({numbers})"),
            Extent::AtMost => format!("at most {count} event{plural} ({numbers})"),
        }
    }

    fn is_told(&self) -> bool {
        now_ms().saturating_sub(self.found_ms) < KEPT_MS
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    losses: Vec<Loss>,
}

impl Extent {
    /// Returns the extent of both losses together: that of `other` unless it is exact.
    const fn and(self, other: Self) -> Self {
        if matches!(other, Self::Exact) { self } else { other }
    }
}

/// Parses the losses of a file; `None` where its checksum is wrong, since a wrong number would cost
/// events that are there.
fn parse(bytes: &[u8]) -> Option<Vec<Loss>> {
    let content = checked::is_whole(bytes).then(|| serde_json::from_slice::<Content>(bytes));
    Some(content?.ok()?.losses)
}

impl LossKind {
    /// Returns the name that the control API shows.
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

    /// Returns the remedy.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Damaged | Self::Cut => {
                "check the disk and its file system; `lodestar events lag` tells which modules \
                 had not handled some of them (lost), and no other event is touched"
            }
            Self::Missing => {
                "find out what deletes files there, nothing but lodestard may; `lodestar events \
                 lag` tells which modules had not handled some of them (lost)"
            }
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
    /// Opens the losses that the file in `directory` holds; none where it cannot be read.
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

    /// Returns the losses that are still reported.
    pub(crate) fn list(&self) -> Vec<Loss> {
        let list = self.lock();
        list.iter().filter(|loss| loss.is_told()).cloned().collect()
    }

    /// Notes a loss that is not about single events, with a count; it is added to the one known.
    pub(crate) fn note_some(&self, kind: LossKind, file: &str, count: u64) {
        self.note(kind, file, 0, count, Extent::Exact);
    }

    /// Notes a loss of the events `first` to `last`, unless it is known; neighbours are one loss.
    pub(crate) fn note(&self, kind: LossKind, file: &str, first: u64, last: u64, extent: Extent) {
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
            same.extent = same.extent.and(extent);
        } else if list.iter().filter(|loss| loss.is_told()).count() < MAX_LOSSES {
            let loss = Loss { found_ms, kind, file: file.to_owned(), first, last, extent };
            tracing::error!("event ledger: {}; {}", loss.sentence(), kind.remedy());
            list.push(loss);
        } else {
            return;
        }
        if let Err(error) = self.save(&list) {
            tracing::error!(path = %self.path.display(), %error, "cannot write down the losses");
        }
    }

    /// Returns the first and last sequence of each loss: were such an event there again, it would
    /// still count as lost, since nobody waits for it any more.
    pub(crate) fn ranges(&self) -> Vec<RangeInclusive<u64>> {
        let list = self.lock();
        list.iter().filter(|loss| loss.first > 0).map(|loss| loss.first..=loss.last).collect()
    }

    /// Saves the list. It is not synced: what was lost can be found again.
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
        losses.note(LossKind::Damaged, "1.log", 5, 5, Extent::Exact);
        losses.note(LossKind::Damaged, "1.log", 6, 7, Extent::Exact);
        losses.note(LossKind::Cut, "1.log", 6, 6, Extent::Exact);
        losses.note_some(LossKind::Subscriptions, "subscriptions.json", 0);
        losses.note_some(LossKind::Subscriptions, "subscriptions.json", 0);
        let told = losses.list();
        let ranges: Vec<_> = told.iter().map(|loss| (loss.kind, loss.first, loss.last)).collect();
        assert_eq!(ranges, [(LossKind::Damaged, 5, 7), (LossKind::Subscriptions, 0, 0)]);
        let losses = Losses::open(directory.path());
        assert_eq!(losses.list(), told);
        losses.lock()[0].found_ms -= KEPT_MS;
        assert_eq!(losses.list(), told[1..]);
    }

    #[test]
    fn sentences_claim_no_more_than_is_known() {
        let check = |kind, first, last, extent, expected: &str| {
            let loss = Loss { found_ms: 0, kind, file: "1.log".to_owned(), first, last, extent };
            assert_eq!(loss.sentence(), expected);
            // What waits was not delivered, and what was handled is no loss to anybody.
            assert!(!kind.remedy().contains("were delivered"), "{}", kind.remedy());
        };
        let no_longer = "the ledger no longer has";
        let (exact, least) = (Extent::Exact, Extent::AtLeast);
        let damaged = format!("1.log is damaged: {no_longer} event 5");
        check(LossKind::Damaged, 5, 5, exact, &damaged);
        let cut = format!("1.log was cut short: {no_longer} events 5 to 7");
        check(LossKind::Cut, 5, 7, exact, &cut);
        let cut = format!("1.log was cut short: {no_longer} at least 3 events (5 to 7)");
        check(LossKind::Cut, 5, 7, least, &cut);
        let gone = format!(
            "1.log is gone, and lodestard did not delete it: {no_longer} at least 1 event (5)"
        );
        check(LossKind::Missing, 5, 5, least, &gone);
        let unread = "1.log cannot be read: the ledger went on without at most 2 events (5 to 6)";
        check(LossKind::Unreadable, 5, 6, Extent::AtMost, unread);
        let dead_letters = "1.log is damaged or gone: 2 dead letters lost";
        check(LossKind::DeadLetters, 0, 2, exact, dead_letters);
    }

    #[test]
    fn neighbours_are_as_uncertain_as_the_less_certain_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let losses = Losses::open(directory.path());
        losses.note(LossKind::Cut, "1.log", 5, 6, Extent::Exact);
        losses.note(LossKind::Cut, "1.log", 7, 9, Extent::AtLeast);
        let told = losses.list();
        assert_eq!((told.len(), told[0].last, told[0].extent), (1, 9, Extent::AtLeast));
        assert_eq!(Losses::open(directory.path()).list(), told, "over a restart as well");
    }

    #[test]
    fn no_more_losses_are_told_than_a_reader_can_use() {
        let directory = tempfile::tempdir().expect("a directory");
        let losses = Losses::open(directory.path());
        for number in 1..=100 {
            losses.note(LossKind::Damaged, "1.log", number * 2, number * 2, Extent::Exact);
        }
        assert_eq!(losses.list().len(), 100);
        for number in 101..=300 {
            losses.note(LossKind::Damaged, "1.log", number * 2, number * 2, Extent::Exact);
        }
        let told = losses.list();
        assert_eq!((told.len(), told[MAX_LOSSES - 1].first), (MAX_LOSSES, 512));
        let mut bytes = fs::read(&losses.path).expect("a file");
        bytes[100] ^= 1;
        fs::write(&losses.path, bytes).expect("damaged");
        assert_eq!(Losses::open(directory.path()).list(), []);
    }
}
