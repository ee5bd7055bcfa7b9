//! Claude Code: one JSON object a line, one line for each part of an answer, all with the usage of
//! the whole answer. `api-request` has the start of a request, `cost-state` the sum of a session.
//!
//! Its `input_tokens` exclude the cache.

use std::{collections::BTreeMap, sync::LazyLock};

use memchr::memmem::Finder;
use module_sdk::events::{ApiFormat, CostSource, LlmRequestCompleted, RequestStatus, UsageSource};
use module_transcripts::Tool;
use serde::Deserialize;

use super::{
    Fault, Found, Harvest, LineReader, Origin, Statement, begun,
    counts::Told,
    json::{Count, Dollars, Flag, Object, Text, Time},
    names, set_times,
};

/// Texts of which a line has one, if it is of interest. In a text that somebody wrote the closing
/// quote has a backslash before it.
static MARKS: LazyLock<[Finder<'static>; 4]> = LazyLock::new(|| {
    ["\"usage\"", "\"api-request\"", "\"api_error\"", "\"cost-state\""].map(Finder::new)
});

/// Model that stands for an answer that no model gave.
const SYNTHETIC: &str = "<synthetic>";
/// Starts of requests that are remembered until their answers come.
const STARTS: usize = 16;

/// A line.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    subtype: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    uuid: Text<'a>,
    timestamp: Time,
    #[serde(borrow)]
    session_id: Text<'a>,
    #[serde(borrow)]
    request_id: Text<'a>,
    #[serde(borrow)]
    request_ref: Text<'a>,
    is_sidechain: Flag,
    #[serde(borrow)]
    version: Text<'a>,
    #[serde(borrow)]
    cwd: Text<'a>,
    #[serde(borrow)]
    git_branch: Text<'a>,
    #[serde(rename = "costUSD")]
    cost_usd: Dollars,
    #[serde(borrow)]
    message: Object<Message<'a>>,
    #[serde(borrow)]
    error: Object<Failure<'a>>,
    is_api_error_message: Flag,
    api_error_status: Count,
    #[serde(borrow)]
    api_error_type: Text<'a>,
    retry_attempt: Count,
    #[serde(borrow)]
    params: Object<Params<'a>>,
    #[serde(borrow)]
    data: Object<Progress<'a>>,
    #[serde(rename = "totalCostUSD")]
    total_cost_usd: Dollars,
    has_unknown_model_cost: Flag,
    model_usage: Object<BTreeMap<String, Object<ModelUsage>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    stop_reason: Text<'a>,
    #[serde(borrow)]
    usage: Object<Usage<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage<'a> {
    input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation: Object<CacheCreation>,
    output_tokens: Count,
    output_tokens_details: Object<OutputDetails>,
    #[serde(borrow)]
    speed: Text<'a>,
    #[serde(borrow)]
    service_tier: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: Count,
}

/// An attempt that failed. Its `message` is not read.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Failure<'a> {
    status: Count,
    #[serde(borrow)]
    request_id: Text<'a>,
    #[serde(borrow, rename = "requestID")]
    request_id_before: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Params<'a> {
    #[serde(borrow)]
    model: Text<'a>,
}

/// The line of a sub-agent within that of its parent.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Progress<'a> {
    #[serde(borrow)]
    message: Object<Inner<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Inner<'a> {
    timestamp: Time,
    #[serde(borrow)]
    request_id: Text<'a>,
    is_sidechain: Flag,
    #[serde(rename = "costUSD")]
    cost_usd: Dollars,
    #[serde(borrow)]
    message: Object<Message<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ModelUsage {
    input_tokens: Count,
    output_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
}

/// The reader of a file.
#[derive(Debug)]
pub(super) struct Reader {
    tool: Tool,
    changed_ms: i64,
    /// Answer whose further parts may follow.
    open: Option<Found>,
    /// The last requests that were sent: id, time and model.
    starts: Vec<(String, i64, Option<String>)>,
}

impl Reader {
    pub(super) const fn new(tool: Tool, origin: Origin<'_>) -> Self {
        Self { tool, changed_ms: origin.changed_ms, open: None, starts: Vec::new() }
    }

    /// Adds a part of an answer: to the last one, if it is of the same.
    fn add(&mut self, part: Found, harvest: &mut Harvest) {
        harvest.records += 1;
        match &mut self.open {
            Some(open) if is_same(open, &part) => join(open, part),
            open => harvest.found.extend(open.replace(part)),
        }
    }

    fn answer(
        &self,
        entry: &Entry<'_>,
        message: &Message<'_>,
        usage: &Usage<'_>,
        number: u64,
    ) -> Option<Found> {
        let ended_at = entry.timestamp.0.unwrap_or(self.changed_ms);
        let told = told(usage);
        if told.is_nothing() {
            return None;
        }
        let mut request = self.begin(entry);
        request.request_model = message.model.name();
        request.response_model.clone_from(&request.request_model);
        request.response_id = message.id.name();
        request.upstream_request_id = entry.request_id.name();
        request.provider = Some(provider(request.response_id.as_deref()).to_owned());
        request.finish_reason = message.stop_reason.name();
        request.service_tier = tier(usage);
        told.settle(&mut request);
        request.cost_nano_usd = entry.cost_usd.nano();
        request.cost_source = request.cost_nano_usd.map(|_| CostSource::Client);
        set_times(&mut request, self.started(entry), ended_at);
        request.dedupe_key = key(&request, entry);
        Some(self.found(request, entry, number))
    }

    /// Returns a request that the provider refused, where it has an id: what the tool says of
    /// itself (it gave up, it is offline) is no request.
    fn failure(
        &self,
        entry: &Entry<'_>,
        (id, status): (Option<String>, Count),
        number: u64,
    ) -> Option<Found> {
        let (id, at) = (id?, entry.timestamp.0.unwrap_or(self.changed_ms));
        let mut request = self.begin(entry);
        request.http_status = status.0.and_then(|status| u16::try_from(status).ok());
        request.status = Some(RequestStatus::Error);
        request.error_type = entry.api_error_type.name().or_else(|| {
            let status = request.http_status?;
            Some(status.to_string())
        });
        request.usage_source = Some(UsageSource::None);
        request.provider = Some("anthropic".to_owned());
        let attempt = entry.retry_attempt.0.and_then(|attempt| u16::try_from(attempt).ok());
        request.attempt = attempt.filter(|attempt| *attempt > 0);
        request.request_model = self.starts.last().and_then(|(_, _, model)| model.clone());
        let started = self.starts.last().map(|(_, started, _)| *started);
        set_times(&mut request, started, at);
        request.dedupe_key = names::key("anthropic", &id);
        request.upstream_request_id = Some(id);
        Some(self.found(request, entry, number))
    }

    fn begin(&self, entry: &Entry<'_>) -> LlmRequestCompleted {
        LlmRequestCompleted {
            client_version: entry.version.name(),
            session_id: entry.session_id.id(),
            branch: entry.git_branch.name().filter(|branch| branch != "HEAD"),
            dialect: Some(ApiFormat::Messages),
            stream: Some(true),
            ..begun(self.tool)
        }
    }

    fn found(&self, request: LlmRequestCompleted, entry: &Entry<'_>, line: u64) -> Found {
        let (folder, is_side_chain) = (entry.cwd.id(), entry.is_sidechain.0);
        Found { request, folder, is_side_chain, line }
    }

    fn started(&self, entry: &Entry<'_>) -> Option<i64> {
        let id = entry.request_ref.as_str()?;
        self.starts.iter().rev().find(|(known, _, _)| known == id).map(|(_, at, _)| *at)
    }

    fn remember_start(&mut self, entry: &Entry<'_>) {
        let (Some(id), Some(at)) = (entry.id.name(), entry.timestamp.0) else { return };
        if self.starts.len() >= STARTS {
            self.starts.remove(0);
        }
        let model = entry.params.0.as_ref().and_then(|params| params.model.name());
        self.starts.push((id, at, model));
    }

    fn read(&mut self, mut entry: Entry<'_>, number: u64, harvest: &mut Harvest) {
        if entry.kind.is("api-request") {
            return self.remember_start(&entry);
        }
        if entry.kind.is("cost-state") {
            harvest.statements.extend(statement(&entry));
            return;
        }
        if entry.kind.is("system") && entry.subtype.is("api_error") {
            let Some(failure) = &entry.error.0 else { return };
            let id = failure.request_id.name().or_else(|| failure.request_id_before.name());
            if let Some(found) = self.failure(&entry, (id, failure.status), number) {
                self.add(found, harvest);
            }
            return;
        }
        if let Some(inner) = entry.data.0.take().and_then(|data| data.message.0) {
            entry.timestamp = inner.timestamp;
            entry.request_id = inner.request_id;
            entry.is_sidechain = inner.is_sidechain;
            entry.cost_usd = inner.cost_usd;
            entry.message = inner.message;
        }
        let Some(message) = entry.message.0.take() else { return };
        let Some(usage) = &message.usage.0 else { return };
        let found = if message.model.is(SYNTHETIC) || entry.is_api_error_message.0 {
            let id = entry.request_id.name().filter(|_| entry.is_api_error_message.0);
            self.failure(&entry, (id, entry.api_error_status), number)
        } else {
            self.answer(&entry, &message, usage, number)
        };
        if let Some(found) = found {
            self.add(found, harvest);
        }
    }
}

impl LineReader for Reader {
    fn line(&mut self, line: &[u8], number: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        if !MARKS.iter().any(|mark| mark.find(line).is_some()) {
            return Ok(());
        }
        self.read(serde_json::from_slice(line)?, number, harvest);
        Ok(())
    }

    fn end(&mut self, harvest: &mut Harvest) {
        harvest.found.extend(self.open.take());
    }
}

fn told(usage: &Usage<'_>) -> Told {
    let split = usage.cache_creation.0.as_ref();
    Told {
        input: usage.input_tokens,
        cache_read: usage.cache_read_input_tokens,
        cache_write: usage.cache_creation_input_tokens,
        cache_write_5m: split.map(|split| split.ephemeral_5m_input_tokens).unwrap_or_default(),
        cache_write_1h: split.map(|split| split.ephemeral_1h_input_tokens).unwrap_or_default(),
        output: usage.output_tokens,
        reasoning: usage
            .output_tokens_details
            .0
            .as_ref()
            .map(|details| details.thinking_tokens)
            .unwrap_or_default(),
        input_excludes_cache: true,
        output_excludes_reasoning: false,
    }
}

/// Returns the provider, which the form of an answer's id tells where it is not Anthropic itself.
fn provider(answer: Option<&str>) -> &'static str {
    match answer {
        Some(id) if id.starts_with("msg_bdrk_") => "aws.bedrock",
        Some(id) if id.starts_with("msg_vrtx_") => "gcp.vertex_ai",
        _ => "anthropic",
    }
}

/// Returns the speed or the tier of service, whichever is not the ordinary one.
fn tier(usage: &Usage<'_>) -> Option<String> {
    let tiers = [usage.speed.name(), usage.service_tier.name()];
    let mut tiers = tiers.into_iter().flatten().filter(|tier| tier != "auto");
    let first = tiers.next()?;
    if first == "standard" { Some(tiers.next().unwrap_or(first)) } else { Some(first) }
}

fn key(request: &LlmRequestCompleted, entry: &Entry<'_>) -> String {
    let provider = request.provider.as_deref().unwrap_or("anthropic");
    match request.upstream_request_id.as_ref().or(request.response_id.as_ref()) {
        Some(id) => names::key(provider, id),
        None => {
            let number = |count: Option<u64>| count.unwrap_or(0).to_string();
            let parts = [
                entry.session_id.as_str().unwrap_or_default(),
                entry.uuid.as_str().unwrap_or_default(),
                &request.ended_at.to_string(),
                &number(request.input_tokens),
                &number(request.output_tokens),
            ];
            names::key_of("claude-code", &parts)
        }
    }
}

fn is_same(one: &Found, other: &Found) -> bool {
    let (one, other) = (&one.request, &other.request);
    one.dedupe_key == other.dedupe_key
        && one.response_id == other.response_id
        && one.status == other.status
}

/// Joins a further part of an answer: counts only grow, and it ends with its last part.
fn join(open: &mut Found, part: Found) {
    let (known, new) = (&mut open.request, part.request);
    for (count, other) in [
        (&mut known.input_tokens, new.input_tokens),
        (&mut known.cache_read_tokens, new.cache_read_tokens),
        (&mut known.cache_write_5m_tokens, new.cache_write_5m_tokens),
        (&mut known.cache_write_1h_tokens, new.cache_write_1h_tokens),
        (&mut known.output_tokens, new.output_tokens),
        (&mut known.reasoning_tokens, new.reasoning_tokens),
    ] {
        *count = (*count).max(other);
    }
    known.finish_reason = new.finish_reason.or(known.finish_reason.take());
    let started = known.duration_ms.or(new.duration_ms).map(|_| known.started_at);
    set_times(known, started, known.ended_at.max(new.ended_at));
    open.is_side_chain &= part.is_side_chain;
}

/// Returns what the tool says that the session has used.
fn statement(entry: &Entry<'_>) -> Option<Statement> {
    let session = entry.session_id.id()?;
    let models = entry.model_usage.0.as_ref()?;
    let known = !entry.has_unknown_model_cost.0;
    let mut statement = Statement {
        session,
        cost_nano_usd: entry.total_cost_usd.nano().filter(|nano| known && *nano >= 0),
        ..Statement::default()
    };
    for usage in models.values().filter_map(|usage| usage.0.as_ref()) {
        for count in
            [usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens]
        {
            statement.input_tokens = statement.input_tokens.saturating_add(count.or_zero());
        }
        let output = usage.output_tokens.or_zero();
        statement.output_tokens = statement.output_tokens.saturating_add(output);
    }
    Some(statement)
}
