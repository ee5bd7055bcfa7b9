//! Pi and OpenClaw: a line for each message, with the usage and the cost of an answer.
//!
//! The input excludes the cache.

use module_sdk::events::{CostSource, LlmRequestCompleted};
use module_transcripts::Tool;
use serde::Deserialize;

use super::{
    Fault, Found, Harvest, LineReader, Origin, begun,
    counts::Told,
    json::{Count, Dollars, Object, Text, Time},
    names, set_model, set_times,
};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    timestamp: Time,
    #[serde(borrow)]
    cwd: Text<'a>,
    #[serde(borrow)]
    provider: Text<'a>,
    #[serde(borrow)]
    model_id: Text<'a>,
    #[serde(borrow)]
    message: Object<Message<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Message<'a> {
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    provider: Text<'a>,
    timestamp: Time,
    #[serde(borrow)]
    stop_reason: Text<'a>,
    usage: Object<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Usage {
    input: Count,
    output: Count,
    cache_read: Count,
    cache_write: Count,
    cost: Object<Cost>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cost {
    total: Dollars,
}

/// The reader of a file.
#[derive(Debug)]
pub(super) struct Reader {
    tool: Tool,
    session: String,
    changed_ms: i64,
    folder: Option<String>,
    provider: Option<String>,
    model: Option<String>,
}

impl Reader {
    pub(super) fn new(tool: Tool, origin: Origin<'_>) -> Self {
        let (session, changed_ms) = (origin.stem().to_owned(), origin.changed_ms);
        Self { tool, session, changed_ms, folder: None, provider: None, model: None }
    }

    fn answer(&self, entry: &Entry<'_>, message: &Message<'_>, line: u64) -> Option<Found> {
        let usage = message.usage.0.as_ref().filter(|_| message.role.is("assistant"))?;
        let told = Told {
            input: usage.input,
            output: usage.output,
            cache_read: usage.cache_read,
            cache_write: usage.cache_write,
            input_excludes_cache: true,
            ..Told::default()
        };
        if told.is_nothing() {
            return None;
        }
        let mut request = LlmRequestCompleted {
            session_id: Some(self.session.clone()),
            finish_reason: message.stop_reason.name(),
            ..begun(self.tool)
        };
        let model = message.model.name().or_else(|| self.model.clone());
        set_model(&mut request, model, message.provider.name().or_else(|| self.provider.clone()));
        told.settle(&mut request);
        let at = message.timestamp.0.or(entry.timestamp.0).unwrap_or(self.changed_ms);
        set_times(&mut request, None, at);
        let cost = usage.cost.0.as_ref().and_then(|cost| cost.total.nano());
        request.cost_nano_usd = cost.filter(|nano| *nano != 0);
        request.cost_source = request.cost_nano_usd.map(|_| CostSource::Client);
        let number = |count: Option<u64>| count.unwrap_or(0).to_string();
        request.dedupe_key = names::key_of(
            self.tool.name(),
            &[
                &self.session,
                entry.id.as_str().unwrap_or_default(),
                &at.to_string(),
                &number(request.input_tokens),
                &number(request.output_tokens),
            ],
        );
        Some(Found { request, folder: self.folder.clone(), is_side_chain: false, line })
    }
}

impl LineReader for Reader {
    fn line(&mut self, text: &[u8], line: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        let entry: Entry<'_> = serde_json::from_slice(text)?;
        match entry.kind.as_str() {
            Some("session") => {
                self.session = entry.id.id().unwrap_or_else(|| self.session.clone());
                self.folder = entry.cwd.id();
            }
            Some("model_change") => {
                self.provider = entry.provider.name();
                self.model = entry.model_id.name();
            }
            Some("message") => {
                let message = entry.message.0.as_ref();
                if let Some(found) = message.and_then(|it| self.answer(&entry, it, line)) {
                    harvest.records += 1;
                    harvest.found.push(found);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
