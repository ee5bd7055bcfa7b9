//! The nesting of all spans that were seen lately, whether they are requests or not.

use std::collections::{HashMap, VecDeque};

/// Largest number of spans that are remembered; at some 100 bytes each, 7 MB.
const REMEMBERED: usize = 65_536;

/// Largest number of spans that are followed outwards; no real trace is that deep, and a loop has
/// no end.
const DEEPEST: usize = 64;

/// Largest number of spans below a span that are looked at.
pub(super) const WIDEST: usize = 512;

/// A span and the one that encloses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) span: u64,
    pub(crate) parent: u64,
}

/// The known nesting of spans.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    parents: HashMap<u64, u64>,
    /// The children of each span, oldest first.
    children: HashMap<u64, VecDeque<u64>>,
    /// The spans with a parent, oldest first.
    order: VecDeque<u64>,
}

impl Lineage {
    /// Learns a link; returns whether it was unknown.
    pub(super) fn learn(&mut self, link: Link) -> bool {
        if link.span == 0 || link.parent == 0 || self.parents.contains_key(&link.span) {
            return false;
        }
        if self.order.len() >= REMEMBERED {
            self.forget_oldest();
        }
        self.parents.insert(link.span, link.parent);
        self.children.entry(link.parent).or_default().push_back(link.span);
        self.order.push_back(link.span);
        true
    }

    /// Returns the spans that enclose `span`, innermost first.
    pub(super) fn above(&self, span: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(span), |span| self.parents.get(span).copied())
            .skip(1)
            .take(DEEPEST)
    }

    /// Returns the number of spans that enclose `span`.
    pub(super) fn depth(&self, span: u64) -> usize {
        self.above(span).count()
    }

    /// Returns whether `span` encloses any other span.
    pub(super) fn has_within(&self, span: u64) -> bool {
        self.children.contains_key(&span)
    }

    /// Returns the spans within `span` at any depth.
    pub(super) fn below(&self, span: u64) -> Vec<u64> {
        let mut found = Vec::new();
        let mut next = 0;
        let mut at = Some(span);
        while let Some(span) = at {
            let children = self.children.get(&span).into_iter().flatten();
            let room = WIDEST.saturating_sub(found.len());
            found.extend(children.take(room));
            at = found.get(next).copied();
            next += 1;
        }
        found
    }

    fn forget_oldest(&mut self) {
        let Some(span) = self.order.pop_front() else { return };
        let Some(parent) = self.parents.remove(&span) else { return };
        if let Some(children) = self.children.get_mut(&parent) {
            // Spans are forgotten in the order in which they were learned.
            children.pop_front();
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(lineage: &mut Lineage, span: u64, parent: u64) -> bool {
        lineage.learn(Link { span, parent })
    }

    #[test]
    fn spans_are_found_above_and_below_in_any_order() {
        let mut lineage = Lineage::default();
        assert!(learn(&mut lineage, 4, 3) && learn(&mut lineage, 2, 1));
        assert!(learn(&mut lineage, 3, 2) && learn(&mut lineage, 5, 2));
        assert!(!learn(&mut lineage, 4, 3), "it is known");
        assert!(!learn(&mut lineage, 0, 3) && !learn(&mut lineage, 3, 0), "no span");
        assert_eq!(lineage.above(4).collect::<Vec<_>>(), [3, 2, 1]);
        let mut below = lineage.below(1);
        below.sort_unstable();
        assert_eq!(below, [2, 3, 4, 5]);
        assert_eq!((lineage.depth(4), lineage.depth(1)), (3, 0));
        assert!(lineage.below(4).is_empty());
    }

    #[test]
    fn loops_and_crowds_have_an_end() {
        let mut lineage = Lineage::default();
        learn(&mut lineage, 1, 2);
        learn(&mut lineage, 2, 1);
        learn(&mut lineage, 3, 3);
        assert_eq!(lineage.depth(1), DEEPEST);
        assert_eq!(lineage.below(3).len(), WIDEST);
        for span in 10..REMEMBERED as u64 + 100 {
            learn(&mut lineage, span, 9);
        }
        assert_eq!(lineage.below(9).len(), WIDEST);
        let known = (lineage.parents.len(), lineage.order.len());
        assert_eq!(known, (REMEMBERED, REMEMBERED));
        assert!(!lineage.parents.contains_key(&1), "the oldest went");
    }
}
