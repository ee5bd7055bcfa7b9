mod explore;
mod hands;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{audit::Entry, *};

/// A registry over a database in memory.
pub(super) struct Desk {
    pub(super) connection: Connection,
    pub(super) registry: Registry,
    pub(super) directory: TempDir,
    at: i64,
}

impl Desk {
    pub(super) fn new(policy: Policy) -> Self {
        // The head is brought to the disk each time, which takes no time where there is none.
        let memory = std::path::Path::new("/dev/shm");
        let directory =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = directory.expect("a temporary directory");
        let connection = Connection::open_in_memory().expect("a database");
        connection.execute_batch(MIGRATION).expect("the schema is valid");
        let registry = Registry::new(directory.path(), policy);
        Self { connection, registry, directory, at: 1_790_000_000_000 }
    }

    pub(super) fn perform(&mut self, request: &Request) -> Result<Done, Refusal> {
        self.at += 1;
        let transaction = self.connection.transaction().expect("it begins");
        let done = self.registry.perform(&transaction, request, self.at).expect("it is written")?;
        transaction.commit().expect("it is committed");
        self.registry.keep(&done).expect("the head is kept");
        Ok(done)
    }

    pub(super) fn does(&mut self, version: &str, command: Command) -> Done {
        let request = by("anna", version, command);
        self.perform(&request).unwrap_or_else(|refusal| panic!("{version}: {refusal}"))
    }

    pub(super) fn refuses(&mut self, version: &str, command: Command) -> Refusal {
        self.perform(&by("anna", version, command)).expect_err("it is refused")
    }

    /// Brings a version up to its gates.
    pub(super) fn gated(&mut self, version: &str) {
        self.does(version, Command::Create(lineage()));
        self.does(version, Command::Act(Action::Start));
        self.does(version, Command::Finish(artifact(version)));
        self.does(version, Command::Act(Action::Evaluate));
        self.does(version, Command::Judge(Digest::of(b"bench"), vec![gate("task", true)]));
    }

    /// Brings a version up to the place of the champion.
    pub(super) fn deployed(&mut self, version: &str) {
        self.gated(version);
        self.does(version, approve(version));
        self.does(version, Command::Deploy(seen(version)));
    }

    pub(super) fn ledger(&self) -> Ledger {
        let reading = self.registry.audit(&self.connection).expect("it is read");
        assert_eq!(reading.finding, None);
        reading.ledger
    }

    pub(super) fn state(&self, version: &str) -> State {
        self.ledger().version(version).expect("it is there").state
    }
}

pub(super) fn by(person: &str, version: &str, command: Command) -> Request {
    Request {
        version: version.to_owned(),
        actor: Actor::Person(person.to_owned()),
        reason: "better at our work".to_owned(),
        command,
    }
}

pub(super) fn lineage() -> Lineage {
    Lineage {
        run: "run-1".to_owned(),
        base: "tiny".to_owned(),
        base_digest: Digest::of(b"base"),
        dataset: "shop".to_owned(),
        dataset_digest: Digest::of(b"dataset"),
        examples: 120,
        consents: vec!["c-1".to_owned(), "c-2".to_owned()],
        trainer: "embedded".to_owned(),
    }
}

pub(super) fn artifact(version: &str) -> Digest {
    Digest::of(version.as_bytes())
}

pub(super) fn seen(version: &str) -> Observed {
    Observed {
        artifact: artifact(version),
        base: Digest::of(b"base"),
        dataset: Digest::of(b"dataset"),
        bench: Digest::of(b"bench"),
    }
}

pub(super) fn approve(version: &str) -> Command {
    Command::Approve { typed: version.to_owned(), observed: seen(version) }
}

pub(super) fn gate(name: &str, passed: bool) -> Gate {
    Gate {
        name: name.to_owned(),
        passed,
        // Numbers whose shortest text is long.
        value: Some(0.1 + 0.2),
        limit: Some(1.0 / 3.0),
        evidence: serde_json::json!({"pairs": 494, "low": -0.012_345_678_901_234_567}),
        overridden: None,
    }
}

#[test]
fn a_version_is_deployed_only_after_its_approval() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    let refusal = desk.refuses("v1", Command::Deploy(seen("v1")));
    assert_eq!(refusal, Refusal::Order { action: Action::Deploy, state: State::Gated });
    let typed = Command::Approve { typed: "v2".to_owned(), observed: seen("v1") };
    assert_eq!(desk.refuses("v1", typed), Refusal::WrongId);
    desk.does("v1", approve("v1"));
    let done = desk.does("v1", Command::Deploy(seen("v1")));
    assert_eq!(done.ledger.champion.as_deref(), Some("v1"));
    let last = audit::last(&desk.connection, 2).expect("they are read");
    let told = last.iter().map(|entry| (entry.action.as_str(), entry.actor.as_str()));
    assert!(told.eq([("deploy", "person:anna"), ("approve", "person:anna")]), "{last:?}");
    let refusal = desk.refuses("v1", Command::Deploy(seen("v1")));
    assert_eq!(refusal, Refusal::Order { action: Action::Deploy, state: State::Deployed });
}

#[test]
fn an_approval_is_for_these_digests_only() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    let other = Digest::of(b"other");
    for (what, observed) in [
        ("artifact", Observed { artifact: other.clone(), ..seen("v1") }),
        ("base", Observed { base: other.clone(), ..seen("v1") }),
        ("dataset", Observed { dataset: other.clone(), ..seen("v1") }),
        ("benchmark", Observed { bench: other.clone(), ..seen("v1") }),
    ] {
        let typed = "v1".to_owned();
        let changed = Refusal::Changed { what };
        let approve = Command::Approve { typed, observed: observed.clone() };
        assert_eq!(desk.refuses("v1", approve), changed);
    }
    desk.does("v1", approve("v1"));
    for (what, observed) in [
        ("artifact", Observed { artifact: other.clone(), ..seen("v1") }),
        ("base", Observed { base: other.clone(), ..seen("v1") }),
        ("dataset", Observed { dataset: other.clone(), ..seen("v1") }),
        ("benchmark", Observed { bench: other.clone(), ..seen("v1") }),
    ] {
        let refusal = desk.refuses("v1", Command::Deploy(observed));
        assert_eq!(refusal, Refusal::Changed { what });
    }
    // Another evaluation, and the approval before it is worth nothing.
    desk.does("v1", Command::Act(Action::Evaluate));
    desk.does("v1", Command::Judge(Digest::of(b"bench"), vec![gate("task", true)]));
    let refusal = desk.refuses("v1", Command::Deploy(seen("v1")));
    assert_eq!(refusal, Refusal::Order { action: Action::Deploy, state: State::Gated });
    desk.does("v1", approve("v1"));
    desk.does("v1", Command::Deploy(seen("v1")));
    let ledger = desk.ledger();
    assert_eq!(ledger.versions["v1"].approvals.len(), 2);
}

#[test]
fn two_persons_are_two() {
    let mut desk = Desk::new(Policy { approvals: 2, ..Policy::default() });
    desk.gated("v1");
    desk.does("v1", approve("v1"));
    assert_eq!(desk.state("v1"), State::Gated);
    let again = desk.perform(&by("ANNA", "v1", approve("v1"))).expect_err("it is the same one");
    assert_eq!(again, Refusal::ApprovedAlready { by: "ANNA".to_owned() });
    desk.perform(&by("ben", "v1", approve("v1"))).expect("it is another one");
    assert_eq!(desk.state("v1"), State::Approved);
    // One who is asked for later has to be there as well.
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    desk.does("v1", approve("v1"));
    desk.registry.policy.approvals = 2;
    let refusal = desk.refuses("v1", Command::Deploy(seen("v1")));
    assert_eq!(refusal, Refusal::NotApproved { approvals: 1, needed: 2 });
    desk.perform(&by("ben", "v1", approve("v1"))).expect("it is another one");
    desk.does("v1", Command::Deploy(seen("v1")));
}

#[test]
fn nobody_but_a_person_promotes() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    for command in [
        approve("v1"),
        Command::Deploy(seen("v1")),
        Command::Act(Action::Shadow),
        Command::Act(Action::Experiment),
        Command::Act(Action::Archive),
        Command::Override("task".to_owned()),
    ] {
        let request = Request { actor: Actor::Lodestar, ..by("", "v1", command) };
        let refusal = desk.perform(&request).expect_err("it is refused");
        assert!(matches!(refusal, Refusal::NeedsPerson { .. }), "{refusal}");
    }
    // A guardrail stops a challenger without a person.
    desk.does("v1", Command::Act(Action::Experiment));
    assert_eq!(desk.ledger().challenger.as_deref(), Some("v1"));
    let request = by("", "v1", Command::Act(Action::Worse));
    desk.perform(&Request { actor: Actor::Lodestar, ..request }).expect("it is allowed");
    assert_eq!(desk.state("v1"), State::AbFailed);
    assert_eq!(desk.ledger().challenger, None);
    let refusal = desk.refuses("v1", approve("v1"));
    assert_eq!(refusal, Refusal::Order { action: Action::Approve, state: State::AbFailed });
}

#[test]
fn an_overridden_gate_stays_visible() {
    let required = vec!["task".to_owned(), "parity".to_owned()];
    let mut desk = Desk::new(Policy { required_gates: required, ..Policy::default() });
    desk.does("v1", Command::Create(lineage()));
    desk.does("v1", Command::Act(Action::Start));
    desk.does("v1", Command::Finish(artifact("v1")));
    desk.does("v1", Command::Act(Action::Evaluate));
    // What claims to be overridden is not.
    let overridden = Some(Overriding { by: "x".to_owned(), reason: "y".to_owned(), at: 0 });
    let gates = vec![Gate { overridden, ..gate("task", false) }];
    desk.does("v1", Command::Judge(Digest::of(b"bench"), gates));
    assert_eq!(desk.state("v1"), State::Rejected);
    let open = desk.ledger().versions["v1"].open_gates().expect("they were measured");
    assert_eq!(open, ["task", "parity"]);
    desk.refuses("v1", Command::Override("safety".to_owned()));
    desk.does("v1", Command::Override("task".to_owned()));
    desk.does("v1", Command::Override("parity".to_owned()));
    assert_eq!(desk.state("v1"), State::Gated);
    let version = &desk.ledger().versions["v1"];
    let by: Vec<_> =
        version.gates.iter().map(|it| it.overridden.as_ref().map(|it| &*it.by)).collect();
    assert_eq!(by, [Some("anna"), Some("anna")]);
    assert!(version.gates.iter().all(|gate| !gate.passed));
}

#[test]
fn a_rollback_restores_the_version_before_or_none() {
    let mut desk = Desk::new(Policy::default());
    assert_eq!(desk.refuses("", Command::RollBack(None)), Refusal::NoChampion);
    desk.deployed("v1");
    desk.deployed("v2");
    let ledger = desk.ledger();
    assert_eq!(ledger.previous.as_deref(), Some("v1"));
    assert_eq!(desk.refuses("v1", Command::Act(Action::Archive)), Refusal::IsPrevious);
    let done = desk.does("", Command::RollBack(Some(seen("v1"))));
    assert_eq!(done.ledger.champion.as_deref(), Some("v1"));
    assert_eq!(done.not_restored, None);
    assert_eq!([desk.state("v1"), desk.state("v2")], [State::Deployed, State::RolledBack]);
    // The next one finds none before it: the base model answers alone.
    let done = desk.does("", Command::RollBack(None));
    assert_eq!((done.ledger.champion, done.ledger.previous), (None, None));
}

#[test]
fn a_rollback_works_although_the_version_before_may_not_serve() {
    for (spoil, seen_now, why) in [
        (true, Some(seen("v1")), Refusal::Tainted),
        (false, Some(seen("v2")), Refusal::Changed { what: "artifact" }),
        (false, None, Refusal::Changed { what: "artifact" }),
    ] {
        let mut desk = Desk::new(Policy::default());
        desk.deployed("v1");
        desk.deployed("v2");
        if spoil {
            desk.does("v1", Command::Taint);
        }
        let done = desk.does("", Command::RollBack(seen_now));
        assert_eq!(done.not_restored, Some(why));
        assert_eq!(done.ledger.champion, None);
        assert_eq!(desk.state("v2"), State::RolledBack);
    }
}

#[test]
fn what_is_forgotten_taints_and_blocks() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    assert_eq!(desk.ledger().of_dataset("shop"), ["v1"]);
    assert_eq!(desk.ledger().of_consent("c-2"), ["v1"]);
    assert!(desk.ledger().of_consent("c-3").is_empty());
    desk.does("v1", approve("v1"));
    desk.does("v1", Command::Taint);
    assert_eq!(desk.refuses("v1", Command::Deploy(seen("v1"))), Refusal::Tainted);
    assert_eq!(desk.refuses("v1", approve("v1")), Refusal::ApprovedAlready { by: "anna".into() });
    let other = by("ben", "v1", approve("v1"));
    assert_eq!(desk.perform(&other).expect_err("it is refused"), Refusal::Tainted);
}

#[test]
fn names_reasons_and_ids_are_checked() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    let mut request = by("anna", "v1", approve("v1"));
    request.reason.clear();
    desk.perform(&request).expect_err("a reason is needed");
    request = by("anna\u{1b}[2J", "v1", approve("v1"));
    desk.perform(&request).expect_err("a name is one line");
    let refusal = desk.refuses("../v2", Command::Create(lineage()));
    assert!(matches!(refusal, Refusal::Text { .. }), "{refusal}");
    let refusal = desk.refuses("v1", Command::Create(lineage()));
    assert_eq!(refusal, Refusal::Exists { version: "v1".to_owned() });
    let refusal = desk.refuses("v9", Command::Taint);
    assert_eq!(refusal, Refusal::Unknown { version: "v9".to_owned() });
    // Actions that come with digests or aliases are none that stand alone.
    for action in [Action::Deploy, Action::Restore, Action::Finish, Action::Supersede] {
        let refusal = desk.refuses("v1", Command::Act(action));
        assert_eq!(refusal, Refusal::Order { action, state: State::Gated });
    }
}

/// Returns the ids that the log made the champion without an approval of their artifact before.
pub(super) fn unapproved(entries: &[Entry]) -> Vec<String> {
    let mut artifacts = std::collections::BTreeMap::new();
    let mut approved = std::collections::BTreeSet::new();
    let mut faults = Vec::new();
    for entry in entries {
        let evidence: serde_json::Value =
            serde_json::from_str(&entry.evidence).expect("it is JSON");
        let digest = |at: &str| evidence.pointer(at).and_then(|it| it.as_str()).map(str::to_owned);
        match entry.action.as_str() {
            "finish" => {
                artifacts.insert(entry.version.clone(), digest("/artifact"));
            }
            "approve" if entry.actor.starts_with("person:") => {
                approved.insert((entry.version.clone(), digest("/observed/artifact")));
            }
            _ => {}
        }
        let artifact = artifacts.get(&entry.version).cloned().flatten();
        let is_approved =
            artifact.is_some() && approved.contains(&(entry.version.clone(), artifact));
        if entry.to.as_deref() == Some("deployed") && !is_approved {
            faults.push(entry.version.clone());
        }
    }
    faults
}
