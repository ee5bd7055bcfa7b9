//! Marks (hashes) by which the reports of one request are found.

use super::sighting::{Sighting, hash};

/// Returns the marks that belong to one request only.
pub(super) fn marks_of_one(sighting: &Sighting) -> impl Iterator<Item = u64> {
    let ids = [sighting.identity, sighting.request, sighting.response, mark_key(&sighting.key)];
    ids.into_iter().filter(|mark| *mark != 0)
}

/// Returns the marks of what is related by spans: a record within the same span, the children of
/// the span, and its parent.
pub(super) fn marks_of_relatives(new: &Sighting) -> Vec<u64> {
    let mut marks = Vec::new();
    if new.span != 0 {
        marks.extend([mark_within(new.span), mark_child(new.span)]);
    }
    if new.parent != 0 {
        marks.push(mark_within(new.parent));
    }
    marks
}

/// Returns the mark of a key.
pub(super) fn mark_key(key: &str) -> u64 {
    hash(&["key", key])
}

/// Returns the mark of a value that pairs two records.
pub(super) fn mark_pair(pair: u64) -> u64 {
    hash(&["pair", &pair.to_string()])
}

/// Returns the mark of the records within a span.
pub(super) fn mark_within(span: u64) -> u64 {
    hash(&["within", &span.to_string()])
}

/// Returns the mark of the children of a span.
pub(super) fn mark_child(parent: u64) -> u64 {
    hash(&["child", &parent.to_string()])
}
