//! Failures of a translation.

use crate::dialect::Dialect;

/// Failure of a translation. Its text holds nothing of a prompt or an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TranslateError {
    /// The body is no JSON.
    #[error("the body cannot be read (line {line}, column {column}): {what}")]
    NotJson {
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault.
        column: usize,
        /// Fault in words.
        what: &'static str,
    },
    /// A part of the body is not as its dialect says.
    #[error("{0}")]
    Malformed(&'static str),
    /// The other dialect has no word for something without which the request loses its meaning.
    #[error("{0} cannot be asked of this model")]
    Unsupported(&'static str),
    /// There is no translation between the two dialects.
    #[error("{} cannot be asked of a provider of this API", .from.asks_for())]
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

impl TranslateError {
    /// Returns the failure of a body that cannot be read. The words of the library may hold values
    /// of the body, so they only choose among ours.
    pub(super) fn not_json(error: &serde_json::Error) -> Self {
        let words = error.to_string();
        let what = if words.starts_with("recursion limit") {
            "it nests too deeply for a model of another dialect"
        } else if words.contains("surrogate") || words.contains("hex escape") {
            "a text in it ends in the middle of a character (half of a pair like \\ud83d\\ude00)"
        } else if error.is_eof() {
            "it ends too early"
        } else {
            "it is no JSON"
        };
        Self::NotJson { line: error.line(), column: error.column(), what }
    }
}
