//! A client of gRPC: tonic's, over one connection of hyper's.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::http::{Request, Response, Uri, uri::PathAndQuery};
use bytes::Bytes;
use http_body::Frame;
use hyper::{
    body::{Body as HttpBody, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::TcpStream, runtime::Runtime, sync::mpsc};
use tonic::{
    Status,
    body::Body,
    client::Grpc,
    codec::{CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataValue,
};
use tonic_prost::ProstCodec;
use tower_service::Service;

pub(crate) const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
pub(crate) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(crate) const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// A client over one connection.
pub(crate) struct Caller {
    pub(crate) runtime: Runtime,
    pub(crate) channel: Channel,
    /// The host that its calls name.
    pub(crate) origin: Uri,
    /// Metadata of its calls.
    pub(crate) metadata: Vec<(&'static str, &'static str)>,
    pub(crate) gzip: bool,
}

impl Caller {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system gives it");
        let requests = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("it accepts");
            let io = TokioIo::new(stream);
            let (requests, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("it speaks HTTP/2");
            tokio::spawn(connection);
            requests
        });
        let origin = format!("http://{address}").parse().expect("an address is a host");
        Self { runtime, channel: Channel(requests), origin, metadata: Vec::new(), gzip: false }
    }

    fn grpc(&self) -> Grpc<Channel> {
        let grpc = Grpc::with_origin(self.channel.clone(), self.origin.clone());
        if self.gzip { grpc.send_compressed(CompressionEncoding::Gzip) } else { grpc }
    }

    /// Calls a method with a message, and returns its answer.
    pub(crate) fn call<A: Message + Default + 'static>(
        &self,
        path: &'static str,
        message: impl Message + Default + 'static,
    ) -> Result<A, Status> {
        self.call_with(path, message, ProstCodec::default())
    }

    /// Calls a method with bytes in the place of a message.
    pub(crate) fn call_raw(&self, path: &'static str, bytes: &[u8]) -> Result<Vec<u8>, Status> {
        self.call_with(path, bytes.to_vec(), Raw)
    }

    fn call_with<M, A, C>(&self, path: &'static str, message: M, codec: C) -> Result<A, Status>
    where
        M: Send + Sync + 'static,
        A: Send + Sync + 'static,
        C: tonic::codec::Codec<Encode = M, Decode = A>,
    {
        let mut request = tonic::Request::new(message);
        for (name, value) in &self.metadata {
            request.metadata_mut().insert(*name, MetadataValue::from_static(value));
        }
        self.runtime.block_on(async {
            let mut grpc = self.grpc();
            grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
            let path = PathAndQuery::from_static(path);
            Ok(grpc.unary(request, path, codec).await?.into_inner())
        })
    }

    /// Begins a call whose bytes, prefix and all, the test sends one after the other.
    pub(crate) fn begin(&mut self, path: &str) -> Begun {
        self.begin_encoded(path, None)
    }

    /// Begins a call that says how its message is compressed.
    pub(crate) fn begin_encoded(&mut self, path: &str, encoding: Option<&str>) -> Begun {
        let (bytes, fed) = mpsc::unbounded_channel();
        let uri = format!("{}{}", self.origin.to_string().trim_end_matches('/'), path);
        let mut request =
            Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let request = request.body(Body::new(Fed(fed))).expect("it is valid");
        let sending = self.channel.0.send_request(request);
        Begun { bytes, answer: self.runtime.spawn(sending) }
    }
}

/// A call that has begun.
pub(crate) struct Begun {
    pub(crate) bytes: mpsc::UnboundedSender<Bytes>,
    answer: tokio::task::JoinHandle<hyper::Result<Response<Incoming>>>,
}

impl Begun {
    /// Sends the rest of the bytes and returns the status of the call.
    pub(crate) fn finish(self, caller: &Caller, rest: &[u8]) -> i32 {
        // Who does not listen any more has answered.
        let _ = self.bytes.send(Bytes::copy_from_slice(rest));
        drop(self.bytes);
        status_of(caller, self.answer)
    }

    /// Returns the status of a call that is answered before its end.
    pub(crate) fn status(self, caller: &Caller) -> i32 {
        status_of(caller, self.answer)
    }
}

fn status_of(
    caller: &Caller,
    answer: tokio::task::JoinHandle<hyper::Result<Response<Incoming>>>,
) -> i32 {
    caller.runtime.block_on(async {
        let answer = answer.await.expect("no panic").expect("an answer");
        let (parts, body) = answer.into_parts();
        let trailers = http_body_util::BodyExt::collect(body).await.expect("the whole answer");
        let status = trailers.trailers().and_then(|it| it.get("grpc-status"));
        let status = status.or_else(|| parts.headers.get("grpc-status")).expect("a status");
        status.to_str().expect("digits").parse().expect("a number")
    })
}

/// A connection.
#[derive(Clone)]
pub(crate) struct Channel(SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A body that comes as the test sends it.
struct Fed(mpsc::UnboundedReceiver<Bytes>);

impl HttpBody for Fed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|bytes| Some(Ok(Frame::data(bytes?))))
    }
}

/// Bytes as they are.
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}
