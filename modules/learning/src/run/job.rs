//! The job of a trainer: `job.json`, version 1.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of the contract with trainers.
pub const VERSION: u32 = 1;

/// A job. Relative paths are those of the folder of the attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Version of the contract.
    pub v: u32,
    /// Id of the run.
    pub job_id: String,
    /// The base model.
    pub base: Base,
    /// The examples.
    pub dataset: Examples,
    /// Folder for checkpoints and for the adapter.
    pub output_dir: PathBuf,
    /// Checkpoint to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_from: Option<PathBuf>,
    /// Method of training: `lora` or `qlora`.
    pub method: Method,
    /// Shape of the adapter.
    pub lora: Lora,
    /// Steps, rates and sizes.
    pub train: Train,
    /// Limits that the trainer keeps by itself too.
    pub limits: Limits,
    /// `true` when nothing may be fetched.
    pub offline: bool,
}

/// The base model of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// A folder or a GGUF file.
    pub path: PathBuf,
    /// Digest that it has to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The examples of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examples {
    /// Lines to train on.
    pub train: PathBuf,
    /// Lines to measure the loss on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<PathBuf>,
    /// Digest of the training file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Form of the lines: `messages`.
    pub format: String,
}

/// A method of training.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// An adapter over weights in full precision.
    #[default]
    Lora,
    /// An adapter over quantised weights.
    Qlora,
}

/// Shape of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// Rank.
    pub r: u32,
    /// Scale, in units of the rank.
    pub alpha: u32,
    /// Share of inputs that are dropped.
    pub dropout: f64,
    /// Names of the projections; the trainer's own choice when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_modules: Vec<String>,
}

impl Default for Lora {
    /// Returns rank 8, alpha 16, without dropout.
    fn default() -> Self {
        Self { r: 8, alpha: 16, dropout: 0.0, target_modules: Vec::new() }
    }
}

/// Steps, rates and sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// Number of steps; by the epochs where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Number of passes over the examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Examples that are computed at once.
    pub batch_size: u32,
    /// Batches in a step.
    pub grad_accum: u32,
    /// Learning rate.
    pub lr: f64,
    /// Longest example, in tokens.
    pub max_length: u32,
    /// Seed of all that is random.
    pub seed: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
}

impl Default for Train {
    /// Returns two passes in small batches.
    fn default() -> Self {
        Self {
            max_steps: None,
            epochs: Some(2.0),
            batch_size: 4,
            grad_accum: 1,
            lr: 2e-4,
            max_length: 1_024,
            seed: 42,
            save_every: 20,
        }
    }
}

/// Limits that a trainer keeps by itself too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest time, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_s: Option<u64>,
    /// Memory of the GPU, in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_mem_mb: Option<u64>,
    /// Size of the output, in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
}

/// Shortest length that examples are cut down to.
const SHORTEST: u32 = 64;

impl Job {
    /// Returns the same job with less memory, and what was made smaller; none where nothing can be.
    /// Half the batch twice as often is the same training; only where the batch is one already are
    /// long examples left out.
    #[must_use]
    pub fn smaller(&self) -> Option<(Self, String)> {
        let mut job = Self { resume_from: None, ..self.clone() };
        let train = &mut job.train;
        if train.batch_size > 1 {
            train.batch_size /= 2;
            train.grad_accum = train.grad_accum.saturating_mul(2);
            let note = format!("batch_size {}, grad_accum {}", train.batch_size, train.grad_accum);
            return Some((job, note));
        }
        train.max_length /= 2;
        let note = format!("max_length {}", train.max_length);
        (train.max_length >= SHORTEST).then_some((job, note))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn job() -> Job {
        Job {
            v: VERSION,
            job_id: "run-1".to_owned(),
            base: Base { path: "base".into(), sha256: None },
            dataset: Examples {
                train: "train.jsonl".into(),
                eval: None,
                sha256: None,
                format: "messages".to_owned(),
            },
            output_dir: "out".into(),
            resume_from: None,
            method: Method::Lora,
            lora: Lora::default(),
            train: Train { max_steps: Some(10), ..Train::default() },
            limits: Limits::default(),
            offline: true,
        }
    }

    #[test]
    fn a_job_is_read_as_it_is_written() {
        let text = serde_json::to_string(&job()).expect("it is written");
        assert!(!text.contains("null"), "{text}");
        assert_eq!(serde_json::from_str::<Job>(&text).expect("it is read"), job());
    }

    #[test]
    fn a_smaller_job_halves_the_batch_and_then_the_length() {
        let (smaller, note) = job().smaller().expect("it can be");
        assert_eq!((smaller.train.batch_size, smaller.train.grad_accum), (2, 2));
        assert_eq!(note, "batch_size 2, grad_accum 2");
        let mut job = job();
        job.train.batch_size = 1;
        let (smaller, note) = job.smaller().expect("it can be");
        assert_eq!((smaller.train.max_length, note.as_str()), (512, "max_length 512"));
        job.train.max_length = 100;
        assert_eq!(job.smaller(), None);
    }
}
