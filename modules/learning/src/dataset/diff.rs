//! Differences between two datasets, in lines.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::build::Meta;

/// Differences from one dataset to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Lines that both have, in the same part.
    pub same: u64,
    /// Lines that both have, in different parts.
    pub moved: u64,
    /// Lines that only the other has.
    pub added: u64,
    /// Lines that only the first has.
    pub removed: u64,
    /// Lines that only the other has, by model.
    pub added_models: BTreeMap<String, u64>,
    /// Lines that only the first has, by model.
    pub removed_models: BTreeMap<String, u64>,
}

/// Compares two datasets by what is known of their lines.
#[must_use]
pub fn diff(from: &[Meta], to: &[Meta]) -> Diff {
    let by_line = |all: &[Meta]| -> HashMap<String, String> {
        all.iter().map(|meta| (meta.line_sha256.clone(), meta.split.clone())).collect()
    };
    let (old, new) = (by_line(from), by_line(to));
    let mut diff = Diff::default();
    for meta in to {
        match old.get(&meta.line_sha256) {
            Some(split) if *split == meta.split => diff.same += 1,
            Some(_) => diff.moved += 1,
            None => {
                diff.added += 1;
                *diff.added_models.entry(model(meta)).or_default() += 1;
            }
        }
    }
    for meta in from.iter().filter(|meta| !new.contains_key(&meta.line_sha256)) {
        diff.removed += 1;
        *diff.removed_models.entry(model(meta)).or_default() += 1;
    }
    diff
}

fn model(meta: &Meta) -> String {
    meta.model.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::dataset::{
        build::{Settings, build},
        sample,
    };

    fn metas(numbers: std::ops::Range<u32>) -> Vec<Meta> {
        let settings = Settings { quality: crate::quality::Config::default(), eval_share: 0.1 };
        let examples = numbers.map(sample::example).collect();
        let built = build(&settings, examples, &mut |_, _| {}, &AtomicBool::new(false));
        built.expect("it is built").rows.into_iter().map(|row| row.meta).collect()
    }

    #[test]
    fn lines_are_the_same_moved_added_or_removed() {
        let diff = diff(&metas(0..10), &metas(2..12));
        // The ninth was held out, and is trained on now.
        assert_eq!((diff.same, diff.moved, diff.added, diff.removed), (7, 1, 2, 2));
        assert_eq!(diff.added_models, [("qwen3:4b".to_owned(), 2)].into());
    }
}
