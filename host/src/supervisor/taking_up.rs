//! Taking up a module that was put in its place: its section, and the reload of one that runs.

use super::{Refused, Supervisor, reloads::Wanted, requests::shown};
use crate::{
    config,
    control::api::{Operation, Problem, ProblemCode},
    install::Place,
    library,
};

impl Supervisor {
    /// Gives a module that was put in its place its section, and reloads it where it runs.
    pub(super) fn take_up(&mut self, module: &str, notes: &[String]) -> Result<Operation, Problem> {
        let added = self.add_section(module, notes)?;
        self.daemon.stories.tell(module, "installed", notes.first().cloned().unwrap_or_default());
        self.given_up.remove(module);
        // What was decided about the build before says nothing about this one.
        self.daemon.stories.decide(module, |standing| {
            standing.refused = None;
            standing.quarantined = None;
        });
        let place = Place::of(&self.daemon.places.state_dir);
        // What is taken up here is no news to the watch of the module path.
        let sha256 = library::hash(&place.package(module));
        self.seen.extend(sha256.map(|sha256| (module.to_owned(), sha256)));
        let ran = self.alive.contains(module);
        self.take_configuration().map_err(|errors| {
            Problem::new(ProblemCode::Invalid, errors.to_string())
                .help("the module is installed; correct the file and enable it")
        })?;
        if ran {
            return Ok(self.reload_module(module, Wanted::OnPath, "install"));
        }
        if self.daemon.config().module(module).is_some_and(|section| section.enabled) {
            let slot = self.daemon.slot(module);
            return Ok(self.start_on_request(&slot, "install"));
        }
        let pending = self.daemon.operations.begin("install", Some(module));
        if let Some(line) = added {
            pending.edited(line);
        }
        let operation = pending.operation();
        pending.done(format!("{module} is installed"));
        Ok(operation)
    }

    /// What was installed and does not start is not tried again by a restart of the daemon: the
    /// generation that goes on runs until another one is installed or somebody asks.
    pub(super) fn pass_over(&self, module: &str, reason: &str) {
        let Some(known) = self.daemon.slot(module).entry.known() else { return };
        let package = Place::of(&self.daemon.places.state_dir).package(module);
        let Some(sha256) = library::hash(&package).filter(|it| *it != known.sha256) else { return };
        let (instead, reason) = (known.sha256.clone(), reason.to_owned());
        let refused = Refused { sha256, instead, reason };
        self.daemon.stories.decide(module, |standing| standing.refused = Some(refused));
    }

    /// Answers where the section was added, `None` where there was one.
    fn add_section(&self, module: &str, notes: &[String]) -> Result<Option<String>, Problem> {
        // Of the file as it lies there: an edit may not have been taken yet.
        if self.daemon.load_config().is_ok_and(|config| config.module(module).is_some()) {
            return Ok(None);
        }
        let path = &self.daemon.places.config;
        let refused = |error: String| {
            let what = format!("{module} is installed, but has no section: {error}");
            Problem::new(ProblemCode::Refused, what)
                .help(format!("write `{module}: {{enabled: true}}` below `modules:` by hand"))
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| refused(format!("cannot read {}: {error}", path.display())))?;
        let edited = config::add_section(&text, module, notes)
            .map_err(|error| refused(error.to_string()))?;
        if edited.text == text {
            return Ok(None);
        }
        self.write_config(&text, &edited.text)?;
        Ok(Some(format!("{}:{} {module} added, disabled", shown(path), edited.line)))
    }
}
