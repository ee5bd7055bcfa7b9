//! The segments of a ledger, and its health.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use lodestar_platform::files;

use super::{
    Extent, LedgerError, LedgerTrouble, Loss, LossKind, PublishError, io_error,
    losses::Losses,
    relayed::RelayedIds,
    reserve::Reserve,
    segment::{HEADER_BYTES, Segment, segment_base},
};

/// Kinds of stops that an accepted ledger event survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The end of the daemon, `kill -9` too: the event has been given to the kernel.
    #[default]
    Process,
    /// A power cut too: the event has been synced to the disk.
    Power,
}

/// Health of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerHealth {
    /// Problem with writing, `None` while there is none.
    pub trouble: Option<LedgerTrouble>,
    /// Problem of the thread that keeps the counters, `None` while it runs.
    pub unkept: Option<LedgerTrouble>,
    /// Writes that failed since the daemon started.
    pub failed_writes: u64,
    /// Losses that were found in the last seven days, oldest first.
    pub losses: Vec<Loss>,
}

/// One segment file.
#[derive(Debug, Clone)]
pub(crate) struct SegmentInfo {
    pub(crate) base: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The segments on disk, shared by the writer, the readers and the maintenance thread.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) directory: PathBuf,
    pub(crate) durability: Durability,
    /// The size at which a segment is sealed, in bytes.
    pub(crate) segment_bytes: u64,
    /// Segments in order; the last one is being written.
    segments: Mutex<Vec<SegmentInfo>>,
    health: Mutex<LedgerHealth>,
    pub(crate) losses: Losses,
    pub(crate) reserve: Reserve,
    pub(crate) relayed: RelayedIds,
    /// Base before which segments may be deleted at any moment.
    retired: AtomicU64,
}

/// State of a ledger that is remembered outside its segments.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// The highest sequence that any subscriber has seen.
    pub(crate) floor: u64,
    /// Bases of the segments that were there and were not to be deleted.
    pub(crate) segments: Vec<u64>,
    /// True when nothing was accepted after this was written down: the daemon ended in order.
    pub(crate) is_closed: bool,
}

impl Memory {
    /// Returns how exact a loss is that ends with the last event known: after a kill others may
    /// have come behind it.
    const fn extent(&self) -> Extent {
        if self.is_closed { Extent::Exact } else { Extent::AtLeast }
    }
}

/// State of a ledger after it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) ledger: Arc<Ledger>,
    /// The segment that is written next.
    pub(crate) active: Segment,
    /// The sequence that the next event gets.
    pub(crate) next: u64,
    /// Sequence of the last event that is there; before `next - 1` when events at the end were
    /// lost.
    pub(crate) last: u64,
    /// Time when the first event of the active segment was accepted, in milliseconds since the Unix
    /// epoch; 0 for none yet.
    pub(crate) first_ms: u64,
    /// True when something was lost since the ledger was last open.
    pub(crate) is_hurt: bool,
}

impl Ledger {
    /// Opens the segments in `directory`, cuts an unfinished write off the last one, notes losses,
    /// and continues behind all that was ever accepted: no number comes twice.
    pub(crate) fn open(
        directory: &Path,
        durability: Durability,
        segment_bytes: u64,
        memory: &Memory,
        losses: Losses,
        reserve: Reserve,
    ) -> Result<Opened, LedgerError> {
        fs::create_dir_all(directory).map_err(io_error("make the directory", directory))?;
        let mut segments = list(directory)?;
        let known_before = losses.list();
        // What was lost has had its number, and is lost for ever.
        let lost = losses.ranges().into_iter().map(|range| *range.end());
        let floor = lost.fold(memory.floor, u64::max);
        let memory = Memory { floor, ..memory.clone() };
        tell_missing(&segments, &memory, &losses);
        let End { active, next, last, first_ms } = recover(&mut segments, &memory, &losses)?;
        let is_hurt = losses.list() != known_before;
        let ledger = Self {
            directory: directory.to_owned(),
            durability,
            segment_bytes,
            segments: Mutex::new(segments),
            health: Mutex::default(),
            losses,
            reserve,
            relayed: RelayedIds::default(),
            retired: AtomicU64::new(0),
        };
        let active = match active {
            Some(active) => active,
            None => ledger
                .begin_segment(next)
                .map_err(io_error("begin an event ledger segment in", directory))?,
        };
        Ok(Opened { ledger: Arc::new(ledger), active, next, last, first_ms, is_hurt })
    }

    /// Creates the segment whose first event gets the sequence `base`.
    pub(crate) fn begin_segment(&self, base: u64) -> std::io::Result<Segment> {
        // Its own directory only: without the one above nothing of the ledger is there.
        if !self.directory.exists() {
            fs::create_dir(&self.directory)?;
        }
        let segment = Segment::create(&self.directory, base, self.is_power())?;
        let path = segment.path().to_owned();
        let mut segments = self.segments();
        // A segment that got no event has the same name.
        segments.retain(|info| info.base != base);
        segments.push(SegmentInfo { base, path, bytes: segment.bytes() });
        Ok(segment)
    }

    /// Returns whether an event must be on the disk before it is accepted.
    pub(crate) fn is_power(&self) -> bool {
        self.durability == Durability::Power
    }

    /// Notes the size of the active segment.
    pub(crate) fn grown(&self, bytes: u64) {
        if let Some(active) = self.segments().last_mut() {
            active.bytes = bytes;
        }
    }

    /// Returns the segments, in order.
    pub(crate) fn list(&self) -> Vec<SegmentInfo> {
        self.segments().clone()
    }

    /// Returns the segment that holds a sequence, or the first one after it.
    pub(crate) fn segment_holding(&self, sequence: u64) -> Option<(u64, PathBuf)> {
        let segments = self.segments();
        let after = segments.partition_point(|info| info.base <= sequence);
        let info = segments.get(after.saturating_sub(1))?;
        Some((info.base, info.path.clone()))
    }

    /// Returns the base of the segment after the one with this base.
    pub(crate) fn segment_after(&self, base: u64) -> Option<u64> {
        let segments = self.segments();
        let after = segments.partition_point(|info| info.base <= base);
        segments.get(after).map(|info| info.base)
    }

    /// Marks the segments before this base for deletion; from here on their absence is no loss.
    pub(crate) fn retire_before(&self, base: u64) {
        self.retired.fetch_max(base, Ordering::SeqCst);
    }

    /// Returns the bases of the segments that are not marked for deletion.
    pub(crate) fn kept(&self) -> Vec<u64> {
        let retired = self.retired.load(Ordering::SeqCst);
        let bases = self.segments().iter().map(|info| info.base).collect::<Vec<_>>();
        bases.into_iter().filter(|base| *base >= retired).collect()
    }

    /// Finds the segments that somebody else has deleted, notes them as lost and forgets them;
    /// `upto` is the last event. The active one is reported as well but stays, until another one
    /// is.
    pub(crate) fn forget_missing(&self, upto: u64) -> Missing {
        let mut missing = Missing::default();
        let segments = self.list();
        for (index, info) in segments.iter().enumerate() {
            let there = info.path.symlink_metadata();
            if !there.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                continue;
            }
            let after = segments.get(index + 1).map(|after| after.base);
            let last = after.map_or(upto, |after| after - 1);
            if last >= info.base {
                let file = name(&info.path);
                self.losses.note(LossKind::Missing, &file, info.base, last, Extent::Exact);
            }
            if after.is_some() {
                self.segments().retain(|other| other.base != info.base);
                missing.any = true;
            } else {
                missing.active = true;
            }
        }
        missing
    }

    /// Deletes the oldest segment. The active one stays.
    pub(crate) fn remove_oldest(&self) -> Result<(), LedgerError> {
        let mut segments = self.segments();
        if segments.len() < 2 {
            return Ok(());
        }
        let path = &segments[0].path;
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("remove", path)(error)),
        }
        segments.remove(0);
        Ok(())
    }

    /// Returns the health of the ledger.
    pub(crate) fn health(&self) -> LedgerHealth {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let full = || LedgerTrouble {
            what: format!("the disk is full: no event is accepted in {}", self.directory.display()),
            remedy: "free space on its file system".to_owned(),
        };
        let trouble = health.trouble.or_else(|| self.reserve.is_spent().then(full));
        LedgerHealth { losses: self.losses.list(), trouble, ..health }
    }

    /// Notes that the thread which keeps the counters has ended by a panic.
    pub(crate) fn maintenance_ended(&self) {
        let unkept = LedgerTrouble {
            what: "the thread that keeps the event ledger's counters has ended by a defect of \
                   lodestard: after a restart events may come again, and no old ones are deleted"
                .to_owned(),
            remedy: "restart lodestard, and report what its log says".to_owned(),
        };
        tracing::error!("{}", unkept.what);
        self.health.lock().unwrap_or_else(PoisonError::into_inner).unkept = Some(unkept);
    }

    /// Notes how a write went.
    pub(crate) fn wrote(&self, outcome: Result<(), &PublishError>) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, &health.trouble) {
            (Ok(()), None) => return,
            (Ok(()), Some(_)) => tracing::info!("the event ledger can be written again"),
            (Err(error), None) => tracing::error!("{error}"),
            (Err(_), Some(_)) => {}
        }
        health.failed_writes += u64::from(outcome.is_err());
        health.trouble = outcome.err().and_then(PublishError::trouble);
    }

    fn segments(&self) -> MutexGuard<'_, Vec<SegmentInfo>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the time in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Segments that somebody else has deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// True when some full ones were deleted.
    pub(crate) any: bool,
    /// True when the one that is being written was deleted.
    pub(crate) active: bool,
}

/// End of a ledger, as it was found at start.
struct End {
    active: Option<Segment>,
    next: u64,
    last: u64,
    first_ms: u64,
}

/// Notes remembered segments that are missing as lost.
fn tell_missing(segments: &[SegmentInfo], memory: &Memory, losses: &Losses) {
    let there: Vec<u64> = segments.iter().map(|info| info.base).collect();
    for base in memory.segments.iter().filter(|base| !there.contains(base)) {
        let later = there.iter().chain(&memory.segments).filter(|other| *other > base).min();
        let last = later.map_or(memory.floor, |later| later - 1);
        let extent = if later.is_some() { Extent::Exact } else { memory.extent() };
        if last >= *base {
            let file = super::segment::segment_name(*base);
            losses.note(LossKind::Missing, &file, *base, last, extent);
        }
    }
}

/// Finds the end of the ledger: in the last segment that holds an event or may take the next one.
/// Empty ones after it are removed, unreadable ones stay.
fn recover(
    segments: &mut Vec<SegmentInfo>,
    memory: &Memory,
    losses: &Losses,
) -> Result<End, LedgerError> {
    let mut end = End { active: None, next: memory.floor + 1, last: 0, first_ms: 0 };
    while let Some(info) = segments.last_mut() {
        let name = name(&info.path);
        match Segment::recover(&info.path) {
            Ok(Some((segment, found)))
                if found.last.is_some() || found.lost_at_end > 0 || info.base >= end.next =>
            {
                info.bytes = segment.bytes();
                end.last = found.last.unwrap_or(info.base.saturating_sub(1));
                for (first, last) in &found.damaged {
                    losses.note(LossKind::Damaged, &name, *first, *last, Extent::Exact);
                }
                let begun = end.last + 1;
                if found.lost_at_end > 0 {
                    let most = end.last + found.lost_at_end;
                    let is_unread = found.is_end_unread;
                    let kind = if is_unread { LossKind::Unreadable } else { LossKind::Damaged };
                    let is_cut = memory.floor >= most;
                    let extent = if is_cut { memory.extent() } else { Extent::AtMost };
                    let last = most.max(memory.floor);
                    losses.note(kind, &name, begun, last, extent);
                    end.next = end.next.max(last + 1);
                } else if begun < end.next {
                    losses.note(LossKind::Cut, &name, begun, memory.floor, memory.extent());
                } else {
                    end.next = begun;
                    let is_writable = segment.is_writable();
                    (end.active, end.first_ms) = (is_writable.then_some(segment), found.first_ms);
                }
                if found.cut_bytes > 0 {
                    tracing::warn!(
                        segment = %info.path.display(), bytes = found.cut_bytes,
                        "cut an unfinished write off the event ledger"
                    );
                }
                return Ok(end);
            }
            // It was begun, and no event came.
            Ok(Some(_)) => {}
            Ok(None) if is_begun_header(info)? => {}
            Err(error) if !error.stays() => return Err(error),
            Ok(None) | Err(_) => {
                let most = info.bytes.div_ceil(super::record::MIN_RECORD_BYTES).max(1);
                let last = memory.floor.max(info.base.saturating_add(most) - 1);
                losses.note(LossKind::Unreadable, &name, info.base, last, Extent::AtMost);
                (end.last, end.next) = (info.base.saturating_sub(1), last + 1);
                return Ok(end);
            }
        }
        if memory.floor >= info.base {
            losses.note(LossKind::Cut, &name, info.base, memory.floor, memory.extent());
        }
        fs::remove_file(&info.path).map_err(io_error("remove", &info.path))?;
        segments.pop();
    }
    Ok(end)
}

/// Checks whether a kill or a power cut interrupted the creation of a segment.
fn is_begun_header(info: &SegmentInfo) -> Result<bool, LedgerError> {
    if info.bytes > HEADER_BYTES as u64 {
        return Ok(false);
    }
    let bytes = files::read(&info.path, HEADER_BYTES as u64);
    let bytes = bytes.map_err(io_error("read", &info.path))?;
    Ok(bytes.len() < HEADER_BYTES || bytes.iter().all(|byte| *byte == 0))
}

/// Returns the name of a file, for people.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn list(directory: &Path) -> Result<Vec<SegmentInfo>, LedgerError> {
    let read = |error| io_error("read the directory", directory)(error);
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        if let Some(base) = segment_base(&path) {
            // Of the file that a link leads to; of the link where it leads to none.
            let metadata = path.metadata().or_else(|_| entry.metadata());
            let bytes = metadata.map_err(read)?.len();
            segments.push(SegmentInfo { base, path, bytes });
        }
    }
    segments.sort_unstable_by_key(|info| info.base);
    Ok(segments)
}
