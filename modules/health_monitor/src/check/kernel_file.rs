//! Files of the kernel that are read again and again.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A file of `/proc`. It stays open, and its text lies in one buffer: a further read allocates
/// nothing.
pub(super) struct KernelFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    /// `true` where it lies in `/proc`.
    tells: bool,
}

impl KernelFile {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { tells: path.starts_with("/proc"), path, file: None, buffer: Vec::new() }
    }

    /// Reads the file anew.
    ///
    /// # Errors
    ///
    /// When it cannot be read; it is opened anew the next time.
    pub(super) fn bytes(&mut self) -> io::Result<&[u8]> {
        match self.fill() {
            Ok(length) => Ok(&self.buffer[..length]),
            Err(error) => {
                self.file = None;
                Err(error)
            }
        }
    }

    /// Reads the file anew, as text.
    ///
    /// # Errors
    ///
    /// The same as those of [`bytes`](Self::bytes), and where it is no text.
    pub(super) fn text(&mut self) -> io::Result<&str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Returns whether the kernel tells that the file changed since it was read, as it does of the
    /// mounts; `true` where it was never read, or nothing tells.
    pub(super) fn has_changed(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let mut polled = [PollFd::new(file, PollFlags::PRI)];
        match poll(&mut polled, Some(&Timespec::default())) {
            // Of a file that is not the kernel's it tells nothing.
            Ok(_) => !self.tells || !polled[0].revents().is_empty(),
            Err(_) => true,
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(File::open(&self.path)?),
        };
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                self.buffer.resize((2 * length).max(4_096), 0);
            }
            match file.read_at(&mut self.buffer[length..], length as u64) {
                Ok(0) => return Ok(length),
                Ok(count) => length += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_changed_is_read_and_nothing_of_before() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        let mut file = KernelFile::new(&path);
        assert!(file.bytes().is_err(), "it is not there");
        let long = "x".repeat(10_000);
        for text in [long.as_str(), "short", ""] {
            fs::write(&path, text).expect("it is writable");
            assert_eq!(file.text().expect("it is there"), text);
        }
        fs::write(&path, [0xff]).expect("it is writable");
        assert!(file.text().is_err() && file.bytes().is_ok());
        assert!(file.has_changed(), "nobody tells");
        let mut status = KernelFile::new("/proc/self/status");
        let first = status.text().expect("this is Linux").to_owned();
        assert!(first.contains("VmRSS:") && status.text().expect("again").contains("VmRSS:"));
        let mut mounts = KernelFile::new("/proc/self/mountinfo");
        assert!(mounts.has_changed(), "it was not read");
        assert!(!mounts.bytes().expect("this is Linux").is_empty());
        // Others may mount something meanwhile, but not all the time.
        while mounts.has_changed() {
            mounts.bytes().expect("this is Linux");
        }
    }
}
