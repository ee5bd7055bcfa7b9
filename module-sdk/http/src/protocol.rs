//! The versions of HTTP that a listener speaks.

use std::{
    convert::Infallible,
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Request, Response};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    server::conn::http1,
    service::Service,
};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};

use crate::exchange::AnswerBody;

/// Maximum size of the headers of a request over HTTP/2, in bytes.
const HEADERS: u32 = 16 * 1024;

/// Data that a client may send before a handler has read it, in bytes: of one request, and of all
/// on its connection. As much is kept in memory for each connection at most.
const WINDOWS: (u32, u32) = (128 * 1024, 256 * 1024);

/// Data of one answer that waits to be sent, in bytes.
const UNSENT: usize = 64 * 1024;

/// Requests that a client may reset before they were looked at, and those that it may make the
/// server reset; with more it is a flood, and the connection ends (CVE-2023-44487).
const RESETS: (usize, usize) = (20, 128);

/// Time between two looks whether the client is still there, and for it to say so.
const ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

type Ended = Result<(), Box<dyn Error + Send + Sync>>;

/// Service for the requests on one connection.
pub(crate) trait Requests:
    Service<
        Request<Incoming>,
        Response = Response<AnswerBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + 'static
{
}

impl<S> Requests for S where
    S: Service<
            Request<Incoming>,
            Response = Response<AnswerBody>,
            Error = Infallible,
            Future: Send + 'static,
        > + Send
        + 'static
{
}

/// The versions of HTTP that a listener speaks.
pub(crate) trait Protocol: Clone + Send + Sync + 'static {
    /// Begins to serve a connection.
    fn converse<I, S>(&self, stream: I, requests: S) -> impl Conversation + Send
    where
        I: Read + Write + Unpin + Send + 'static,
        S: Requests;
}

/// A connection that is served.
pub(crate) trait Conversation {
    /// Serves the connection, until it ends.
    fn poll_end(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended>;

    /// Takes no further request, and ends once those that were taken are answered.
    fn finish(self: Pin<&mut Self>);
}

/// HTTP/1.1 alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Http1;

impl Protocol for Http1 {
    fn converse<I, S>(&self, stream: I, requests: S) -> impl Conversation + Send
    where
        I: Read + Write + Unpin + Send + 'static,
        S: Requests,
    {
        http1::Builder::new().serve_connection(stream, requests)
    }
}

impl<I, S> Conversation for http1::Connection<I, S>
where
    I: Read + Write + Unpin + Send + 'static,
    S: Requests,
{
    fn poll_end(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        self.poll(context).map_err(Into::into)
    }

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// HTTP/2, for clients that begin with it, and HTTP/1.1 for others.
#[derive(Debug, Clone)]
pub(crate) struct Http1And2(auto::Builder<TokioExecutor>);

impl Http1And2 {
    /// Speaks HTTP/2 with so many requests at once on a connection.
    pub(crate) fn new(streams: u32) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .max_header_list_size(HEADERS)
            .max_pending_accept_reset_streams(RESETS.0)
            .max_local_error_reset_streams(RESETS.1)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_send_buf_size(UNSENT)
            .keep_alive_interval(ALIVE.0)
            .keep_alive_timeout(ALIVE.1);
        Self(builder)
    }
}

impl Protocol for Http1And2 {
    fn converse<I, S>(&self, stream: I, requests: S) -> impl Conversation + Send
    where
        I: Read + Write + Unpin + Send + 'static,
        S: Requests,
    {
        self.0.serve_connection(stream, requests).into_owned()
    }
}

impl<I, S> Conversation for auto::Connection<'static, I, S, TokioExecutor>
where
    I: Read + Write + Unpin + Send + 'static,
    S: Requests,
{
    fn poll_end(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        self.poll(context)
    }

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
