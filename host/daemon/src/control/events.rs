//! `/v1/events`: tail, lag, dead letters, replay and audit.

use std::{collections::HashMap, convert::Infallible, ops::Range, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Query, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use jiff::Timestamp;
use lodestar_api::{
    AuditRow, DeadLetter, DeadQuery, Envelope, Lag, NDJSON, Problem, ProblemCode, Replay, Replayed,
    TailItem, TailQuery,
};
use lodestar_bus::{Event, Extent, ReplayError, SubscribeError, Tail, Tailed};
use module_sdk::{
    Class, EventType as _,
    events::{LlmRequestContent, fits},
};
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    blocking,
    modules::{ndjson, unknown},
};
use crate::{
    module::State as ModuleState,
    refusal::Refusal,
    supervisor::{Daemon, counts, moment, status},
};

/// Time between two checks whether the client of a silent tail is still there.
const TAIL_TURN: Duration = Duration::from_millis(250);

/// Number of lines that may wait for a client before events are skipped.
const LINES_AHEAD: usize = 64;

pub(super) async fn tail(
    State(daemon): State<Arc<Daemon>>,
    Query(query): Query<TailQuery>,
) -> Result<Response, Refusal> {
    let filters: Vec<String> = query.filter.into_iter().collect();
    let tail = daemon.context.bus.tail(&filters);
    let tail = tail.map_err(|error| Refusal::invalid(error.to_string()))?;
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    let pump = std::thread::Builder::new().name("tail".to_owned());
    pump.spawn(move || forward(&tail, &sender, query.content))
        .map_err(|error| Refusal::failed(format!("cannot start a thread: {error}")))?;
    let lines = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<String>| {
        receiver.recv().await.map(|line| (Ok::<_, Infallible>(line), receiver))
    });
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}

fn forward(tail: &Tail, lines: &mpsc::Sender<String>, content: bool) {
    while !lines.is_closed() {
        let item = match tail.next(TAIL_TURN) {
            Tailed::Event(event) => TailItem::Event(Box::new(envelope(&event, content))),
            Tailed::Skipped(skipped) => TailItem::Skipped { skipped },
            Tailed::Nothing => continue,
            Tailed::Closed => return,
        };
        if lines.blocking_send(ndjson(&item)).is_err() {
            return;
        }
    }
}

/// Returns an event in the form of CloudEvents; with the text of requests only if `content` is set.
fn envelope(event: &Event, content: bool) -> Envelope {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let time = Timestamp::from_nanosecond(i128::from(event.time_ns)).unwrap_or_default();
    Envelope {
        specversion: "1.0".to_owned(),
        id: event.id.to_string(),
        source: event.source.to_string(),
        topic: event.topic.to_string(),
        time: format!("{time:.3}"),
        subject: text(&event.subject),
        traceparent: text(&event.traceparent),
        data: if content || !fits(LlmRequestContent::TOPIC, &event.topic) {
            serde_json::from_slice(&event.data).unwrap_or_default()
        } else {
            json!({"bytes": event.data.len()})
        },
        sequence: event.sequence,
        class: match event.class {
            Class::Ledger => "ledger".to_owned(),
            Class::Live => "live".to_owned(),
        },
    }
}

pub(super) async fn lag(State(daemon): State<Arc<Daemon>>) -> Result<Json<Vec<Lag>>, Refusal> {
    blocking(&daemon, lag_of).await.map(Json)
}

fn lag_of(daemon: &Daemon) -> Vec<Lag> {
    // In the words of `status`, which knows modules without a section too.
    let modules = status(daemon).modules.into_iter();
    let states: HashMap<String, String> = modules.map(|it| (it.name, it.state)).collect();
    let rows = daemon.context.bus.counters().into_iter().map(|counters| {
        let counts = counters.total();
        let dropped =
            counts.dropped.iter().map(|(reason, count)| (reason.name().to_owned(), count));
        Lag {
            state: states
                .get(&*counters.module)
                .cloned()
                .unwrap_or_else(|| ModuleState::Absent.to_string()),
            module: counters.module,
            accepted: counts.accepted,
            handled: counts.handled,
            dead: counts.dead,
            dropped: dropped.collect(),
            pending: counts.pending,
            oldest_pending_ms: counters.oldest_pending_ms,
        }
    });
    rows.collect()
}

pub(super) async fn dead(
    State(daemon): State<Arc<Daemon>>,
    Query(query): Query<DeadQuery>,
) -> Result<Json<Vec<DeadLetter>>, Refusal> {
    let read = move |daemon: &Daemon| daemon.context.bus.dead(query.module.as_deref());
    let letters = blocking(&daemon, read).await?;
    let letters = letters.map_err(|error| not_done(&error))?;
    let rows = letters.into_iter().map(|letter| DeadLetter {
        module: letter.module.to_string(),
        event: envelope(&letter.event, false),
        reason: letter.reason,
        attempts: letter.attempts,
        failed_at: format!("{:.3}", moment(letter.failed_at_ms)),
    });
    Ok(Json(rows.collect()))
}

pub(super) async fn replay(
    State(daemon): State<Arc<Daemon>>,
    Json(replay): Json<Replay>,
) -> Result<Json<Replayed>, Refusal> {
    if daemon.modules.entry(&replay.module).is_none() {
        return Err(unknown(&daemon, &replay.module));
    }
    if replay.since.is_some() || replay.until.is_some() {
        let accepted_ms = range(&replay)?;
        let again = move |daemon: &Daemon| daemon.context.bus.replay(&replay.module, accepted_ms);
        let replayed = blocking(&daemon, again).await?.map_err(|error| not_replayed(&error))?;
        let kept_since = replayed.kept_since_ms.map(|ms| format!("{:.3}", moment(ms)));
        return Ok(Json(Replayed { replayed: replayed.events, kept_since }));
    }
    let parse = |id: &String| {
        Uuid::parse_str(id).map_err(|_| Refusal::invalid(format!("{id:?} is no id of an event")))
    };
    let ids = replay.ids.map(|ids| ids.iter().map(parse).collect::<Result<Vec<_>, _>>());
    let ids = ids.transpose()?;
    let again =
        move |daemon: &Daemon| daemon.context.bus.replay_dead(&replay.module, ids.as_deref());
    let replayed = blocking(&daemon, again).await?.map_err(|error| not_done(&error))?;
    Ok(Json(Replayed { replayed, kept_since: None }))
}

/// Parses the time of a replay, in milliseconds since the Unix epoch.
fn range(replay: &Replay) -> Result<Range<u64>, Refusal> {
    let read = |name: &str, text: &Option<String>| {
        let time = text.as_ref().map(|text| {
            let time = text.parse::<Timestamp>();
            time.map_err(|_| Refusal::invalid(format!("`{name}` is {text:?} and no RFC 3339 time")))
        });
        time.transpose()
    };
    if replay.ids.is_some() {
        return Err(Refusal::invalid("`ids` names dead letters: leave out `since` and `until`"));
    }
    let since = read("since", &replay.since)?;
    let since = since.ok_or_else(|| Refusal::invalid("`until` needs a `since`"))?;
    let until = read("until", &replay.until)?.unwrap_or(Timestamp::MAX);
    if until <= since {
        return Err(Refusal::invalid("`until` is not after `since`"));
    }
    let ms = |time: Timestamp| u64::try_from(time.as_millisecond()).unwrap_or(0);
    Ok(ms(since)..ms(until))
}

fn not_replayed(error: &ReplayError) -> Refusal {
    match error {
        ReplayError::Subscribe(error) => not_done(error),
        ReplayError::NoRoom { .. } => {
            Refusal(Problem::new(ProblemCode::Refused, error.to_string()))
        }
        _ => Refusal::failed(error.to_string()),
    }
}

fn not_done(error: &SubscribeError) -> Refusal {
    match error {
        SubscribeError::Unknown(_) => Refusal::not_found(error.to_string()),
        _ => Refusal::failed(error.to_string()),
    }
}

pub(super) async fn audit(
    State(daemon): State<Arc<Daemon>>,
) -> Result<Json<Vec<AuditRow>>, Refusal> {
    let rows = blocking(&daemon, |daemon| daemon.context.bus.audit()).await?;
    let rows = rows.map_err(|error| Refusal::failed(error.to_string()))?;
    let losses = daemon.context.bus.health().losses;
    let at_least = losses.iter().any(|loss| loss.extent == Extent::AtLeast);
    let rows = rows.into_iter().map(|row| AuditRow {
        at_least,
        module: row.module,
        counters: counts(&row.counts),
        recounted_pending: row.recounted_pending,
        balanced: row.balanced,
    });
    Ok(Json(rows.collect()))
}
