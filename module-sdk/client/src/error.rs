//! Reasons why there is no answer.

use std::{error::Error, io, time::Duration};

use module_sdk::human;

use crate::guard::Refusal;

/// Reason why there is no answer. It shows the host at most, and nothing that a server sent as it
/// came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// A URL that cannot be used.
    #[error("the URL cannot be used: {0}")]
    Url(String),
    /// A header that cannot be sent, by its name.
    #[error("the header {0} cannot be sent: it has characters that no header may have")]
    Header(String),
    /// A host that is not to be reached.
    #[error("{host} is not asked: {refusal}")]
    Refused {
        /// Host of the URL.
        host: String,
        /// Reason of the refusal.
        refusal: Refusal,
    },
    /// A name without an address.
    #[error("{host} has no address: {message}")]
    Dns {
        /// The name.
        host: String,
        /// Words of the system.
        message: String,
    },
    /// No connection.
    #[error("{0}")]
    Connect(String),
    /// No encryption, or a certificate that does not hold.
    #[error("bad certificate or encryption: {0}")]
    Tls(String),
    /// No answer in time.
    #[error("no answer within {}", human::duration(*.0))]
    Timeout(Duration),
    /// A body beyond the limit of bytes.
    #[error("the answer is larger than {}", human::bytes(*.0 as u64))]
    TooLarge(usize),
    /// A redirect that is not followed, with the host that it leads to.
    #[error("the server redirects to {0}, which is not followed")]
    Redirect(String),
    /// An answer that is no HTTP, or ends before its end.
    #[error("the answer is no HTTP: {0}")]
    Protocol(String),
}

impl ClientError {
    /// Returns the kind of the reason in a word, as a label has it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Header(_) => "header",
            Self::Refused { .. } => "refused",
            Self::Dns { .. } => "dns",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Timeout(_) => "timeout",
            Self::TooLarge(_) => "too_large",
            Self::Redirect(_) => "redirect",
            Self::Protocol(_) => "protocol",
        }
    }

    /// Finds out what a failure of the library under this one was.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        Self::of_source(error, error.is_connect())
    }

    /// Finds out what made the body of an answer of a [`Pool`](crate::Pool) end early.
    #[must_use]
    pub fn of_body(error: hyper::Error) -> Self {
        Self::of_source(&error, false)
    }

    /// Says that a request cannot be written down.
    #[must_use]
    pub fn of_http(error: http::Error) -> Self {
        Self::Url(plain(&error.to_string()))
    }

    pub(crate) fn of_source(error: &(dyn Error + 'static), is_connect: bool) -> Self {
        let mut io_error = None;
        let mut last = error;
        while let Some(next) = beneath(last) {
            last = next;
            if let Some(own) = last.downcast_ref::<Self>() {
                return own.clone();
            }
            if let Some(tls) = last.downcast_ref::<rustls::Error>() {
                return Self::of_tls(tls);
            }
            io_error = last.downcast_ref::<io::Error>().or(io_error);
        }
        match io_error {
            Some(found) if found.kind() == io::ErrorKind::TimedOut && is_connect => {
                Self::Connect("no connection in time".to_owned())
            }
            Some(found) if is_connect => Self::Connect(connect_message(found)),
            Some(found) => Self::Protocol(connect_message(found)),
            None if is_connect => Self::Connect(plain(&last.to_string())),
            None => Self::Protocol(plain(&last.to_string())),
        }
    }

    pub(crate) fn of_tls(error: &rustls::Error) -> Self {
        use rustls::CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
            NotValidYetContext, Revoked, UnknownIssuer,
        };

        // The library's own words may repeat names that the server chose.
        let message = match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                Expired | ExpiredContext { .. } => "the certificate has expired".to_owned(),
                NotValidYet | NotValidYetContext { .. } => {
                    "the certificate is not valid yet; a wrong clock may be why".to_owned()
                }
                NotValidForName | NotValidForNameContext { .. } => {
                    "the certificate is for another name".to_owned()
                }
                UnknownIssuer => "the certificate is signed by nobody who is trusted".to_owned(),
                Revoked => "the certificate is revoked".to_owned(),
                other => plain(&format!("the certificate is not valid: {other:?}")),
            },
            rustls::Error::InvalidMessage(_) => "the server does not speak TLS".to_owned(),
            other => plain(&other.to_string()),
        };
        Self::Tls(message)
    }
}

/// Returns what an error comes from. An I/O error that wraps another names only the source of that.
fn beneath<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn connect_message(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "the host cannot be reached".to_owned(),
        io::ErrorKind::NetworkUnreachable => "the network cannot be reached".to_owned(),
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => plain(&error.to_string()),
    }
}

/// Writes out what a terminal would obey, and shortens.
pub(crate) fn plain(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
