//! Installs on trial: the reload of a module that runs is the verdict on what was put in its place.

use lodestar_api::Problem;
use lodestar_library::{self as library, install::InstallDir};

use super::{InstallLock, Pending, Supervisor};

/// A build that lies in the place of one that runs, and has not proved good.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) install_lock: InstallLock,
    /// The operation whose outcome is the verdict.
    pub(super) operation: String,
    /// What is told of it when it is installed.
    pub(super) note: String,
    /// The version that was installed before.
    pub(super) previous: Option<String>,
    /// What was said of the module before.
    pub(super) behind: Option<String>,
}

impl Supervisor {
    /// The trial that an operation is the verdict on.
    pub(super) fn transaction_of(
        &mut self,
        module: &str,
        pending: &Pending,
    ) -> Option<Transaction> {
        let id = pending.operation().id;
        self.transactions
            .get(module)
            .is_some_and(|transaction| transaction.operation == id)
            .then_some(())?;
        self.transactions.remove(module)
    }

    /// It proved good.
    pub(super) fn commit(&mut self, transaction: &Transaction) -> Result<(), Problem> {
        let module = &transaction.install_lock.module;
        self.daemon.commit_install(module)?;
        self.daemon.histories.record(module, "installed", transaction.note.clone());
        // What was decided about the build before says nothing about this one.
        self.daemon.histories.decide(module, |decisions| decisions.refused = None);
        Ok(())
    }

    /// It is no good: what lay there before comes back. Answers what is installed now.
    pub(super) fn roll_back(&mut self, transaction: Transaction) -> String {
        let module = transaction.install_lock.module.clone();
        let installed = match (self.daemon.roll_back_install(&module), transaction.previous) {
            (Ok(()), Some(version)) => format!("{module} {version} stays installed"),
            (Ok(()), None) => "nothing was installed".to_owned(),
            (Err(error), _) => {
                let what = "what was installed before cannot be put back";
                tracing::error!(module, %error, "{what}");
                format!("{what}: {error}; a restart of lodestard does it")
            }
        };
        self.note_as_seen(&module);
        if let Some(slot) = self.daemon.known_slot(&module) {
            slot.set_behind(transaction.behind);
        }
        self.daemon.histories.record(&module, "undone", installed.clone());
        installed
    }

    /// What was put in place or came back there is no news to the watch of the module path.
    pub(super) fn note_as_seen(&mut self, module: &str) {
        let package = InstallDir::of(&self.daemon.places.state_dir).package(module);
        match library::hash(&package) {
            Some(sha256) => self.seen.insert(module.to_owned(), sha256),
            None => self.seen.remove(module),
        };
    }
}
