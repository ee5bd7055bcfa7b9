//! Advice: what a person does next with a version, from each state and after each refusal.
//!
//! Each sentence leads forward: whoever does what it says comes nearer to a version that serves, or
//! is told that this one never will.

use crate::registry::{Ledger, Refusal, State, Version};

/// Returns what comes next for a version on its way to serving, in a sentence with a command.
/// `needed` is the number of persons who have to approve it.
pub(crate) fn next(ledger: &Ledger, version: &Version, needed: usize) -> String {
    let id = &version.id;
    let is_policy = version.lineage.is_policy();
    let is_previous = ledger.before(is_policy) == Some(id) && ledger.serving(is_policy).is_some();
    if version.tainted {
        return tainted(version);
    }
    match version.state {
        State::Queued | State::Training => {
            format!("it is trained first: `lodestar learning runs watch {}`", run(version))
        }
        State::Stopped => {
            format!("its training stopped: `lodestar learning runs resume {}`", run(version))
        }
        State::Failed | State::Archived => another(version),
        State::Evaluating => {
            "its gates are measured at the moment; wait for that, then approve it".to_owned()
        }
        State::Superseded if is_previous => {
            format!("it served before: `{}` brings it back", rollback(version))
        }
        State::Superseded | State::RolledBack if is_policy => another(version),
        State::Trained | State::AbFailed | State::Superseded | State::RolledBack => {
            format!("its gates are measured first: `lodestar learning gates {id}`")
        }
        State::Rejected => open_gates(version),
        State::Shadow | State::AbRunning => {
            "its experiment ends first; `lodestar learning experiments` lists it, and \
             `lodestar learning experiments stop ID --reason TEXT` stops it"
                .to_owned()
        }
        State::Gated | State::AbPassed | State::Inconclusive => approve(version, needed),
        State::Approved if approvals(version) < needed.max(1) => approve(version, needed),
        State::Approved if is_policy => {
            format!("`lodestar learning labels activate {id}` lets the router decide by it")
        }
        State::Approved => format!("`lodestar learning deploy {id}` deploys it"),
        State::Deployed => format!("it serves already; `{}` takes it back", rollback(version)),
    }
}

/// Returns what helps against a refusal of a command about a version, if anything does.
pub(crate) fn remedy(
    refusal: &Refusal,
    ledger: &Ledger,
    version: &Version,
    needed: usize,
) -> Option<String> {
    let id = &version.id;
    Some(match refusal {
        Refusal::Order { .. } => next(ledger, version, needed),
        Refusal::Tainted => tainted(version),
        Refusal::NoGates => format!("`lodestar learning gates {id}` measures them"),
        Refusal::GatesOpen { .. } => open_gates(version),
        Refusal::NoSuchGate { .. } => {
            format!("`lodestar learning versions show {id}` lists its gates")
        }
        Refusal::NotApproved { .. } | Refusal::ApprovedAlready { .. } => approve(version, needed),
        // What it is measured with is another: it is measured once more.
        Refusal::Changed { what: "benchmark" } if !version.lineage.is_policy() => {
            format!("`lodestar learning gates {id}` measures it by what is there now")
        }
        Refusal::Changed { what } => {
            format!("put the {what} back as it was, or make another: {}", another(version))
        }
        Refusal::Challenged { .. } => {
            "`lodestar learning experiments stop ID --reason TEXT` ends it".to_owned()
        }
        Refusal::IsPrevious => format!("`{}` lets it serve again", rollback(version)),
        _ => return None,
    })
}

/// Returns the command that takes back what serves.
pub(crate) fn rollback(version: &Version) -> &'static str {
    if version.lineage.is_policy() {
        "lodestar learning labels rollback --reason TEXT"
    } else {
        "lodestar learning rollback --reason TEXT"
    }
}

fn run(version: &Version) -> &str {
    version.lineage.run.get(..12).unwrap_or(&version.lineage.run)
}

/// Returns how another one is made in the place of one that comes to nothing.
fn another(version: &Version) -> String {
    let dataset = version.lineage.dataset.get(..12).unwrap_or(&version.lineage.dataset);
    if version.lineage.is_policy() {
        format!("`lodestar learning labels train {dataset}` learns another one")
    } else {
        format!("`lodestar learning train {dataset} --base PATH` trains another one")
    }
}

/// Returns the way out of text that was taken back: this version has none.
fn tainted(version: &Version) -> String {
    let other = if version.lineage.is_policy() {
        "`lodestar learning labels build` makes another set to learn from"
    } else {
        "`lodestar learning datasets build --project NAME` makes another dataset to train on"
    };
    if version.state == State::Deployed {
        format!("`{}` takes it back; {other}", rollback(version))
    } else {
        other.to_owned()
    }
}

fn open_gates(version: &Version) -> String {
    let open = version.open_gates().unwrap_or_default();
    let gate = open.first().map_or("GATE", String::as_str);
    format!(
        "`lodestar learning versions show {id}` tells why; a person may answer for each gate: \
         `lodestar learning gates {id} --override {gate} --by NAME --reason TEXT`",
        id = version.id
    )
}

/// Returns the number of persons who approved the version as it is.
fn approvals(version: &Version) -> usize {
    version.expected().map_or(0, |expected| version.approvers(&expected).len())
}

fn approve(version: &Version, needed: usize) -> String {
    let given = approvals(version);
    let who = if given > 0 && given < needed { "another person" } else { "a person" };
    let labels = if version.lineage.is_policy() { "labels " } else { "" };
    format!(
        "{who} approves it first: `lodestar learning {labels}approve {} --by NAME --reason TEXT`",
        version.id
    )
}
