//! HTTP listeners that no client can starve: for the daemon's own and for those of modules.
//!
//! A [`Server`] accepts on a socket that the host holds and serves an `axum` router, over HTTP/1.1
//! and, where it is [started so](Server::start_with_http2), over HTTP/2 without TLS. Each of its
//! connections has a time for the head of a request, a time for being idle, and a time for reading
//! its answer. At the limit of connections, or of the descriptors of the process, the one that has
//! been idle for longest gives way to a new client ([`Limits`]). [`Figures`] count all of it.
//! [`Guard`] keeps web pages and requests of doubtful target out, [`read`] reads a body within its
//! [`BodyLimits`] and a [`Budget`] of all of them. [`Server::stop`] answers what is under way.
//! Errors are [`Problem`]s, and [`ConnectionMetrics`] show connections in a module's metrics.
//!
//! A whole module:
//!
//! ```
//! use std::time::Duration;
//!
//! use module_http::{
//!     ConnectionMetrics, Guard, Limits, Problem, Server, guarded, not_found, serve,
//!     axum::{Router, response::IntoResponse as _, routing::get},
//! };
//! use module_sdk::{Health, Host, Module, NoArgs, Result, Wiring};
//!
//! struct Hello {
//!     host: Host,
//!     server: Server,
//!     connections: ConnectionMetrics,
//! }
//!
//! impl Module for Hello {
//!     type Config = NoArgs;
//!
//!     fn start(_: NoArgs, host: &Host) -> Result<Self> {
//!         let router = Router::new().route("/", get(async || "hello")).fallback(not_found);
//!         let refuse = |refused| Problem::from(refused).into_response();
//!         let router = guarded(router, Guard::default(), refuse);
//!         let server = serve(host, "http", router, Limits::default())?;
//!         let connections = ConnectionMetrics::new("lodestar_hello");
//!         Ok(Self { host: host.clone(), server, connections })
//!     }
//!
//!     fn wire(wiring: &mut Wiring<Self>) {
//!         wiring.every(Duration::from_secs(10), Self::show);
//!     }
//!
//!     fn health(&self) -> Health {
//!         self.server.figures().trouble().map_or_else(|| Health::ok(""), Health::degraded)
//!     }
//!
//!     fn stop(&mut self, grace: Duration) -> Result<()> {
//!         self.server.stop(grace);
//!         Ok(())
//!     }
//! }
//!
//! impl Hello {
//!     fn show(&mut self) -> Result<()> {
//!         self.connections.show(&self.host, &self.server.figures())
//!     }
//! }
//! # use module_sdk::testing::Bench;
//! # let mut bench = Bench::<Hello>::start(serde_json::json!({})).expect("it starts");
//! # use std::io::{Read as _, Write as _};
//! # let address = bench.host().listener_address("http").expect("it listens");
//! # let mut client = std::net::TcpStream::connect(address).expect("it accepts");
//! # let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
//! # client.write_all(request).expect("it is sent");
//! # let mut answer = String::new();
//! # client.read_to_string(&mut answer).expect("an answer");
//! # assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
//! # bench.advance(Duration::from_secs(10)).expect("no timer fails");
//! # assert!(bench.host().metrics().contains_key("lodestar_hello_connections"));
//! # bench.stop().expect("it stops");
//! ```

mod activity;
mod body;
mod connection;
mod exchange;
mod figures;
mod guard;
mod guarded;
mod limits;
mod listener;
mod metrics;
mod problem;
mod protocol;
mod server;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_http2;

pub use axum;
pub use body::{BodyError, BodyLimits, Budget, Probe, Share, read};
pub use figures::{End, Figures, Snapshot};
pub use guard::{Guard, Hosts, Refused};
pub use guarded::guarded;
pub use limits::{Descriptors, Limits};
pub use listener::{Accepted, Ends, Listener, Tcp};
pub use metrics::ConnectionMetrics;
pub use problem::{Problem, method_not_allowed, not_found};
pub use server::{Answers, Server, serve};
