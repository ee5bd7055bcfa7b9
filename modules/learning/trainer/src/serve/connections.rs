//! The connections of the server: how many there may be, and how long each may take.
//!
//! Each carries one request: to connect on this machine takes far less time than any answer, and
//! where nothing is kept nothing is idle. A client is heard once its whole request is there; those
//! that are not give way to newcomers, the oldest one first.

use std::{
    collections::BTreeMap,
    future::pending,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, HttpBody as _, to_bytes},
    http::{Request, Response},
    response::IntoResponse as _,
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

use super::{api::guard, refusal::Refusal};

/// Bytes of what comes behind a request that are read at once, to be left out.
const REST: usize = 4_096;
/// Time until the next try, after a connection could not be taken.
const BACKOFF: Duration = Duration::from_millis(100);

/// Limits of the connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most connections at once.
    connections: usize,
    /// Largest head of a request, and its largest body, in bytes.
    head_bytes: usize,
    body_bytes: usize,
    /// Time within which a head has to come, and then its body.
    head: Duration,
    body: Duration,
    /// Time for which a client may take nothing of its answer.
    unread: Duration,
    /// Time that every client gets, before it gives way to another one or at the end.
    least: Duration,
    /// Time for which what a client still sends is read, so that it sees its answer and no reset.
    lingering: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head_bytes: 16 << 10,
            body_bytes: 4 << 20,
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            unread: Duration::from_secs(30),
            least: Duration::from_millis(200),
            lingering: Duration::from_millis(500),
        }
    }
}

/// Serves on a socket until `stop`, then answers whoever was heard.
pub(super) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let shared = Arc::new(Shared { app, limits, unheard: Mutex::default() });
    let (mut stop, mut all, mut number) = (pin!(stop), JoinSet::new(), 0);
    loop {
        while all.try_join_next().is_some() {}
        if all.len() >= limits.connections {
            tokio::select! {
                () = &mut stop => break,
                _ = all.join_next() => {}
                () = shared.oldest_is_due() => shared.end_oldest(),
            }
            continue;
        }
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                number += 1;
                let mut unheard = shared.unheard();
                let task = all.spawn(carry(stream, shared.clone(), number));
                unheard.insert(number, (Instant::now(), task));
            }
            // It was gone before it was taken, or descriptors are short, which passes.
            Err(_) => tokio::select! {
                () = &mut stop => break,
                () = sleep(BACKOFF) => {}
            },
        }
    }
    // Whoever connects from now on waits for the next server.
    drop(listener);
    let mut given = pin!(sleep(limits.least));
    let mut is_over = false;
    loop {
        tokio::select! {
            ended = all.join_next() => if ended.is_none() { return },
            () = &mut given, if !is_over => {
                is_over = true;
                shared.end_all();
            }
        }
    }
}

/// State that the connections share.
struct Shared {
    app: Router,
    limits: Limits,
    /// Connections whose request is not there yet, in the order in which they came.
    unheard: Mutex<BTreeMap<u64, (Instant, AbortHandle)>>,
}

impl Shared {
    fn unheard(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, AbortHandle)>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the oldest connection that was not heard has had its time.
    async fn oldest_is_due(&self) {
        let since = self.unheard().first_key_value().map(|(_, (since, _))| *since);
        match since {
            Some(since) => sleep_until(since + self.limits.least).await,
            // Some other one ends first.
            None => pending().await,
        }
    }

    fn end_oldest(&self) {
        if let Some((_, (_, task))) = self.unheard().pop_first() {
            task.abort();
        }
    }

    fn end_all(&self) {
        for (_, task) in std::mem::take(&mut *self.unheard()).into_values() {
            task.abort();
        }
    }

    /// Answers the request of a connection, once all of it is there.
    async fn answer(&self, number: u64, request: Request<Incoming>) -> Response<Body> {
        let request = match self.whole(request).await {
            Ok(request) => request,
            Err(refusal) => return refusal.into_response(),
        };
        self.unheard().remove(&number);
        let answered = TowerToHyperService::new(self.app.clone()).call(request).await;
        answered.unwrap_or_else(|never| match never {})
    }

    async fn whole(&self, request: Request<Incoming>) -> Result<Request<Body>, Refusal> {
        let (head, body) = request.into_parts();
        guard(&head)?;
        let most = self.limits.body_bytes;
        if body.size_hint().lower() > most as u64 {
            return Err(Refusal::size(most));
        }
        let read = timeout(self.limits.body, to_bytes(Body::new(body), most)).await;
        let body = read.map_err(|_| Refusal::late())?.map_err(|_| Refusal::size(most))?;
        Ok(Request::from_parts(head, Body::from(body)))
    }
}

/// Serves one connection to its end.
async fn carry<S>(stream: S, shared: Arc<Shared>, number: u64)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = shared.limits;
    let of_service = shared.clone();
    let service = service_fn(move |request| {
        let shared = of_service.clone();
        async move { Ok::<_, std::convert::Infallible>(shared.answer(number, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Patient::new(stream, limits)), service);
    // An error says that the client went, or was too slow.
    let _: Result<(), _> = served.await;
    shared.unheard().remove(&number);
}

/// A stream whose other end has to take what is written within a time.
struct Patient<S> {
    stream: S,
    limits: Limits,
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
    is_shut: bool,
}

impl<S> Patient<S> {
    fn new(stream: S, limits: Limits) -> Self {
        let timer = Box::pin(sleep(limits.unread));
        Self { stream, limits, timer, is_waiting: false, is_shut: false }
    }

    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.is_waiting = false;
            return written;
        }
        if !self.is_waiting {
            self.is_waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.limits.unread);
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closes this side, and reads what the other still sends for a while.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.is_shut = true;
            let until = Instant::now() + self.limits.lingering;
            self.timer.as_mut().reset(until);
        }
        if self.timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut rest = [0; REST];
        let mut buffer = ReadBuf::new(&mut rest);
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
        if read.is_ok() && !buffer.filled().is_empty() {
            // There may be more, and others have their turn in between.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
