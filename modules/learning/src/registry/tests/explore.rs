//! All sequences of commands up to a length.

use std::collections::BTreeMap;

use super::{super::*, Desk, approve, artifact, gate, lineage, seen, unapproved};

/// Returns all commands about a version, right ones and wrong ones, by a person and by nobody.
fn alphabet(versions: &[&str]) -> Vec<Request> {
    let mut all = Vec::new();
    for &version in versions {
        let wrong = Observed { artifact: Digest::of(b"wrong"), ..seen(version) };
        let stale = Observed { base: Digest::of(b"wrong"), ..seen(version) };
        let typed = version.to_owned();
        let mut commands: Vec<Command> =
            Action::ALL.iter().map(|action| Command::Act(*action)).collect();
        commands.extend([
            Command::Create(lineage()),
            Command::Finish(artifact(version)),
            Command::Judge(Digest::of(b"bench"), vec![gate("task", true)]),
            Command::Judge(Digest::of(b"bench"), vec![gate("task", false)]),
            Command::Judge(Digest::of(b"bench"), Vec::new()),
            Command::Override("task".to_owned()),
            approve(version),
            Command::Approve { typed: typed.clone(), observed: wrong.clone() },
            Command::Approve { typed, observed: stale.clone() },
            Command::Deploy(seen(version)),
            Command::Deploy(wrong),
            Command::Deploy(stale),
            Command::RollBack(Some(seen(version))),
            Command::RollBack(None),
            Command::Taint,
        ]);
        for command in commands {
            for actor in [Actor::Lodestar, Actor::Person("anna".to_owned())] {
                let (version, reason) = (version.to_owned(), "because".to_owned());
                all.push(Request { version, actor, reason, command: command.clone() });
            }
        }
    }
    all
}

/// Returns all that later decisions can depend on, without times.
fn situation(ledger: &Ledger) -> String {
    let mut ledger = ledger.clone();
    for version in ledger.versions.values_mut() {
        (version.created_at, version.updated_at) = (0, 0);
        // The number of an evaluation only tells whether an approval belongs to it.
        let evaluation = version.evaluation;
        version.approvals.retain(|approval| approval.evaluation == evaluation);
        version.approvals.iter_mut().for_each(|it| (it.evaluation, it.at) = (0, 0));
        version.evaluation = 0;
        for gate in &mut version.gates {
            if let Some(overridden) = &mut gate.overridden {
                overridden.at = 0;
            }
        }
    }
    format!("{ledger:?}")
}

/// Returns the versions that became the champion by these deeds although no approval by a person of
/// their artifact came before. It looks at nothing but the deeds.
fn deployed_by<'a>(deeds: impl Iterator<Item = &'a Draft>) -> Vec<(String, Observed)> {
    let found = deeds.filter_map(|draft| match &draft.deed {
        Deed::Deploy { observed, .. } | Deed::Restore { observed } => {
            Some((draft.version.clone(), observed.clone()))
        }
        _ => None,
    });
    found.collect()
}

/// Walks through all situations that sequences up to a length lead to. Two sequences that lead to
/// one situation have the same continuations, so that each is gone on with once; which artifacts
/// were approved on the way belongs to the situation.
fn explore(policy: &Policy, versions: &[&str], length: usize) -> (usize, usize) {
    type Approved = BTreeMap<String, Vec<Observed>>;
    let alphabet = alphabet(versions);
    let mut seen = std::collections::HashSet::new();
    let mut edge: Vec<(Ledger, Approved)> = vec![Default::default()];
    let (mut tried, mut deployments) = (0, 0);
    for _ in 0..length {
        let mut next = Vec::new();
        for (ledger, approved) in &edge {
            for request in &alphabet {
                tried += 1;
                let Ok(decision) = decide(ledger, policy, request, 1) else { continue };
                let mut approved = approved.clone();
                for (draft, _) in &decision.deeds {
                    if let Deed::Approve { observed, .. } = &draft.deed {
                        assert!(draft.actor.person().is_some(), "nobody approves by itself");
                        approved.entry(draft.version.clone()).or_default().push(observed.clone());
                    }
                }
                for (version, observed) in deployed_by(decision.deeds.iter().map(|it| &it.0)) {
                    deployments += 1;
                    let is_approved =
                        approved.get(&version).is_some_and(|all| all.contains(&observed));
                    assert!(is_approved, "{version} is deployed without an approval");
                    let now = &decision.ledger.versions[&version];
                    assert_eq!(now.artifact.as_ref(), Some(&observed.artifact));
                    assert!(!now.tainted, "{version} is tainted");
                    assert!(request.actor.person().is_some(), "nothing deploys by itself");
                }
                let serving = decision.ledger.versions.values();
                let serving: Vec<_> = serving.filter(|it| it.state == State::Deployed).collect();
                assert!(serving.len() <= 1, "there is one champion at most");
                assert_eq!(serving.first().map(|it| &it.id), decision.ledger.champion.as_ref());
                if seen.insert((situation(&decision.ledger), format!("{approved:?}"))) {
                    next.push((decision.ledger, approved));
                }
            }
        }
        edge = next;
    }
    (tried, deployments)
}

#[test]
fn no_sequence_of_commands_deploys_what_nobody_approved() {
    let (tried, deployments) = explore(&Policy::default(), &["v1"], 10);
    assert!(tried > 5_000, "{tried} commands are too few");
    assert!(deployments > 0, "{deployments} deployments are too few");
    let two = Policy { approvals: 2, ..Policy::default() };
    // One person alone does not get there at all.
    assert_eq!(explore(&two, &["v1"], 10).1, 0);
}

#[test]
fn nor_does_one_over_two_versions() {
    // From where both are approved, with the way back to the gates within reach.
    let (tried, deployments) = explore_from_approved(5);
    assert!(tried > 5_000, "{tried} commands are too few");
    assert!(deployments > 100, "{deployments} deployments are too few");
}

fn explore_from_approved(length: usize) -> (usize, usize) {
    let policy = Policy::default();
    let alphabet = alphabet(&["v1", "v2"]);
    let mut ledger = Ledger::default();
    for version in ["v1", "v2"] {
        let way = [
            Command::Create(lineage()),
            Command::Act(Action::Start),
            Command::Finish(artifact(version)),
            Command::Act(Action::Evaluate),
            Command::Judge(Digest::of(b"bench"), vec![gate("task", true)]),
            approve(version),
        ];
        for command in way {
            let request = super::by("anna", version, command);
            ledger = decide(&ledger, &policy, &request, 1).expect("it is allowed").ledger;
        }
    }
    let mut seen = std::collections::HashSet::new();
    let (mut edge, mut tried, mut deployments) = (vec![ledger], 0, 0);
    for _ in 0..length {
        let mut next = Vec::new();
        for ledger in &edge {
            for request in &alphabet {
                tried += 1;
                let Ok(decision) = decide(ledger, &policy, request, 1) else { continue };
                for (version, observed) in deployed_by(decision.deeds.iter().map(|it| &it.0)) {
                    deployments += 1;
                    let now = &decision.ledger.versions[&version];
                    let is_approved = now.approvals.iter().any(|it| it.observed == observed);
                    assert!(is_approved && !now.tainted, "{version}");
                }
                let serving = decision.ledger.versions.values();
                let serving = serving.filter(|it| it.state == State::Deployed).count();
                assert!(serving <= 1, "there is one champion at most");
                if seen.insert(situation(&decision.ledger)) {
                    next.push(decision.ledger);
                }
            }
        }
        edge = next;
    }
    (tried, deployments)
}

#[test]
fn the_database_allows_what_the_machine_allows_and_nothing_else() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    let mut seen = std::collections::HashSet::new();
    let mut counts = (0, 0);
    walk(&mut desk, &alphabet(&["v1"]), 4, &mut seen, &mut counts);
    assert!(counts.0 > 1_000, "{} commands are too few", counts.0);
    assert!(counts.1 > 3, "{} deployments are too few", counts.1);
}

/// Does all sequences of commands on the database, each from a savepoint.
fn walk(
    desk: &mut Desk,
    alphabet: &[Request],
    left: usize,
    seen: &mut std::collections::HashSet<(usize, String)>,
    counts: &mut (usize, usize),
) {
    let before = desk.registry.audit(&desk.connection).expect("it is read");
    if left == 0 || !seen.insert((left, situation(&before.ledger))) {
        return;
    }
    let savepoint = format!("s{left}");
    for request in alphabet {
        counts.0 += 1;
        desk.connection.execute_batch(&format!("SAVEPOINT {savepoint}")).expect("it is set");
        let done = desk.registry.perform(&desk.connection, request, 7).expect("it is written");
        let expected = decide(&before.ledger, desk.registry.policy(), request, 7);
        assert_eq!(done.is_ok(), expected.is_ok(), "{request:?}");
        match done {
            Err(_) => {
                let after = desk.registry.audit(&desk.connection).expect("it is read");
                assert_eq!(after, before, "a refused command changes nothing");
            }
            Ok(done) => {
                desk.registry.keep(&done).expect("the head is kept");
                let mut all = audit::last(&desk.connection, 1_000).expect("they are read");
                all.reverse();
                assert_eq!(unapproved(&all), Vec::<String>::new());
                let is_serving = |entry: &audit::Entry| entry.to.as_deref() == Some("deployed");
                counts.1 += usize::from(done.entries.iter().any(is_serving));
                walk(desk, alphabet, left - 1, seen, counts);
            }
        }
        let back = format!("ROLLBACK TO {savepoint}; RELEASE {savepoint}");
        desk.connection.execute_batch(&back).expect("it goes back");
        before.head.keep(&desk.directory.path().join(HEAD)).expect("the head is kept");
    }
}
