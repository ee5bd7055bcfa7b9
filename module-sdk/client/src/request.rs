//! Requests and answers.

use std::{fmt, time::Duration};

use module_sdk::{Secret, jiff::Timestamp};
use reqwest::{
    Method, StatusCode, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use crate::ClientError;

/// A request. [`Request::get`] and [`Request::post`] begin one; its fields are set as needed.
#[derive(Clone)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// URL. It may hold a secret, so that errors and `Debug` show its host alone.
    pub url: String,
    /// Headers.
    pub headers: Vec<Header>,
    /// Body; empty for none.
    pub body: Vec<u8>,
    /// Time within which the whole answer has to be there.
    pub deadline: Duration,
    /// Largest size of the answer's body.
    pub max_bytes: usize,
}

impl Request {
    /// Creates a request for what is at a URL: within 10 s, and at most 1 MiB.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            deadline: Duration::from_secs(10),
            max_bytes: 1_048_576,
        }
    }

    /// Creates a request that sends a body to a URL: within 10 s, and at most 1 MiB of answer.
    #[must_use]
    pub fn post(url: impl Into<String>, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: Method::POST,
            headers: vec![Header::new("content-type", content_type)],
            body: body.into(),
            ..Self::get(url)
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(&self.url).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("host", &host)
            .field("headers", &self.headers)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .field("deadline", &self.deadline)
            .field("max_bytes", &self.max_bytes)
            .finish()
    }
}

/// A header of a request. A secret one prints as `[redacted]`.
#[derive(Clone)]
pub struct Header {
    name: String,
    value: String,
    is_secret: bool,
}

impl Header {
    /// Creates a header that everybody may see.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), is_secret: false }
    }

    /// Creates a header whose value is a secret.
    #[must_use]
    pub fn secret(name: impl Into<String>, secret: &Secret) -> Self {
        Self { name: name.into(), value: secret.expose().to_owned(), is_secret: true }
    }

    /// Creates the header `Authorization` with a bearer token.
    #[must_use]
    pub fn bearer(secret: &Secret) -> Self {
        let value = format!("Bearer {}", secret.expose());
        Self { name: "authorization".to_owned(), value, is_secret: true }
    }

    fn encoded(&self) -> Option<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_bytes(self.name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(&self.value).ok()?;
        value.set_sensitive(self.is_secret);
        Some((name, value))
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.is_secret { "[redacted]" } else { &self.value };
        write!(f, "{}: {value}", self.name)
    }
}

pub(crate) fn encode(headers: &[Header]) -> Result<HeaderMap, ClientError> {
    let encoded = headers.iter().map(|header| {
        header.encoded().ok_or_else(|| ClientError::Header(header.name.escape_debug().to_string()))
    });
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in encoded {
        let (name, value) = header?;
        map.append(name, value);
    }
    Ok(map)
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
    /// Time from the beginning of the request to the end of the answer.
    pub elapsed: Duration,
    /// Time from which on the server's certificate is not valid any more; `None` without TLS.
    pub certificate_expires_at: Option<Timestamp>,
    /// Time that the server's header `Date` says.
    pub date: Option<Timestamp>,
}

impl Answer {
    /// Returns the media type of the body, without its parameters and in lower case; empty where
    /// the server says none.
    #[must_use]
    pub fn content_type(&self) -> String {
        let value = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        let value = value.unwrap_or_default().split(';').next().unwrap_or_default();
        value.trim().to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let secret: Secret = serde_json::from_str("\"sk-canary\"").expect("a secret");
        let mut request = Request::get("https://user:sk-canary@a.example/sk-canary?key=sk-canary");
        request.headers = vec![
            Header::bearer(&secret),
            Header::secret("x-api-key", &secret),
            Header::new("accept", "application/json"),
        ];
        let shown = format!("{request:?}");
        assert!(!shown.contains("sk-canary"), "{shown}");
        assert!(shown.contains("a.example") && shown.contains("accept: application/json"));
        let encoded = format!("{:?}", encode(&request.headers).expect("they are headers"));
        assert!(!encoded.contains("sk-canary"), "{encoded}");
        let broken: Secret = serde_json::from_str("\"sk\\ncanary\"").expect("a secret");
        let error = encode(&[Header::bearer(&broken)]).expect_err("no header holds a line break");
        assert_eq!(error, ClientError::Header("authorization".to_owned()));
    }
}
