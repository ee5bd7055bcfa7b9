//! Preparation of a generation: everything before a module's own code is asked to start.

use std::{borrow::Cow, sync::Arc};

use lodestar_abi::{ModError, error_kind};
use lodestar_library::{Inspected, LoadError, inspect};
use module_sdk::{Description, Health};

use super::{CallClock, Configured, Image, Known, Refused, Start, State};
use crate::logging::Redactor;

/// Reason why a module does not start, with the state that this leaves it in.
pub(super) type Refusal = (State, String);

/// A generation that may be started.
pub(super) struct Generation {
    pub(super) image: Image,
    pub(super) configured: Configured,
    pub(super) known: Arc<Known>,
}

pub(super) fn failed(reason: impl Into<String>) -> Refusal {
    (State::Failed, reason.into())
}

/// Reads and checks the file.
pub(super) fn read(start: &Start) -> Result<Inspected, Refusal> {
    let inspected = inspect(&start.package).map_err(|error| refused(&error))?;
    (start.admit)(&inspected).map_err(|error| (State::Incompatible, error.to_string()))?;
    Ok(inspected)
}

/// Works out the configuration, maps the library, and asks it for its description and whether it
/// takes the configuration.
pub(super) fn load(
    start: &Start,
    clock: &CallClock,
    inspected: Inspected,
) -> Result<Generation, Refusal> {
    let configured = (start.configure)(&inspected.manifest, &inspected.path);
    let configured = configured.map_err(|error| failed(error.to_string()))?;
    let image = clock.time("load", || image(start, inspected, &configured))?;
    // Until a successor has taken over, nothing of it is to stay.
    image.set_replaced(start.successor);
    let known = clock
        .time("description", || describe(&image))
        .map_err(|(state, reason)| (state, start.context.redactor.redact(&reason).into_owned()))?;
    let validated = clock.time("validation", || image.validate(&configured.config));
    validated.map_err(|error| failed(explain(start, &error)))?;
    Ok(Generation { image, configured, known })
}

/// Opens the library, mapped into the daemon or behind a process of its own.
fn image(start: &Start, inspected: Inspected, configured: &Configured) -> Result<Image, Refusal> {
    let Some(start_process) = (start.place)(&inspected) else {
        let library = start.loaded_libraries.open(inspected, start.successor);
        return library.map(Image::Mapped).map_err(|error| refused(&error));
    };
    start_process(inspected, configured).map(Image::Isolated).map_err(|error| match error {
        Refused::Incompatible(reason) => (State::Incompatible, reason),
        error => failed(error.to_string()),
    })
}

fn refused(error: &LoadError) -> Refusal {
    let state = if error.is_incompatible() { State::Incompatible } else { State::Failed };
    (state, error.to_string())
}

/// Asks the library what it is. The schema of its configuration, which is large, is not kept: who
/// needs it asks for it.
pub(super) fn describe(image: &Image) -> Result<Arc<Known>, Refusal> {
    let bytes = image
        .describe()
        .map_err(|error| failed(format!("cannot describe itself: {}", error.message)))?;
    let mut description: Description = serde_json::from_slice(&bytes)
        .map_err(|error| failed(format!("its description cannot be read: {error}")))?;
    drop(std::mem::take(&mut description.config_schema));
    let manifest = image.manifest().clone();
    for subscription in &description.subscriptions {
        if !manifest.bus.consumes.contains(&subscription.filter) {
            return Err(failed(format!(
                "it listens to {}, which its module.toml does not declare; add it to bus.consumes",
                subscription.filter
            )));
        }
    }
    Ok(Arc::new(Known {
        manifest,
        description,
        sha256: image.sha256().to_owned(),
        sdk_version: image.sdk_version(),
        path: image.path().to_owned(),
        isolated: matches!(image, Image::Isolated(_)),
    }))
}

/// Returns the reason that a module gives for refusing to start, as a sentence and without secrets.
pub(super) fn explain(start: &Start, error: &ModError) -> String {
    let words = if error.kind == error_kind::CONFIG {
        (start.explain)(error.message.as_str())
    } else if error.kind == error_kind::PANIC {
        format!("{} {}", error.place, error.message)
    } else {
        error.message.to_string()
    };
    start.context.redactor.redact(&words).into_owned()
}

/// Reads a module's report of its health, without secrets.
pub(super) fn health(redactor: &Redactor, bytes: &[u8]) -> Health {
    let mut health: Health = serde_json::from_slice(bytes)
        .unwrap_or_else(|error| Health::failed(format!("it gave no health: {error}")));
    if let Cow::Owned(message) = redactor.redact(&health.message) {
        health.message = message;
    }
    health
}

impl Generation {
    pub(super) fn known(&self) -> Arc<Known> {
        self.known.clone()
    }
}
