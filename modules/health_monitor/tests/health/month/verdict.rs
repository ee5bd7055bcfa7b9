//! Verdict on what people were told, held against what really was.

use std::collections::BTreeSet;

use super::{FLAPPING, FULL, HEAT, HOT, LEAK, OUTAGE, Reading, Span};

/// One thing that people are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) at_s: u64,
    /// Number of the note within the moment: what is told together has the same.
    pub(crate) note: usize,
    /// Name of the rule.
    pub(crate) name: String,
    pub(crate) is_end: bool,
    pub(crate) is_reminder: bool,
}

/// A trouble that really was.
#[derive(Debug, Clone)]
struct Cause {
    name: &'static str,
    span: Span,
    /// Time from which on it has to be told: its beginning, or the end of its rule's `for`.
    due_s: Option<u64>,
    is_critical: bool,
}

/// Time for which a value has been beyond its limit.
#[derive(Debug, Default)]
struct Lasting {
    since_s: Option<u64>,
}

impl Lasting {
    fn take(&mut self, is_beyond: bool, at_s: u64) -> u64 {
        if !is_beyond {
            self.since_s = None;
            return 0;
        }
        at_s - *self.since_s.get_or_insert(at_s)
    }
}

/// Judge of a month.
#[derive(Debug)]
pub(crate) struct Judge {
    causes: Vec<Cause>,
    disk: Lasting,
    gpu: Lasting,
    words: Vec<Word>,
}

/// Worth of what was told in a month.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// Notes, reminders among them.
    pub(crate) notes: usize,
    /// Words about a beginning that had no cause.
    pub(crate) false_alarms: Vec<Word>,
    /// Names of causes of which nobody was told.
    pub(crate) untold: Vec<&'static str>,
    /// Most words about one cause, besides reminders: its beginning and its end make two.
    pub(crate) most_of_a_cause: usize,
    /// Most words about the flapping hour, besides reminders.
    pub(crate) of_flapping: usize,
    /// Most notes within an hour.
    pub(crate) most_an_hour: usize,
    /// Longest time from the beginning of something critical to its first word, in seconds.
    pub(crate) slowest_critical_s: u64,
    /// Longest time from the end of a rule's `for` to the first word of something else, in seconds.
    pub(crate) slowest_other_s: u64,
}

/// The `for` of the rules about disks and heat, in seconds.
const FOR_S: u64 = 120;
/// Time after the end of a cause within which words about it are none about nothing: rules keep
/// alerts firing, and what flaps is watched until it is quiet.
const AFTER_S: u64 = 5_400;

impl Judge {
    pub(crate) fn new() -> Self {
        let critical =
            |name, span: Span| Cause { name, span, due_s: Some(span.from_s), is_critical: true };
        let other = |name, span| Cause { name, span, due_s: None, is_critical: false };
        let causes = vec![
            critical("router_down", OUTAGE),
            critical("router_down", FLAPPING),
            other("disk_low", LEAK),
            other("gpu_hot", HEAT),
        ];
        Self { causes, disk: Lasting::default(), gpu: Lasting::default(), words: Vec::new() }
    }

    /// Takes the truth of a moment and what was told of it.
    pub(crate) fn take(&mut self, reading: &Reading, words: Vec<Word>) {
        let lasted = [
            ("disk_low", self.disk.take(reading.disk > FULL, reading.at_s)),
            ("gpu_hot", self.gpu.take(reading.gpu > HOT, reading.at_s)),
        ];
        for (name, lasted_s) in lasted {
            let cause = self.causes.iter_mut().find(|cause| cause.name == name);
            if let Some(cause) = cause
                && cause.due_s.is_none()
                && lasted_s >= FOR_S
            {
                cause.due_s = Some(reading.at_s);
            }
        }
        self.words.extend(words);
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict {
            notes: 0,
            false_alarms: Vec::new(),
            untold: Vec::new(),
            most_of_a_cause: 0,
            of_flapping: 0,
            most_an_hour: self.most_an_hour(),
            slowest_critical_s: 0,
            slowest_other_s: 0,
        };
        let notes = self.words.iter().map(|word| (word.at_s, word.note));
        verdict.notes = notes.collect::<BTreeSet<_>>().len();
        let about = |cause: &Cause, word: &Word| {
            let until_s = cause.span.to_s + AFTER_S;
            word.name == cause.name && (cause.span.from_s..until_s).contains(&word.at_s)
        };
        for word in self.words.iter().filter(|word| !word.is_end) {
            if !self.causes.iter().any(|cause| about(cause, word)) {
                verdict.false_alarms.push(word.clone());
            }
        }
        for cause in &self.causes {
            let own = || self.words.iter().filter(|word| about(cause, word) && !word.is_reminder);
            let Some(first) = own().find(|word| !word.is_end) else {
                verdict.untold.push(cause.name);
                continue;
            };
            let most = if cause.span.from_s == FLAPPING.from_s {
                &mut verdict.of_flapping
            } else {
                &mut verdict.most_of_a_cause
            };
            *most = own().count().max(*most);
            // A word before it was due is early, not late.
            let late_s = cause.due_s.map_or(0, |due_s| first.at_s.saturating_sub(due_s));
            let slowest = if cause.is_critical {
                &mut verdict.slowest_critical_s
            } else {
                &mut verdict.slowest_other_s
            };
            *slowest = late_s.max(*slowest);
        }
        verdict
    }

    fn most_an_hour(&self) -> usize {
        let mut notes: Vec<(u64, usize)> =
            self.words.iter().map(|word| (word.at_s, word.note)).collect();
        notes.dedup();
        let within = |from: usize| {
            let end_s = notes[from].0 + 3_600;
            notes[from..].partition_point(|(at_s, _)| *at_s < end_s)
        };
        (0..notes.len()).map(within).max().unwrap_or(0)
    }
}
