//! Feedback on answers: checked, published, and noted in the journal.

use module_sdk::{Error, ErrorKind, Event, Result, events::LlmFeedbackGiven};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    app::App,
    journal::{FeedbackLine, Found, Line},
};

/// Feedback on an answer, as a client posts it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Given {
    /// Id of the request (`x-lodestar-request-id`).
    pub request_id: String,
    /// `true` when the answer was good.
    pub good: Option<bool>,
    /// Rating, from 0 (bad) to 1 (good).
    pub rating: Option<f64>,
    /// `true` when the answer was changed.
    pub edited: Option<bool>,
    /// `true` when the same was asked again.
    pub retried: Option<bool>,
    /// A comment. It is not kept: only that there was one.
    pub comment: Option<String>,
}

impl Given {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// When it says nothing, or contradicts itself.
    pub(crate) fn check(&self) -> Result<()> {
        if self.rating.is_some_and(|rating| !(0.0..=1.0).contains(&rating)) {
            return Err(Error::usage("the rating must be from 0 (bad) to 1 (good)"));
        }
        if let (Some(good), Some(rating)) = (self.good, self.rating)
            && good != (rating >= 0.5)
        {
            let word = if good { "good" } else { "bad" };
            return Err(Error::usage(format!("{word} contradicts a rating of {rating}")));
        }
        let says_something = self.good.is_some()
            || self.rating.is_some()
            || self.edited == Some(true)
            || self.retried == Some(true);
        if !says_something {
            let error = Error::usage("the feedback says nothing of the answer");
            return Err(error.hint("give good, rating, edited or retried"));
        }
        Ok(())
    }

    /// Returns the event of it, about a request that the journal has.
    ///
    /// # Errors
    ///
    /// When it is about the router's own requests.
    pub(crate) fn event(&self, found: &Found, app: &App) -> Result<LlmFeedbackGiven> {
        let request = found.lines.iter().find_map(|line| match line {
            Line::Request(line) if line.purpose.is_none() => Some(line),
            _ => None,
        });
        let Some(request) = request else {
            let message = "that request was the router's own; feedback is about those of clients";
            return Err(Error::of(ErrorKind::Usage, message));
        };
        Ok(LlmFeedbackGiven {
            schema: 1,
            request_id: Some(request.id.clone()),
            session_id: request.session.clone(),
            good: self.good,
            rating: self.rating,
            has_comment: self.comment.as_ref().map(|text| !text.trim().is_empty()),
            edited: self.edited,
            retried: self.retried,
            origin: "person".to_owned(),
            at: app.host.now().as_millisecond(),
        })
    }
}

/// Source of the events of this module.
const OWN: &str = "/lodestar/router";

/// Notes feedback that was given elsewhere, on a request of which something is known here.
pub(crate) fn heard(app: &App, event: &Event<'_, LlmFeedbackGiven>) {
    let id = event.data.request_id.as_deref().unwrap_or_default();
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    // What was said here is noted already.
    if is_id && event.source != OWN {
        note(app, &event.data);
    }
}

/// Notes an event of feedback in the journal.
pub(crate) fn note(app: &App, event: &LlmFeedbackGiven) {
    // An answer that had to be changed, or was asked for again, was not right, whatever is said.
    let was_not = event.edited == Some(true) || event.retried == Some(true);
    let good = event.good.or(event.rating.map(|rating| rating >= 0.5));
    let good = if was_not { Some(false) } else { good };
    if let (Some(id), Some(good)) = (&event.request_id, good) {
        app.labels.judged(id, &event.origin, good, event.at);
    }
    app.journal.add(Line::Feedback(FeedbackLine {
        id: event.request_id.clone().unwrap_or_default(),
        at: event.at,
        good: event.good,
        rating: event.rating,
        edited: event.edited,
        retried: event.retried,
        has_comment: event.has_comment,
        origin: event.origin.clone(),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_says_something_and_does_not_contradict_itself() {
        let check = |text: &str, is_right: bool| {
            let given: Given = serde_json::from_str(text).expect("it is feedback");
            assert_eq!(given.check().is_ok(), is_right, "{text}");
        };
        check(r#"{"good": true}"#, true);
        check(r#"{"good": false, "rating": 0.25}"#, true);
        check(r#"{"rating": 1}"#, true);
        check(r#"{"edited": true}"#, true);
        check(r#"{"retried": true, "comment": "x"}"#, true);
        check(r#"{"comment": "x"}"#, false);
        check(r#"{"edited": false}"#, false);
        check(r#"{"rating": 1.01}"#, false);
        check(r#"{"rating": -0.5}"#, false);
        check(r#"{"good": true, "rating": 0.1}"#, false);
        check("{}", false);
    }
}
