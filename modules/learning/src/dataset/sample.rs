//! Examples for the tests of datasets.

use module_sdk::events::ContentRole;

use crate::{
    example::{Example, LicenceClass, Message, Outcome},
    quality::Kept,
};

#[path = "../../tests/learning/invented.rs"]
mod invented;

use invented::{answer, question};

/// Returns a message.
pub(crate) fn message(role: ContentRole, text: &str) -> Message {
    Message { role, content: text.to_owned(), tool_calls: None }
}

/// Returns a good example; another number has another text, conversation and time.
pub(crate) fn example(number: u32) -> Example {
    Example {
        id: format!("example-{number:04}"),
        project: "shop".to_owned(),
        conversation: format!("conversation-{number}"),
        at: 1_790_000_000_000 + i64::from(number) * 1_000,
        model: Some("qwen3:4b".to_owned()),
        licence: LicenceClass::OpenWeights,
        attested: false,
        consent: Some("consent".to_owned()),
        outcome: Outcome::default(),
        messages: vec![
            message(ContentRole::User, &question(number)),
            message(ContentRole::Assistant, &answer(number)),
        ],
        tools: None,
    }
}

/// Returns a good example that passed the filters, with a cluster of its own.
pub(crate) fn kept(number: u32) -> Kept {
    Kept {
        example: example(number),
        cluster: u64::from(number),
        redactions: Default::default(),
        score: 0.5,
    }
}
