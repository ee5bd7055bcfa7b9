//! The HTTP listener: connections, their limits, and their end.

mod body;
mod guard;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use module_sdk::Result;
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore, watch},
};

pub(crate) use body::{BodyError, Budget, Encoding, read};
pub(crate) use guard::{answer_wrong_method, guard, json_error};

use crate::{app::App, preface::Preface};

/// Who is at the two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// How long connections that are idle while the module stops are kept, so that the next request
/// on them is answered and closes them, rather than meeting a closed connection.
const IDLE_AT_STOP: Duration = Duration::from_secs(1);

/// A running listener.
#[derive(Debug)]
pub(crate) struct Server {
    phase: watch::Sender<Phase>,
    open: Arc<Open>,
    runtime: tokio::runtime::Handle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    /// Takes connections.
    Serving,
    /// Takes none, answers on those that are open.
    Draining,
    /// Closes what is idle.
    Closing,
}

#[derive(Debug, Default)]
struct Open {
    connections: AtomicUsize,
    changed: Notify,
}

impl Server {
    /// Starts to serve.
    pub(crate) fn start(app: &Arc<App>, listener: TcpListener, router: Router) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let runtime = app.host.runtime()?;
        let (phase, watched) = watch::channel(Phase::Serving);
        let open = Arc::new(Open::default());
        let connections = usize::from(app.config.max_connections.get());
        let header_timeout =
            Duration::from_secs(u64::from(app.config.header_timeout_seconds.get()));
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let acceptor = Acceptor {
            listener,
            router,
            slots: Arc::new(Semaphore::new(connections)),
            header_timeout,
            open: open.clone(),
            app: app.clone(),
        };
        runtime.spawn(acceptor.run(watched));
        Ok(Self { phase, open, runtime })
    }

    /// Stops: takes no more connections, answers what is under way, and returns when all
    /// connections are closed or `grace` is over. Answers how many were cut off.
    pub(crate) fn stop(&self, grace: Duration) -> usize {
        self.phase.send_replace(Phase::Draining);
        self.wait_closed(grace.min(IDLE_AT_STOP));
        self.phase.send_replace(Phase::Closing);
        self.wait_closed(grace.saturating_sub(IDLE_AT_STOP));
        self.open.connections.load(Ordering::SeqCst)
    }

    fn wait_closed(&self, at_most: Duration) {
        let open = self.open.clone();
        let (closed, told) = std::sync::mpsc::channel();
        // The runtime has a thread of its own, so this thread may wait for it.
        let waiting = self.runtime.spawn(async move {
            loop {
                let changed = open.changed.notified();
                if open.connections.load(Ordering::SeqCst) == 0 {
                    break;
                }
                changed.await;
            }
            // Nobody listens any more when the time is over.
            let _ = closed.send(());
        });
        if told.recv_timeout(at_most).is_err() {
            waiting.abort();
        }
    }
}

struct Acceptor {
    listener: tokio::net::TcpListener,
    router: Router,
    slots: Arc<Semaphore>,
    header_timeout: Duration,
    open: Arc<Open>,
    app: Arc<App>,
}

impl Acceptor {
    async fn run(self, mut phase: watch::Receiver<Phase>) {
        loop {
            let slot = tokio::select! {
                slot = self.slots.clone().acquire_owned() => slot,
                () = reached(&mut phase, Phase::Draining) => return,
            };
            let Ok(slot) = slot else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = reached(&mut phase, Phase::Draining) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let counted = Counted::new(&self.open);
                    let serving = self.serve(stream, peer, phase.clone());
                    tokio::spawn(async move {
                        serving.await;
                        drop((slot, counted));
                    });
                }
                Err(error) => {
                    // Such as too many open files: it passes, and a busy loop would not help.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        mut phase: watch::Receiver<Phase>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let local = stream.local_addr().unwrap_or(peer);
        let router = self.router.clone().layer(Extension(Ends { peer, local }));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .serve_connection(
                TokioIo::new(Preface::new(stream, &self.app)),
                TowerToHyperService::new(router),
            );
        async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = reached(&mut phase, Phase::Closing) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        }
    }
}

async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    // An error means that the server is gone, which is a stop as well.
    drop(phase.wait_for(|phase| *phase >= wanted).await);
}

/// Counts a connection while it lives.
struct Counted(Arc<Open>);

impl Counted {
    fn new(open: &Arc<Open>) -> Self {
        open.connections.fetch_add(1, Ordering::SeqCst);
        Self(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}
