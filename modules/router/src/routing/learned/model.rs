//! Two logistic regressions, trained label by label: is the local model right, and is the paid one?
//!
//! Predicting only that the local model fails would send the paid model what neither can answer.

use super::sample::{COUNTED, SLOTS, Sample};

/// Step of the weights of hashed features.
const STEP: f32 = 0.05;
/// Step of the weights of counted features and of the biases.
const COUNTED_STEP: f32 = 0.015;
/// Length of a counted feature that lies one standard deviation off.
const COUNTED_UNIT: f32 = 0.3;
/// Keeps the first steps finite.
const EPSILON: f32 = 0.01;

/// The two regressions.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) local: Side,
    pub(super) paid: Side,
    /// Sums of squared gradients of the hashed features: the more often one was seen, the smaller
    /// its steps (AdaGrad). The two regressions share them.
    pub(super) squares: Box<[f32]>,
    pub(super) counted_squares: [f32; COUNTED],
    pub(super) bias_squares: f32,
    pub(super) spread: Spread,
}

/// Weights of one regression.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) hashed: Box<[f32]>,
    pub(super) counted: [f32; COUNTED],
    pub(super) bias: f32,
}

/// Means and deviations of the counted features.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    pub(super) count: f32,
    pub(super) means: [f32; COUNTED],
    pub(super) squares: [f32; COUNTED],
}

impl Default for Model {
    fn default() -> Self {
        let side = || Side { hashed: zeros(), counted: [0.0; COUNTED], bias: 0.0 };
        Self {
            local: side(),
            paid: side(),
            squares: zeros(),
            counted_squares: [0.0; COUNTED],
            bias_squares: 0.0,
            spread: Spread { count: 0.0, means: [0.0; COUNTED], squares: [0.0; COUNTED] },
        }
    }
}

fn zeros() -> Box<[f32]> {
    vec![0.0; SLOTS].into()
}

impl Model {
    /// Returns the probabilities that the local and the paid model are right.
    pub(super) fn predict(&self, sample: &Sample) -> (f32, f32) {
        let counted = self.spread.scaled(&sample.counted);
        (self.local.predict(sample, &counted), self.paid.predict(sample, &counted))
    }

    /// Counts a sample into the means, before it is trained on for the first time.
    pub(super) fn meet(&mut self, sample: &Sample) {
        self.spread.add(&sample.counted);
    }

    /// Takes one step towards a label; the side that is not known stays.
    pub(super) fn train(&mut self, sample: &Sample, local: Option<bool>, paid: Option<bool>) {
        let counted = self.spread.scaled(&sample.counted);
        let error = |side: &Side, is_right: Option<bool>| {
            is_right.map(|is| side.predict(sample, &counted) - f32::from(u8::from(is)))
        };
        let errors = (error(&self.local, local), error(&self.paid, paid));
        let known = [errors.0, errors.1].into_iter().flatten();
        let (count, sum) = known.fold((0.0, 0.0), |(n, sum), e| (n + 1.0, sum + e * e));
        if count == 0.0 {
            return;
        }
        let square = sum / count;
        let (local, paid) = (errors.0.unwrap_or(0.0), errors.1.unwrap_or(0.0));
        self.bias_squares += square;
        let step = COUNTED_STEP / (self.bias_squares.sqrt() + EPSILON);
        self.local.bias -= step * local;
        self.paid.bias -= step * paid;
        for (slot, value) in sample.slots.iter().zip(&sample.values) {
            let slot = usize::from(*slot);
            let squares = &mut self.squares[slot];
            *squares += square * value * value;
            let step = STEP * value / (squares.sqrt() + EPSILON);
            self.local.hashed[slot] -= step * local;
            self.paid.hashed[slot] -= step * paid;
        }
        for (index, value) in counted.iter().enumerate() {
            let squares = &mut self.counted_squares[index];
            *squares += square * value * value;
            let step = COUNTED_STEP * value / (squares.sqrt() + EPSILON);
            self.local.counted[index] -= step * local;
            self.paid.counted[index] -= step * paid;
        }
    }
}

impl Side {
    fn predict(&self, sample: &Sample, counted: &[f32; COUNTED]) -> f32 {
        let hashed = sample.slots.iter().zip(&sample.values);
        let hashed: f32 = hashed.map(|(slot, value)| self.hashed[usize::from(*slot)] * value).sum();
        let counted: f32 = self.counted.iter().zip(counted).map(|(weight, it)| weight * it).sum();
        1.0 / (1.0 + f32::exp(-(self.bias + hashed + counted)))
    }
}

impl Spread {
    fn add(&mut self, values: &[f32; COUNTED]) {
        self.count += 1.0;
        for (index, value) in values.iter().enumerate() {
            let from = value - self.means[index];
            self.means[index] += from / self.count;
            self.squares[index] += from * (value - self.means[index]);
        }
    }

    fn scaled(&self, values: &[f32; COUNTED]) -> [f32; COUNTED] {
        let mut scaled = *values;
        for (index, value) in scaled.iter_mut().enumerate() {
            let deviation = (self.squares[index] / self.count.max(1.0)).sqrt().max(1e-3);
            *value = ((*value - self.means[index]) / deviation).clamp(-3.0, 3.0) * COUNTED_UNIT;
        }
        scaled
    }
}
