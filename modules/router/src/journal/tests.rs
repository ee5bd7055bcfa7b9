use std::{fs, sync::Arc, time::Duration};

use jiff::Timestamp;
use module_prices::PriceTable;
use module_sdk::{
    Host,
    events::{CostSource, LlmRequestCompleted, RequestStatus},
    testing::FakeHost,
};
use uuid::Uuid;

use super::*;
use crate::{dialect::Dialect, routing::Decision};

const PATIENCE: Duration = Duration::from_secs(10);

struct Desk {
    host: Host,
    journal: Arc<Journal>,
    directory: tempfile::TempDir,
}

fn desk(days: u16) -> Desk {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
    let journal = Journal::start(&host, settings(days)).expect("it starts");
    Desk { host, journal, directory }
}

fn settings(days: u16) -> JournalSettings {
    let baseline = PriceTable::built_in().baseline("claude-sonnet-4-5").expect("it has a price");
    JournalSettings { days, baseline_model: "claude-sonnet-4-5".to_owned(), baseline }
}

fn decision() -> Arc<Decision> {
    Arc::new(Decision {
        order: Vec::new(),
        is_checked: false,
        second: None,
        hedge: crate::routing::HedgeOptions::default(),
        rule: "default".to_owned(),
        strategy: "fixed",
        variant: None,
        shadow: None,
        score: None,
        reasons: Vec::new(),
        candidates: Vec::new(),
    })
}

fn id() -> String {
    Uuid::now_v7().simple().to_string()
}

fn attempt(status: RequestStatus, cost: Option<i64>) -> LlmRequestCompleted {
    LlmRequestCompleted {
        upstream: Some("cloud".to_owned()),
        routed_model: Some("big".to_owned()),
        status: Some(status),
        input_tokens: Some(1_000_000),
        output_tokens: Some(0),
        cost_nano_usd: cost,
        cost_source: Some(CostSource::PriceTable),
        ..LlmRequestCompleted::default()
    }
}

impl Desk {
    fn story(&self, id: &str) -> Arc<Story> {
        let told = Told {
            id: id.to_owned(),
            at: begun_at(id).expect("an id has its time"),
            dialect: Dialect::Chat,
            model: "auto".to_owned(),
            is_stream: false,
            client: Arc::default(),
            key: None,
            decision: decision(),
            beside: None,
        };
        Story::begin(&self.journal, told)
    }

    fn lines(&self) -> (Vec<Line>, u64) {
        self.journal.flush(PATIENCE);
        let opened = Reader::open(self.journal.directory(), i64::MIN, i64::MAX);
        let mut reader = opened.expect("it is read");
        let mut lines = Vec::new();
        while let Some(line) = reader.next().expect("it is read") {
            lines.push(line);
        }
        (lines, reader.damaged)
    }

    fn savings(&self) -> Savings {
        let mut savings = Savings::default();
        for line in &self.lines().0 {
            savings.add(line, (i64::MIN, i64::MAX));
        }
        savings
    }
}

#[test]
fn a_request_is_one_line_with_all_its_attempts() {
    let desk = desk(30);
    let id = id();
    let story = desk.story(&id);
    let other = story.clone();
    story.attempted(&attempt(RequestStatus::Timeout, None), false, false);
    drop(story);
    assert!(desk.lines().0.is_empty(), "an attempt is still under way");
    other.attempted(&attempt(RequestStatus::Ok, Some(7)), true, false);
    drop(other);
    let found = find(desk.journal.directory(), &id).expect("it is read");
    assert!(found.lines.is_empty(), "it gathers");
    let (lines, damaged) = desk.lines();
    assert_eq!((lines.len(), damaged), (1, 0));
    let Line::Request(line) = &lines[0] else { panic!("{lines:?}") };
    assert_eq!((line.attempts.len(), line.outcome), (2, Outcome::Local));
    assert_eq!(line.baseline_nano_usd, Some(3_000_000_000));
    let beginning = &id[..20];
    let found = find(desk.journal.directory(), beginning).expect("it is read");
    assert_eq!(found.ids(), [id.as_str()]);
}

#[test]
fn a_slip_in_an_id_is_told() {
    let desk = desk(30);
    let id = id();
    drop(desk.story(&id));
    desk.journal.flush(PATIENCE);
    let last = if id.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &id[..31]);
    let found = find(desk.journal.directory(), &wrong).expect("it is read");
    assert_eq!((found.lines.len(), found.near), (0, Some(id.clone())));
    // A slip in its time leads to a day without a file.
    let wrong = format!("1{}", &id[1..]);
    let found = find(desk.journal.directory(), &wrong).expect("it is read");
    assert_eq!(found.near, Some(id));
}

#[test]
fn ids_are_known_in_every_form() {
    let check = |given: &str, expected: Option<&str>| {
        assert_eq!(bare_id(given).as_deref(), expected, "{given}");
    };
    let id = "0197a1b2c3d47000800000000000000f";
    check(id, Some(id));
    check(" 0197A1B2-C3D4-7000-8000-00000000000F ", Some(id));
    check("gateway:0197a1b2c3d47000800000000000000f:2", Some(id));
    check("0197a1b2", Some("0197a1b2"));
    check("0197", None);
    check("../../etc/passwd", None);
    check("", None);
    assert_eq!(begun_at(id), Some(0x0197_a1b2_c3d4));
    assert_eq!(begun_at("0197a1b2"), None);
}

#[test]
fn two_generations_write_whole_lines() {
    let desk = desk(30);
    let other = Journal::start(&desk.host, settings(30)).expect("it starts");
    let second = Desk { host: desk.host.clone(), journal: other, directory: tempdir() };
    for _ in 0..200 {
        drop(desk.story(&id()));
        drop(second.story(&id()));
        if fastrand::u8(..) < 16 {
            desk.journal.flush(PATIENCE);
        }
    }
    second.journal.close();
    let (lines, damaged) = desk.lines();
    assert_eq!((lines.len(), damaged), (400, 0));
}

fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn an_unfinished_line_spoils_no_other() {
    let desk = desk(30);
    drop(desk.story(&id()));
    desk.journal.flush(PATIENCE);
    let files = fs::read_dir(desk.journal.directory()).expect("it is there");
    let path = files.flatten().next().expect("a file").path();
    let whole = fs::read(&path).expect("it is ours");
    let torn = [&whole[..], br#"{"kind":"request","id":"0197"#].concat();
    fs::write(&path, torn).expect("it is ours");
    assert_eq!(desk.lines(), (desk.lines().0, 0), "it may still be written");
    assert_eq!(desk.lines().0.len(), 1);
    drop(desk.story(&id()));
    let (lines, damaged) = desk.lines();
    assert_eq!((lines.len(), damaged), (2, 1));
}

#[test]
fn what_cannot_be_written_is_counted() {
    let desk = desk(30);
    fs::write(desk.directory.path().join("journal"), "in the way").expect("it is ours");
    drop(desk.story(&id()));
    desk.journal.flush(PATIENCE);
    assert_eq!(desk.journal.lost(), 1);
    let trouble = desk.journal.trouble().expect("there is trouble");
    assert!(trouble.contains("cannot be written"), "{trouble}");
    fs::remove_file(desk.directory.path().join("journal")).expect("it is ours");
    drop(desk.story(&id()));
    assert_eq!(desk.lines().0.len(), 1);
    assert_eq!((desk.journal.lost(), desk.journal.trouble()), (1, None));
}

#[test]
fn old_days_are_removed_and_none_are_kept_where_none_are_wanted() {
    let directory = tempdir();
    let fake = Arc::new(FakeHost::new(directory.path()));
    let host = fake.host().expect("a host");
    let files = directory.path().join("journal");
    fs::create_dir(&files).expect("it is ours");
    let today: Timestamp = "2026-11-30T12:00:00Z".parse().expect("a time");
    fake.set_now(today);
    for name in ["2026-10-30.jsonl", "2026-10-31.jsonl", "2026-11-29.jsonl", "notes.txt"] {
        fs::write(files.join(name), "").expect("it is ours");
    }
    Journal::start(&host, settings(30)).expect("it starts").close();
    let mut left: Vec<String> = fs::read_dir(&files)
        .expect("it is there")
        .flatten()
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["2026-10-31.jsonl", "2026-11-29.jsonl", "notes.txt"]);

    let desk = desk(0);
    drop(desk.story(&id()));
    assert!(desk.lines().0.is_empty());
    assert_eq!(desk.journal.lost(), 0);
}

#[test]
fn savings_are_those_of_answers_whose_price_is_known() {
    use RequestStatus::{Cached, ClientAbort, Error, Ok};

    let desk = desk(30);
    let tell = |attempts: &[(RequestStatus, Option<i64>, bool)], purpose: Option<Purpose>| {
        let story = desk.story(&id());
        for (status, cost, is_local) in attempts {
            let mut event = attempt(*status, *cost);
            if matches!(status, RequestStatus::Error | RequestStatus::Rejected) {
                (event.input_tokens, event.output_tokens) = (None, None);
            }
            story.attempted(&event, *is_local, false);
        }
        if let Some(purpose) = purpose {
            story.is_for(purpose);
        }
    };
    tell(&[(Ok, Some(0), true)], None);
    tell(&[(Error, None, true), (Ok, Some(2_000_000_000), false)], None);
    tell(&[(Cached, Some(0), false)], None);
    tell(&[(Ok, None, false)], None);
    tell(&[(Error, None, false)], None);
    tell(&[(ClientAbort, Some(500_000_000), false)], None);
    tell(&[], None);
    tell(&[(Ok, Some(9_000_000_000), false)], Some(Purpose::Compare));
    tell(&[(Ok, Some(100_000_000), false)], Some(Purpose::Check));
    drop(Arc::<Story>::default());
    for result in [Checked::Kept, Checked::Kept, Checked::Worse, Checked::Unknown] {
        let line = CheckLine { id: id(), at: 0, judge: "exact".to_owned(), result };
        desk.journal.add(Line::Check(line));
    }
    let savings = desk.savings();
    let outcomes = [savings.local, savings.cached, savings.paid, savings.failed, savings.aborted];
    assert_eq!((savings.requests, outcomes), (7, [1, 1, 2, 2, 1]));
    assert_eq!(savings.unpriced, 1);
    assert_eq!(savings.cost, 2_600_000_000);
    assert_eq!(savings.baseline, 4 * 3_000_000_000);
    assert_eq!((savings.checked, savings.kept, savings.checks_cost), (3, 2, 100_000_000));
    let shown = serde_json::to_value(&savings).expect("it is shown");
    assert_eq!(shown["savings_usd"], serde_json::json!(9.4));
    assert_eq!(shown["quality"]["checked"], 3);
}

#[test]
fn unknown_costs_are_no_zeros() {
    let desk = desk(30);
    desk.story(&id()).attempted(&attempt(RequestStatus::Ok, None), false, false);
    let shown = serde_json::to_value(desk.savings()).expect("it is shown");
    assert!(shown["cost_usd"].is_null() && shown["savings_usd"].is_null(), "{shown}");
    assert!(shown["quality"].is_null(), "{shown}");
    assert_eq!(shown["unpriced"], 1);
    let shown = serde_json::to_value(Savings::default()).expect("it is shown");
    assert_eq!(shown["cost_usd"], serde_json::json!(0.0));
}

#[test]
fn the_interval_is_wilsons() {
    let check = |kept, checked, low: f64, high: f64| {
        let found = savings::wilson(kept, checked);
        let is_near = (found.0 - low).abs() < 5e-4 && (found.1 - high).abs() < 5e-4;
        assert!(is_near, "{kept} of {checked}: {found:?}");
    };
    // Brown, Cai, DasGupta (2001).
    check(0, 10, 0.0, 0.2775);
    check(10, 10, 0.7225, 1.0);
    check(8, 10, 0.4902, 0.9433);
    check(81, 263, 0.2553, 0.3662);
}
