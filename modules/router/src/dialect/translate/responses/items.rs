//! Items of a conversation, as requests and answers have them.

use std::borrow::Cow;

use super::super::{
    ClientTools, TranslateError, chat,
    client_tools::{FREE_INPUT, Form, SEARCH},
    ids,
    ir::{Arguments, Block, Media, join},
    json::{Json, Object},
};

/// Reads the content of a message, or the output of a tool: a text, or a list of parts.
pub(super) fn read_content(content: Json<'_>) -> Result<Vec<Block<'_>>, TranslateError> {
    match content {
        Json::Null => Ok(Vec::new()),
        Json::Text(text) => Ok(Block::text(text).into_iter().collect()),
        Json::List(parts) => {
            let mut blocks = Vec::with_capacity(parts.len());
            for part in parts {
                blocks.extend(read_part(part)?);
            }
            Ok(blocks)
        }
        // Some clients put what a tool says into an object.
        other => Ok(vec![Block::Text(other.to_string().into())]),
    }
}

fn read_part(mut part: Json<'_>) -> Result<Option<Block<'_>>, TranslateError> {
    let kind = part.take("type").into_text();
    Ok(match kind.as_deref() {
        Some("input_text" | "output_text" | "text") => {
            part.take("text").into_text().and_then(Block::text)
        }
        Some("refusal") => part.take("refusal").into_text().map(Block::Refusal),
        Some("input_image") => {
            let mut image = part.take("image_url");
            let url = image.take("url").into_text().or_else(|| image.into_text());
            let url =
                url.ok_or(TranslateError::Unsupported("an image that lies with another provider"))?;
            Some(Block::Image(Media::from_url(url)))
        }
        Some("input_file") => {
            let name = part.take("filename").into_text();
            let data = part.take("file_data").into_text();
            let data = data
                .or_else(|| part.take("file_url").into_text())
                .ok_or(TranslateError::Unsupported("a file that lies with another provider"))?;
            Some(Block::File { media: chat::file_media(data), name })
        }
        Some("input_audio") => return Err(TranslateError::Unsupported("sound")),
        _ => None,
    })
}

/// Reads a call of a tool; one of a tool without a schema has its text as `input`.
pub(super) fn read_call(mut item: Json<'_>) -> Result<Block<'_>, TranslateError> {
    let id = item.take("call_id").into_text().or_else(|| item.take("id").into_text());
    let name = item.take("name").into_text();
    let name = name.ok_or(TranslateError::Malformed("a call of a tool has no name"))?;
    let name = ids::function(item.get("namespace").text(), name);
    let arguments = match item.take("arguments") {
        Json::Text(text) => Arguments::Text(text),
        Json::Null if item.has("input") => {
            Arguments::Tree(Object::new().with(FREE_INPUT, item.take("input")).into())
        }
        tree => Arguments::Tree(tree),
    };
    Ok(Block::ToolUse { id: id.unwrap_or_default(), name, arguments })
}

/// Returns whether the client itself searches for tools, and not its provider.
pub(super) fn is_of_client(search: &Json<'_>) -> bool {
    search.get("execution").text() == Some("client")
}

/// Reads a call of the client's search for tools.
pub(super) fn read_search(mut item: Json<'_>) -> Block<'_> {
    let id = item.take("call_id").into_text().unwrap_or_default();
    let arguments = Arguments::Tree(item.take("arguments"));
    Block::ToolUse { id, name: SEARCH.into(), arguments }
}

/// Reads an item of reasoning; one that is encrypted is sealed.
pub(super) fn read_reasoning(mut item: Json<'_>) -> Block<'_> {
    let is_sealed = item.get("encrypted_content").text().is_some_and(|text| !text.is_empty());
    let mut texts = Vec::new();
    for key in ["summary", "content"] {
        for mut part in item.take(key).into_list() {
            texts.extend(part.take("text").into_text());
        }
        if !texts.is_empty() {
            break;
        }
    }
    Block::Thinking { text: join(texts, "\n\n"), is_sealed }
}

/// Writes an item of reasoning.
pub(super) fn write_reasoning<'a>(id: String, text: impl Into<Json<'a>>) -> Json<'a> {
    let part = Object::new().with("type", "summary_text").with("text", text);
    Object::new().with("id", id).with("type", "reasoning").with("summary", vec![part.into()]).into()
}

/// Writes a message of the model with one part.
pub(super) fn write_message(id: String, part: Json<'_>) -> Json<'_> {
    Object::new()
        .with("id", id)
        .with("type", "message")
        .with("status", "completed")
        .with("role", "assistant")
        .with("content", vec![part])
        .into()
}

/// Writes a part of text.
pub(super) fn write_text<'a>(text: impl Into<Json<'a>>) -> Json<'a> {
    Object::new()
        .with("type", "output_text")
        .with("text", text)
        .with("annotations", Vec::new())
        .with("logprobs", Vec::new())
        .into()
}

/// Writes a part of refusal.
pub(super) fn write_refusal<'a>(text: impl Into<Json<'a>>) -> Json<'a> {
    Object::new().with("type", "refusal").with("refusal", text).into()
}

/// Call of a tool that is written.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Id of the item.
    pub item: String,
    /// Id of the call.
    pub id: Cow<'a, str>,
    /// Name that the provider knows.
    pub name: Cow<'a, str>,
    /// Arguments, or the text of a custom tool.
    pub arguments: Cow<'a, str>,
    pub status: &'static str,
}

/// Returns how the id of a call begins.
pub(super) const fn id_prefix(form: Form) -> &'static str {
    match form {
        Form::Function => "fc",
        Form::Free => "ctc",
        Form::Search => "tsc",
    }
}

/// Writes a call of a tool as the client knows the tool.
pub(super) fn write_call<'a>(call: Call<'a>, tools: &ClientTools) -> Json<'a> {
    let Call { item, id, name, arguments, status } = call;
    let tool = tools.find(&name);
    let (kind, key) = match tools.form(&name) {
        Form::Function => ("function_call", "arguments"),
        Form::Free => ("custom_tool_call", "input"),
        Form::Search => return write_search(item, id, &arguments, status),
    };
    let namespace = tool.and_then(|tool| tool.namespace.clone());
    Object::new()
        .with("id", item)
        .with("type", kind)
        .with("status", status)
        .with(key, arguments)
        .with("call_id", id)
        .with("name", tool.map_or(name, |tool| tool.name.clone().into()))
        .with_some("namespace", namespace)
        .into()
}

/// Writes a call of the client's search for tools, whose arguments are an object.
fn write_search<'a>(
    item: String,
    id: Cow<'a, str>,
    arguments: &str,
    status: &'static str,
) -> Json<'a> {
    let arguments = match Json::parse(arguments.as_bytes()) {
        Ok(arguments @ Json::Object(_)) => arguments.into_owned(),
        _ => Object::new().into(),
    };
    Object::new()
        .with("id", item)
        .with("type", "tool_search_call")
        .with("status", status)
        .with("execution", "client")
        .with("call_id", id)
        .with("arguments", arguments)
        .into()
}
