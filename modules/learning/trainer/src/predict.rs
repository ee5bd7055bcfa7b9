//! Time and memory of a run, told before its first step.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    base::Base,
    examples::Example,
    failure::{Failure, Result},
    job::{Job, Lora},
    model::{Adapter, Shape, Wanted, Weight},
};

/// Memory of the program itself with its tokenizer, in MB.
const PROGRAM_MB: f64 = 20.0;

/// Greatest number of times that an example is tried, and the time after which none is begun.
const TRIALS: usize = 5;
const TRIED: Duration = Duration::from_secs(1);

/// Prediction of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Prediction {
    /// Number of parameters that are trained.
    pub trainable: u64,
    /// Number of parameters of the base.
    pub total: u64,
    /// Seconds until the end.
    pub predicted_s: f64,
    /// Greatest memory of the process, in MB.
    pub predicted_mb: u64,
}

/// Returns the seconds that one token of an example takes forward and back, by doing one.
///
/// # Errors
///
/// When a computation fails.
pub fn seconds_a_token(base: &Base, adapter: &Adapter, example: &Example) -> Result<f64> {
    let gradient = Some((Wanted::Adapter, 1.0));
    let (begin, mut least) = (Instant::now(), f64::INFINITY);
    // The first time is slow, and others may be disturbed: the fastest of a few is told.
    for _ in 0..TRIALS {
        let trial = Instant::now();
        base.model.learn(Some(adapter), &example.ids, &example.targets(), gradient)?;
        least = least.min(trial.elapsed().as_secs_f64());
        if begin.elapsed() > TRIED {
            break;
        }
    }
    Ok(least / example.ids.len() as f64)
}

/// Returns the memory of a run, in MB.
#[must_use]
pub fn memory_mb(base: &Base, lora: &Lora, threads: usize, longest: usize, learnt: usize) -> u64 {
    let shape = &base.model.shape;
    let trainable = crate::adapter::trainable(shape, lora) as f64;
    // The values of the adapter, those and the moments of the optimiser, and the sum of gradients.
    let mut bytes = base.bytes as f64 + trainable * 4.0 * 6.0;
    bytes += threads as f64 * (one_example(base, longest, learnt) + trainable * 4.0);
    (bytes / 1e6 + PROGRAM_MB).ceil() as u64
}

/// Returns the bytes that one example needs while it is computed.
fn one_example(base: &Base, longest: usize, learnt: usize) -> f64 {
    let shape: &Shape = &base.model.shape;
    let rows = longest as f64;
    let is_plain = |weight: &Weight| match weight {
        Weight::Plain(tensor) => tensor.dtype() == base.model.dtype,
        Weight::Blocks(_) => false,
    };
    let head = base.model.head.as_ref().unwrap_or(&base.model.embedding);
    let matrix = (0..7).map(|it| shape.projection(it)).map(|(a, b)| a * b).max().unwrap_or(0);
    let copied = match is_plain(head) {
        true => 0.0,
        false => shape.vocabulary as f64 * shape.hidden as f64,
    };
    let inputs = shape.layers as f64 * rows * shape.hidden as f64;
    let heads = (shape.heads + 2 * shape.key_heads) as f64 * shape.head as f64;
    let within = rows * (8.0 * shape.hidden as f64 + 2.0 * heads + 7.0 * shape.inner as f64);
    let attention = 4.0 * shape.heads as f64 * rows * rows;
    let logits = 3.0 * learnt.min(128) as f64 * shape.vocabulary as f64;
    let at_the_head = copied + logits;
    let in_a_layer = within + attention + matrix as f64;
    4.0 * (inputs + at_the_head.max(in_a_layer))
}

/// Checks that a run fits into the limits of its job and into the memory that is free.
///
/// # Errors
///
/// With the class `Memory` or `Limit`, and what would fit.
pub fn check(job: &Job, prediction: &Prediction) -> Result<()> {
    let needed = prediction.predicted_mb;
    let allowed = job.limits.memory_mb.unwrap_or(u64::MAX);
    let free = free_mb().unwrap_or(u64::MAX);
    if needed > allowed.min(free) {
        return Err(Failure::memory(format!(
            "the run needs about {needed} MB and may use {}; take a smaller max_length, fewer \
             threads, or a smaller or quantised base",
            allowed.min(free)
        )));
    }
    // Two checkpoints with moments, one in the making, and both forms of the adapter.
    let written = prediction.trainable * 4 * (3 * 3 + 2) / 1_000_000 + 1;
    if job.limits.disk_mb.is_some_and(|limit| written > limit) {
        return Err(Failure::limit(format!(
            "the run writes about {written} MB, more than `limits.disk_mb`; take a smaller rank"
        )));
    }
    Ok(())
}

/// Returns the greatest memory that this process had, in MB.
#[must_use]
pub fn peak_mb() -> Option<u64> {
    kilobytes(Path::new("/proc/self/status"), "VmHWM:").map(|it| it / 1000)
}

fn free_mb() -> Option<u64> {
    kilobytes(Path::new("/proc/meminfo"), "MemAvailable:").map(|it| it * 1024 / 1_000_000)
}

fn kilobytes(path: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
