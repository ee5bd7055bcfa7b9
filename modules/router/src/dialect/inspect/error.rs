//! Reasons why a body is no request, in words for whoever sent it.

use super::keys::SPELLING;

/// Reason why a body is no request. The text is for the sender, and holds none of the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InspectError {
    /// Nothing.
    #[error("the body is empty; send a request in JSON")]
    Empty,
    /// Bytes that are no UTF-8.
    #[error("the body is not UTF-8 (byte {0}); send JSON in UTF-8")]
    NotUtf8(usize),
    /// Text that is no JSON.
    #[error("the body is not whole JSON (line {line}, column {column}); {what}")]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// Fault in words.
        what: &'static str,
    },
    /// JSON of another form.
    #[error(
        "the body has another form than this endpoint takes (line {line}, column {column}){what}"
    )]
    Form {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// Words on the form that is expected, beginning with a separator.
        what: String,
    },
}

/// Returns the error of a body of another form, whose place is told by its words.
pub(super) fn form(what: &str) -> InspectError {
    InspectError::Form { line: 1, column: 1, what: what.to_owned() }
}

/// Returns the error of a body that the library cannot read.
pub(super) fn refusal(error: &serde_json::Error) -> InspectError {
    use serde_json::error::Category;

    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Eof => InspectError::NotJson { line, column, what: "it ends too early" },
        Category::Syntax | Category::Io => {
            let what = if error.to_string().starts_with("recursion limit") {
                "it nests too deeply"
            } else {
                "check what the client sends"
            };
            InspectError::NotJson { line, column, what }
        }
        Category::Data => {
            // The library's words may hold values of the body; names of fields are our own.
            let words = error.to_string();
            let is_of_key = words.starts_with("duplicate field") || words.starts_with(SPELLING);
            let what = if is_of_key {
                words.split(" at line").next().map(|words| format!(": {words}"))
            } else {
                let expected = words.rsplit_once(", expected ").map(|(_, expected)| expected);
                let expected = expected.and_then(|words| words.split(" at line").next());
                let expected = expected.map(|words| match words {
                    "struct Body" => "an object",
                    words => words,
                });
                expected.map(|expected| format!(": {expected} is expected there"))
            };
            InspectError::Form { line, column, what: what.unwrap_or_default() }
        }
    }
}
