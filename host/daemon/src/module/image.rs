//! Code of one generation of a module, and the instance that is created from it.

use std::{
    borrow::Cow,
    os::fd::{IntoRawFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use lodestar_abi::{
    BatchOutcome, CreateRequest, Event as AbiEvent, ModError, ModuleBox, ReplySinkBox,
    abi_stable::std_types::RSlice,
};
use lodestar_library::{Inspected, Library};
use module_sdk::manifest::Manifest;
use serde_json::Value;

use super::{Configured, Services};

/// A kind of [`ModError`] that never crosses the ABI: the process of the module was ended by
/// somebody else. The module is not at fault; the events that it was handling are delivered again.
pub const GONE: u32 = 0x8000_0000;

/// The code of one generation of a module, ready to be started.
#[derive(Debug, Clone)]
pub enum Image {
    /// Library mapped into the daemon.
    Mapped(Arc<Library>),
    /// Mapped in a process of its own, never in the daemon.
    Isolated(Arc<dyn ProcessImage>),
}

/// The code of one generation of a module in processes of its own: the seam between its thread and
/// whatever starts those.
pub trait ProcessImage: std::fmt::Debug + Send + Sync {
    /// Returns the results of the checks of the library.
    fn inspected(&self) -> &Inspected;
    /// Returns the description of the library, JSON.
    ///
    /// # Errors
    ///
    /// Returns the error of the module, or that its process ended.
    fn describe(&self) -> Result<Vec<u8>, ModError>;
    /// Checks whether the module accepts this configuration.
    ///
    /// # Errors
    ///
    /// Returns the error of the module, or that its process ended.
    fn validate(&self, config: &[u8]) -> Result<(), ModError>;
    /// Starts the module.
    ///
    /// # Errors
    ///
    /// Returns the error of the module, or that its process ended.
    fn create(
        &self,
        config: &[u8],
        restored: &[u8],
        services: &Arc<Services>,
    ) -> Result<Box<dyn Instance>, ModError>;
}

/// Starts a first process for a library that was checked, and maps it there.
pub type StartProcess =
    Box<dyn FnOnce(Inspected, &Configured) -> Result<Arc<dyn ProcessImage>, Refused>>;

/// A module that was started: the seam between its thread and wherever its code runs.
pub trait Instance {
    /// Hands over events, oldest first.
    fn on_batch(&mut self, events: &[AbiEvent<'_>]) -> BatchOutcome;
    /// Calls the timer number `index`, which is due.
    fn on_timer(&mut self, index: u32) -> Result<(), ModError>;
    /// Runs a command; the answer goes to `sink`, its files come from the descriptor. Fails when
    /// the command panicked and the sink could not be told at once.
    fn command(
        &mut self,
        request: &[u8],
        sink: ReplySinkBox,
        files: Option<OwnedFd>,
    ) -> Result<(), ModError>;
    /// Returns the module's health, JSON.
    fn health(&mut self) -> Vec<u8>;
    /// Sets the log level.
    fn log_level(&mut self, level: u32);
    /// Returns the module's state for the next generation, JSON; empty for none.
    fn snapshot(&mut self) -> Result<Vec<u8>, ModError>;
    /// Stops the module. The instance is dropped afterwards.
    fn stop(&mut self, grace: Duration) -> Result<(), ModError>;
    /// Returns why no call will return any more, where the module's code runs in a process that has
    /// ended.
    fn gone(&self) -> Option<ModError> {
        None
    }
}

/// Reason why there is no process for a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The library does not fit this host.
    #[error("{0}")]
    Incompatible(String),
    /// Somebody else ended the process.
    #[error("{0}")]
    EndedByOthers(String),
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

/// A module's process as the control API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessView {
    /// Its number.
    pub pid: u32,
    /// The number of the generation that runs in it.
    pub generation: u64,
    /// The limit on its memory in words, `None` without one.
    pub memory_limit: Option<String>,
    /// The limit on its time on the processors in words, `None` without one.
    pub cpu_limit: Option<String>,
    /// The limit on its threads and processes in words.
    pub tasks_limit: String,
    /// The limit on its data directory in words.
    pub data_limit: String,
    /// Each limit that was asked for and that no control group holds, with what to do.
    pub limits_without_group: Vec<String>,
    /// Description of how far its sandbox holds.
    pub sandbox: String,
}

impl Image {
    /// Returns the manifest in the library.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::Mapped(library) => library.manifest(),
            Self::Isolated(isolated) => &isolated.inspected().manifest,
        }
    }

    /// Returns the hash of the library's bytes.
    #[must_use]
    pub fn sha256(&self) -> &str {
        match self {
            Self::Mapped(library) => library.sha256(),
            Self::Isolated(isolated) => &isolated.inspected().sha256,
        }
    }

    /// Returns the version of the SDK that the library was built with.
    #[must_use]
    pub fn sdk_version(&self) -> String {
        match self {
            Self::Mapped(library) => library.build().sdk_version(),
            Self::Isolated(isolated) => isolated.inspected().build.sdk_version(),
        }
    }

    /// Returns the path that the library was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Mapped(library) => library.path(),
            Self::Isolated(isolated) => &isolated.inspected().path,
        }
    }

    /// Records whether a later generation runs in place of this one.
    pub(super) fn set_replaced(&self, replaced: bool) {
        match self {
            Self::Mapped(library) => library.set_replaced(replaced),
            Self::Isolated(_) => {}
        }
    }

    /// Returns the module's description, JSON.
    pub(super) fn describe(&self) -> Result<Vec<u8>, ModError> {
        match self {
            Self::Mapped(library) => {
                (library.root().describe())().into_result().map(|bytes| bytes.to_vec())
            }
            Self::Isolated(isolated) => isolated.describe(),
        }
    }

    /// Checks whether the module takes this configuration.
    pub(super) fn validate(&self, config: &[u8]) -> Result<(), ModError> {
        match self {
            Self::Mapped(library) => (library.root().validate())(config.into()).into_result(),
            Self::Isolated(isolated) => isolated.validate(config),
        }
    }

    /// Starts the module.
    pub(super) fn create(
        &self,
        config: &[u8],
        restored: &[u8],
        services: &Arc<Services>,
    ) -> Result<Box<dyn Instance>, ModError> {
        match self {
            Self::Mapped(library) => {
                services.serve(library.clone());
                let request = CreateRequest {
                    config: RSlice::from_slice(config),
                    restored: RSlice::from_slice(restored),
                    reserved: [0; 4],
                };
                let created = (library.root().create())(request, services.to_abi());
                created.into_result().map(|module| Box::new(module) as Box<dyn Instance>)
            }
            Self::Isolated(isolated) => isolated.create(config, restored, services),
        }
    }
}

/// Adds the descriptor that the files of a command come from to its request, JSON. The module owns
/// the descriptor from then on.
#[must_use]
pub(crate) fn with_files(request: &[u8], files: Option<OwnedFd>) -> Cow<'_, [u8]> {
    let Some(files) = files else { return request.into() };
    // Written by the daemon a moment ago: it is an object.
    let Ok(Value::Object(mut object)) = serde_json::from_slice(request) else {
        return request.into();
    };
    object.insert("files".to_owned(), files.into_raw_fd().into());
    Value::Object(object).to_string().into_bytes().into()
}

impl Instance for ModuleBox {
    fn on_batch(&mut self, events: &[AbiEvent<'_>]) -> BatchOutcome {
        Self::on_batch(self, events.into())
    }

    fn on_timer(&mut self, index: u32) -> Result<(), ModError> {
        Self::on_timer(self, index).into_result()
    }

    fn command(
        &mut self,
        request: &[u8],
        sink: ReplySinkBox,
        files: Option<OwnedFd>,
    ) -> Result<(), ModError> {
        Self::command(self, (&*with_files(request, files)).into(), sink);
        Ok(())
    }

    fn health(&mut self) -> Vec<u8> {
        Self::health(self).to_vec()
    }

    fn log_level(&mut self, level: u32) {
        Self::log_level(self, level);
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, ModError> {
        Self::snapshot(self).into_result().map(|bytes| bytes.to_vec())
    }

    fn stop(&mut self, grace: Duration) -> Result<(), ModError> {
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        Self::stop(self, grace).into_result()
    }
}
