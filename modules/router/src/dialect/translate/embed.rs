//! Embeddings, of OpenAI and of Ollama.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    AnswerContext, RequestOptions, TranslateError,
    ir::expect,
    json::{Json, Object},
};

/// Translates a request for OpenAI's embeddings into Ollama's.
pub(super) fn request_to_ollama<'a>(
    mut body: Json<'a>,
    options: &RequestOptions<'a>,
) -> Result<Json<'a>, TranslateError> {
    let input = read_input(body.take("input"))?;
    let model_options = options.num_ctx.map(|num_ctx| Object::new().with("num_ctx", num_ctx));
    Ok(Object::new()
        .with("model", options.model)
        .with("input", input)
        .with_some("dimensions", body.take("dimensions").into_number())
        .with_some("options", model_options)
        .into())
}

/// Translates a request for Ollama's embeddings into OpenAI's.
pub(super) fn request_to_openai<'a>(
    mut body: Json<'a>,
    options: &RequestOptions<'a>,
) -> Result<Json<'a>, TranslateError> {
    Ok(Object::new()
        .with("model", options.model)
        .with("input", read_input(body.take("input"))?)
        .with_some("dimensions", body.take("dimensions").into_number())
        .with("encoding_format", "float")
        .into())
}

/// Returns the input where it is a text or a list of them.
fn read_input(input: Json<'_>) -> Result<Json<'_>, TranslateError> {
    match &input {
        Json::Text(_) => Ok(input),
        Json::List(items) if items.iter().all(|item| item.text().is_some()) => Ok(input),
        Json::List(_) => Err(TranslateError::Unsupported("an input of tokens")),
        _ => Err(TranslateError::Malformed("input must be a text or a list of texts")),
    }
}

/// Translates Ollama's embeddings into OpenAI's.
pub(super) fn answer_to_openai<'a>(
    mut body: Json<'a>,
    context: &AnswerContext<'a>,
) -> Result<Json<'a>, TranslateError> {
    let vectors = body.take("embeddings");
    expect(matches!(vectors, Json::List(_)), "the answer has no embeddings")?;
    let mut data = Vec::new();
    for (index, vector) in vectors.into_list().into_iter().enumerate() {
        let vector = if context.base64_embeddings { encode(&vector)?.into() } else { vector };
        let item = Object::new()
            .with("object", "embedding")
            .with("index", index)
            .with("embedding", vector);
        data.push(item.into());
    }
    let usage = body
        .get("prompt_eval_count")
        .u64()
        .map(|count| Object::new().with("prompt_tokens", count).with("total_tokens", count));
    Ok(Object::new()
        .with("object", "list")
        .with("data", data)
        .with("model", context.model)
        .with_some("usage", usage)
        .into())
}

/// Translates OpenAI's embeddings into Ollama's.
pub(super) fn answer_to_ollama<'a>(
    mut body: Json<'a>,
    context: &AnswerContext<'a>,
) -> Result<Json<'a>, TranslateError> {
    let data = body.take("data");
    expect(matches!(data, Json::List(_)), "the answer has no embeddings")?;
    let mut items = data.into_list();
    items.sort_by_key(|item| item.get("index").u64());
    let mut vectors = Vec::with_capacity(items.len());
    for mut item in items {
        vectors.push(match item.take("embedding") {
            Json::Text(text) => decode(&text)?,
            vector => vector,
        });
    }
    Ok(Object::new()
        .with("model", context.model)
        .with("embeddings", vectors)
        .with_some("prompt_eval_count", body.get("usage").get("prompt_tokens").u64())
        .into())
}

/// Returns a vector as base64 of its numbers, of four bytes each, the lowest first.
fn encode(vector: &Json<'_>) -> Result<String, TranslateError> {
    let mut bytes = Vec::with_capacity(vector.list().len() * 4);
    for number in vector.list() {
        let Json::Number(number) = number else {
            return Err(TranslateError::Malformed("an embedding must be a list of numbers"));
        };
        #[expect(clippy::cast_possible_truncation, reason = "the form has four bytes a number")]
        let number = number.as_f64().unwrap_or_default() as f32;
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    Ok(BASE64_STANDARD.encode(bytes))
}

/// Returns the vector of base64.
fn decode(text: &str) -> Result<Json<'static>, TranslateError> {
    let bytes = BASE64_STANDARD
        .decode(text)
        .map_err(|_| TranslateError::Malformed("an embedding is no base64"))?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    expect(rest.is_empty(), "an embedding is cut")?;
    let numbers = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes));
    // By its text, so that a number has no more digits than it carries.
    let numbers =
        numbers.map(|n| n.to_string().parse().ok().and_then(serde_json::Number::from_f64));
    Ok(Json::List(numbers.map(Json::from).collect()))
}
