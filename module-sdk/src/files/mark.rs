//! State of a file, by which it is told whether it changed.

use std::{fs, os::unix::fs::MetadataExt as _};

use serde::{Deserialize, Serialize};

/// State of a file: while it is the same, so is what is in the file.
///
/// That of a database counts its write-ahead log in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileMark {
    /// Device that it is on.
    pub device: u64,
    /// Number of the file on the device.
    pub inode: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last change, in nanoseconds since the Unix epoch.
    pub modified_ns: i64,
}

impl From<&fs::Metadata> for FileMark {
    fn from(about: &fs::Metadata) -> Self {
        let seconds = about.mtime().saturating_mul(1_000_000_000);
        Self {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.size(),
            modified_ns: seconds.saturating_add(about.mtime_nsec()),
        }
    }
}
