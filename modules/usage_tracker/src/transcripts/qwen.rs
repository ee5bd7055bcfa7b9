//! Qwen Code: a line for each message; the usage has the names of Gemini's API.
//!
//! The input includes the cache. Where the total shows it, the output includes the thoughts.

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
struct Entry<'a> {
    #[serde(borrow)]
    uuid: Text<'a>,
    #[serde(borrow)]
    session_id: Text<'a>,
    timestamp: Time,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    cwd: Text<'a>,
    #[serde(borrow)]
    git_branch: Text<'a>,
    #[serde(borrow)]
    version: Text<'a>,
    usage_metadata: Object<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Usage {
    prompt_token_count: Count,
    candidates_token_count: Count,
    thoughts_token_count: Count,
    cached_content_token_count: Count,
    total_token_count: Count,
}

/// The reader of a file.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) Origin<'a>);

impl LineReader for Reader<'_> {
    fn line(&mut self, text: &[u8], line: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        if find(text, b"\"usageMetadata\"").is_none() {
            return Ok(());
        }
        let entry: Entry<'_> = serde_json::from_slice(text)?;
        let Some(usage) = &entry.usage_metadata.0 else { return Ok(()) };
        let (input, output) = (usage.prompt_token_count, usage.candidates_token_count);
        let both = input.or_zero().saturating_add(output.or_zero());
        let told = Told {
            input,
            output,
            cache_read: usage.cached_content_token_count,
            reasoning: usage.thoughts_token_count,
            output_excludes_reasoning: usage.total_token_count.0.is_some_and(|all| all != both),
            ..Told::default()
        };
        if told.is_nothing() {
            return Ok(());
        }
        let session = entry.session_id.id().unwrap_or_else(|| self.0.stem().to_owned());
        let mut request = LlmRequestCompleted {
            client_version: entry.version.name(),
            branch: entry.git_branch.name().filter(|branch| branch != "HEAD"),
            ..begun(Tool::Qwen)
        };
        set_model(&mut request, entry.model.name(), None);
        told.settle(&mut request);
        set_times(&mut request, None, entry.timestamp.0.unwrap_or(self.0.changed_ms));
        request.dedupe_key = names::key_of(
            "qwen",
            &[&session, entry.uuid.as_str().unwrap_or_default(), &request.ended_at.to_string()],
        );
        request.session_id = Some(session);
        harvest.records += 1;
        let folder = entry.cwd.id();
        harvest.found.push(Found { request, folder, is_side_chain: false, line });
        Ok(())
    }
}
