//! Mapping of telemetry records to [`Report`]s: one mapper per source.
//!
//! Only records that describe one whole request make a report; every other record gets an
//! [`Outcome`] with the reason, so that nothing is lost silently.

mod ai_sdk;
mod attributes;
#[cfg(test)]
pub(crate) mod build;
mod claude_code;
mod codex;
mod counts;
mod gemini_cli;
mod genai_log;
mod genai_span;
mod openinference;
mod providers;
mod shape;
pub(crate) mod trace;

use std::borrow::Cow;

use module_sdk::Host;
use opentelemetry_proto::tonic::{
    common::v1::any_value::Value, logs::v1::LogRecord, trace::v1::Span,
};

pub(crate) use attributes::{
    Attributes, Key, MAX_TOKENS, keys, milliseconds, name, nano_usd, tier,
};
pub(crate) use codex::Conversations;
pub(crate) use counts::Told as Counts;
pub(crate) use providers::{canonical as canonical_provider, of_model as provider_of_model};
pub(crate) use shape::{Clock, hex};

use crate::report::Report;

/// The outcome of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// A request.
    Request(Box<Report>),
    /// A record that a mapper knows and that is no request; the reason.
    Ignored(&'static str),
    /// A record that repeats what another record of the same tool reports; the reason.
    Repeats(&'static str),
    /// A record that no mapper understands.
    Unknown,
    /// A request with an impossible value.
    Refused(Refusal),
}

/// The reason why a record is refused. It names a field and never holds its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {what}")]
pub(crate) struct Refusal {
    field: &'static str,
    what: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(field: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self { field, what: what.into() }
    }
}

/// The mappers; their names are shown in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mapper {
    ClaudeCode,
    Codex,
    GeminiCli,
    GenAi,
    AiSdk,
    OpenInference,
    None,
}

impl Mapper {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude_code",
            Self::Codex => "codex",
            Self::GeminiCli => "gemini_cli",
            Self::GenAi => "gen_ai",
            Self::AiSdk => "ai_sdk",
            Self::OpenInference => "openinference",
            Self::None => "none",
        }
    }
}

/// The context of a record.
pub(crate) struct Context<'a> {
    pub(crate) host: &'a Host,
    pub(crate) clock: Clock,
    /// Project of the sender of the whole body, if it stated one.
    pub(crate) project: Option<&'a str>,
    pub(crate) resource: Attributes<'a>,
    /// The instrumentation scope's name and version.
    pub(crate) scope: (&'a str, &'a str),
    /// The data that earlier records of Codex gave about the same conversation.
    pub(crate) conversations: &'a Conversations,
}

/// A log record with its attributes and name.
pub(crate) struct Log<'a> {
    pub(crate) record: &'a LogRecord,
    pub(crate) attributes: Attributes<'a>,
    /// The `event.name`, wherever the tool put it.
    pub(crate) name: Cow<'a, str>,
}

/// A span with its attributes.
pub(crate) struct SpanRecord<'a> {
    pub(crate) span: &'a Span,
    pub(crate) attributes: Attributes<'a>,
}

/// Maps a log record.
pub(crate) fn map_log(record: &LogRecord, context: &Context<'_>) -> (Mapper, String, Outcome) {
    let attributes = Attributes::new(&record.attributes);
    let name = log_name(record, attributes);
    let log = Log { record, attributes, name: Cow::Borrowed(&name) };
    let (mapper, outcome) = match log.name.split_once('.').map_or("", |(first, _)| first) {
        "claude_code" => (Mapper::ClaudeCode, claude_code::map_log(&log, context)),
        "codex" => (Mapper::Codex, codex::map_log(&log, context)),
        "gemini_cli" => (Mapper::GeminiCli, gemini_cli::map_log(&log, context)),
        _ if claude_code::owns(context) => {
            (Mapper::ClaudeCode, claude_code::map_log(&log, context))
        }
        _ if gemini_cli::owns(context) => (Mapper::GeminiCli, gemini_cli::map_log(&log, context)),
        _ if codex::owns(context) => (Mapper::Codex, codex::map_log(&log, context)),
        "gen_ai" => (Mapper::GenAi, genai_log::map_log(&log, context)),
        _ => (Mapper::None, Outcome::Unknown),
    };
    (mapper, name, outcome)
}

/// Maps a span.
pub(crate) fn map_span(span: &Span, context: &Context<'_>) -> (Mapper, String, Outcome) {
    let record = SpanRecord { span, attributes: Attributes::new(&span.attributes) };
    let mapper = mapper_of_span(span, context);
    let outcome = match mapper {
        Mapper::ClaudeCode => claude_code::map_span(&record, context),
        Mapper::Codex => codex::map_span(&record, context),
        Mapper::GeminiCli => gemini_cli::map_span(&record, context),
        Mapper::AiSdk => ai_sdk::map_span(&record, context),
        Mapper::GenAi => genai_span::map_span(&record, context),
        Mapper::OpenInference => openinference::map_span(&record, context),
        Mapper::None => Outcome::Unknown,
    };
    (mapper, span_name(&span.name), outcome)
}

/// Returns the mapper of a span.
pub(crate) fn mapper_of_span(span: &Span, context: &Context<'_>) -> Mapper {
    let attributes = Attributes::new(&span.attributes);
    if claude_code::owns(context) || span.name.starts_with("claude_code.") {
        Mapper::ClaudeCode
    } else if codex::owns(context) {
        Mapper::Codex
    } else if gemini_cli::owns(context) {
        Mapper::GeminiCli
    } else if ai_sdk::owns(span) {
        Mapper::AiSdk
    } else if attributes.any_named("gen_ai.")
        || attributes.has(keys::LLM_REQUEST_TYPE)
        || genai_span::owns(span)
    {
        Mapper::GenAi
    } else if attributes.has(keys::OPENINFERENCE_KIND) {
        Mapper::OpenInference
    } else {
        Mapper::None
    }
}

/// Returns the placeholder for a name that is missing or cannot be shown.
pub(crate) fn unnamed() -> String {
    "(unnamed)".to_owned()
}

/// Returns a span's name where it is one word. Of several words the first is returned where it is
/// certainly an operation: the rest may be a model, a path, or private text.
fn span_name(text: &str) -> String {
    const OPERATIONS: &[&str] = &[
        "chat",
        "generate_content",
        "text_completion",
        "embeddings",
        "invoke_agent",
        "create_agent",
        "execute_tool",
        "GET",
        "POST",
        "PUT",
        "DELETE",
    ];
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let certain = words.next().is_none() || OPERATIONS.contains(&first) || first.contains('.');
    name(first).filter(|first| certain && first.len() <= 64).unwrap_or_else(unnamed)
}

fn log_name(record: &LogRecord, attributes: Attributes<'_>) -> String {
    let body = match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        // Only what looks like the name of an event: a body may as well be somebody's text.
        Some(Value::StringValue(text)) if text.contains('.') => {
            name(text).filter(|text| text.len() <= 64)
        }
        _ => None,
    };
    attributes
        .name(&[keys::EVENT_NAME, keys::EVENT_NAME_OLD])
        .or_else(|| name(&record.event_name))
        .or(body)
        .unwrap_or_else(unnamed)
}

#[cfg(test)]
mod tests {
    use super::{build::*, *};

    #[test]
    fn what_nobody_understands_is_named() {
        let check = |outcome: (Mapper, String, Outcome), name: &str| {
            assert_eq!(outcome, (Mapper::None, name.to_owned(), Outcome::Unknown));
        };
        with_context("program", "scope", |context| {
            check(map_span(&span("GET /people/jane", 1, 2, &[]), context), "GET");
            check(map_span(&span("{\"a\": 1}", 1, 2, &[]), context), "(unnamed)");
            check(map_span(&span("please write a poem", 1, 2, &[]), context), "(unnamed)");
            check(map_span(&span("http.server GET", 1, 2, &[]), context), "http.server");
            check(map_log(&log(1, &[attr("event.name", text("x.y"))]), context), "x.y");
            check(map_log(&log(1, &[]), context), "(unnamed)");
        });
    }

    #[test]
    fn a_body_of_text_is_no_name() {
        let mut record = log(1, &[]);
        record.body = Some(any(text("Dear diary. Today I wrote a prompt")));
        with_context("program", "scope", |context| {
            assert_eq!(map_log(&record, context).1, "(unnamed)");
        });
    }
}
