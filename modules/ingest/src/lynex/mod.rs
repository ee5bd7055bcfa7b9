//! Lynex events: `POST /api/v1/event`, `/api/v1/events` and `/api/v1/events/batch`.

mod bodies;
mod envelope;
mod error;
mod fields;
mod keys;

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use module_sdk::events::{LynexEvent, LynexType};
use serde_json::{Value, json};

pub(crate) use error::Failure;
pub(crate) use keys::Keys;

use crate::{
    app::{App, Told},
    json_text,
    report::Report,
    server::{BodyError, Encoding, Ends, Share, read},
    sources::{Clock, name, unnamed},
    stats::Kind,
};
use envelope::{Event, Meaning};

/// The most events in one batch.
const MAX_BATCH: usize = 100;

/// Handles `POST /api/v1/event` and `/api/v1/events`: one event, or several as for
/// `/api/v1/events/batch`.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer_to(&app, ends.peer.ip(), &headers, body, true).await
}

/// Handles `POST /api/v1/events/batch`: `{"events": […]}` or a list.
pub(crate) async fn batch(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer_to(&app, ends.peer.ip(), &headers, body, false).await
}

async fn answer_to(
    app: &Arc<App>,
    peer: IpAddr,
    headers: &HeaderMap,
    body: Body,
    may_be_one: bool,
) -> Response {
    let mut glimpse = Glimpse::default();
    let received = receive(app, peer, headers, body, may_be_one, &mut glimpse).await;
    received.unwrap_or_else(|failure| {
        if let Some(reason) = failure.reason() {
            app.stats.records("lynex", glimpse.refused(reason), 1);
        }
        failure.into_response()
    })
}

/// The data seen of a body, for the statistics of what is refused.
#[derive(Debug, Default)]
struct Glimpse {
    project: Option<String>,
    /// The type of the event that is invalid.
    record: Option<String>,
}

impl Glimpse {
    /// Reads the project and type that an event states, as far as they can be shown.
    fn of(&mut self, event: &Value) {
        let said = |field: &str| event.get(field)?.as_str();
        self.project = self.project.take().or_else(|| name(said("projectId")?));
        // Anything but a type that is known may be somebody's text.
        self.record = said("type").filter(|it| it.parse::<LynexType>().is_ok()).map(str::to_owned);
    }

    fn refused(self, reason: String) -> Kind {
        Kind {
            source: self.project.unwrap_or_else(unnamed),
            signal: "lynex",
            record: self.record.unwrap_or_else(unnamed),
            outcome: "refused",
            reason,
        }
    }
}

async fn receive(
    app: &Arc<App>,
    peer: IpAddr,
    headers: &HeaderMap,
    body: Body,
    may_be_one: bool,
    glimpse: &mut Glimpse,
) -> Result<Response, Failure> {
    let admitted = app.keys.admit(headers, peer)?;
    glimpse.project = admitted.project.map(str::to_owned);
    if Encoding::of(headers) != Some(Encoding::Json) {
        return Err(Failure::unsupported_media_type());
    }
    let (bytes, mut share) = read(app, headers, body, measure()).await?;
    let text = json_text::readable(&bytes, &mut share)?;
    measure()(text.as_bytes(), &mut share)?;
    let text = json_text::without_halves(&text).map_or(text, Cow::Owned);
    let body: Value = serde_json::from_str(&text).map_err(|error| Failure::not_json(&error))?;
    let (list, one) = list(&body, may_be_one)?;
    let now = u64::try_from(app.host.now().as_nanosecond()).unwrap_or(0);
    let clock = Clock { now_ns: now };
    let events = read_all(&list, one, clock, glimpse)?;
    if let Some(project) = admitted.project {
        check_project(&events, one, project, glimpse)?;
    }
    publish(app, &events).await?;
    Ok(answer(&events, one))
}

/// Returns a probe that reserves as much memory as a body will need, as far as it has arrived.
fn measure() -> impl FnMut(&[u8], &mut Share) -> Result<(), BodyError> + Send + 'static {
    let (mut at, mut decoded_size) = (0, 0);
    move |bytes, share| {
        decoded_size += json_text::weight_of_values(bytes.get(at..).unwrap_or_default());
        at = bytes.len();
        share.grow_to(2 * at + decoded_size)
    }
}

/// Returns the events of a body, and whether the body is a single event and no list.
fn list(body: &Value, may_be_one: bool) -> Result<(Vec<&Value>, bool), Failure> {
    let list = match body {
        Value::Array(list) => list,
        Value::Object(fields) => match fields.get("events") {
            Some(Value::Array(list)) => list,
            Some(_) => return Err(Failure::invalid("/events", "must be a list of events")),
            None if may_be_one => return Ok((vec![body], true)),
            None => {
                return Err(Failure::invalid("/events", "is missing; it is the list of events"));
            }
        },
        _ => {
            return Err(Failure::invalid("", "must be an event, a list, or {\"events\": [...]}"));
        }
    };
    if list.is_empty() {
        return Err(Failure::invalid("/events", "holds no event"));
    }
    if list.len() > MAX_BATCH {
        let message = format!("holds {} events; send at most {MAX_BATCH} at once", list.len());
        return Err(Failure::invalid("/events", message));
    }
    Ok((list.iter().collect(), false))
}

/// Reads all events, or fails as a whole.
fn read_all(
    list: &[&Value],
    one: bool,
    clock: Clock,
    glimpse: &mut Glimpse,
) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::with_capacity(list.len());
    let mut problems = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = if one { String::new() } else { format!("/{index}") };
        match envelope::read(value, &path, clock) {
            Ok(event) => events.push(event),
            Err(found) => {
                if problems.is_empty() {
                    glimpse.of(value);
                }
                problems.extend(found);
            }
        }
    }
    if problems.is_empty() { Ok(events) } else { Err(Failure::problems(problems)) }
}

fn check_project(
    events: &[Event],
    one: bool,
    project: &str,
    glimpse: &mut Glimpse,
) -> Result<(), Failure> {
    let Some(index) = events.iter().position(|event| event.project != project) else {
        return Ok(());
    };
    glimpse.record = Some(events[index].kind.to_string());
    let at = if one { String::new() } else { format!("/{index}") };
    Err(Failure::wrong_project(&format!("{at}/projectId")))
}

async fn publish(app: &Arc<App>, events: &[Event]) -> Result<(), Failure> {
    let mut reports: Vec<Report> = Vec::new();
    let mut others: Vec<LynexEvent> = Vec::new();
    for event in events {
        match event.meaning(&app.host) {
            Meaning::Request(report) => reports.push(*report),
            Meaning::Other(other) => others.push(*other),
        }
    }
    let told = Told { reports, lynex: others, ..Told::default() };
    app.publish(told).await.map_err(|_| Failure::unavailable())?;
    for event in events {
        let kind = Kind {
            source: event.project.clone(),
            signal: "lynex",
            record: event.kind.to_string(),
            outcome: if event.is_request() { "request" } else { "event" },
            reason: String::new(),
        };
        app.stats.records("lynex", kind, 1);
    }
    Ok(())
}

fn answer(events: &[Event], one: bool) -> Response {
    let body = match events {
        [event] if one => json!({
            "status": "queued",
            "eventId": event.id,
            "message": "Event received successfully",
        }),
        _ => json!({
            "status": "queued",
            "count": events.len(),
            "event_ids": events.iter().map(|event| &event.id).collect::<Vec<_>>(),
            "message": format!("{} events received successfully", events.len()),
        }),
    };
    (StatusCode::ACCEPTED, Json(body)).into_response()
}
