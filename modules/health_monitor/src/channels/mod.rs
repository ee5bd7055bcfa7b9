//! Channels: the ways by which notes reach people, each a strategy behind [`Channel`].

mod command;
mod desktop;
mod email;
mod escape;
mod log;
mod ntfy;
mod process;
mod webhook;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use module_sdk::human;
use schemars::JsonSchema;
use serde::Deserialize;

pub use self::{
    command::CommandOptions,
    desktop::DesktopOptions,
    email::EmailOptions,
    log::LogOptions,
    ntfy::NtfyOptions,
    webhook::{Format, WebhookOptions},
};
use crate::notify::{note::Note, options::RouteOptions};

/// A way by which notes reach people.
pub trait Channel: Send + Sync {
    /// Sends a note. Dropping the future gives up.
    fn send<'a>(&'a self, envelope: &'a Envelope) -> Sending<'a>;
}

/// A note on its way.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + 'a>>;

/// A note with its id, by which a receiver knows one that comes again.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The id.
    pub id: String,
    /// The note.
    pub note: Note,
}

/// Reason why a note was not delivered. None of them shows a URL, a header or an argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A server that gave no answer.
    #[error("{0}")]
    Http(#[from] module_http_client::ClientError),
    /// A server that cannot take it now.
    #[error("the server answers {code}")]
    Status {
        /// Status of its answer.
        code: u16,
        /// Time after which it may be asked again.
        retry_after: Option<Duration>,
    },
    /// A server that does not take this note.
    #[error("the server refuses the note: {0}")]
    Refused(String),
    /// A mail that was not taken.
    #[error("{0}")]
    Mail(String),
    /// A program that is not there.
    #[error("{program} is not installed{hint}")]
    Missing {
        /// Name of the program.
        program: String,
        /// Remedy, with its punctuation.
        hint: &'static str,
    },
    /// A program that cannot be started or watched.
    #[error("{program} cannot be run: {message}")]
    Run {
        /// Name of the program.
        program: String,
        /// Words of the system.
        message: String,
    },
    /// A program that failed.
    #[error("{program} {ended}{}{said}", if said.is_empty() { "" } else { ": " })]
    Failed {
        /// Name of the program.
        program: String,
        /// Manner of its end: `ended with 1`.
        ended: String,
        /// First line of what it said, without its arguments.
        said: String,
    },
    /// No end in time.
    #[error("no end within {}", human::duration(*.0))]
    Late(Duration),
    /// A channel that broke down.
    #[error("the channel broke down; this is a fault of Lodestar")]
    Broken,
}

impl SendError {
    /// Returns whether the receiver does not take this note, so that another try is of little use.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Returns the time that the receiver asks for before the next try.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A channel.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ChannelOptions {
    /// The log of the daemon.
    Log(LogOptions),
    /// An HTTP request.
    Webhook(WebhookOptions),
    /// A mail.
    Email(EmailOptions),
    /// A note of ntfy.
    Ntfy(NtfyOptions),
    /// A note on the desktop.
    Desktop(DesktopOptions),
    /// A program that is run.
    Command(CommandOptions),
}

/// A key of a channel that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChannelError {
    /// The key.
    pub key: &'static str,
    /// Problem with it, and the remedy.
    message: String,
}

impl ChannelError {
    fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }
}

impl ChannelOptions {
    /// Returns the settings that every channel has.
    #[must_use]
    pub const fn route(&self) -> &RouteOptions {
        match self {
            Self::Log(options) => &options.route,
            Self::Webhook(options) => &options.route,
            Self::Email(options) => &options.route,
            Self::Ntfy(options) => &options.route,
            Self::Desktop(options) => &options.route,
            Self::Command(options) => &options.route,
        }
    }

    /// Returns the name of its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Webhook(_) => "webhook",
            Self::Email(_) => "email",
            Self::Ntfy(_) => "ntfy",
            Self::Desktop(_) => "desktop",
            Self::Command(_) => "command",
        }
    }

    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub fn check(&self) -> Result<(), ChannelError> {
        self.channel().map(drop)
    }

    /// Makes the channel.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub fn channel(&self) -> Result<Arc<dyn Channel>, ChannelError> {
        Ok(match self {
            Self::Log(_) => Arc::new(log::Log),
            Self::Webhook(options) => Arc::new(webhook::Webhook::new(options)?),
            Self::Email(options) => Arc::new(email::Email::new(options)?),
            Self::Ntfy(options) => Arc::new(ntfy::Ntfy::new(options)?),
            Self::Desktop(options) => Arc::new(desktop::Desktop::new(options)?),
            Self::Command(options) => Arc::new(command::Command::new(options)?),
        })
    }
}

/// Longest deadline of a channel.
const LONGEST: Duration = Duration::from_secs(60);

/// Checks a deadline.
fn deadline(span: crate::quantity::Span) -> Result<Duration, ChannelError> {
    if span.0 < Duration::from_millis(100) || span.0 > LONGEST {
        return Err(ChannelError::new("deadline", "must be from 100ms to 60s"));
    }
    Ok(span.0)
}
