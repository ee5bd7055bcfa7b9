//! aider: its analytics log, of which `message_send` tells of a request.
//!
//! The counts of streamed answers are its own estimate, and names of models that it does not know
//! are left out by itself.

use module_sdk::events::{CostSource, LlmRequestCompleted, UsageSource};
use module_transcripts::Tool;
use serde::Deserialize;

use super::{
    Fault, Found, Harvest, LineReader, begun,
    counts::Told,
    json::{Count, Dollars, Object, Text, Time},
    names, set_model, set_times,
};

/// Stands for the name of a model that aider does not know.
const REDACTED: &str = "REDACTED";

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    properties: Object<Properties<'a>>,
    #[serde(borrow)]
    user_id: Text<'a>,
    time: Time,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Properties<'a> {
    #[serde(borrow)]
    main_model: Text<'a>,
    prompt_tokens: Count,
    completion_tokens: Count,
    cost: Dollars,
    total_cost: Dollars,
}

/// The reader of a log.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Time when the program was started, which makes a session.
    launched_ms: i64,
}

impl LineReader for Reader {
    fn line(&mut self, text: &[u8], line: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        let entry: Entry<'_> = serde_json::from_slice(text)?;
        let Some(at) = entry.time.0 else { return Ok(()) };
        if entry.event.is("launched") || entry.event.is("cli session") {
            self.launched_ms = at;
        }
        let Some(sent) = entry.properties.0.as_ref().filter(|_| entry.event.is("message_send"))
        else {
            return Ok(());
        };
        let told =
            Told { input: sent.prompt_tokens, output: sent.completion_tokens, ..Told::default() };
        if told.is_nothing() {
            return Ok(());
        }
        let person = entry.user_id.as_str().unwrap_or_default();
        let mut request = LlmRequestCompleted {
            session_id: Some(format!("{person} {}", self.launched_ms)),
            ..begun(Tool::Aider)
        };
        let name = sent.main_model.name();
        let (provider, model) = name.as_deref().map_or((None, None), split);
        set_model(&mut request, model, provider);
        told.settle(&mut request);
        request.usage_source = Some(UsageSource::Estimated);
        set_times(&mut request, None, at);
        request.cost_nano_usd = sent.cost.nano().filter(|nano| *nano != 0);
        request.cost_source = request.cost_nano_usd.map(|_| CostSource::Client);
        let number = |count: Count| count.or_zero().to_string();
        request.dedupe_key = names::key_of(
            "aider",
            &[
                person,
                &at.to_string(),
                name.as_deref().unwrap_or_default(),
                &number(sent.prompt_tokens),
                &number(sent.completion_tokens),
                &sent.total_cost.nano().unwrap_or(0).to_string(),
            ],
        );
        harvest.records += 1;
        harvest.found.push(Found { request, line, ..Found::default() });
        Ok(())
    }
}

/// Splits `provider/model`.
fn split(name: &str) -> (Option<String>, Option<String>) {
    let (provider, model) = match name.split_once('/') {
        Some((provider, model)) => (Some(provider.to_owned()), model),
        None => (None, name),
    };
    (provider, (model != REDACTED).then(|| model.to_owned()))
}
