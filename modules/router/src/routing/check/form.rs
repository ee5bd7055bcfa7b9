//! The form of an answer: whole, readable, and as it was asked for.

use jsonschema::PatternOptions;
use serde_json::Value;

use super::{AnswerText, Asked, Failure, Finish, Tool, ToolCall};
use crate::dialect::inspect::AnswerFormat;

/// Longest schema that is checked by, in bytes: what takes longer to compile than to answer helps
/// nobody.
const LONGEST_SCHEMA: usize = 256 * 1024;

/// Returns what is wrong with an answer.
pub(super) fn failure(asked: &Asked<'_>, answer: &AnswerText<'_>) -> Option<Failure> {
    match answer.finish {
        Finish::Length => return Some(Failure::Truncated),
        Finish::Filtered => return Some(Failure::Filtered),
        Finish::Done => {}
    }
    let text = answer.text.trim();
    if !answer.tool_calls.is_empty() {
        return answer.tool_calls.iter().find_map(|call| of_call(asked.tools, call));
    }
    if text.is_empty() {
        return Some(Failure::Empty);
    }
    if is_call(asked.tools, text) {
        return Some(Failure::CallInText);
    }
    if asked.requires_tool {
        return Some(Failure::NoCall);
    }
    match asked.format {
        AnswerFormat::Text => of_text(text),
        AnswerFormat::Json | AnswerFormat::Schema => of_json(asked.schema, text),
    }
}

fn of_call(tools: &[Tool<'_>], call: &ToolCall<'_>) -> Option<Failure> {
    let Some(tool) = tools.iter().find(|tool| tool.name == call.name) else {
        return Some(Failure::UnknownTool);
    };
    // A tool without arguments may be called with none.
    let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments };
    match serde_json::from_str::<Value>(arguments) {
        Ok(arguments) if arguments.is_object() => {
            (!fits(tool.schema, &arguments)).then_some(Failure::ArgumentsUnfit)
        }
        _ => Some(Failure::ArgumentsUnreadable),
    }
}

fn of_json(schema: Option<&str>, text: &str) -> Option<Failure> {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => (!fits(schema, &value)).then_some(Failure::SchemaUnfit),
        // Also where it stands in a fence: the client asked for JSON, and would not find it there.
        Err(_) => Some(Failure::NotJson),
    }
}

/// Largest number of references in a schema: twice as many steps may come of each.
const MOST_REFERENCES: usize = 16;

/// Returns whether a value fits a schema. By one that cannot be used nothing is refused: that is no
/// fault of the answer.
fn fits(schema: Option<&str>, value: &Value) -> bool {
    let is_usable = |schema: &&str| {
        schema.len() <= LONGEST_SCHEMA && schema.matches("$ref").count() <= MOST_REFERENCES
    };
    let schema = schema.filter(is_usable);
    let Some(schema) = schema.and_then(|schema| serde_json::from_str::<Value>(schema).ok()) else {
        return true;
    };
    // Patterns come from the client: an engine that takes linear time. Nothing is fetched, since
    // the crate is built without that.
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(&schema).map_or(true, |validator| validator.is_valid(value))
}

/// Returns whether a text is a call of a tool, as small models write it.
fn is_call(tools: &[Tool<'_>], text: &str) -> bool {
    let inner = text.strip_prefix("```json").or_else(|| text.strip_prefix("```"));
    let text = inner.map_or(text, |inner| inner.trim_end_matches('`')).trim();
    let text = text.strip_prefix("<tool_call>").unwrap_or(text);
    let text = text.strip_suffix("</tool_call>").unwrap_or(text).trim();
    if tools.is_empty() || !text.starts_with('{') {
        return false;
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
    let name = value.get("name").or_else(|| value.get("function")?.get("name"));
    let has_arguments =
        ["arguments", "parameters", "function"].iter().any(|key| value.get(key).is_some());
    let is_tool = |name: &str| tools.iter().any(|tool| tool.name == name);
    has_arguments && name.and_then(Value::as_str).is_some_and(is_tool)
}

fn of_text(text: &str) -> Option<Failure> {
    if is_refusal(text) {
        return Some(Failure::Refused);
    }
    repeats(text).then_some(Failure::Repeats)
}

/// Longest refusal, in bytes: what says more has something to say.
const LONGEST_REFUSAL: usize = 800;
/// Part of an answer in which a refusal begins, in bytes.
const BEGIN: usize = 160;
/// Beginnings of sentences by which a model says that it cannot or will not.
const REFUSALS: &[&str] = &[
    "i can't assist",
    "i can't help",
    "i can't provide",
    "i can't answer",
    "i can't fulfil",
    "i can't do",
    "i can't complete",
    "i can't comply",
    "i can't access",
    "i can't determine",
    "i cannot assist",
    "i cannot help",
    "i cannot provide",
    "i cannot answer",
    "i cannot fulfil",
    "i cannot do",
    "i cannot complete",
    "i cannot comply",
    "i cannot access",
    "i cannot determine",
    "i could not find",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i won't be able to",
    "i will not be able to",
    "as an ai language model",
    "as an ai, i",
    "i don't know",
    "i do not know",
    "i don't have access",
    "i do not have access",
    "i don't have enough information",
    "i do not have enough information",
    "i must decline",
    "i'm sorry, but i",
    "i apologize, but i",
    "unfortunately, i can",
];

fn is_refusal(text: &str) -> bool {
    if text.len() > LONGEST_REFUSAL {
        return false;
    }
    let begin = text[..text.floor_char_boundary(BEGIN)].replace('\u{2019}', "'");
    let begin = begin.to_ascii_lowercase();
    REFUSALS.iter().any(|refusal| begin.contains(refusal))
}

/// Bytes at the end of a text that are looked for before.
const PHRASE: usize = 48;
/// Times that they must be found, one directly after the other.
const TIMES: usize = 5;

/// Returns whether a text ends in a phrase that is repeated over and over.
fn repeats(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=PHRASE).any(|period| {
        let len = (period * TIMES).max(2 * PHRASE);
        let Some(from) = bytes.len().checked_sub(len + period) else { return false };
        let is_alike = |at: usize| bytes[at] == bytes[at - period];
        let phrase = &bytes[bytes.len() - period..];
        // A rule of dashes or a row of zeros is no loop.
        phrase.iter().any(u8::is_ascii_alphabetic) && (from + period..bytes.len()).all(is_alike)
    })
}
