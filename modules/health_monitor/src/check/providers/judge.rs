//! Judgement of a provider's answer.

use module_http_client::{Answer, StatusCode};
use module_sdk::ProviderApi;
use serde::Deserialize;
use serde_json::Value;

use crate::check::outcomes::Failure;

/// Verdict on an answer that shows that the provider is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It lists its models.
    Lists(Vec<String>),
    /// It answers, and has too much to do for more.
    IsBusy,
    /// It answers, and refuses the key.
    RefusesKey,
    /// It answers, and wants a key where there is none.
    WantsKey,
}

/// Longest code of an error that is shown: it is the server's.
const LONGEST_CODE: usize = 60;

/// Judges the answer to the question for the list of models.
pub(super) fn judge(
    api: ProviderApi,
    has_key: bool,
    path: &str,
    answer: &Answer,
) -> Result<Verdict, Failure> {
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if has_key => {
            return Ok(Verdict::RefusesKey);
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(Verdict::WantsKey),
        StatusCode::TOO_MANY_REQUESTS => return Ok(Verdict::IsBusy),
        StatusCode::NOT_FOUND => {
            let message = format!("HTTP 404 for {path}; is `base_url` right?");
            return Err(Failure::new("status", message));
        }
        status if !status.is_success() => {
            return Err(Failure::new("status", format!("HTTP {}", status.as_u16())));
        }
        _ => {}
    }
    let is_html = answer.content_type() == "text/html"
        || answer.body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<');
    if is_html {
        let message = "it answers with a web page; is `base_url` right, or a proxy in between?";
        return Err(Failure::new("html", message));
    }
    models(api, &answer.body).map(Verdict::Lists)
}

/// A list of models, of whatever API.
#[derive(Deserialize)]
struct List {
    data: Option<Vec<Entry>>,
    models: Option<Vec<Entry>>,
    error: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<Value>,
}

#[derive(Deserialize)]
struct Entry {
    id: Option<String>,
    name: Option<String>,
}

fn models(api: ProviderApi, body: &[u8]) -> Result<Vec<String>, Failure> {
    let no_list = || Failure::new("content", "its answer is no list of models");
    // Some gateways answer with the bare list.
    let entries = match serde_json::from_slice::<Vec<Entry>>(body) {
        Ok(entries) => entries,
        Err(_) => {
            let list: List = serde_json::from_slice(body).map_err(|_| no_list())?;
            if let Some(error) = error(&list) {
                return Err(error);
            }
            match api {
                ProviderApi::Gemini | ProviderApi::Ollama => list.models,
                ProviderApi::Openai | ProviderApi::Anthropic => list.data,
            }
            .ok_or_else(no_list)?
        }
    };
    let name = |entry: Entry| match api {
        ProviderApi::Gemini => {
            entry.name.map(|name| name.strip_prefix("models/").unwrap_or(&name).to_owned())
        }
        ProviderApi::Ollama => entry.name,
        ProviderApi::Openai | ProviderApi::Anthropic => entry.id,
    };
    Ok(entries.into_iter().filter_map(name).collect())
}

/// Returns the failure that an answer tells with a status of success. Its text may repeat what was
/// sent, so that only a code is shown.
fn error(list: &List) -> Option<Failure> {
    let is_error = list.kind.as_ref().and_then(Value::as_str) == Some("error");
    let error = match &list.error {
        Some(error) if *error != Value::Bool(false) => error,
        _ if is_error => &Value::Null,
        _ => return None,
    };
    let code = ["code", "type", "status"].iter().find_map(|key| error[key].as_str());
    let code = code.filter(|code| {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_uppercase() || c == '_';
        code.len() <= LONGEST_CODE && code.chars().all(is_word)
    });
    let message = match code {
        Some(code) => format!("it answers with the error {code} and the status of success"),
        None => "it answers with an error and the status of success".to_owned(),
    };
    Some(Failure::new("error", message))
}

/// Models that an Ollama has loaded, with their size and what of it lies in the GPU's memory.
#[derive(Deserialize)]
pub(super) struct Loaded {
    pub(super) models: Vec<LoadedModel>,
}

/// A loaded model.
#[derive(Deserialize)]
pub(super) struct LoadedModel {
    pub(super) name: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) size_vram: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use module_http_client::HeaderMap;

    use super::*;

    fn judged(api: ProviderApi, status: u16, body: &str) -> Result<Verdict, Failure> {
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
            elapsed: Duration::ZERO,
            certificate_expires_at: None,
            date: None,
        };
        judge(api, true, "/v1/models", &answer)
    }

    fn lists(names: &[&str]) -> Result<Verdict, Failure> {
        Ok(Verdict::Lists(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn lists_of_every_api_are_read() {
        use ProviderApi::{Anthropic, Gemini, Ollama, Openai};

        let check = |api, body, names: &[&str]| {
            assert_eq!(judged(api, 200, body), lists(names), "{api} {body}");
        };
        check(Openai, r#"{"object":"list","data":[{"id":"gpt-5"},{"id":"o9"}]}"#, &["gpt-5", "o9"]);
        check(Openai, r#"{"data":[{"id":"a"},{"object":"?"}],"error":null}"#, &["a"]);
        check(Openai, r#"[{"id":"meta/llama"}]"#, &["meta/llama"]);
        check(Anthropic, r#"{"data":[{"type":"model","id":"claude-x"}]}"#, &["claude-x"]);
        check(Gemini, r#"{"models":[{"name":"models/gemini-3"}]}"#, &["gemini-3"]);
        check(Ollama, r#"{"models":[{"name":"qwen3:8b","model":"qwen3:8b"}]}"#, &["qwen3:8b"]);
        check(Ollama, r#"{"models":[]}"#, &[]);
    }

    #[test]
    fn what_is_no_list_is_down_and_says_why() {
        let check = |status, body, reason, part: &str| {
            let failure = judged(ProviderApi::Openai, status, body).expect_err("it is down");
            assert_eq!(failure.reason, reason, "{failure:?}");
            assert!(failure.message.contains(part), "{failure:?}");
            assert!(!failure.message.contains("canary"), "{failure:?}");
        };
        check(200, "<!doctype html><p>canary", "html", "a web page");
        check(200, "  \n<html>", "html", "a web page");
        check(
            200,
            r#"{"error":{"message":"sk-canary","code":"overloaded"}}"#,
            "error",
            "overloaded",
        );
        check(200, r#"{"error":{"message":"sk-canary","code":"sk-canary"}}"#, "error", "an error");
        check(200, r#"{"error":"canary"}"#, "error", "an error");
        check(200, r#"{"type":"error"}"#, "error", "an error");
        check(200, "{}", "content", "no list");
        check(200, "", "content", "no list");
        check(200, "null", "content", "no list");
        check(200, r#"{"data":[{"id":"half"#, "content", "no list");
        check(503, "canary", "status", "HTTP 503");
        check(404, "canary", "status", "is `base_url` right?");
        check(302, "", "status", "HTTP 302");
    }

    #[test]
    fn a_refused_key_and_too_many_requests_are_no_outage() {
        for status in [401, 403] {
            assert_eq!(judged(ProviderApi::Openai, status, "<html>"), Ok(Verdict::RefusesKey));
        }
        assert_eq!(judged(ProviderApi::Gemini, 429, ""), Ok(Verdict::IsBusy));
    }
}
