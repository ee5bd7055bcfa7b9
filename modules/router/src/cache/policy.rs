//! Requests whose answers are kept, and answers that are.
//!
//! A cached answer must be one that the same request would get again, and must do no harm when it
//! is given twice. So these are left out:
//!
//! * a temperature above 0 (`any_temperature` changes that) and more than one choice;
//! * requests that offer tools (`with_tools` changes that), and always those that go on after the
//!   call of a tool: the world has changed, and a call has an id and a side effect;
//! * requests that refer to state of the provider: a previous response, a conversation, work in the
//!   background, a search of the web, the time that a local model stays loaded;
//! * answers that are errors, were cut, ended for want of tokens, were withheld, or call a tool.

use http::{HeaderMap, header};

use super::{options::CacheOptions, stored::Stored};
use crate::dialect::{Dialect, inspect::Inspected};

/// Header with which a client asks for no cached answer: `bypass`, or `refresh` for a new one that
/// is then kept.
pub(crate) const CACHE_HEADER: &str = "x-lodestar-cache";

/// Reason for which the cache is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bypass {
    /// The cache is switched off.
    Disabled,
    /// The client asked for it.
    Asked,
    /// The temperature is above 0.
    Temperature,
    /// More than one choice is asked for.
    Choices,
    /// Tools are offered, or one was called.
    Tools,
    /// The request refers to state of the provider.
    Stateful,
    /// The request is too large.
    TooLarge,
    /// The body is no JSON object, is nested too deeply, or has a key twice.
    Unreadable,
}

impl Bypass {
    /// Every reason, in the order of the counters.
    pub(super) const ALL: [Self; 8] = [
        Self::Disabled,
        Self::Asked,
        Self::Temperature,
        Self::Choices,
        Self::Tools,
        Self::Stateful,
        Self::TooLarge,
        Self::Unreadable,
    ];

    /// Returns its name in statistics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Asked => "asked",
            Self::Temperature => "temperature",
            Self::Choices => "choices",
            Self::Tools => "tools",
            Self::Stateful => "stateful",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Ways in which a request uses the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    /// `false` when the client wants a new answer.
    pub(super) reads: bool,
}

/// Returns how a request uses the cache, by all but its body.
pub(super) fn judge(
    options: &CacheOptions,
    inspected: &Inspected<'_>,
    bytes: usize,
    headers: &HeaderMap,
) -> Result<Use, Bypass> {
    if !options.enabled {
        return Err(Bypass::Disabled);
    }
    let reads = wishes(headers)?;
    if inspected.choices != 1 {
        return Err(Bypass::Choices);
    }
    if inspected.temperature.is_some_and(|it| it != 0.0) && !options.any_temperature {
        return Err(Bypass::Temperature);
    }
    let offers_tools = inspected.tools > 0 || inspected.requires_tool;
    if inspected.continues_tool || (offers_tools && !options.with_tools) {
        return Err(Bypass::Tools);
    }
    if bytes > options.max_request_bytes {
        return Err(Bypass::TooLarge);
    }
    Ok(Use { reads })
}

fn wishes(headers: &HeaderMap) -> Result<bool, Bypass> {
    let mut reads = true;
    let own = headers.get_all(CACHE_HEADER).iter();
    let standard = headers.get_all(header::CACHE_CONTROL).iter();
    for value in own.chain(standard).filter_map(|value| value.to_str().ok()) {
        for wish in value.split(',').map(str::trim) {
            match wish {
                _ if wish.eq_ignore_ascii_case("bypass") => return Err(Bypass::Asked),
                _ if wish.eq_ignore_ascii_case("no-store") => return Err(Bypass::Asked),
                _ if wish.eq_ignore_ascii_case("no-cache") => reads = false,
                _ if wish.eq_ignore_ascii_case("refresh") => reads = false,
                _ => {}
            }
        }
    }
    Ok(reads)
}

/// Reason for which an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotStored {
    /// It is an error.
    Error,
    /// It ended early: cut, for want of tokens, or withheld.
    Unfinished,
    /// It calls a tool.
    ToolCall,
    /// It is too large.
    TooLarge,
    /// Its request was not answered: the leader failed, or its client went away.
    NoAnswer,
}

impl NotStored {
    /// Every reason, in the order of the counters.
    pub(super) const ALL: [Self; 5] =
        [Self::Error, Self::Unfinished, Self::ToolCall, Self::TooLarge, Self::NoAnswer];

    /// Returns its name in statistics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Unfinished => "unfinished",
            Self::ToolCall => "tool_call",
            Self::TooLarge => "too_large",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// Checks that an answer may be kept.
pub(super) fn keepable(
    options: &CacheOptions,
    dialect: Dialect,
    answer: &Stored,
) -> Result<(), NotStored> {
    if answer.status != 200 {
        return Err(NotStored::Error);
    }
    let has_no_reason = matches!(dialect, Dialect::Embeddings | Dialect::OllamaEmbed);
    match answer.finish_reason.as_deref() {
        Some("stop" | "end_turn" | "stop_sequence" | "completed" | "STOP") => {}
        Some("tool_calls" | "tool_use" | "function_call") => return Err(NotStored::ToolCall),
        None if has_no_reason => {}
        _ => return Err(NotStored::Unfinished),
    }
    if answer.calls_tool {
        return Err(NotStored::ToolCall);
    }
    if answer.body.len() > options.max_answer_bytes {
        return Err(NotStored::TooLarge);
    }
    Ok(())
}
