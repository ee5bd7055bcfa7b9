//! Invented conversations, each about something else, for the tests beside the code too.

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
