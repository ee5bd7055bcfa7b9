//! One request and its response.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Error,
    body::{Body, HttpBody},
    http::{HeaderMap, HeaderValue, Request, Response, Version, header},
};
use bytes::Bytes;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    service::Service as _,
};
use hyper_util::service::TowerToHyperService;

use crate::{
    Answers,
    activity::{Activity, Order},
    shared::Shared,
};

/// Service for the requests on one connection.
#[derive(Debug, Clone)]
pub(crate) struct Exchanges<S, E> {
    pub(crate) answers: TowerToHyperService<S>,
    pub(crate) ends: E,
    pub(crate) shared: Arc<Shared>,
    pub(crate) activity: Arc<Activity>,
    /// Value of the `Keep-Alive` header of responses.
    pub(crate) keep_alive: HeaderValue,
}

impl<S: Answers, E: Clone + Send + Sync + 'static> Exchanges<S, E> {
    pub(crate) fn call(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + Send + use<S, E> {
        let is_http2 = request.version() == Version::HTTP_2;
        let answering = Answering::new(self.activity.clone(), is_http2);
        let may_stay = is_kept(request.version(), request.headers());
        let mut request = request.map(|body| {
            let activity = self.activity.clone();
            Body::new(RequestBody { body, activity, is_unsent: false })
        });
        request.extensions_mut().insert(self.ends.clone());
        let answer = self.answers.call(request);
        let (shared, keep_alive) = (self.shared.clone(), self.keep_alive.clone());
        let activity = self.activity.clone();
        async move {
            let mut response = answer.await?;
            let headers = response.headers_mut();
            if !shared.keeps_alive() {
                activity.note_last_answer();
                if is_http2 {
                    // What is under way on the connection is still answered.
                    activity.give(Order::Close);
                } else {
                    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
            } else if may_stay && !headers.contains_key(header::CONNECTION) {
                headers.insert("keep-alive", keep_alive);
            }
            answering.note_handed(true);
            Ok(response.map(|body| AnswerBody { body, answering }))
        }
    }
}

/// Returns whether the connection of a request stays open by default.
fn is_kept(version: Version, headers: &HeaderMap) -> bool {
    let closes = |value: &HeaderValue| {
        let options = value.to_str().unwrap_or("close").split(',');
        options.map(str::trim).any(|option| option.eq_ignore_ascii_case("close"))
    };
    version == Version::HTTP_11 && !headers.get_all(header::CONNECTION).iter().any(closes)
}

/// Guard that lives until a response is written or abandoned.
#[derive(Debug)]
struct Answering {
    activity: Arc<Activity>,
    /// Number of the exchange on its connection.
    number: u64,
    is_http2: bool,
}

impl Answering {
    fn new(activity: Arc<Activity>, is_http2: bool) -> Self {
        Self { number: activity.begin_exchange(), activity, is_http2 }
    }

    /// Notes whether a part of the response waits for the client. Over HTTP/1.1 the stream shows
    /// that; over HTTP/2 each request has a window of its own, which the client may keep closed.
    fn note_handed(&self, is_handed: bool) {
        if self.is_http2 {
            self.activity.note_handed(self.number, is_handed);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.activity.end_exchange(self.number);
    }
}

/// A body that is being received.
struct RequestBody {
    body: Incoming,
    activity: Arc<Activity>,
    is_unsent: bool,
}

impl RequestBody {
    fn note(&mut self, is_unsent: bool) {
        if self.is_unsent != is_unsent {
            self.is_unsent = is_unsent;
            self.activity.set_unsent(is_unsent);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.note(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.note(false);
    }
}

/// A body that is being written.
pub(crate) struct AnswerBody {
    body: Body,
    answering: Answering,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.answering.note_handed(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_whether_they_keep_a_connection() {
        let check = |version, connection: Option<&str>, expected| {
            let mut headers = HeaderMap::new();
            if let Some(value) = connection {
                headers.insert(header::CONNECTION, value.parse().expect("a header"));
            }
            assert_eq!(is_kept(version, &headers), expected, "{version:?} {connection:?}");
        };
        check(Version::HTTP_11, None, true);
        check(Version::HTTP_11, Some("keep-alive"), true);
        check(Version::HTTP_11, Some("TE, Close"), false);
        check(Version::HTTP_10, None, false);
        check(Version::HTTP_10, Some("keep-alive"), false);
    }
}
