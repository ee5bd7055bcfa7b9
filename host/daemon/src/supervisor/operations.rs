//! Operations: changes under way, each with an id by which a client learns the outcome.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use lodestar_api::{Operation, OperationState, ProblemCode};
use tokio::sync::watch;
use uuid::Uuid;

use crate::request::Actor;

/// Number of operations that are remembered.
const KEPT: usize = 200;

/// All operations of this run of the daemon.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    all: Arc<Mutex<VecDeque<watch::Sender<Operation>>>>,
}

/// An operation that has not ended.
#[derive(Debug)]
pub struct Pending {
    sender: watch::Sender<Operation>,
}

impl Operations {
    /// Begins an operation.
    #[must_use]
    pub fn begin(&self, kind: &str, module: Option<&str>) -> Pending {
        let operation = Operation {
            id: Uuid::now_v7().to_string(),
            kind: kind.to_owned(),
            module: module.map(str::to_owned),
            actor: None,
            state: OperationState::Pending,
            message: "under way".to_owned(),
            started_at: now(),
            finished_at: None,
            config_line: None,
            code: None,
            help: None,
        };
        let sender = watch::Sender::new(operation);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back(sender.clone());
        Pending { sender }
    }

    /// Notes the actor that asked for an operation. Returns the operation with it.
    #[must_use]
    pub fn note_actor(&self, mut operation: Operation, actor: &Actor) -> Operation {
        operation.actor = Some(actor.to_string());
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = all.iter().rfind(|sender| sender.borrow().id == operation.id) {
            sender.send_modify(|known| known.actor.clone_from(&operation.actor));
        }
        operation
    }

    /// Returns the operation with this id, once it has ended or `wait` is over. Returns `None` for
    /// an unknown id.
    pub async fn get(&self, id: &str, wait: Duration) -> Option<Operation> {
        let mut receiver = {
            let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().find(|sender| sender.borrow().id == id)?.subscribe()
        };
        let ended = receiver.wait_for(|operation| operation.state != OperationState::Pending);
        // Over or not: what is told is how far it is now.
        let _ = tokio::time::timeout(wait, ended).await;
        let operation = receiver.borrow().clone();
        Some(operation)
    }
}

impl Pending {
    /// Returns the operation as it is now.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.sender.borrow().clone()
    }

    /// Notes the line of the file that was edited.
    pub fn edited(&self, line: String) {
        self.sender.send_modify(|operation| operation.config_line = Some(line));
    }

    /// Ends the operation as done.
    pub fn done(self, message: impl Into<String>) {
        self.end(OperationState::Done, message.into(), None, None);
    }

    /// Ends the operation as failed.
    pub fn failed(self, code: ProblemCode, message: impl Into<String>, help: Option<String>) {
        self.end(OperationState::Failed, message.into(), Some(code), help);
    }

    fn end(
        self,
        state: OperationState,
        message: String,
        code: Option<ProblemCode>,
        help: Option<String>,
    ) {
        self.sender.send_modify(|operation| {
            operation.state = state;
            operation.message = message;
            operation.finished_at = Some(now());
            operation.code = code;
            operation.help = help;
        });
    }
}

/// Returns the current time by RFC 3339, with milliseconds.
fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_learns_the_outcome() {
        let operations = Operations::default();
        let pending = operations.begin("enable", Some("ingest"));
        let actor = Actor::Module("dashboard".to_owned());
        let begun = operations.note_actor(pending.operation(), &actor);
        assert_eq!(begun.actor.as_deref(), Some("module dashboard"));
        let id = begun.id;
        let waiting = tokio::spawn({
            let (operations, id) = (operations.clone(), id.clone());
            async move { operations.get(&id, Duration::from_secs(30)).await }
        });
        pending.failed(ProblemCode::Refused, "it does not fit", None);
        let operation = waiting.await.expect("no panic").expect("it is known");
        assert_eq!(operation.state, OperationState::Failed);
        assert_eq!(operation.code, Some(ProblemCode::Refused));
        assert_eq!(operation.actor, begun.actor);
        assert!(operations.get("nonsense", Duration::ZERO).await.is_none());
    }
}
