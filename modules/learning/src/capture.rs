//! Events: text of requests where somebody agreed, how requests ended, and feedback.

use std::collections::HashMap;

use module_sdk::{
    Event, Result,
    events::{
        ContentMessage, ContentRole, LlmFeedbackGiven, LlmRequestCompleted, LlmRequestContent,
        RequestStatus,
    },
};

use crate::{
    Learning,
    example::Message,
    store::{Consent, Kept, NewExample, Origin, Scope, Signal, digest},
};

/// Begin of the key that the router gives a request before a provider names it.
const GATEWAY: &str = "gateway:";

/// Source of the events of this module.
const OWN: &str = "/lodestar/learning";

impl Learning {
    /// Keeps the text of requests of projects whose consent holds, now and when the answer was
    /// given.
    pub(crate) fn content(&mut self, events: Vec<Event<'_, LlmRequestContent>>) -> Result<()> {
        let now = self.now();
        let mut consents: HashMap<String, Option<Consent>> = HashMap::new();
        let (mut examples, mut refused) = (Vec::new(), 0_u32);
        for event in events {
            let content = event.data;
            let consent = match consents.get(&content.project) {
                Some(known) => known,
                None => {
                    let found = self.store.consent(&content.project, Scope::Capture, now)?;
                    consents.entry(content.project.clone()).or_insert(found)
                }
            };
            match consent.as_ref().filter(|consent| consent.holds_at(content.at)) {
                Some(consent) => examples.extend(example(content, &consent.id)),
                None => refused += 1,
            }
        }
        self.metrics.without_consent.add(f64::from(refused));
        if examples.is_empty() {
            return Ok(());
        }
        let kept = self.store.keep(&examples, now)?;
        let new = kept.iter().filter(|it| **it == Kept::New).count();
        self.metrics.kept.add(f64::from(u32::try_from(new).unwrap_or(u32::MAX)));
        Ok(())
    }

    /// Notes how requests ended whose text was published.
    pub(crate) fn completed(&mut self, events: Vec<Event<'_, LlmRequestCompleted>>) -> Result<()> {
        self.experiments.observe(&events)?;
        for event in events.iter().filter(|event| event.data.content_ref.is_some()) {
            let request = &event.data;
            let is_whole =
                matches!(request.status, None | Some(RequestStatus::Ok | RequestStatus::Cached));
            self.store.ended(
                &request.dedupe_key,
                request.ended_at,
                request.finish_reason.as_deref(),
                !is_whole,
            )?;
        }
        Ok(())
    }

    /// Notes feedback on answers.
    pub(crate) fn feedback_given(
        &mut self,
        events: Vec<Event<'_, LlmFeedbackGiven>>,
    ) -> Result<()> {
        self.experiments.hear(&events, &self.config.feedback)?;
        let signals: Vec<Signal> = events
            .into_iter()
            // What was said here is noted already.
            .filter(|event| event.source != OWN)
            .map(|event| Signal {
                id: event.id.to_string(),
                about: event.data.request_id,
                session: event.data.session_id,
                origin: event.data.origin,
                by: None,
                at: event.data.at,
                good: event.data.good,
                rating: event.data.rating.filter(|rating| (0.0..=1.0).contains(rating)),
                edited: event.data.edited,
                retried: event.data.retried,
            })
            .filter(|signal| signal.about.is_some() || signal.session.is_some())
            .collect();
        if signals.is_empty() { Ok(()) } else { self.store.signal(&signals) }
    }
}

/// Returns the example of a request; none where it has no answer in words to a question.
fn example(content: LlmRequestContent, consent: &str) -> Option<NewExample> {
    let message =
        |it: ContentMessage| Message { role: it.role, content: it.text, tool_calls: None };
    let answer: Vec<String> = content
        .answer
        .into_iter()
        .filter(|it| it.role == ContentRole::Assistant && !it.text.trim().is_empty())
        .map(|it| it.text)
        .collect();
    let asked: Vec<Message> = content.request.into_iter().map(message).collect();
    if answer.is_empty() || !asked.iter().any(|it| it.role == ContentRole::User) {
        return None;
    }
    let mut messages = asked;
    let (role, content_text) = (ContentRole::Assistant, answer.join("\n"));
    messages.push(Message { role, content: content_text, tool_calls: None });
    let id = digest(&[b"event", content.dedupe_key.as_bytes()])[..32].to_owned();
    // Where nothing names the request its key may: a second attempt has a number behind the id.
    let by_key = || {
        let request = content.dedupe_key.strip_prefix(GATEWAY)?;
        request.split(':').next().map(str::to_owned)
    };
    let request = content.request_id.clone().or_else(by_key);
    Some(NewExample {
        project: content.project,
        conversation: content.session_id.unwrap_or_else(|| content.dedupe_key.clone()),
        origin: Origin::Event,
        request_id: request,
        dedupe_key: Some(content.dedupe_key),
        at: content.at,
        model: content.model,
        consent: consent.to_owned(),
        messages,
        tools: None,
        finish_reason: None,
        truncated: content.truncated,
        feedback: None,
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(
        request: &[(ContentRole, &str)],
        answer: &[(ContentRole, &str)],
    ) -> LlmRequestContent {
        let parts = |all: &[(ContentRole, &str)]| {
            all.iter()
                .map(|(role, text)| ContentMessage { role: *role, text: (*text).to_owned() })
                .collect()
        };
        LlmRequestContent {
            schema: 1,
            dedupe_key: "gateway:r1:2".to_owned(),
            project: "shop".to_owned(),
            request_id: None,
            at: 1,
            session_id: None,
            model: None,
            request: parts(request),
            answer: parts(answer),
            truncated: false,
        }
    }

    #[test]
    fn a_question_and_an_answer_in_words_make_an_example() {
        use ContentRole::{Assistant, System, Tool, User};
        let check = |request: &[_], answer: &[_], expected: Option<&str>| {
            let made = example(content(request, answer), "c");
            let last = made.as_ref().and_then(|it| it.messages.last());
            assert_eq!(last.map(|it| &*it.content), expected);
        };
        check(&[(User, "q")], &[(Assistant, "a")], Some("a"));
        check(&[(User, "q")], &[(Assistant, "a"), (Assistant, "b")], Some("a\nb"));
        check(&[(User, "q")], &[(Assistant, " ")], None);
        check(&[(User, "q")], &[(Tool, "t")], None);
        check(&[(System, "s")], &[(Assistant, "a")], None);
        check(&[(User, "q")], &[], None);
        let made = example(content(&[(User, "q")], &[(Assistant, "a")]), "c").expect("an example");
        assert_eq!(made.request_id.as_deref(), Some("r1"));
        // A provider that gives its answers ids gives the request another key.
        let mut named = content(&[(User, "q")], &[(Assistant, "a")]);
        (named.dedupe_key, named.request_id) = ("openai:chatcmpl-9".to_owned(), Some("r2".into()));
        let named = example(named, "c").expect("an example");
        assert_eq!(named.request_id.as_deref(), Some("r2"));
        assert_eq!(made.conversation, "gateway:r1:2");
        assert!(!format!("{made:?}").contains("\"q\""));
    }
}
