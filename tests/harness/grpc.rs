//! A client of gRPC: calls over one connection of HTTP/2.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, runtime::Runtime};

/// Method that takes logs.
pub const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// A client over one connection.
#[derive(Debug)]
pub struct Caller {
    runtime: Runtime,
    requests: SendRequest<Full<Bytes>>,
    address: String,
}

impl Caller {
    /// Connects to a listener.
    ///
    /// # Panics
    ///
    /// When nobody there speaks HTTP/2.
    #[must_use]
    pub fn new(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system gives it");
        let requests = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("it accepts");
            let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (requests, connection) = shaken.expect("it speaks HTTP/2");
            tokio::spawn(connection);
            requests
        });
        Self { runtime, requests, address: address.to_owned() }
    }

    /// Calls a method with a message, and returns the status of the call; `None` where the server
    /// has ended the connection before it took the call.
    ///
    /// # Panics
    ///
    /// When the answer is none of gRPC.
    pub fn call(&mut self, method: &str, message: &[u8]) -> Option<i32> {
        let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
        let frame = [&[0][..], &length, message].concat();
        let request = Request::post(format!("http://{}{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::from(frame))
            .expect("it is valid");
        let requests = &mut self.requests;
        self.runtime.block_on(async {
            requests.ready().await.ok()?;
            let mut refused = requests.try_send_request(request).await;
            if let Err(error) = &mut refused
                && error.take_message().is_some()
            {
                return None;
            }
            let answer = refused.unwrap_or_else(|error| panic!("a call is lost: {error:?}"));
            let (parts, body) = answer.into_parts();
            let whole = body.collect().await.expect("the whole answer");
            let trailer = whole.trailers().and_then(|it| it.get("grpc-status"));
            let status = trailer.or_else(|| parts.headers.get("grpc-status")).expect("a status");
            Some(status.to_str().expect("digits").parse().expect("a number"))
        })
    }
}
