//! Attempts that failed before any content.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::dialect::fault::Fault;

/// An attempt that failed before any content.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Next step.
    pub class: FailureClass,
    /// Error for the client, where no other attempt answers.
    pub fault: Fault,
    /// Error as the provider wrote it, where the client understands it.
    pub passed: Option<(StatusCode, HeaderMap, Bytes)>,
}

/// Next step after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureClass {
    /// The request is at fault: nothing.
    Request,
    /// This target cannot answer it: the next one.
    Target,
    /// This target has no such endpoint: the same at once, by another one.
    Endpoint,
    /// The provider is asked too often: the next one, or the same after a pause.
    RateLimited(Option<Duration>),
    /// It may pass: the same again, then the next one.
    Transient,
    /// It says nothing: the next one, or the same again where there is none. To wait for it twice
    /// takes twice as long.
    Silent,
}

impl Failed {
    /// Creates a failure of our own.
    pub(crate) fn own(fault: Fault) -> Self {
        Self { class: FailureClass::Target, fault, passed: None }
    }
}
