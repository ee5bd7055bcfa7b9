//! A request of Ollama's clients.

use std::{borrow::Cow, collections::VecDeque};

use super::super::{
    TranslateError, chat, ids,
    ir::{
        Arguments, Block, Effort, Format, Media, Reasoning, Request, Role, Sampling, Tool, expect,
    },
    json::{Json, Object},
};

/// Reads a request to `/api/chat`.
pub(in super::super) fn read_chat(mut body: Json<'_>) -> Result<Request<'_>, TranslateError> {
    let mut request = Request::default();
    let messages = body.take("messages");
    expect(matches!(messages, Json::List(_) | Json::Null), "messages must be a list")?;
    let mut calls = Calls::default();
    for message in messages.into_list() {
        read_message(message, &mut calls, &mut request)?;
    }
    for mut tool in body.take("tools").into_list() {
        let mut function = tool.take("function");
        if let Some(name) = function.take("name").into_text() {
            request.tools.push(Tool {
                name,
                description: function.take("description").into_text(),
                schema: function.take("parameters"),
                is_strict: None,
            });
        }
    }
    read_common(body, &mut request);
    Ok(request)
}

/// Reads a request to `/api/generate`.
pub(in super::super) fn read_generate(mut body: Json<'_>) -> Result<Request<'_>, TranslateError> {
    let mut request = Request::default();
    if body.get("raw").bool() == Some(true) || body.get("template").text().is_some_and(is_text) {
        return Err(TranslateError::Unsupported("a prompt with a template of its own"));
    }
    if body.get("suffix").text().is_some_and(is_text) {
        return Err(TranslateError::Unsupported("text between a prompt and a suffix"));
    }
    if !body.get("context").list().is_empty() {
        return Err(TranslateError::Unsupported("a conversation as tokens (context)"));
    }
    if let Some(system) = body.take("system").into_text() {
        request.push_system(system);
    }
    let mut blocks: Vec<_> =
        body.take("prompt").into_text().and_then(Block::text).into_iter().collect();
    blocks.extend(read_images(body.take("images")));
    request.push(Role::User, blocks);
    read_common(body, &mut request);
    Ok(request)
}

const fn is_text(text: &str) -> bool {
    !text.is_empty()
}

fn read_common<'a>(mut body: Json<'a>, request: &mut Request<'a>) {
    request.format = match body.take("format") {
        Json::Text(name) if name == "json" => Format::Json,
        schema @ Json::Object(_) => {
            Format::Schema { schema, name: None, description: None, is_strict: None }
        }
        _ => Format::Text,
    };
    let think = body.get("think");
    request.reasoning = match (think.bool(), think.text()) {
        (Some(true), _) => Some(Reasoning::Adaptive(None)),
        (Some(false), _) => Some(Reasoning::Off),
        (_, Some(name)) => Effort::from_name(name).map(Reasoning::Effort),
        _ => None,
    };
    request.keep_alive = body.take("keep_alive");
    let Json::Object(mut options) = body.take("options") else { return };
    request.max_tokens = options.take("num_predict").u64().filter(|max| *max > 0);
    request.sampling = Sampling {
        temperature: options.take("temperature").into_number(),
        top_p: options.take("top_p").into_number(),
        top_k: options.take("top_k").into_number(),
        min_p: options.take("min_p").into_number(),
        seed: options.take("seed").into_number(),
        frequency_penalty: options.take("frequency_penalty").into_number(),
        presence_penalty: options.take("presence_penalty").into_number(),
        stop: chat::read_stop(options.take("stop")),
    };
    request.ollama_options = options;
}

/// Calls that wait for their results, each with the name of its tool: results of older clients
/// name the tool alone.
#[derive(Debug, Default)]
struct Calls<'a> {
    waiting: VecDeque<(Cow<'a, str>, Cow<'a, str>)>,
    count: usize,
}

impl<'a> Calls<'a> {
    /// Returns an id for a call, its own where it has one.
    fn add(&mut self, id: Option<Cow<'a, str>>, name: &Cow<'a, str>) -> Cow<'a, str> {
        let id = id.unwrap_or_else(|| ids::call("conversation", self.count).into());
        self.count += 1;
        self.waiting.push_back((id.clone(), name.clone()));
        id
    }

    /// Returns the id of the call that a result belongs to: the oldest of its tool, or the oldest.
    fn answered(&mut self, id: Option<Cow<'a, str>>, name: Option<&str>) -> Cow<'a, str> {
        let at = match (&id, name) {
            (Some(id), _) => self.waiting.iter().position(|(known, _)| known == id),
            (None, Some(name)) => self.waiting.iter().position(|(_, known)| known == name),
            (None, None) => None,
        };
        let found = match at {
            Some(at) => self.waiting.remove(at),
            None if id.is_none() => self.waiting.pop_front(),
            None => None,
        };
        found.map(|(id, _)| id).or(id).unwrap_or_default()
    }
}

fn read_message<'a>(
    mut message: Json<'a>,
    calls: &mut Calls<'a>,
    request: &mut Request<'a>,
) -> Result<(), TranslateError> {
    let role = message.take("role").into_text();
    let text = message.take("content").into_text();
    match role.as_deref() {
        Some("system") => request.push_system(text.unwrap_or_default()),
        Some("user") => {
            let mut blocks: Vec<_> = text.and_then(Block::text).into_iter().collect();
            blocks.extend(read_images(message.take("images")));
            request.push(Role::User, blocks);
        }
        Some("assistant") => {
            let thinking = message.take("thinking").into_text().filter(|text| !text.is_empty());
            let mut blocks: Vec<_> = thinking
                .map(|text| Block::Thinking { text, is_sealed: false })
                .into_iter()
                .chain(text.and_then(Block::text))
                .collect();
            for call in message.take("tool_calls").into_list() {
                let (id, name, arguments) = read_call(call)?;
                let id = calls.add(id, &name);
                blocks.push(Block::ToolUse { id, name, arguments });
            }
            request.push(Role::Assistant, blocks);
        }
        Some("tool") => {
            let id = message.take("tool_call_id").into_text().filter(|id| !id.is_empty());
            let name = message.take("tool_name").into_text();
            let name = name.or_else(|| message.take("name").into_text());
            let id = calls.answered(id, name.as_deref());
            let mut content: Vec<_> = text.and_then(Block::text).into_iter().collect();
            content.extend(read_images(message.take("images")));
            request.push(Role::User, vec![Block::ToolResult { id, content, is_error: false }]);
        }
        _ => return Err(TranslateError::Malformed("a message has no role that is known")),
    }
    Ok(())
}

/// A call: its id where it has one, the name of the tool, its arguments.
pub(super) type Call<'a> = (Option<Cow<'a, str>>, Cow<'a, str>, Arguments<'a>);

/// Reads a call of a tool, in a request or an answer.
pub(super) fn read_call(mut call: Json<'_>) -> Result<Call<'_>, TranslateError> {
    let id = call.take("id").into_text().filter(|id| !id.is_empty());
    let mut function = call.take("function");
    let name = function.take("name").into_text();
    let name = name.ok_or(TranslateError::Malformed("a call of a tool has no name"))?;
    let arguments = match function.take("arguments") {
        Json::Text(text) => Arguments::Text(text),
        tree => Arguments::Tree(tree),
    };
    Ok((id, name, arguments))
}

fn read_images(images: Json<'_>) -> impl Iterator<Item = Block<'_>> {
    images.into_list().into_iter().filter_map(Json::into_text).map(|data| {
        Block::Image(if data.starts_with("data:") {
            Media::from_url(data)
        } else {
            Media::Base64 { media_type: media_type(&data).into(), data }
        })
    })
}

/// Returns the media type of an image in base64 by its first bytes.
fn media_type(data: &str) -> &'static str {
    match data.as_bytes() {
        [b'/', b'9', b'j', ..] => "image/jpeg",
        [b'R', b'0', b'l', b'G', ..] => "image/gif",
        [b'U', b'k', b'l', b'G', ..] => "image/webp",
        _ => "image/png",
    }
}

/// Returns the options of an object, empty where there are none.
pub(super) fn take_options<'a>(request: &mut Request<'a>) -> Object<'a> {
    std::mem::take(&mut request.ollama_options)
}
