//! ntfy: notes to a phone or a desktop, by a server of one's own or `ntfy.sh`.

use std::time::Duration;

use module_http_client::{Client, Header, Policy, Request};
use module_sdk::{Secret, events::AlertSeverity};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Channel, ChannelError, Envelope, Sending, deadline, escape::shortened, webhook::post};
use crate::{
    notify::{note::Note, options::RouteOptions},
    quantity::Span,
};

/// Settings of a channel to ntfy.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NtfyOptions {
    /// Settings that every channel has.
    #[serde(flatten)]
    pub route: RouteOptions,
    /// Address of the server.
    pub url: String,
    /// Topic. Who knows it reads along, so it is a secret: `${NAME}` or `file:/path`.
    #[schemars(with = "Option<String>")]
    pub secret_topic: Option<Secret>,
    /// Access token: `${NAME}` or `file:/path`.
    #[schemars(with = "Option<String>")]
    pub token: Option<Secret>,
    /// `true` where the server is on this machine or in a private network.
    pub local: bool,
    /// Time within which the answer has to be there.
    pub deadline: Span,
}

impl Default for NtfyOptions {
    fn default() -> Self {
        Self {
            route: RouteOptions::default(),
            url: "https://ntfy.sh".to_owned(),
            secret_topic: None,
            token: None,
            local: false,
            deadline: Span::of_seconds(10),
        }
    }
}

pub(super) struct Ntfy {
    client: Client,
    url: String,
    topic: Secret,
    token: Option<Secret>,
    deadline: Duration,
}

impl Ntfy {
    pub(super) fn new(options: &NtfyOptions) -> Result<Self, ChannelError> {
        let Some(topic) = &options.secret_topic else {
            return Err(ChannelError::new("secret_topic", "is missing"));
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let length = topic.expose().len();
        if length == 0 || length > 64 || !topic.expose().chars().all(is_name) {
            let message = "is no topic: 1 to 64 of a-z, A-Z, 0-9, _ and -";
            return Err(ChannelError::new("secret_topic", message));
        }
        let is_plain = options.url.starts_with("http://");
        if !(is_plain || options.url.starts_with("https://")) || options.url.contains('@') {
            let message = "must begin with https:// or http:// and a host, without a password";
            return Err(ChannelError::new("url", message));
        }
        if is_plain && !options.local {
            let message = "would send the topic without encryption; write https://, or `local: \
                           true` for an address of a private network";
            return Err(ChannelError::new("url", message));
        }
        Ok(Self {
            client: Client::new(Policy { local: options.local, ..Policy::default() }),
            url: options.url.clone(),
            topic: topic.clone(),
            token: options.token.clone(),
            deadline: deadline(options.deadline)?,
        })
    }
}

impl Channel for Ntfy {
    fn send<'a>(&'a self, envelope: &'a Envelope) -> Sending<'a> {
        Box::pin(async move {
            let body = body(&envelope.note, self.topic.expose()).to_string();
            let mut request = Request::post(&self.url, "application/json", body);
            request.headers.push(Header::new("idempotency-key", &envelope.id));
            request.headers.extend(self.token.as_ref().map(Header::bearer));
            request.deadline = self.deadline;
            post(&self.client, request).await
        })
    }
}

/// Longest message, in bytes: the server makes an attachment of a longer one.
const MESSAGE: usize = 3_500;

fn body(note: &Note, topic: &str) -> Value {
    let (priority, tag) = match note.severity() {
        Some(AlertSeverity::Critical) => (5, "rotating_light"),
        Some(AlertSeverity::Warning) => (4, "warning"),
        Some(AlertSeverity::Info) => (2, "information_source"),
        None => (3, "white_check_mark"),
    };
    let mut message = note.lines().join("\n");
    if message.len() > MESSAGE {
        // A character has at most four bytes.
        message = shortened(&message, MESSAGE / 4);
    }
    json!({
        "topic": topic,
        "title": note.title(),
        "message": message,
        "priority": priority,
        "tags": [tag],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::note::{
        Kind, News,
        tests::{item, subject},
    };

    #[test]
    fn urgency_follows_the_severity() {
        let at = "2026-11-20T10:10:00Z".parse().expect("a time");
        let check = |news, severity: &str, expected: u64| {
            let items = vec![item(news, subject("a", "b", severity))];
            let body = body(&Note::new(Kind::Alerts, at, items), "topic");
            assert_eq!(body["priority"], expected);
        };
        check(News::Firing, "critical", 5);
        check(News::Firing, "warning", 4);
        check(News::Resolved, "critical", 3);
    }

    #[test]
    fn a_topic_is_needed_and_not_shown() {
        let check = |json: Value, key: &str| {
            let options: NtfyOptions = serde_json::from_value(json).expect("it has the form");
            assert!(!format!("{options:?}").contains("canary"));
            let error = Ntfy::new(&options).err().expect("it is refused");
            assert_eq!(error.key, key);
            assert!(!error.to_string().contains("canary"), "{error}");
        };
        check(json!({}), "secret_topic");
        check(json!({"secret_topic": "canary/../x"}), "secret_topic");
        check(json!({"secret_topic": "canary", "url": "http://ntfy.example"}), "url");
        check(json!({"secret_topic": "canary", "url": "https://u:p@ntfy.example"}), "url");
    }
}
