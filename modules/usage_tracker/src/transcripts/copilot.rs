//! Copilot: telemetry of OpenTelemetry, one record a line. The span of a call of a model tells of a
//! request, and a log within it of the same one. The input includes the cache.

use memchr::memmem::find;
use module_sdk::events::LlmRequestCompleted;
use module_transcripts::Tool;
use serde::Deserialize;

use super::{
    Fault, Found, Harvest, LineReader, Origin, begun,
    counts::Told,
    json::{Count, Object, Text, Time},
    names, set_model, set_times,
};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Record<'a> {
    #[serde(borrow)]
    trace_id: Text<'a>,
    #[serde(borrow)]
    span_id: Text<'a>,
    #[serde(borrow)]
    span_context: Object<SpanContext<'a>>,
    start_time: Moment,
    end_time: Moment,
    hr_time: Moment,
    timestamp: Moment,
    #[serde(borrow)]
    attributes: Object<Attributes<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SpanContext<'a> {
    #[serde(borrow)]
    trace_id: Text<'a>,
    #[serde(borrow)]
    span_id: Text<'a>,
}

/// A time: seconds and nanoseconds, or in another form.
#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Pair(i64, i64),
    Other(Time),
}

impl Default for Moment {
    fn default() -> Self {
        Self::Other(Time(None))
    }
}

impl Moment {
    fn ms(&self) -> Option<i64> {
        match self {
            Self::Pair(seconds, nanos) => {
                seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
            }
            Self::Other(time) => time.0,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Attributes<'a> {
    #[serde(borrow, rename = "gen_ai.operation.name")]
    operation: Text<'a>,
    #[serde(borrow, rename = "event.name")]
    event: Text<'a>,
    #[serde(borrow, rename = "gen_ai.provider.name")]
    provider: Text<'a>,
    #[serde(borrow, rename = "gen_ai.system")]
    system: Text<'a>,
    #[serde(borrow, rename = "gen_ai.request.model")]
    request_model: Text<'a>,
    #[serde(borrow, rename = "gen_ai.response.model")]
    response_model: Text<'a>,
    #[serde(borrow, rename = "gen_ai.response.id")]
    response_id: Text<'a>,
    #[serde(borrow, rename = "gen_ai.conversation.id")]
    conversation: Text<'a>,
    #[serde(borrow, rename = "session.id")]
    session: Text<'a>,
    #[serde(rename = "gen_ai.usage.input_tokens")]
    input: Count,
    #[serde(rename = "gen_ai.usage.output_tokens")]
    output: Count,
    #[serde(rename = "gen_ai.usage.cache_read.input_tokens")]
    cache_read: Count,
    #[serde(rename = "gen_ai.usage.cache_write.input_tokens")]
    cache_write: Count,
    #[serde(rename = "gen_ai.usage.cache_creation.input_tokens")]
    cache_creation: Count,
    #[serde(rename = "gen_ai.usage.reasoning.output_tokens")]
    reasoning: Count,
    #[serde(rename = "gen_ai.usage.reasoning_tokens")]
    reasoning_tokens: Count,
}

/// The reader of a file.
#[derive(Debug)]
pub(super) struct Reader {
    changed_ms: i64,
}

impl Reader {
    pub(super) const fn new(origin: Origin<'_>) -> Self {
        Self { changed_ms: origin.changed_ms }
    }

    fn found(&self, record: &Record<'_>, line: u64) -> Option<Found> {
        let attributes = record.attributes.0.as_ref()?;
        let is_call = attributes.operation.is("chat")
            || attributes.event.is("gen_ai.client.inference.operation.details");
        let told = Told {
            input: attributes.input,
            output: attributes.output,
            cache_read: attributes.cache_read,
            cache_write: first([attributes.cache_write, attributes.cache_creation]),
            reasoning: first([attributes.reasoning, attributes.reasoning_tokens]),
            ..Told::default()
        };
        if !is_call || told.is_nothing() {
            return None;
        }
        let mut request = LlmRequestCompleted {
            session_id: attributes.conversation.id().or_else(|| attributes.session.id()),
            response_id: attributes.response_id.name(),
            ..begun(Tool::Copilot)
        };
        let models = [attributes.response_model.name(), attributes.request_model.name()];
        let provider = attributes.provider.name().or_else(|| attributes.system.name());
        set_model(&mut request, models.into_iter().flatten().next(), provider);
        told.settle(&mut request);
        let times = [&record.end_time, &record.hr_time, &record.timestamp];
        let ended_at = times.into_iter().find_map(Moment::ms).unwrap_or(self.changed_ms);
        set_times(&mut request, record.start_time.ms(), ended_at);
        let within = record.span_context.0.as_ref();
        let trace = record.trace_id.as_str().or_else(|| within?.trace_id.as_str());
        let span = record.span_id.as_str().or_else(|| within?.span_id.as_str());
        request.dedupe_key = match (trace, span) {
            (Some(trace), Some(span)) => names::key_of("copilot", &[trace, span]),
            _ => names::key_of(
                "copilot",
                &[
                    request.session_id.as_deref().unwrap_or_default(),
                    request.response_id.as_deref().unwrap_or_default(),
                    &ended_at.to_string(),
                ],
            ),
        };
        Some(Found { request, line, ..Found::default() })
    }
}

fn first(counts: [Count; 2]) -> Count {
    Count(counts.into_iter().find_map(|count| count.0))
}

impl LineReader for Reader {
    fn line(&mut self, text: &[u8], line: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        if find(text, b"\"attributes\"").is_none() {
            return Ok(());
        }
        if let Some(found) = self.found(&serde_json::from_slice(text)?, line) {
            harvest.records += 1;
            harvest.found.push(found);
        }
        Ok(())
    }
}
