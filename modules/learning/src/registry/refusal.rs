//! Refusals of commands.

use super::{Action, State, audit::Finding};

/// Reason for which a command is refused. Nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The action does not lead from this state.
    #[error("`{action}` is not possible while the version is {state}")]
    Order {
        /// The action.
        action: Action,
        /// State of the version.
        state: State,
    },
    /// Only a person may do it.
    #[error("`{action}` needs a person; nothing does it by itself")]
    NeedsPerson {
        /// The action.
        action: Action,
    },
    /// The version was learnt from what should be forgotten.
    #[error("the version is tainted: it was learnt from what has been forgotten since")]
    Tainted,
    /// A digest differs from the one that the version was made of, or approved with.
    #[error("the {what} changed since the version was made or evaluated")]
    Changed {
        /// Name of the thing.
        what: &'static str,
    },
    /// No gates were measured.
    #[error("no gates were measured")]
    NoGates,
    /// Gates did not pass.
    #[error("gates did not pass: {gates}")]
    GatesOpen {
        /// Their names.
        gates: String,
    },
    /// The gate is not among those that did not pass.
    #[error("there is no open gate {gate:?} to override")]
    NoSuchGate {
        /// Its name.
        gate: String,
    },
    /// Too few persons approved this artifact.
    #[error("{approvals} of {needed} approvals of this artifact are there")]
    NotApproved {
        /// Number of valid approvals.
        approvals: usize,
        /// Number of approvals that are needed.
        needed: usize,
    },
    /// The same person approved already.
    #[error("{by} approved it already; another person has to")]
    ApprovedAlready {
        /// Name of the person.
        by: String,
    },
    /// The id that was typed is another one.
    #[error("the typed id is not that of the version")]
    WrongId,
    /// Another version is the challenger.
    #[error("{other} is the challenger, in an experiment that goes on")]
    Challenged {
        /// Id of the other version.
        other: String,
    },
    /// A rollback would restore the version.
    #[error("the version is `previous`, to which a rollback leads")]
    IsPrevious,
    /// No version serves.
    #[error("no version is deployed, so there is nothing to take back")]
    NoChampion,
    /// There is no such version.
    #[error("there is no version {version:?}")]
    Unknown {
        /// Its id.
        version: String,
    },
    /// There is such a version.
    #[error("there is a version {version:?} already")]
    Exists {
        /// Its id.
        version: String,
    },
    /// A text is not usable.
    #[error("{what} {fault}")]
    Text {
        /// Name of the text.
        what: &'static str,
        /// Its fault.
        fault: &'static str,
    },
    /// The registry was changed by something else than its commands.
    #[error(
        "the registry does not fit its log: {0}; `lodestar learning audit` shows more, and how it \
         goes on"
    )]
    Damaged(Finding),
    /// The registry has nothing that needs a repair.
    #[error("the registry fits its log; there is nothing to repair")]
    Sound,
}
