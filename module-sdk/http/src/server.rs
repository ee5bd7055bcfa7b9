//! The accept loop of a server, and its stop.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, Response},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tower_service::Service;

use module_sdk::{Host, Result};

use crate::{
    Accepted, Figures, Limits, Listener, Tcp, connection,
    figures::Shortage,
    protocol::{Http1, Http1And2, Protocol},
    shared::Shared,
};

/// Time for which idle connections are kept while the server stops, so that the next request on
/// them is answered and closes them, rather than meeting a closed connection.
const IDLE_AT_STOP: Duration = Duration::from_secs(1);

/// Number of connections that a listener may have however scarce descriptors are.
const ALWAYS: usize = 4;

/// Time for which a new client waits for another one to make room, before it and all later ones are
/// refused until there is room.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time until the next search for a connection that can be closed.
const SEARCH: Duration = Duration::from_millis(50);

/// Wait after an error of `accept`.
const BACKOFF: Duration = Duration::from_millis(100);

/// Response to a client for which there is no room.
pub(crate) const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-type: application/problem+json\r\ncontent-length: 148\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"unavailable\",\"status\":503,\"code\":\"unavailable\",\
    \"detail\":\"all connections are in use\",\"help\":\"try again in a second\"}\n";

/// Service that answers requests: a [`Router`](axum::Router), or one that stands before it.
pub trait Answers:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Answers for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves a router on a listener that the manifest of a module declares.
///
/// # Errors
///
/// Returns an error if the manifest does not declare the listener, its address is taken, or the
/// system refuses.
pub fn serve(host: &Host, listener: &str, answers: impl Answers, limits: Limits) -> Result<Server> {
    let runtime = host.runtime()?;
    let socket = host.listener(listener)?;
    let tcp = {
        let _context = runtime.enter();
        Tcp::new(socket)?
    };
    Ok(Server::start(&runtime, tcp, answers, limits))
}

/// A running listener. It goes on after this handle is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    is_stopping: watch::Sender<bool>,
    runtime: Handle,
}

impl Server {
    /// Serves a router on a socket, over HTTP/1.1. Handlers find the socket's information about the
    /// connection as `Extension<L::Ends>`.
    pub fn start<L: Listener>(
        runtime: &Handle,
        listener: L,
        answers: impl Answers,
        limits: Limits,
    ) -> Self {
        Self::speaking(runtime, Http1, listener, answers, limits)
    }

    /// Serves a router on a socket as [`start`](Self::start) does, and clients that begin with
    /// HTTP/2 over that, without TLS, with so many requests at once on a connection. Where others
    /// are told `Connection: close` they are told to go away: what they have sent by then is
    /// answered.
    pub fn start_with_http2<L: Listener>(
        runtime: &Handle,
        listener: L,
        answers: impl Answers,
        limits: Limits,
        requests_at_once: u32,
    ) -> Self {
        let protocol = Http1And2::new(requests_at_once);
        Self::speaking(runtime, protocol, listener, answers, limits)
    }

    fn speaking<L: Listener>(
        runtime: &Handle,
        protocol: impl Protocol,
        listener: L,
        answers: impl Answers,
        limits: Limits,
    ) -> Self {
        let shared = Arc::new(Shared::new(limits));
        let (is_stopping, watched) = watch::channel(false);
        let shared_too = shared.clone();
        let acceptor = Acceptor { listener, answers, protocol, shared: shared_too, starving: None };
        // Whoever drops the server does not stop it: so the task keeps a sender.
        let kept = is_stopping.clone();
        runtime.spawn(async move {
            acceptor.run(watched).await;
            drop(kept);
        });
        Self { shared, is_stopping, runtime: runtime.clone() }
    }

    /// Returns the counters of the listener.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        self.shared.figures.clone()
    }

    /// Makes each response end its connection from now on, so that clients reconnect and reach
    /// whoever accepts then; new connections are still accepted. [`stop`](Self::stop) begins with
    /// it.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Returns whether the server drains or has stopped.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    /// Stops the server: accepts no more connections, answers running requests, and returns when
    /// all connections are closed or `grace` is over. Returns the number of connections that were
    /// cut off. Must not be called on a thread of the runtime.
    pub fn stop(&self, grace: Duration) -> usize {
        Self::stop_all(&[self], grace)
    }

    /// Stops several servers within one grace, as [`stop`](Self::stop) does one.
    pub fn stop_all(servers: &[&Self], grace: Duration) -> usize {
        let begin = std::time::Instant::now();
        let wait = |at_most: Duration| {
            for server in servers {
                server.wait_closed(at_most.saturating_sub(begin.elapsed()));
            }
        };
        for server in servers {
            server.drain();
            server.is_stopping.send_replace(true);
        }
        wait(grace.min(IDLE_AT_STOP));
        servers.iter().for_each(|server| server.shared.close_all());
        wait(grace);
        servers.iter().map(|server| server.shared.open()).sum()
    }

    fn wait_closed(&self, at_most: Duration) {
        let shared = self.shared.clone();
        let (closed, told) = std::sync::mpsc::channel();
        let waiting = self.runtime.spawn(async move {
            loop {
                let ended = shared.ended.notified();
                if shared.open() == 0 {
                    break;
                }
                ended.await;
            }
            // Nobody listens any more when the time is over.
            let _ = closed.send(());
        });
        if told.recv_timeout(at_most).is_err() {
            waiting.abort();
        }
    }
}

struct Acceptor<L, S, P> {
    listener: L,
    answers: S,
    protocol: P,
    shared: Arc<Shared>,
    /// Time since which there has been no room.
    starving: Option<Instant>,
}

impl<L: Listener, S: Answers, P: Protocol> Acceptor<L, S, P> {
    async fn run(mut self, mut is_stopping: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = told(&mut is_stopping) => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => self.take(accepted, &is_stopping).await,
                // It was gone before it was accepted.
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    // Such as too many open files: it passes, and a busy loop would not help.
                    if self.shared.figures.count_error(&error) {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    self.shared.close_idle();
                    sleep(BACKOFF).await;
                }
            }
        }
    }

    async fn take(
        &mut self,
        accepted: Accepted<L::Stream, L::Ends>,
        is_stopping: &watch::Receiver<bool>,
    ) {
        let Accepted { mut stream, ends, descriptor } = accepted;
        if let Err(shortage) = self.room(descriptor, is_stopping).await {
            self.shared.figures.count_refused(shortage);
            return refuse(&mut stream).await;
        }
        let (answers, protocol) = (self.answers.clone(), self.protocol.clone());
        let enrolled = self.shared.enroll(descriptor);
        tokio::spawn(async move {
            let end = connection::serve::<L, S>(stream, ends, answers, &protocol, &enrolled).await;
            enrolled.finish(end);
        });
    }

    /// Makes room for one more connection, if possible.
    async fn room(
        &mut self,
        descriptor: i32,
        is_stopping: &watch::Receiver<bool>,
    ) -> Result<(), Shortage> {
        let limits = self.shared.limits;
        let is_beyond = limits.descriptors.exceeded_by(descriptor);
        let mut has_displaced = false;
        loop {
            let ended = self.shared.ended.notified();
            let open = self.shared.open();
            // Where descriptors are scarce, another one has to come back first. They are as well
            // while a connection beyond the share is left from when they were: a lower number is
            // then free only since another one came back.
            let is_scarce = open >= ALWAYS && (is_beyond || self.shared.is_beyond());
            let has_room = open < limits.connections && (!is_scarce || has_displaced);
            // At a stop it is the last one, and nobody else would take it.
            if has_room || *is_stopping.borrow() {
                self.starving = None;
                self.shared.thin_out();
                return Ok(());
            }
            let since = *self.starving.get_or_insert_with(Instant::now);
            if self.shared.displace() {
                has_displaced = true;
            } else if since.elapsed() >= PATIENCE {
                let is_full = open >= limits.connections;
                return Err(if is_full { Shortage::Connections } else { Shortage::Descriptors });
            }
            // It is one of the others that makes room, or it hesitates for long enough.
            let _ = timeout(SEARCH, ended).await;
        }
    }
}

/// Waits until the server is to stop.
async fn told(is_stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop as well.
    drop(is_stopping.wait_for(|stops| *stops).await);
}

async fn refuse(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
    let answering = async {
        stream.write_all(NO_ROOM).await?;
        stream.shutdown().await?;
        // What was sent and not read would have the answer overtaken by a reset.
        let mut sent = [0; 8192];
        tokio::select! {
            biased;
            read = stream.read(&mut sent) => read.map(drop),
            () = std::future::ready(()) => Ok(()),
        }
    };
    // A client that does not take it goes without.
    let _: Result<io::Result<()>, _> = timeout(BACKOFF, answering).await;
}

/// Returns whether accepting failed because of a single connection.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
