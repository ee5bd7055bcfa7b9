//! Bases in a GGUF file, with the names of llama.cpp.

mod head;

use std::{fs::File, io::BufReader, path::Path, sync::Arc};

use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QStorage, QTensor,
        gguf_file::{Content, Value},
    },
};

use super::{
    Base, COMPUTED, check_shape, check_sizes, digest_file, mixture, scaled_positions,
    unknown_architecture,
};
use crate::{
    chat::Chat,
    failure::{Failure, Result},
    model::{Architecture, Layer, Linear, Model, Shape, Weight},
};

/// Names of the projections in a GGUF file, in the order of a layer.
pub(crate) const NAMES: [&str; 7] =
    ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// Opens a base.
pub(super) fn open(path: &Path) -> Result<Base> {
    let broken =
        |error: candle_core::Error| Failure::job(format!("{} is broken: {error}", path.display()));
    let file = File::open(path).map_err(|error| Failure::file("read", path, &error))?;
    let mut file = BufReader::new(file);
    head::check(&mut file, path)?;
    let mut content = Content::read(&mut file).map_err(broken)?;
    let shape = shape_of(&content)?;
    let chat = Chat::from_gguf(&mut content)?;
    let mut source = Source { content, file, broken };
    let is_quantised = source
        .content
        .tensor_infos
        .values()
        .any(|it| !matches!(it.ggml_dtype, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16));
    let context = number(&source.content, &format!("{}.context_length", shape.architecture.name()));
    let model = build(shape, &mut source)?;
    Ok(Base { context, ..Base::new(model, chat, digest_file(path)?, is_quantised)? })
}

/// Returns a whole number of the metadata.
fn number(content: &Content, key: &str) -> Option<usize> {
    let value = match content.metadata.get(key)? {
        Value::U8(it) => u64::from(*it),
        Value::U16(it) => u64::from(*it),
        Value::U32(it) => u64::from(*it),
        Value::U64(it) => *it,
        Value::I32(it) => u64::try_from(*it).ok()?,
        Value::I64(it) => u64::try_from(*it).ok()?,
        _ => return None,
    };
    usize::try_from(value).ok()
}

/// Reads the sizes of a base in a file, whatever else it asks for.
pub(super) fn sizes(path: &Path) -> Result<Shape> {
    let file = File::open(path).map_err(|error| Failure::file("read", path, &error))?;
    let mut file = BufReader::new(file);
    head::check(&mut file, path)?;
    let content = Content::read(&mut file)
        .map_err(|error| Failure::job(format!("{} is broken: {error}", path.display())))?;
    sizes_of(&content)
}

/// Reads the sizes of a base, and refuses what is not computed here.
fn shape_of(content: &Content) -> Result<Shape> {
    let shape = sizes_of(content)?;
    let kind = shape.architecture.name();
    let scaling = content.metadata.get(&format!("{kind}.rope.scaling.type"));
    let scaling = scaling.and_then(|it| it.to_string().ok()).map_or("none", String::as_str);
    let turned = number(content, &format!("{kind}.rope.dimension_count"));
    if scaling != "none"
        || content.tensor_infos.contains_key("rope_freqs.weight")
        || turned.is_some_and(|it| it != shape.head)
    {
        return Err(scaled_positions());
    }
    Ok(shape)
}

fn sizes_of(content: &Content) -> Result<Shape> {
    let text = |key: &str| content.metadata.get(key).and_then(|it| it.to_string().ok());
    let kind = text("general.architecture").map_or("", String::as_str);
    let architecture = match kind {
        "llama" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        _ if kind.ends_with("moe") => return Err(mixture()),
        _ => return Err(unknown_architecture(kind)),
    };
    let key = |name: &str| format!("{kind}.{name}");
    if number(content, &key("expert_count")).unwrap_or(0) > 0 {
        return Err(mixture());
    }
    let size = |name: &str| {
        number(content, &key(name))
            .ok_or_else(|| Failure::job(format!("the base lacks `{}`; it is not whole", key(name))))
    };
    let real = |name: &str| {
        content.metadata.get(&key(name)).and_then(|it| it.to_f32().ok()).map(f64::from)
    };
    let (hidden, heads) = (size("embedding_length")?, size("attention.head_count")?);
    let embedding = content
        .tensor_infos
        .get("token_embd.weight")
        .ok_or_else(|| Failure::job("the base lacks token_embd.weight; it is not whole"))?;
    let head = size("attention.key_length").unwrap_or(hidden / heads.max(1));
    let shape = Shape {
        architecture,
        hidden,
        layers: size("block_count")?,
        heads,
        key_heads: size("attention.head_count_kv").unwrap_or(heads),
        head,
        inner: size("feed_forward_length")?,
        vocabulary: embedding.shape.dims().first().copied().unwrap_or_default(),
        eps: real("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        theta: real("rope.freq_base").unwrap_or(10_000.0),
    };
    check_shape(&shape)?;
    Ok(shape)
}

/// A GGUF file that is read matrix by matrix.
struct Source<F> {
    content: Content,
    file: BufReader<File>,
    broken: F,
}

impl<F: Fn(candle_core::Error) -> Failure> Source<F> {
    fn read(&mut self, name: &str, expected: &[usize]) -> Result<QTensor> {
        let info = self.content.tensor_infos.get(name);
        let info =
            info.ok_or_else(|| Failure::job(format!("the base lacks {name}; it is not whole")))?;
        check_sizes(name, info.shape.dims(), expected)?;
        self.content.tensor(&mut self.file, name, &Device::Cpu).map_err(&self.broken)
    }

    fn weight(&mut self, name: &str, expected: &[usize]) -> Result<Weight> {
        stored(self.read(name, expected)?)
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor> {
        Ok(self.read(name, &[length])?.dequantize(&Device::Cpu)?.to_dtype(COMPUTED)?)
    }
}

/// Keeps plain numbers plain: they need no work at each use.
fn stored(blocks: QTensor) -> Result<Weight> {
    Ok(match blocks.dtype() {
        GgmlDType::F32 => Weight::Plain(blocks.dequantize(&Device::Cpu)?),
        _ => Weight::Blocks(Arc::new(blocks)),
    })
}

fn build<F: Fn(candle_core::Error) -> Failure>(
    shape: Shape,
    source: &mut Source<F>,
) -> Result<Model> {
    let rows = [shape.vocabulary, shape.hidden];
    let embedding = source.weight("token_embd.weight", &rows)?;
    let has_head = source.content.tensor_infos.contains_key("output.weight");
    let head = if has_head { Some(source.weight("output.weight", &rows)?) } else { None };
    let mut layers = Vec::with_capacity(shape.layers);
    for index in 0..shape.layers {
        layers.push(layer(&shape, index, source)?);
    }
    let norm = source.vector("output_norm.weight", shape.hidden)?;
    Ok(Model { shape, embedding, layers, norm, head, dtype: COMPUTED })
}

fn layer<F: Fn(candle_core::Error) -> Failure>(
    shape: &Shape,
    index: usize,
    source: &mut Source<F>,
) -> Result<Layer> {
    let mut projections = Vec::with_capacity(7);
    for (part, name) in NAMES.iter().enumerate() {
        let (out, inner) = shape.projection(part);
        let mut blocks = source.read(&format!("blk.{index}.{name}.weight"), &[out, inner])?;
        if shape.architecture == Architecture::Llama && part < 2 {
            blocks = reorder(&blocks, &order_of_halves(out, shape.head))?;
        }
        let bias = match shape.architecture == Architecture::Qwen2 && part < 3 {
            true => Some(source.vector(&format!("blk.{index}.{name}.bias"), out)?),
            false => None,
        };
        projections.push(Linear { weight: stored(blocks)?, bias });
    }
    let head_norms = match shape.architecture {
        Architecture::Qwen3 => Some((
            source.vector(&format!("blk.{index}.attn_q_norm.weight"), shape.head)?,
            source.vector(&format!("blk.{index}.attn_k_norm.weight"), shape.head)?,
        )),
        Architecture::Llama | Architecture::Qwen2 => None,
    };
    Ok(Layer {
        norm: source.vector(&format!("blk.{index}.attn_norm.weight"), shape.hidden)?,
        inner_norm: source.vector(&format!("blk.{index}.ffn_norm.weight"), shape.hidden)?,
        head_norms,
        projections: projections.try_into().map_err(|_| Failure::other("seven were pushed"))?,
    })
}

/// Returns for each row of a matrix of queries or keys its row in a GGUF file of a Llama, where
/// the two halves of a head are interleaved.
pub(crate) fn order_of_halves(rows: usize, head: usize) -> Vec<usize> {
    let half = head / 2;
    (0..rows).map(|row| row / head * head + row % head % half * 2 + row % head / half).collect()
}

/// Returns for each row of a GGUF file of a Llama its row in a matrix of queries or keys.
pub(crate) fn order_of_pairs(rows: usize, head: usize) -> Vec<u32> {
    let half = head / 2;
    let place = |row: usize| row / head * head + row % head % 2 * half + row % head / 2;
    (0..rows).map(|row| place(row) as u32).collect()
}

/// Puts the rows of a matrix of blocks into an order: blocks never cross rows.
fn reorder(blocks: &QTensor, order: &[usize]) -> Result<QTensor> {
    let data = blocks.data()?;
    let width = data.len() / order.len();
    let mut moved = Vec::with_capacity(data.len());
    for row in order {
        moved.extend_from_slice(&data[row * width..(row + 1) * width]);
    }
    let storage = QStorage::from_data(moved.into(), &Device::Cpu, blocks.dtype())?;
    Ok(QTensor::new(storage, blocks.shape().clone())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_orders_undo_each_other() {
        let (there, back) = (order_of_halves(16, 8), order_of_pairs(16, 8));
        for row in 0..16 {
            assert_eq!(there[back[row] as usize], row);
        }
        assert_eq!(there[..8], [0, 2, 4, 6, 1, 3, 5, 7]);
    }
}
