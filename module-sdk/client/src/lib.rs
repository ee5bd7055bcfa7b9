//! HTTP requests of a module: bounded in time and size, and to no address that they must not reach.
//!
//! A [`Client`] sends a [`Request`] and returns an [`Answer`], or a [`ClientError`] that says in a
//! word why there is none. What a request may reach is decided by its [`Policy`] and a list that
//! nothing opens:
//!
//! * Services that tell a cloud machine its keys (`169.254.169.254`, `metadata.google.internal`)
//!   are never reached, by whatever spelling, name or redirect. Loopback and private addresses only
//!   where the policy says `local`. Names are resolved here, and the addresses that were checked
//!   are those connected to.
//! * A redirect is followed within its origin only, and never turns a request into another one.
//!   What a header holds goes to no other origin.
//! * There is no proxy: one that the environment names could reach what may not be reached.
//! * Every request has a deadline for all of it, and a limit of bytes for its answer.
//! * A URL and a header may hold a secret: errors and `Debug` show the host alone.
//!
//! Each request of a [`Client`] has a connection of its own: a probe is to find out whether a
//! server accepts one, and how long its certificate is valid. A [`Pool`] keeps its connections, for
//! a module that passes requests on.
//!
//! ```
//! use std::time::Duration;
//!
//! use module_http_client::{Client, ClientError, Header, Policy, Request};
//! use module_sdk::Provider;
//!
//! /// Returns whether a provider takes its key.
//! async fn takes_key(client: &Client, provider: &Provider) -> Result<bool, ClientError> {
//!     let mut request = Request::get(format!("{}/v1/models", provider.base_url));
//!     request.headers.extend(provider.key.as_ref().map(Header::bearer));
//!     request.deadline = Duration::from_secs(3);
//!     let answer = client.send(request).await?;
//!     Ok(answer.status.is_success())
//! }
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
//! # runtime.expect("a runtime").block_on(async {
//! let client = Client::new(Policy { local: true, ..Policy::default() });
//! let request = Request::get("http://169.254.169.254/latest/meta-data/");
//! let error = client.send(request).await.expect_err("it is refused");
//! assert_eq!(error.reason(), "refused");
//! # });
//! ```

mod certificate;
mod client;
pub mod endpoint;
mod error;
mod guard;
mod pool;
mod request;
mod tls;

pub use client::{Client, Policy};
pub use error::ClientError;
pub use guard::Refusal;
pub use pool::{Pool, PoolOptions};
pub use request::{Answer, Header, Request};
pub use reqwest::{Method, StatusCode, header::HeaderMap};
