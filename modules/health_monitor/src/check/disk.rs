//! Disks: space and inodes of every file system that can fill up, and when it will be full.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::{Check, CheckOptions, Progress, kernel_file::KernelFile, mounts};
use crate::{
    metric::{DISK_FREE, DISK_FULL_ETA, DISK_INODES, DISK_USAGE, DISK_UTILIZATION},
    reading::{Component, Found, Report, Series},
    rule::Pattern,
    text,
};

/// Settings of the check of disks.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiskOptions {
    /// Settings that every check has.
    #[serde(flatten)]
    pub check: CheckOptions,
    /// Paths of mounts that are left out, with `*` for any characters.
    pub ignore: Vec<String>,
}

/// Time over which the growth of a disk is looked at, and the least for a prediction, in seconds.
const TREND_S: f64 = 6.0 * 3_600.0;
const LEAST_TREND_S: f64 = 1_800.0;
/// Time between two points of the trend, in seconds.
const POINT_S: f64 = 60.0;

pub(super) struct Disk {
    ignore: Vec<Pattern>,
    known: BTreeMap<PathBuf, Known>,
    started: Instant,
    mountinfo: KernelFile,
    /// Text of `mountinfo` that the mounts were read from.
    read: Vec<u8>,
    mounts: Vec<mounts::Mount>,
    /// `true` where a file system is not as its mount says, of which the kernel does not tell.
    is_doubtful: bool,
}

/// A file system that was seen, with what its reports consist of.
struct Known {
    component: Component,
    utilization: Arc<Series>,
    inodes: Arc<Series>,
    free_bytes: Arc<Series>,
    used: Arc<Series>,
    free: Arc<Series>,
    reserved: Arc<Series>,
    eta: Arc<Series>,
    /// Seconds since the start and bytes in use, oldest first.
    trend: VecDeque<(f64, f64)>,
}

impl Disk {
    pub(super) fn new(options: &DiskOptions) -> Self {
        Self::of(Path::new("/proc/self/mountinfo"), options)
    }

    fn of(mountinfo: &Path, options: &DiskOptions) -> Self {
        Self {
            ignore: options.ignore.iter().map(Pattern::new).collect(),
            known: BTreeMap::new(),
            started: Instant::now(),
            mountinfo: KernelFile::new(mountinfo),
            read: Vec::new(),
            mounts: Vec::new(),
            is_doubtful: false,
        }
    }

    /// Reads the mounts anew where they changed.
    fn look(&mut self) -> std::io::Result<()> {
        if !self.is_doubtful && !self.mountinfo.has_changed() {
            return Ok(());
        }
        let mountinfo = self.mountinfo.bytes()?;
        self.is_doubtful = false;
        if mountinfo != self.read {
            self.mounts = mounts::parse(mountinfo);
            self.mounts.retain(|mount| {
                let path = mount.path.to_string_lossy();
                !mount.is_read_only && !self.ignore.iter().any(|it| it.fits(&path))
            });
            self.known.retain(|path, _| self.mounts.iter().any(|mount| mount.path == *path));
            mountinfo.clone_into(&mut self.read);
        }
        Ok(())
    }
}

impl Check for Disk {
    fn run(&mut self, progress: &Progress) -> Report {
        let mut report = Report::default();
        if let Err(error) = self.look() {
            let message = format!("the mounts cannot be read: {error}");
            report.found.push(Found::unknown(&"disk".into(), message));
            return report;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        for mount in &self.mounts {
            let known = match self.known.get_mut(&mount.path) {
                Some(known) => known,
                None => self
                    .known
                    .entry(mount.path.clone())
                    .or_insert_with(|| Known::new(&mount.path.to_string_lossy())),
            };
            if !progress.enter(&known.component) {
                let message = "the file system does not answer; `dmesg` may tell why.";
                report.found.push(Found::unknown(&known.component, message));
                continue;
            }
            match statvfs(&mount.path) {
                Ok(stat) => {
                    // After an error the kernel may let nobody write any more.
                    self.is_doubtful |= stat.f_flag.contains(StatVfsMountFlags::RDONLY);
                    known.report(&stat, seconds, &mut report);
                }
                Err(error) => {
                    self.is_doubtful = true;
                    let message = format!("the file system cannot be read: {error}");
                    report.found.push(Found::unknown(&known.component, message));
                }
            }
        }
        report
    }
}

impl Known {
    fn new(path: &str) -> Self {
        let component: Component = format!("disk.{}", text::visible(path)).into();
        let by_path = |metric| Series::new(metric, &component, [path]);
        let by_state = |state| Series::new(&DISK_USAGE, &component, [path, state]);
        Self {
            utilization: by_path(&DISK_UTILIZATION),
            inodes: by_path(&DISK_INODES),
            free_bytes: by_path(&DISK_FREE),
            eta: by_path(&DISK_FULL_ETA),
            used: by_state("used"),
            free: by_state("free"),
            reserved: by_state("reserved"),
            trend: VecDeque::new(),
            component,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes beyond 2^53 bytes may be rounded")]
    fn report(&mut self, stat: &rustix::fs::StatVfs, seconds: f64, report: &mut Report) {
        let bytes = |blocks: u64| blocks as f64 * stat.f_frsize as f64;
        let used = bytes(stat.f_blocks.saturating_sub(stat.f_bfree));
        let free = bytes(stat.f_bavail);
        let reserved = bytes(stat.f_bfree.saturating_sub(stat.f_bavail));
        // As `df` counts: what root keeps for itself is neither free nor in use.
        if used + free <= 0.0 {
            report.found.push(Found::absent(&self.component, "it has no blocks of its own"));
            return;
        }
        report.found.push(Found::present(&self.component, &self.utilization));
        report.read(&self.utilization, used / (used + free));
        report.read(&self.free_bytes, free);
        report.read(&self.used, used);
        report.read(&self.free, free);
        report.read(&self.reserved, reserved);
        if stat.f_files > 0 {
            let used = stat.f_files.saturating_sub(stat.f_favail);
            report.read(&self.inodes, used as f64 / stat.f_files as f64);
        }
        if let Some(eta) = self.full_in(seconds, used, free) {
            report.read(&self.eta, eta);
        }
    }

    /// Returns the seconds until the disk is full, infinite where it does not fill; `None` while it
    /// has not been watched for long enough.
    fn full_in(&mut self, seconds: f64, used: f64, free: f64) -> Option<f64> {
        if self.trend.back().is_none_or(|(at, _)| seconds - at >= POINT_S) {
            self.trend.push_back((seconds, used));
        }
        while self.trend.front().is_some_and(|(at, _)| seconds - at > TREND_S) {
            self.trend.pop_front();
        }
        let (first, _) = self.trend.front()?;
        if seconds - first < LEAST_TREND_S {
            return None;
        }
        let growth = slope(&self.trend);
        Some(if growth > 0.0 { free / growth } else { f64::INFINITY })
    }
}

/// Returns the growth per second, by least squares.
#[expect(clippy::cast_precision_loss, reason = "there are some hundred points")]
fn slope(points: &VecDeque<(f64, f64)>) -> f64 {
    let count = points.len() as f64;
    let mean_at = points.iter().map(|(at, _)| at).sum::<f64>() / count;
    let mean = points.iter().map(|(_, value)| value).sum::<f64>() / count;
    let (mut with, mut square) = (0.0, 0.0);
    for (at, value) in points {
        with += (at - mean_at) * (value - mean);
        square += (at - mean_at).powi(2);
    }
    if square > 0.0 { with / square } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Presence;

    #[test]
    fn the_root_is_reported_with_values_that_fit() {
        let mut disk = Disk::new(&DiskOptions::default());
        let report = disk.run(&Progress::default());
        assert!(!report.found.is_empty(), "no file system at all");
        for reading in &report.readings {
            assert!(reading.value >= 0.0, "{reading:?}");
            if reading.series.metric.unit == crate::metric::Unit::Ratio {
                assert!(reading.value <= 1.0, "{reading:?}");
            }
        }
        let mut ignoring = DiskOptions::default();
        ignoring.ignore.push("*".to_owned());
        assert_eq!(Disk::new(&ignoring).run(&Progress::default()), Report::default());
    }

    #[test]
    fn what_hangs_is_left_out() {
        let mut disk = Disk::new(&DiskOptions::default());
        let progress = Progress::default();
        let all = disk.run(&progress);
        let component = all.found[0].component.clone();
        progress.state.lock().expect("nobody panicked").hanging.insert(component.clone());
        let report = disk.run(&progress);
        assert_eq!(report.found[0].presence, Presence::Unknown);
        assert!(report.readings.iter().all(|reading| reading.series.component != component));
    }

    #[test]
    fn a_disk_that_vanishes_is_unknown_until_its_mount_is_gone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mountinfo, disk) = (directory.path().join("mountinfo"), directory.path().join("d"));
        let mounted = format!("30 28 8:2 / {} rw - xfs /dev/sdb1 rw\n", disk.display());
        std::fs::write(&mountinfo, mounted).expect("it is writable");
        std::fs::create_dir(&disk).expect("it is writable");
        let mut check = Disk::of(&mountinfo, &DiskOptions::default());
        let mut presence = || {
            let report = check.run(&Progress::default());
            let presence: Vec<_> = report.found.iter().map(|found| found.presence).collect();
            (presence, report.readings.is_empty())
        };
        assert_eq!(presence(), (vec![Presence::Present], false));
        std::fs::remove_dir(&disk).expect("it is empty");
        assert_eq!(presence(), (vec![Presence::Unknown], true));
        std::fs::write(&mountinfo, "").expect("it is writable");
        assert_eq!(presence(), (vec![], true));
        std::fs::remove_file(&mountinfo).expect("it is there");
        assert_eq!(presence(), (vec![], true), "an open file stays");
    }

    #[test]
    fn a_disk_that_fills_is_predicted() {
        let mut known = Known::new("/");
        let mut eta = None;
        for minute in 0..=60 {
            let seconds = f64::from(minute) * 60.0;
            eta = known.full_in(seconds, seconds * 1_000.0, 1e6 - seconds);
            assert_eq!(eta.is_some(), minute >= 30, "{minute}");
        }
        let eta = eta.expect("an hour is enough");
        assert!((eta - 996.4).abs() < 1.0, "{eta}");
        let mut still = Known::new("/");
        let last = (0..=60).map(|minute| still.full_in(f64::from(minute) * 60.0, 5.0, 1.0)).last();
        assert_eq!(last.flatten(), Some(f64::INFINITY));
    }
}
