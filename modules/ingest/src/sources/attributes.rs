//! The attribute allow-list: the only way from a telemetry body into an event.
//!
//! A mapper can read an attribute only through a [`Key`], and every key there is stands in
//! [`keys`]. Text comes out only in the shape of a name, so that a prompt that somebody put into a
//! listed attribute does not pass either (adr/0021).

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};

use super::Refusal;

/// An attribute that may be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key(&'static str);

impl Key {
    pub(crate) const fn as_str(self) -> &'static str {
        self.0
    }
}

/// The allow-list.
pub(crate) mod keys {
    use super::Key;

    macro_rules! allow {
        ($($name:ident = $key:literal;)+) => {
            $(pub(crate) const $name: Key = Key($key);)+
            /// Every attribute that is ever read.
            #[cfg(test)]
            pub(crate) const ALL: &[Key] = &[$($name),+];
        };
    }

    allow! {
        // Resources.
        SERVICE_NAME = "service.name";
        SERVICE_VERSION = "service.version";
        PROJECT = "lodestar.project";
        BRANCH = "vcs.ref.head.name";
        // Common to the logs of the coding tools.
        EVENT_NAME = "event.name";
        EVENT_NAME_OLD = "event_name";
        EVENT_TIMESTAMP = "event.timestamp";
        SESSION_ID = "session.id";
        USER_ID = "user.id";
        PROMPT_ID = "prompt.id";
        MODEL = "model";
        INPUT_TOKENS = "input_tokens";
        OUTPUT_TOKENS = "output_tokens";
        DURATION_MS = "duration_ms";
        TTFT_MS = "ttft_ms";
        STATUS_CODE = "status_code";
        HTTP_STATUS_CODE = "http.response.status_code";
        HTTP_STATUS_CODE_OLD = "http.status_code";
        ATTEMPT = "attempt";
        ERROR_TYPE = "error.type";
        // Claude Code.
        REQUEST_ID = "request_id";
        CACHE_READ_TOKENS = "cache_read_tokens";
        CACHE_CREATION_TOKENS = "cache_creation_tokens";
        CACHE_CREATION_5M_TOKENS = "cache_creation_5m_tokens";
        CACHE_CREATION_1H_TOKENS = "cache_creation_1h_tokens";
        COST_USD = "cost_usd";
        COST_USD_MICROS = "cost_usd_micros";
        ANTHROPIC_PROVIDER = "anthropic.provider";
        FIRST_CONTENT_MS = "first_content_ms";
        STOP_REASON = "stop_reason";
        SUCCESS = "success";
        // Codex.
        EVENT_KIND = "event.kind";
        CONVERSATION_ID = "conversation.id";
        INPUT_TOKEN_COUNT = "input_token_count";
        OUTPUT_TOKEN_COUNT = "output_token_count";
        CACHED_TOKEN_COUNT = "cached_token_count";
        CACHE_WRITE_TOKEN_COUNT = "cache_write_token_count";
        REASONING_TOKEN_COUNT = "reasoning_token_count";
        APP_VERSION = "app.version";
        ENDPOINT = "endpoint";
        CODEX_REASONING_TOKENS = "codex.usage.reasoning_output_tokens";
        TURN_ID = "turn.id";
        // Gemini CLI.
        CACHED_CONTENT_TOKEN_COUNT = "cached_content_token_count";
        THOUGHTS_TOKEN_COUNT = "thoughts_token_count";
        PROMPT_ID_GEMINI = "prompt_id";
        // OpenTelemetry GenAI, with the names of older versions.
        OPERATION = "gen_ai.operation.name";
        PROVIDER = "gen_ai.provider.name";
        SYSTEM = "gen_ai.system";
        REQUEST_MODEL = "gen_ai.request.model";
        RESPONSE_MODEL = "gen_ai.response.model";
        RESPONSE_ID = "gen_ai.response.id";
        FINISH_REASONS = "gen_ai.response.finish_reasons";
        REQUEST_STREAM = "gen_ai.request.stream";
        GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id";
        TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk";
        USAGE_INPUT = "gen_ai.usage.input_tokens";
        USAGE_OUTPUT = "gen_ai.usage.output_tokens";
        USAGE_PROMPT_OLD = "gen_ai.usage.prompt_tokens";
        USAGE_COMPLETION_OLD = "gen_ai.usage.completion_tokens";
        USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens";
        USAGE_CACHE_READ_OLD = "gen_ai.usage.cache_read_input_tokens";
        USAGE_CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens";
        USAGE_CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens";
        USAGE_CACHE_CREATION_OLD = "gen_ai.usage.cache_creation_input_tokens";
        USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens";
        USAGE_REASONING_OLD = "gen_ai.usage.reasoning_tokens";
        USAGE_COST = "gen_ai.usage.cost";
        // What provider SDKs and instrumentations add.
        ANTHROPIC_REQUEST_ID = "anthropic.request.id";
        ANTHROPIC_WRITE_5M = "anthropic.usage.cache_creation.ephemeral_5m_input_tokens";
        ANTHROPIC_WRITE_1H = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens";
        ANTHROPIC_STOP_REASON = "anthropic.message.stop_reason";
        OPENAI_API_TYPE = "openai.api.type";
        LLM_REQUEST_TYPE = "llm.request.type";
        LLM_IS_STREAMING = "llm.is_streaming";
        LITELLM_CALL_ID = "litellm.call_id";
        LITELLM_COST = "gen_ai.cost.total_cost";
        LITELLM_USAGE = "metadata.usage_object";
        // The AI SDK (opencode).
        AI_MODEL_PROVIDER = "ai.model.provider";
        AI_MODEL_ID = "ai.model.id";
        AI_SESSION_ID = "ai.telemetry.metadata.sessionId";
        AI_RESPONSE_ID = "ai.response.id";
        AI_RESPONSE_MODEL = "ai.response.model";
        AI_FINISH_REASON = "ai.response.finishReason";
        AI_MS_TO_FIRST_CHUNK = "ai.response.msToFirstChunk";
        AI_INPUT_TOKENS = "ai.usage.inputTokens";
        AI_OUTPUT_TOKENS = "ai.usage.outputTokens";
        AI_PROMPT_TOKENS = "ai.usage.promptTokens";
        AI_COMPLETION_TOKENS = "ai.usage.completionTokens";
        AI_CACHE_READ = "ai.usage.inputTokenDetails.cacheReadTokens";
        AI_CACHE_WRITE = "ai.usage.inputTokenDetails.cacheWriteTokens";
        AI_CACHED_INPUT = "ai.usage.cachedInputTokens";
        AI_REASONING = "ai.usage.outputTokenDetails.reasoningTokens";
        AI_REASONING_OLD = "ai.usage.reasoningTokens";
        // OpenInference.
        OPENINFERENCE_KIND = "openinference.span.kind";
        LLM_MODEL_NAME = "llm.model_name";
        LLM_PROVIDER = "llm.provider";
        LLM_SYSTEM = "llm.system";
        LLM_PROMPT_TOKENS = "llm.token_count.prompt";
        LLM_COMPLETION_TOKENS = "llm.token_count.completion";
        LLM_CACHE_READ = "llm.token_count.prompt_details.cache_read";
        LLM_CACHE_WRITE = "llm.token_count.prompt_details.cache_write";
        LLM_REASONING = "llm.token_count.completion_details.reasoning";
    }
}

/// No request has more tokens; a larger count is a fault of the sender and would spoil sums.
pub(crate) const MAX_TOKENS: u64 = 1_000_000_000_000;

/// No request costs more (USD).
const MAX_COST_USD: f64 = 1_000_000.0;

/// The attributes of a record, of which only those on the allow-list can be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(&'a [KeyValue]);

impl<'a> Attributes<'a> {
    pub(crate) const fn new(attributes: &'a [KeyValue]) -> Self {
        Self(attributes)
    }

    fn value(self, key: Key) -> Option<&'a Value> {
        let found = self.0.iter().find(|attribute| attribute.key == key.as_str())?;
        found.value.as_ref()?.value.as_ref()
    }

    /// Whether the attribute is there with a value.
    pub(crate) fn has(self, key: Key) -> bool {
        self.value(key).is_some()
    }

    /// Whether any attribute's name begins so. The attribute itself is not read.
    pub(crate) fn any_named(self, prefix: &str) -> bool {
        self.0.iter().any(|attribute| attribute.key.starts_with(prefix))
    }

    /// The first of `keys` that holds a text in the shape of a name.
    pub(crate) fn name(self, keys: &[Key]) -> Option<String> {
        keys.iter().find_map(|key| match self.value(*key)? {
            Value::StringValue(text) => name(text),
            Value::IntValue(number) => Some(number.to_string()),
            _ => None,
        })
    }

    /// The first of `keys` that holds an identifier of a person, host or session, to be turned
    /// into a pseudonym by the caller and never passed on.
    pub(crate) fn identifier(self, keys: &[Key]) -> Option<&'a str> {
        keys.iter().find_map(|key| match self.value(*key)? {
            Value::StringValue(text) if !text.trim().is_empty() => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether the attribute holds exactly this text.
    pub(crate) fn is(self, key: Key, expected: &str) -> bool {
        matches!(self.value(key), Some(Value::StringValue(text)) if text == expected)
    }

    /// The first of `keys` that is there, as a number of tokens.
    pub(crate) fn count(self, keys: &[Key]) -> Result<Option<u64>, Refusal> {
        match keys.iter().find_map(|key| Some((*key, self.value(*key)?))) {
            Some((key, value)) => count(value).map_err(|what| Refusal::new(key.as_str(), what)),
            None => Ok(None),
        }
    }

    /// The number behind `'name':` in a text that holds an object as Python or JSON writes it.
    /// Nothing else of the text is read.
    pub(crate) fn count_within(self, key: Key, name: &str) -> Option<u64> {
        let Value::StringValue(text) = self.value(key)? else { return None };
        let places =
            text.match_indices(name).map(|(at, _)| (&text[..at], &text[at + name.len()..]));
        let named = places.filter(|(before, _)| before.ends_with(['\'', '"']));
        named
            .filter_map(|(_, after)| after.strip_prefix(['\'', '"'])?.strip_prefix(':'))
            .find_map(|value| {
                let value = value.trim_start();
                let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
                value[..end].parse().ok()
            })
            .filter(|count| *count <= MAX_TOKENS)
    }

    /// The first of `keys` that is there, as money: USD to nano-USD.
    pub(crate) fn usd(self, keys: &[Key]) -> Result<Option<i64>, Refusal> {
        let Some((key, value)) = keys.iter().find_map(|key| Some((*key, self.value(*key)?))) else {
            return Ok(None);
        };
        match number(value) {
            None => Err(Refusal::new(key.as_str(), "is not a number")),
            Some(usd) => nano_usd(usd).map(Some).map_err(|what| Refusal::new(key.as_str(), what)),
        }
    }

    /// A duration in milliseconds; one that cannot be is unknown, since a clock that was set
    /// back is no fault of the request.
    pub(crate) fn milliseconds(self, keys: &[Key]) -> Option<u32> {
        keys.iter().find_map(|key| milliseconds(number(self.value(*key)?)?))
    }

    /// The same of an attribute in seconds.
    pub(crate) fn seconds_as_ms(self, keys: &[Key]) -> Option<u32> {
        keys.iter().find_map(|key| milliseconds(number(self.value(*key)?)? * 1000.0))
    }

    /// A small number, such as an HTTP status or an attempt.
    pub(crate) fn small(self, keys: &[Key]) -> Option<u16> {
        keys.iter().find_map(|key| count(self.value(*key)?).ok()??.try_into().ok())
    }

    /// A truth value, also as text.
    pub(crate) fn flag(self, keys: &[Key]) -> Option<bool> {
        keys.iter().find_map(|key| match self.value(*key)? {
            Value::BoolValue(flag) => Some(*flag),
            Value::StringValue(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::StringValue(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        })
    }

    /// The first element of a list of names, which some tools write as JSON text.
    pub(crate) fn first_name(self, key: Key) -> Option<String> {
        match self.value(key)? {
            Value::ArrayValue(array) => match array.values.first()?.value.as_ref()? {
                Value::StringValue(text) => name(text),
                _ => None,
            },
            Value::StringValue(text) if text.starts_with('[') => {
                let list: Vec<String> = serde_json::from_str(text).ok()?;
                name(list.first()?)
            }
            Value::StringValue(text) => name(text),
            _ => None,
        }
    }

    /// An RFC 3339 time, in nanoseconds since the epoch.
    pub(crate) fn time_ns(self, key: Key) -> Option<u64> {
        match self.value(key)? {
            Value::StringValue(text) => {
                let time: jiff::Timestamp = text.parse().ok()?;
                u64::try_from(time.as_nanosecond()).ok()
            }
            _ => None,
        }
    }
}

/// The text, where it has the shape of a name: 1 to 128 visible ASCII characters without quotes,
/// braces or white space. Models, ids and error types have it; sentences do not.
pub(crate) fn name(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'`{}<>\\".contains(&byte));
    fits.then(|| text.to_owned())
}

/// A cost as integer nano-USD.
pub(crate) fn nano_usd(usd: f64) -> Result<i64, &'static str> {
    if !usd.is_finite() {
        Err("is not a finite number")
    } else if usd < 0.0 {
        Err("is negative")
    } else if usd > MAX_COST_USD {
        Err("is absurdly large")
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "at most 1e15, checked above")]
        Ok((usd * 1e9).round() as i64)
    }
}

/// A duration in whole milliseconds, unknown where it is negative or longer than a `u32` holds.
pub(crate) fn milliseconds(value: f64) -> Option<u32> {
    let fits = (0.0..=f64::from(u32::MAX)).contains(&value);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    fits.then(|| value.round() as u32)
}

fn count(value: &Value) -> Result<Option<u64>, &'static str> {
    let count = match value {
        Value::IntValue(number) => u64::try_from(*number).map_err(|_| "is negative")?,
        Value::DoubleValue(number) => return whole(*number).map(Some),
        Value::StringValue(text) if text.trim().is_empty() => return Ok(None),
        Value::StringValue(text) => match text.trim().parse::<i128>() {
            Ok(number) if number < 0 => return Err("is negative"),
            Ok(number) => u64::try_from(number).map_err(|_| "is absurdly large")?,
            Err(_) => return number(value).map_or(Err("is not a number"), whole).map(Some),
        },
        _ => return Err("is not a number"),
    };
    if count > MAX_TOKENS { Err("is absurdly large") } else { Ok(Some(count)) }
}

fn whole(number: f64) -> Result<u64, &'static str> {
    if !number.is_finite() {
        Err("is not a finite number")
    } else if number < 0.0 {
        Err("is negative")
    } else if number.fract() != 0.0 {
        Err("is not a whole number")
    } else if number > 1e12 {
        Err("is absurdly large")
    } else {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        Ok(number as u64)
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "money and durations, not counts")]
        Value::IntValue(number) => Some(*number as f64),
        Value::DoubleValue(number) => Some(*number),
        Value::StringValue(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::build::{attr, double, int, text};

    #[test]
    fn counts_are_read_from_every_form() {
        let check = |value: Value, expected: Result<Option<u64>, &str>| {
            assert_eq!(count(&value), expected, "{value:?}");
        };
        check(Value::IntValue(7), Ok(Some(7)));
        check(Value::StringValue("1200".into()), Ok(Some(1200)));
        check(Value::StringValue(String::new()), Ok(None));
        check(Value::DoubleValue(34.0), Ok(Some(34)));
        check(Value::IntValue(-1), Err("is negative"));
        check(Value::StringValue("-5".into()), Err("is negative"));
        check(Value::DoubleValue(f64::NAN), Err("is not a finite number"));
        check(Value::StringValue("NaN".into()), Err("is not a finite number"));
        check(Value::DoubleValue(f64::INFINITY), Err("is not a finite number"));
        check(Value::DoubleValue(1.5), Err("is not a whole number"));
        check(Value::IntValue(i64::MAX), Err("is absurdly large"));
        check(Value::StringValue("99999999999999999999".into()), Err("is absurdly large"));
        check(Value::StringValue("1e30".into()), Err("is absurdly large"));
        check(Value::StringValue("many".into()), Err("is not a number"));
        check(Value::BoolValue(true), Err("is not a number"));
    }

    #[test]
    fn only_names_pass_as_text() {
        let check = |text: &str, passes: bool| assert_eq!(name(text).is_some(), passes, "{text:?}");
        check("claude-sonnet-4-5-20250929", true);
        check("claude-opus-4-6[1m]", true);
        check("meta-llama/Llama-3.1-8B:Q4_K_M", true);
        check("arn:aws:bedrock:eu-west-1::model/x", true);
        check("please write a poem", false);
        check("{\"role\":\"user\"}", false);
        check("", false);
        check("ünïcode", false);
        check(&"x".repeat(129), false);
    }

    #[test]
    fn money_is_exact_and_absurd_money_refused() {
        let check = |usd: f64, expected: Result<i64, &str>| assert_eq!(nano_usd(usd), expected);
        check(0.003_435, Ok(3_435_000));
        check(0.0, Ok(0));
        check(-0.1, Err("is negative"));
        check(f64::NAN, Err("is not a finite number"));
        check(1e12, Err("is absurdly large"));
    }

    #[test]
    fn lists_of_names_come_in_two_forms() {
        let attributes = [attr("gen_ai.response.finish_reasons", text("[\"stop\"]"))];
        let attributes = Attributes::new(&attributes);
        assert_eq!(attributes.first_name(keys::FINISH_REASONS).as_deref(), Some("stop"));
    }

    #[test]
    fn durations_that_cannot_be_are_unknown() {
        let attributes = [attr("duration_ms", int(-4)), attr("ttft_ms", double(24.4))];
        let attributes = Attributes::new(&attributes);
        assert_eq!(attributes.milliseconds(&[keys::DURATION_MS]), None);
        assert_eq!(attributes.milliseconds(&[keys::TTFT_MS]), Some(24));
    }

    #[test]
    fn no_key_of_the_list_holds_text_of_a_conversation() {
        for key in keys::ALL.iter().map(|key| key.as_str()) {
            let counts = key.starts_with("llm.token_count.");
            for last in ["prompt", "completion", "message", "messages", "content", "text", "value"]
                .into_iter()
                .chain(["instructions", "arguments", "error", "body", "parameters", "result"])
            {
                assert!(counts || key.rsplit('.').next() != Some(last), "{key}");
            }
        }
    }
}
