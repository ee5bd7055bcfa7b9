//! AdamW, with its moments in the open so that they can be kept in a checkpoint.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};

use crate::{
    job::{Schedule, Train},
    model::Tensors,
};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// A parameter with its moments.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its sizes.
    pub sizes: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
    /// Running mean of its gradient.
    pub mean: Vec<f32>,
    /// Running mean of the square of its gradient.
    pub square: Vec<f32>,
}

/// Parameters by their names, and the number of steps that were made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Optimiser {
    /// Parameters.
    pub parameters: BTreeMap<String, Parameter>,
    /// Number of steps.
    pub step: usize,
}

impl Optimiser {
    /// Creates an optimiser of these parameters.
    ///
    /// # Errors
    ///
    /// When they are no numbers.
    pub fn new(tensors: &Tensors) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for (name, tensor) in tensors {
            let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let zero = vec![0.0; values.len()];
            let sizes = tensor.dims().to_vec();
            let parameter = Parameter { sizes, values, mean: zero.clone(), square: zero };
            parameters.insert(name.clone(), parameter);
        }
        Ok(Self { parameters, step: 0 })
    }

    /// Returns the parameters as matrices.
    ///
    /// # Errors
    ///
    /// When the sizes do not fit, which does not happen.
    pub fn tensors(&self) -> Result<Tensors> {
        let tensor = |(name, it): (&String, &Parameter)| {
            let tensor = Tensor::from_slice(&it.values, it.sizes.clone(), &Device::Cpu)?;
            Ok((name.clone(), tensor))
        };
        self.parameters.iter().map(tensor).collect()
    }

    /// Makes a step along gradients, and returns their norm before it was bounded.
    ///
    /// # Errors
    ///
    /// When a gradient is missing.
    pub fn step(&mut self, gradients: &Tensors, rate: f64, train: &Train) -> Result<f64> {
        let mut flat = Vec::with_capacity(gradients.len());
        for name in self.parameters.keys() {
            let Some(gradient) = gradients.get(name) else {
                candle_core::bail!("no gradient reached {name}");
            };
            flat.push(gradient.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
        }
        let squares = flat.iter().flatten().map(|it| f64::from(*it).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let factor = (train.max_grad_norm / norm.max(1e-12)).min(1.0);
        self.step += 1;
        let corrections = (1.0 - BETA1.powf(self.step as f64), 1.0 - BETA2.powf(self.step as f64));
        let decay = 1.0 - rate * train.weight_decay;
        for (parameter, gradient) in self.parameters.values_mut().zip(flat) {
            for (index, slope) in gradient.into_iter().enumerate() {
                let slope = f64::from(slope) * factor;
                let mean = BETA1 * f64::from(parameter.mean[index]) + (1.0 - BETA1) * slope;
                let square =
                    BETA2 * f64::from(parameter.square[index]) + (1.0 - BETA2) * slope * slope;
                let move_by = mean / corrections.0 / ((square / corrections.1).sqrt() + EPS);
                let value = f64::from(parameter.values[index]) * decay - rate * move_by;
                parameter.mean[index] = mean as f32;
                parameter.square[index] = square as f32;
                parameter.values[index] = value as f32;
            }
        }
        Ok(norm)
    }
}

/// Returns the learning rate of a step, counted from 0.
#[must_use]
pub fn rate(train: &Train, step: usize, steps: usize) -> f64 {
    if step < train.warmup_steps {
        return train.lr * (step + 1) as f64 / train.warmup_steps as f64;
    }
    let all = steps.saturating_sub(train.warmup_steps).max(1);
    let done = (step - train.warmup_steps) as f64 / all as f64;
    let share = match train.schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - done,
        Schedule::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * done).cos()),
    };
    train.lr * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_lowest_point() {
        let start = Tensor::new(&[3.0_f32, -2.0], &Device::Cpu).expect("it is computed");
        let mut optimiser =
            Optimiser::new(&Tensors::from([("x".into(), start)])).expect("it is computed");
        let train = Train { max_grad_norm: 10.0, ..Train::default() };
        for _ in 0..400 {
            let x =
                optimiser.tensors().expect("it is computed").remove("x").expect("it is computed");
            let gradients = Tensors::from([("x".into(), (x * 2.0).expect("it is computed"))]);
            optimiser.step(&gradients, 0.05, &train).expect("it is computed");
        }
        let found = &optimiser.parameters["x"].values;
        assert!(found.iter().all(|it| it.abs() < 1e-2), "{found:?}");
        assert!(optimiser.step(&Tensors::new(), 0.1, &train).is_err());
    }

    #[test]
    fn a_gradient_that_is_no_number_changes_nothing() {
        let start = Tensor::new(&[1.0_f32], &Device::Cpu).expect("it is computed");
        let mut optimiser =
            Optimiser::new(&Tensors::from([("x".into(), start)])).expect("it is computed");
        let before = optimiser.clone();
        let nan = Tensor::new(&[f32::NAN], &Device::Cpu).expect("it is computed");
        let gradients = Tensors::from([("x".into(), nan)]);
        let norm = optimiser.step(&gradients, 0.1, &Train::default()).expect("it is computed");
        assert!(norm.is_nan());
        assert_eq!(optimiser, before);
    }

    #[test]
    fn rates_follow_their_course() {
        let check = |schedule: Schedule, expected: [f64; 4]| {
            let train = Train { lr: 1.0, schedule, warmup_steps: 2, ..Train::default() };
            for (step, expected) in [0, 1, 2, 4].into_iter().zip(expected) {
                let found = rate(&train, step, 6);
                assert!((found - expected).abs() < 1e-9, "{schedule:?} {step}: {found}");
            }
        };
        check(Schedule::Constant, [0.5, 1.0, 1.0, 1.0]);
        check(Schedule::Linear, [0.5, 1.0, 1.0, 0.5]);
        check(Schedule::Cosine, [0.5, 1.0, 1.0, 0.5]);
    }
}
