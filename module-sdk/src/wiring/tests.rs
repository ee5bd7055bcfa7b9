use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Class, Error, ErrorKind, Event, EventType, Host, Module, NoArgs, Reply, Result, Wiring,
    testing::Bench,
};

/// An event on a topic of the test's choice.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Said {
    on: String,
    word: String,
}

impl EventType for Said {
    const TOPIC: &'static str = ">";
    const CLASS: Class = Class::Ledger;

    fn topic(&self) -> Cow<'_, str> {
        self.on.as_str().into()
    }
}

fn said(on: &str, word: &str) -> Said {
    Said { on: on.to_owned(), word: word.to_owned() }
}

/// A module that stores the bytes of the events on `said.*`, and fails at the word "fail".
struct Listener {
    heard: Vec<(String, String)>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Config {
    /// The limit, at most 10.
    most: u32,
}

impl Module for Listener {
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        match config.most {
            0..=10 => Ok(()),
            _ => Err(Error::config_at("most", "is more than 10")),
        }
    }

    fn start(config: Config, _: &Host) -> Result<Self> {
        assert!(config.most <= 10, "it was checked");
        Ok(Self { heard: Vec::new() })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring.on_bytes("said.*", Self::bytes).command("heard", Self::heard);
    }
}

impl Listener {
    fn bytes(&mut self, event: &Event<'_, &[u8]>) -> Result<()> {
        let text = String::from_utf8(event.data.to_vec())?;
        if text.contains("fail") {
            return Err(Error::unavailable("not now"));
        }
        self.heard.push((event.topic.to_owned(), text));
        Ok(())
    }

    fn heard(&mut self, _: NoArgs) -> Result<Reply> {
        Reply::json(&self.heard)
    }
}

#[test]
fn bytes_come_as_they_were_published_and_one_by_one() {
    let mut bench = Bench::<Listener>::start(json!({})).expect("it starts");
    let events =
        [said("said.a", "one"), said("other.a", "two"), said("said.a.b", "3"), said("said.b", "4")];
    let (handled, result) = bench.send_all(&events);
    assert_eq!((handled, result.is_ok()), (4, true));
    let failing = [said("said.a", "five"), said("said.a", "fail"), said("said.a", "six")];
    let (handled, result) = bench.send_all(&failing);
    let error = result.expect_err("the second fails");
    assert_eq!((handled, error.kind()), (1, ErrorKind::Unavailable));
    let heard = bench.command("heard", json!({})).expect("it answers").data;
    let bytes = |event: &Said| json!([event.on, serde_json::to_string(event).expect("it encodes")]);
    assert_eq!(heard, json!([bytes(&events[0]), bytes(&events[3]), bytes(&failing[0])]));
}

/// Tells when somebody last spoke.
#[derive(Deserialize, schemars::JsonSchema)]
struct LastArgs {}

#[test]
fn a_command_has_the_words_of_its_author_and_no_others() {
    let mut wiring = Wiring::<Listener>::new();
    wiring.command("heard", Listener::heard).command("last", |_, _: LastArgs| Reply::json(&1));
    let commands = wiring.commands.iter();
    let about: Vec<&str> = commands.map(|it| it.description.about.as_str()).collect();
    assert_eq!(about, ["", "Tells when somebody last spoke."]);
}

#[test]
fn a_configuration_is_judged_before_the_start() {
    let error = Bench::<Listener>::start(json!({"most": 11})).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.to_string(), "most: is more than 10");
    let error = Bench::<Listener>::start(json!({"most": -1})).expect_err("it has no such type");
    assert!(error.to_string().starts_with("most: invalid value"), "{error}");
}

/// Counts to a number.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountArgs {
    /// Number to count to.
    #[schemars(range(min = 1, max = 5))]
    to: u32,
}

/// A module whose argument types limit their numbers.
struct Ranged;

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct RangedConfig {
    /// Number of days.
    #[schemars(range(max = 7), extend("x-hint" = "0 is for ever"))]
    days: u32,
}

impl Module for Ranged {
    type Config = RangedConfig;

    fn start(config: RangedConfig, _: &Host) -> Result<Self> {
        assert!(config.days <= 7, "it was checked");
        Ok(Self)
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring.command("count", |_, args: CountArgs| Reply::json(&args.to));
    }
}

#[test]
fn the_ranges_of_types_are_kept_by_the_sdk() {
    let error = Bench::<Ranged>::start(json!({"days": 8})).expect_err("it is out of range");
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = "days: must be a whole number from 0 to 7, but is 8; 0 is for ever";
    assert_eq!(error.to_string(), text);
    let mut bench = Bench::<Ranged>::start(json!({"days": 7})).expect("it starts");
    for (to, fits) in [(0, false), (1, true), (5, true), (6, false)] {
        let reply = bench.command("count", json!({"to": to}));
        assert_eq!(reply.is_ok(), fits, "{to}");
        if let Err(error) = reply {
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().starts_with("to must be a whole number from 1 to 5, but is"));
        }
    }
}

#[test]
fn a_timer_by_the_calendar_says_so() {
    let mut wiring = Wiring::<Ranged>::new();
    let zone = |_: &Ranged| crate::Zone::default();
    wiring.daily("07:30", zone, |_| Ok(())).every(std::time::Duration::from_secs(1), |_| Ok(()));
    let timers = wiring.timers.iter().map(|timer| timer.description.daily.as_deref());
    assert_eq!(timers.collect::<Vec<_>>(), [Some("07:30"), None]);
}
