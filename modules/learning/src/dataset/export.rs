//! Exports: the lines of a dataset in the forms that trainers read.

use module_sdk::{Error, Result, events::ContentRole};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::line::Line;
use crate::example::Message;

/// Form of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Chats as OpenAI takes them to train on.
    #[default]
    Openai,
    /// A prompt and a completion, as TRL takes them.
    Trl,
    /// Conversations `from` and `value`.
    Sharegpt,
    /// Instruction, output and history; without tools.
    Alpaca,
    /// A prompt with a chosen and a rejected answer, as TRL takes them.
    Preference,
}

/// Returns a line in another form; `None` where the form has no place for what is in it.
///
/// # Errors
///
/// When the line is no line of a dataset.
pub fn line(text: &str, form: Form) -> Result<Option<Value>> {
    if form == Form::Preference {
        return Ok(Some(serde_json::from_str(text).map_err(|_| damaged())?));
    }
    let line: Line = serde_json::from_str(text).map_err(|_| damaged())?;
    let Some((answer, asked)) = line.messages.split_last() else { return Err(damaged()) };
    Ok(match form {
        Form::Openai | Form::Preference => {
            Some(with_tools(json!({"messages": linked(&line.messages)}), &line))
        }
        Form::Trl => Some(with_tools(json!({"prompt": asked, "completion": [answer]}), &line)),
        Form::Sharegpt => Some(sharegpt(&line)),
        Form::Alpaca => alpaca(&line, answer, asked),
    })
}

fn damaged() -> Error {
    Error::new("the dataset has a line that is none")
        .hint("see what `lodestar learning datasets verify` says")
}

fn with_tools(mut value: Value, line: &Line) -> Value {
    if let Some(tools) = &line.tools {
        value["tools"] = tools.clone();
    }
    value
}

/// Returns messages in which each answer of a tool names its call, as OpenAI wants it: the calls
/// are answered in their order.
fn linked(messages: &[Message]) -> Vec<Value> {
    let mut waiting = Vec::<String>::new();
    let with_id = |message: &Message| {
        let mut value = json!(message);
        if let Some(Value::Array(calls)) = &message.tool_calls {
            let ids = calls.iter().filter_map(|call| call.get("id")?.as_str());
            waiting = ids.map(str::to_owned).collect();
        } else if message.role == ContentRole::Tool && !waiting.is_empty() {
            value["tool_call_id"] = waiting.remove(0).into();
        }
        value
    };
    messages.iter().map(with_id).collect()
}

fn sharegpt(line: &Line) -> Value {
    let mut turns = Vec::new();
    for message in &line.messages {
        let from = match message.role {
            ContentRole::System => "system",
            ContentRole::User => "human",
            ContentRole::Assistant => "gpt",
            ContentRole::Tool => "observation",
        };
        if message.tool_calls.is_none() || !message.content.is_empty() {
            turns.push(json!({"from": from, "value": message.content}));
        }
        if let Some(calls) = &message.tool_calls {
            turns.push(json!({"from": "function_call", "value": calls.to_string()}));
        }
    }
    let mut value = json!({"conversations": turns});
    if let Some(tools) = &line.tools {
        value["tools"] = tools.to_string().into();
    }
    value
}

fn alpaca(line: &Line, answer: &Message, asked: &[Message]) -> Option<Value> {
    let has_tools = line.tools.is_some()
        || line.messages.iter().any(|it| it.role == ContentRole::Tool || it.tool_calls.is_some());
    let (question, before) = asked.split_last()?;
    if has_tools || question.role != ContentRole::User {
        return None;
    }
    let mut value = json!({"instruction": question.content, "input": "", "output": answer.content});
    let mut turns = before;
    if let [system, rest @ ..] = turns
        && system.role == ContentRole::System
    {
        value["system"] = system.content.clone().into();
        turns = rest;
    }
    let mut history = Vec::new();
    for turn in turns.chunks(2) {
        match turn {
            [one, other]
                if one.role == ContentRole::User && other.role == ContentRole::Assistant =>
            {
                history.push(json!([one.content, other.content]));
            }
            _ => return None,
        }
    }
    if !history.is_empty() {
        value["history"] = history.into();
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::sample::message;

    fn export(messages: Vec<Message>, tools: Option<Value>, form: Form) -> Option<Value> {
        let text = Line { messages, tools }.text().expect("it is JSON");
        line(&text, form).expect("it is a line")
    }

    fn talk() -> Vec<Message> {
        vec![
            message(ContentRole::System, "s"),
            message(ContentRole::User, "q1"),
            message(ContentRole::Assistant, "a1"),
            message(ContentRole::User, "q2"),
            message(ContentRole::Assistant, "a2"),
        ]
    }

    fn with_a_tool() -> Vec<Message> {
        let call = json!([{"id": "c1", "type": "function", "function": {"name": "f"}}]);
        let calls = Message { tool_calls: Some(call), ..message(ContentRole::Assistant, "") };
        vec![
            message(ContentRole::User, "q"),
            calls,
            message(ContentRole::Tool, "t"),
            message(ContentRole::Assistant, "a"),
        ]
    }

    #[test]
    fn a_talk_has_every_form() {
        let check = |form, expected: Value| assert_eq!(export(talk(), None, form), Some(expected));
        let m = |role: &str, content: &str| json!({"role": role, "content": content});
        let asked = [m("system", "s"), m("user", "q1"), m("assistant", "a1"), m("user", "q2")];
        let mut all = asked.to_vec();
        all.push(m("assistant", "a2"));
        check(Form::Openai, json!({"messages": all}));
        check(Form::Trl, json!({"prompt": asked, "completion": [m("assistant", "a2")]}));
        let s = |from: &str, value: &str| json!({"from": from, "value": value});
        let turns =
            [s("system", "s"), s("human", "q1"), s("gpt", "a1"), s("human", "q2"), s("gpt", "a2")];
        check(Form::Sharegpt, json!({"conversations": turns}));
        let alpaca = json!({"instruction": "q2", "input": "", "output": "a2", "system": "s",
                            "history": [["q1", "a1"]]});
        check(Form::Alpaca, alpaca);
    }

    #[test]
    fn tools_go_where_there_is_a_place_for_them() {
        let tools = Some(json!([{"type": "function"}]));
        let openai = export(with_a_tool(), tools.clone(), Form::Openai).expect("it has a place");
        assert_eq!(openai["messages"][2]["tool_call_id"], "c1");
        assert_eq!(openai["tools"], json!([{"type": "function"}]));
        let sharegpt = export(with_a_tool(), tools, Form::Sharegpt).expect("it has a place");
        let froms: Vec<&Value> = sharegpt["conversations"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| &it["from"])
            .collect();
        assert_eq!(froms, ["human", "function_call", "observation", "gpt"]);
        assert_eq!(export(with_a_tool(), None, Form::Alpaca), None);
    }

    #[test]
    fn what_is_no_line_is_refused_without_its_text() {
        for text in ["secret", "{}", r#"{"messages":[]}"#] {
            let error = line(text, Form::Trl).expect_err(text).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let pair = json!({"prompt": [], "chosen": [], "rejected": []});
        assert_eq!(line(&pair.to_string(), Form::Preference).expect("a pair"), Some(pair));
    }
}
