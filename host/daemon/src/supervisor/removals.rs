//! Removal of modules: stops a module and deletes everything that is its own alone.

use std::{
    fs, io,
    sync::Arc,
    time::{Duration, Instant},
};

use lodestar_api::{Operation, Problem, ProblemCode};
use lodestar_config::ConfigErrors;
use lodestar_library::{self as library, install::InstallDir};

use super::{
    Daemon, Fleet, Pending, STOP_GRACE, Slot,
    changes::{Begun, Step},
    packages::{package_of, unknown_module},
    section_edits::{Edited, remove_section, undo},
};
use crate::{install_lock::InstallLock, module::State};

pub(super) fn remove_on_request(
    fleet: &mut Fleet,
    module: &str,
    purge: bool,
    yes: bool,
) -> Result<Begun, Problem> {
    is_removable(&fleet.daemon, module, purge)?;
    let install_lock = fleet.daemon.installer.install_lock(module)?;
    let waiting = pending_of(&fleet.daemon, module);
    if waiting > 0 && !purge && !yes {
        let what = format!("{waiting} events wait for {module} and would be lost with it");
        let help = format!(
            "`lodestar modules enable {module}` lets it handle them; with --yes they are lost"
        );
        return Err(Problem::new(ProblemCode::Refused, what).help(help));
    }
    let edited = remove_section(&fleet.daemon, module)?;
    let slot = fleet.daemon.modules.entry(module).map(|_| fleet.daemon.slot(module));
    Ok(Begun::Reads(Step::Removed(Removal { install_lock, purge, waiting, slot, edited })))
}

/// A removal of a module that is under way.
#[derive(Debug)]
pub(super) struct Removal {
    install_lock: InstallLock,
    purge: bool,
    /// Number of events that wait for the module.
    waiting: u64,
    /// Its slot in the table of modules, where it has one.
    slot: Option<Arc<Slot>>,
    /// Edit that removed its section from the file.
    edited: Option<Edited>,
}

impl Removal {
    /// Undoes the edit: the file without the section was refused. Returns the answer.
    pub(super) fn undo(self, daemon: &Daemon, errors: &ConfigErrors) -> Problem {
        undo(daemon, self.edited, errors)
    }

    /// Begins the removal: the module's files are deleted as soon as it has stopped.
    pub(super) fn begin(self, daemon: &Arc<Daemon>) -> Operation {
        let pending = daemon.operations.begin("remove", Some(&self.install_lock.module));
        if let Some(edited) = &self.edited {
            pending.edited(edited.what.clone());
        }
        let operation = pending.operation();
        tokio::spawn(self.finish(daemon.clone(), pending));
        operation
    }

    async fn finish(self, daemon: Arc<Daemon>, pending: Pending) {
        let module = self.install_lock.module.clone();
        if let Some(slot) = &self.slot
            && !has_ended(&daemon, slot).await
        {
            let what = format!("{module} does not stop; its section is gone, its files are not");
            let help = format!("restart lodestard, then `lodestar modules remove {module}`");
            return pending.failed(ProblemCode::Timeout, what, Some(help));
        }
        let done = tokio::task::spawn_blocking(move || take_away(&daemon, &self)).await;
        match done.map_err(io::Error::other).flatten() {
            Ok(message) => pending.done(message),
            Err(error) => {
                let what = format!("cannot remove all of {module}: {error}");
                let help = format!("`lodestar modules remove {module}` goes on where this ended");
                pending.failed(ProblemCode::Failed, what, Some(help));
            }
        }
    }
}

/// Waits until a module has stopped and is gone from the table. Returns false when it does not stop
/// in time.
async fn has_ended(daemon: &Daemon, slot: &Slot) -> bool {
    let until = Instant::now() + 2 * STOP_GRACE;
    let name = &slot.entry.name;
    let mut state = slot.entry.watch();
    let stopped = state
        .wait_for(|transition| !transition.state.is_alive() || transition.state == State::Stalled);
    let stopped = tokio::time::timeout(2 * STOP_GRACE, stopped).await;
    if !stopped.is_ok_and(|state| state.is_ok_and(|it| !it.state.is_alive())) {
        return false;
    }
    // The supervisor's loop lets it go a moment after its thread has ended, and tells nobody.
    while daemon.modules.entry(name).is_some() {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    true
}

/// Checks whether a module can be removed: it was installed, or has left events, or data that is to
/// be deleted.
fn is_removable(daemon: &Daemon, module: &str, purge: bool) -> Result<(), Problem> {
    if !module_sdk::manifest::valid_name(module) {
        return Err(unknown_module(daemon, module));
    }
    let place = InstallDir::of(&daemon.places.state_dir);
    let installed = daemon.installer.lock()?.modules.contains_key(module)
        || place.package(module).directory.symlink_metadata().is_ok();
    let in_file = daemon.config().module(module).is_some();
    let events_wait =
        !in_file && daemon.context.bus.counters().iter().any(|it| it.module == module);
    if installed || events_wait || (purge && daemon.data_dir(module).is_dir()) {
        return Ok(());
    }
    let path = daemon.config().module(module).and_then(|section| package_of(daemon, section));
    match path.or_else(|| library::find(&daemon.places.module_path, module)) {
        Some(package) => {
            let place = package.directory.display();
            let what = format!("{module} was not installed by lodestar: it lies in {place}");
            let help = format!("`lodestar modules disable {module}` stops it for good");
            Err(Problem::new(ProblemCode::Refused, what).help(help))
        }
        None => Err(unknown_module(daemon, module)),
    }
}

fn pending_of(daemon: &Daemon, module: &str) -> u64 {
    let counters = daemon.context.bus.counters();
    counters.iter().find(|counters| counters.module == module).map_or(0, |it| it.total().pending)
}

/// Deletes the files of a module that does not run. Returns a message about what was deleted.
fn take_away(daemon: &Daemon, removal: &Removal) -> io::Result<String> {
    let Removal { install_lock: InstallLock { module, .. }, purge, waiting, .. } = removal;
    let state_dir = &daemon.places.state_dir;
    // An error means that it never subscribed.
    let _ = daemon.context.bus.unsubscribe(module);
    daemon.histories.forget(module);
    InstallDir::of(state_dir).take(module)?;
    daemon.installer.forget(module)?;
    remove_directory(&library::generations(state_dir, module))?;
    let data = daemon.data_dir(module);
    let mut message = match library::find(&daemon.places.module_path, module) {
        // One that lodestar did not install.
        Some(_) => format!("no events are kept for {module} any more"),
        None => format!("{module} is removed"),
    };
    if *waiting > 0 {
        message.push_str(&format!("; {waiting} events that waited for it are gone"));
    }
    if *purge {
        remove_directory(&data)?;
        message.push_str("; so is its data");
    } else if data.is_dir() {
        let data = data.display();
        message.push_str(&format!("; its data stays in {data} (--purge deletes it)"));
    }
    tracing::info!(module, purge, events_lost = waiting, "a module was removed");
    Ok(message)
}

fn remove_directory(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
