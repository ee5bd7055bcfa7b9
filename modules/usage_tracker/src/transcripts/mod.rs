//! Transcripts: the files in which tools write what they do, read for what was used. Of a line only
//! numbers, names, times and identifiers are read, never a text.
//!
//! Every tool has one small reader. A reader of lines gets those that may tell of a request, one
//! after the other; a reader of documents gets a whole file.

mod aider;
mod amp;
mod claude_code;
mod codebuddy;
mod codebuff;
mod codex;
mod copilot;
mod counts;
mod detect;
mod droid;
mod gemini;
mod json;
mod kimi;
mod lines;
mod names;
mod opencode;
mod pi;
mod qwen;
mod sums;

use module_sdk::events::{LlmRequestCompleted, RequestSource, RequestStatus};
use module_transcripts::Tool;
use thiserror::Error;

pub(crate) use detect::tool_of;
pub(crate) use lines::{LONGEST, Line, Lines};

/// Reason for which a line or a file is left out. It shows none of the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Fault {
    /// The line is no JSON; the number is that of the column.
    #[error("is no JSON, from column {0}")]
    NoJson(usize),
    /// The line ends too early.
    #[error("is cut off")]
    Cut,
    /// The line is too long.
    #[error("is longer than {} MiB", LONGEST >> 20)]
    TooLong,
    /// The file is one document, and too long.
    #[error("is one document of more than {} MiB", LARGEST_DOCUMENT >> 20)]
    TooLarge,
    /// The file has a form that nobody knows.
    #[error(
        "is of no tool that is known; name the tool: `lodestar usage import TOOL PATH`, if it is \
         of one"
    )]
    Unknown,
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        if error.is_eof() { Self::Cut } else { Self::NoJson(error.column()) }
    }
}

/// Largest file that is read as one document, in bytes.
pub(crate) const LARGEST_DOCUMENT: usize = 32 << 20;

/// A request that a transcript tells of. Names of persons, sessions and folders are as they are in
/// the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Found {
    /// The request, as far as it is known.
    pub(crate) request: LlmRequestCompleted,
    /// Folder in which the tool worked.
    pub(crate) folder: Option<String>,
    /// `true` for what a side chain says, which may repeat its parent under other ids.
    pub(crate) is_side_chain: bool,
    /// Number of its line, 0 where it has none.
    pub(crate) line: u64,
}

/// Sum that a tool itself states of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The session, as the file names it.
    pub(crate) session: String,
    /// Cost, in nano-USD; `None` where the tool does not know all prices.
    pub(crate) cost_nano_usd: Option<i64>,
    /// Tokens of the whole input.
    pub(crate) input_tokens: u64,
    /// Tokens of the whole output.
    pub(crate) output_tokens: u64,
}

/// Requests and sums that were found in a file.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    /// The requests.
    pub(crate) found: Vec<Found>,
    /// Sums that the tool states.
    pub(crate) statements: Vec<Statement>,
    /// Number of records: lines, or parts of a document, that tell of a request.
    pub(crate) records: u64,
}

/// Knowledge of a file before it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// Name of the file.
    pub(crate) name: &'a str,
    /// Time of its last change, in milliseconds since the Unix epoch: the time of a record that
    /// has none.
    pub(crate) changed_ms: i64,
}

impl<'a> Origin<'a> {
    /// Returns the name of the file without folders and endings.
    fn stem(&self) -> &'a str {
        let file = self.name.rsplit('/').next().unwrap_or_default();
        file.split('.').next().unwrap_or(file)
    }

    /// Returns the name of the folder that the file is in.
    fn folder(&self) -> &'a str {
        self.name.rsplit('/').nth(1).unwrap_or_default()
    }
}

/// A reader of the lines of one file.
pub(crate) trait LineReader {
    /// Reads a line. One that tells of no request is no fault.
    ///
    /// # Errors
    ///
    /// Why the line cannot be read.
    fn line(&mut self, line: &[u8], number: u64, harvest: &mut Harvest) -> Result<(), Fault>;

    /// Gives out what waits for more lines: there are no more for now.
    fn end(&mut self, _: &mut Harvest) {}
}

/// The way in which a file is read.
pub(crate) enum Reading<'a> {
    /// Line by line.
    Lines(Box<dyn LineReader + 'a>),
    /// As one document.
    Document(fn(&[u8], Origin<'_>, &mut Harvest) -> Result<(), Fault>),
}

/// Returns the way in which a file of a tool is read.
pub(crate) fn reading(tool: Tool, origin: Origin<'_>) -> Reading<'_> {
    let is_json = origin.name.ends_with(".json");
    match tool {
        Tool::ClaudeCode | Tool::Cowork => {
            Reading::Lines(Box::new(claude_code::Reader::new(tool, origin)))
        }
        Tool::Codex => Reading::Lines(Box::new(codex::Reader::new(origin))),
        Tool::Gemini if is_json => Reading::Document(gemini::document),
        Tool::Gemini => Reading::Lines(Box::new(gemini::Reader::new(origin))),
        Tool::Opencode if is_json => Reading::Document(opencode::document),
        Tool::Opencode | Tool::Kilo => Reading::Lines(Box::new(opencode::Reader(tool))),
        Tool::Aider => Reading::Lines(Box::new(aider::Reader::default())),
        Tool::Amp => Reading::Document(amp::document),
        Tool::Codebuddy => Reading::Lines(Box::new(codebuddy::Reader(origin))),
        Tool::Codebuff => Reading::Document(codebuff::document),
        Tool::Copilot => Reading::Lines(Box::new(copilot::Reader::new(origin))),
        Tool::Droid => Reading::Document(droid::document),
        Tool::Goose | Tool::Hermes => Reading::Lines(Box::new(sums::Reader(tool))),
        Tool::Kimi => Reading::Lines(Box::new(kimi::Reader(origin))),
        Tool::Openclaw | Tool::Pi => Reading::Lines(Box::new(pi::Reader::new(tool, origin))),
        Tool::Qwen => Reading::Lines(Box::new(qwen::Reader(origin))),
    }
}

/// Returns whether each line of a tool can be understood without those before it, so that a file
/// is read on from where it ended.
pub(crate) const fn goes_on(tool: Tool) -> bool {
    matches!(tool, Tool::ClaudeCode | Tool::Cowork | Tool::Codebuddy | Tool::Kimi | Tool::Qwen)
}

/// Returns a request of a tool that ended well, of which no more is known.
fn begun(tool: Tool) -> LlmRequestCompleted {
    LlmRequestCompleted {
        schema: 1,
        source: Some(RequestSource::Transcript),
        client: Some(client(tool).to_owned()),
        operation: Some("chat".to_owned()),
        status: Some(RequestStatus::Ok),
        ..LlmRequestCompleted::default()
    }
}

/// Returns the name that a tool has as a client, whoever reports its requests.
const fn client(tool: Tool) -> &'static str {
    match tool {
        Tool::Gemini => "gemini-cli",
        tool => tool.name(),
    }
}

/// Sets the end of a request and its start, as far as they are known.
fn set_times(request: &mut LlmRequestCompleted, started_at: Option<i64>, ended_at: i64) {
    let started = started_at.filter(|started| *started <= ended_at);
    request.ended_at = ended_at;
    request.started_at = started.unwrap_or(ended_at);
    request.duration_ms = started.and_then(|started| u32::try_from(ended_at - started).ok());
}

/// Sets the model, and the provider where the file does not name it.
fn set_model(request: &mut LlmRequestCompleted, model: Option<String>, provider: Option<String>) {
    let known = provider.map(|name| names::provider(&name));
    let of_model = || model.as_deref().and_then(names::provider_of_model).map(str::to_owned);
    request.provider = known.or_else(of_model);
    request.request_model.clone_from(&model);
    request.response_model = model;
}

#[cfg(test)]
mod tests;
