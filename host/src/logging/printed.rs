//! What code in the daemon's process prints on standard output and standard error: modules, and
//! what they start. It passes a pipe to a thread that logs it, line by line and without secrets.

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::KeyLines;
use crate::crash;

/// The longest line; what is longer comes in parts.
const MAX_LINE: usize = 64 * 1024;

/// How much is read after the end: more than a pipe holds.
const MAX_LAST_WORDS: usize = 1 << 20;

/// Standard output and standard error are logged until this is dropped.
#[derive(Debug)]
pub struct Printed {
    /// Both as they were.
    before: [OwnedFd; 2],
    /// Wakes the thread.
    pipe: PipeWriter,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Printed {
    /// Begins. What is logged does not come through here.
    ///
    /// # Errors
    ///
    /// When there is no descriptor or thread to be had, and then all is as before.
    pub fn begin() -> io::Result<Self> {
        let before = [
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
        ];
        let (reader, pipe) = io::pipe()?;
        let ends = Arc::new(AtomicBool::new(false));
        let watched = reader.try_clone()?;
        let thread = std::thread::Builder::new().name("printed".to_owned()).spawn({
            let ends = ends.clone();
            move || read(reader, &ends)
        })?;
        let printed = Self { before, pipe, ends, thread: Some(thread) };
        rustix::stdio::dup2_stdout(&printed.pipe)?;
        rustix::stdio::dup2_stderr(&printed.pipe)?;
        crash::let_be_read(watched.into());
        Ok(printed)
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        let [stdout, stderr] = &self.before;
        // What cannot be put back is read until the end.
        drop(io::stdout().flush());
        let _ = rustix::stdio::dup2_stdout(stdout);
        let _ = rustix::stdio::dup2_stderr(stderr);
        self.ends.store(true, Ordering::Release);
        // What was printed before stands before this.
        let woken = self.pipe.write_all(b"\n");
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            drop(thread.join());
        }
    }
}

fn read(mut pipe: PipeReader, ends: &AtomicBool) {
    let mut lines = Lines::default();
    let mut bytes = [0; 4096];
    let mut last_words = 0;
    // An error does not happen; the writing end lives as long as this thread.
    while let Ok(count @ 1..) = pipe.read(&mut bytes) {
        lines.take(&bytes[..count], &mut say);
        if ends.load(Ordering::Acquire) {
            last_words += count;
            // A process that a module left behind may talk for ever.
            if count < bytes.len() || last_words > MAX_LAST_WORDS {
                break;
            }
        }
    }
    lines.end(&mut say);
}

fn say(line: &str) {
    tracing::warn!(origin = "standard output or error", "{line}");
}

/// Lines that come in pieces, without private keys.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    keys: KeyLines,
}

impl Lines {
    /// Takes a piece and says the lines that it ends.
    pub(crate) fn take(&mut self, bytes: &[u8], say: &mut dyn FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= MAX_LINE {
                self.end(say);
            }
        }
    }

    /// Says what came since the last line.
    pub(crate) fn end(&mut self, say: &mut dyn FnMut(&str)) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if let Some(line) = self.keys.pass(line.trim())
            && !line.is_empty()
        {
            say(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_without_keys() {
        let mut said = Vec::new();
        let mut lines = Lines::default();
        let text =
            "one\n\ntwo \u{fc}\n-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nlast";
        for byte in text.as_bytes() {
            lines.take(&[*byte], &mut |line| said.push(line.to_owned()));
        }
        lines.end(&mut |line| said.push(line.to_owned()));
        assert_eq!(said, ["one", "two \u{fc}", "[redacted]", "last"]);
        let long = vec![b'x'; MAX_LINE + 10];
        let mut count = 0;
        lines.take(&long, &mut |line| count += line.len());
        lines.end(&mut |line| count += line.len());
        assert_eq!(count, long.len());
    }
}
