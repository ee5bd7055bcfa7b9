//! The script of an upstream: what it answers, and what goes wrong with it.

use serde::{Deserialize, Serialize};

/// An answer, in the terms that all dialects share. The default is a short text with usage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// Text of the answer.
    pub text: String,
    /// Text of the reasoning, where there is some.
    pub reasoning: Option<String>,
    /// Tools that are called.
    pub tools: Vec<Tool>,
    /// Counts of tokens.
    pub usage: Usage,
    /// Place of the counts in the answer.
    pub usage_place: UsagePlace,
    /// Number of events into which the text of a stream is split.
    pub pieces: usize,
    /// Name of the model in the answer (default: as requested).
    pub model: Option<String>,
    /// Reason of the end in the dialect's own word (default: its ordinary one).
    pub finish: Option<String>,
    /// Headers beyond the usual ones.
    pub headers: Vec<(String, String)>,
    /// Peculiarities of the transport.
    pub wire: Wire,
    /// Milliseconds before the head.
    pub head_ms: u64,
    /// Milliseconds before each event but the first.
    pub gap_ms: u64,
    /// The fault, where there is one.
    pub fault: Option<Fault>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            text: "The answer to the question is forty-two.".to_owned(),
            reasoning: None,
            tools: Vec::new(),
            usage: Usage::default(),
            usage_place: UsagePlace::Usual,
            pieces: 4,
            model: None,
            finish: None,
            headers: Vec::new(),
            wire: Wire::default(),
            head_ms: 0,
            gap_ms: 0,
            fault: None,
        }
    }
}

impl Answer {
    /// Returns the default answer with another text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// Returns the default answer with a text of this many bytes.
    #[must_use]
    pub fn sized(bytes: usize) -> Self {
        const WORDS: &str = "every word of this text is there to be counted ";
        Self { text: WORDS.chars().cycle().take(bytes).collect(), ..Self::default() }
    }

    /// Returns an answer that calls a tool and has no text.
    #[must_use]
    pub fn tool(name: &str, arguments: &str) -> Self {
        let tool = Tool { name: name.to_owned(), arguments: arguments.to_owned() };
        Self { text: String::new(), tools: vec![tool], ..Self::default() }
    }

    /// Returns the default answer with a fault.
    #[must_use]
    pub fn fault(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// Returns an error with this status, in the shape of the dialect that is asked.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::fault(Fault::Status { status, body: None })
    }

    /// Returns a refusal with status 429 that is to be obeyed for some seconds.
    #[must_use]
    pub fn rate_limited(retry_after_s: u64) -> Self {
        let header = ("retry-after".to_owned(), retry_after_s.to_string());
        Self { headers: vec![header], ..Self::status(429) }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Name of the tool.
    pub name: String,
    /// Its arguments, a JSON object.
    pub arguments: String,
}

/// Counts of tokens as Lodestar counts them: parts of the input and the output are within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// The whole input, caches included.
    pub input: u64,
    /// Input read from the cache.
    pub cache_read: u64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: u64,
    /// The whole output.
    pub output: u64,
    /// Reasoning, a part of the output.
    pub reasoning: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            input: 1_200,
            cache_read: 500,
            cache_write_5m: 0,
            cache_write_1h: 0,
            output: 34,
            reasoning: 0,
        }
    }
}

/// Places in which providers put the counts of a stream. In an answer that is no stream they stand
/// where they belong, or are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsagePlace {
    /// The place that the dialect defines.
    #[default]
    Usual,
    /// No place: there are no counts.
    Missing,
    /// The last chunk of a chat, with `choices: [{"index": 0, "delta": {}}]`.
    EmptyDelta,
    /// The last chunk of a chat, with `choices: [{"index": 0}]`.
    NoDelta,
    /// The chunk with the reason of the end.
    WithFinish,
    /// Every chunk, the counts growing.
    EveryChunk,
    /// As usual, and also where nobody asked for it.
    Unasked,
}

/// Peculiarities of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wire {
    /// Lines of events end with CRLF.
    pub crlf: bool,
    /// A comment stands before each event.
    pub comments: bool,
    /// Every byte, those of the head too, is a write of its own.
    pub bytewise: bool,
    /// An encoding, whether it was asked for or not.
    pub encoding: Option<Encoding>,
}

/// An encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A fault. Events are those of a stream; an answer that is none has one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// An error status, with this body or, without one, an error of the dialect.
    Status {
        /// The status.
        status: u16,
        /// The body, JSON or not.
        body: Option<String>,
    },
    /// Status 502 with the HTML page of a proxy.
    Html,
    /// Status 200 with an error of the dialect as the body.
    ErrorInOk,
    /// A redirect with status 307.
    Redirect {
        /// Value of `location`.
        to: String,
    },
    /// Nothing after the request.
    HangBeforeHead,
    /// Nothing after this many events.
    HangAfter {
        /// Number of events.
        events: usize,
    },
    /// An end after this many events; of an answer that is no stream, after half of it.
    CutAfter {
        /// Number of events.
        events: usize,
        /// Manner of the end.
        how: Cut,
    },
    /// An error of the dialect, as an event, after this many events, and the end.
    ErrorAfter {
        /// Number of events.
        events: usize,
    },
}

/// Manners in which an answer that is not whole ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// The connection is reset.
    Reset,
    /// The connection is closed before the end of the body.
    Close,
    /// The body ends as if it were whole.
    End,
}
