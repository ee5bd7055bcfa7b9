//! The floor: the least that a proxy on the same HTTP library does.
//!
//! It has a pool of connections, sets the key, and looks for the usage in what passes.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;

use crate::process::announce;

/// Number of answers with usage that have passed.
static USAGES: AtomicU64 = AtomicU64::new(0);

/// Passes requests on until the process ends.
pub(crate) fn run(upstream: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime needs a few descriptors").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        announce(listener.local_addr().expect("it is bound"));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            stream.set_nodelay(true).expect("it is a socket");
            let client = client.clone();
            let service = service_fn(move |request| pass(client.clone(), upstream, request));
            tokio::spawn(async move {
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
}

async fn pass(
    client: Client<HttpConnector, Incoming>,
    upstream: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Tee>, Error> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("http://{upstream}{path}").parse().expect("it was an address");
    head.headers.remove(HOST);
    head.headers.remove(CONNECTION);
    head.headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer sk-upstream"));
    let mut response = client.request(Request::from_parts(head, body)).await?;
    response.headers_mut().remove(CONNECTION);
    Ok(response.map(Tee))
}

/// A body that is looked at while it passes.
struct Tee(Incoming);

impl Body for Tee {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.0).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
            && memchr::memmem::find(bytes, b"\"usage\"").is_some()
        {
            USAGES.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
