//! States of a version, and the table of the actions that lead from one to the next.

use super::Refusal;

/// Declares an enum whose variants have names in the database and in JSON.
macro_rules! named {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize,
            serde::Deserialize,
        )]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Finds the one with this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use named;

named! {
    /// State of a version.
    State {
        /// Waits for its training.
        Queued = "queued",
        /// Is trained at the moment.
        Training = "training",
        /// Its training failed.
        Failed = "failed",
        /// Its training was stopped and can be resumed.
        Stopped = "stopped",
        /// Has an artifact that nobody has looked at.
        Trained = "trained",
        /// Its gates are measured at the moment.
        Evaluating = "evaluating",
        /// A gate did not pass.
        Rejected = "rejected",
        /// All gates passed, or were overridden by a person.
        Gated = "gated",
        /// Answers beside the champion, unseen by clients.
        Shadow = "shadow",
        /// Gets a share of the sessions.
        AbRunning = "ab_running",
        /// The experiment found it worse.
        AbFailed = "ab_failed",
        /// The experiment found it good enough.
        AbPassed = "ab_passed",
        /// The experiment ended without a finding.
        Inconclusive = "inconclusive",
        /// Approved by as many persons as are needed.
        Approved = "approved",
        /// Serves: the champion.
        Deployed = "deployed",
        /// Another version took its place.
        Superseded = "superseded",
        /// Was taken back by a person.
        RolledBack = "rolled_back",
        /// Put away.
        Archived = "archived",
    }
}

named! {
    /// Action on a version.
    Action {
        /// Begins or resumes the training.
        Start = "start",
        /// Notes that the training failed.
        Fail = "fail",
        /// Notes that the training stopped and can be resumed.
        Stop = "stop",
        /// Notes the artifact of a finished training.
        Finish = "finish",
        /// Begins to measure the gates.
        Evaluate = "evaluate",
        /// Gives the measuring up.
        Abandon = "abandon",
        /// Notes what the gates measured.
        Judge = "judge",
        /// Overrides a gate that did not pass.
        Override = "override",
        /// Lets the version answer beside the champion.
        Shadow = "shadow",
        /// Ends the answering beside the champion.
        EndShadow = "end_shadow",
        /// Gives the version a share of the sessions.
        Experiment = "experiment",
        /// Ends the experiment: good enough.
        Pass = "pass",
        /// Ends the experiment: worse, or stopped by a guardrail.
        Worse = "worse",
        /// Ends the experiment without a finding.
        Undecided = "undecided",
        /// Approves exactly this artifact.
        Approve = "approve",
        /// Makes the version the champion.
        Deploy = "deploy",
        /// Gives the place of the champion to another version.
        Supersede = "supersede",
        /// Takes the champion back.
        RollBack = "roll_back",
        /// Makes the previous champion the champion again.
        Restore = "restore",
        /// Puts the version away.
        Archive = "archive",
    }
}

impl State {
    /// Returns whether the version has this alias only while it is in this state.
    #[must_use]
    pub const fn is_challenger(self) -> bool {
        matches!(self, Self::Shadow | Self::AbRunning)
    }
}

impl Action {
    /// Returns whether it is told by its name alone; the others come with digests, gates or names.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        !matches!(
            self,
            Self::Finish
                | Self::Judge
                | Self::Override
                | Self::Approve
                | Self::Deploy
                | Self::Restore
        )
    }

    /// Returns whether only a person may do it: whatever lets a version answer clients, or opens
    /// the way there.
    #[must_use]
    pub const fn needs_person(self) -> bool {
        matches!(
            self,
            Self::Override
                | Self::Shadow
                | Self::Experiment
                | Self::Approve
                | Self::Deploy
                | Self::Supersede
                | Self::RollBack
                | Self::Restore
                | Self::Archive
        )
    }
}

/// Facts by which an action is judged, as they are once the action is noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `true` when a person acts.
    pub by_person: bool,
    /// `true` when the version was learnt from what should be forgotten.
    pub is_tainted: bool,
    /// Gates that neither passed nor were overridden; none before they were measured.
    pub open_gates: Option<Vec<String>>,
    /// Difference between what was seen now and what the version was made of.
    pub changed: Option<&'static str>,
    /// Number of persons who approved exactly this artifact.
    pub approvals: usize,
    /// Number of persons who have to.
    pub approvals_needed: usize,
    /// Another version that is the challenger at the moment.
    pub other_challenger: Option<String>,
    /// `true` when a rollback would restore the version.
    pub is_previous: bool,
}

impl Default for Facts {
    /// Returns the facts of a version of which nothing is known, by nobody.
    fn default() -> Self {
        Self {
            by_person: false,
            is_tainted: false,
            open_gates: None,
            changed: None,
            approvals: 0,
            approvals_needed: 1,
            other_challenger: None,
            is_previous: false,
        }
    }
}

/// Returns the state that an action leads to.
///
/// # Errors
///
/// Returns the refusal when the action does not lead from this state, or the facts forbid it.
pub fn step(state: State, action: Action, facts: &Facts) -> Result<State, Refusal> {
    use Action as A;
    use State as S;
    if action.needs_person() && !facts.by_person {
        return Err(Refusal::NeedsPerson { action });
    }
    match (state, action) {
        (S::Queued | S::Stopped, A::Start) => Ok(S::Training),
        (S::Queued | S::Training | S::Stopped, A::Fail) => Ok(S::Failed),
        (S::Queued | S::Training, A::Stop) => Ok(S::Stopped),
        (S::Training, A::Finish) => Ok(S::Trained),
        (
            S::Trained
            | S::Rejected
            | S::Gated
            | S::AbFailed
            | S::AbPassed
            | S::Inconclusive
            | S::Approved
            | S::Superseded
            | S::RolledBack,
            A::Evaluate,
        ) => {
            if facts.is_previous {
                Err(Refusal::IsPrevious)
            } else {
                Ok(S::Evaluating)
            }
        }
        (S::Evaluating, A::Abandon) => Ok(S::Trained),
        (S::Evaluating, A::Judge) | (S::Rejected, A::Override) => match &facts.open_gates {
            None => Err(Refusal::NoGates),
            Some(open) if open.is_empty() => Ok(S::Gated),
            Some(_) => Ok(S::Rejected),
        },
        (S::Gated, A::Shadow) => challenger(facts, S::Shadow),
        (S::Shadow, A::EndShadow) => Ok(S::Gated),
        (S::Gated | S::Shadow, A::Experiment) => challenger(facts, S::AbRunning),
        (S::AbRunning, A::Pass) => Ok(S::AbPassed),
        (S::AbRunning, A::Worse) => Ok(S::AbFailed),
        (S::AbRunning, A::Undecided) => Ok(S::Inconclusive),
        (S::Gated | S::AbPassed | S::Inconclusive | S::Approved, A::Approve) => {
            may_serve(facts)?;
            gates_passed(facts)?;
            let is_enough = facts.approvals >= facts.approvals_needed;
            Ok(if is_enough { S::Approved } else { state })
        }
        (S::Approved, A::Deploy) => {
            may_serve(facts)?;
            gates_passed(facts)?;
            approved(facts)?;
            Ok(S::Deployed)
        }
        (S::Superseded, A::Restore) => {
            may_serve(facts)?;
            approved(facts)?;
            Ok(S::Deployed)
        }
        (S::Deployed, A::Supersede) => Ok(S::Superseded),
        (S::Deployed, A::RollBack) => Ok(S::RolledBack),
        (
            S::Training | S::Evaluating | S::Shadow | S::AbRunning | S::Deployed | S::Archived,
            A::Archive,
        ) => Err(Refusal::Order { action, state }),
        (_, A::Archive) if facts.is_previous => Err(Refusal::IsPrevious),
        (_, A::Archive) => Ok(S::Archived),
        _ => Err(Refusal::Order { action, state }),
    }
}

fn challenger(facts: &Facts, next: State) -> Result<State, Refusal> {
    if facts.is_tainted {
        return Err(Refusal::Tainted);
    }
    match &facts.other_challenger {
        Some(other) => Err(Refusal::Challenged { other: other.clone() }),
        None => Ok(next),
    }
}

fn may_serve(facts: &Facts) -> Result<(), Refusal> {
    if facts.is_tainted {
        return Err(Refusal::Tainted);
    }
    facts.changed.map_or(Ok(()), |what| Err(Refusal::Changed { what }))
}

fn gates_passed(facts: &Facts) -> Result<(), Refusal> {
    match &facts.open_gates {
        None => Err(Refusal::NoGates),
        Some(open) if open.is_empty() => Ok(()),
        Some(open) => Err(Refusal::GatesOpen { gates: open.join(", ") }),
    }
}

const fn approved(facts: &Facts) -> Result<(), Refusal> {
    let (approvals, needed) = (facts.approvals, facts.approvals_needed);
    // At least one, whatever is asked for.
    if approvals == 0 || approvals < needed {
        return Err(Refusal::NotApproved { approvals, needed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns facts under which everything goes.
    fn fine() -> Facts {
        Facts {
            by_person: true,
            open_gates: Some(Vec::new()),
            approvals: 1,
            approvals_needed: 1,
            ..Facts::default()
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for state in State::ALL {
            assert_eq!(State::named(state.as_str()), Some(*state));
            assert_eq!(serde_json::json!(state), state.as_str());
        }
        for action in Action::ALL {
            assert_eq!(Action::named(action.as_str()), Some(*action));
        }
        assert_eq!(State::named("champion"), None);
    }

    #[test]
    fn the_usual_way_leads_to_deployed() {
        let way = "start finish evaluate judge shadow experiment pass approve deploy roll_back";
        let mut state = State::Queued;
        let mut seen = Vec::new();
        for action in way.split(' ') {
            let action = Action::named(action).expect("it is an action");
            state = step(state, action, &fine()).expect("it is allowed");
            seen.push(state.as_str());
        }
        let expected = "training trained evaluating gated shadow ab_running ab_passed approved \
                        deployed rolled_back";
        assert_eq!(seen.join(" "), expected);
    }

    #[test]
    fn only_deploy_and_restore_lead_to_deployed() {
        for state in State::ALL {
            for action in Action::ALL {
                let next = step(*state, *action, &fine());
                let is_way = matches!(
                    (state, action),
                    (State::Approved, Action::Deploy) | (State::Superseded, Action::Restore)
                );
                assert_eq!(next == Ok(State::Deployed), is_way, "{state} {action}");
            }
        }
    }

    #[test]
    fn each_fact_alone_keeps_a_version_from_serving() {
        type Spoil = fn(&mut Facts);
        let cases: [(Spoil, Refusal); 6] = [
            (|it| it.by_person = false, Refusal::NeedsPerson { action: Action::Deploy }),
            (|it| it.is_tainted = true, Refusal::Tainted),
            (|it| it.changed = Some("base"), Refusal::Changed { what: "base" }),
            (|it| it.open_gates = None, Refusal::NoGates),
            (|it| it.approvals = 0, Refusal::NotApproved { approvals: 0, needed: 1 }),
            (|it| it.approvals_needed = 2, Refusal::NotApproved { approvals: 1, needed: 2 }),
        ];
        for (spoil, refusal) in cases {
            let mut facts = fine();
            spoil(&mut facts);
            assert_eq!(step(State::Approved, Action::Deploy, &facts), Err(refusal));
        }
        // Nobody's approval is never enough.
        let facts = Facts { approvals: 0, approvals_needed: 0, ..fine() };
        step(State::Approved, Action::Deploy, &facts).expect_err("it is refused");
        step(State::Superseded, Action::Restore, &facts).expect_err("it is refused");
    }

    #[test]
    fn approvals_gates_and_aliases_are_looked_at() {
        let two = Facts { approvals_needed: 2, ..fine() };
        assert_eq!(step(State::Gated, Action::Approve, &two), Ok(State::Gated));
        let open = Facts { open_gates: Some(vec!["parity".to_owned()]), ..fine() };
        let refusal = Refusal::GatesOpen { gates: "parity".to_owned() };
        assert_eq!(step(State::Gated, Action::Approve, &open), Err(refusal));
        assert_eq!(step(State::Evaluating, Action::Judge, &open), Ok(State::Rejected));
        assert_eq!(step(State::Rejected, Action::Override, &fine()), Ok(State::Gated));
        let busy = Facts { other_challenger: Some("other".to_owned()), ..fine() };
        let refusal = Refusal::Challenged { other: "other".to_owned() };
        assert_eq!(step(State::Gated, Action::Experiment, &busy), Err(refusal));
        let tainted = Facts { is_tainted: true, ..fine() };
        assert_eq!(step(State::Gated, Action::Shadow, &tainted), Err(Refusal::Tainted));
        let previous = Facts { is_previous: true, ..fine() };
        for action in [Action::Archive, Action::Evaluate] {
            assert_eq!(step(State::Superseded, action, &previous), Err(Refusal::IsPrevious));
        }
        assert_eq!(step(State::Failed, Action::Archive, &fine()), Ok(State::Archived));
    }
}
