//! A naive monitor: one bad reading is a trouble and told at once, one good reading its end.

use std::collections::BTreeSet;

use super::{FULL, HOT, Reading, verdict::Word};

/// Names of the troubles that were told.
#[derive(Debug, Default)]
pub(crate) struct Naive {
    told: BTreeSet<&'static str>,
}

impl Naive {
    /// Takes the readings of a moment; returns what people are told.
    pub(crate) fn take(&mut self, reading: &Reading) -> Vec<Word> {
        let now = [
            ("router_down", !reading.router),
            ("provider_down", !reading.provider),
            ("disk_low", reading.disk > FULL),
            ("gpu_hot", reading.gpu > HOT),
        ];
        let mut words = Vec::new();
        for (name, is_bad) in now {
            let changed = if is_bad { self.told.insert(name) } else { self.told.remove(name) };
            if changed {
                words.push(Word {
                    at_s: reading.at_s,
                    note: words.len(),
                    name: name.to_owned(),
                    is_end: !is_bad,
                    is_reminder: false,
                });
            }
        }
        words
    }
}
