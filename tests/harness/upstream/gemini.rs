//! Answers of the dialect of Gemini.

use serde_json::{Value, json};

use super::{
    answer::{Answer, UsagePlace},
    dialect::Asked,
    render::{Event, Reply, split},
};

/// Renders `generateContent` and `streamGenerateContent`.
pub(super) fn generate(asked: &Asked, answer: &Answer, id: &str) -> Reply {
    let chunk = |parts: Vec<Value>, finish: Option<&str>, counted: bool| {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
        }
        let mut chunk = json!({
            "candidates": [candidate], "responseId": id,
            "modelVersion": answer.model.as_deref().unwrap_or(&asked.model),
        });
        if counted && answer.usage_place != UsagePlace::Missing {
            chunk["usageMetadata"] = usage(answer);
        }
        chunk
    };
    let finish = answer.finish.as_deref().unwrap_or("STOP");
    let thought = |text: &str| json!({"text": text, "thought": true});
    let text = |text: &str| json!({"text": text});
    let calls: Vec<Value> = answer
        .tools
        .iter()
        .map(|tool| {
            let arguments: Value = serde_json::from_str(&tool.arguments).unwrap_or_default();
            json!({"functionCall": {"name": tool.name, "args": arguments}})
        })
        .collect();
    if !asked.stream {
        let mut parts: Vec<Value> = answer.reasoning.iter().map(|it| thought(it)).collect();
        parts.extend(Some(text(&answer.text)).filter(|_| !answer.text.is_empty()));
        parts.extend(calls);
        return Reply::json(id, &chunk(parts, Some(finish), true));
    }
    let often = answer.usage_place == UsagePlace::EveryChunk;
    let mut chunks = Vec::new();
    for piece in answer.reasoning.iter().flat_map(|it| split(it, answer.pieces)) {
        chunks.push(chunk(vec![thought(piece)], None, often));
    }
    for piece in split(&answer.text, answer.pieces) {
        chunks.push(chunk(vec![text(piece)], None, often));
    }
    for call in calls {
        chunks.push(chunk(vec![call], None, often));
    }
    chunks.push(chunk(vec![text("")], Some(finish), true));
    if asked.array {
        let last = chunks.len() - 1;
        let element = |(index, chunk): (usize, &Value)| {
            let begin = if index == 0 { "[" } else { ",\r\n" };
            Event::raw(format!("{begin}{chunk}{}", if index == last { "]" } else { "" }))
        };
        return Reply::array(id, chunks.iter().enumerate().map(element).collect());
    }
    // Gemini ends its lines with CRLF.
    let mut reply = Reply::sse(id, chunks.iter().map(Event::data).collect());
    reply.crlf = true;
    reply
}

fn usage(answer: &Answer) -> Value {
    let usage = &answer.usage;
    json!({
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cache_read,
        "candidatesTokenCount": usage.output.saturating_sub(usage.reasoning),
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
    })
}
