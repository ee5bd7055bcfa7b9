//! A file that is opened, ready to be sent.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
};

use module_sdk::FileHead;
use module_transcripts::{HEAD_BYTES, database::Rows, head};

use super::{Known, SentFile};

/// A file that is opened, or why it cannot be.
pub(super) struct Opened {
    pub(super) head: FileHead,
    pub(super) content: io::Result<Content>,
}

/// Content of a file that is sent.
pub(super) enum Content {
    Stdin,
    /// The file, at the first byte that is sent.
    File(File),
    Rows(Box<Rows>),
}

impl Opened {
    pub(super) fn stdin() -> Self {
        Self { head: FileHead::new("standard input"), content: Ok(Content::Stdin) }
    }

    /// Opens a file. What cannot be read has a head, and its error as content.
    pub(super) fn of(file: SentFile) -> Self {
        let SentFile { found, name, tool, rows, known } = file;
        let mut head = FileHead::new(name);
        let content = match found.state {
            Err(error) => Err(error),
            Ok(mark) if rows => {
                head.mark = Some(mark);
                head.modified_ms = Some(mark.modified_ns / 1_000_000);
                let rows = Rows::open(&found.path).map_err(io::Error::other);
                rows.map(|rows| {
                    head.tool = Some(rows.tool().name().to_owned());
                    Content::Rows(Box::new(rows))
                })
            }
            Ok(_) => File::open(&found.path)
                .and_then(|file| begin(file, &mut head, known.as_ref()))
                .map(Content::File),
        };
        if let Some(tool) = tool {
            head.tool = Some(tool.name().to_owned());
        }
        Self { head, content }
    }
}

/// Tells in the head what the file is, and moves to the first byte that is sent: what was read
/// another time is left out where the file still begins as it did then.
fn begin(mut file: File, about: &mut FileHead, known: Option<&Known>) -> io::Result<File> {
    *about = FileHead::of(std::mem::take(&mut about.name), &file.metadata()?);
    let (Some(known), Some(mark)) = (known, about.mark) else { return Ok(file) };
    about.head = Some(head(&file, mark.bytes)?);
    if known.from > 0 && known.from <= mark.bytes && known.head_bytes <= mark.bytes {
        let same = if known.head_bytes == mark.bytes.min(HEAD_BYTES) {
            about.head == known.head
        } else {
            Some(head(&file, known.head_bytes)?) == known.head
        };
        if same {
            about.from = file.seek(SeekFrom::Start(known.from))?;
        }
    }
    Ok(file)
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stdin => io::stdin().lock().read(buffer),
            Self::File(file) => file.read(buffer),
            Self::Rows(rows) => rows.read(buffer),
        }
    }
}
