//! Examples for the tests of datasets.

use module_sdk::events::ContentRole;

use crate::{
    example::{Example, LicenceClass, Message, Outcome},
    quality::Kept,
};

/// Words of the invented conversations.
const WORDS: [&str; 48] = [
    "anchor", "basket", "candle", "drawer", "engine", "feather", "garden", "hammer", "island",
    "jacket", "kettle", "ladder", "meadow", "needle", "orchard", "pencil", "quarry", "river",
    "saddle", "tunnel", "umbrella", "valley", "window", "yarn", "zipper", "barley", "copper",
    "dragon", "ember", "fiddle", "goblet", "harbour", "ivory", "jungle", "kernel", "lantern",
    "marble", "nutmeg", "otter", "parsley", "quilt", "ribbon", "spoon", "thistle", "urchin",
    "violet", "walnut", "yogurt",
];

/// Returns invented words; another number has others, in no order that repeats.
fn words(number: u32, many: usize) -> String {
    let mut state = u64::from(number) * 2 + 1;
    let mut word = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        WORDS[(state >> 33) as usize % WORDS.len()]
    };
    (0..many).map(|_| word()).collect::<Vec<_>>().join(" ")
}

/// Returns the question of a conversation.
pub(crate) fn question(number: u32) -> String {
    format!("What does order number {number} of {} cost?", words(number, 10))
}

/// Returns the answer of a conversation.
pub(crate) fn answer(number: u32) -> String {
    format!("Order {number} costs {number} euros: {}.", words(number + 100_000, 12))
}

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
