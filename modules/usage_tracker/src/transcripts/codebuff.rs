//! Codebuff: one document with all messages of a chat; usage stands in the metadata of an answer,
//! or in the state of the run.

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
struct Message<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    variant: Text<'a>,
    #[serde(borrow)]
    role: Text<'a>,
    timestamp: Time,
    created_at: Time,
    #[serde(borrow)]
    metadata: Object<Metadata<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    usage: Object<Usage<'a>>,
    #[serde(borrow)]
    codebuff: Object<Nested<'a>>,
    #[serde(borrow)]
    run_state: Object<RunState<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Nested<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    usage: Object<Usage<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RunState<'a> {
    #[serde(borrow)]
    session_state: Object<SessionState<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SessionState<'a> {
    #[serde(borrow)]
    main_agent_state: Object<AgentState<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AgentState<'a> {
    #[serde(borrow)]
    message_history: Objects<Past<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Past<'a> {
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow)]
    provider_options: Object<ProviderOptions<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ProviderOptions<'a> {
    #[serde(borrow)]
    usage: Object<Usage<'a>>,
    #[serde(borrow)]
    codebuff: Object<Nested<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Usage<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(alias = "input_tokens", alias = "promptTokens", alias = "prompt_tokens")]
    input_tokens: Count,
    #[serde(alias = "output_tokens", alias = "completionTokens", alias = "completion_tokens")]
    output_tokens: Count,
    #[serde(alias = "cache_read_input_tokens")]
    cache_read_input_tokens: Count,
    #[serde(alias = "cache_creation_input_tokens")]
    cache_creation_input_tokens: Count,
}

impl Usage<'_> {
    fn told(&self) -> Option<Told> {
        let told = Told {
            input: self.input_tokens,
            output: self.output_tokens,
            cache_read: self.cache_read_input_tokens,
            cache_write: self.cache_creation_input_tokens,
            ..Told::default()
        };
        (!told.is_nothing()).then_some(told)
    }
}

/// Returns the usage of an answer, with its model: the first place that has one.
fn usage(metadata: &Metadata<'_>) -> Option<(Told, Option<String>)> {
    let nested = metadata.codebuff.0.as_ref();
    let mut places = vec![
        (metadata.usage.0.as_ref(), None),
        (nested.and_then(|it| it.usage.0.as_ref()), nested.and_then(|it| it.model.name())),
    ];
    let run = metadata.run_state.0.as_ref().and_then(|run| run.session_state.0.as_ref());
    let agent = run.and_then(|session| session.main_agent_state.0.as_ref());
    let past = agent.iter().flat_map(|agent| agent.message_history.0.iter().rev());
    let past = past.filter(|past| past.role.is("assistant"));
    for options in past.filter_map(|past| past.provider_options.0.as_ref()) {
        let nested = options.codebuff.0.as_ref();
        places.push((options.usage.0.as_ref(), None));
        places.push((
            nested.and_then(|it| it.usage.0.as_ref()),
            nested.and_then(|it| it.model.name()),
        ));
    }
    places.into_iter().find_map(|(usage, model)| {
        let usage = usage?;
        let told = usage.told()?;
        Some((told, metadata.model.name().or_else(|| usage.model.name()).or(model)))
    })
}

/// Reads the document of a chat.
pub(super) fn document(
    text: &[u8],
    origin: Origin<'_>,
    harvest: &mut Harvest,
) -> Result<(), Fault> {
    let Objects(messages): Objects<Message<'_>> = serde_json::from_slice(text)?;
    let session = origin.folder();
    for (number, message) in messages.iter().enumerate() {
        let kind = message.variant.as_str().or_else(|| message.role.as_str());
        if !matches!(kind, Some("ai" | "agent" | "assistant")) {
            continue;
        }
        let Some((told, model)) = message.metadata.0.as_ref().and_then(usage) else { continue };
        let mut request =
            LlmRequestCompleted { session_id: Some(session.to_owned()), ..begun(Tool::Codebuff) };
        set_model(&mut request, model, None);
        told.settle(&mut request);
        let at = message.timestamp.0.or(message.created_at.0);
        set_times(&mut request, None, at.unwrap_or(origin.changed_ms));
        request.dedupe_key = match message.id.as_str() {
            Some(id) => names::key_of("codebuff", &[session, id]),
            None => names::key_of("codebuff", &[session, &number.to_string()]),
        };
        harvest.records += 1;
        harvest.found.push(Found { request, ..Found::default() });
    }
    Ok(())
}
