//! `lodestar learning feedback`.

use module_sdk::{Error, ErrorKind, Reply, Result, Table, events::LlmFeedbackGiven};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{minute, name, time};
use crate::{
    Learning,
    quality::refuses,
    store::{Sign, Signal, Weights},
};

/// Says how good an answer was, or shows all that was said of it with its weight.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedbackArgs {
    /// Id of the request (`x-lodestar-request-id`), or of the example.
    #[serde(default)]
    #[schemars(extend("x-positional" = true))]
    id: Option<String>,
    /// All answers of this session, in the place of one.
    #[serde(default)]
    session: Option<String>,
    /// The answer was good.
    #[serde(default)]
    good: bool,
    /// The answer was bad.
    #[serde(default)]
    bad: bool,
    /// Rating, from 0 (bad) to 1 (good).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    rating: Option<f64>,
    /// The answer had to be changed.
    #[serde(default)]
    edited: bool,
    /// The same was asked again.
    #[serde(default)]
    retried: bool,
    /// A test of the answer passed.
    #[serde(default)]
    passed: bool,
    /// A test of the answer failed.
    #[serde(default)]
    failed: bool,
    /// Name of the person.
    #[serde(default)]
    by: Option<String>,
}

impl Learning {
    pub(crate) fn feedback(&mut self, args: FeedbackArgs) -> Result<Reply> {
        args.check()?;
        let target = match (&args.id, &args.session) {
            (Some(id), None) => {
                let found = self.store.example_named(&spelt(id))?;
                let (id, _) = found.ok_or_else(|| unknown("example or request", id))?;
                (Some(id), None)
            }
            (None, Some(session)) => {
                if !self.store.has_session(session)? {
                    return Err(unknown("session", session));
                }
                (None, Some(session.clone()))
            }
            _ => return Err(Error::usage("name one answer by its id, or all of a --session")),
        };
        let (about, session) = target;
        let Some(mut signal) = args.signal()? else {
            let about = about.ok_or_else(|| {
                Error::usage("say how good the answers were").hint("--good, --bad or --rating")
            })?;
            return self.shown(&about);
        };
        signal.id = format!("said:{}", uuid::Uuid::now_v7());
        (signal.about, signal.session, signal.at) = (about, session, self.now());
        self.store.signal(std::slice::from_ref(&signal))?;
        match &signal.about {
            Some(about) => {
                self.tell(about, &signal)?;
                self.shown(about)
            }
            None => {
                let mut table = Table::default();
                table.notes.push("noted for all answers of the session".to_owned());
                let data = json!({"session": signal.session, "signals": [one(&signal, 1.0)]});
                Ok(Reply::json(&data)?.table(table))
            }
        }
    }
}

impl Learning {
    /// Tells others what was said of the answer to a request, such as the router, which learns
    /// from it.
    fn tell(&self, example: &str, signal: &Signal) -> Result<()> {
        let Some(request) = self.store.request_of(example)? else { return Ok(()) };
        let event = LlmFeedbackGiven {
            schema: 1,
            request_id: Some(request),
            good: signal.good,
            rating: signal.rating,
            edited: signal.edited,
            retried: signal.retried,
            origin: signal.origin.clone(),
            at: signal.at,
            ..LlmFeedbackGiven::default()
        };
        // It is noted here whoever hears of it.
        if let Err(error) = self.host.emit(&event) {
            tracing::warn!(%error, "cannot tell of feedback");
        }
        Ok(())
    }

    fn shown(&self, example: &str) -> Result<Reply> {
        let signals = self.store.signals(example)?;
        let signs = self.store.signs(example, |answer| refuses(&self.config.quality, answer))?;
        shown(example, &signals, &signs, &self.config.feedback)
    }
}

/// Returns an id as it is kept: that of a request may be written with dashes and large letters.
fn spelt(id: &str) -> String {
    let id = id.trim();
    match uuid::Uuid::try_parse(id) {
        Ok(uuid) => uuid.simple().to_string(),
        Err(_) => id.to_owned(),
    }
}

impl FeedbackArgs {
    fn check(&self) -> Result<()> {
        if self.good && self.bad {
            return Err(Error::usage("--good and --bad contradict each other"));
        }
        if self.passed && self.failed {
            return Err(Error::usage("--passed and --failed contradict each other"));
        }
        let said = self.good || self.bad;
        if (self.passed || self.failed) && (said || self.rating.is_some()) {
            let error = Error::usage("a test and a person are two origins of feedback");
            return Err(error.hint("say it in two commands"));
        }
        match self.rating {
            Some(rating) if said && self.good != (rating >= 0.5) => {
                Err(Error::usage(format!("a rating of {rating} contradicts the word beside it")))
            }
            _ => Ok(()),
        }
    }

    /// Returns the sign that the options give; none where they only ask.
    fn signal(&self) -> Result<Option<Signal>> {
        let tested = self.passed || self.failed;
        let says_something =
            self.good || self.bad || tested || self.edited || self.retried || self.rating.is_some();
        if !says_something {
            return Ok(None);
        }
        let said = self.good || self.bad;
        let good = if tested { Some(self.passed) } else { said.then_some(self.good) };
        Ok(Some(Signal {
            origin: if tested { "check" } else { "person" }.to_owned(),
            by: self.by.as_deref().map(|by| name("--by", by)).transpose()?.map(str::to_owned),
            good,
            rating: self.rating,
            edited: self.edited.then_some(true),
            retried: self.retried.then_some(true),
            ..Signal::default()
        }))
    }
}

fn unknown(kind: &str, given: &str) -> Error {
    let given = super::plain(given, 60);
    Error::of(ErrorKind::NotFound, format!("no {kind} of which text is kept is called {given:?}"))
}

fn shown(example: &str, signals: &[Signal], signs: &[Sign], weights: &Weights) -> Result<Reply> {
    let mut table = Table::new(["WHEN", "ORIGIN", "SOURCE", "BY", "SAYS", "WEIGHT#"]);
    for signal in signals {
        let mut says = Vec::new();
        says.extend(signal.value().map(|value| format!("{value:.2}")));
        says.extend((signal.edited == Some(true)).then(|| "edited".to_owned()));
        says.extend((signal.retried == Some(true)).then(|| "retried".to_owned()));
        table.row([
            minute(signal.at),
            super::plain(&signal.origin, 40),
            signal.source().to_owned(),
            super::plain(signal.by.as_deref().unwrap_or_default(), 60),
            says.join(", "),
            format!("{:.2}", weights.of(&signal.origin)),
        ]);
    }
    for sign in signs {
        table.row([
            String::new(),
            IMPLICIT.to_owned(),
            sign.source.to_owned(),
            String::new(),
            sign.says.to_owned(),
            format!("{:.2}", weights.of(IMPLICIT)),
        ]);
    }
    table.notes.push(if signals.is_empty() && signs.is_empty() {
        "nobody has said anything of it yet".to_owned()
    } else {
        "the mean of the numbers decides; a word leaves the answer out by itself".to_owned()
    });
    let said = signals.iter().map(|it| one(it, weights.of(&it.origin)));
    let given = signs.iter().map(|it| {
        json!({
            "origin": IMPLICIT, "source": it.source, "says": it.says,
            "weight": weights.of(IMPLICIT),
        })
    });
    let all: Vec<Value> = said.chain(given).collect();
    Ok(Reply::json(&json!({"example": example, "signals": all}))?.table(table))
}

/// Origin of the signs that nobody gave.
const IMPLICIT: &str = "implicit";

fn one(signal: &Signal, weight: f64) -> Value {
    json!({
        "origin": signal.origin,
        "source": signal.source(),
        "by": signal.by,
        "at": time(signal.at),
        "value": signal.value(),
        "edited": signal.edited,
        "retried": signal.retried,
        "weight": weight,
    })
}
