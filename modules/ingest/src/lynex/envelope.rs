//! The envelope of a Lynex event, and the events that it becomes on the bus.

use std::cell::RefCell;

use module_sdk::{
    Host,
    events::{
        CostSource, LlmRequestCompleted, LynexEvent, LynexType, RequestSource, RequestStatus,
        UsageSource,
    },
};
use serde_json::{Map, Value};

use super::{
    bodies::{self, Usage},
    error::Problem,
    fields::Fields,
};
use crate::{
    report::Report,
    sources::{Clock, name, provider_of_model},
};

/// A valid event, without any text of its body.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) project: String,
    pub(super) kind: LynexType,
    at_ms: i64,
    stated_ns: u64,
    clock_corrected: bool,
    sdk: Option<(String, String)>,
    trace: Option<String>,
    session: Option<String>,
    user: Option<String>,
    body: Body,
}

/// The part of the body that is kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Usage(Box<Usage>),
    Fields(Map<String, Value>),
}

/// The event that a Lynex event becomes on the bus.
pub(super) enum Meaning {
    Request(Box<Report>),
    Other(Box<LynexEvent>),
}

/// Reads an event at a place of the request's body.
pub(super) fn read(value: &Value, path: &str, clock: Clock) -> Result<Event, Vec<Problem>> {
    let problems = RefCell::new(Vec::new());
    let event = envelope(value, path, clock, &problems);
    let problems = problems.into_inner();
    match event {
        Some(event) if problems.is_empty() => Ok(event),
        _ => Err(problems),
    }
}

fn envelope(
    value: &Value,
    path: &str,
    clock: Clock,
    problems: &RefCell<Vec<Problem>>,
) -> Option<Event> {
    let fields = Fields::of(value, path, problems)?;
    let id = fields.name("eventId");
    let project = fields.name("projectId");
    let stated = fields.time("timestamp");
    let sdk = fields.optional_object("sdk").map(|sdk| {
        let named = (sdk.optional_title("name"), sdk.optional_title("version"));
        (named.0.unwrap_or_default(), named.1.unwrap_or_default())
    });
    let context = fields.optional_object("context");
    let id_of = |field: &str| context.as_ref()?.optional_text(field).map(str::to_owned);
    let (trace, session, user) = (id_of("traceId"), id_of("sessionId"), id_of("userId"));
    let names: Vec<&'static str> = LynexType::ALL.iter().map(|kind| kind.as_str()).collect();
    let kind = fields.word("type", &names).and_then(|word| word.parse::<LynexType>().ok());
    let inner = fields.object("body");
    let body = kind.zip(inner).and_then(|(kind, inner)| bodies::read(kind, &inner));
    let stated_ns = stated.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    // 0 would mean that no time is stated.
    let stated_ns = stated_ns.unwrap_or(1).max(1);
    let (at_ms, clock_corrected) = clock.pick(&[stated_ns]);
    Some(Event {
        id: id?,
        project: project?,
        kind: kind?,
        at_ms,
        stated_ns,
        clock_corrected,
        sdk,
        trace: trace.filter(|trace| !trace.is_empty()),
        session: session.filter(|session| !session.is_empty()),
        user: user.filter(|user| !user.is_empty()),
        body: body?,
    })
}

impl Event {
    pub(super) const fn is_request(&self) -> bool {
        matches!(self.body, Body::Usage(_))
    }

    pub(super) fn meaning(&self, host: &Host) -> Meaning {
        match &self.body {
            Body::Usage(usage) => Meaning::Request(Box::new(self.request(usage, host))),
            Body::Fields(fields) => Meaning::Other(Box::new(LynexEvent {
                kind: self.kind,
                event_id: self.id.clone(),
                project: self.project.clone(),
                at: self.at_ms,
                sdk: self.sdk(),
                trace_id: self.trace_id(host),
                fields: fields.clone(),
            })),
        }
    }

    fn request(&self, usage: &Usage, host: &Host) -> Report {
        let pseudonym = |kind: &str, id: &String| host.pseudonym(kind, id);
        let counted = usage.input.is_some() || usage.output.is_some();
        let (client, client_version) = self.sdk.clone().unwrap_or_default();
        let known = |text: String| (!text.is_empty()).then_some(text);
        let event = LlmRequestCompleted {
            schema: 1,
            source: Some(RequestSource::HttpEvent),
            source_ref: Some(format!("lynex.{}", self.kind)),
            started_at: self.at_ms - usage.duration_ms.map_or(0, i64::from),
            ended_at: self.at_ms,
            client: known(client),
            client_version: known(client_version),
            session_id: self.session.as_ref().map(|id| pseudonym("session", id)),
            user: self.user.as_ref().map(|id| pseudonym("user", id)),
            trace_id: self.trace_id(host).filter(|trace| is_w3c(trace)),
            project: Some(self.project.clone()),
            provider: provider_of_model(&usage.model).map(str::to_owned),
            operation: Some("chat".to_owned()),
            request_model: Some(usage.model.clone()),
            response_model: Some(usage.model.clone()),
            status: Some(RequestStatus::Ok),
            finish_reason: usage.finish_reason.clone(),
            input_tokens: usage.input,
            output_tokens: usage.output,
            usage_source: Some(if counted { UsageSource::Provider } else { UsageSource::None }),
            cost_nano_usd: usage.cost_nano_usd,
            cost_source: usage.cost_nano_usd.map(|_| CostSource::Client),
            duration_ms: usage.duration_ms,
            ..LlmRequestCompleted::default()
        };
        Report {
            event,
            reporter: format!("http_event lynex.{}", self.kind),
            stated_time_ns: self.stated_ns,
            clock_corrected: self.clock_corrected,
            pair: self.trace.as_ref().map(|trace| format!("{}:{trace}", self.project)),
            record_id: Some(format!("{}:{}", self.project, self.id)),
            ..Report::default()
        }
    }

    fn sdk(&self) -> Option<String> {
        let (name, version) = self.sdk.as_ref().filter(|(name, _)| !name.is_empty())?;
        Some(if version.is_empty() { name.clone() } else { format!("{name}/{version}") })
    }

    /// Returns a W3C trace id or a UUID as it is; any other text may be anything, so its pseudonym
    /// is returned.
    fn trace_id(&self, host: &Host) -> Option<String> {
        let trace = self.trace.as_ref()?;
        let plain = name(trace).filter(|trace| is_w3c(trace) || is_uuid(trace));
        Some(plain.unwrap_or_else(|| host.pseudonym("trace", trace)))
    }
}

fn is_w3c(trace: &str) -> bool {
    trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_uuid(trace: &str) -> bool {
    uuid::Uuid::try_parse(trace).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sources::build::{NOW_NS, host};

    const CLOCK: Clock = Clock { now_ns: NOW_NS };

    fn event(kind: &str, body: Value) -> Value {
        json!({
            "eventId": "e-1",
            "projectId": "shop",
            "type": kind,
            "timestamp": "2026-11-20T23:48:21.711",
            "sdk": {"name": "lynex-python", "version": "0.1.0"},
            "context": {"traceId": "t 1", "userId": "jane@example.org"},
            "body": body,
        })
    }

    #[test]
    fn usage_is_a_request() {
        let body = json!({"model": "gpt-5", "inputTokens": 12, "outputTokens": 3, "costUSD": 0.5});
        let event = read(&event("token_usage", body), "", CLOCK).expect("it is valid");
        let host = host();
        let Meaning::Request(report) = event.meaning(&host) else { panic!("no request") };
        assert_eq!(report.event.input_tokens, Some(12));
        assert_eq!(report.event.cost_nano_usd, Some(500_000_000));
        assert_eq!(report.event.ended_at, 1_795_218_501_711);
        assert_eq!(report.event.project.as_deref(), Some("shop"));
        assert_eq!(report.event.provider.as_deref(), Some("openai"));
        assert_eq!(report.event.user, Some(host.pseudonym("user", "jane@example.org")));
        assert_eq!(report.event.trace_id, None);
        assert_eq!(report.record_id.as_deref(), Some("shop:e-1"));
        assert_eq!(report.pair.as_deref(), Some("shop:t 1"));
    }

    #[test]
    fn the_others_are_events_of_their_own() {
        let body = json!({"level": "warn", "message": "secret words"});
        let event = read(&event("log", body), "", CLOCK).expect("it is valid");
        let host = host();
        let Meaning::Other(other) = event.meaning(&host) else { panic!("a request") };
        assert_eq!(other.kind, LynexType::Log);
        assert_eq!(other.sdk.as_deref(), Some("lynex-python/0.1.0"));
        assert_eq!(other.trace_id, Some(host.pseudonym("trace", "t 1")));
        let text = serde_json::to_string(&other).expect("it serialises");
        assert!(!text.contains("secret") && !text.contains("jane"), "{text}");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let value = json!({"eventId": 5, "type": "logs", "timestamp": "soon", "body": {}});
        let problems = read(&value, "/3", CLOCK).expect_err("it is wrong");
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["/3/eventId", "/3/projectId", "/3/timestamp", "/3/type"]);
        assert!(problems[3].message.contains("token_usage"), "{}", problems[3].message);
    }

    #[test]
    fn a_clock_of_1970_gives_way_to_the_time_of_receipt() {
        let mut value = event("log", json!({"level": "info", "message": "m"}));
        for stated in ["1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z"] {
            value["timestamp"] = json!(stated);
            let event = read(&value, "", CLOCK).expect("it is valid");
            assert_eq!((event.at_ms, event.clock_corrected), (1_795_218_560_000, true));
        }
    }
}
