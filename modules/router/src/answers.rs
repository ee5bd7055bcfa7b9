//! Ids of answers that were seen.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, Hasher as _},
    sync::{Mutex, PoisonError},
};

use foldhash::{HashSet, fast::RandomState};

/// Ids that are remembered; the oldest is forgotten for the next one.
const REMEMBERED: usize = 20_000;

/// The latest ids of answers, as hashes: two of them are taken for one in less than one case of
/// 10^14.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    hasher: RandomState,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    known: HashSet<u64>,
    oldest_first: VecDeque<u64>,
}

impl Answers {
    /// Remembers an id, and returns whether it is new.
    pub(crate) fn is_new(&self, id: &str) -> bool {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(id.as_bytes());
        let hash = hasher.finish();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.known.insert(hash) {
            return false;
        }
        seen.oldest_first.push_back(hash);
        if seen.oldest_first.len() > REMEMBERED
            && let Some(oldest) = seen.oldest_first.pop_front()
        {
            seen.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_until_many_others_came() {
        let answers = Answers::default();
        assert!(answers.is_new("a") && !answers.is_new("a") && answers.is_new("b"));
        for number in 2..REMEMBERED {
            assert!(answers.is_new(&number.to_string()), "{number}");
        }
        assert!(!answers.is_new("a") && !answers.is_new("b"));
        assert!(answers.is_new("one more"));
        assert!(!answers.is_new("b") && answers.is_new("a"));
        let seen = answers.seen.lock().expect("no panic");
        assert_eq!((seen.known.len(), seen.oldest_first.len()), (REMEMBERED, REMEMBERED));
    }
}
