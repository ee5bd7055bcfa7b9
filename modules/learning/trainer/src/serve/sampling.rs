//! The choice of the next token.

use candle_core::{DType, Tensor};

use super::refusal::Refusal;
use crate::random::Random;

/// A way of choosing: the likeliest token at temperature 0, else one by chance.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    temperature: f64,
    top_p: f64,
    random: Random,
}

impl Sampling {
    /// Creates a way of choosing. Without a seed each answer has another one.
    pub(super) fn new(
        temperature: Option<f64>,
        top_p: Option<f64>,
        seed: Option<i64>,
    ) -> Result<Self, Refusal> {
        let (temperature, top_p) = (temperature.unwrap_or(1.0), top_p.unwrap_or(1.0));
        if !(0.0..=2.0).contains(&temperature) {
            return Err(Refusal::request("temperature", "temperature lies between 0 and 2"));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Refusal::request("top_p", "top_p lies above 0 and up to 1"));
        }
        let seed = seed.map_or_else(some_seed, |seed| seed as u64);
        Ok(Self { temperature, top_p, random: Random::new(seed) })
    }

    /// Chooses a token by its logits; none where they are no numbers.
    pub(super) fn choose(&mut self, logits: &Tensor) -> candle_core::Result<Option<u32>> {
        if self.temperature == 0.0 {
            return logits.argmax(0)?.to_scalar::<u32>().map(Some);
        }
        let logits: Vec<f64> = logits.to_dtype(DType::F64)?.to_vec1()?;
        Ok(self.draw(&logits))
    }

    fn draw(&mut self, logits: &[f64]) -> Option<u32> {
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !most.is_finite() {
            return None;
        }
        let share = |logit: &f64| ((logit - most) / self.temperature).exp();
        let mut shares: Vec<(u32, f64)> = (0..).zip(logits.iter().map(share)).collect();
        let sum: f64 = shares.iter().map(|it| it.1).sum();
        if self.top_p < 1.0 {
            shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let mut so_far = 0.0;
            let bound = self.top_p * sum;
            let kept = shares.iter().take_while(|it| {
                let is_in = so_far < bound;
                so_far += it.1;
                is_in
            });
            let kept = kept.count().max(1);
            shares.truncate(kept);
        }
        let sum: f64 = shares.iter().map(|it| it.1).sum();
        let mut left = self.random.unit() * sum;
        for (token, share) in &shares {
            left -= share;
            if left < 0.0 {
                return Some(*token);
            }
        }
        shares.last().map(|it| it.0)
    }
}

/// Returns a number that the system draws: the keys of a hash map are random.
fn some_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn drawn(temperature: f64, top_p: f64, seed: i64) -> Vec<u32> {
        let sampling = Sampling::new(Some(temperature), Some(top_p), Some(seed));
        let mut sampling = sampling.expect("it is taken");
        let logits = Tensor::new(&[0.0_f32, 2.0, 1.0, -9.0], &Device::Cpu).expect("numbers");
        let choose = |_| sampling.choose(&logits).expect("it is computed").expect("a token");
        (0..400).map(choose).collect()
    }

    #[test]
    fn a_seed_gives_the_same_tokens_by_their_shares() {
        assert_eq!(drawn(0.0, 1.0, 1), [1; 400]);
        assert_eq!(drawn(1.0, 0.1, 1), [1; 400]);
        let tokens = drawn(1.0, 1.0, 1);
        assert_eq!(tokens, drawn(1.0, 1.0, 1));
        assert_ne!(tokens, drawn(1.0, 1.0, 2));
        let of = |token: u32| tokens.iter().filter(|it| **it == token).count();
        // Their shares are 0.67, 0.24 and 0.09.
        assert!((230..300).contains(&of(1)) && (70..130).contains(&of(2)), "{} {}", of(1), of(2));
        let narrow = drawn(1.0, 0.8, 3);
        assert!(narrow.iter().all(|token| [1, 2].contains(token)) && narrow.contains(&2));
    }

    #[test]
    fn settings_out_of_bounds_and_numbers_that_are_none_are_refused() {
        for (temperature, top_p) in [(-1.0, 1.0), (3.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0)] {
            Sampling::new(Some(temperature), Some(top_p), None).expect_err("it is refused");
        }
        let mut sampling = Sampling::new(None, None, None).expect("it is taken");
        assert_eq!(sampling.draw(&[f64::NAN, f64::NAN]), None);
    }
}
