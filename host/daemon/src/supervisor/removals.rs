//! Removing a module: stop it, and take it away with everything that is only its own.

use std::{
    fs, io,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use lodestar_api::{Operation, Problem, ProblemCode};
use lodestar_config as config;
use lodestar_library::{self as library, install::InstallDir};

use super::{Daemon, InstallLock, Pending, STOP_GRACE, Slot, Supervisor};
use crate::module::State;

impl Supervisor {
    pub(super) fn remove_on_request(
        &mut self,
        module: &str,
        purge: bool,
        yes: bool,
    ) -> Result<Operation, Problem> {
        self.daemon.is_removable(module, purge)?;
        let install_lock = self.daemon.install_locks.take(module)?;
        let waiting = self.daemon.pending_of(module);
        if waiting > 0 && !purge && !yes {
            let what = format!("{waiting} events wait for {module} and would be lost with it");
            let help = format!(
                "`lodestar modules enable {module}` lets it handle them; with --yes they are lost"
            );
            return Err(Problem::new(ProblemCode::Refused, what).help(help));
        }
        let edited = self.remove_section(module)?;
        let slot = self.daemon.entry(module).map(|_| self.daemon.slot(module));
        self.take_own_edit().map_err(|errors| {
            Problem::new(ProblemCode::Invalid, errors.to_string())
                .help("correct the file first; `lodestar config check` shows every error")
        })?;
        let pending = self.daemon.operations.begin("remove", Some(module));
        if let Some(line) = edited {
            pending.edited(line);
        }
        let operation = pending.operation();
        let removal = Removal { install_lock, purge, waiting };
        tokio::spawn(removal.finish(self.daemon.clone(), slot, pending));
        Ok(operation)
    }

    /// Takes the module's section out of the file; answers where it stood.
    fn remove_section(&self, module: &str) -> Result<Option<String>, Problem> {
        let path = &self.daemon.places.config;
        let refused = |error: String| {
            Problem::new(ProblemCode::Refused, error)
                .help("take its section out of the file by hand, then remove it")
        };
        let text = self.text_to_edit()?;
        let removed = config::remove_section(&text, module);
        let Some((after, line)) = removed.map_err(|error| refused(error.to_string()))? else {
            return Ok(None);
        };
        self.write_config(&text, &after)?;
        Ok(Some(format!("{}:{line} {module} removed", super::shown(path))))
    }
}

struct Removal {
    install_lock: InstallLock,
    purge: bool,
    waiting: u64,
}

impl Removal {
    async fn finish(self, daemon: Arc<Daemon>, slot: Option<Arc<Slot>>, pending: Pending) {
        let module = self.install_lock.module.clone();
        if let Some(slot) = slot
            && !has_ended(&daemon, &slot).await
        {
            let what = format!("{module} does not stop; its section is gone, its files are not");
            let help = format!("restart lodestard, then `lodestar modules remove {module}`");
            return pending.failed(ProblemCode::Timeout, what, Some(help));
        }
        let done = tokio::task::spawn_blocking(move || daemon.take_away(&self)).await;
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

/// Waits until a module has stopped and nobody would start it again.
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
    while daemon.entry(name).is_some() {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    true
}

impl Daemon {
    /// Whether a module is one that was installed, or has left data or events that are to go.
    fn is_removable(&self, module: &str, purge: bool) -> Result<(), Problem> {
        if !module_sdk::manifest::valid_name(module) {
            return Err(self.unknown_module(module));
        }
        let place = InstallDir::of(&self.places.state_dir);
        let installed = self.lock()?.modules.contains_key(module)
            || place.package(module).directory.symlink_metadata().is_ok();
        let in_file = self.config().module(module).is_some();
        let events_wait =
            !in_file && self.context.bus.counters().iter().any(|it| it.module == module);
        if installed || events_wait || (purge && self.data_dir(module).is_dir()) {
            return Ok(());
        }
        let path = self.config().module(module).and_then(|section| self.package(section));
        match path.or_else(|| library::find(&self.places.module_path, module)) {
            Some(package) => {
                let place = package.directory.display();
                let what = format!("{module} was not installed by lodestar: it lies in {place}");
                let help = format!("`lodestar modules disable {module}` stops it for good");
                Err(Problem::new(ProblemCode::Refused, what).help(help))
            }
            None => Err(self.unknown_module(module)),
        }
    }

    fn pending_of(&self, module: &str) -> u64 {
        let counters = self.context.bus.counters();
        counters
            .iter()
            .find(|counters| counters.module == module)
            .map_or(0, |it| it.total().pending)
    }

    /// Takes the files of a module that does not run away; answers what was done.
    fn take_away(&self, removal: &Removal) -> io::Result<String> {
        let Removal { install_lock: InstallLock { module, .. }, purge, waiting } = removal;
        let state_dir = &self.places.state_dir;
        // An error means that it never subscribed.
        let _ = self.context.bus.unsubscribe(module);
        self.histories.forget(module);
        InstallDir::of(state_dir).take(module)?;
        let writing = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lock = self.lock().map_err(|problem| io::Error::other(problem.detail))?;
        if lock.modules.remove(module).is_some() {
            lock.write(state_dir)?;
        }
        drop(writing);
        remove_directory(&library::generations(state_dir, module))?;
        let data = self.data_dir(module);
        let mut message = match library::find(&self.places.module_path, module) {
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
}

fn remove_directory(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
