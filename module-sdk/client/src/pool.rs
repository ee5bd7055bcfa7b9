//! Connections that are kept for many requests.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use reqwest::Url;
use tower_service::Service;

use crate::{ClientError, Policy, guard::Guard, tls};

/// Time after which a connection without traffic is asked whether the server is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Settings of a [`Pool`].
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Addresses that it may reach, and certificates that it trusts.
    pub policy: Policy,
    /// Time within which a connection has to be there, its TLS not included.
    pub connect_timeout: Duration,
    /// Time for which a connection without requests is kept.
    pub idle_timeout: Duration,
    /// Connections without requests that are kept for a server, at most.
    pub idle_connections: usize,
}

impl Default for PoolOptions {
    /// Returns 5 s to connect, and 90 s and 64 connections for a server.
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(90),
            idle_connections: 64,
        }
    }
}

/// A client whose connections serve many requests, and whose answers come as they are sent: for a
/// module that passes requests on. HTTP/2 is spoken where a server offers it under TLS.
///
/// It follows no redirect, sets no header, and has no limit of time but that for connecting: the
/// caller has them. What it may reach is decided as for a [`Client`](crate::Client).
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt as _, Full};
/// use module_http_client::{ClientError, Pool};
///
/// async fn first_bytes(pool: &Pool, url: &str) -> Result<Option<Bytes>, ClientError> {
///     let request = hyper::Request::get(url).body(Full::default()).map_err(ClientError::of_http)?;
///     let mut answer = pool.send(request).await?;
///     let frame = answer.body_mut().frame().await.transpose().map_err(ClientError::of_body)?;
///     Ok(frame.and_then(|frame| frame.into_data().ok()))
/// }
/// ```
#[derive(Debug)]
pub struct Pool {
    options: PoolOptions,
    guard: Guard,
    plain: legacy::Client<Connector, Full<Bytes>>,
    encrypted: OnceLock<legacy::Client<HttpsConnector<Connector>, Full<Bytes>>>,
}

type Connector = HttpConnector<Guard>;

impl Pool {
    /// Creates a pool. The trusted certificates of the system are read at its first encrypted
    /// request.
    #[must_use]
    pub fn new(options: PoolOptions) -> Self {
        let guard = Guard::new(options.policy.local);
        let plain = builder(&options).build(connector(&options, &guard));
        Self { options, guard, plain, encrypted: OnceLock::new() }
    }

    /// Checks whether a URL may be asked, by what it says itself. The name in it is checked when a
    /// request resolves it.
    ///
    /// # Errors
    ///
    /// When it may not, or is no URL.
    pub fn check(&self, url: &str) -> Result<(), ClientError> {
        let url = Url::parse(url).map_err(|error| ClientError::Url(error.to_string()))?;
        self.guard.check(&url)
    }

    /// Sends a request, and returns the head of the answer with a body that is still to come.
    /// Dropping either ends it at the server as well. The URL is one that was
    /// [checked](Self::check).
    ///
    /// # Errors
    ///
    /// When there is no answer; see [`ClientError`].
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let sent = if request.uri().scheme_str() == Some("https") {
            self.encrypted()?.request(request).await
        } else {
            self.plain.request(request).await
        };
        sent.map_err(|error| {
            let is_connect = error.is_connect();
            ClientError::of_source(&error, is_connect)
        })
    }

    fn encrypted(
        &self,
    ) -> Result<&legacy::Client<HttpsConnector<Connector>, Full<Bytes>>, ClientError> {
        if let Some(client) = self.encrypted.get() {
            return Ok(client);
        }
        let trust = tls::system(&self.options.policy.trusted)?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust)
            .https_only()
            .enable_all_versions()
            .wrap_connector(connector(&self.options, &self.guard));
        let client = builder(&self.options).build(connector);
        Ok(self.encrypted.get_or_init(|| client))
    }
}

fn builder(options: &PoolOptions) -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(options.idle_timeout)
        .pool_max_idle_per_host(options.idle_connections)
        .http2_keep_alive_interval(KEEP_ALIVE);
    builder
}

fn connector(options: &PoolOptions, guard: &Guard) -> Connector {
    let mut connector = HttpConnector::new_with_resolver(guard.clone());
    connector.enforce_http(false);
    // A request is one write, and what follows it must not wait for the server's word.
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEP_ALIVE));
    connector.set_connect_timeout(Some(options.connect_timeout));
    connector
}

/// Addresses of a name, as they are to be tried.
type Addresses = std::vec::IntoIter<SocketAddr>;

impl Service<Name> for Guard {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Addresses>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = self.clone().addresses(name.as_str().to_owned());
        Box::pin(async move { addresses.await.map(Vec::into_iter).map_err(io::Error::other) })
    }
}
