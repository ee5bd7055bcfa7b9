//! Amp: one document for each thread; a ledger of what was used, or the usage of each answer.
//!
//! The input excludes the cache, which the ledger leaves out: it stands with the answer.

use std::collections::BTreeMap;

use module_sdk::events::LlmRequestCompleted;
use module_transcripts::Tool;
use serde::Deserialize;

use super::{
    Fault, Found, Harvest, Origin, begun,
    counts::Told,
    json::{Count, Object, Objects, Text, Time},
    names, set_model, set_times,
};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Thread<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    usage_ledger: Object<Ledger<'a>>,
    #[serde(borrow)]
    messages: Objects<Message<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ledger<'a> {
    #[serde(borrow)]
    events: Objects<Event<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Event<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    timestamp: Time,
    #[serde(borrow)]
    model: Text<'a>,
    tokens: Object<Tokens>,
    #[serde(borrow)]
    to_message_id: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Tokens {
    input: Count,
    output: Count,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Message<'a> {
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow)]
    message_id: Text<'a>,
    timestamp: Time,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    usage: Object<Usage<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Usage<'a> {
    timestamp: Time,
    #[serde(borrow)]
    model: Text<'a>,
    input_tokens: Count,
    output_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
}

/// Reads the document of a thread.
pub(super) fn document(
    text: &[u8],
    origin: Origin<'_>,
    harvest: &mut Harvest,
) -> Result<(), Fault> {
    let thread: Thread<'_> = serde_json::from_slice(text)?;
    let session = thread.id.as_str().unwrap_or_else(|| origin.stem());
    let mut add = |id: &str, at: Option<i64>, model: Option<String>, told: Told| {
        let Some(at) = at.filter(|_| !told.is_nothing()) else { return };
        let mut request =
            LlmRequestCompleted { session_id: Some(session.to_owned()), ..begun(Tool::Amp) };
        set_model(&mut request, model, None);
        told.settle(&mut request);
        set_times(&mut request, None, at);
        request.dedupe_key = names::key_of("amp", &[session, id, &at.to_string()]);
        harvest.records += 1;
        harvest.found.push(Found { request, ..Found::default() });
    };
    let answers = thread.messages.0.iter().filter(|message| message.role.is("assistant"));
    let answers: Vec<(&Message<'_>, &Usage<'_>)> =
        answers.filter_map(|message| Some((message, message.usage.0.as_ref()?))).collect();
    let Some(ledger) = &thread.usage_ledger.0 else {
        for (message, usage) in answers {
            let model = usage.model.name().or_else(|| message.model.name());
            let at = usage.timestamp.0.or(message.timestamp.0);
            let id = message.message_id.as_str().unwrap_or_default();
            add(id, at, model, told(usage.input_tokens, usage.output_tokens, Some(usage)));
        }
        return Ok(());
    };
    let by_id: BTreeMap<&str, &Usage<'_>> = answers
        .into_iter()
        .filter_map(|(message, usage)| Some((message.message_id.as_str()?, usage)))
        .collect();
    for event in &ledger.events.0 {
        let Some(tokens) = &event.tokens.0 else { continue };
        let usage = event.to_message_id.as_str().and_then(|id| by_id.get(id).copied());
        let id = event.id.as_str().unwrap_or_default();
        add(id, event.timestamp.0, event.model.name(), told(tokens.input, tokens.output, usage));
    }
    Ok(())
}

fn told(input: Count, output: Count, usage: Option<&Usage<'_>>) -> Told {
    Told {
        input,
        output,
        cache_read: usage.map(|usage| usage.cache_read_input_tokens).unwrap_or_default(),
        cache_write: usage.map(|usage| usage.cache_creation_input_tokens).unwrap_or_default(),
        input_excludes_cache: true,
        ..Told::default()
    }
}
