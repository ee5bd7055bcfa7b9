//! Droid: the settings of a session, with the sum of what it has used. The sum grows; it counts as
//! one request.

use module_sdk::events::LlmRequestCompleted;
use module_transcripts::Tool;
use serde::Deserialize;

use super::{
    Fault, Found, Harvest, Origin, begun,
    counts::Told,
    json::{Count, Object, Text, Time},
    names, set_model, set_times,
};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Settings<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    provider_lock: Text<'a>,
    provider_lock_timestamp: Time,
    token_usage: Object<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Usage {
    input_tokens: Count,
    output_tokens: Count,
    cache_creation_tokens: Count,
    cache_read_tokens: Count,
    thinking_tokens: Count,
}

/// Reads the settings of a session.
pub(super) fn document(
    text: &[u8],
    origin: Origin<'_>,
    harvest: &mut Harvest,
) -> Result<(), Fault> {
    let settings: Settings<'_> = serde_json::from_slice(text)?;
    let Some(usage) = &settings.token_usage.0 else { return Ok(()) };
    let told = Told {
        input: usage.input_tokens,
        output: usage.output_tokens,
        cache_read: usage.cache_read_tokens,
        cache_write: usage.cache_creation_tokens,
        reasoning: usage.thinking_tokens,
        input_excludes_cache: true,
        output_excludes_reasoning: true,
        ..Told::default()
    };
    if told.is_nothing() {
        return Ok(());
    }
    let session = origin.stem();
    let mut request =
        LlmRequestCompleted { session_id: Some(session.to_owned()), ..begun(Tool::Droid) };
    // `custom:Claude-Sonnet-4.5-[Anthropic]-0`
    let model = settings.model.name().map(|model| {
        let model = model.strip_prefix("custom:").unwrap_or(&model);
        let model = model.split('[').next().unwrap_or(model);
        model.trim_end_matches('-').to_ascii_lowercase()
    });
    set_model(&mut request, model, settings.provider_lock.name());
    told.settle(&mut request);
    let at = settings.provider_lock_timestamp.0.unwrap_or(origin.changed_ms);
    set_times(&mut request, None, at);
    request.dedupe_key = names::key_of("droid", &[session]);
    harvest.records += 1;
    harvest.found.push(Found { request, ..Found::default() });
    Ok(())
}
