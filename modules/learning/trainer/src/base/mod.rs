//! Bases: models as they lie on the disk.

use std::{
    fmt::Write as _,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use candle_core::DType;
use sha2::{Digest as _, Sha256};

use crate::{
    chat::Chat,
    failure::{Failure, Result},
    model::{Model, Shape, Weight},
};

mod folder;
mod gguf;

pub(crate) use folder::read_json;
pub(crate) use gguf::{NAMES, order_of_halves, order_of_pairs};

/// A base: a model, its texts' tokens and form, and its digest.
pub struct Base {
    /// The model.
    pub model: Model,
    /// Tokenizer and chat template.
    pub chat: Chat,
    /// Digest of all files that it is made of.
    pub sha256: String,
    /// `true` for a GGUF file with quantised blocks.
    pub is_quantised: bool,
    /// Kinds of the numbers of its matrices, for people.
    pub kinds: String,
    /// Number of its parameters.
    pub parameters: u64,
    /// Bytes that its weights take in memory.
    pub bytes: u64,
    /// Most tokens of a text that it was made for, where it says so.
    pub context: Option<usize>,
}

impl Base {
    /// Opens a base for computing in 32 bits.
    ///
    /// # Errors
    ///
    /// When it is missing, broken, or of a kind that cannot be trained, which is named.
    pub fn open(path: &Path) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(|error| Failure::file("read", path, &error))?;
        match kind.is_dir() {
            true => folder::open(path),
            false if kind.is_file() => gguf::open(path),
            false => Err(neither(path)),
        }
    }

    /// Checks that the base is the one that a job was made for.
    ///
    /// # Errors
    ///
    /// When the digests differ.
    pub fn expect(&self, sha256: Option<&str>) -> Result<()> {
        match sha256 {
            Some(expected) if !expected.eq_ignore_ascii_case(&self.sha256) => {
                Err(Failure::job(format!(
                    "the base has the digest {} and the job names another; it was changed: \
                     make the job anew",
                    self.sha256
                )))
            }
            _ => Ok(()),
        }
    }

    fn new(model: Model, chat: Chat, sha256: String, is_quantised: bool) -> Result<Self> {
        let tokens = chat.tokens();
        if tokens > model.shape.vocabulary {
            return Err(Failure::job(format!(
                "the tokenizer has {tokens} tokens and the model rows for {}; the base is not \
                 whole",
                model.shape.vocabulary
            )));
        }
        let mut weights = vec![&model.embedding];
        weights.extend(&model.head);
        weights
            .extend(model.layers.iter().flat_map(|it| it.projections.iter().map(|it| &it.weight)));
        let mut kinds: Vec<String> = weights.iter().map(|it| it.kind()).collect();
        kinds.sort();
        kinds.dedup();
        let parameters = weights.iter().map(|it| it.parameters()).sum();
        let bytes = weights.iter().map(|it| it.bytes()).sum();
        let kinds = kinds.join(", ");
        Ok(Self { model, chat, sha256, is_quantised, kinds, parameters, bytes, context: None })
    }
}

/// Reads the sizes of a base, which may be one that is not trained here.
///
/// # Errors
///
/// When it is missing or broken, or of another architecture.
pub fn sizes(path: &Path) -> Result<Shape> {
    let kind = std::fs::metadata(path).map_err(|error| Failure::file("read", path, &error))?;
    match kind.is_dir() {
        true => folder::sizes_of(&read_json(&path.join("config.json"))?),
        false if kind.is_file() => gguf::sizes(path),
        false => Err(neither(path)),
    }
}

/// Returns the refusal of what is read without an end.
fn neither(path: &Path) -> Failure {
    Failure::job(format!("{} is neither a folder nor a file", path.display()))
}

impl Weight {
    fn kind(&self) -> String {
        match self {
            Self::Plain(tensor) => format!("{:?}", tensor.dtype()),
            Self::Blocks(blocks) => format!("{:?}", blocks.dtype()),
        }
    }

    fn parameters(&self) -> u64 {
        match self {
            Self::Plain(tensor) => tensor.elem_count() as u64,
            Self::Blocks(blocks) => blocks.shape().elem_count() as u64,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Plain(it) => (it.elem_count() * it.dtype().size_in_bytes()) as u64,
            Self::Blocks(blocks) => blocks.storage_size_in_bytes() as u64,
        }
    }
}

/// Checks that the sizes of a shape can be computed with.
fn check_shape(shape: &Shape) -> Result<()> {
    let sizes = [
        shape.hidden,
        shape.layers,
        shape.heads,
        shape.key_heads,
        shape.head,
        shape.inner,
        shape.vocabulary,
    ];
    let is_sound = sizes.iter().all(|it| (1..=1 << 20).contains(it))
        && shape.heads.is_multiple_of(shape.key_heads.max(1))
        && shape.head.is_multiple_of(2)
        && shape.eps > 0.0
        && shape.theta > 1.0;
    if !is_sound {
        return Err(Failure::job("the sizes in the base's configuration do not fit together"));
    }
    Ok(())
}

/// Checks the sizes of a matrix.
fn check_sizes(name: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Failure::job(format!(
        "{name} of the base has the sizes {found:?} and should have {expected:?}; it is not whole"
    )))
}

/// Returns the refusal of an architecture.
fn unknown_architecture(name: &str) -> Failure {
    Failure::job(format!(
        "the architecture {} is not trained here; use a Llama, Qwen2 or Qwen3 base, or the \
         strategy `trl`",
        crate::job::shown(name)
    ))
}

/// Returns the refusal of scaled positions.
fn scaled_positions() -> Failure {
    Failure::job(
        "rope_scaling of the base is not computed here; use a base without it, or the strategy \
         `trl`",
    )
}

/// Returns the refusal of a mixture of experts.
fn mixture() -> Failure {
    Failure::job(
        "a mixture of experts (MoE) is not trained here; use a dense base, or the strategy `trl`",
    )
}

/// Returns the digest of a file.
///
/// # Errors
///
/// When it cannot be read.
pub fn digest_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|error| Failure::file("read", path, &error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer).map_err(|error| Failure::file("read", path, &error))?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

/// Returns the digest of files: of the lines `name digest` in the order of their names.
fn digest_files(folder: &Path, mut names: Vec<PathBuf>) -> Result<String> {
    names.sort();
    let mut hash = Sha256::new();
    for name in names {
        let digest = digest_file(&folder.join(&name))?;
        hash.update(format!("{} {digest}\n", name.display()));
    }
    Ok(hex(&hash.finalize()))
}

/// Returns the digest of bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Returns bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all text");
        text
    })
}

/// Kind of numbers that adapters are trained in.
pub(crate) const COMPUTED: DType = DType::F32;

#[cfg(test)]
mod tests;
