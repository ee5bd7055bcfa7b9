//! Codex (`rollout-….jsonl`, also compressed): records of usage with the id of the answer, or, in
//! older files, sums of the session so far.
//!
//! Its input includes the cache and its output the reasoning. A sub-agent begins with a copy of
//! what its parent has written, all in one second: those sums count to the parent.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use module_sdk::events::{ApiFormat, LlmRequestCompleted};
use module_transcripts::Tool;
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Fault, Found, Harvest, LineReader, Origin, begun,
    counts::Told,
    json::{Count, Object, Text, Time},
    names, set_times,
};

/// Texts of which a line has one, if it is of interest.
static MARKS: LazyLock<[Finder<'static>; 6]> = LazyLock::new(|| {
    [
        "\"token_count\"",
        "\"token_usage_record\"",
        "\"turn_context\"",
        "\"session_meta\"",
        "\"task_started\"",
        "\"task_complete\"",
    ]
    .map(Finder::new)
});

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry<'a> {
    timestamp: Time,
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    payload: Object<Payload<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Payload<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    cwd: Text<'a>,
    #[serde(borrow)]
    cli_version: Text<'a>,
    #[serde(borrow)]
    git: Object<Git<'a>>,
    source: Object<Source>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    thread_id: Text<'a>,
    #[serde(borrow)]
    turn_id: Text<'a>,
    #[serde(borrow)]
    response_id: Text<'a>,
    usage: Object<Usage>,
    #[serde(borrow)]
    info: Object<Info<'a>>,
    time_to_first_token_ms: Count,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Git<'a> {
    #[serde(borrow)]
    branch: Text<'a>,
}

/// Origin of the session; of a sub-agent, what spawned it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Source {
    subagent: Object<SubAgent>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SubAgent {
    thread_spawn: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Info<'a> {
    last_token_usage: Object<Usage>,
    total_token_usage: Object<Usage>,
    #[serde(borrow)]
    model: Text<'a>,
}

#[derive(Deserialize, Default, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(default)]
struct Usage {
    input_tokens: Count,
    cached_input_tokens: Count,
    cache_write_input_tokens: Count,
    output_tokens: Count,
    reasoning_output_tokens: Count,
}

impl Usage {
    const fn parts(&self) -> [Count; 5] {
        [
            self.input_tokens,
            self.cached_input_tokens,
            self.cache_write_input_tokens,
            self.output_tokens,
            self.reasoning_output_tokens,
        ]
    }

    /// Returns what was added since an earlier sum; `None` where this is no later sum of the same.
    fn since(&self, earlier: &Self) -> Option<Self> {
        let mut parts = self.parts();
        for (part, before) in parts.iter_mut().zip(earlier.parts()) {
            let count = part.or_zero().checked_sub(before.or_zero())?;
            *part = Count(part.0.map(|_| count));
        }
        let [input_tokens, cached_input_tokens, cache_write_input_tokens, rest @ ..] = parts;
        let [output_tokens, reasoning_output_tokens] = rest;
        Some(Self {
            input_tokens,
            cached_input_tokens,
            cache_write_input_tokens,
            output_tokens,
            reasoning_output_tokens,
        })
    }

    fn told(&self) -> Told {
        Told {
            input: self.input_tokens,
            cache_read: self.cached_input_tokens,
            cache_write: self.cache_write_input_tokens,
            output: self.output_tokens,
            reasoning: self.reasoning_output_tokens,
            ..Told::default()
        }
    }
}

/// Part of a file that is a copy of what its parent wrote.
#[derive(Debug, Default)]
enum Replay {
    /// Nothing, from here on.
    #[default]
    None,
    /// Unknown: the file is of a sub-agent. Its first sum waits, with its second.
    Unsure(Option<(i64, Box<Found>)>),
    /// All sums of this second.
    In(i64),
}

/// The reader of a file.
#[derive(Debug)]
pub(super) struct Reader {
    session: Option<String>,
    version: Option<String>,
    branch: Option<String>,
    folder: Option<String>,
    model: Option<String>,
    replay: Replay,
    /// Last sum of the session.
    total: Option<Usage>,
    /// Usage of the last record with an id: the sum that follows repeats it.
    recorded: Option<Usage>,
    /// Start of the turn, until its first request.
    turn_started: Option<i64>,
    /// First request of the turn, while it may be the only one.
    first: Option<Found>,
}

impl Reader {
    pub(super) fn new(origin: Origin<'_>) -> Self {
        let name = origin.stem();
        Self {
            // `rollout-2026-11-20T23-49-19-01a1fb5d-53c7-71a1-8eb0-93bfd3ca6406`
            session: name.get(name.len().saturating_sub(36)..).map(str::to_owned),
            version: None,
            branch: None,
            folder: None,
            model: None,
            replay: Replay::None,
            total: None,
            recorded: None,
            turn_started: None,
            first: None,
        }
    }

    fn describe(&mut self, payload: &Payload<'_>) {
        self.session = payload.id.id().or(self.session.take());
        self.version = payload.cli_version.name().or(self.version.take());
        self.folder = payload.cwd.id().or(self.folder.take());
        let branch = payload.git.0.as_ref().and_then(|git| git.branch.name());
        self.branch = branch.or(self.branch.take());
        let spawned = payload.source.0.as_ref().and_then(|source| source.subagent.0.as_ref());
        if spawned.is_some_and(|agent| agent.thread_spawn.is_some()) {
            self.replay = Replay::Unsure(None);
        }
    }

    fn begin_turn(&mut self, at: Option<i64>, harvest: &mut Harvest) {
        harvest.found.extend(self.first.take());
        self.turn_started = at;
    }

    /// Ends a turn. The time to its first token is that of a request, where it had only one.
    fn end_turn(&mut self, payload: &Payload<'_>, harvest: &mut Harvest) {
        if let Some(mut first) = self.first.take() {
            let ms = payload.time_to_first_token_ms.0.and_then(|ms| u32::try_from(ms).ok());
            let lasted = first.request.duration_ms;
            first.request.ttft_ms = ms.filter(|ms| lasted.is_none_or(|lasted| *ms <= lasted));
            harvest.found.push(first);
        }
        self.turn_started = None;
    }

    fn request(&self, usage: &Usage, at: i64, line: u64) -> Option<Found> {
        let told = usage.told();
        if told.is_nothing() {
            return None;
        }
        let mut request = LlmRequestCompleted {
            client_version: self.version.clone(),
            session_id: self.session.clone(),
            branch: self.branch.clone(),
            dialect: Some(ApiFormat::Responses),
            stream: Some(true),
            // Its `model_provider` is a title that the user chose; the dialect is OpenAI's.
            provider: Some("openai".to_owned()),
            request_model: self.model.clone(),
            response_model: self.model.clone(),
            ..begun(Tool::Codex)
        };
        told.settle(&mut request);
        set_times(&mut request, None, at);
        Some(Found { request, folder: self.folder.clone(), is_side_chain: false, line })
    }

    /// Gives out a request: the first of a turn waits until it is known whether it is the only one.
    fn give(&mut self, mut found: Found, harvest: &mut Harvest) {
        match self.turn_started.take() {
            Some(started) => {
                let ended_at = found.request.ended_at;
                set_times(&mut found.request, Some(started), ended_at);
                self.first = Some(found);
            }
            None => {
                harvest.found.extend(self.first.take());
                harvest.found.push(found);
            }
        }
    }

    fn record(&mut self, payload: &Payload<'_>, at: Option<i64>, line: u64, out: &mut Harvest) {
        let (Some(usage), Some(at)) = (payload.usage.0, at) else { return };
        self.recorded = Some(usage);
        let Some(mut found) = self.request(&usage, at, line) else { return };
        out.records += 1;
        let request = &mut found.request;
        request.turn_id = payload.turn_id.id();
        request.session_id = payload.thread_id.id().or(request.session_id.take());
        request.response_id = payload.response_id.name();
        request.dedupe_key = match &request.response_id {
            Some(id) => names::key("openai", id),
            None => key(request, None),
        };
        self.give(found, out);
    }

    fn count(&mut self, info: &Info<'_>, at: Option<i64>, line: u64, out: &mut Harvest) {
        let (total, last) = (info.total_token_usage.0, info.last_token_usage.0);
        let before = self.total;
        self.total = total.or(before);
        let usage = match (total, before, last) {
            // The sum is told again, without a request in between.
            (Some(total), Some(before), _) if total == before => return,
            (Some(total), Some(before), last) => total.since(&before).or(last).or(Some(total)),
            (Some(total), None, last) => last.or(Some(total)),
            (None, _, last) => last,
        };
        let (Some(usage), Some(at)) = (usage, at) else { return };
        // The record with the id has reported it.
        if let Some(recorded) = self.recorded.take()
            && (recorded == usage || Some(recorded) == last)
        {
            return;
        }
        let model = info.model.name();
        let Some(mut found) = self.request(&usage, at, line) else { return };
        out.records += 1;
        if model.is_some() {
            found.request.request_model.clone_from(&model);
            found.request.response_model = model;
        }
        found.request.dedupe_key = key(&found.request, total.as_ref());
        self.give_unless_replayed(found, out);
    }

    fn give_unless_replayed(&mut self, found: Found, harvest: &mut Harvest) {
        let second = found.request.ended_at.div_euclid(1_000);
        match std::mem::take(&mut self.replay) {
            Replay::Unsure(None) => self.replay = Replay::Unsure(Some((second, Box::new(found)))),
            Replay::Unsure(Some((first, _))) if first == second => {
                self.replay = Replay::In(second);
            }
            Replay::Unsure(Some((_, waiting))) => {
                self.give(*waiting, harvest);
                self.give(found, harvest);
            }
            Replay::In(copied) if copied == second => self.replay = Replay::In(copied),
            Replay::In(_) | Replay::None => self.give(found, harvest),
        }
    }
}

impl LineReader for Reader {
    fn line(&mut self, line: &[u8], number: u64, harvest: &mut Harvest) -> Result<(), Fault> {
        if !MARKS.iter().any(|mark| mark.find(line).is_some()) {
            return Ok(());
        }
        let entry: Entry<'_> = serde_json::from_slice(line)?;
        let Some(payload) = &entry.payload.0 else { return Ok(()) };
        let at = entry.timestamp.0;
        let kind = entry.kind.as_str().unwrap_or_default();
        match (kind, payload.kind.as_str().unwrap_or_default()) {
            ("session_meta", _) => self.describe(payload),
            ("turn_context", _) => {
                self.model = payload.model.name().or(self.model.take());
                self.folder = payload.cwd.id().or(self.folder.take());
            }
            ("token_usage_record", _) => self.record(payload, at, number, harvest),
            ("event_msg", "task_started") => self.begin_turn(at, harvest),
            ("event_msg", "task_complete") => self.end_turn(payload, harvest),
            ("event_msg", "token_count") => {
                if let Some(info) = &payload.info.0 {
                    self.count(info, at, number, harvest);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, harvest: &mut Harvest) {
        if let Replay::Unsure(Some((_, waiting))) = std::mem::take(&mut self.replay) {
            self.give(*waiting, harvest);
        }
        harvest.found.extend(self.first.take());
    }
}

/// Returns the key of a request without an id: its session, its time and the sum so far.
fn key(request: &LlmRequestCompleted, total: Option<&Usage>) -> String {
    let number = |count: Option<u64>| count.unwrap_or(0).to_string();
    let mut parts = vec![
        request.session_id.clone().unwrap_or_default(),
        request.ended_at.to_string(),
        number(request.input_tokens),
        number(request.output_tokens),
    ];
    parts.extend(total.iter().flat_map(|total| total.parts()).map(|count| number(count.0)));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    names::key_of("codex", &parts)
}
