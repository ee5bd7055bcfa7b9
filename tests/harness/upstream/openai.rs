//! Answers of the dialects of OpenAI.

use serde_json::{Value, json};

use super::{
    answer::{Answer, UsagePlace},
    dialect::Asked,
    render::{Event, Reply, split},
};

/// Time at which all answers were created.
const CREATED: u64 = 1_790_000_000;

/// Renders `/v1/chat/completions`.
pub(super) fn chat(asked: &Asked, answer: &Answer, id: &str) -> Reply {
    let id = format!("chatcmpl-{id}");
    let model = answer.model.as_deref().unwrap_or(&asked.model);
    let finish = finish(answer, "stop", "tool_calls");
    if !asked.stream {
        let mut message = json!({"role": "assistant", "content": answer.text, "refusal": null});
        if let Some(reasoning) = &answer.reasoning {
            message["reasoning_content"] = json!(reasoning);
        }
        if !answer.tools.is_empty() {
            let call = |(index, tool): (usize, &super::answer::Tool)| {
                let function = json!({"name": tool.name, "arguments": tool.arguments});
                json!({"id": call_id(&id, index), "type": "function", "function": function})
            };
            message["tool_calls"] = answer.tools.iter().enumerate().map(call).collect();
            if answer.text.is_empty() {
                message["content"] = Value::Null;
            }
        }
        let choice = json!({
            "index": 0, "message": message, "logprobs": null, "finish_reason": finish,
        });
        let mut body = json!({
            "id": id, "object": "chat.completion", "created": CREATED, "model": model,
            "choices": [choice],
        });
        put_usage(&mut body, answer, usage);
        return Reply::json(&id, &body);
    }
    let chunk = |choices: Value| {
        json!({
            "id": id, "object": "chat.completion.chunk", "created": CREATED, "model": model,
            "choices": choices,
        })
    };
    let delta = |delta: Value, finish: Option<&str>| {
        chunk(json!([{
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish,
        }]))
    };
    let mut chunks = vec![delta(json!({"role": "assistant", "content": ""}), None)];
    for piece in answer.reasoning.iter().flat_map(|it| split(it, answer.pieces)) {
        chunks.push(delta(json!({"reasoning_content": piece}), None));
    }
    for piece in split(&answer.text, answer.pieces) {
        chunks.push(delta(json!({"content": piece}), None));
    }
    for (index, tool) in answer.tools.iter().enumerate() {
        let call = |call: Value| delta(json!({"tool_calls": [call]}), None);
        chunks.push(call(json!({
            "index": index, "id": call_id(&id, index), "type": "function",
            "function": {"name": tool.name, "arguments": ""},
        })));
        for piece in split(&tool.arguments, answer.pieces) {
            chunks.push(call(json!({"index": index, "function": {"arguments": piece}})));
        }
    }
    chunks.push(delta(json!({}), Some(&finish)));
    end_of_chunks(&mut chunks, asked, answer, chunk);
    let events = chunks.into_iter().map(|chunk| Event::data(&chunk));
    Reply::sse(&id, events.chain([Event::done()]).collect())
}

/// Adds the usage to the chunks of a stream, wherever it is to be.
fn end_of_chunks(
    chunks: &mut Vec<Value>,
    asked: &Asked,
    answer: &Answer,
    chunk: impl Fn(Value) -> Value,
) {
    let counts = usage(answer);
    let mut with_usage = |choices: Value| {
        let mut last = chunk(choices);
        last["usage"] = counts.clone();
        chunks.push(last);
    };
    match answer.usage_place {
        UsagePlace::Missing => {}
        UsagePlace::EmptyDelta => with_usage(json!([{"index": 0, "delta": {}}])),
        UsagePlace::NoDelta => with_usage(json!([{"index": 0}])),
        UsagePlace::WithFinish => {
            if let Some(last) = chunks.last_mut() {
                last["usage"] = counts;
            }
        }
        UsagePlace::EveryChunk => {
            let of = chunks.len() as u64;
            for (chunk, number) in chunks.iter_mut().zip(1..) {
                chunk["usage"] = counts.clone();
                chunk["usage"]["completion_tokens"] = json!(answer.usage.output * number / of);
            }
        }
        UsagePlace::Usual if !asked.include_usage => {}
        UsagePlace::Usual | UsagePlace::Unasked => {
            for chunk in chunks.iter_mut().filter(|_| asked.include_usage) {
                chunk["usage"] = Value::Null;
            }
            let mut last = chunk(json!([]));
            last["usage"] = counts;
            chunks.push(last);
        }
    }
}

/// Renders `/v1/completions`.
pub(super) fn completions(asked: &Asked, answer: &Answer, id: &str) -> Reply {
    let id = format!("cmpl-{id}");
    let model = answer.model.as_deref().unwrap_or(&asked.model);
    let finish = finish(answer, "stop", "stop");
    let chunk = |choices: Value| {
        json!({
            "id": id, "object": "text_completion", "created": CREATED, "model": model,
            "choices": choices,
        })
    };
    let text = |text: &str, finish: Option<&str>| {
        chunk(json!([{"index": 0, "text": text, "logprobs": null, "finish_reason": finish}]))
    };
    if !asked.stream {
        let mut body = text(&answer.text, Some(&finish));
        put_usage(&mut body, answer, usage);
        return Reply::json(&id, &body);
    }
    let mut chunks: Vec<Value> =
        split(&answer.text, answer.pieces).into_iter().map(|piece| text(piece, None)).collect();
    chunks.push(text("", Some(&finish)));
    end_of_chunks(&mut chunks, asked, answer, chunk);
    let events = chunks.into_iter().map(|chunk| Event::data(&chunk));
    Reply::sse(&id, events.chain([Event::done()]).collect())
}

/// Renders `/v1/embeddings`: as many vectors as there are inputs.
pub(super) fn embeddings(asked: &Asked, answer: &Answer, id: &str) -> Reply {
    // 0.5, −0.25 and 0.125 as the bytes of three numbers in base64.
    let vector = match asked.body["encoding_format"].as_str() {
        Some("base64") => json!("AAAAPwAAgL4AAAA+"),
        _ => json!([0.5, -0.25, 0.125]),
    };
    let count = asked.body["input"].as_array().map_or(1, Vec::len);
    let data: Vec<Value> = (0..count)
        .map(|index| json!({"object": "embedding", "index": index, "embedding": vector}))
        .collect();
    let model = answer.model.as_deref().unwrap_or(&asked.model);
    let mut body = json!({"object": "list", "data": data, "model": model});
    put_usage(
        &mut body,
        answer,
        |answer| json!({"prompt_tokens": answer.usage.input, "total_tokens": answer.usage.input}),
    );
    Reply::json(id, &body)
}

/// Renders `/v1/responses`.
pub(super) fn responses(asked: &Asked, answer: &Answer, id: &str) -> Reply {
    let id = format!("resp_{id}");
    let model = answer.model.as_deref().unwrap_or(&asked.model);
    let items = items(&id, answer);
    let response = |status: &str, output: &[Value], whole: bool| {
        let mut body = json!({
            "id": id, "object": "response", "created_at": CREATED, "status": status,
            "model": model, "output": output, "error": null, "usage": null,
        });
        if whole {
            put_usage(&mut body, answer, responses_usage);
        }
        body
    };
    if !asked.stream {
        return Reply::json(&id, &response("completed", &items, true));
    }
    let mut events = Numbered::default();
    for name in ["response.created", "response.in_progress"] {
        events.push(name, json!({"response": response("in_progress", &[], false)}));
    }
    for (index, item) in items.iter().enumerate() {
        let at = |mut more: Value| {
            more["output_index"] = json!(index);
            more["item_id"] = item["id"].clone();
            more
        };
        let mut begun = item.clone();
        begun["status"] = json!("in_progress");
        events.push("response.output_item.added", json!({"output_index": index, "item": begun}));
        let (name, text) = match item["type"].as_str() {
            Some("function_call") => ("function_call_arguments", &item["arguments"]),
            Some("reasoning") => ("reasoning_summary_text", &item["summary"][0]["text"]),
            _ => ("output_text", &item["content"][0]["text"]),
        };
        let text = text.as_str().unwrap_or_default();
        let part = json!({"type": "output_text", "text": "", "annotations": []});
        if name == "output_text" {
            let added = at(json!({"content_index": 0, "part": part}));
            events.push("response.content_part.added", added);
        }
        for piece in split(text, answer.pieces) {
            events.push(&format!("response.{name}.delta"), at(json!({"delta": piece})));
        }
        let key = if name == "function_call_arguments" { "arguments" } else { "text" };
        events.push(&format!("response.{name}.done"), at(json!({key: text})));
        if name == "output_text" {
            let done = at(json!({"content_index": 0, "part": item["content"][0]}));
            events.push("response.content_part.done", done);
        }
        events.push("response.output_item.done", json!({"output_index": index, "item": item}));
    }
    events.push("response.completed", json!({"response": response("completed", &items, true)}));
    Reply::sse(&id, events.0)
}

/// Events with their numbers.
#[derive(Default)]
struct Numbered(Vec<Event>);

impl Numbered {
    fn push(&mut self, name: &str, mut data: Value) {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.0.len());
        self.0.push(Event::named(name, &data));
    }
}

fn items(id: &str, answer: &Answer) -> Vec<Value> {
    let mut items = Vec::new();
    if let Some(text) = &answer.reasoning {
        let summary = json!([{"type": "summary_text", "text": text}]);
        items.push(json!({"id": format!("rs_{id}"), "type": "reasoning", "summary": summary}));
    }
    if !answer.text.is_empty() || answer.tools.is_empty() {
        let part = json!({"type": "output_text", "text": answer.text, "annotations": []});
        items.push(json!({
            "id": format!("msg_{id}"), "type": "message", "status": "completed",
            "role": "assistant", "content": [part],
        }));
    }
    for (index, tool) in answer.tools.iter().enumerate() {
        items.push(json!({
            "id": format!("fc_{id}_{index}"), "type": "function_call", "status": "completed",
            "call_id": call_id(id, index), "name": tool.name, "arguments": tool.arguments,
        }));
    }
    items
}

/// Renders `/v1/models`.
pub(super) fn models(asked: &Asked, models: &[String], id: &str) -> Reply {
    let model = |name: &String| {
        let owner = "us";
        json!({"id": name, "object": "model", "created": CREATED, "owned_by": owner})
    };
    let body = if asked.model.is_empty() {
        let data: Vec<Value> = models.iter().map(model).collect();
        json!({"object": "list", "data": data})
    } else {
        model(&asked.model)
    };
    Reply::json(id, &body)
}

fn put_usage(body: &mut Value, answer: &Answer, usage: impl Fn(&Answer) -> Value) {
    if answer.usage_place != UsagePlace::Missing {
        body["usage"] = usage(answer);
    }
}

fn usage(answer: &Answer) -> Value {
    let usage = &answer.usage;
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0},
    })
}

fn responses_usage(answer: &Answer) -> Value {
    let usage = &answer.usage;
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    })
}

fn finish(answer: &Answer, usual: &str, tools: &str) -> String {
    let usual = if answer.tools.is_empty() { usual } else { tools };
    answer.finish.clone().unwrap_or_else(|| usual.to_owned())
}

fn call_id(id: &str, index: usize) -> String {
    format!("call_{id}_{index}")
}
