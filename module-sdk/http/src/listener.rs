//! Sources of connections.

use std::{future::Future, io, net::SocketAddr, os::fd::AsRawFd as _};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// A listening socket.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Information for handlers about a connection, as `Extension<Ends>`.
    type Ends: Clone + Send + Sync + 'static;

    /// Waits for the next connection. Dropping the future loses no connection.
    fn accept(&self)
    -> impl Future<Output = io::Result<Accepted<Self::Stream, Self::Ends>>> + Send;
}

/// A connection that was just accepted.
#[derive(Debug)]
pub struct Accepted<S, E> {
    /// The connection.
    pub stream: S,
    /// Information for handlers about it.
    pub ends: E,
    /// Number of its descriptor.
    pub descriptor: i32,
}

/// The two ends of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Address of the client.
    pub peer: SocketAddr,
    /// Address that the client connected to.
    pub local: SocketAddr,
}

/// A TCP socket.
#[derive(Debug)]
pub struct Tcp(TcpListener);

impl Tcp {
    /// Wraps a socket. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses.
    pub fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket).map(Self)
    }
}

impl Listener for Tcp {
    type Stream = TcpStream;
    type Ends = Ends;

    async fn accept(&self) -> io::Result<Accepted<TcpStream, Ends>> {
        let (stream, peer) = self.0.accept().await?;
        // Else the last small part of an answer waits for the client to confirm the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection waits for its last small part");
        }
        let local = stream.local_addr().unwrap_or(peer);
        let descriptor = stream.as_raw_fd();
        Ok(Accepted { stream, ends: Ends { peer, local }, descriptor })
    }
}
