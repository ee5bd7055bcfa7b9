//! The latest times of a target.

/// Number of times that are kept.
const KEPT: usize = 128;

/// Number of times after which the quantiles are computed again.
const STEP: u32 = 8;

/// The latest times, in milliseconds, with their quantiles.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    latest: Vec<f32>,
    next: usize,
    since: u32,
    quantiles: Option<[f64; 2]>,
}

impl Samples {
    /// Adds a time.
    pub(crate) fn add(&mut self, milliseconds: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "a few digits are enough")]
        let value = milliseconds as f32;
        if self.latest.len() < KEPT {
            self.latest.push(value);
        } else {
            self.latest[self.next] = value;
            self.next = (self.next + 1) % KEPT;
        }
        self.since += 1;
        if self.since >= STEP || self.latest.len() < KEPT / 8 {
            self.since = 0;
            let mut sorted = self.latest.clone();
            sorted.sort_by(f32::total_cmp);
            let at = |share: usize| f64::from(sorted[(sorted.len() - 1) * share / 100]);
            self.quantiles = Some([at(50), at(95)]);
        }
    }

    /// Returns the times where there are at least so many.
    pub(crate) fn known(&self, least: usize) -> Option<&Self> {
        (self.latest.len() >= least).then_some(self)
    }

    /// Returns the median.
    pub(crate) fn p50(&self) -> Option<f64> {
        self.quantiles.map(|[p50, _]| p50)
    }

    /// Returns the 95th percentile.
    pub(crate) fn p95(&self) -> Option<f64> {
        self.quantiles.map(|[_, p95]| p95)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_times_count() {
        let mut samples = Samples::default();
        assert_eq!(samples.p50(), None);
        samples.add(7.0);
        assert_eq!((samples.p50(), samples.p95()), (Some(7.0), Some(7.0)));
        assert!(samples.known(1).is_some() && samples.known(2).is_none());
        (0..200).for_each(|_| samples.add(1.0));
        assert_eq!(samples.p95(), Some(1.0));
        (0..32).for_each(|_| samples.add(9.0));
        assert_eq!((samples.p50(), samples.p95()), (Some(1.0), Some(9.0)));
    }
}
