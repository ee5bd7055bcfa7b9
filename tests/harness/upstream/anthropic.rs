//! Answers of the dialect of Anthropic.

use serde_json::{Value, json};

use super::{
    answer::{Answer, UsagePlace},
    dialect::Asked,
    render::{Event, Reply, split},
};

/// Renders `/v1/messages`.
pub(super) fn messages(asked: &Asked, answer: &Answer, id: &str) -> Reply {
    let id = format!("msg_{id}");
    let counted = answer.usage_place != UsagePlace::Missing;
    let usual = if answer.tools.is_empty() { "end_turn" } else { "tool_use" };
    let stop = answer.finish.as_deref().unwrap_or(usual);
    let message = |content: &[Value], stop: Option<&str>, output: u64| {
        let mut message = json!({
            "id": id, "type": "message", "role": "assistant", "content": content,
            "model": answer.model.as_deref().unwrap_or(&asked.model),
            "stop_reason": stop, "stop_sequence": null,
        });
        if counted {
            message["usage"] = usage(answer, output);
        }
        message
    };
    let blocks = blocks(&id, answer);
    if !asked.stream {
        return Reply::json(&id, &message(&blocks, Some(stop), answer.usage.output));
    }
    let mut events = Events::default();
    // The first event counts one token of output already.
    events.push("message_start", json!({"message": message(&[], None, 1)}));
    for (index, block) in blocks.iter().enumerate() {
        let (empty, deltas) = streamed(block, answer.pieces);
        events.push("content_block_start", json!({"index": index, "content_block": empty}));
        if index == 0 {
            events.push("ping", json!({}));
        }
        for delta in deltas {
            events.push("content_block_delta", json!({"index": index, "delta": delta}));
        }
        events.push("content_block_stop", json!({"index": index}));
    }
    let mut end = |stop: Option<&str>, output: u64| {
        let mut delta = json!({"delta": {"stop_reason": stop, "stop_sequence": null}});
        if counted {
            delta["usage"] = json!({"output_tokens": output});
        }
        events.push("message_delta", delta);
    };
    if answer.usage_place == UsagePlace::EveryChunk {
        end(None, answer.usage.output / 2);
    }
    end(Some(stop), answer.usage.output);
    events.push("message_stop", json!({}));
    Reply::sse(&id, events.0)
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Events {
    fn push(&mut self, name: &str, mut data: Value) {
        data["type"] = json!(name);
        self.0.push(Event::named(name, &data));
    }
}

fn blocks(id: &str, answer: &Answer) -> Vec<Value> {
    let mut blocks = Vec::new();
    if let Some(thinking) = &answer.reasoning {
        blocks.push(json!({"type": "thinking", "thinking": thinking, "signature": "c2lnbmVk"}));
    }
    if !answer.text.is_empty() || answer.tools.is_empty() {
        blocks.push(json!({"type": "text", "text": answer.text}));
    }
    for (index, tool) in answer.tools.iter().enumerate() {
        let input: Value = serde_json::from_str(&tool.arguments).unwrap_or_default();
        let id = format!("toolu_{id}_{index}");
        blocks.push(json!({"type": "tool_use", "id": id, "name": tool.name, "input": input}));
    }
    blocks
}

/// Returns the beginning of a block, and the deltas that fill it.
fn streamed(block: &Value, pieces: usize) -> (Value, Vec<Value>) {
    let mut empty = block.clone();
    let deltas = match block["type"].as_str() {
        Some("thinking") => {
            empty["thinking"] = json!("");
            empty["signature"] = json!("");
            let text = block["thinking"].as_str().unwrap_or_default();
            let piece = |piece| json!({"type": "thinking_delta", "thinking": piece});
            let signature = json!({"type": "signature_delta", "signature": block["signature"]});
            split(text, pieces).into_iter().map(piece).chain([signature]).collect()
        }
        Some("tool_use") => {
            empty["input"] = json!({});
            let text = block["input"].to_string();
            let piece = |piece| json!({"type": "input_json_delta", "partial_json": piece});
            split(&text, pieces).into_iter().map(piece).collect()
        }
        _ => {
            empty["text"] = json!("");
            let text = block["text"].as_str().unwrap_or_default();
            let piece = |piece| json!({"type": "text_delta", "text": piece});
            split(text, pieces).into_iter().map(piece).collect()
        }
    };
    (empty, deltas)
}

/// Renders `/v1/messages/count_tokens`.
pub(super) fn count_tokens(answer: &Answer, id: &str) -> Reply {
    Reply::json(id, &json!({"input_tokens": answer.usage.input}))
}

/// Renders `/v1/models`.
pub(super) fn models(asked: &Asked, models: &[String], id: &str) -> Reply {
    let model = |name: &String| {
        json!({
            "type": "model", "id": name, "display_name": name,
            "created_at": "2026-09-21T00:00:00Z",
        })
    };
    let body = if asked.model.is_empty() {
        let data: Vec<Value> = models.iter().map(model).collect();
        json!({
            "data": data, "has_more": false, "first_id": models.first(),
            "last_id": models.last(),
        })
    } else {
        model(&asked.model)
    };
    Reply::json(id, &body)
}

fn usage(answer: &Answer, output: u64) -> Value {
    let usage = &answer.usage;
    let written = usage.cache_write_5m + usage.cache_write_1h;
    json!({
        "input_tokens": usage.input.saturating_sub(usage.cache_read + written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": output,
        "service_tier": "standard",
    })
}
