//! Kimi: `wire.jsonl`, whose `StatusUpdate` has the usage of an answer.
//!
//! The session is the folder of the file. The model stands in a file of its own.

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

/// The model that Kimi asks where nothing else is said.
const MODEL: &str = "kimi-for-coding";

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry<'a> {
    timestamp: Time,
    #[serde(borrow)]
    message: Object<Message<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    payload: Object<Payload<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Payload<'a> {
    #[serde(borrow)]
    message_id: Text<'a>,
    token_usage: Object<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    input_other: Count,
    input_cache_read: Count,
    input_cache_creation: Count,
    output: Count,
}

/// The reader of a file.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) Origin<'a>);

impl LineReader for Reader<'_> {
    fn line(&mut self, text: &[u8], line: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        if find(text, b"\"token_usage\"").is_none() {
            return Ok(());
        }
        let entry: Entry<'_> = serde_json::from_slice(text)?;
        let message = entry.message.0.filter(|message| message.kind.is("StatusUpdate"));
        let Some(payload) = message.and_then(|message| message.payload.0) else { return Ok(()) };
        let Some(usage) = payload.token_usage.0 else { return Ok(()) };
        let told = Told {
            input: usage.input_other,
            cache_read: usage.input_cache_read,
            cache_write: usage.input_cache_creation,
            output: usage.output,
            input_excludes_cache: true,
            ..Told::default()
        };
        if told.is_nothing() {
            return Ok(());
        }
        let session = self.0.folder();
        let mut request =
            LlmRequestCompleted { session_id: Some(session.to_owned()), ..begun(Tool::Kimi) };
        set_model(&mut request, Some(MODEL.to_owned()), Some("moonshot".to_owned()));
        told.settle(&mut request);
        set_times(&mut request, None, entry.timestamp.0.unwrap_or(self.0.changed_ms));
        request.dedupe_key = match payload.message_id.as_str() {
            Some(id) => names::key_of("kimi", &[session, id]),
            None => names::key_of("kimi", &[session, &request.ended_at.to_string()]),
        };
        harvest.records += 1;
        harvest.found.push(Found { request, line, ..Found::default() });
        Ok(())
    }
}
