//! Files that a test sends with a command.

use std::{
    io,
    os::fd::{IntoRawFd as _, OwnedFd},
    thread,
};

use serde_json::{Value, json};

use super::Bench;
use crate::{FileHead, FileMark, FilesSum, FilesWriter, Module, Reply, Result};

/// A file that a test sends with a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentFile {
    /// Name of the file.
    pub name: String,
    /// Content that is sent: its bytes from [`from`](Self::from) on.
    pub content: Vec<u8>,
    /// Name of the tool that wrote it.
    pub tool: Option<String>,
    /// State of the file.
    pub mark: Option<FileMark>,
    /// Offset of the first byte that is sent.
    pub from: u64,
    /// SHA-256 of its first bytes, in hexadecimal digits.
    pub head: Option<String>,
}

impl SentFile {
    /// Creates a file that is sent whole, of which no more is known.
    #[must_use]
    pub fn new(name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), content: content.into(), ..Self::default() }
    }

    fn head(&self) -> FileHead {
        FileHead {
            bytes: self.mark.map_or(0, |mark| mark.bytes),
            modified_ms: self.mark.map(|mark| mark.modified_ns / 1_000_000),
            tool: self.tool.clone(),
            mark: self.mark,
            from: self.from,
            head: self.head.clone(),
            ..FileHead::new(&self.name)
        }
    }
}

impl<M: Module> Bench<M> {
    /// Runs a command that reads files, given by name and content, and returns its reply.
    ///
    /// # Errors
    ///
    /// Returns the command's error.
    pub fn command_with_files(
        &mut self,
        name: &str,
        args: Value,
        files: &[(&str, &[u8])],
    ) -> Result<Reply> {
        let files: Vec<SentFile> =
            files.iter().map(|(name, content)| SentFile::new(*name, *content)).collect();
        self.command_with_sent_files(name, args, &files, 0)
    }

    /// Runs a command that reads files, beside which a number of others is not sent, since they are
    /// unchanged; returns its reply.
    ///
    /// # Errors
    ///
    /// Returns the command's error.
    pub fn command_with_sent_files(
        &mut self,
        name: &str,
        args: Value,
        files: &[SentFile],
        unchanged: u64,
    ) -> Result<Reply> {
        let bytes = files.iter().map(|file| file.content.len() as u64).sum();
        let sum = FilesSum { files: files.len() as u64, bytes, unchanged };
        let (reader, pipe) = io::pipe()?;
        let files = files.to_vec();
        // A command that leaves some unread closes the pipe.
        let sender = thread::spawn(move || {
            let mut writer = FilesWriter::new(pipe, sum)?;
            for file in &files {
                writer.file(&file.head(), Ok(file.content.as_slice()))?;
            }
            writer.finish().map(drop)
        });
        let files = OwnedFd::from(reader).into_raw_fd();
        let answered = self.answer(&json!({"command": name, "args": args, "files": files}));
        drop(sender.join());
        answered.map(|(_, reply)| reply)
    }
}
