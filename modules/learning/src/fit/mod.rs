//! The memory that a run needs, told before it begins.
//!
//! The trainers in Python keep all weights of the base in the memory of one card, or of the
//! machine. What comes on top is the adapter with its gradients and moments, what each layer is
//! computed again from, and above all the logits: one number for each token of the vocabulary at
//! each place of the text. The factors are fitted to runs on a card that were measured (see the
//! test); a machine without one computes in 32 bits.

mod machine;

use std::{fs, io::Read as _, path::Path};

use serde::Serialize;
use serde_json::Value;

pub(crate) use machine::{Memory, memory};

use crate::run::{Job, Method, Strategy};

/// Error of a base that trainers in Python cannot use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BaseError {
    /// A base that is a file.
    #[error(
        "{strategy} needs a base that is a folder with config.json and model.safetensors; a GGUF \
         file is for the trainer embedded"
    )]
    NoFolder {
        /// Name of the trainer.
        strategy: &'static str,
    },
    /// A base without sizes.
    #[error("config.json of the base is missing, or has no sizes of a model")]
    NoSizes,
    /// A base whose adapters cannot be converted.
    #[error(
        "the architecture {0} has no adapter for llama.cpp here; use a Llama, Qwen2 or Qwen3 base"
    )]
    Architecture(String),
}

/// Sizes of a base, as far as its memory depends on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    hidden: u64,
    layers: u64,
    queries: u64,
    keys: u64,
    inner: u64,
    vocabulary: u64,
    is_tied: bool,
}

/// A place in which a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// A graphics card.
    Card,
    /// The processor, in the memory of the machine.
    Machine,
}

/// Bytes of a logit in the run: the number, its copy in 32 bits, and the gradients of both.
const LOGIT: f64 = 11.0;
/// The same where all is computed in 32 bits.
const LOGIT_OF_32: f64 = 16.0;
/// Bytes of a weight in blocks of four bits, with their scales.
const NF4: f64 = 0.5625;
/// Megabytes that the allocator of a card keeps beyond what is used, by method.
const KEPT: [(Method, f64); 2] = [(Method::Lora, 350.0), (Method::Qlora, 550.0)];
/// Megabytes of a process with torch and its libraries.
const PROGRAM: f64 = 1_100.0;
/// Ratio of the values that the machine keeps to those that are counted here.
const BESIDES: f64 = 1.15;

impl Sizes {
    /// Reads the sizes of a base that is a folder.
    ///
    /// # Errors
    ///
    /// When it is none, or of an architecture that has no adapter for llama.cpp.
    pub fn read(base: &Path, strategy: Strategy) -> Result<Self, BaseError> {
        if !base.is_dir() {
            return Err(BaseError::NoFolder { strategy: strategy.as_str() });
        }
        let text = read(&base.join("config.json")).ok_or(BaseError::NoSizes)?;
        let config: Value = serde_json::from_slice(&text).map_err(|_| BaseError::NoSizes)?;
        let kind = config["model_type"].as_str().unwrap_or("without a name");
        if !["llama", "qwen2", "qwen3"].contains(&kind) {
            return Err(BaseError::Architecture(crate::commands::plain(kind, 40)));
        }
        Self::of(&config).ok_or(BaseError::NoSizes)
    }

    fn of(config: &Value) -> Option<Self> {
        // No model has a size beyond, and products of two stay far from the end of numbers.
        let size = |key: &str| config[key].as_u64().filter(|it| (1..1 << 24).contains(it));
        let (hidden, heads) = (size("hidden_size")?, size("num_attention_heads")?);
        let head = size("head_dim").unwrap_or(hidden / heads);
        Some(Self {
            hidden,
            layers: size("num_hidden_layers")?,
            queries: heads * head,
            keys: size("num_key_value_heads").unwrap_or(heads) * head,
            inner: size("intermediate_size")?,
            vocabulary: size("vocab_size")?,
            is_tied: config["tie_word_embeddings"].as_bool().unwrap_or(false),
        })
    }

    /// Returns the number of weights in the layers.
    fn in_layers(&self) -> f64 {
        let (hidden, queries, keys) = (self.hidden as f64, self.queries as f64, self.keys as f64);
        let attention = 2.0 * hidden * queries + 2.0 * hidden * keys;
        self.layers as f64 * (attention + 3.0 * hidden * self.inner as f64)
    }

    /// Returns the number of weights of the tokens, at both ends.
    fn of_tokens(&self) -> f64 {
        let ends = if self.is_tied { 1.0 } else { 2.0 };
        ends * self.vocabulary as f64 * self.hidden as f64
    }

    /// Returns the number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        (self.in_layers() + self.of_tokens()) as u64
    }

    /// Returns the number of weights of an adapter of a rank on all projections.
    fn trainable(&self, rank: f64) -> f64 {
        let (hidden, queries, keys) = (self.hidden as f64, self.queries as f64, self.keys as f64);
        let inner = self.inner as f64;
        let sides = 2.0 * (hidden + queries) + 2.0 * (hidden + keys) + 3.0 * (hidden + inner);
        self.layers as f64 * rank * sides
    }
}

/// Work whose memory is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Method of training.
    pub method: Method,
    /// Length of the longest example, in tokens.
    pub tokens: u64,
    /// Number of examples that are computed at once.
    pub batch: u64,
    /// Rank of the adapter.
    pub rank: u64,
}

impl Work {
    /// Returns the work of a job.
    #[must_use]
    pub fn of(job: &Job, strategy: Strategy) -> Self {
        let at_once = if strategy.computes_one_by_one() { 1 } else { job.train.batch_size };
        Self {
            method: job.method,
            tokens: u64::from(job.train.max_length),
            batch: u64::from(at_once),
            rank: u64::from(job.lora.r),
        }
    }
}

/// Returns the memory that work on a base needs, in MB.
#[must_use]
pub fn needed_mb(sizes: &Sizes, work: &Work, device: Device) -> u64 {
    let places = work.tokens as f64 * work.batch as f64;
    let (in_layers, of_tokens) = match (device, work.method) {
        (Device::Card, Method::Lora) => (2.0, 2.0),
        (Device::Card, Method::Qlora) => (NF4, 2.0),
        (Device::Machine, _) => (4.0, 4.0),
    };
    let weights = sizes.in_layers() * in_layers + sizes.of_tokens() * of_tokens;
    // The adapter, its gradients and two moments, in 32 bits.
    let adapter = sizes.trainable(work.rank as f64) * 16.0;
    let width = if device == Device::Card { 2.0 } else { 4.0 };
    let hidden = places * sizes.hidden as f64;
    let logit = if device == Device::Card { LOGIT } else { LOGIT_OF_32 };
    let logits = places * sizes.vocabulary as f64 * logit;
    let (inputs, beyond) = match device {
        // The input of each layer; the rest is computed again.
        Device::Card => {
            let kept = KEPT.iter().find(|(method, _)| *method == work.method);
            (sizes.layers as f64 * hidden * width, kept.map_or(0.0, |(_, mb)| *mb))
        }
        // All values within the layers are kept.
        Device::Machine => {
            let within = 8.0 * hidden + places * (4.0 * sizes.inner as f64);
            let attention = (sizes.queries / 64).max(1) as f64 * places * work.tokens as f64;
            let kept = sizes.layers as f64 * (within + attention) * width;
            (kept * BESIDES, PROGRAM + logits * (BESIDES - 1.0) / 1e6)
        }
    };
    ((weights + adapter + inputs + logits) / 1e6 + beyond).ceil() as u64
}

/// Lengths for which a table of what fits has columns.
pub const LENGTHS: [u64; 4] = [256, 512, 1_024, 2_048];

/// Judgement of a run: what it needs beside what there is.
#[derive(Debug, Clone, Serialize)]
pub struct Fit {
    /// Number of weights of the base.
    pub parameters: u64,
    /// Place in which it computes.
    pub device: Device,
    /// Name of the card.
    pub card: Option<String>,
    /// Method of training.
    pub method: Method,
    /// Length of the longest example, in tokens.
    pub tokens: u64,
    /// Number of examples that are computed at once.
    pub batch: u64,
    /// Memory that it needs, in MB.
    pub needed_mb: u64,
    /// Memory that it can have, in MB; none where that is not known.
    pub usable_mb: Option<u64>,
    /// Memory that the card has, or that is free in the machine, in MB.
    pub total_mb: Option<u64>,
    /// `false` when it is known not to fit.
    pub fits: bool,
    /// Changes with which it would fit.
    pub remedies: Vec<String>,
}

impl Fit {
    /// Judges work on a base.
    pub(crate) fn of(sizes: &Sizes, work: &Work, memory: &Memory) -> Self {
        let device = memory.device();
        let needed_mb = needed_mb(sizes, work, device);
        let usable_mb = memory.usable_mb();
        let has_room = |needed: u64| usable_mb.is_none_or(|usable| needed <= usable);
        let fits = has_room(needed_mb);
        let remedies = if fits { Vec::new() } else { remedies(sizes, work, device, has_room) };
        Self {
            parameters: sizes.parameters(),
            device,
            card: memory.card().map(str::to_owned),
            method: work.method,
            tokens: work.tokens,
            batch: work.batch,
            needed_mb,
            usable_mb,
            total_mb: memory.total_mb(),
            fits,
            remedies,
        }
    }

    /// Returns the judgement in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let method = if self.method == Method::Lora { "LoRA" } else { "QLoRA" };
        let size = gigas(self.parameters as f64 / 1e9);
        let needs = gigas(self.needed_mb as f64 / 1e3);
        let at = if self.batch > 1 { format!(", {} at once", self.batch) } else { String::new() };
        let begin = format!(
            "{size}B {method} at {} tokens{at} needs about {needs} GB",
            module_sdk::human::count(self.tokens)
        );
        let total = self.total_mb.map(|it| gigas(it as f64 / 1e3));
        match (self.device, total) {
            (Device::Card, Some(total)) => format!("{begin}; this card has {total} GB"),
            (Device::Card, None) => format!("{begin}; the memory of the card is not known"),
            (Device::Machine, Some(free)) => format!("{begin}; this machine has {free} GB free"),
            (Device::Machine, None) => format!("{begin}; the free memory is not known"),
        }
    }
}

/// Reads a small regular file; none where it is another one, which could be without an end.
fn read(path: &Path) -> Option<Vec<u8>> {
    /// Largest configuration of a base, in bytes.
    const MOST: u64 = 1 << 20;
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(MOST + 1).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= MOST).then_some(text)
}

/// Returns what to change so that a run fits.
fn remedies(
    sizes: &Sizes,
    work: &Work,
    device: Device,
    has_room: impl Fn(u64) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    let fits = |work: &Work| has_room(needed_mb(sizes, work, device));
    let shorter = LENGTHS.iter().rev().copied().filter(|it| *it < work.tokens);
    let longest =
        |work: Work| shorter.clone().find(|tokens| fits(&Work { tokens: *tokens, ..work }));
    if let Some(tokens) = longest(*work) {
        found.push(format!("--max-length {tokens}"));
    }
    if work.method == Method::Lora && device == Device::Card {
        let quantised = Work { method: Method::Qlora, ..*work };
        if fits(&quantised) {
            found.push("--method qlora".to_owned());
        } else if let Some(tokens) = longest(quantised) {
            found.push(format!("--method qlora --max-length {tokens}"));
        }
    }
    found.push("a smaller base".to_owned());
    found
}

/// Returns a number with one digit after the point where it is small.
fn gigas(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests;
