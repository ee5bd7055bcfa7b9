//! Content that a client of Google's API asks for.

use std::{borrow::Cow, collections::VecDeque};

use super::{
    super::{
        TranslateError, chat, ids,
        ir::{Block, Effort, Format, Reasoning, Request, Role, Sampling, Tool, ToolChoice, expect},
        json::Json,
    },
    read_call, read_plain, take,
};

/// Reads a request.
pub(in super::super) fn read(mut body: Json<'_>) -> Result<Request<'_>, TranslateError> {
    let mut request = Request::default();
    let mut system = take(&mut body, "systemInstruction", "system_instruction");
    for mut part in system.take("parts").into_list() {
        if let Some(text) = part.take("text").into_text() {
            request.push_system(text);
        }
    }
    let contents = body.take("contents");
    expect(matches!(contents, Json::List(_)), "contents must be a list")?;
    let mut calls = Calls::default();
    for content in contents.into_list() {
        read_content(content, &mut calls, &mut request)?;
    }
    for tool in body.take("tools").into_list() {
        read_tools(tool, &mut request);
    }
    let mut choice = take(&mut body, "toolConfig", "tool_config");
    let mut choice = take(&mut choice, "functionCallingConfig", "function_calling_config");
    let mut allowed =
        take(&mut choice, "allowedFunctionNames", "allowed_function_names").into_list();
    request.tool_choice = match choice.get("mode").text() {
        Some("NONE") => Some(ToolChoice::None),
        Some("ANY") if allowed.len() == 1 => {
            allowed.swap_remove(0).into_text().map(ToolChoice::Named)
        }
        Some("ANY") => Some(ToolChoice::Required),
        Some("AUTO") => Some(ToolChoice::Auto),
        _ => None,
    };
    read_generation(take(&mut body, "generationConfig", "generation_config"), &mut request)?;
    request.dropped.add_if(!body.take("safetySettings").list().is_empty(), "safetySettings");
    if body.has("cachedContent") {
        return Err(TranslateError::Unsupported("content that lies with another provider"));
    }
    Ok(request)
}

/// Calls that wait for their results, which often name the tool alone.
#[derive(Debug, Default)]
struct Calls<'a> {
    waiting: VecDeque<(Cow<'a, str>, Cow<'a, str>)>,
    count: usize,
}

fn read_content<'a>(
    mut content: Json<'a>,
    calls: &mut Calls<'a>,
    request: &mut Request<'a>,
) -> Result<(), TranslateError> {
    let role = match content.get("role").text() {
        Some("model") => Role::Assistant,
        Some("user" | "function") | None => Role::User,
        Some(_) => return Err(TranslateError::Malformed("a content has no role that is known")),
    };
    let mut blocks = Vec::new();
    for mut part in content.take("parts").into_list() {
        let call = take(&mut part, "functionCall", "function_call");
        let mut result = take(&mut part, "functionResponse", "function_response");
        if let Some(mut call) = read_call(call) {
            if let Block::ToolUse { id, name, .. } = &mut call {
                if id.is_empty() {
                    *id = ids::call("conversation", calls.count).into();
                }
                calls.count += 1;
                calls.waiting.push_back((id.clone(), name.clone()));
            }
            blocks.push(call);
        } else if !result.is_null() {
            let id = result.take("id").into_text();
            let name = result.take("name").into_text().unwrap_or_default();
            let at = calls
                .waiting
                .iter()
                .position(|(known, of)| id.as_ref().map_or(*of == name, |id| id == known));
            let known = at.and_then(|at| calls.waiting.remove(at)).map(|(id, _)| id);
            let id = known.or(id).unwrap_or_default();
            let content = read_result(result.take("response"));
            blocks.push(Block::ToolResult { id, content, is_error: false });
        } else {
            blocks.extend(read_plain(part)?);
        }
    }
    request.push(role, blocks);
    Ok(())
}

/// Reads a result: the text of an object that has only one, else the object as text of JSON.
fn read_result(mut response: Json<'_>) -> Vec<Block<'_>> {
    let is_single = matches!(&response, Json::Object(object) if object.iter().count() == 1);
    let text = ["output", "result", "content", "error"]
        .into_iter()
        .filter(|_| is_single)
        .find_map(|key| response.take(key).into_text());
    let text = text.unwrap_or_else(|| response.to_string().into());
    Block::text(text).into_iter().collect()
}

fn read_tools<'a>(mut tool: Json<'a>, request: &mut Request<'a>) {
    let functions = take(&mut tool, "functionDeclarations", "function_declarations");
    if functions.is_null() {
        request.dropped.add("tools of the provider");
    }
    for mut function in functions.into_list() {
        let Some(name) = function.take("name").into_text() else { continue };
        let schema = match take(&mut function, "parametersJsonSchema", "parameters_json_schema") {
            Json::Null => lower_types(function.take("parameters")),
            schema => schema,
        };
        let description = function.take("description").into_text();
        request.tools.push(Tool { name, description, schema, is_strict: None });
    }
}

/// Writes the types of a schema in lower case: Google's own form has them in capitals.
fn lower_types(mut schema: Json<'_>) -> Json<'_> {
    match &mut schema {
        Json::Object(object) => {
            for (key, value) in object.iter_mut() {
                let lowered = match &mut *value {
                    Json::Text(text) if key == "type" => Json::from(text.to_ascii_lowercase()),
                    other => lower_types(std::mem::take(other)),
                };
                *value = lowered;
            }
        }
        Json::List(items) => {
            for item in items {
                *item = lower_types(std::mem::take(item));
            }
        }
        _ => {}
    }
    schema
}

fn read_generation<'a>(
    mut config: Json<'a>,
    request: &mut Request<'a>,
) -> Result<(), TranslateError> {
    if take(&mut config, "candidateCount", "candidate_count").u64().is_some_and(|n| n > 1) {
        return Err(TranslateError::Unsupported("more than one answer to a request"));
    }
    request.max_tokens = take(&mut config, "maxOutputTokens", "max_output_tokens").u64();
    request.sampling = Sampling {
        temperature: config.take("temperature").into_number(),
        top_p: take(&mut config, "topP", "top_p").into_number(),
        top_k: take(&mut config, "topK", "top_k").into_number(),
        min_p: None,
        seed: config.take("seed").into_number(),
        frequency_penalty: take(&mut config, "frequencyPenalty", "frequency_penalty").into_number(),
        presence_penalty: take(&mut config, "presencePenalty", "presence_penalty").into_number(),
        stop: chat::read_stop(take(&mut config, "stopSequences", "stop_sequences")),
    };
    let is_json = take(&mut config, "responseMimeType", "response_mime_type").text()
        == Some("application/json");
    let schema = match take(&mut config, "responseJsonSchema", "response_json_schema") {
        Json::Null => lower_types(take(&mut config, "responseSchema", "response_schema")),
        schema => schema,
    };
    request.format = match schema {
        Json::Null if is_json => Format::Json,
        Json::Null => Format::Text,
        schema => Format::Schema { schema, name: None, description: None, is_strict: None },
    };
    let mut thinking = take(&mut config, "thinkingConfig", "thinking_config");
    let level = take(&mut thinking, "thinkingLevel", "thinking_level");
    let budget = take(&mut thinking, "thinkingBudget", "thinking_budget");
    let effort = level.text().and_then(|name| Effort::from_name(&name.to_ascii_lowercase()));
    // Google's client says so to every model, as Claude's do.
    request.reasoning = match (effort, budget.u64(), budget) {
        (Some(effort), ..) => Some(Reasoning::Adaptive(Some(effort))),
        (_, Some(0), _) => Some(Reasoning::Off),
        (_, Some(tokens), _) => Some(Reasoning::Budget(tokens)),
        (_, None, Json::Number(_)) => Some(Reasoning::Adaptive(None)),
        _ => None,
    };
    Ok(())
}
