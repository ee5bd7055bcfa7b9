//! The funnel as a whole, and what the tests of its parts share.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use module_sdk::events::ContentRole;

use super::*;
use crate::example::{Example, LicenceClass, Message};

/// Generator of numbers that are the same each time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        text::mix(self.0)
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).expect("it is below a size")
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Returns so many of these characters.
    pub(crate) fn chars(&mut self, of: &str, count: usize) -> String {
        (0..count).map(|_| char::from(of.as_bytes()[self.below(of.len())])).collect()
    }

    /// Returns a word that nobody knows.
    pub(crate) fn word(&mut self) -> String {
        let length = 3 + self.below(6);
        self.chars("abcdefghijklmnopqrstuvwxyz", length)
    }
}

/// Returns an example of these messages that nothing is wrong with.
pub(crate) fn example(id: &str, messages: &[(ContentRole, &str)]) -> Example {
    let message = |(role, content): &(ContentRole, &str)| Message {
        role: *role,
        content: (*content).to_owned(),
        tool_calls: None,
    };
    Example {
        id: id.to_owned(),
        project: "shop".to_owned(),
        conversation: id.to_owned(),
        at: 1_795_262_400_000,
        model: Some("qwen3".to_owned()),
        licence: LicenceClass::OpenWeights,
        attested: false,
        consent: Some("c1".to_owned()),
        outcome: crate::example::Outcome::default(),
        messages: messages.iter().map(message).collect(),
        tools: None,
    }
}

/// Returns an example of a question and its answer.
pub(crate) fn chat(id: &str, question: &str, answer: &str) -> Example {
    example(id, &[(ContentRole::User, question), (ContentRole::Assistant, answer)])
}

fn run(examples: Vec<Example>, benchmarks: &[&str]) -> Outcome {
    let funnel = Funnel::new(&Config::default()).expect("the defaults hold");
    let benchmarks = Decontamination::new(benchmarks);
    funnel.run(examples, &benchmarks, &mut |_, _| (), &AtomicBool::new(false))
}

/// Returns a sentence of words that nobody knows.
fn sentence(random: &mut Random, words: usize) -> String {
    let words: Vec<String> = (0..words).map(|_| random.word()).collect();
    words.join(" ")
}

/// Returns examples of which some are the same, some nearly, some ask the same, and some are bad.
fn mixed(seed: u64) -> Vec<Example> {
    let mut random = Random::new(seed);
    let mut examples = Vec::new();
    for group in 0..30 {
        let question = sentence(&mut random, 20);
        for one in 0..1 + random.below(9) {
            let answer = match random.below(4) {
                0 => {
                    "Much the same is said here each time, over the whole of a sentence.".to_owned()
                }
                _ => sentence(&mut random, 30),
            };
            let mut example = chat(&format!("{group}-{one}"), &question, &answer);
            example.outcome.feedback = Some(random.below(5) as f64 / 4.0);
            example.outcome.retried = random.below(10) == 0;
            example.at += i64::try_from(random.below(1000)).expect("it is small");
            examples.push(example);
        }
    }
    examples
}

#[test]
fn every_drop_has_its_step_and_its_reason() {
    let long = "A train leaves at nine with forty people and ten more get on at each stop.";
    let good = |id: &str| {
        let mut random = Random::new(text::phrase(id.bytes().map(u64::from)));
        chat(id, &sentence(&mut random, 20), &sentence(&mut random, 30))
    };
    let with = |id: &str, change: &dyn Fn(&mut Example)| {
        let mut example = good(id);
        change(&mut example);
        example
    };
    let say =
        |id: &str, answer: String| with(id, &move |it| it.messages[1].content = answer.clone());
    let token = format!("Use ghp_{} for it, please.", Random::new(3).chars("abcdEFGH0123", 36));
    let mut same = good("best");
    same.id = "worse".to_owned();
    same.at -= 1;
    let mut near = same.clone();
    near.id = "near".to_owned();
    near.messages[1].content.push_str(" altogether");
    let examples = vec![
        good("best"),
        same,
        near,
        with("no consent", &|it| it.consent = None),
        with("restricted", &|it| it.licence = LicenceClass::Restricted),
        with("unknown", &|it| it.licence = LicenceClass::Unknown),
        with("attested", &|it| (it.licence, it.attested) = (LicenceClass::Restricted, true)),
        with("bad", &|it| it.outcome.feedback = Some(0.1)),
        with("short", &|it| it.messages.iter_mut().for_each(|it| it.content = "Why?".into())),
        say("circles", "over and over again it says ".repeat(30)),
        say("secret", token),
        say("mail", format!("{} ada.l@acme.io", good("mail").messages[1].content)),
        say("benchmark", format!("{long} {}", good("benchmark").messages[1].content)),
    ];
    let outcome = run(examples, &[long]);
    let kept: Vec<&str> = outcome.kept.iter().map(|kept| kept.example.id.as_str()).collect();
    assert_eq!(kept, ["best", "attested", "mail"]);
    assert_eq!(outcome.kept[2].redactions, BTreeMap::from([("email", 1)]));
    assert!(outcome.kept[2].example.messages[1].content.ends_with("<EMAIL_1>"));
    let steps: Vec<_> = outcome
        .steps
        .iter()
        .map(|it| (it.name, it.seen, it.kept, it.reasons.keys().copied().collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        steps,
        [
            ("consent", 13, 12, vec!["no_consent"]),
            ("licence", 12, 10, vec!["licence_restricted", "licence_unknown"]),
            ("outcome", 10, 9, vec!["feedback_low"]),
            ("length", 9, 8, vec!["too_short"]),
            ("repetition", 8, 7, vec!["common_phrase"]),
            ("word_repetition", 7, 7, vec![]),
            ("exact_duplicates", 7, 6, vec!["duplicate"]),
            ("near_duplicates", 6, 5, vec!["near_duplicate"]),
            ("prompt_cap", 5, 5, vec![]),
            ("secrets", 5, 4, vec!["secret_form"]),
            ("personal_data", 4, 4, vec![]),
            ("decontamination", 4, 3, vec!["benchmark_overlap"]),
        ]
    );
}

#[test]
fn the_order_of_examples_makes_no_difference() {
    for seed in 0..8 {
        let examples = mixed(seed);
        let view = |outcome: &Outcome| {
            let kept = outcome.kept.iter().map(|it| (it.example.id.clone(), it.cluster));
            (kept.collect::<BTreeMap<_, _>>(), outcome.steps.clone())
        };
        let first = run(examples.clone(), &[]);
        assert!(first.kept.len() > 30, "{}", first.kept.len());
        let mut random = Random::new(seed + 100);
        for _ in 0..4 {
            let mut shuffled = examples.clone();
            for at in (1..shuffled.len()).rev() {
                shuffled.swap(at, random.below(at + 1));
            }
            let again = run(shuffled.clone(), &[]);
            assert_eq!(view(&again), view(&first));
            let place = |kept: &Kept| shuffled.iter().position(|it| it.id == kept.example.id);
            assert!(again.kept.iter().map(place).is_sorted(), "they come as they came");
        }
        // What was kept is kept again, and changes no more.
        let kept: Vec<Example> = first.kept.iter().map(|it| it.example.clone()).collect();
        assert_eq!(view(&run(kept, &[])).0, view(&first).0);
    }
}

#[test]
fn a_question_has_a_few_answers_and_one_cluster() {
    let mut random = Random::new(5);
    let question = sentence(&mut random, 20);
    let mut examples: Vec<Example> = (0..12)
        .map(|index| chat(&index.to_string(), &question, &sentence(&mut random, 30)))
        .collect();
    examples[7].outcome.feedback = Some(1.0);
    examples.push(chat("other", &sentence(&mut random, 20), &sentence(&mut random, 30)));
    let outcome = run(examples, &[]);
    assert_eq!(outcome.kept.len(), 6);
    assert!(outcome.kept.iter().any(|kept| kept.example.id == "7" && kept.score == 1.0));
    let mut clusters: Vec<u64> = outcome.kept.iter().map(|kept| kept.cluster).collect();
    clusters.dedup();
    assert_eq!(clusters.len(), 2);
}

#[test]
fn progress_grows_to_its_end_and_work_can_be_cancelled() {
    let funnel = Funnel::new(&Config::default()).expect("the defaults hold");
    let none = Decontamination::default();
    let cancelled = AtomicBool::new(false);
    let mut told = Vec::new();
    let count = mixed(1).len();
    let outcome =
        funnel.run(mixed(1), &none, &mut |done, total| told.push((done, total)), &cancelled);
    assert!(!outcome.cancelled && told.is_sorted());
    assert_eq!(told.last(), Some(&(12 * count, 12 * count)));
    let mut stop = |_, _| cancelled.store(true, Ordering::Relaxed);
    let outcome = funnel.run(mixed(1), &none, &mut stop, &cancelled);
    assert!(outcome.cancelled && outcome.kept.is_empty());
    let empty = run(Vec::new(), &["a benchmark"]);
    assert!(!empty.cancelled && empty.kept.is_empty() && empty.steps.len() == 12);
}

#[test]
fn huge_and_odd_texts_come_through() {
    let config = Config { max_chars: usize::MAX, ..Config::default() };
    let funnel = Funnel::new(&config).expect("it holds");
    let odd = ["a", "word ", "\u{0}", "\u{202e}", "e\u{301}", "天", "```\n", "\n", "|", "🦀"];
    let texts = odd.map(|unit| unit.repeat(300_000 / unit.len()));
    let examples: Vec<Example> =
        texts.iter().enumerate().map(|(index, it)| chat(&index.to_string(), it, it)).collect();
    let begun = std::time::Instant::now();
    let none = Decontamination::new(["one two three"]);
    funnel.run(examples, &none, &mut |_, _| (), &AtomicBool::new(false));
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_funnel_panic(question: String, answer: String, benchmark: String) {
        let outcome = run(vec![chat("1", &question, &answer)], &[&benchmark]);
        proptest::prop_assert!(outcome.kept.len() <= 1);
    }
}
