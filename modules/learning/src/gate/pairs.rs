//! Intervals of paired differences.

/// Fewest differences of which an interval says something.
const FEWEST: usize = 8;
/// Number of resamples.
const RESAMPLES: usize = 2_000;

/// Mean of differences with an interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Returns the mean of differences with its percentile bootstrap interval (Efron 1979), which needs
/// no distribution; `None` for fewer than eight. The same seed gives the same interval.
#[must_use]
pub fn interval(differences: &[f64], seed: u64) -> Option<Interval> {
    if differences.len() < FEWEST {
        return None;
    }
    let number = differences.len() as f64;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let pick = |_| differences[random.usize(..differences.len())];
            (0..differences.len()).map(pick).sum::<f64>() / number
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Some(Interval {
        mean: differences.iter().sum::<f64>() / number,
        low: means[RESAMPLES / 40],
        high: means[RESAMPLES - 1 - RESAMPLES / 40],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_true_mean_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut held = 0;
        for round in 0..400 {
            // Differences of -1, 0 and 1 with mean 0.1.
            let all: Vec<f64> = (0..60)
                .map(|_| match random.f64() {
                    x if x < 0.2 => -1.0,
                    x if x < 0.7 => 0.0,
                    _ => 1.0,
                })
                .collect();
            let found = interval(&all, round).expect("there are enough");
            assert!(found.low <= found.mean && found.mean <= found.high, "{found:?}");
            held += u32::from(found.low <= 0.1 && 0.1 <= found.high);
        }
        assert!((360..=396).contains(&held), "{held} of 400");
    }

    #[test]
    fn few_differences_say_nothing_and_equal_ones_say_all() {
        assert_eq!(interval(&[0.5; 7], 1), None);
        let all = interval(&[0.5; 8], 1).expect("there are enough");
        assert_eq!((all.mean, all.low, all.high), (0.5, 0.5, 0.5));
        assert_eq!(interval(&[0.1, 0.9, 0.3, 0.4, 0.2, 0.7, 0.6, 0.5], 3), {
            interval(&[0.1, 0.9, 0.3, 0.4, 0.2, 0.7, 0.6, 0.5], 3)
        });
    }
}
