//! The registry of versions: states, gates, approvals, aliases, and a log that is only added to.
//!
//! The log is the truth. Each command reads it whole, checks its hashes, folds it into a
//! [`Ledger`], decides there, and adds its entries; the tables beside it follow from the log and
//! are compared with it first. So a version is deployed only if the log has an approval of exactly
//! the artifact that is there now, whatever someone wrote into a table.
//!
//! ```
//! use learning::registry::{Actor, Command, Digest, Lineage, Policy, Registry, Request};
//!
//! let directory = tempfile::tempdir()?;
//! let mut connection = rusqlite::Connection::open_in_memory()?;
//! connection.execute_batch(learning::registry::MIGRATION)?;
//! let registry = Registry::new(directory.path(), Policy::default());
//! let request = Request {
//!     version: "shop-1".to_owned(),
//!     actor: Actor::Lodestar,
//!     reason: String::new(),
//!     command: Command::Create(Lineage {
//!         run: "run-1".to_owned(),
//!         base: "tiny".to_owned(),
//!         base_digest: Digest::of(b"base"),
//!         dataset: "shop-data".to_owned(),
//!         dataset_digest: Digest::of(b"dataset"),
//!         examples: 120,
//!         consents: vec!["consent-1".to_owned()],
//!         trainer: "embedded".to_owned(),
//!     }),
//! };
//! let transaction = connection.transaction()?;
//! let done = registry.perform(&transaction, &request, 1_790_000_000_000)??;
//! transaction.commit()?;
//! registry.keep(&done)?;
//! assert_eq!(registry.audit(&connection)?.finding, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod audit;
mod command;
mod ledger;
mod refusal;
mod segment;
mod state;
mod tables;
mod version;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use audit::{Entry, Head, Reading};
pub use command::{Command, Decision, Policy, Request, decide};
pub use ledger::{Change, Deed, Draft, Ledger};
pub use refusal::Refusal;
pub use segment::{Broken, Segment};
pub(crate) use state::named;
pub use state::{Action, Facts, State, step};
pub use version::{Actor, Approval, Digest, Gate, Lineage, Observed, Overriding, ROUTER, Version};

/// The tables of the registry.
pub const MIGRATION: &str = include_str!("../../migrations/0010_registry.sql");

/// File in the module's data directory with the head of the log.
const HEAD: &str = "registry.head";

/// The registry: its rules, and the place of its head.
#[derive(Debug, Clone)]
pub struct Registry {
    head: PathBuf,
    policy: Policy,
}

/// Outcome of a command that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Entries that were added to the log.
    pub entries: Vec<Entry>,
    /// The ledger after them.
    pub ledger: Ledger,
    /// Reason for which a rollback restored no version.
    pub not_restored: Option<Refusal>,
    /// Head to keep; none while the one that is kept tells of a fault.
    head: Option<Head>,
}

impl Registry {
    /// Returns the registry whose head is kept in a directory.
    #[must_use]
    pub fn new(directory: &Path, policy: Policy) -> Self {
        Self { head: directory.join(HEAD), policy }
    }

    /// Returns the rules.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Does a command within a transaction. A command that is refused changes nothing. Once the
    /// transaction is committed, [`keep`](Self::keep) the head.
    ///
    /// While the registry does not fit its log every command is refused but the taking back of the
    /// champion, which only needs whole entries.
    ///
    /// # Errors
    ///
    /// Returns an error when the database cannot be read or written.
    pub fn perform(
        &self,
        connection: &Connection,
        request: &Request,
        at: i64,
    ) -> rusqlite::Result<Result<Done, Refusal>> {
        let reading = self.audit(connection)?;
        let is_rollback = matches!(request.command, Command::RollBack(_));
        match &reading.finding {
            Some(finding) if !is_rollback || !finding.is_repairable() => {
                return Ok(Err(Refusal::Damaged(finding.clone())));
            }
            _ => {}
        }
        let decision = match decide(&reading.ledger, &self.policy, request, at) {
            Ok(decision) => decision,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let not_restored = decision.not_restored.clone();
        let (entries, after) = add(connection, &reading.head, &decision)?;
        let ids: Vec<&str> = entries.iter().map(|entry| entry.version.as_str()).collect();
        tables::write(connection, &after.ledger, &ids)?;
        let head = reading.finding.is_none().then_some(after.head);
        Ok(Ok(Done { entries, ledger: after.ledger, not_restored, head }))
    }

    /// Writes the tables anew from the log, and notes in the log who let it go on and what did not
    /// fit. Entries that were changed stay as they are: behind them a new segment begins, and what
    /// was approved before it is approved anew, as after a log that ends otherwise than the kept
    /// head says. The guards of the log that someone took away are put back.
    ///
    /// # Errors
    ///
    /// Returns an error when the database cannot be read or written.
    pub fn repair(
        &self,
        connection: &Connection,
        actor: Actor,
        reason: String,
        at: i64,
    ) -> rusqlite::Result<Result<Done, Refusal>> {
        let reading = self.audit(connection)?;
        let Some(finding) = &reading.finding else { return Ok(Err(Refusal::Sound)) };
        let found = finding.to_string();
        let (deed, head) = if finding.is_repairable() {
            let anew = !matches!(finding, audit::Finding::Table { .. });
            (Deed::Repair { found, anew }, reading.head)
        } else {
            match segment::of_end(connection, &reading.head)? {
                Some((broken, end)) => (Deed::Segment { found, broken }, end),
                None => return Ok(Err(Refusal::Damaged(finding.clone()))),
            }
        };
        let draft = Draft { at, actor, version: String::new(), reason, deed };
        let mut ledger = reading.ledger.clone();
        let change = match ledger.admit(&draft) {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        guard(connection)?;
        let decision = Decision { ledger, deeds: vec![(draft, change)], not_restored: None };
        let (entries, after) = add(connection, &head, &decision)?;
        tables::rewrite(connection, &after.ledger)?;
        let head = Some(after.head);
        Ok(Ok(Done { entries, ledger: after.ledger, not_restored: None, head }))
    }

    /// Keeps the head of the log beside the database. Call it once the command is committed. A head
    /// that could not be kept is older than the log, which is no fault; the next one makes up for
    /// it.
    ///
    /// # Errors
    ///
    /// Returns an error when the file cannot be written.
    pub fn keep(&self, done: &Done) -> std::io::Result<()> {
        done.head.as_ref().map_or(Ok(()), |head| head.keep(&self.head))
    }

    /// Checks the log, its end and the tables, and returns the ledger and the first fault.
    ///
    /// # Errors
    ///
    /// Returns an error when the database cannot be read.
    pub fn audit(&self, connection: &Connection) -> rusqlite::Result<Reading> {
        // A head that cannot be read tells no more than none.
        let kept = Head::read(&self.head).unwrap_or_default();
        let mut reading = audit::read(connection, kept.as_ref())?;
        if reading.finding.is_none() {
            reading.finding = tables::difference(connection, &reading.ledger)?;
        }
        Ok(reading)
    }
}

/// Puts the guards of the log back, as the migration made them.
fn guard(connection: &Connection) -> rusqlite::Result<()> {
    let triggers = MIGRATION.split_inclusive("END;").filter_map(|part| {
        let begin = part.find("CREATE TRIGGER ")?;
        let (_, rest) = part[begin..].split_once("CREATE TRIGGER ")?;
        Some((rest.split_whitespace().next()?, &part[begin..]))
    });
    for (name, statement) in triggers {
        connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {name}; {statement}"))?;
    }
    Ok(())
}

/// The log after entries were added.
struct After {
    head: Head,
    ledger: Ledger,
}

/// Adds the deeds of a decision to the log.
fn add(
    connection: &Connection,
    head: &Head,
    decision: &Decision,
) -> rusqlite::Result<(Vec<Entry>, After)> {
    let (mut head, mut entries) = (head.clone(), Vec::new());
    for (draft, change) in &decision.deeds {
        let entry = audit::append(connection, &head, draft, *change)?;
        head = Head { entries: entry.seq, hash: entry.hash.clone() };
        entries.push(entry);
    }
    // The ledger as the log tells it: numbers in JSON may differ in their last bit.
    let ledger = audit::read(connection, Some(&head))?.ledger;
    Ok((entries, After { head, ledger }))
}
