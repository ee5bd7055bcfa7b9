//! One connection from its first byte to its end.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    task::Poll,
};

use axum::http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::time::{Instant, sleep};

use crate::{
    Answers, End, Listener,
    activity::Order,
    exchange::Exchanges,
    protocol::{Conversation as _, Protocol},
    shared::Enrolled,
    stream::Watched,
};

/// Serves a connection until it ends, and returns the reason for its end.
pub(crate) async fn serve<L: Listener, S: Answers>(
    stream: L::Stream,
    ends: L::Ends,
    answers: S,
    protocol: &impl Protocol,
    enrolled: &Enrolled,
) -> End {
    let (shared, activity) = (&enrolled.shared, &enrolled.activity);
    let limits = &shared.limits;
    let keep_alive = format!("timeout={}", limits.idle_timeout.as_secs());
    let exchanges = Exchanges {
        answers: TowerToHyperService::new(answers),
        ends,
        shared: shared.clone(),
        activity: activity.clone(),
        keep_alive: HeaderValue::try_from(keep_alive).expect("letters and digits"),
    };
    let service = service_fn(move |request| exchanges.call(request));
    let stream = TokioIo::new(Watched::new(stream, activity.clone()));
    let mut connection = pin!(protocol.converse(stream, service));
    let mut timer = pin!(sleep(limits.header_timeout));
    let mut closing = None;
    poll_fn(|context| {
        loop {
            // What has come is looked at before any deadline: a request that meets it counts.
            if let Poll::Ready(ended) = connection.as_mut().poll_end(context) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return Poll::Ready(closing.unwrap_or(End::Done));
            }
            match activity.order(context.waker()) {
                Some(Order::Drop) => return Poll::Ready(End::Displaced),
                Some(Order::Close) if closing.is_none() => {
                    let end = if shared.is_draining() { End::Done } else { End::Displaced };
                    closing = Some(end);
                    connection.as_mut().finish();
                    continue;
                }
                _ => {}
            }
            let Some((deadline, end)) = activity.deadline(limits) else { return Poll::Pending };
            if deadline <= Instant::now() {
                if end == End::Idle && closing.is_none() {
                    closing = Some(end);
                    connection.as_mut().finish();
                    continue;
                }
                return Poll::Ready(closing.unwrap_or(end));
            }
            // Mostly a deadline moves on before it is reached: then the timer stays as it is.
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}
