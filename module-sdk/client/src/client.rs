//! The client.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use module_sdk::jiff::{Timestamp, fmt::rfc2822};
use reqwest::{Method, Response, StatusCode, Url, header, tls::TlsInfo};
use tokio::time;

use crate::{Answer, ClientError, Request, certificate, guard::Guard, request, tls};

/// Redirects within an origin that are followed.
const REDIRECTS: usize = 3;

/// Limits of a client: addresses that it may reach, and certificates that it trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// `true` where loopback and private addresses may be reached.
    pub local: bool,
    /// Certificates in PEM that are trusted besides those of the system.
    pub trusted: Vec<String>,
}

/// A client. Cheap to clone; it needs the runtime of tokio only while it sends.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    guard: Guard,
    trusted: Vec<String>,
    plain: OnceLock<reqwest::Client>,
    encrypted: OnceLock<reqwest::Client>,
}

impl Client {
    /// Creates a client. The trusted certificates of the system are read at its first encrypted
    /// request.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let inner = Inner {
            guard: Guard::new(policy.local),
            trusted: policy.trusted,
            plain: OnceLock::new(),
            encrypted: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sends a request and returns the whole answer, whatever its status is.
    ///
    /// # Errors
    ///
    /// When there is no answer; see [`ClientError`].
    pub async fn send(&self, request: Request) -> Result<Answer, ClientError> {
        let deadline = request.deadline;
        let answer = time::timeout(deadline, self.answer(request)).await;
        answer.unwrap_or(Err(ClientError::Timeout(deadline)))
    }

    async fn answer(&self, request: Request) -> Result<Answer, ClientError> {
        let begun = Instant::now();
        let mut url =
            Url::parse(&request.url).map_err(|error| ClientError::Url(error.to_string()))?;
        let headers = request::encode(&request.headers)?;
        let mut followed = 0;
        loop {
            self.inner.guard.check(&url)?;
            let sent = self
                .inner
                .transport(&url)?
                .request(request.method.clone(), url.clone())
                .headers(headers.clone())
                .body(request.body.clone());
            let response = sent.send().await.map_err(|error| ClientError::of(&error))?;
            match target(&response, &url) {
                None => return whole(response, request.max_bytes, begun).await,
                Some(next) => {
                    let is_followed = followed < REDIRECTS
                        && next.origin() == url.origin()
                        && keeps(&request.method, response.status());
                    if !is_followed {
                        return Err(ClientError::Redirect(host(&next)));
                    }
                    (url, followed) = (next, followed + 1);
                }
            }
        }
    }
}

impl Inner {
    fn transport(&self, url: &Url) -> Result<&reqwest::Client, ClientError> {
        let is_encrypted = url.scheme() == "https";
        let cell = if is_encrypted { &self.encrypted } else { &self.plain };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let trust = if is_encrypted {
            tls::system(&self.trusted)?
        } else {
            tls::nobody().map_err(|error| ClientError::of_tls(&error))?
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trust)
            .tls_info(true)
            .dns_resolver(self.guard.clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("lodestar/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::of(&error))?;
        Ok(cell.get_or_init(|| client))
    }
}

/// Returns where a redirect leads; `None` for an answer that is none.
fn target(response: &Response, url: &Url) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    url.join(location).ok()
}

/// Returns whether a redirect leaves a request what it is.
fn keeps(method: &Method, status: StatusCode) -> bool {
    *method == Method::GET || *method == Method::HEAD || matches!(status.as_u16(), 307 | 308)
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or("no host");
    crate::error::plain(&format!("{}://{host}", url.scheme()))
}

async fn whole(
    mut response: Response,
    max_bytes: usize,
    begun: Instant,
) -> Result<Answer, ClientError> {
    let said = response.content_length().and_then(|said| usize::try_from(said).ok());
    if said.is_some_and(|said| said > max_bytes) {
        return Err(ClientError::TooLarge(max_bytes));
    }
    let mut body = Vec::with_capacity(said.unwrap_or(0));
    while let Some(chunk) = response.chunk().await.map_err(|error| ClientError::of(&error))? {
        if body.len() + chunk.len() > max_bytes {
            return Err(ClientError::TooLarge(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    let tls = response.extensions().get::<TlsInfo>();
    let certificate = tls.and_then(TlsInfo::peer_certificate);
    let certificate_expires_at = certificate.and_then(certificate::expires_at);
    Ok(Answer {
        status: response.status(),
        date: date(response.headers()),
        headers: std::mem::take(response.headers_mut()),
        certificate_expires_at,
        body,
        elapsed: begun.elapsed(),
    })
}

fn date(headers: &header::HeaderMap) -> Option<Timestamp> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    rfc2822::parse(date).ok().map(|zoned| zoned.timestamp())
}
