//! CodeBuddy: a line for each message, with the provider's own usage. The input includes the cache.

use memchr::memmem::find;
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
struct Entry<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    timestamp: Time,
    #[serde(borrow)]
    session_id: Text<'a>,
    #[serde(borrow)]
    cwd: Text<'a>,
    #[serde(borrow)]
    provider_data: Object<ProviderData<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ProviderData<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    request_model_id: Text<'a>,
    raw_usage: Object<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    prompt_tokens: Count,
    completion_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
}

/// The reader of a file.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) Origin<'a>);

impl LineReader for Reader<'_> {
    fn line(&mut self, text: &[u8], line: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        if find(text, b"\"rawUsage\"").is_none() {
            return Ok(());
        }
        let entry: Entry<'_> = serde_json::from_slice(text)?;
        let Some(data) = &entry.provider_data.0 else { return Ok(()) };
        let Some(usage) = &data.raw_usage.0 else { return Ok(()) };
        let told = Told {
            input: usage.prompt_tokens,
            output: usage.completion_tokens,
            cache_read: usage.cache_read_input_tokens,
            cache_write: usage.cache_creation_input_tokens,
            ..Told::default()
        };
        if told.is_nothing() {
            return Ok(());
        }
        let session = entry.session_id.id().unwrap_or_else(|| self.0.stem().to_owned());
        let mut request = begun(Tool::Codebuddy);
        let models = [data.request_model_id.name(), data.model.name()];
        set_model(&mut request, models.into_iter().flatten().next(), None);
        told.settle(&mut request);
        set_times(&mut request, None, entry.timestamp.0.unwrap_or(self.0.changed_ms));
        request.dedupe_key = match entry.id.as_str() {
            Some(id) => names::key_of("codebuddy", &[id]),
            None => names::key_of("codebuddy", &[&session, &request.ended_at.to_string()]),
        };
        request.session_id = Some(session);
        harvest.records += 1;
        let folder = entry.cwd.id();
        harvest.found.push(Found { request, folder, is_side_chain: false, line });
        Ok(())
    }
}
