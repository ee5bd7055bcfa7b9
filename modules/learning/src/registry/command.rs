//! Commands to the registry, and the deeds that each becomes.

use serde::Deserialize;

use super::{
    Action, Actor, Change, Deed, Digest, Draft, Gate, Ledger, Lineage, Observed, ROUTER, Refusal,
    State,
};

/// The operator's rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Number of persons who have to approve an artifact, each by their own name.
    #[schemars(range(min = 1, max = 2))]
    pub approvals: usize,
    /// Names of the gates that every version has to have.
    pub required_gates: Vec<String>,
}

impl Default for Policy {
    /// Returns the rules of a small team: one person, and whatever gates were measured.
    fn default() -> Self {
        Self { approvals: 1, required_gates: Vec::new() }
    }
}

/// A command with the one who gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Id of the version. A rollback is that of the model, or with [`ROUTER`] that of the policy.
    pub version: String,
    /// The one who gives it.
    pub actor: Actor,
    /// Their reason; approvals, overrides and rollbacks need one.
    pub reason: String,
    /// The command.
    pub command: Command,
}

/// A command to the registry.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Creates the version.
    Create(Lineage),
    /// Does something that needs no further facts.
    Act(Action),
    /// Notes the artifact of a finished training.
    Finish(Digest),
    /// Notes what the gates measured with a benchmark.
    Judge(Digest, Vec<Gate>),
    /// Overrides the gate of this name.
    Override(String),
    /// Approves what was seen now.
    Approve {
        /// Id of the version, typed by the person once more.
        typed: String,
        /// Digests of what was seen now.
        observed: Observed,
    },
    /// Deploys what was seen now.
    Deploy(Observed),
    /// Takes the champion back, and restores the previous one if that is what was seen now.
    RollBack(Option<Observed>),
    /// Notes that what the version was learnt from should be forgotten.
    Taint,
}

/// Outcome of a command that is allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The ledger after it.
    pub ledger: Ledger,
    /// Deeds for the log, in their order.
    pub deeds: Vec<(Draft, Change)>,
    /// Reason for which a rollback restores no version.
    pub not_restored: Option<Refusal>,
}

impl Decision {
    fn on(ledger: &Ledger) -> Self {
        Self { ledger: ledger.clone(), deeds: Vec::new(), not_restored: None }
    }

    fn add(&mut self, draft: Draft) -> Result<(), Refusal> {
        let change = self.ledger.admit(&draft)?;
        self.deeds.push((draft, change));
        Ok(())
    }
}

/// Decides about a command.
///
/// # Errors
///
/// Returns the refusal.
pub fn decide(
    ledger: &Ledger,
    policy: &Policy,
    request: &Request,
    at: i64,
) -> Result<Decision, Refusal> {
    let Request { version, actor, reason, command } = request;
    let draft = |version: &str, deed: Deed| Draft {
        at,
        actor: actor.clone(),
        version: version.to_owned(),
        reason: reason.clone(),
        deed,
    };
    let needed = policy.approvals.max(1);
    let mut decision = Decision::on(ledger);
    let deed = match command {
        Command::Create(lineage) => Deed::Create { lineage: lineage.clone() },
        // These two move aliases along with other versions.
        Command::Act(action @ (Action::Supersede | Action::RollBack)) => {
            let state = ledger.version(version)?.state;
            return Err(Refusal::Order { action: *action, state });
        }
        Command::Act(action) => Deed::Act { action: *action },
        Command::Finish(artifact) => Deed::Finish { artifact: artifact.clone() },
        Command::Judge(bench, gates) => {
            Deed::Judge { bench: bench.clone(), gates: with_required(gates, policy) }
        }
        Command::Override(gate) => Deed::Override { gate: gate.clone() },
        Command::Approve { typed, .. } if typed != version => return Err(Refusal::WrongId),
        Command::Approve { observed, .. } => Deed::Approve { observed: observed.clone(), needed },
        Command::Deploy(observed) => {
            // The version itself is judged first: its faults are the ones to tell.
            let deploy = draft(version, Deed::Deploy { observed: observed.clone(), needed });
            let is_policy = ledger.version(version)?.lineage.is_policy();
            if let Some(champion) = ledger.serving(is_policy) {
                if champion == version {
                    let state = State::Deployed;
                    return Err(Refusal::Order { action: Action::Deploy, state });
                }
                let mut alone = ledger.without_serving(is_policy);
                alone.admit(&deploy)?;
                let action = Action::Supersede;
                decision.add(draft(champion, Deed::Act { action }))?;
            }
            decision.add(deploy)?;
            return Ok(decision);
        }
        Command::RollBack(seen) => {
            let is_policy = version == ROUTER;
            let champion = ledger.serving(is_policy).ok_or(Refusal::NoChampion)?;
            decision.add(draft(champion, Deed::Act { action: Action::RollBack }))?;
            if let Some(previous) = ledger.before(is_policy) {
                // To take back is more urgent than to have a successor: without one the base
                // model answers alone.
                let restored = match seen.clone() {
                    None => Err(Refusal::Changed { what: "artifact" }),
                    Some(observed) => decision.add(draft(previous, Deed::Restore { observed })),
                };
                decision.not_restored = restored.err();
            }
            return Ok(decision);
        }
        Command::Taint => Deed::Taint,
    };
    decision.add(draft(version, deed))?;
    Ok(decision)
}

/// Adds the gates that are required and were not measured, as ones that did not pass.
fn with_required(gates: &[Gate], policy: &Policy) -> Vec<Gate> {
    let mut all = gates.to_vec();
    for name in &policy.required_gates {
        if !all.iter().any(|gate| gate.name == *name) {
            all.push(Gate {
                name: name.clone(),
                passed: false,
                value: None,
                limit: None,
                evidence: serde_json::json!("it was not measured"),
                overridden: None,
            });
        }
    }
    // What is asserted of an override is no override.
    all.iter_mut().for_each(|gate| gate.overridden = None);
    all
}
