//! Learning, in small.

use http::HeaderMap;

use super::{
    approved::{self, PolicyError},
    saved::SavedError,
    *,
};
use crate::{
    dialect::{Dialect, inspect::Inspected},
    routing::{Request, request::Prices},
    target::TargetName,
};

struct Free;

impl Prices for Free {
    fn estimate(&self, _: &TargetName, _: u64, _: u64, _: u64) -> Option<i64> {
        Some(0)
    }
}

fn sample(words: &str) -> Sample {
    let inspected = Inspected { last_words: words.into(), ..Inspected::default() };
    Sample::of(&Request {
        inspected: &inspected,
        dialect: Dialect::Chat,
        headers: &HeaderMap::new(),
        key: None,
        project: None,
        client: None,
        session: None,
        user: None,
        is_sub_agent: false,
        sticky: None,
        budget_left_nano_usd: None,
        keeps_budget: true,
        allowed_models: &[],
        prices: &Free,
    })
}

const EASY: &[&str] = &["colour", "river", "animal", "city", "fruit", "river bank", "old city"];
const HARD: &[&str] = &["integral", "tensor", "lemma", "manifold", "kernel", "tensor field"];

fn question(chance: &mut fastrand::Rng, topics: &[&str]) -> String {
    let first = topics[chance.usize(..topics.len())];
    let second = topics[chance.usize(..topics.len())];
    format!("Tell me what the {first} of the {second} number {} is", chance.u32(..30))
}

/// Learns from questions of which the local model answers the easy ones.
fn taught(count: usize) -> Learned {
    let learned = Learned::default();
    let mut chance = fastrand::Rng::with_seed(1);
    for index in 0..count {
        let is_easy = index.is_multiple_of(2);
        let words = question(&mut chance, if is_easy { EASY } else { HARD });
        let label = Label { is_local_right: Some(is_easy), is_paid_right: Some(true) };
        learned.learn(&sample(&words), label);
    }
    learned
}

#[test]
fn what_the_local_model_answers_is_learned() {
    let learned = taught(600);
    let opinion = |words: &str| learned.opinion(&sample(words), 200).expect("enough is learned");
    let easy = opinion("Tell me what the river of the city number 4 is");
    assert!(easy.is_local_enough && easy.local > 0.8, "{easy:?}");
    let hard = opinion("Tell me what the tensor of the lemma number 4 is");
    assert!(!hard.is_local_enough && hard.local < 0.2 && hard.paid > 0.8, "{hard:?}");
}

#[test]
fn what_is_unlike_anything_seen_is_not_for_the_local_model() {
    let learned = taught(600);
    let strange = sample("Wie spät ist es gerade in Wien, und warum friert der Donaukanal nie zu?");
    let opinion = learned.opinion(&strange, 200).expect("enough is learned");
    assert!(opinion.is_strange && !opinion.is_local_enough, "{opinion:?}");
    let nothing = learned.opinion(&sample(""), 200).expect("enough is learned");
    assert!(nothing.is_strange, "{nothing:?}");
}

#[test]
fn with_few_labels_there_is_no_opinion() {
    let learned = taught(199);
    assert_eq!(learned.labels(), 199);
    assert_eq!(learned.opinion(&sample("the river"), 200), None);
    // A request that nobody judged teaches nothing.
    let label = Label { is_local_right: None, is_paid_right: None };
    learned.learn(&sample("the river"), label);
    assert_eq!(learned.labels(), 199);
}

#[test]
fn what_was_learned_outlasts_a_restart_and_holds_no_text() {
    let learned = taught(600);
    let text = serde_json::to_string(&learned.save()).expect("JSON");
    for word in EASY.iter().chain(HARD) {
        assert!(!text.contains(word), "{word}");
    }
    assert!(text.len() < 600_000, "{}", text.len());
    let again = Learned::default();
    again.restore(&serde_json::from_str(&text).expect("JSON")).expect("it is whole");
    assert_eq!(again.labels(), 600);
    let mut chance = fastrand::Rng::with_seed(9);
    for topics in [EASY, HARD] {
        let words = sample(&question(&mut chance, topics));
        let before = learned.opinion(&words, 200).expect("enough is learned");
        let after = again.opinion(&words, 200).expect("enough is learned");
        assert!((before.gain() - after.gain()).abs() < 0.05, "{before:?} {after:?}");
        assert_eq!(before.is_local_enough, after.is_local_enough);
    }
}

#[test]
fn a_damaged_state_is_refused_whole() {
    let learned = taught(200);
    let saved = serde_json::to_value(learned.save()).expect("JSON");
    let check = |key: &str, value: serde_json::Value, expected: SavedError| {
        let mut changed = saved.clone();
        changed[key] = value;
        let changed = serde_json::from_value(changed).expect("it is read");
        assert_eq!(learned.restore(&changed), Err(expected), "{key}");
        assert_eq!(learned.labels(), 200);
    };
    check("version", 0.into(), SavedError::Version);
    check("words", "AAAA".into(), SavedError::Damaged);
    check("squares", "not base64".into(), SavedError::Damaged);
    check("means", serde_json::json!([1.0]), SavedError::Damaged);
}

#[test]
fn a_long_text_has_a_bounded_sample() {
    let words = sample(&"word after word, ünd another one; ".repeat(6000));
    assert!(words.slots.len() < 10_000);
    assert!(words.values.iter().all(|value| value.is_finite()));
}

/// Returns labels of questions of which the local model answers the easy ones.
fn labels(count: usize, seed: u64) -> Vec<(Sample, Label)> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let of = |index: usize, chance: &mut fastrand::Rng| {
        let is_easy = index.is_multiple_of(2);
        let words = question(chance, if is_easy { EASY } else { HARD });
        (sample(&words), Label { is_local_right: Some(is_easy), is_paid_right: Some(true) })
    };
    (0..count).map(|index| of(index, &mut chance)).collect()
}

#[test]
fn features_are_read_as_they_are_kept() {
    for words in ["", "one river", "Wie spät ist es?", &"many words, 12 of them; ".repeat(300)] {
        let before = sample(words);
        let after = Sample::unpack(&before.pack()).expect("it is whole");
        assert_eq!((&before.slots, &before.words), (&after.slots, &after.words));
        assert_eq!(before.counted, after.counted);
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
        assert!(before.values.iter().zip(&after.values).all(near));
        assert_eq!(after.pack(), before.pack(), "packing twice changes nothing");
    }
    let packed = sample("one river").pack();
    for bad in ["", "AAAA", "not base64", &packed[..packed.len() - 8], &format!("{packed}AAAA")] {
        assert_eq!(Sample::unpack(bad), Err(SavedError::Damaged), "{bad}");
    }
}

#[test]
fn a_policy_decides_as_its_file_says_and_no_other_file_is_taken() {
    let trained = Approved::train(&labels(600, 1), 0.95).expect("it is enough");
    for word in EASY.iter().chain(HARD) {
        assert!(!trained.file.contains(word), "{word}");
    }
    let digest = approved::digest_of(&trained.file);
    assert_eq!(trained.policy.digest, digest);
    let policy = Approved::read(&trained.file, &digest).expect("it is the one");
    let changed = trained.file.replacen("0.95", "0.51", 1);
    assert_eq!(Approved::read(&changed, &digest).err(), Some(PolicyError::Digest));
    let other = "{}";
    let refused = Approved::read(other, &approved::digest_of(other)).err();
    assert_eq!(refused, Some(PolicyError::Form));

    // While it is there it decides, whatever is learned from day to day.
    let learned = Learned::default();
    let easy = sample("Tell me what the river of the city number 4 is");
    assert_eq!(learned.opinion(&easy, 200), None);
    learned.decide_by(Some(policy));
    let opinion = learned.opinion(&easy, 200).expect("it decides");
    assert!(opinion.is_local_enough && !opinion.is_strange, "{opinion:?}");
    for _ in 0..300 {
        let wrong = Label { is_local_right: Some(false), is_paid_right: Some(true) };
        learned.learn(&easy, wrong);
    }
    assert_eq!(learned.opinion(&easy, 200), Some(opinion));
    let strange = sample("Wie spät ist es gerade in Wien, und warum friert der Donaukanal nie zu?");
    let opinion = learned.opinion(&strange, 200).expect("it decides");
    assert!(opinion.is_strange && !opinion.is_local_enough, "{opinion:?}");
    // Taken back, it decides nothing any more.
    learned.decide_by(None);
    let after = learned.opinion(&easy, 200).expect("enough was learned meanwhile");
    assert!(!after.is_local_enough, "{after:?}");
}

#[test]
fn too_few_labels_make_no_policy() {
    let refused = Approved::train(&labels(120, 1), 0.95).err();
    assert_eq!(refused, Some(PolicyError::TooFew));
}
