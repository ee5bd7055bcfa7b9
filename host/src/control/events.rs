//! `/v1/events`: what travels, what waits, what died.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Query, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use jiff::Timestamp;
use module_sdk::Class;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    api::{
        AuditRow, DeadLetter, DeadQuery, Envelope, Lag, NDJSON, Replay, Replayed, TailItem,
        TailQuery,
    },
    modules::{ndjson, unknown},
    problem::Refusal,
};
use crate::{
    bus::{Event, Tail, Tailed},
    supervisor::{Daemon, counts},
};

/// How often a tail that nothing comes through looks whether its client is still there.
const TAIL_TURN: Duration = Duration::from_millis(250);

/// How many lines may wait for a client before events are skipped.
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
    pump.spawn(move || forward(&tail, &sender))
        .map_err(|error| Refusal::failed(format!("cannot start a thread: {error}")))?;
    let lines = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<String>| {
        receiver.recv().await.map(|line| (Ok::<_, Infallible>(line), receiver))
    });
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}

fn forward(tail: &Tail, lines: &mpsc::Sender<String>) {
    while !lines.is_closed() {
        let item = match tail.next(TAIL_TURN) {
            Tailed::Event(event) => TailItem::Event(Box::new(envelope(&event))),
            Tailed::Skipped(skipped) => TailItem::Skipped { skipped },
            Tailed::Nothing => continue,
            Tailed::Closed => return,
        };
        if lines.blocking_send(ndjson(&item)).is_err() {
            return;
        }
    }
}

/// An event in the form of CloudEvents.
fn envelope(event: &Event) -> Envelope {
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
        data: serde_json::from_slice(&event.data).unwrap_or_default(),
        sequence: event.sequence,
        class: match event.class {
            Class::Ledger => "ledger".to_owned(),
            Class::Live => "live".to_owned(),
        },
    }
}

pub(super) async fn lag(State(daemon): State<Arc<Daemon>>) -> Json<Vec<Lag>> {
    let rows = daemon.context.bus.books().into_iter().map(|books| {
        let counts = books.total();
        let dropped =
            counts.dropped.iter().map(|(reason, count)| (reason.name().to_owned(), count));
        Lag {
            state: daemon
                .entry(&books.module)
                .map_or_else(|| "absent".to_owned(), |entry| entry.state().to_string()),
            module: books.module,
            accepted: counts.accepted,
            handled: counts.handled,
            dead: counts.dead,
            dropped: dropped.collect(),
            pending: counts.pending,
            oldest_pending_ms: books.oldest_pending_ms,
        }
    });
    Json(rows.collect())
}

pub(super) async fn dead(
    State(daemon): State<Arc<Daemon>>,
    Query(query): Query<DeadQuery>,
) -> Result<Json<Vec<DeadLetter>>, Refusal> {
    let bus = daemon.context.bus.clone();
    let letters = tokio::task::spawn_blocking(move || bus.dead(query.module.as_deref()))
        .await
        .map_err(|error| Refusal::failed(error.to_string()))?
        .map_err(|error| Refusal::failed(error.to_string()))?;
    let rows = letters.into_iter().map(|letter| DeadLetter {
        module: letter.module.to_string(),
        event: envelope(&letter.event),
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
    if daemon.entry(&replay.module).is_none() {
        return Err(unknown(&daemon, &replay.module));
    }
    let ids = replay
        .ids
        .map(|ids| {
            let parse = |id: &String| {
                Uuid::parse_str(id)
                    .map_err(|_| Refusal::invalid(format!("{id:?} is no id of an event")))
            };
            ids.iter().map(parse).collect::<Result<Vec<_>, _>>()
        })
        .transpose()?;
    let bus = daemon.context.bus.clone();
    let replayed =
        tokio::task::spawn_blocking(move || bus.replay_dead(&replay.module, ids.as_deref()))
            .await
            .map_err(|error| Refusal::failed(error.to_string()))?
            .map_err(|error| Refusal::failed(error.to_string()))?;
    Ok(Json(Replayed { replayed }))
}

pub(super) async fn audit(
    State(daemon): State<Arc<Daemon>>,
) -> Result<Json<Vec<AuditRow>>, Refusal> {
    let bus = daemon.context.bus.clone();
    let rows = tokio::task::spawn_blocking(move || bus.audit())
        .await
        .map_err(|error| Refusal::failed(error.to_string()))?
        .map_err(|error| Refusal::failed(error.to_string()))?;
    let rows = rows.into_iter().map(|row| AuditRow {
        module: row.module,
        books: counts(&row.counts),
        recounted_pending: row.recounted_pending,
        balanced: row.balanced,
    });
    Ok(Json(rows.collect()))
}

fn moment(milliseconds: u64) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(milliseconds).unwrap_or(i64::MAX)).unwrap_or_default()
}
