//! Capture of what code in the daemon's process prints on standard output and standard error:
//! modules, and what they start. Two pipes pass it to a thread that logs it, line by line and
//! without secrets, so many lines a second.

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{KeyLines, LogRate};
use crate::crash;

/// Length of the longest line in bytes; the rest of one that is longer is left out.
const MAX_LINE: usize = 64 * 1024;

/// Number of bytes that are read after the end: more than two pipes hold.
const MAX_LAST_WORDS: usize = 1 << 20;

/// Time without output after which the number of lines left out is logged.
const SILENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Redirection of standard output and standard error to the log, until this is dropped.
#[derive(Debug)]
pub struct Printed {
    /// Standard output and standard error as they were.
    before: [OwnedFd; 2],
    /// Write ends that live longer than the thread, so that it never reads an end.
    _pipes: [PipeWriter; 2],
    /// The `eventfd` that asks the thread to write what was printed.
    wake: OwnedFd,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Printed {
    /// Begins the redirection. What the daemon logs does not come through here.
    ///
    /// # Errors
    ///
    /// When there is no descriptor or thread to be had, and then all is as before.
    pub fn begin() -> io::Result<Self> {
        let before = [
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
        ];
        let ((stdout, out), (stderr, error)) = (io::pipe()?, io::pipe()?);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let ends = Arc::new(AtomicBool::new(false));
        let (asked, asks) = (wake.try_clone()?, wake.try_clone()?);
        let thread = std::thread::Builder::new().name("printed".to_owned()).spawn({
            let ends = ends.clone();
            move || read([stdout, stderr], &asked, &ends)
        })?;
        let printed = Self { before, _pipes: [out, error], wake, ends, thread: Some(thread) };
        let [out, error] = &printed._pipes;
        rustix::stdio::dup2_stdout(out)?;
        rustix::stdio::dup2_stderr(error)?;
        crash::ask_for_last_words(asks);
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
        crash::no_last_words();
        self.ends.store(true, Ordering::Release);
        let woken = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            drop(thread.join());
        }
    }
}

/// Logs what comes out of both pipes, each by itself.
fn read(pipes: [PipeReader; 2], wake: &OwnedFd, ends: &AtomicBool) {
    let rate = LogRate::default();
    let mut say = |line: &str| say(&rate, line);
    let mut streams = pipes.map(|pipe| Stream { pipe, lines: Lines::default() });
    loop {
        let silence = rate.owes_words().then_some(&SILENCE);
        let ready = readable(&[&streams[0].pipe, &streams[1].pipe, wake], silence);
        for (stream, _) in streams.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
            stream.read(&mut say);
        }
        if ready[2] {
            let _ = rustix::io::read(wake, &mut [0; 8]);
            write_all(&mut streams, &mut say);
            crash::last_words_are_written();
        }
        if ready == [false; 3] || ready[2] {
            left_out(rate.left_out());
        }
        if ready[2] && ends.load(Ordering::Acquire) {
            break;
        }
    }
}

/// Returns which of the sources can be read, after waiting for `until` at most.
fn readable(sources: &[&dyn AsFd; 3], until: Option<&Timespec>) -> [bool; 3] {
    let mut sources = sources.map(|source| PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN));
    // An interrupted call found none.
    let _ = poll(&mut sources, until);
    sources.map(|source| !source.revents().is_empty())
}

/// Logs all that waits, and the lines that have no end, up to a limit: a process that a module left
/// behind may print for ever.
fn write_all(streams: &mut [Stream; 2], say: &mut dyn FnMut(&str)) {
    for stream in streams {
        let mut count = 0;
        while count < MAX_LAST_WORDS {
            let mut source = [PollFd::from_borrowed_fd(stream.pipe.as_fd(), PollFlags::IN)];
            if !matches!(poll(&mut source, Some(&AT_ONCE)), Ok(1)) {
                break;
            }
            count += stream.read(say);
        }
        stream.lines.end(say);
    }
}

/// One of the two redirected streams.
#[derive(Debug)]
struct Stream {
    pipe: PipeReader,
    lines: Lines,
}

impl Stream {
    fn read(&mut self, say: &mut dyn FnMut(&str)) -> usize {
        let mut bytes = [0; 4096];
        // An error does not happen; the writing end lives longer.
        let count = self.pipe.read(&mut bytes).unwrap_or(0);
        self.lines.take(&bytes[..count], say);
        count
    }
}

fn say(rate: &LogRate, line: &str) {
    let (is_within, words) = rate.admit(line.len());
    left_out(words);
    if is_within {
        tracing::warn!(origin = ORIGIN, "{line}");
    }
}

const ORIGIN: &str = "standard output or error";

fn left_out(words: Option<String>) {
    if let Some(words) = words {
        tracing::warn!(origin = ORIGIN, "{words}");
    }
}

/// Lines that come in pieces, without private keys.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    /// Length of the line in bytes, with what was left out of it.
    length: usize,
    keys: KeyLines,
}

impl Lines {
    /// Adds a piece and passes the lines that it ends to `say`.
    pub(crate) fn take(&mut self, bytes: &[u8], say: &mut dyn FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            self.length += part.len();
            if part.ends_with(b"\n") {
                self.end(say);
            }
        }
    }

    /// Passes what came since the last line to `say`.
    pub(crate) fn end(&mut self, say: &mut dyn FnMut(&str)) {
        let mut line = std::mem::take(&mut self.line);
        let length = std::mem::take(&mut self.length);
        let is_cut = length > line.len();
        if is_cut {
            // The word at the edge may be the half of a secret, which looks like none.
            let word = line.iter().rposition(u8::is_ascii_whitespace).unwrap_or(0);
            line.truncate(word);
        }
        let mut line = String::from_utf8_lossy(&line).into_owned();
        if is_cut {
            line.push_str(&format!("… ({length} bytes in all)"));
        }
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
    }

    #[test]
    fn a_line_that_is_too_long_ends_before_a_word() {
        for (before, expected) in [("x", "… ("), ("words ", "words… (")] {
            let mut said = Vec::new();
            let mut lines = Lines::default();
            let long = format!("{before}{}\nnext\n", "k".repeat(2 * MAX_LINE));
            for part in long.as_bytes().chunks(1000) {
                lines.take(part, &mut |line| said.push(line.to_owned()));
            }
            let bytes = long.len() - "next\n".len();
            assert_eq!(said, [format!("{expected}{bytes} bytes in all)"), "next".to_owned()]);
        }
    }
}
