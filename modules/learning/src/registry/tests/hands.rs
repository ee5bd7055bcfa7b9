//! A database that was edited by hand.

use super::{
    super::{audit::Finding, *},
    Desk, approve, by, gate, seen,
};

impl Desk {
    fn sql(&self, sql: &str) {
        self.connection.execute_batch(sql).expect("it is done");
    }

    fn finding(&self) -> Option<Finding> {
        self.registry.audit(&self.connection).expect("it is read").finding
    }

    /// Takes the triggers away, as someone would who edits the log.
    fn disarmed(&self) {
        for name in ["no_update", "no_delete", "in_order"] {
            self.sql(&format!("DROP TRIGGER registry_event_{name}"));
        }
    }
}

fn table(table: &'static str) -> Option<Finding> {
    Some(Finding::Table { table, version: "v1".to_owned() })
}

#[test]
fn tables_that_were_edited_deploy_nothing() {
    let digest = Digest::of(b"x");
    let approval = format!(
        "INSERT INTO version_approval VALUES
            ('v1', 0, 'anna', 1, 'because', 1, '{0}', '{0}', '{0}', '{0}')",
        digest
    );
    let cases: [(&str, Option<Finding>); 7] = [
        ("UPDATE version SET state = 'approved'", table("version")),
        ("UPDATE version SET tainted = 1", table("version")),
        ("DELETE FROM version", table("version")),
        (&approval, table("version_approval")),
        ("UPDATE version_gate SET passed = 0", table("version_gate")),
        ("UPDATE version_gate SET value = 1.0", table("version_gate")),
        (
            "INSERT INTO version_alias VALUES ('champion', 'v1')",
            Some(Finding::Table { table: "version_alias", version: String::new() }),
        ),
    ];
    for (sql, finding) in cases {
        let mut desk = Desk::new(Policy::default());
        desk.gated("v1");
        desk.sql(sql);
        assert_eq!(desk.finding(), finding, "{sql}");
        for command in [approve("v1"), Command::Deploy(seen("v1"))] {
            let refusal = desk.refuses("v1", command);
            assert_eq!(Some(refusal), finding.clone().map(Refusal::Damaged), "{sql}");
        }
    }
}

#[test]
fn the_log_refuses_to_be_edited() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    for sql in [
        "UPDATE registry_event SET to_state = 'approved' WHERE seq = 5",
        "DELETE FROM registry_event WHERE seq = 5",
        "DELETE FROM registry_event",
        "INSERT OR REPLACE INTO registry_event SELECT * FROM registry_event WHERE seq = 2",
        "INSERT OR REPLACE INTO registry_event
            SELECT 6, at, actor, action, version, from_state, to_state, reason, evidence, hash, hash
            FROM registry_event WHERE seq = 5",
        "INSERT INTO registry_event
            SELECT 9, at, actor, action, version, from_state, to_state, reason, evidence, hash, 'x'
            FROM registry_event WHERE seq = 5",
        "INSERT INTO registry_event
            SELECT 6, at, actor, action, version, from_state, to_state, reason, evidence, 'x', 'y'
            FROM registry_event WHERE seq = 5",
    ] {
        desk.connection.execute_batch(sql).expect_err(sql);
    }
    assert_eq!(desk.finding(), None);
}

#[test]
fn entries_that_were_edited_are_named_and_deploy_nothing() {
    let forged = "INSERT INTO registry_event
        SELECT 6, at, 'person:anna', 'approve', version, 'gated', 'approved', 'x',
            '{\"deed\":\"act\",\"action\":\"approve\"}', hash, 'f'
        FROM registry_event WHERE seq = 5";
    for (sql, entry, fault) in [
        (
            "UPDATE registry_event SET to_state = 'approved' WHERE seq = 5",
            5,
            "was changed after it was written",
        ),
        (
            "UPDATE registry_event SET actor = 'person:ben' WHERE seq = 1",
            1,
            "was changed after it was written",
        ),
        ("UPDATE registry_event SET at = 'soon' WHERE seq = 2", 2, "cannot be read"),
        ("DELETE FROM registry_event WHERE seq = 3", 3, "is missing"),
        (
            "UPDATE registry_event SET previous = 'x' WHERE seq = 4",
            4,
            "does not follow the one before",
        ),
        (forged, 6, "was changed after it was written"),
    ] {
        let mut desk = Desk::new(Policy::default());
        desk.gated("v1");
        desk.disarmed();
        desk.sql(sql);
        let finding = Finding::Broken { entry, fault };
        assert_eq!(desk.finding(), Some(finding.clone()), "{sql}");
        let refusal = desk.refuses("v1", Command::Deploy(seen("v1")));
        assert_eq!(refusal, Refusal::Damaged(finding.clone()), "{sql}");
    }
}

impl Desk {
    fn repair(&self, person: &str) -> Result<Done, Refusal> {
        let actor = Actor::Person(person.to_owned());
        let reason = "somebody had opened the file".to_owned();
        let done = self.registry.repair(&self.connection, actor, reason, 9).expect("it is read")?;
        self.registry.keep(&done).expect("the head is kept");
        Ok(done)
    }

    fn segments(&self) -> Vec<Segment> {
        self.registry.audit(&self.connection).expect("it is read").segments
    }
}

#[test]
fn a_broken_chain_is_not_mended_and_a_new_segment_says_so() {
    // What is done by hand, the last entry that counts, and the entries that do not.
    let cases: [(&str, i64, u64); 7] = [
        ("UPDATE registry_event SET to_state = 'gated' WHERE seq = 6", 5, 2),
        ("UPDATE registry_event SET actor = 'person:ben' WHERE seq = 1", 0, 7),
        ("UPDATE registry_event SET at = 'soon' WHERE seq = 2", 1, 6),
        ("DELETE FROM registry_event WHERE seq = 3", 2, 4),
        ("UPDATE registry_event SET previous = 'x' WHERE seq = 7", 6, 1),
        ("UPDATE registry_event SET reason = x'00ff' WHERE seq = 7", 6, 1),
        (
            "INSERT INTO registry_event SELECT -3, at, actor, action, version, from_state,
                to_state, reason, evidence, previous, 'x' FROM registry_event WHERE seq = 1",
            0,
            8,
        ),
    ];
    for (sql, after, rows) in cases {
        let mut desk = Desk::new(Policy::default());
        desk.deployed("v1");
        desk.disarmed();
        desk.sql(sql);
        let before = desk.rows();
        assert!(matches!(desk.finding(), Some(Finding::Broken { .. })), "{sql}");
        let done = desk.repair("anna").expect("it begins a segment");
        assert_eq!(done.entries[0].action, "segment");
        assert_eq!((desk.finding(), desk.rows()[..before.len()].to_vec()), (None, before), "{sql}");
        let segments = desk.segments();
        assert_eq!((segments[0].broken.after, segments[0].broken.rows), (after, rows), "{sql}");
        assert_eq!(segments[0].actor, "person:anna", "{sql}");
        // What the entries told that do not count has not happened, and no approval counts.
        let ledger = desk.ledger();
        assert_eq!(ledger.champion, None, "{sql}");
        assert!(ledger.versions.values().all(|it| it.approvals.is_empty()), "{sql}");
        // The guards are back.
        let delete = desk.connection.execute_batch("DELETE FROM registry_event WHERE seq = 1");
        delete.expect_err(sql);
    }
}

impl Desk {
    fn rows(&self) -> Vec<String> {
        let sql = "SELECT quote(seq) || quote(at) || quote(actor) || quote(to_state) ||
            quote(reason) || quote(previous) || quote(hash) FROM registry_event ORDER BY seq";
        let mut statement = self.connection.prepare(sql).expect("it is valid");
        let rows = statement.query_map([], |row| row.get(0)).expect("it is read");
        rows.collect::<rusqlite::Result<_>>().expect("it is read")
    }
}

#[test]
fn behind_a_segment_work_goes_on_with_new_approvals() {
    let mut desk = Desk::new(Policy::default());
    desk.deployed("v1");
    desk.gated("v2");
    desk.does("v2", approve("v2"));
    desk.disarmed();
    // The approval of the second one was edited.
    desk.sql("UPDATE registry_event SET reason = 'because' WHERE seq = 13");
    desk.repair("anna").expect("it begins a segment");
    assert_eq!((desk.state("v1"), desk.state("v2")), (State::Deployed, State::Gated));
    let refusal = desk.refuses("v2", Command::Deploy(seen("v2")));
    assert_eq!(refusal, Refusal::Order { action: Action::Deploy, state: State::Gated });
    desk.does("v2", approve("v2"));
    desk.does("v2", Command::Deploy(seen("v2")));
    assert_eq!(desk.state("v2"), State::Deployed);
    // The approval of the first one does not count any more, so that it is not restored.
    let done = desk.perform(&by("anna", "", Command::RollBack(Some(seen("v1")))));
    let done = done.expect("it is taken back");
    assert_eq!(done.ledger.champion, None);
    assert!(matches!(done.not_restored, Some(Refusal::NotApproved { .. })));
    // What is broken stays as it is: another edit of it is found, and a third segment follows.
    desk.disarmed();
    desk.sql("UPDATE registry_event SET reason = 'other' WHERE seq = 13");
    assert!(matches!(desk.finding(), Some(Finding::Broken { entry: 13, .. })));
    desk.repair("ben").expect("it begins a segment");
    assert_eq!((desk.finding(), desk.segments().len()), (None, 1));
    assert_eq!((desk.state("v1"), desk.state("v2")), (State::Deployed, State::Gated));
}

#[test]
fn a_segment_needs_a_person_a_reason_and_something_broken() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    assert_eq!(desk.repair("anna"), Err(Refusal::Sound));
    // One that is written by hand behind a whole log is none.
    let head = desk.registry.audit(&desk.connection).expect("it is read").head;
    let broken = Broken {
        after: 2,
        after_hash: head.hash.clone(),
        rows: 3,
        digest: Digest::of(b"what I want gone"),
    };
    let draft = Draft {
        at: 8,
        actor: Actor::Person("mallory".to_owned()),
        version: String::new(),
        reason: "it was broken".to_owned(),
        deed: Deed::Segment { found: "entry 3 is missing".to_owned(), broken },
    };
    audit::append(&desk.connection, &head, &draft, (None, None)).expect("it is added");
    let fault = "begins a segment where nothing was broken";
    assert_eq!(desk.finding(), Some(Finding::Broken { entry: 6, fault }));
    for (actor, reason) in [(Actor::Lodestar, "go on"), (Actor::Person("anna".to_owned()), "")] {
        let repaired = desk.registry.repair(&desk.connection, actor, reason.to_owned(), 9);
        repaired.expect("it is read").expect_err("it is refused");
    }
    desk.repair("anna").expect("it begins a segment");
    assert_eq!((desk.finding(), desk.state("v1")), (None, State::Gated));
}

#[test]
fn an_entry_with_a_right_hash_still_has_to_be_allowed() {
    // Whoever can compute hashes cannot make an approval out of nothing: the rules are asked again.
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    let head = desk.registry.audit(&desk.connection).expect("it is read").head;
    let draft = Draft {
        at: 8,
        actor: Actor::Person("anna".to_owned()),
        version: "v1".to_owned(),
        reason: String::new(),
        deed: Deed::Deploy { observed: seen("v1"), needed: 0 },
    };
    let change = (Some(State::Approved), Some(State::Deployed));
    let entry = audit::append(&desk.connection, &head, &draft, change).expect("it is added");
    let fault = "is not allowed by the rules";
    assert_eq!(desk.finding(), Some(Finding::Broken { entry: entry.seq, fault }));
    // Nor tell another state than its own.
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    let head = desk.registry.audit(&desk.connection).expect("it is read").head;
    let deed = Deed::Act { action: Action::Evaluate };
    let change = (Some(State::Gated), Some(State::Approved));
    audit::append(&desk.connection, &head, &Draft { deed, ..draft }, change).expect("it is added");
    let fault = "tells another state than the rules give";
    assert_eq!(desk.finding(), Some(Finding::Broken { entry: 6, fault }));
}

#[test]
fn entries_that_were_cut_off_are_missed() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    desk.does("v1", Command::Taint);
    desk.disarmed();
    // Without the last entry, and with tables that fit: only the kept head tells.
    desk.sql("DELETE FROM registry_event WHERE seq = 6; UPDATE version SET tainted = 0");
    let finding = Finding::Cut { entries: 5, kept: 6 };
    assert_eq!(desk.finding(), Some(finding.clone()));
    assert_eq!(desk.refuses("v1", approve("v1")), Refusal::Damaged(finding));
    // A person lets it go on, and the log keeps that for ever.
    let repaired = desk.registry.repair(
        &desk.connection,
        Actor::Person("anna".to_owned()),
        "restored from last night".to_owned(),
        9,
    );
    let done = repaired.expect("it is read").expect("it is allowed");
    desk.registry.keep(&done).expect("the head is kept");
    assert_eq!(desk.finding(), None);
    assert_eq!(done.entries[0].action, "repair");
    assert!(done.entries[0].evidence.contains("ends at entry 5, and was at 6"));
    desk.does("v1", approve("v1"));
}

#[test]
fn what_a_cut_log_says_of_approvals_is_not_believed() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    desk.does("v1", approve("v1"));
    desk.does("v1", Command::Taint);
    desk.disarmed();
    desk.sql("DELETE FROM registry_event WHERE seq = 7; UPDATE version SET tainted = 0");
    let anna = || Actor::Person("anna".to_owned());
    let repaired = desk.registry.repair(&desk.connection, anna(), "restored".to_owned(), 9);
    let done = repaired.expect("it is read").expect("it is allowed");
    desk.registry.keep(&done).expect("the head is kept");
    assert_eq!(desk.finding(), None);
    let refusal = desk.refuses("v1", Command::Deploy(seen("v1")));
    assert_eq!(refusal, Refusal::NotApproved { approvals: 0, needed: 1 });
    desk.does("v1", approve("v1"));
    desk.does("v1", Command::Deploy(seen("v1")));
}

#[test]
fn a_missing_head_and_another_log_are_told() {
    let mut desk = Desk::new(Policy::default());
    desk.gated("v1");
    let head = desk.directory.path().join(HEAD);
    let kept = Head::read(&head).expect("it is read").expect("it is there");
    assert_eq!(kept.entries, 5);
    std::fs::remove_file(&head).expect("it is removed");
    assert_eq!(desk.finding(), Some(Finding::NoHead));
    Head { hash: "x".to_owned(), ..kept.clone() }.keep(&head).expect("it is kept");
    assert_eq!(desk.finding(), Some(Finding::Other { entry: 5 }));
    // A head that is older than the log is what a kill between the two leaves.
    Head { entries: 0, ..Head::of_nothing() }.keep(&head).expect("it is kept");
    assert_eq!(desk.finding(), None);
    kept.keep(&head).expect("it is kept");
    let nothing = desk.registry.repair(&desk.connection, Actor::Lodestar, String::new(), 9);
    assert_eq!(nothing.expect("it is read"), Err(Refusal::Sound));
}

#[test]
fn a_champion_is_taken_back_whatever_the_tables_say() {
    let mut desk = Desk::new(Policy::default());
    desk.deployed("v1");
    desk.deployed("v2");
    desk.sql("UPDATE version SET state = 'archived'; DELETE FROM version_alias");
    let refusal = desk.refuses("v2", Command::Act(Action::Evaluate));
    assert!(matches!(refusal, Refusal::Damaged(_)), "{refusal}");
    let done = desk.perform(&by("anna", "", Command::RollBack(Some(seen("v1")))));
    assert_eq!(done.expect("it is allowed").ledger.champion.as_deref(), Some("v1"));
    // A repair by nobody is none.
    let repaired = desk.registry.repair(&desk.connection, Actor::Lodestar, "go on".to_owned(), 9);
    repaired.expect("it is read").expect_err("it is refused");
}

#[test]
fn gates_keep_the_last_bit_of_their_numbers() {
    for bits in [0x3fd5_5555_5555_5555_u64, 0x3fb9_9999_9999_999a, 0x0010_0000_0000_0001] {
        let mut desk = Desk::new(Policy::default());
        desk.gated("v1");
        desk.does("v1", Command::Act(Action::Evaluate));
        let (value, limit) = (Some(f64::from_bits(bits)), Some(f64::NAN));
        let gates = vec![Gate { value, limit, ..gate("task", true) }];
        desk.does("v1", Command::Judge(Digest::of(b"bench"), gates));
        assert_eq!(desk.finding(), None);
        assert_eq!(desk.ledger().versions["v1"].gates[0].limit, None);
    }
}
