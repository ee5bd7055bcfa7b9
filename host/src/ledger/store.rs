//! The segments of a ledger, and how it fares.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    LedgerError, io_error,
    segment::{Found, Segment, segment_base},
};

/// What an accepted ledger event survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The end of the daemon, `kill -9` too: it has been given to the kernel.
    #[default]
    Process,
    /// A power cut too: it has been synced to the disk.
    Power,
}

/// How the ledger fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerHealth {
    /// Why the last write failed, `None` when it did not.
    pub trouble: Option<String>,
    /// Writes that failed since the daemon started.
    pub failed_writes: u64,
}

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct SegmentInfo {
    pub(crate) base: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The segments on disk, shared by the writer, the readers and who deletes them.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) directory: PathBuf,
    pub(crate) durability: Durability,
    /// The size at which a segment is sealed, in bytes.
    pub(crate) segment_bytes: u64,
    /// In order; the last one is being written.
    segments: Mutex<Vec<SegmentInfo>>,
    health: Mutex<LedgerHealth>,
}

/// What was found at start.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) ledger: Arc<Ledger>,
    /// The segment to go on with.
    pub(crate) active: Segment,
    /// The sequence that the next event gets.
    pub(crate) next: u64,
    /// The last event that is there; before `next - 1` when the ledger went back.
    pub(crate) last: u64,
    /// When the first event of the active segment was accepted, 0 for none yet.
    pub(crate) first_ms: u64,
}

impl Ledger {
    /// Opens the segments in `directory`, cuts a torn tail, and goes on after `floor`, the
    /// highest sequence that anybody remembers (a power cut can take the ledger back behind it).
    pub(crate) fn open(
        directory: &Path,
        durability: Durability,
        segment_bytes: u64,
        floor: u64,
    ) -> Result<Opened, LedgerError> {
        fs::create_dir_all(directory).map_err(io_error("make the directory", directory))?;
        let mut segments = list(directory)?;
        let (mut active, mut next, mut last, mut first_ms) = (None, floor + 1, 0, 0);
        if let Some((segment, found)) = recover_last(&mut segments, next)? {
            last = found.last.unwrap_or(next - 1);
            if last + 1 >= next {
                (active, next, first_ms) = (Some(segment), last + 1, found.first_ms);
            }
        }
        let ledger = Self {
            directory: directory.to_owned(),
            durability,
            segment_bytes,
            segments: Mutex::new(segments),
            health: Mutex::default(),
        };
        let active = match active {
            Some(active) => active,
            None => ledger
                .begin_segment(next)
                .map_err(io_error("begin an event ledger segment in", directory))?,
        };
        Ok(Opened { ledger: Arc::new(ledger), active, next, last, first_ms })
    }

    /// Begins the segment whose first event gets the sequence `base`.
    pub(crate) fn begin_segment(&self, base: u64) -> std::io::Result<Segment> {
        let segment = Segment::create(&self.directory, base, self.is_power())?;
        let path = segment.path().to_owned();
        let mut segments = self.segments();
        // A segment that got no event has the same name.
        segments.retain(|info| info.base != base);
        segments.push(SegmentInfo { base, path, bytes: segment.bytes() });
        Ok(segment)
    }

    /// Whether an event must be on the disk before it is accepted.
    pub(crate) fn is_power(&self) -> bool {
        self.durability == Durability::Power
    }

    /// Notes the size of the active segment.
    pub(crate) fn grown(&self, bytes: u64) {
        if let Some(active) = self.segments().last_mut() {
            active.bytes = bytes;
        }
    }

    /// The segments, in order.
    pub(crate) fn list(&self) -> Vec<SegmentInfo> {
        self.segments().clone()
    }

    /// The segment in which a sequence lies, or the first one after it.
    pub(crate) fn segment_holding(&self, sequence: u64) -> Option<(u64, PathBuf)> {
        let segments = self.segments();
        let after = segments.partition_point(|info| info.base <= sequence);
        let info = segments.get(after.saturating_sub(1))?;
        Some((info.base, info.path.clone()))
    }

    /// The base of the segment after the one with this base.
    pub(crate) fn segment_after(&self, base: u64) -> Option<u64> {
        let segments = self.segments();
        let after = segments.partition_point(|info| info.base <= base);
        segments.get(after).map(|info| info.base)
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

    /// How it fares.
    pub(crate) fn health(&self) -> LedgerHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how a write went.
    pub(crate) fn wrote(&self, outcome: Result<(), &str>) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, &health.trouble) {
            (Ok(()), None) => return,
            (Ok(()), Some(_)) => tracing::info!("the event ledger can be written again"),
            (Err(reason), None) => tracing::error!("{reason}"),
            (Err(_), Some(_)) => {}
        }
        health.failed_writes += u64::from(outcome.is_err());
        health.trouble = outcome.err().map(str::to_owned);
    }

    fn segments(&self) -> MutexGuard<'_, Vec<SegmentInfo>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The last segment that holds an event, or else one that may take the event `next`. Emptier ones
/// are removed.
fn recover_last(
    segments: &mut Vec<SegmentInfo>,
    next: u64,
) -> Result<Option<(Segment, Found)>, LedgerError> {
    while let Some(info) = segments.last_mut() {
        if let Some((segment, found)) = Segment::recover(&info.path)?
            && (found.last.is_some() || info.base == next)
        {
            if found.cut_bytes > 0 {
                tracing::warn!(
                    segment = %info.path.display(), bytes = found.cut_bytes,
                    "cut an unfinished write off the event ledger"
                );
            }
            info.bytes = segment.bytes();
            return Ok(Some((segment, found)));
        }
        fs::remove_file(&info.path).map_err(io_error("remove", &info.path))?;
        segments.pop();
    }
    Ok(None)
}

fn list(directory: &Path) -> Result<Vec<SegmentInfo>, LedgerError> {
    let read = |error| io_error("read the directory", directory)(error);
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        if let Some(base) = segment_base(&path) {
            let bytes = entry.metadata().map_err(read)?.len();
            segments.push(SegmentInfo { base, path, bytes });
        }
    }
    segments.sort_unstable_by_key(|info| info.base);
    Ok(segments)
}
