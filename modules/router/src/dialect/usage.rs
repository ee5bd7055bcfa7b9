//! Token counts that answers state, under the names that providers give them.

use module_sdk::Usd;
use serde::{Deserialize, Deserializer, de};

use super::Dialect;

/// Token counts of one answer, as `llm.request.completed` counts them: unknown is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Tokens of the whole input, cache reads and writes included.
    pub input: Option<u64>,
    /// Tokens read from the provider's cache, a part of `input`.
    pub cache_read: Option<u64>,
    /// Tokens written to the cache for five minutes, a part of `input`.
    pub cache_write_5m: Option<u64>,
    /// Tokens written to the cache for an hour, a part of `input`.
    pub cache_write_1h: Option<u64>,
    /// Tokens of the whole output.
    pub output: Option<u64>,
    /// Tokens of reasoning, a part of `output`.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Returns whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over what a later statement of the same answer says: counts of a stream are of all
    /// of it so far, so that a later one replaces an earlier one.
    pub(crate) fn update(&mut self, later: &Self) {
        // A delta may state the input without its parts, or their sum without the split.
        let lacks_parts = later.cache_read.is_none() && self.cache_read.is_some();
        self.input =
            if lacks_parts { later.input.max(self.input) } else { later.input.or(self.input) };
        self.cache_read = later.cache_read.or(self.cache_read);
        if later.cache_write_1h.is_some() || self.cache_write_1h.is_none() {
            self.cache_write_5m = later.cache_write_5m.or(self.cache_write_5m);
            self.cache_write_1h = later.cache_write_1h.or(self.cache_write_1h);
        }
        self.output = later.output.or(self.output);
        self.reasoning = later.reasoning.or(self.reasoning);
    }

    /// Reads the object in which an answer of a dialect states its counts (`usage`,
    /// `usageMetadata`, or the whole line of Ollama).
    pub(crate) fn read(dialect: Dialect, object: &str) -> Self {
        // A provider whose counts have another form has stated none.
        let Ok(stated) = serde_json::from_str::<Stated>(object) else { return Self::default() };
        match dialect {
            Dialect::Messages => stated.anthropic(),
            Dialect::Gemini => stated.gemini(),
            Dialect::OllamaChat | Dialect::OllamaGenerate | Dialect::OllamaEmbed => Self {
                input: stated.prompt_eval_count.0,
                output: stated.eval_count.0,
                ..Self::default()
            },
            Dialect::Chat | Dialect::Responses | Dialect::Completions | Dialect::Embeddings => {
                stated.openai()
            }
        }
    }
}

/// Returns the cost in nano-USD that a provider states beside its counts.
pub(crate) fn stated_cost(object: &str) -> Option<i64> {
    serde_json::from_str::<Stated>(object).ok()?.cost()
}

/// Largest count that is believed.
const MOST: u64 = 1_000_000_000;

/// Largest cost of one answer that is believed, in nano-USD.
const DEAREST: i64 = 1_000_000_000_000;

/// A count as providers write it: a number of any kind, a text, or `null`.
#[derive(Debug, Clone, Copy, Default)]
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a count")
            }

            fn visit_u64<E>(self, value: u64) -> Result<Count, E> {
                Ok(Count(Some(value).filter(|count| *count <= MOST)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Count, E> {
                Ok(Count(u64::try_from(value).ok().filter(|count| *count <= MOST)))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Count, E> {
                let is_count = (0.0..1e9).contains(&value) && value.fract() == 0.0;
                #[expect(clippy::cast_possible_truncation, reason = "it is a whole number")]
                #[expect(clippy::cast_sign_loss, reason = "it is not negative")]
                Ok(Count(is_count.then_some(value as u64)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Count, E> {
                Ok(Count(value.parse().ok().filter(|count| *count <= MOST)))
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
                Ok(Count(None))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
                Ok(Count(None))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                while list.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(Count(None))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
    cache_creation_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: Count,
    thinking_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stated {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    input_tokens: Count,
    output_tokens: Count,
    prompt_tokens_details: Option<InputDetails>,
    input_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
    output_tokens_details: Option<OutputDetails>,
    /// DeepSeek.
    prompt_cache_hit_tokens: Count,
    /// Moonshot, and some others at the top.
    cached_tokens: Count,
    /// OpenRouter, in USD.
    cost: Option<serde_json::Number>,
    /// xAI, in 1e-10 USD.
    cost_in_usd_ticks: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation: Option<CacheCreation>,
    #[serde(rename = "promptTokenCount")]
    gemini_prompt: Count,
    #[serde(rename = "toolUsePromptTokenCount")]
    gemini_tool_prompt: Count,
    #[serde(rename = "cachedContentTokenCount")]
    gemini_cached: Count,
    #[serde(rename = "candidatesTokenCount")]
    gemini_candidates: Count,
    #[serde(rename = "thoughtsTokenCount")]
    gemini_thoughts: Count,
    prompt_eval_count: Count,
    eval_count: Count,
}

fn sum(parts: [Count; 3]) -> Option<u64> {
    let known = parts.iter().any(|part| part.0.is_some());
    known.then(|| parts.iter().filter_map(|part| part.0).fold(0, u64::saturating_add))
}

impl Stated {
    fn openai(&self) -> Usage {
        let input_details =
            self.input_tokens_details.as_ref().or(self.prompt_tokens_details.as_ref());
        let details =
            self.output_tokens_details.as_ref().or(self.completion_tokens_details.as_ref());
        let input = self.input_tokens.0.or(self.prompt_tokens.0);
        let mut output = self.output_tokens.0.or(self.completion_tokens.0);
        let reasoning = details.and_then(|it| it.reasoning_tokens.0.or(it.thinking_tokens.0));
        // xAI counts reasoning beside the completion: the total tells.
        if let (Some(input), Some(written), Some(thought), Some(total)) =
            (input, output, reasoning, self.total_tokens.0)
            && thought > 0
            && input.checked_add(written).and_then(|it| it.checked_add(thought)) == Some(total)
        {
            output = Some(written + thought);
        }
        let cached = input_details.and_then(|it| it.cached_tokens.0);
        let written =
            input_details.and_then(|it| it.cache_write_tokens.0.or(it.cache_creation_tokens.0));
        Usage {
            // Embeddings state one number.
            input: input.or(self.total_tokens.0.filter(|_| output.is_none())),
            cache_read: cached.or(self.prompt_cache_hit_tokens.0).or(self.cached_tokens.0),
            cache_write_5m: written.filter(|tokens| *tokens > 0),
            cache_write_1h: None,
            output,
            reasoning,
        }
    }

    fn cost(&self) -> Option<i64> {
        let stated = match &self.cost {
            Some(cost) => cost.to_string().parse::<Usd>().ok().map(Usd::nano),
            None => self.cost_in_usd_ticks.0.and_then(|it| i64::try_from(it.div_ceil(10)).ok()),
        };
        stated.filter(|nano| (0..=DEAREST).contains(nano))
    }

    fn anthropic(&self) -> Usage {
        let read = self.cache_read_input_tokens;
        let written = self.cache_creation_input_tokens;
        let (five, hour) = match &self.cache_creation {
            Some(split) => (split.ephemeral_5m_input_tokens.0, split.ephemeral_1h_input_tokens.0),
            None => (written.0, None),
        };
        // A delta of a stream states the output alone.
        let input = self.input_tokens.0.and_then(|_| sum([self.input_tokens, read, written]));
        Usage {
            input,
            cache_read: read.0,
            cache_write_5m: five,
            cache_write_1h: hour,
            output: self.output_tokens.0,
            reasoning: self
                .output_tokens_details
                .as_ref()
                .and_then(|it| it.reasoning_tokens.0.or(it.thinking_tokens.0)),
        }
    }

    fn gemini(&self) -> Usage {
        let none = Count(None);
        Usage {
            input: sum([self.gemini_prompt, self.gemini_tool_prompt, none]),
            cache_read: self.gemini_cached.0,
            output: sum([self.gemini_candidates, self.gemini_thoughts, none]),
            reasoning: self.gemini_thoughts.0,
            ..Usage::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dialect: Dialect, object: &str, counts: [Option<u64>; 6]) {
        let usage = Usage::read(dialect, object);
        let found = [
            usage.input,
            usage.cache_read,
            usage.cache_write_5m,
            usage.cache_write_1h,
            usage.output,
            usage.reasoning,
        ];
        assert_eq!(found, counts, "{object}");
    }

    #[test]
    fn counts_are_read_under_the_names_of_every_provider() {
        let some = |counts: [u64; 6]| counts.map(|count| (count < 999_999).then_some(count));
        let none = 999_999;
        check(
            Dialect::Chat,
            r#"{"prompt_tokens": 120, "completion_tokens": 34, "total_tokens": 154,
                "prompt_tokens_details": {"cached_tokens": 64},
                "completion_tokens_details": {"reasoning_tokens": 8}}"#,
            some([120, 64, none, none, 34, 8]),
        );
        check(
            Dialect::Chat,
            r#"{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22,
                "completion_tokens_details": {"reasoning_tokens": 7}}"#,
            some([10, none, none, none, 12, 7]),
        );
        check(
            Dialect::Chat,
            r#"{"prompt_tokens": 10.0, "completion_tokens": "5", "prompt_cache_hit_tokens": 4}"#,
            some([10, 4, none, none, 5, none]),
        );
        check(
            Dialect::Responses,
            r#"{"input_tokens": 30, "input_tokens_details": {"cached_tokens": 20},
                "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 0}}"#,
            some([30, 20, none, none, 9, 0]),
        );
        check(
            Dialect::Messages,
            r#"{"input_tokens": 400, "cache_creation_input_tokens": 300,
                "cache_creation": {"ephemeral_5m_input_tokens": 100,
                "ephemeral_1h_input_tokens": 200}, "cache_read_input_tokens": 500,
                "output_tokens": 34}"#,
            some([1200, 500, 100, 200, 34, none]),
        );
        check(
            Dialect::Messages,
            r#"{"output_tokens": 34}"#,
            some([none, none, none, none, 34, none]),
        );
        check(
            Dialect::Gemini,
            r#"{"promptTokenCount": 100, "cachedContentTokenCount": 40,
                "candidatesTokenCount": 20, "thoughtsTokenCount": 5, "totalTokenCount": 125}"#,
            some([100, 40, none, none, 25, 5]),
        );
        check(
            Dialect::OllamaChat,
            r#"{"model": "m", "done": true, "prompt_eval_count": 26, "eval_count": 290}"#,
            some([26, none, none, none, 290, none]),
        );
        check(
            Dialect::Embeddings,
            r#"{"prompt_tokens": 8, "total_tokens": 8}"#,
            some([8, none, none, none, none, none]),
        );
    }

    #[test]
    fn odd_forms_are_no_counts() {
        for object in
            ["null", "[]", "7", r#"{"prompt_tokens": {"a": 1}}"#, r#"{"prompt_tokens": -1}"#]
        {
            assert!(Usage::read(Dialect::Chat, object).is_empty(), "{object}");
        }
    }

    #[test]
    fn a_stated_cost_is_exact() {
        assert_eq!(stated_cost(r#"{"prompt_tokens": 1, "cost": 0.00014635}"#), Some(146_350));
        assert_eq!(stated_cost(r#"{"cost_in_usd_ticks": 37756000}"#), Some(3_775_600));
        assert_eq!(stated_cost(r#"{"prompt_tokens": 1}"#), None);
    }
}
