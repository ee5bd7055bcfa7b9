//! Failures of a translation.

use crate::dialect::Dialect;

/// Failure of a translation. Its text holds nothing of a prompt or an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TranslateError {
    /// The body is no JSON.
    #[error("the body is not valid JSON: line {line}, column {column}")]
    NotJson {
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault.
        column: usize,
    },
    /// A part of the body is not as its dialect says.
    #[error("{0}")]
    Malformed(&'static str),
    /// The other dialect has no word for something without which the request loses its meaning.
    #[error("{0} cannot be asked of this model")]
    Unsupported(&'static str),
    /// There is no translation between the two dialects.
    #[error("there is no translation from {from:?} to {to:?}")]
    NoPair {
        /// Dialect of the body.
        from: Dialect,
        /// Dialect that is wanted.
        to: Dialect,
    },
    /// The provider told of an error in its answer or stream.
    #[error("the provider reported an error in its answer")]
    Upstream {
        /// Words of the provider, for the client alone: they may repeat a prompt.
        message: String,
    },
}
