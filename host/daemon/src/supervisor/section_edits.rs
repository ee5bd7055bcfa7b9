//! Edits of the configuration file by the daemon itself, a section at a time.

use lodestar_api::{Problem, ProblemCode};
use lodestar_config::{self as config, ConfigErrors};

use super::{Daemon, shown};

/// An edit of the configuration file, which can be undone.
#[derive(Debug)]
pub(super) struct Edited {
    /// Place in the file and change, as shown to the user.
    pub(super) what: String,
    before: String,
    after: String,
}

/// Undoes an edit that was refused. Returns the answer to its request.
pub(super) fn undo(daemon: &Daemon, edited: Option<Edited>, errors: &ConfigErrors) -> Problem {
    let mut what = errors.to_string();
    let mut help = "correct the file; `lodestar config check` shows every error";
    if let Some(Edited { before, after, .. }) = edited {
        match config::write_atomically(&daemon.places.config, &after, &before) {
            Ok(()) => help = "nothing was changed; correct the file first",
            Err(error) => what = format!("{what}; the edit stays: {error}"),
        }
    }
    Problem::new(ProblemCode::Invalid, what).help(help)
}

/// Writes `enabled` of a module into the file. Returns the edit, `None` where nothing changed.
pub(super) fn switch(
    daemon: &Daemon,
    module: &str,
    enabled: bool,
) -> Result<Option<Edited>, Problem> {
    let path = &daemon.places.config;
    let refused = |error: String| {
        Problem::new(ProblemCode::Refused, error)
            .help("edit the file by hand; the daemon takes it when it is saved")
    };
    let text = daemon.configuration.text_to_edit()?;
    let edited =
        config::set_enabled(&text, module, enabled).map_err(|error| refused(error.to_string()))?;
    if edited.text == text {
        return Ok(None);
    }
    daemon.configuration.write(&text, &edited.text)?;
    let (place, line, after) = (shown(path), edited.line, edited.after);
    let before = edited.before.map_or_else(|| "absent".to_owned(), |value| value.to_string());
    let what = format!("{place}:{line} enabled: {before} -> {after}");
    Ok(Some(Edited { what, before: text, after: edited.text }))
}

/// Adds a section for a module to the file. Returns the place for the user, `None` where the module
/// has one already.
pub(super) fn add_section(
    daemon: &Daemon,
    module: &str,
    notes: &[String],
) -> Result<Option<String>, Problem> {
    // Of the file as it lies there: an edit may not have been taken yet.
    if daemon.configuration.load().is_ok_and(|config| config.module(module).is_some()) {
        return Ok(None);
    }
    let path = &daemon.places.config;
    let refused = |error: String| {
        let what = format!("{module} cannot be given its section: {error}");
        Problem::new(ProblemCode::Refused, what).help(format!(
            "write `{module}: {{enabled: false}}` below `modules:` by hand, then install it"
        ))
    };
    let text = daemon.configuration.text_to_edit()?;
    let edited =
        config::add_section(&text, module, notes).map_err(|error| refused(error.to_string()))?;
    if edited.text == text {
        return Ok(None);
    }
    daemon.configuration.write(&text, &edited.text)?;
    Ok(Some(format!("{}:{} {module} added, disabled", shown(path), edited.line)))
}

/// Removes the section of a module from the file. Returns the edit, `None` where the module has
/// none.
pub(super) fn remove_section(daemon: &Daemon, module: &str) -> Result<Option<Edited>, Problem> {
    let path = &daemon.places.config;
    let refused = |error: String| {
        Problem::new(ProblemCode::Refused, error)
            .help("take its section out of the file by hand, then remove it")
    };
    let text = daemon.configuration.text_to_edit()?;
    let removed = config::remove_section(&text, module);
    let Some((after, line)) = removed.map_err(|error| refused(error.to_string()))? else {
        return Ok(None);
    };
    daemon.configuration.write(&text, &after)?;
    let what = format!("{}:{line} {module} removed", shown(path));
    Ok(Some(Edited { what, before: text, after }))
}
