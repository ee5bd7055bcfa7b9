//! Answers of Ollama's own dialect.

use serde_json::{Value, json};

use super::{
    answer::{Answer, Tool, UsagePlace},
    dialect::{Asked, Dialect},
    render::{Event, Reply, split},
};

/// Size of every model, in bytes.
const SIZE: u64 = 2_019_393_189;

/// Time of everything.
const TIME: &str = "2026-09-21T12:00:00.000000000Z";

/// Renders `/api/chat` and `/api/generate`.
pub(super) fn generate(asked: &Asked, answer: &Answer, id: &str) -> Reply {
    let chat = asked.dialect == Dialect::OllamaChat;
    let line = |text: &str, thinking: Option<&str>, tools: &[Tool]| {
        let mut line = json!({
            "model": answer.model.as_deref().unwrap_or(&asked.model), "created_at": TIME,
            "done": false,
        });
        let mut message = json!({"role": "assistant", "content": text});
        if let Some(thinking) = thinking {
            message["thinking"] = json!(thinking);
        }
        if !tools.is_empty() {
            message["tool_calls"] = tools.iter().map(call).collect();
        }
        if chat {
            line["message"] = message;
        } else {
            line["response"] = json!(text);
            if let Some(thinking) = thinking {
                line["thinking"] = json!(thinking);
            }
        }
        line
    };
    let end = |mut line: Value| {
        line["done"] = json!(true);
        line["done_reason"] = json!(answer.finish.as_deref().unwrap_or("stop"));
        line["total_duration"] = json!(4_883_583_458_u64);
        line["load_duration"] = json!(1_334_875_u64);
        if answer.usage_place != UsagePlace::Missing {
            line["prompt_eval_count"] = json!(answer.usage.input);
            line["prompt_eval_duration"] = json!(342_546_000_u64);
            line["eval_count"] = json!(answer.usage.output);
            line["eval_duration"] = json!(4_535_599_000_u64);
        }
        line
    };
    if !asked.stream {
        let whole = line(&answer.text, answer.reasoning.as_deref(), &answer.tools);
        return Reply::json(id, &end(whole));
    }
    let mut lines = Vec::new();
    for piece in answer.reasoning.iter().flat_map(|it| split(it, answer.pieces)) {
        lines.push(line("", Some(piece), &[]));
    }
    for piece in split(&answer.text, answer.pieces) {
        lines.push(line(piece, None, &[]));
    }
    // Ollama tells each tool in one piece.
    for tool in &answer.tools {
        lines.push(line("", None, std::slice::from_ref(tool)));
    }
    lines.push(end(line("", None, &[])));
    Reply::lines(id, lines.iter().map(Event::line).collect())
}

fn call(tool: &Tool) -> Value {
    let arguments: Value = serde_json::from_str(&tool.arguments).unwrap_or_default();
    json!({"function": {"name": tool.name, "arguments": arguments}})
}

/// Renders `/api/embed`.
pub(super) fn embed(asked: &Asked, answer: &Answer, id: &str) -> Reply {
    let count = asked.body["input"].as_array().map_or(1, Vec::len);
    let mut body = json!({
        "model": asked.model, "embeddings": vec![[0.5, -0.25, 0.125]; count],
        "total_duration": 14_143_917, "load_duration": 1_019_500,
    });
    if answer.usage_place != UsagePlace::Missing {
        body["prompt_eval_count"] = json!(answer.usage.input);
    }
    Reply::json(id, &body)
}

/// Makes a model as `/api/create` and `/api/copy` do, and takes the files that it is made from.
/// Returns the answer; none for another path.
pub(super) fn manage(path: &str, body: &[u8], models: &mut Vec<String>) -> Option<String> {
    let named = match path {
        "/api/create" => "model",
        "/api/copy" => "destination",
        _ if path.starts_with("/api/blobs/") => return Some(String::new()),
        _ => return None,
    };
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = body[named].as_str()?.to_owned();
    if !models.contains(&name) {
        models.push(name);
    }
    Some(json!({"status": "success"}).to_string())
}

/// Renders `/api/tags`.
pub(super) fn tags(models: &[String], id: &str) -> Reply {
    let model = |name: &String| {
        json!({
            "name": name, "model": name, "modified_at": TIME, "size": SIZE,
            "digest": "a80c4f17acd5", "details": details(),
        })
    };
    let models: Vec<Value> = models.iter().map(model).collect();
    Reply::json(id, &json!({"models": models}))
}

/// Renders `/api/show`.
pub(super) fn show(id: &str) -> Reply {
    Reply::json(
        id,
        &json!({
            "details": details(),
            "model_info": {"general.architecture": "llama", "llama.context_length": 131_072},
            "parameters": "num_ctx 8192",
            "capabilities": ["completion", "tools"],
        }),
    )
}

/// Renders `/api/ps`: the first model is loaded.
pub(super) fn ps(models: &[String], id: &str) -> Reply {
    let model = |name: &String| {
        json!({
            "name": name, "model": name, "size": SIZE, "size_vram": SIZE,
            "context_length": 8_192, "expires_at": "2036-09-21T12:00:00Z",
            "details": details(),
        })
    };
    let models: Vec<Value> = models.iter().take(1).map(model).collect();
    Reply::json(id, &json!({"models": models}))
}

fn details() -> Value {
    json!({
        "format": "gguf", "family": "llama", "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    })
}
