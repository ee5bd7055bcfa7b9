//! opencode and Kilo: one message of the assistant each, as a row of the database (a line) or as a
//! file of its own.
//!
//! The input excludes the cache and the output the reasoning.

use module_sdk::events::{CostSource, LlmRequestCompleted, RequestStatus};
use module_transcripts::Tool;
use serde::Deserialize;

use super::{
    Fault, Found, Harvest, LineReader, Origin, begun,
    counts::Told,
    json::{Count, Dollars, Object, Text, Time},
    names, set_model, set_times,
};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow, rename = "sessionID")]
    session_id: Text<'a>,
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow, rename = "modelID")]
    model_id: Text<'a>,
    #[serde(borrow, rename = "providerID")]
    provider_id: Text<'a>,
    cost: Dollars,
    tokens: Object<Tokens>,
    time: Object<Times>,
    #[serde(borrow)]
    path: Object<Folder<'a>>,
    #[serde(borrow)]
    error: Failure<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Tokens {
    input: Count,
    output: Count,
    reasoning: Count,
    cache: Object<Cache>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cache {
    read: Count,
    write: Count,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Times {
    created: Time,
    completed: Time,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Folder<'a> {
    #[serde(borrow)]
    cwd: Text<'a>,
}

/// The name of an error: alone, or in an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Failure<'a> {
    Named {
        #[serde(borrow)]
        name: Text<'a>,
    },
    #[serde(borrow)]
    Name(Text<'a>),
}

impl Default for Failure<'_> {
    fn default() -> Self {
        Self::Name(Text::default())
    }
}

impl Failure<'_> {
    fn name(&self) -> Option<String> {
        match self {
            Self::Name(name) | Self::Named { name } => name.name(),
        }
    }
}

/// The reader of the rows of a database.
#[derive(Debug)]
pub(super) struct Reader(pub(super) Tool);

impl LineReader for Reader {
    fn line(&mut self, line: &[u8], number: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        read(self.0, &serde_json::from_slice(line)?, number, harvest);
        Ok(())
    }
}

/// Reads the file of a message.
pub(super) fn document(text: &[u8], _: Origin<'_>, harvest: &mut Harvest) -> Result<(), Fault> {
    read(Tool::Opencode, &serde_json::from_slice(text)?, 0, harvest);
    Ok(())
}

fn read(tool: Tool, message: &Message<'_>, line: u64, harvest: &mut Harvest) {
    if !message.role.is("assistant") {
        return;
    }
    let Some(tokens) = &message.tokens.0 else { return };
    let (Some(id), Some(times)) = (message.id.as_str(), &message.time.0) else { return };
    let told = told(tokens);
    let error = message.error.name();
    // One that still runs comes again with its counts.
    if told.is_nothing() && error.is_none() {
        return;
    }
    let Some(ended_at) = times.completed.0.or(times.created.0) else { return };
    let mut request = LlmRequestCompleted {
        session_id: message.session_id.id(),
        stream: Some(true),
        ..begun(tool)
    };
    set_model(&mut request, message.model_id.name(), message.provider_id.name());
    told.settle(&mut request);
    if error.is_some() {
        request.status = Some(RequestStatus::Error);
        request.error_type = error;
    }
    let started = times.completed.0.and(times.created.0);
    set_times(&mut request, started, ended_at);
    // It writes 0 where it knows no price.
    request.cost_nano_usd = message.cost.nano().filter(|nano| *nano != 0);
    request.cost_source = request.cost_nano_usd.map(|_| CostSource::Client);
    request.dedupe_key = names::key_of(tool.name(), &[id]);
    harvest.records += 1;
    let folder = message.path.0.as_ref().and_then(|folder| folder.cwd.id());
    harvest.found.push(Found { request, folder, is_side_chain: false, line });
}

fn told(tokens: &Tokens) -> Told {
    let cache = tokens.cache.0.as_ref();
    Told {
        input: tokens.input,
        cache_read: cache.map(|cache| cache.read).unwrap_or_default(),
        cache_write: cache.map(|cache| cache.write).unwrap_or_default(),
        output: tokens.output,
        reasoning: tokens.reasoning,
        input_excludes_cache: true,
        output_excludes_reasoning: true,
        ..Told::default()
    }
}
