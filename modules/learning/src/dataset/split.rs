//! The split of a dataset: which examples are held out.
//!
//! Near-duplicates, and all of a conversation, lie on one side: whatever shares a cluster or a
//! conversation with another example, however many steps away, is one group. The newest groups are
//! held out, so that a model is measured on later work than it has seen. A group is dated by its
//! oldest example: all that is held out is newer than the oldest of what is not.

use std::{cmp::Reverse, collections::HashMap};

use crate::quality::Kept;

/// Returns for each example whether it is held out.
#[must_use]
pub fn held_out(kept: &[Kept], share: f64) -> Vec<bool> {
    let groups = groups(kept);
    let mut of_group: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, group) in groups.iter().enumerate() {
        of_group.entry(*group).or_default().push(index);
    }
    let mut sorted: Vec<Vec<usize>> = of_group.into_values().collect();
    sorted.sort_by_key(|members| {
        let oldest = members.iter().map(|index| kept[*index].example.at).min();
        let name = members.iter().map(|index| &kept[*index].example.id).min();
        Reverse((oldest, name))
    });
    let mut is_out = vec![false; kept.len()];
    if share <= 0.0 || sorted.len() < 2 {
        return is_out;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a number of examples, which is far below 2^52"
    )]
    let wanted = ((kept.len() as f64 * share).ceil() as usize).max(1);
    let mut out = 0;
    for members in sorted {
        // A group that is larger than what is wanted may not empty the other side.
        if out >= wanted || out + members.len() > kept.len() / 2 {
            continue;
        }
        out += members.len();
        members.into_iter().for_each(|index| is_out[index] = true);
    }
    is_out
}

/// Returns for each example the number of its group.
fn groups(kept: &[Kept]) -> Vec<usize> {
    let mut parents: Vec<usize> = (0..kept.len()).collect();
    let (mut clusters, mut conversations) = (HashMap::new(), HashMap::new());
    for (index, it) in kept.iter().enumerate() {
        let of_cluster = *clusters.entry(it.cluster).or_insert(index);
        join(&mut parents, index, of_cluster);
        let key = (&*it.example.project, &*it.example.conversation);
        let of_conversation = *conversations.entry(key).or_insert(index);
        join(&mut parents, index, of_conversation);
    }
    (0..kept.len()).map(|index| root(&mut parents, index)).collect()
}

fn join(parents: &mut [usize], one: usize, other: usize) {
    let (one, other) = (root(parents, one), root(parents, other));
    parents[one.max(other)] = one.min(other);
}

fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::dataset::sample;

    fn count(is_out: &[bool]) -> usize {
        is_out.iter().filter(|it| **it).count()
    }

    #[test]
    fn the_newest_are_held_out() {
        let kept: Vec<Kept> = (0..20).map(sample::kept).collect();
        let is_out = held_out(&kept, 0.1);
        let expected: Vec<bool> = (0..20).map(|number| number >= 18).collect();
        assert_eq!(is_out, expected);
    }

    #[test]
    fn what_cannot_be_split_is_trained_on() {
        let check = |kept: &[Kept], share: f64, expected: usize| {
            assert_eq!(count(&held_out(kept, share)), expected);
        };
        check(&[], 0.1, 0);
        check(&[sample::kept(1)], 0.5, 0);
        check(&[sample::kept(1), sample::kept(2)], 0.0, 0);
        check(&[sample::kept(1), sample::kept(2)], 0.1, 1);
        let one = |number| Kept { cluster: 1, ..sample::kept(number) };
        check(&[one(1), one(2), one(3)], 0.3, 0);
        // The large group stays, although it is the newest.
        check(&[sample::kept(0), one(2), one(3), one(4)], 0.25, 1);
    }

    proptest! {
        #[test]
        fn no_cluster_and_no_conversation_crosses(
            made in proptest::collection::vec((0_u64..20, 0_u32..20, 0_i64..50), 0..60),
            share in 0.0_f64..0.5,
        ) {
            let kept: Vec<Kept> = (0..).zip(made).map(|(number, (cluster, conversation, at))| {
                let mut kept = sample::kept(number);
                kept.cluster = cluster;
                kept.example.conversation = conversation.to_string();
                kept.example.at = at;
                kept
            }).collect();
            let is_out = held_out(&kept, share);
            let side = |out: bool| kept.iter().zip(&is_out).filter(move |(_, is)| **is == out);
            let clusters = |out| side(out).map(|(it, _)| it.cluster).collect::<HashSet<_>>();
            let conversations =
                |out| side(out).map(|(it, _)| &*it.example.conversation).collect::<HashSet<_>>();
            prop_assert!(clusters(true).is_disjoint(&clusters(false)));
            prop_assert!(conversations(true).is_disjoint(&conversations(false)));
            prop_assert!(count(&is_out) * 2 <= kept.len());
        }
    }
}
