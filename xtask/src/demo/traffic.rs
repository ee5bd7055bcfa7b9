//! Requests as Claude Code, Codex and a program with the Lynex SDK send them, with ids and times of
//! now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::protobuf;
use crate::http;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

/// Requests that were sent and accepted.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) requests: u64,
    last: Option<(&'static str, &'static str, Vec<u8>)>,
}

/// Sender of requests to one daemon. Ids differ from run to run, as those of real tools do.
pub(super) struct Sender {
    address: String,
    run: u128,
    begin: SystemTime,
}

impl Sender {
    pub(super) fn new(address: String) -> Self {
        let now = SystemTime::now();
        let run = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self { address, run, begin: now }
    }

    pub(super) fn claude_code_json(&self, number: u64, sent: &mut Sent) -> Result<()> {
        let body = self.claude_code(number, "json").to_string().into_bytes();
        self.send("/v1/logs", JSON, body, sent)
    }

    pub(super) fn claude_code_protobuf(&self, number: u64, sent: &mut Sent) -> Result<()> {
        let body = protobuf::logs(&self.claude_code(number, "protobuf"));
        self.send("/v1/logs", PROTOBUF, body, sent)
    }

    pub(super) fn codex_json(&self, number: u64, sent: &mut Sent) -> Result<()> {
        let body = self.codex(number).to_string().into_bytes();
        self.send("/v1/logs", JSON, body, sent)
    }

    pub(super) fn lynex(&self, number: u64, sent: &mut Sent) -> Result<()> {
        let body = self.lynex_event(number).to_string().into_bytes();
        self.send("/api/v1/events", JSON, body, sent)
    }

    /// Sends the last body once more; it must not count again.
    pub(super) fn again(&self, sent: &mut Sent) -> Result<()> {
        if let Some((path, content_type, body)) = sent.last.take() {
            self.post(path, content_type, &body)?;
        }
        Ok(())
    }

    pub(super) fn described(&self, sent: &Sent) -> String {
        format!(
            "{} requests to http://{}: /v1/logs in JSON and protobuf, /api/v1/events",
            sent.requests, self.address
        )
    }

    fn send(
        &self,
        path: &'static str,
        content_type: &'static str,
        body: Vec<u8>,
        sent: &mut Sent,
    ) -> Result<()> {
        self.post(path, content_type, &body)?;
        sent.requests += 1;
        sent.last = Some((path, content_type, body));
        Ok(())
    }

    fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<()> {
        let answer = http::post(&self.address, path, content_type, body)?;
        let accepted = matches!(answer.status, 200 | 202);
        ensure!(accepted, "{path} answered {}: {}", answer.status, answer.body);
        Ok(())
    }

    /// Returns a time in the last half hour: the later the number, the later the time.
    fn time(&self, number: u64, client: u64) -> Duration {
        let back = Duration::from_secs(1_800).saturating_sub(Duration::from_secs(40 * number));
        let ahead = Duration::from_millis(client * 1_000 + number % 997);
        (self.begin - back + ahead).duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn session(&self, client: &str, number: u64) -> String {
        format!("{:032x}-{client}-{}", self.run, number / 6)
    }

    fn claude_code(&self, number: u64, form: &str) -> Value {
        let time = self.time(number, if form == "json" { 0 } else { 7 }).as_nanos().to_string();
        let model = if number % 5 == 4 { "claude-haiku-4-5" } else { "claude-sonnet-4-5" };
        let mut attributes = attributes(&[
            ("session.id", &self.session(form, number)),
            ("user.id", "demo"),
            ("event.name", "api_request"),
            ("model", model),
            ("request_id", &format!("req_{:x}_{form}_{number}", self.run)),
        ]);
        attributes.extend(counts(&[
            ("input_tokens", 400 + 37 * (number % 9)),
            ("output_tokens", 34 + 11 * (number % 13)),
            ("cache_read_tokens", 500 + 1_000 * (number % 7)),
            ("cache_creation_tokens", 300),
            ("cache_creation_5m_tokens", 100),
            ("cache_creation_1h_tokens", 200),
            ("duration_ms", 900 + 173 * (number % 11)),
            ("ttft_ms", 210 + 29 * (number % 11)),
        ]));
        let record = json!({
            "timeUnixNano": time, "observedTimeUnixNano": time,
            "body": {"stringValue": "claude_code.api_request"}, "attributes": attributes,
        });
        request("claude-code", "2.1.329", "com.anthropic.claude_code.events", &record)
    }

    fn codex(&self, number: u64) -> Value {
        let time = self.time(number, 13).as_nanos().to_string();
        let mut attributes = attributes(&[
            ("event.name", "codex.sse_event"),
            ("event.kind", "response.completed"),
            ("conversation.id", &self.session("codex", number)),
            ("model", "gpt-5.1-codex"),
            // Codex writes some counts as text.
            ("input_token_count", &(1_200 + number).to_string()),
            ("output_token_count", &(34 + number).to_string()),
        ]);
        attributes.extend(counts(&[
            ("cached_token_count", 800),
            ("reasoning_token_count", 10),
            ("ttft_ms", 340 + number),
        ]));
        let record = json!({
            "timeUnixNano": "0", "observedTimeUnixNano": time,
            "body": null, "attributes": attributes,
        });
        request("codex_exec", "0.169.0", "codex_otel.log_only", &record)
    }

    fn lynex_event(&self, number: u64) -> Value {
        let input = 900 + 3 * number;
        json!({
            "eventId": format!("demo-{:x}-{number}", self.run),
            "projectId": "shop-assistant",
            "type": "token_usage",
            "timestamp": rfc3339(self.time(number, 23)),
            "sdk": {"name": "lynex-python", "version": "1.0.0"},
            "context": {"sessionId": self.session("lynex", number)},
            "body": {
                "model": "gpt-4o-mini",
                "inputTokens": input,
                "outputTokens": 120,
                "totalTokens": input + 120,
            },
        })
    }
}

fn request(service: &str, version: &str, scope: &str, record: &Value) -> Value {
    let resource = attributes(&[("service.name", service), ("service.version", version)]);
    json!({"resourceLogs": [{
        "resource": {"attributes": resource},
        "scopeLogs": [{"scope": {"name": scope, "version": version}, "logRecords": [record]}],
    }]})
}

fn attributes(pairs: &[(&str, &str)]) -> Vec<Value> {
    let pair = |(key, text): &(&str, &str)| json!({"key": key, "value": {"stringValue": text}});
    pairs.iter().map(pair).collect()
}

fn counts(pairs: &[(&str, u64)]) -> Vec<Value> {
    let pair = |(key, count): &(&str, u64)| json!({"key": key, "value": {"intValue": count}});
    pairs.iter().map(pair).collect()
}

/// Formats a time as RFC 3339 in UTC, to the millisecond (H. Hinnant, `civil_from_days`).
pub(super) fn rfc3339(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let of_era_year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + of_era_year + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        let check = |millis, expected| assert_eq!(rfc3339(Duration::from_millis(millis)), expected);
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_826_154_321, "2000-02-29T12:09:14.321Z");
        check(1_795_218_501_711, "2026-11-20T23:48:21.711Z");
    }

    #[test]
    fn no_two_requests_have_the_same_id() {
        let sender = Sender::new("127.0.0.1:1".into());
        let id = |body: &Value| {
            let record = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
            let found = record["attributes"].as_array().and_then(|attributes| {
                attributes.iter().find(|attribute| attribute["key"] == "request_id").cloned()
            });
            found.expect("it has an id")["value"]["stringValue"].to_string()
        };
        let mut ids = Vec::new();
        for number in 0..100 {
            ids.push(id(&sender.claude_code(number, "json")));
            ids.push(id(&sender.claude_code(number, "protobuf")));
            ids.push(sender.lynex_event(number)["eventId"].to_string());
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 300);
    }
}
