//! The job: a JSON file that says what is trained, on what, and within which limits.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// Version of the form of jobs and events.
pub const VERSION: u32 = 1;

/// Names of the projections that a LoRA may be put on, in the order of a layer.
pub const PROJECTIONS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Version of the form.
    #[serde(default = "version")]
    pub v: u32,
    /// Name of the run, for events.
    pub job_id: String,
    /// The base model.
    pub base: Base,
    /// The examples.
    pub dataset: Dataset,
    /// The folder that everything is written to.
    pub output_dir: PathBuf,
    /// A checkpoint, or a folder whose newest checkpoint is taken if it has any.
    #[serde(default)]
    pub resume_from: Option<PathBuf>,
    /// The way of training.
    #[serde(default)]
    pub method: Method,
    /// Shape of the adapter.
    #[serde(default)]
    pub lora: Lora,
    /// Quantisation that is made before training; only `none`, as bases are used as they are.
    #[serde(default = "none")]
    pub quant: String,
    /// Course of the training.
    #[serde(default)]
    pub train: Train,
    /// Bounds that end the run.
    #[serde(default)]
    pub limits: Limits,
    /// A merged export, which this trainer does not write.
    #[serde(default)]
    pub merge: bool,
    /// A promise to use no network, which this trainer always keeps.
    #[serde(default = "yes")]
    pub offline: bool,
    /// Number of examples that are computed side by side; the result does not depend on it.
    #[serde(default = "one")]
    pub threads: usize,
}

/// The base model of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// A folder (`config.json`, `model.safetensors`, `tokenizer.json`) or a GGUF file.
    #[serde(default)]
    pub path: PathBuf,
    /// Name on a hub, which this trainer does not fetch.
    #[serde(default)]
    pub hf_id: Option<String>,
    /// Revision of the base, for the record.
    #[serde(default)]
    pub revision: Option<String>,
    /// Digest that the base must have, as `inspect` prints it.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// The examples of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// File of the examples that are learnt, a line of JSON each.
    pub train: PathBuf,
    /// File of the examples that are held out.
    #[serde(default)]
    pub eval: Option<PathBuf>,
    /// Digest that the file of `train` must have.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Form of the lines; only `messages`.
    #[serde(default = "messages")]
    pub format: String,
}

/// A way of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// An adapter beside a base of 16 or 32 bits.
    #[default]
    Lora,
    /// An adapter beside a quantised base.
    Qlora,
}

/// Shape of the adapter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rank.
    pub r: usize,
    /// Numerator of the scale `alpha / r`.
    pub alpha: u32,
    /// Share of inputs that are dropped; only 0.
    pub dropout: f64,
    /// Projections that get an adapter.
    pub target_modules: Vec<String>,
    /// DoRA, which is refused.
    pub use_dora: bool,
    /// The scale of rsLoRA, which is refused.
    pub use_rslora: bool,
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            r: 8,
            alpha: 16,
            dropout: 0.0,
            target_modules: PROJECTIONS.map(str::to_owned).to_vec(),
            use_dora: false,
            use_rslora: false,
        }
    }
}

/// A course of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The same rate throughout.
    Constant,
    /// A straight line to 0.
    Linear,
    /// Half a cosine to 0.
    Cosine,
}

/// Course of the training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Number of steps; counts before `epochs`.
    pub max_steps: Option<usize>,
    /// Number of times that each example is seen.
    pub epochs: Option<f64>,
    /// Number of examples of a part of a step.
    pub batch_size: usize,
    /// Number of parts of a step.
    pub grad_accum: usize,
    /// Highest learning rate.
    pub lr: f64,
    /// Course of the learning rate.
    pub schedule: Schedule,
    /// Number of steps in which the rate rises from 0.
    pub warmup_steps: usize,
    /// Decay of the weights.
    pub weight_decay: f64,
    /// Greatest norm of the gradient.
    pub max_grad_norm: f64,
    /// Greatest number of tokens of an example; longer ones are left out and counted.
    pub max_length: usize,
    /// Seed of the order and of the first weights.
    pub seed: u64,
    /// Precision; `auto` and `fp32` are the same here.
    pub precision: String,
    /// Number of steps between checkpoints.
    pub save_every: usize,
    /// Number of steps between evaluations; 0 for one before and one after.
    pub eval_every: usize,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            max_steps: None,
            epochs: None,
            batch_size: 4,
            grad_accum: 1,
            lr: 2e-4,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            max_length: 1024,
            seed: 42,
            precision: "auto".into(),
            save_every: 20,
            eval_every: 0,
        }
    }
}

/// Bounds that end the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Seconds that the process may run.
    pub wall_s: Option<u64>,
    /// Memory of the process, in MB.
    pub memory_mb: Option<u64>,
    /// Memory of a graphics card, which this trainer does not use.
    pub gpu_mem_mb: Option<u64>,
    /// Size of all that is written, in MB.
    pub disk_mb: Option<u64>,
}

impl Job {
    /// Reads a job and checks that it asks for nothing that this trainer does not do.
    ///
    /// # Errors
    ///
    /// With the class `Job` and a sentence that names what is wrong and what to write instead.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::job(format!("cannot read {}: {error}", path.display())))?;
        Self::parse(&text)
    }

    /// Parses a job and checks it.
    ///
    /// # Errors
    ///
    /// As [`Job::read`].
    pub fn parse(text: &str) -> Result<Self> {
        let job: Self = serde_json::from_str(text)
            .map_err(|error| Failure::job(format!("the job has an unknown form: {error}")))?;
        job.check()?;
        Ok(job)
    }

    /// Returns the number of examples of a step.
    #[must_use]
    pub fn per_step(&self) -> usize {
        self.train.batch_size * self.train.grad_accum
    }

    /// Returns the number of steps for this number of examples.
    #[must_use]
    pub fn steps(&self, examples: usize) -> usize {
        self.train.max_steps.unwrap_or_else(|| {
            let seen = examples as f64 * self.train.epochs.unwrap_or(1.0);
            ((seen / self.per_step() as f64).ceil() as usize).max(1)
        })
    }

    /// Returns a text that is equal for jobs that train the same adapter.
    #[must_use]
    pub fn identity(&self, base: &str, data: &str, steps: usize) -> String {
        let mut train = self.train.clone();
        (train.save_every, train.eval_every) = (0, 0);
        (train.max_steps, train.epochs) = (Some(steps), None);
        serde_json::json!({
            "base": base, "data": data, "lora": self.lora, "train": train,
        })
        .to_string()
    }

    fn check(&self) -> Result<()> {
        let train = &self.train;
        let lora = &self.lora;
        let refused: [(bool, &str); 22] = [
            (self.v != VERSION, "`v` must be 1, the form that this trainer reads"),
            (self.base.hf_id.is_some(), "`base.hf_id` is not fetched; give `base.path`"),
            (self.base.path.as_os_str().is_empty(), "`base.path` is missing; name the base"),
            (self.dataset.format != "messages", "`dataset.format` must be `messages`"),
            (lora.use_dora, "DoRA is not trained here; leave `use_dora` out or use `peft-plain`"),
            (lora.use_rslora, "rsLoRA is not trained here; leave `use_rslora` out, or raise alpha"),
            (lora.dropout != 0.0, "`lora.dropout` must be 0; this trainer drops nothing"),
            (lora.r == 0 || lora.r > 256, "`lora.r` must lie between 1 and 256"),
            (lora.alpha == 0, "`lora.alpha` must be at least 1"),
            (lora.target_modules.is_empty(), "`lora.target_modules` is empty; name projections"),
            (
                self.quant != "none",
                "`quant` must be `none`: bases are used as they are; give a GGUF",
            ),
            (self.merge, "merged exports are not written here; leave `merge` out"),
            (!self.offline, "`offline` must be true; this trainer uses no network"),
            (self.threads == 0 || self.threads > 64, "`threads` must lie between 1 and 64"),
            (train.batch_size == 0 || train.grad_accum == 0, "an empty step trains nothing"),
            (self.train.batch_size.saturating_mul(train.grad_accum) > 65_536, "a step is too big"),
            (!(train.lr > 0.0 && train.lr <= 1.0), "`train.lr` must lie above 0 and up to 1"),
            (train.max_steps == Some(0), "`train.max_steps` must be at least 1"),
            (train.epochs.is_some_and(|it| !(it > 0.0 && it <= 1e4)), "`train.epochs` is too odd"),
            (train.max_length < 8, "`train.max_length` must be at least 8"),
            (train.save_every == 0, "`train.save_every` must be at least 1"),
            (
                !(train.weight_decay >= 0.0 && train.max_grad_norm > 0.0),
                "`weight_decay` and `max_grad_norm` must not be negative",
            ),
        ];
        if let Some((_, message)) = refused.iter().find(|(is_wrong, _)| *is_wrong) {
            return Err(Failure::job(*message));
        }
        if !["auto", "fp32"].contains(&train.precision.as_str()) {
            let asked = shown(&train.precision);
            return Err(Failure::job(format!("precision {asked} is not computed here; use fp32")));
        }
        let unknown = lora.target_modules.iter().find(|it| !PROJECTIONS.contains(&it.as_str()));
        if let Some(name) = unknown {
            return Err(Failure::job(format!(
                "no projection is named {}; name some of {}",
                shown(name),
                PROJECTIONS.join(", ")
            )));
        }
        Ok(())
    }
}

/// Returns a word that somebody else wrote, shortened and without control characters.
#[must_use]
pub fn shown(word: &str) -> Value {
    Value::String(word.chars().filter(|it| !it.is_control()).take(60).collect())
}

const fn version() -> u32 {
    VERSION
}

const fn yes() -> bool {
    true
}

const fn one() -> usize {
    1
}

fn none() -> String {
    "none".into()
}

fn messages() -> String {
    "messages".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;

    fn with(change: &str) -> String {
        let mut job = serde_json::json!({
            "job_id": "j", "base": {"path": "b"}, "dataset": {"train": "t"}, "output_dir": "o",
        });
        let change: Value = serde_json::from_str(change).expect("the change is JSON");
        for (key, value) in change.as_object().expect("the change is an object") {
            job[key] = value.clone();
        }
        job.to_string()
    }

    #[test]
    fn a_job_is_refused_by_name() {
        let check = |change: &str, expected: &str| {
            let failure = Job::parse(&with(change)).expect_err(change);
            assert_eq!(failure.class, Class::Job, "{change}");
            assert!(failure.to_string().contains(expected), "{change}: {failure}");
        };
        assert!(Job::parse(&with("{}")).is_ok());
        check(r#"{"lora": {"use_dora": true}}"#, "DoRA");
        check(r#"{"lora": {"use_rslora": true}}"#, "rsLoRA");
        check(r#"{"lora": {"dropout": 0.1}}"#, "dropout");
        check(r#"{"lora": {"r": 0}}"#, "lora.r");
        check(r#"{"lora": {"target_modules": ["lm_head"]}}"#, "lm_head");
        check(r#"{"base": {"path": "b", "hf_id": "x/y"}}"#, "hf_id");
        check(r#"{"base": {}}"#, "base.path");
        check(r#"{"quant": "nf4"}"#, "quant");
        check(r#"{"merge": true}"#, "merge");
        check(r#"{"offline": false}"#, "offline");
        check(r#"{"threads": 0}"#, "threads");
        check(r#"{"v": 2}"#, "`v`");
        check(r#"{"colour": 1}"#, "colour");
        check(r#"{"train": {"lr": 0}}"#, "lr");
        check(r#"{"train": {"max_steps": 0}}"#, "max_steps");
        check(r#"{"train": {"precision": "fp16"}}"#, "fp16");
        check(r#"{"train": {"save_every": 0}}"#, "save_every");
        check(r#"{"method": "full"}"#, "full");
        check(r#"{"dataset": {"train": "t", "format": "alpaca"}}"#, "format");
    }

    #[test]
    fn steps_come_from_epochs_or_a_number() {
        let steps = |change: &str| Job::parse(&with(change)).expect("it is a job").steps(10);
        assert_eq!(steps("{}"), 3);
        assert_eq!(steps(r#"{"train": {"epochs": 2}}"#), 5);
        assert_eq!(steps(r#"{"train": {"max_steps": 7, "epochs": 2}}"#), 7);
    }
}
