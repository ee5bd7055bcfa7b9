//! Taking up a module that was put in its place: its section, and the reload of one that runs.

use lodestar_api::{Operation, Problem, ProblemCode};
use lodestar_config as config;

use super::{InstallLock, Supervisor, Transaction, reloads::Wanted, requests::shown};

impl Supervisor {
    /// Gives a module that was put in its place its section, and reloads it where it runs. One that
    /// does not run is installed with that; one that runs, when the new build has taken over.
    pub(super) fn activate(
        &mut self,
        install_lock: InstallLock,
        notes: &[String],
        previous: Option<String>,
    ) -> Result<Operation, Problem> {
        let module = &*install_lock.module.clone();
        let behind = self.daemon.known_slot(module).and_then(|slot| slot.behind());
        let note = notes.first().cloned().unwrap_or_default();
        let transaction =
            Transaction { install_lock, operation: String::new(), note, previous, behind };
        let ran = self.alive.contains(module);
        let added = match self.add_section(module, notes) {
            Ok(added) => added,
            Err(problem) => return Err(self.undone(transaction, problem)),
        };
        self.note_as_seen(module);
        if !ran {
            return self.install_at_rest(transaction, added);
        }
        if let Err(errors) = self.take_configuration() {
            let problem = Problem::new(ProblemCode::Invalid, errors.to_string());
            return Err(
                self.undone(transaction, problem.help("correct the file, then install it again"))
            );
        }
        let operation = self.reload_module(module, Wanted::OnPath, "install");
        if self.reloads.contains_key(module) {
            let transaction = Transaction { operation: operation.id.clone(), ..transaction };
            self.transactions.insert(module.to_owned(), transaction);
            return Ok(operation);
        }
        let problem = Problem::new(ProblemCode::Busy, format!("{module} cannot be reloaded now"));
        Err(self.undone(transaction, problem.help("`lodestar status` shows what it does")))
    }

    /// Installs what does not run, and starts it where it is enabled.
    fn install_at_rest(
        &mut self,
        transaction: Transaction,
        added: Option<String>,
    ) -> Result<Operation, Problem> {
        if let Err(problem) = self.commit(&transaction) {
            return Err(self.undone(transaction, problem));
        }
        let module = &transaction.install_lock.module;
        self.given_up.remove(module);
        self.daemon.histories.decide(module, |decisions| decisions.quarantined = None);
        self.take_configuration().map_err(|errors| {
            Problem::new(ProblemCode::Invalid, errors.to_string())
                .help("the module is installed; correct the file and enable it")
        })?;
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

    /// Undoes an install that came to nothing for the reason of `problem`.
    fn undone(&mut self, transaction: Transaction, mut problem: Problem) -> Problem {
        let installed = self.roll_back(transaction);
        problem.detail = format!("{}; {installed}", problem.detail);
        problem
    }

    /// Answers where the section was added, `None` where there was one.
    fn add_section(&self, module: &str, notes: &[String]) -> Result<Option<String>, Problem> {
        // Of the file as it lies there: an edit may not have been taken yet.
        if self.daemon.load_config().is_ok_and(|config| config.module(module).is_some()) {
            return Ok(None);
        }
        let path = &self.daemon.places.config;
        let refused = |error: String| {
            let what = format!("{module} cannot be given its section: {error}");
            Problem::new(ProblemCode::Refused, what).help(format!(
                "write `{module}: {{enabled: false}}` below `modules:` by hand, then install it"
            ))
        };
        let text = self.text_to_edit()?;
        let edited = config::add_section(&text, module, notes)
            .map_err(|error| refused(error.to_string()))?;
        if edited.text == text {
            return Ok(None);
        }
        self.write_config(&text, &edited.text)?;
        Ok(Some(format!("{}:{} {module} added, disabled", shown(path), edited.line)))
    }
}
