//! Features of a request, in numbers from which no text can be read.

use crate::{
    dialect::inspect::{AnswerFormat, Inspected},
    routing::{
        Request,
        look::{Look, Mark},
        sign::Sign,
    },
};

/// Weights of hashed features; two of them may share one.
pub(super) const SLOTS: usize = 1 << 16;
/// Words that are told apart when one asks how familiar a text is.
pub(super) const WORDS: usize = 1 << 14;
/// Counted features.
pub(super) const COUNTED: usize = 44;

/// Part of a text whose letters are looked at, in bytes, from its start and from its end each.
const LETTERS_READ: usize = 1024;
/// Length of a text for which tables are made large enough at once, in bytes.
const EXPECTED: usize = 8192;
/// Share of what stands in the options of a question, of five: the question itself says more.
const OF_OPTIONS: u32 = 3;
const OF_QUESTION: u32 = 5;

/// Features of one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Slots of the hashed features, each once in a block.
    pub(super) slots: Box<[u16]>,
    /// Values of the hashed features.
    pub(super) values: Box<[f32]>,
    /// Values of the counted features.
    pub(super) counted: [f32; COUNTED],
    /// Hashed words, each once.
    pub(super) words: Box<[u16]>,
}

impl Sample {
    /// Takes the features of a request.
    pub(crate) fn of(request: &Request<'_>) -> Self {
        Self::of_text(request.inspected)
    }

    /// Takes the features of what was understood of a request.
    pub(crate) fn of_text(inspected: &Inspected<'_>) -> Self {
        let text = &*inspected.last_words;
        let mut words = Grams::of(text.len().min(EXPECTED) / 3);
        let mut seen = Grams::of(text.len().min(EXPECTED) / 6);
        let mut letters = Grams::of(text.len().min(2 * LETTERS_READ));
        // Hash of the word before; 0 at the start.
        let mut before = 0_u64;
        let look = Look::with_words(text, |word, end| {
            let share = if word.is_of_option { OF_OPTIONS } else { OF_QUESTION };
            words.add(fold(word.hash), 2 * share);
            seen.add((usize::from(fold(word.hash ^ 0x5eed)) % WORDS) as u16, 1);
            if before != 0 {
                words.add(fold(before.rotate_left(17) ^ word.hash), share);
            }
            before = word.hash | 1;
            if end <= LETTERS_READ || end + LETTERS_READ >= text.len() {
                each_gram(word.bytes, |gram| {
                    letters.add(fold(u64::from(gram) ^ 0x6c65_7474), OF_QUESTION);
                });
            }
        });
        let mut slots = Vec::new();
        let mut values = Vec::new();
        words.values(2.0 * OF_QUESTION as f32, &mut slots, &mut values);
        letters.values(OF_QUESTION as f32, &mut slots, &mut values);
        Self {
            slots: slots.into(),
            values: values.into(),
            counted: counted(inspected, &look),
            words: seen.keys(),
        }
    }
}

/// Counts of hashed features: a table without chains, doubled before it is half full.
struct Grams {
    /// Count in the upper half, slot in the lower one; 0 is free.
    table: Vec<u64>,
    used: usize,
}

impl Grams {
    /// Makes a table for about so many features.
    fn of(count: usize) -> Self {
        Self { table: vec![0; (2 * count).next_power_of_two().max(64)], used: 0 }
    }

    fn add(&mut self, slot: u16, share: u32) {
        if 2 * (self.used + 1) > self.table.len() {
            self.grow();
        }
        self.put(slot, share);
    }

    fn put(&mut self, slot: u16, share: u32) {
        let mask = self.table.len() - 1;
        let mut at = usize::from(slot) & mask;
        loop {
            let entry = self.table[at];
            if entry == 0 {
                self.used += 1;
                self.table[at] = u64::from(share) << 32 | u64::from(slot);
                return;
            }
            if entry as u16 == slot {
                self.table[at] = entry + (u64::from(share) << 32);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let len = 2 * self.table.len();
        let old = std::mem::replace(&mut self.table, vec![0; len]);
        self.used = 0;
        for entry in old.into_iter().filter(|entry| *entry != 0) {
            self.put(entry as u16, (entry >> 32) as u32);
        }
    }

    fn entries(&self) -> impl Iterator<Item = (u16, u32)> {
        let used = self.table.iter().filter(|entry| **entry != 0);
        used.map(|entry| (*entry as u16, (entry >> 32) as u32))
    }

    fn keys(&self) -> Box<[u16]> {
        self.entries().map(|(slot, _)| slot).collect()
    }

    /// Appends the logarithms of the counts, in units of `one`, brought to length 1 together.
    fn values(&self, one: f32, slots: &mut Vec<u16>, values: &mut Vec<f32>) {
        let from = values.len();
        let mut squares = 0.0;
        for (slot, count) in self.entries() {
            let value = (1.0 + count as f32 / one).ln();
            squares += value * value;
            slots.push(slot);
            values.push(value);
        }
        let scale = 1.0 / squares.sqrt().max(1e-6);
        values[from..].iter_mut().for_each(|value| *value *= scale);
    }
}

fn fold(hash: u64) -> u16 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 48) as u16
}

/// Calls `read` with every four letters in a row of a word, its edges counted as letters.
fn each_gram(word: &[u8], mut read: impl FnMut(u32)) {
    let mut gram = u32::from(b'<');
    let mut len = 1;
    for byte in word.iter().chain(b">") {
        gram = gram << 8 | u32::from(*byte);
        len += 1;
        if len >= 4 {
            read(gram);
        }
    }
}

fn counted(inspected: &Inspected<'_>, look: &Look) -> [f32; COUNTED] {
    let words = look.words.max(1) as f32;
    let bytes = look.bytes.clamp(1, 1 << 15) as f32;
    let log = |count: u32| (1.0 + count as f32).ln();
    let mark = |mark: Mark| log(look.marks(mark));
    let share = |mark: Mark| look.marks(mark) as f32 / bytes;
    let sign = |sign: Sign| log(look.count(sign));
    let flag = |is: bool| f32::from(u8::from(is));
    [
        log(look.words),
        (1.0 + bytes).ln(),
        log(look.numbers),
        look.numbers as f32 / words,
        mark(Mark::Digit),
        mark(Mark::Maths),
        share(Mark::Maths),
        mark(Mark::Code),
        share(Mark::Code),
        mark(Mark::Upper),
        share(Mark::Upper),
        mark(Mark::Line),
        log(look.long_words),
        look.long_words as f32 / words,
        look.letters() as f32 / words,
        mark(Mark::Question),
        log(look.options),
        mark(Mark::Backtick),
        share(Mark::Foreign),
        mark(Mark::Comma),
        mark(Mark::Point),
        mark(Mark::Bracket),
        mark(Mark::Percent),
        mark(Mark::Dollar),
        mark(Mark::Quote),
        sign(Sign::Negation),
        sign(Sign::Condition),
        sign(Sign::Quantity),
        sign(Sign::Comparison),
        sign(Sign::Rate),
        sign(Sign::Time),
        sign(Sign::Person),
        (1.0 + look.largest).ln(),
        log(look.words_of_question),
        log(look.words - look.words_of_question),
        sign(Sign::Maths),
        sign(Sign::Fact),
        sign(Sign::Reasoning),
        sign(Sign::Code),
        sign(Sign::Easy),
        log(inspected.tools) + flag(inspected.continues_tool),
        flag(inspected.has_images),
        log(inspected.messages),
        flag(inspected.answer_format != AnswerFormat::Text),
    ]
}
