//! Logs of the daemon and its modules: to standard error, and to `lodestar modules logs`.

mod levels;
mod output;
mod printed;
mod rate;
mod record;

use std::{io, sync::Arc};

use tracing::Level;
use tracing_subscriber::{Registry, layer::SubscriberExt as _};

pub use levels::{Levels, parse as parse_level};
pub use module_secrets::{KeyLines, Redactor};
use output::Output;
pub(crate) use printed::Lines;
pub use printed::Printed;
pub use rate::{LOG_RECORDS_PER_SECOND, LogRate};
pub use record::{LogRecord, Recorder};

/// The target of everything that a module logs; its own target is the field `origin`.
pub const MODULE_TARGET: &str = "lodestar::module";

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// The parts of logging that are used and changed while the daemon runs.
#[derive(Debug, Clone)]
pub struct Logging {
    /// Levels of the daemon and of each module.
    pub levels: Arc<Levels>,
    /// Recorder of the newest records.
    pub recorder: Recorder,
    /// Redactor of secrets, which must not appear.
    pub redactor: Arc<Redactor>,
}

impl Logging {
    /// Creates a logging that writes nowhere, for checks.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            levels: Arc::new(Levels::new(0)),
            recorder: Recorder::default(),
            redactor: Arc::new(Redactor::new()),
        }
    }
}

/// Begins to log. Call once.
///
/// # Errors
///
/// When something else in this process logs already, or there is no standard error.
pub fn start(levels: Levels, format: LogFormat) -> io::Result<Logging> {
    let logging = Logging {
        levels: Arc::new(levels),
        recorder: Recorder::default(),
        redactor: Arc::new(Redactor::new()),
    };
    let output = Output::stderr(format)?;
    let subscriber = Registry::default()
        .with(levels::filter(logging.levels.clone()))
        .with(record::layer(logging.recorder.clone(), logging.redactor.clone(), Some(output)));
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    Ok(logging)
}

/// Logs a message of a module. `level` is the ABI's: 1 error … 5 trace.
pub fn module_said(module: &str, level: u32, origin: &str, message: &str, fields: &str) {
    macro_rules! say {
        ($level:expr) => {
            if matches!(fields, "" | "{}") {
                tracing::event!(target: MODULE_TARGET, $level, module, origin, "{message}")
            } else {
                tracing::event!(target: MODULE_TARGET, $level, module, origin, fields, "{message}")
            }
        };
    }
    match level {
        0 | 1 => say!(Level::ERROR),
        2 => say!(Level::WARN),
        3 => say!(Level::INFO),
        4 => say!(Level::DEBUG),
        _ => say!(Level::TRACE),
    }
}
