//! Events about runs and versions. A failure to tell is only logged: what happened has happened.

use module_sdk::{
    Host,
    events::{LearningRunProgressed, LearningVersionChanged},
};

use crate::{
    registry::audit::Entry,
    run::{RunState, Told},
};

/// Tells how far a run is.
pub(crate) fn run_progressed(
    host: &Host,
    (run, version): (&str, &str),
    state: RunState,
    on_card: bool,
    told: &Told,
) {
    let event = LearningRunProgressed {
        schema: 1,
        run: run.to_owned(),
        version: version.to_owned(),
        state: state.as_str().to_owned(),
        on_card,
        step: told.step,
        max_steps: told.max_steps,
        loss: told.loss,
        eval_loss: told.eval_loss,
        at: host.now().as_millisecond(),
    };
    if let Err(error) = host.emit(&event) {
        tracing::warn!(%error, "cannot tell how far a run is");
    }
}

/// Tells of an entry of the registry's log.
pub(crate) fn version_changed(host: &Host, entry: &Entry) {
    let event = LearningVersionChanged {
        schema: 1,
        version: entry.version.clone(),
        action: entry.action.clone(),
        from: entry.from.clone(),
        to: entry.to.clone(),
        at: entry.at,
    };
    if let Err(error) = host.emit(&event) {
        tracing::warn!(%error, "cannot tell that a version changed");
    }
}
