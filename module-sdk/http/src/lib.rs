//! HTTP listeners that no client can starve: for the daemon's own and for those of modules.
//!
//! A [`Server`] accepts on a socket that the host holds and serves an `axum` router. Each of its
//! connections has a time for the head of a request, a time for being idle, and a time for reading
//! its answer. At the limit of connections, or of the descriptors of the process, the one that has
//! been idle for longest gives way to a new client ([`Limits`]). [`Figures`] count all of it.
//! [`Guard`] keeps web pages and requests of doubtful target out, [`read`] reads a body within its
//! [`BodyLimits`] and a [`Budget`] of all of them. [`Server::stop`] answers what is under way.

mod activity;
mod body;
mod connection;
mod exchange;
mod figures;
mod guard;
mod limits;
mod listener;
mod server;
mod shared;
mod stream;
#[cfg(test)]
mod tests;

pub use body::{BodyError, BodyLimits, Budget, Probe, Share, read};
pub use figures::{End, Figures, Snapshot};
pub use guard::{Guard, Hosts, Refused};
pub use limits::{Descriptors, Limits};
pub use listener::{Accepted, Ends, Listener, Tcp};
pub use server::Server;
