//! One of LiteLLM's standard logs (`StandardLoggingPayload`), as far as it is read: numbers and
//! names, and of the messages nothing.

use module_sdk::events::{
    ApiFormat, CostSource, LlmRequestCompleted, RequestSource, RequestStatus, UsageSource,
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Around;
use crate::{
    report::Report,
    sources::{
        Clock, Counts, MAX_TOKENS, Outcome, Refusal, canonical_provider, milliseconds, name,
        nano_usd, provider_of_model, tier, unnamed,
    },
};

/// A value that counts as absent where it has another type.
#[derive(Debug)]
struct Lenient<T>(Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(value.get()).ok()))
    }
}

impl Lenient<String> {
    fn name(&self) -> Option<String> {
        name(self.0.as_deref()?)
    }

    /// Returns a text that somebody chose, for a pseudonym.
    fn identifier(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.trim().is_empty())
    }
}

/// A log.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Payload {
    id: Lenient<String>,
    litellm_call_id: Lenient<String>,
    session_id: Lenient<String>,
    call_type: Lenient<String>,
    cache_hit: Lenient<bool>,
    stream: Lenient<bool>,
    status: Lenient<String>,
    custom_llm_provider: Lenient<String>,
    #[serde(rename = "startTime")]
    start_time: Lenient<f64>,
    #[serde(rename = "endTime")]
    end_time: Lenient<f64>,
    #[serde(rename = "completionStartTime")]
    completion_start_time: Lenient<f64>,
    model: Lenient<String>,
    metadata: Lenient<Metadata>,
    response_cost: Lenient<f64>,
    prompt_tokens: Lenient<f64>,
    completion_tokens: Lenient<f64>,
    end_user: Lenient<String>,
    response: Lenient<Answer>,
    hidden_params: Lenient<Hidden>,
    error_information: Lenient<ErrorInformation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    usage_object: Lenient<Usage>,
    user_api_key_user_id: Lenient<String>,
    user_api_key_project_alias: Lenient<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: Lenient<f64>,
    input_tokens: Lenient<f64>,
    completion_tokens: Lenient<f64>,
    output_tokens: Lenient<f64>,
    cache_read_input_tokens: Lenient<f64>,
    cache_creation_input_tokens: Lenient<f64>,
    prompt_tokens_details: Lenient<PromptDetails>,
    completion_tokens_details: Lenient<CompletionDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Lenient<f64>,
    cache_creation_tokens: Lenient<f64>,
    cache_write_tokens: Lenient<f64>,
    cache_creation_token_details: Lenient<Writes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Writes {
    ephemeral_5m_input_tokens: Lenient<f64>,
    ephemeral_1h_input_tokens: Lenient<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Lenient<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    model: Lenient<String>,
    service_tier: Lenient<String>,
    choices: Lenient<Vec<Choice>>,
    usage: Lenient<Usage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    finish_reason: Lenient<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Hidden {
    additional_headers: Lenient<Headers>,
}

/// Headers of the provider's answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Headers {
    #[serde(rename = "llm_provider-request-id")]
    request_id: Lenient<String>,
    #[serde(rename = "llm_provider-x-request-id")]
    x_request_id: Lenient<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorInformation {
    error_code: Lenient<String>,
    error_class: Lenient<String>,
    error_provider_request_id: Lenient<String>,
}

/// Returns the outcome of what is no log at all.
pub(super) fn no_log() -> Outcome {
    Outcome::Refused(Refusal::new("the log", "must be an object"))
}

impl Payload {
    /// Returns the name of the kind of call.
    pub(super) fn record(&self) -> String {
        self.call_type.name().unwrap_or_else(unnamed)
    }

    /// Maps the log.
    pub(super) fn map(&self, around: &Around, clock: Clock) -> Outcome {
        match self.report(around, clock) {
            Ok(Some(report)) => Outcome::Request(Box::new(report)),
            Ok(None) => Outcome::Ignored("neither a model nor counts"),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn report(&self, around: &Around, clock: Clock) -> Result<Option<Report>, Refusal> {
        let Some(model) = self.model.name() else { return Ok(None) };
        let mut report = Report { reporter: "litellm generic_api".to_owned(), ..Report::default() };
        let event = &mut report.event;
        event.schema = 1;
        event.source = Some(RequestSource::Litellm);
        event.source_ref = Some("generic_api".to_owned());
        event.client = Some("litellm".to_owned());
        event.client_version.clone_from(&around.version);
        event.provider = self.custom_llm_provider.name().map(|it| canonical_provider(&it));
        if event.provider.is_none() {
            event.provider = provider_of_model(&model).map(str::to_owned);
        }
        event.request_model = Some(model);
        self.identify(event, around);
        self.outcome(event);
        self.counts()?.settle(event);
        self.cost(event)?;
        if event.usage_source == Some(UsageSource::None)
            && event.status == Some(RequestStatus::Ok)
            && event.cost_nano_usd.is_none()
        {
            return Ok(None);
        }
        (report.stated_time_ns, report.clock_corrected) = self.times(event, clock);
        Ok(Some(report))
    }

    fn identify(&self, event: &mut LlmRequestCompleted, around: &Around) {
        let metadata = self.metadata.0.as_ref();
        let pseudonym = |kind: &str, id: &str| around.app.host.pseudonym(kind, id);
        event.operation = self.call_type.name().map(|call| operation(&call));
        event.dialect = match event.operation.as_deref() {
            Some("embeddings") => Some(ApiFormat::Embeddings),
            Some("text_completion") => Some(ApiFormat::Completions),
            _ => None,
        };
        event.session_id = self.session_id.identifier().map(|id| pseudonym("session", id));
        let user = self.end_user.identifier();
        let user = user.or_else(|| metadata?.user_api_key_user_id.identifier());
        event.user = user.map(|id| pseudonym("user", id));
        let stated = metadata.and_then(|it| it.user_api_key_project_alias.name());
        event.project = around.project.clone().or(stated);
        // Where the provider gave no id, LiteLLM's own of the call stands here.
        event.response_id = self.id.name().filter(|id| Some(id) != self.litellm_call_id.0.as_ref());
        let headers = self.hidden_params.0.as_ref().and_then(|it| it.additional_headers.0.as_ref());
        let error = self.error_information.0.as_ref();
        event.upstream_request_id = headers
            .and_then(|it| it.request_id.name().or_else(|| it.x_request_id.name()))
            .or_else(|| error?.error_provider_request_id.name());
        event.stream = self.stream.0;
        let Some(answer) = &self.response.0 else { return };
        event.response_model = answer.model.name();
        event.service_tier = answer.service_tier.name().and_then(|name| tier(&name));
        let first = answer.choices.0.as_ref().and_then(|choices| choices.first());
        event.finish_reason = first.and_then(|choice| choice.finish_reason.name());
    }

    fn outcome(&self, event: &mut LlmRequestCompleted) {
        let is_failure = self.status.0.as_deref() == Some("failure");
        if !is_failure {
            let is_cached = self.cache_hit.0 == Some(true);
            let status = if is_cached { RequestStatus::Cached } else { RequestStatus::Ok };
            event.status = Some(status);
            return;
        }
        let error = self.error_information.0.as_ref();
        event.error_type = error.and_then(|it| it.error_class.name());
        event.http_status = error.and_then(|it| it.error_code.0.as_deref()?.parse().ok());
        let is_timeout = event.error_type.as_ref().is_some_and(|it| it.contains("Timeout"));
        let status = if is_timeout { RequestStatus::Timeout } else { RequestStatus::Error };
        event.status = Some(status);
    }

    fn counts(&self) -> Result<Counts, Refusal> {
        let none = Usage::default();
        let of_answer = || self.response.0.as_ref()?.usage.0.as_ref();
        let usage = self.metadata.0.as_ref().and_then(|it| it.usage_object.0.as_ref());
        let usage = usage.or_else(of_answer).unwrap_or(&none);
        let (no_prompt, no_completion) = (PromptDetails::default(), CompletionDetails::default());
        let prompt = usage.prompt_tokens_details.0.as_ref().unwrap_or(&no_prompt);
        let completion = usage.completion_tokens_details.0.as_ref().unwrap_or(&no_completion);
        let writes = prompt.cache_creation_token_details.0.as_ref();
        let input = [&usage.prompt_tokens, &usage.input_tokens, &self.prompt_tokens];
        let output = [&usage.completion_tokens, &usage.output_tokens, &self.completion_tokens];
        let written = [
            &usage.cache_creation_input_tokens,
            &prompt.cache_creation_tokens,
            &prompt.cache_write_tokens,
        ];
        let counts = Counts {
            input: count("prompt_tokens", &input)?,
            cache_read: count(
                "cached_tokens",
                &[&usage.cache_read_input_tokens, &prompt.cached_tokens],
            )?,
            cache_write: count("cache_creation_tokens", &written)?,
            cache_write_5m: writes
                .map(|it| count("ephemeral_5m_input_tokens", &[&it.ephemeral_5m_input_tokens]))
                .transpose()?
                .flatten(),
            cache_write_1h: writes
                .map(|it| count("ephemeral_1h_input_tokens", &[&it.ephemeral_1h_input_tokens]))
                .transpose()?
                .flatten(),
            output: count("completion_tokens", &output)?,
            reasoning: count("reasoning_tokens", &[&completion.reasoning_tokens])?,
            ..Counts::default()
        };
        // Of what failed LiteLLM tells zeros where it knows nothing.
        let is_empty = counts.input.unwrap_or(0) == 0 && counts.output.unwrap_or(0) == 0;
        let is_failure = self.status.0.as_deref() == Some("failure");
        Ok(if is_empty && is_failure { Counts::default() } else { counts })
    }

    /// Sets the cost. LiteLLM tells 0 for a model whose price it does not know.
    fn cost(&self, event: &mut LlmRequestCompleted) -> Result<(), Refusal> {
        let is_cached = event.status == Some(RequestStatus::Cached);
        let Some(usd) = self.response_cost.0.filter(|usd| *usd != 0.0 || is_cached) else {
            return Ok(());
        };
        let cost = nano_usd(usd).map_err(|what| Refusal::new("response_cost", what))?;
        event.cost_nano_usd = Some(cost);
        event.cost_source = Some(CostSource::Client);
        Ok(())
    }

    /// Sets the times. Returns the end as it is stated, and whether another one was taken.
    fn times(&self, event: &mut LlmRequestCompleted, clock: Clock) -> (u64, bool) {
        let (start, end) = (self.start_time.0, self.end_time.0);
        let stated = [end.map_or(0, nanoseconds), start.map_or(0, nanoseconds)];
        let (ended_at, corrected) = clock.pick(&stated);
        let lasted = |from: Option<f64>, to: Option<f64>| milliseconds((to? - from?) * 1000.0);
        let duration = lasted(start, end);
        event.ended_at = ended_at;
        event.started_at = ended_at - duration.map_or(0, i64::from);
        event.duration_ms = duration;
        // Without a stream it is the end.
        if self.stream.0 == Some(true) {
            event.ttft_ms = lasted(start, self.completion_start_time.0);
        }
        (stated.into_iter().find(|time| *time != 0).unwrap_or(0), corrected)
    }
}

/// Returns the operation by OpenTelemetry's name; calls that wait for an answer and those that do
/// not have the same.
fn operation(call: &str) -> String {
    let operation = match call {
        "completion" | "acompletion" | "responses" | "aresponses" | "anthropic_messages" => "chat",
        "text_completion" | "atext_completion" => "text_completion",
        "embedding" | "aembedding" => "embeddings",
        other => other,
    };
    operation.to_owned()
}

/// Returns the first count that is there and not 0, else 0 where one is there.
fn count(field: &'static str, counts: &[&Lenient<f64>]) -> Result<Option<u64>, Refusal> {
    let stated = counts.iter().filter_map(|it| it.0);
    let Some(count) = stated.clone().find(|count| *count != 0.0).or_else(|| stated.clone().next())
    else {
        return Ok(None);
    };
    if count < 0.0 {
        return Err(Refusal::new(field, "is negative"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let whole = count as u64;
    if whole > MAX_TOKENS || count.fract() != 0.0 {
        return Err(Refusal::new(field, "is no number of tokens"));
    }
    Ok(Some(whole))
}

/// Converts seconds since the Unix epoch to nanoseconds; 0 where no time is that.
fn nanoseconds(seconds: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let microseconds = (seconds * 1e6) as u64;
    microseconds.saturating_mul(1000)
}
