//! The registry in memory, folded from the entries of its log. It decides what is allowed; nothing
//! here reads or writes a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Action, Actor, Approval, Digest, Facts, Gate, Lineage, Observed, Overriding, Refusal, State,
    Version,
    segment::Broken,
    step,
    version::{check_id, check_reason, is_same_person},
};

/// A deed: the content of an entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Deed {
    /// A version was created.
    Create {
        /// Origin of the version.
        lineage: Lineage,
    },
    /// An action without further facts.
    Act {
        /// The action.
        action: Action,
    },
    /// The training finished.
    Finish {
        /// Digest of the artifact.
        artifact: Digest,
    },
    /// The gates were measured.
    Judge {
        /// Digest of the benchmark.
        bench: Digest,
        /// The gates, those that are required and were not measured among them.
        gates: Vec<Gate>,
    },
    /// A gate was overridden.
    Override {
        /// Name of the gate.
        gate: String,
    },
    /// An artifact was approved.
    Approve {
        /// Digests of what was approved.
        observed: Observed,
        /// Number of persons who have to approve it.
        needed: usize,
    },
    /// A version became the champion.
    Deploy {
        /// Digests of what was deployed.
        observed: Observed,
        /// Number of persons who have to have approved it.
        needed: usize,
    },
    /// The previous champion became the champion again.
    Restore {
        /// Digests of what was restored.
        observed: Observed,
    },
    /// The source of a version should be forgotten.
    Taint,
    /// The tables of the registry were written anew from its log.
    Repair {
        /// The fault that was found.
        found: String,
        /// `true` where the end of the log is not the one that was kept, so that nobody knows who
        /// approved what: all is approved anew.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        anew: bool,
    },
    /// A new segment of the log began behind entries that are not as they were written.
    Segment {
        /// The fault that was found.
        found: String,
        /// Entries that count no more.
        broken: Broken,
    },
}

impl Deed {
    /// Returns the action of the state machine, if it is one.
    #[must_use]
    pub const fn action(&self) -> Option<Action> {
        match self {
            Self::Create { .. } | Self::Taint | Self::Repair { .. } | Self::Segment { .. } => None,
            Self::Act { action } => Some(*action),
            Self::Finish { .. } => Some(Action::Finish),
            Self::Judge { .. } => Some(Action::Judge),
            Self::Override { .. } => Some(Action::Override),
            Self::Approve { .. } => Some(Action::Approve),
            Self::Deploy { .. } => Some(Action::Deploy),
            Self::Restore { .. } => Some(Action::Restore),
        }
    }

    /// Returns the name in the log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Taint => "taint",
            Self::Repair { .. } => "repair",
            Self::Segment { .. } => "segment",
            _ => match self.action() {
                Some(action) => action.as_str(),
                None => "",
            },
        }
    }
}

/// An entry of the log before it has a number and a hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The one who acts.
    pub actor: Actor,
    /// Id of the version; empty for the registry as a whole.
    pub version: String,
    /// The reason that was given.
    pub reason: String,
    /// The deed.
    pub deed: Deed,
}

/// Change of the state of a version: before, and after.
pub type Change = (Option<State>, Option<State>);

/// All versions and aliases, as the log tells them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// The versions by their ids.
    pub versions: BTreeMap<String, Version>,
    /// The version that serves.
    pub champion: Option<String>,
    /// The version that is tried.
    pub challenger: Option<String>,
    /// The version that a rollback restores.
    pub previous: Option<String>,
    /// The policy by which the router decides.
    pub policy: Option<String>,
    /// The policy that a rollback restores.
    pub previous_policy: Option<String>,
}

impl Ledger {
    /// Returns a version.
    ///
    /// # Errors
    ///
    /// Returns a refusal when there is none of this id.
    pub fn version(&self, id: &str) -> Result<&Version, Refusal> {
        let unknown = || Refusal::Unknown { version: id.chars().take(100).collect() };
        self.versions.get(id).ok_or_else(unknown)
    }

    /// Returns all versions in the order of their numbers: v2 before v10.
    #[must_use]
    pub fn in_order(&self) -> Vec<&Version> {
        let mut all: Vec<&Version> = self.versions.values().collect();
        all.sort_by(|one, other| by_number(&one.id).cmp(&by_number(&other.id)));
        all
    }

    /// Returns the alias of a version.
    #[must_use]
    pub fn alias_of(&self, id: &str) -> Option<&'static str> {
        let all = [
            ("champion", &self.champion),
            ("challenger", &self.challenger),
            ("previous", &self.previous),
            ("policy", &self.policy),
            ("previous_policy", &self.previous_policy),
        ];
        all.into_iter().find_map(|(name, of)| (of.as_deref() == Some(id)).then_some(name))
    }

    /// Returns the version that serves, of the policies or of the models.
    #[must_use]
    pub fn serving(&self, is_policy: bool) -> Option<&str> {
        if is_policy { self.policy.as_deref() } else { self.champion.as_deref() }
    }

    /// Returns the version that a rollback restores, of the policies or of the models.
    #[must_use]
    pub fn before(&self, is_policy: bool) -> Option<&str> {
        if is_policy { self.previous_policy.as_deref() } else { self.previous.as_deref() }
    }

    /// Returns the aliases of the one that serves and the one before.
    fn places(&mut self, is_policy: bool) -> (&mut Option<String>, &mut Option<String>) {
        if is_policy {
            (&mut self.policy, &mut self.previous_policy)
        } else {
            (&mut self.champion, &mut self.previous)
        }
    }

    /// Returns the ledger without the version that serves.
    pub(super) fn without_serving(&self, is_policy: bool) -> Self {
        let mut alone = self.clone();
        *alone.places(is_policy).0 = None;
        alone
    }

    /// Returns the ids of the versions that were trained on a dataset.
    #[must_use]
    pub fn of_dataset(&self, dataset: &str) -> Vec<&str> {
        let all = self.versions.values().filter(|version| version.lineage.dataset == dataset);
        all.map(|version| version.id.as_str()).collect()
    }

    /// Returns the ids of the versions that have examples of a consent.
    #[must_use]
    pub fn of_consent(&self, consent: &str) -> Vec<&str> {
        let has = |version: &&Version| version.lineage.consents.iter().any(|it| it == consent);
        self.versions.values().filter(has).map(|version| version.id.as_str()).collect()
    }

    /// Notes a deed, if it is allowed; the ledger stays as it was if not. Commands and the reading
    /// of the log go this one way, so that an entry that no command would have written is found.
    ///
    /// # Errors
    ///
    /// Returns the refusal.
    pub fn admit(&mut self, draft: &Draft) -> Result<Change, Refusal> {
        draft.actor.check()?;
        let is_by_person = draft.actor.person().is_some();
        let needs_reason = match &draft.deed {
            Deed::Repair { .. } | Deed::Segment { .. } => true,
            deed => deed.action().is_some_and(|action| {
                matches!(action, Action::Approve | Action::Override | Action::RollBack)
            }),
        };
        check_reason(&draft.reason, needs_reason)?;
        match &draft.deed {
            Deed::Repair { anew: false, .. } if is_by_person && draft.version.is_empty() => {
                Ok((None, None))
            }
            Deed::Repair { .. } | Deed::Segment { .. }
                if is_by_person && draft.version.is_empty() =>
            {
                // Nobody knows what else was written by hand: whatever serves from here on is
                // approved anew.
                self.versions.values_mut().for_each(|version| version.approvals.clear());
                Ok((None, None))
            }
            Deed::Repair { .. } | Deed::Segment { .. } => Err(Refusal::WrongId),
            Deed::Create { lineage } => self.create(draft, lineage),
            Deed::Taint => {
                let mut version = self.version(&draft.version)?.clone();
                let state = version.state;
                (version.tainted, version.updated_at) = (true, draft.at);
                self.versions.insert(version.id.clone(), version);
                Ok((Some(state), Some(state)))
            }
            Deed::Act { action } if !action.is_plain() => {
                let state = self.version(&draft.version)?.state;
                Err(Refusal::Order { action: *action, state })
            }
            deed => {
                // No other deed is without an action.
                let action = deed.action().ok_or(Refusal::WrongId)?;
                self.act(draft, action)
            }
        }
    }

    fn create(&mut self, draft: &Draft, lineage: &Lineage) -> Result<Change, Refusal> {
        check_id(&draft.version)?;
        if self.versions.contains_key(&draft.version) {
            return Err(Refusal::Exists { version: draft.version.clone() });
        }
        let version = Version {
            id: draft.version.clone(),
            state: State::Queued,
            created_at: draft.at,
            updated_at: draft.at,
            lineage: lineage.clone(),
            artifact: None,
            evaluation: 0,
            bench: None,
            gates: Vec::new(),
            approvals: Vec::new(),
            tainted: false,
        };
        self.versions.insert(version.id.clone(), version);
        Ok((None, Some(State::Queued)))
    }

    fn act(&mut self, draft: &Draft, action: Action) -> Result<Change, Refusal> {
        let before = self.version(&draft.version)?;
        let from = before.state;
        let version = noted(before.clone(), draft)?;
        let is_policy = version.lineage.is_policy();
        // Sessions get models of their own; of policies there is one for all.
        if is_policy && matches!(action, Action::Shadow | Action::Experiment) {
            return Err(Refusal::Order { action, state: from });
        }
        let facts = self.facts(&version, draft);
        let to = step(from, action, &facts)?;
        self.name((&version.id, is_policy), action, to)?;
        let version = Version { state: to, updated_at: draft.at, ..version };
        self.versions.insert(version.id.clone(), version);
        Ok((Some(from), Some(to)))
    }

    fn facts(&self, version: &Version, draft: &Draft) -> Facts {
        let other = self.challenger.as_ref().filter(|other| **other != version.id);
        let is_policy = version.lineage.is_policy();
        let mut facts = Facts {
            by_person: draft.actor.person().is_some(),
            is_tainted: version.tainted,
            open_gates: version.open_gates(),
            other_challenger: other.cloned(),
            // Without one that serves there is nothing to take back that would lead to it.
            is_previous: self.serving(is_policy).is_some()
                && self.before(is_policy) == Some(&*version.id),
            ..Facts::default()
        };
        let (observed, needed) = match &draft.deed {
            Deed::Approve { observed, needed } | Deed::Deploy { observed, needed } => {
                (observed, *needed)
            }
            // A rollback is urgent: one approval of this artifact is enough, whatever is asked for
            // since then.
            Deed::Restore { observed } => (observed, 1),
            _ => return facts,
        };
        facts.approvals = version.approvers(observed).len();
        facts.approvals_needed = needed.max(1);
        facts.changed = match version.expected() {
            None => Some("artifact"),
            Some(expected) => observed.difference(&expected),
        };
        facts
    }

    /// Moves the aliases.
    fn name(
        &mut self,
        (id, is_policy): (&str, bool),
        action: Action,
        to: State,
    ) -> Result<(), Refusal> {
        let (serving, before) = self.places(is_policy);
        match action {
            // The place has to be free: the one before gave it up by an entry of its own.
            Action::Deploy | Action::Restore if serving.is_some() => {
                return Err(Refusal::Order { action, state: State::Deployed });
            }
            Action::Deploy => {
                *serving = Some(id.to_owned());
                if before.as_deref() == Some(id) {
                    *before = None;
                }
            }
            Action::Restore => {
                *serving = Some(id.to_owned());
                *before = None;
            }
            Action::Supersede => {
                *serving = None;
                *before = Some(id.to_owned());
            }
            Action::RollBack => *serving = None,
            _ => {}
        }
        if to.is_challenger() {
            self.challenger = Some(id.to_owned());
        } else if self.challenger.as_deref() == Some(id) {
            self.challenger = None;
        }
        Ok(())
    }
}

/// Returns the parts of an id by which it is sorted: its name, its number, and the whole.
fn by_number(id: &str) -> (&str, u128, &str) {
    let name = id.trim_end_matches(|c: char| c.is_ascii_digit());
    // An id has at most 80 characters; one with so many digits comes last.
    (name, id[name.len()..].parse().unwrap_or(u128::MAX), id)
}

/// Returns a version with the facts of a deed noted.
fn noted(mut version: Version, draft: &Draft) -> Result<Version, Refusal> {
    match &draft.deed {
        Deed::Finish { artifact } => version.artifact = Some(artifact.clone()),
        Deed::Judge { bench, gates } => {
            version.evaluation += 1;
            version.bench = Some(bench.clone());
            version.gates.clone_from(gates);
        }
        Deed::Override { gate } => {
            let by =
                draft.actor.person().ok_or(Refusal::NeedsPerson { action: Action::Override })?;
            let open = version.gates.iter_mut().find(|it| it.name == *gate && it.is_open());
            let open =
                open.ok_or_else(|| Refusal::NoSuchGate { gate: gate.chars().take(100).collect() })?;
            open.overridden =
                Some(Overriding { by: by.to_owned(), reason: draft.reason.clone(), at: draft.at });
        }
        Deed::Approve { observed, .. } => {
            let by =
                draft.actor.person().ok_or(Refusal::NeedsPerson { action: Action::Approve })?;
            if version.approvers(observed).iter().any(|other| is_same_person(other, by)) {
                return Err(Refusal::ApprovedAlready { by: by.to_owned() });
            }
            version.approvals.push(Approval {
                by: by.to_owned(),
                reason: draft.reason.clone(),
                at: draft.at,
                evaluation: version.evaluation,
                observed: observed.clone(),
            });
        }
        _ => {}
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sorted_by_their_numbers() {
        let mut ids = ["v10", "v2", "r3", "v1", "shop-2", "shop-10", "v", "v01", "r12"];
        ids.sort_by(|one, other| by_number(one).cmp(&by_number(other)));
        assert_eq!(ids, ["r3", "r12", "shop-2", "shop-10", "v01", "v1", "v2", "v10", "v"]);
    }
}
