//! Answers as they are kept.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::dialect::usage::Usage;

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// One body.
    Whole,
    /// The events, or lines, of a stream.
    Stream,
}

/// An answer as it is kept: what the client was sent, with what it cost. `Debug` shows no text of
/// it.
#[derive(Clone, PartialEq)]
pub(crate) struct Stored {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: String,
    /// Form of the body.
    pub form: Form,
    /// Body: one object, or all bytes of the stream.
    pub body: Bytes,
    /// Model that answered, where it said so.
    pub response_model: Option<String>,
    /// Reason for its end, in the words of its dialect.
    pub finish_reason: Option<String>,
    /// `true` when it calls a tool.
    pub calls_tool: bool,
    /// Token counts.
    pub usage: Usage,
    /// Cost in billionths of a US dollar, which a hit saves; `None` where nobody knows.
    pub cost_nano_usd: Option<i64>,
    /// Time of the answer, in Unix milliseconds.
    pub stored_at: i64,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored")
            .field("status", &self.status)
            .field("form", &self.form)
            .field("bytes", &self.body.len())
            .field("finish_reason", &self.finish_reason)
            .finish_non_exhaustive()
    }
}

/// Version of the form in Redis.
const VERSION: u8 = 1;

/// First line of an answer in Redis.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u8,
    status: u16,
    content_type: String,
    form: Form,
    length: usize,
    response_model: Option<String>,
    finish_reason: Option<String>,
    /// Input, cache reads, cache writes of 5 minutes and of an hour, output, reasoning.
    usage: [Option<u64>; 6],
    cost_nano_usd: Option<i64>,
    stored_at: i64,
}

impl Stored {
    /// Returns the memory that it takes, about.
    pub(super) fn weight(&self) -> u32 {
        u32::try_from(self.body.len() + self.content_type.len() + 512).unwrap_or(u32::MAX)
    }

    /// Returns it as Redis keeps it: a line of JSON and the body.
    pub(super) fn encode(&self) -> Vec<u8> {
        let usage = self.usage;
        let head = Head {
            version: VERSION,
            status: self.status,
            content_type: self.content_type.clone(),
            form: self.form,
            length: self.body.len(),
            response_model: self.response_model.clone(),
            finish_reason: self.finish_reason.clone(),
            usage: [
                usage.input,
                usage.cache_read,
                usage.cache_write_5m,
                usage.cache_write_1h,
                usage.output,
                usage.reasoning,
            ],
            cost_nano_usd: self.cost_nano_usd,
            stored_at: self.stored_at,
        };
        let mut bytes = serde_json::to_vec(&head).expect("numbers and texts are JSON");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` for anything else.
    pub(super) fn decode(bytes: Vec<u8>) -> Option<Self> {
        let line = memchr::memchr(b'\n', &bytes)?;
        let head: Head = serde_json::from_slice(&bytes[..line]).ok()?;
        let body = Bytes::from(bytes).split_off(line + 1);
        if head.version != VERSION || head.length != body.len() {
            return None;
        }
        let [input, cache_read, cache_write_5m, cache_write_1h, output, reasoning] = head.usage;
        Some(Self {
            status: head.status,
            content_type: head.content_type,
            form: head.form,
            body,
            response_model: head.response_model,
            finish_reason: head.finish_reason,
            calls_tool: false,
            usage: Usage { input, cache_read, cache_write_5m, cache_write_1h, output, reasoning },
            cost_nano_usd: head.cost_nano_usd,
            stored_at: head.stored_at,
        })
    }

    /// Returns the answer in the form that a client wants, `None` where it is in the other one.
    ///
    /// This is the place where a translator of streams can make the one of the other; until then
    /// each form is kept for itself.
    pub(crate) fn replay(&self, wanted: Form) -> Option<Replay<'_>> {
        (self.form == wanted)
            .then(|| Replay { content_type: &self.content_type, body: self.body.clone() })
    }
}

/// Answer to be sent again.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Replay<'a> {
    /// Content type.
    pub content_type: &'a str,
    /// Bytes of the answer.
    pub body: Bytes,
}

/// Copy of an answer that is on its way, as long as it is not too large.
pub(crate) struct Recorder {
    pieces: Vec<u8>,
    most: usize,
    is_over: bool,
}

impl Recorder {
    pub(super) const fn new(most: usize) -> Self {
        Self { pieces: Vec::new(), most, is_over: false }
    }

    /// Returns the bytes that it keeps.
    pub(crate) const fn held(&self) -> usize {
        self.pieces.len()
    }

    /// Copies a piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if self.is_over {
            return;
        }
        if self.pieces.len() + piece.len() > self.most {
            // Memory that nobody will read.
            (self.pieces, self.is_over) = (Vec::new(), true);
        } else {
            self.pieces.extend_from_slice(piece);
        }
    }

    /// Returns the copy, `None` where it became too large.
    pub(crate) fn finish(self) -> Option<Bytes> {
        (!self.is_over).then(|| Bytes::from(self.pieces))
    }
}
