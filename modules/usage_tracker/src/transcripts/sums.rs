//! Goose and Hermes: rows of a database, each with the sum of a session. The sum grows; it counts
//! as one request.

use module_sdk::events::{CostSource, LlmRequestCompleted};
use module_transcripts::Tool;
use serde::Deserialize;

use super::{
    Fault, Found, Harvest, LineReader, begun,
    counts::Told,
    json::{Count, Dollars, Text, Time},
    names, set_model, set_times,
};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Row<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    provider: Text<'a>,
    #[serde(alias = "started_at")]
    created_at: Time,
    updated_at: Time,
    input_tokens: Count,
    output_tokens: Count,
    cache_read_tokens: Count,
    cache_write_tokens: Count,
    reasoning_tokens: Count,
    estimated_cost_usd: Dollars,
    actual_cost_usd: Dollars,
}

/// The reader of the rows of a database.
#[derive(Debug)]
pub(super) struct Reader(pub(super) Tool);

impl LineReader for Reader {
    fn line(&mut self, text: &[u8], line: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        let row: Row<'_> = serde_json::from_slice(text)?;
        let Some(id) = row.id.as_str() else { return Ok(()) };
        let Some(at) = row.updated_at.0.or(row.created_at.0) else { return Ok(()) };
        let told = Told {
            input: row.input_tokens,
            output: row.output_tokens,
            cache_read: row.cache_read_tokens,
            cache_write: row.cache_write_tokens,
            reasoning: row.reasoning_tokens,
            input_excludes_cache: self.0 == Tool::Hermes,
            ..Told::default()
        };
        if told.is_nothing() {
            return Ok(());
        }
        let mut request = LlmRequestCompleted { session_id: Some(id.to_owned()), ..begun(self.0) };
        set_model(&mut request, row.model.name(), row.provider.name());
        told.settle(&mut request);
        set_times(&mut request, None, at);
        let costs = [row.actual_cost_usd.nano(), row.estimated_cost_usd.nano()];
        request.cost_nano_usd = costs.into_iter().flatten().find(|nano| *nano != 0);
        request.cost_source = request.cost_nano_usd.map(|_| CostSource::Client);
        request.dedupe_key = names::key_of(self.0.name(), &[id]);
        harvest.records += 1;
        harvest.found.push(Found { request, line, ..Found::default() });
        Ok(())
    }
}
