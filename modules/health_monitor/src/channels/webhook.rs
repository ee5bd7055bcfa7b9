//! A webhook: the note as JSON, in the form that the receiver knows.

use std::{collections::BTreeMap, time::Duration};

use module_http_client::{Client, Header, Policy, Request};
use module_sdk::{Secret, jiff::ToSpan as _};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Channel, ChannelError, Envelope, SendError, Sending, deadline,
    escape::{markdown, shortened, slack},
};
use crate::{
    notify::{
        note::{Item, News, Note, clean},
        options::RouteOptions,
    },
    quantity::Span,
};

/// Settings of a webhook.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookOptions {
    /// Settings that every channel has.
    #[serde(flatten)]
    pub route: RouteOptions,
    /// Form of the note.
    pub format: Format,
    /// Address that a note is posted to; of Alertmanager that of its own page.
    pub url: Option<String>,
    /// The same where the address is a secret, as those of Slack, Discord and Mattermost are:
    /// `${NAME}` or `file:/path`.
    #[schemars(with = "Option<String>")]
    pub secret_url: Option<Secret>,
    /// Headers by name; each value is a secret, `${NAME}` or `file:/path`.
    #[schemars(with = "BTreeMap<String, String>")]
    pub secret_headers: BTreeMap<String, Secret>,
    /// `true` where the address is on this machine or in a private network.
    pub local: bool,
    /// Time within which the answer has to be there.
    pub deadline: Span,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            route: RouteOptions::default(),
            format: Format::default(),
            url: None,
            secret_url: None,
            secret_headers: BTreeMap::new(),
            local: false,
            deadline: Span::of_seconds(10),
        }
    }
}

/// Form of a note.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The note with all its alerts, for programs.
    #[default]
    Json,
    /// A message of Slack.
    Slack,
    /// A message of Discord.
    Discord,
    /// A message of Mattermost.
    Mattermost,
    /// Alerts of Alertmanager, version 2 of its API.
    Alertmanager,
}

pub(super) struct Webhook {
    client: Client,
    format: Format,
    url: Secret,
    headers: Vec<Header>,
    deadline: Duration,
}

/// Hosts whose addresses are secrets, and parts of paths that are.
const SECRET_PARTS: [&str; 5] = [
    "hooks.slack.com",
    "discord.com/api/webhooks",
    "discordapp.com/api/webhooks",
    "/hooks/",
    "token=",
];

impl Webhook {
    pub(super) fn new(options: &WebhookOptions) -> Result<Self, ChannelError> {
        let url = options.address()?;
        let is_plain = url.expose().starts_with("http://");
        let has_secrets = options.secret_url.is_some() || !options.secret_headers.is_empty();
        if is_plain && has_secrets && !options.local {
            let key = if options.secret_url.is_some() { "secret_url" } else { "secret_headers" };
            let message = "would be sent without encryption; write https://, or `local: true` for \
                           an address of a private network";
            return Err(ChannelError::new(key, message));
        }
        let headers = options.secret_headers.iter();
        Ok(Self {
            client: Client::new(Policy { local: options.local, ..Policy::default() }),
            format: options.format,
            url,
            headers: headers.map(|(name, value)| Header::secret(name, value)).collect(),
            deadline: deadline(options.deadline)?,
        })
    }
}

impl WebhookOptions {
    /// Returns the address, where exactly one is given that can be one.
    fn address(&self) -> Result<Secret, ChannelError> {
        let is_chat = matches!(self.format, Format::Slack | Format::Discord | Format::Mattermost);
        let (key, url) = match (&self.url, &self.secret_url) {
            (Some(_), Some(_)) => {
                return Err(ChannelError::new(
                    "url",
                    "contradicts `secret_url`; write one of them",
                ));
            }
            (None, None) => {
                let key = if is_chat { "secret_url" } else { "url" };
                return Err(ChannelError::new(key, "is missing: a webhook needs an address"));
            }
            (Some(url), None) => ("url", secret(url)),
            (None, Some(url)) => ("secret_url", url.clone()),
        };
        let text = url.expose();
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
        let Some(authority) = authority.filter(|authority| !authority.is_empty()) else {
            return Err(ChannelError::new(key, "must begin with https:// or http:// and a host"));
        };
        let holds_secret =
            authority.contains('@') || SECRET_PARTS.iter().any(|part| text.contains(part));
        if key == "url" && (is_chat || holds_secret) {
            let message = "is a secret itself; write `secret_url: ${NAME}` or `secret_url: \
                           file:/path`";
            return Err(ChannelError::new(key, message));
        }
        if self.format != Format::Alertmanager {
            return Ok(url);
        }
        let base = text.trim_end_matches('/');
        let base = base.strip_suffix(ALERTS).unwrap_or(base);
        Ok(secret(&format!("{base}{ALERTS}")))
    }
}

const ALERTS: &str = "/api/v2/alerts";

/// Returns a text as a secret.
pub(super) fn secret(text: &str) -> Secret {
    serde_json::from_value(Value::String(text.to_owned())).expect("a secret is read from any text")
}

impl Channel for Webhook {
    fn send<'a>(&'a self, envelope: &'a Envelope) -> Sending<'a> {
        Box::pin(async move {
            let body = body(self.format, envelope).to_string();
            let mut request = Request::post(self.url.expose(), "application/json", body);
            request.headers.push(Header::new("idempotency-key", &envelope.id));
            request.headers.extend(self.headers.iter().cloned());
            request.deadline = self.deadline;
            post(&self.client, request).await
        })
    }
}

/// Longest time for which a receiver may have its notes wait.
const LONGEST_WAIT: u64 = 3_600;

/// Sends a request, and judges the status of its answer.
pub(super) async fn post(client: &Client, request: Request) -> Result<(), SendError> {
    let answer = client.send(request).await?;
    let code = answer.status.as_u16();
    match code {
        200..=299 => Ok(()),
        400 | 413 | 415 | 422 => Err(SendError::Refused(format!("it answers {code}"))),
        _ => {
            let after = answer.headers.get("retry-after").and_then(|value| value.to_str().ok());
            let after = after.and_then(|seconds| seconds.trim().parse::<u64>().ok());
            let retry_after = after.map(|seconds| Duration::from_secs(seconds.min(LONGEST_WAIT)));
            Err(SendError::Status { code, retry_after })
        }
    }
}

/// Returns the body of a note.
fn body(format: Format, envelope: &Envelope) -> Value {
    let note = &envelope.note;
    match format {
        Format::Json => generic(envelope),
        Format::Slack => json!({
            "text": text(note, slack, "• ", SLACK),
            "mrkdwn": false,
            "parse": "none",
            "link_names": false,
            "unfurl_links": false,
            "unfurl_media": false,
        }),
        Format::Discord => json!({
            "content": text(note, markdown, "- ", DISCORD),
            "allowed_mentions": {"parse": []},
            // No previews of links.
            "flags": 4,
        }),
        Format::Mattermost => json!({"text": text(note, markdown, "- ", MATTERMOST)}),
        Format::Alertmanager => note.items.iter().map(|item| alertmanager(item, note)).collect(),
    }
}

/// Longest messages, in characters.
const SLACK: usize = 4_000;
const DISCORD: usize = 2_000;
const MATTERMOST: usize = 4_000;

fn text(note: &Note, escape: fn(&str) -> String, bullet: &str, longest: usize) -> String {
    let mut text = escape(&note.title());
    for line in note.lines() {
        text.push('\n');
        text.push_str(bullet);
        text.push_str(&escape(&line));
    }
    shortened(&text, longest)
}

/// Returns a note as programs get it.
pub(super) fn generic(envelope: &Envelope) -> Value {
    let note = &envelope.note;
    let alerts: Vec<Value> = note.items.iter().map(generic_item).collect();
    json!({
        "id": envelope.id,
        "kind": note.kind,
        "title": note.title(),
        "severity": note.severity(),
        "at": millisecond(note.at),
        "alerts": alerts,
        "more": note.more,
    })
}

fn generic_item(item: &Item) -> Value {
    let alert = &item.alert;
    json!({
        "id": alert.id,
        "news": item.news,
        "name": alert.name,
        "severity": alert.severity,
        "component": clean(&alert.component),
        "labels": labels(item),
        "message": clean(&alert.message),
        "since": millisecond(alert.since),
        "ended_at": item.ended_at.map(millisecond),
    })
}

fn labels(item: &Item) -> BTreeMap<String, String> {
    let labels = item.alert.labels.iter();
    labels.map(|(name, value)| (clean(name), clean(value))).collect()
}

fn millisecond(time: module_sdk::jiff::Timestamp) -> String {
    format!("{time:.3}")
}

/// Time after which Alertmanager forgets an alert of which it hears nothing more. Reminders come
/// before, except for what is acknowledged.
const FORGOTTEN_HOURS: i64 = 24;

fn alertmanager(item: &Item, note: &Note) -> Value {
    let alert = &item.alert;
    // A name of a label has no other characters there.
    let name = |name: &str| name.replace(|c: char| !(c.is_ascii_alphanumeric() || c == '_'), "_");
    let own = alert.labels.iter().filter(|(_, value)| !value.is_empty());
    let mut labels: BTreeMap<String, String> =
        own.map(|(label, value)| (name(label), clean(value))).collect();
    labels.insert("alertname".to_owned(), alert.name.clone());
    labels.insert("severity".to_owned(), alert.severity.to_string());
    labels.insert("component".to_owned(), clean(&alert.component));
    let ends_at = match item.news {
        News::Resolved | News::Test => item.ended_at.unwrap_or(note.at),
        News::Firing | News::Reminder | News::Flapping => note.at + FORGOTTEN_HOURS.hours(),
    };
    json!({
        "labels": labels,
        "annotations": {"summary": clean(&alert.message), "description": item.line()},
        "startsAt": millisecond(alert.since),
        "endsAt": millisecond(ends_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::note::{
        Kind,
        tests::{item, subject},
    };

    fn envelope() -> Envelope {
        let mut model = subject("model_down", "model.@everyone <!channel>\u{7}", "critical");
        model.message = "model.@everyone <!channel>\u{7} [is](http://evil) down.".to_owned();
        let items = vec![
            item(News::Firing, model),
            item(News::Resolved, subject("disk_low", "disk./", "warning")),
        ];
        let at = "2026-11-20T10:10:00Z".parse().expect("a time");
        Envelope { id: "0123".to_owned(), note: Note::new(Kind::Alerts, at, items) }
    }

    fn options(json: Value) -> WebhookOptions {
        serde_json::from_value(json).expect("it has the form")
    }

    #[test]
    fn each_receiver_gets_its_form() {
        let body = |format| body(format, &envelope());
        let slack = body(Format::Slack);
        assert_eq!(
            slack["text"],
            "Lodestar: CRITICAL: 1 firing, 1 resolved\n\
             • [critical] model.@everyone &lt;!channel&gt;\\u{7} [is](http://evil) down.\n\
             • [resolved after 10m 0s] disk./ is in trouble."
        );
        for format in [Format::Discord, Format::Mattermost] {
            let text = body(format).to_string();
            assert!(!text.contains("@everyone") && !text.contains("](http:"), "{text}");
        }
        assert_eq!(body(Format::Discord)["allowed_mentions"]["parse"], json!([]));
        let json = body(Format::Json);
        assert_eq!(json["id"], "0123");
        assert_eq!(json["severity"], "critical");
        assert_eq!(json["alerts"][0]["news"], "firing");
        assert_eq!(json["alerts"][0]["component"], "model.@everyone <!channel>\\u{7}");
        assert_eq!(json["alerts"][1]["ended_at"], "2026-11-20T10:10:00.000Z");
    }

    #[test]
    fn alertmanager_gets_labels_and_times() {
        let alerts = body(Format::Alertmanager, &envelope());
        assert_eq!(alerts[0]["labels"]["alertname"], "model_down");
        assert_eq!(alerts[0]["labels"]["severity"], "critical");
        assert_eq!(alerts[0]["startsAt"], "2026-11-20T10:00:00.000Z");
        assert_eq!(alerts[0]["endsAt"], "2026-11-21T10:10:00.000Z");
        assert_eq!(alerts[1]["endsAt"], "2026-11-20T10:10:00.000Z");
        let options = options(json!({"format": "alertmanager", "url": "http://127.0.0.1:9093/"}));
        let address = options.address().expect("it is valid");
        assert_eq!(address.expose(), "http://127.0.0.1:9093/api/v2/alerts");
    }

    #[test]
    fn addresses_that_hold_a_secret_are_refused_and_not_shown() {
        let check = |json: Value, key: &str| {
            let error = Webhook::new(&options(json)).err().expect("it is refused");
            assert_eq!(error.key, key);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("canary"), "{shown}");
        };
        check(json!({"url": "https://hooks.slack.com/services/T/B/canary"}), "url");
        check(json!({"url": "https://u:canary@a.example/"}), "url");
        check(json!({"url": "https://chat.example/canary", "format": "mattermost"}), "url");
        check(json!({"url": "ftp://canary"}), "url");
        check(json!({"secret_url": "canary"}), "secret_url");
        check(json!({"secret_url": "http://a.example/canary"}), "secret_url");
        check(
            json!({"url": "http://a.example", "secret_headers": {"authorization": "canary"}}),
            "secret_headers",
        );
        check(json!({"url": "https://a", "secret_url": "https://canary"}), "url");
        check(json!({"url": "https://a", "deadline": "2m"}), "deadline");
        let secret = options(json!({"secret_url": "https://hooks.slack.com/canary"}));
        assert!(!format!("{secret:?}").contains("canary"));
        Webhook::new(&secret).map(drop).expect("it is valid");
    }
}
