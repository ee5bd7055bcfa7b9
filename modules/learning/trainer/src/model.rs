//! The model: a stack of layers with frozen weights, an adapter beside some of them, and the
//! gradients of the adapter (or, while a tiny base is made, of all weights).

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Device, Result, Tensor, quantized::QTensor};

use crate::{
    job::PROJECTIONS,
    ops::{self, Rope},
};

/// Number of rows whose logits are computed at once.
const ROWS: usize = 128;

/// An architecture that can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama, and what has its form.
    Llama,
    /// Qwen2: with biases of queries, keys and values.
    Qwen2,
    /// Qwen3: with norms of queries and keys.
    Qwen3,
}

impl Architecture {
    /// Returns the name that configurations and GGUF files use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// Sizes of a model.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Its architecture.
    pub architecture: Architecture,
    /// Width of a token between the layers.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of heads of queries.
    pub heads: usize,
    /// Number of heads of keys and values.
    pub key_heads: usize,
    /// Width of a head.
    pub head: usize,
    /// Width within the feed-forward part.
    pub inner: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Addend of the norms.
    pub eps: f64,
    /// Base of the angles.
    pub theta: f64,
}

impl Shape {
    /// Returns the sizes (out, in) of a projection, by its place in [`PROJECTIONS`].
    #[must_use]
    pub const fn projection(&self, index: usize) -> (usize, usize) {
        let (q, kv) = (self.heads * self.head, self.key_heads * self.head);
        match index {
            0 => (q, self.hidden),
            1 | 2 => (kv, self.hidden),
            3 => (self.hidden, q),
            6 => (self.hidden, self.inner),
            _ => (self.inner, self.hidden),
        }
    }
}

/// A frozen matrix, kept as it was stored.
#[derive(Clone)]
pub enum Weight {
    /// Numbers of 16, 32 or 64 bits.
    Plain(Tensor),
    /// Blocks of a GGUF file, made plain whenever they are used.
    Blocks(Arc<QTensor>),
}

impl Weight {
    /// Returns the matrix as plain numbers.
    pub(crate) fn plain(&self, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Plain(tensor) => tensor.to_dtype(dtype),
            Self::Blocks(blocks) => blocks.dequantize(&Device::Cpu)?.to_dtype(dtype),
        }
    }

    fn rows(&self, ids: &Tensor, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Plain(tensor) => tensor.index_select(ids, 0)?.to_dtype(dtype),
            Self::Blocks(blocks) => blocks.embedding(ids)?.to_dtype(dtype),
        }
    }
}

/// A projection: a matrix and perhaps a bias.
#[derive(Clone)]
pub struct Linear {
    /// Matrix (out, in).
    pub weight: Weight,
    /// Addend (out).
    pub bias: Option<Tensor>,
}

/// A layer.
#[derive(Clone)]
pub struct Layer {
    /// Weight of the norm before attention.
    pub norm: Tensor,
    /// Weight of the norm before the feed-forward part.
    pub inner_norm: Tensor,
    /// Weights of the norms of queries and keys.
    pub head_norms: Option<(Tensor, Tensor)>,
    /// Projections, in the order of [`PROJECTIONS`].
    pub projections: [Linear; 7],
}

/// A model.
#[derive(Clone)]
pub struct Model {
    /// Its sizes.
    pub shape: Shape,
    /// Rows of the tokens.
    pub embedding: Weight,
    /// Layers from the first to the last.
    pub layers: Vec<Layer>,
    /// Weight of the last norm.
    pub norm: Tensor,
    /// Rows of the tokens at the exit, where they are not those of the entry.
    pub head: Option<Weight>,
    /// Kind of numbers that is computed with.
    pub dtype: DType,
}

/// Matrices by their names.
pub type Tensors = BTreeMap<String, Tensor>;

/// An adapter: `lora_A` (rank, in) and `lora_B` (out, rank) of some projections, by their names.
#[derive(Debug, Clone, Default)]
pub struct Adapter {
    /// Factor of its effect.
    pub scale: f64,
    /// Its matrices.
    pub tensors: Tensors,
}

/// Returns the name of a projection as checkpoints of transformers have it.
#[must_use]
pub fn projection_name(layer: usize, index: usize) -> String {
    let part = if index < 4 { "self_attn" } else { "mlp" };
    format!("model.layers.{layer}.{part}.{}", PROJECTIONS[index])
}

/// A set of parameters whose gradients are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those of the adapter.
    Adapter,
    /// All weights, which must be plain.
    All,
}

/// Loss of an example, with its gradients.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Sum of the losses of its learnt tokens.
    pub loss: f64,
    /// Number of learnt tokens that were the likeliest.
    pub hits: usize,
    /// Gradients by the names of the parameters.
    pub gradients: Tensors,
}

/// Keys and values of the tokens so far, for each layer.
#[derive(Debug, Default)]
pub struct Past {
    layers: Vec<(Tensor, Tensor)>,
    length: usize,
}

/// Values of a layer that its derivative needs.
struct Kept {
    normed: Tensor,
    raw: Option<(Tensor, Tensor)>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor,
    context: Tensor,
    middle: Tensor,
    inner_normed: Tensor,
    gate: Tensor,
    up: Tensor,
    gated: Tensor,
    out: Tensor,
}

/// One pass over one text.
pub(crate) struct Pass<'a> {
    model: &'a Model,
    adapter: Option<&'a Adapter>,
    wanted: Wanted,
    gradients: Tensors,
}

impl Model {
    /// Computes the loss of the tokens at `targets` (position and token that should follow), and,
    /// when `weight` is given, the gradients of the loss times `weight`.
    ///
    /// # Errors
    ///
    /// When a computation fails.
    pub fn learn(
        &self,
        adapter: Option<&Adapter>,
        ids: &[u32],
        targets: &[(u32, u32)],
        gradient: Option<(Wanted, f64)>,
    ) -> Result<Outcome> {
        let wanted = gradient.map_or(Wanted::Adapter, |(wanted, _)| wanted);
        let mut pass = Pass { model: self, adapter, wanted, gradients: Tensors::new() };
        let tokens = Tensor::new(ids, &Device::Cpu)?;
        let rope = self.rope(0, ids.len())?;
        let mask = ops::causal_mask(ids.len(), ids.len(), self.dtype)?;
        let mut inputs = Vec::with_capacity(self.layers.len());
        let mut x = self.embedding.rows(&tokens, self.dtype)?;
        for index in 0..self.layers.len() {
            let out = pass.layer(index, &x, &rope, &mask, None)?.out;
            inputs.push(std::mem::replace(&mut x, out));
        }
        let (loss, hits, dx) = pass.head(&x, targets, gradient.map(|(_, weight)| weight))?;
        if let Some(mut dx) = dx {
            for (index, input) in inputs.into_iter().enumerate().rev() {
                let kept = pass.layer(index, &input, &rope, &mask, None)?;
                dx = pass.layer_back(index, &input, &rope, &kept, dx)?;
            }
            if wanted == Wanted::All {
                let zero = Tensor::zeros(
                    (self.shape.vocabulary, self.shape.hidden),
                    self.dtype,
                    &Device::Cpu,
                )?;
                pass.add("model.embed_tokens.weight", zero.index_add(&tokens, &dx, 0)?)?;
            }
        }
        Ok(Outcome { loss, hits, gradients: pass.gradients })
    }

    /// Returns the logits after the last of these tokens, which follow those of `past`.
    ///
    /// # Errors
    ///
    /// When a computation fails.
    pub fn next(&self, adapter: Option<&Adapter>, ids: &[u32], past: &mut Past) -> Result<Tensor> {
        let mut pass =
            Pass { model: self, adapter, wanted: Wanted::Adapter, gradients: Tensors::new() };
        let tokens = Tensor::new(ids, &Device::Cpu)?;
        let rope = self.rope(past.length, ids.len())?;
        let mask = ops::causal_mask(ids.len(), past.length + ids.len(), self.dtype)?;
        let mut x = self.embedding.rows(&tokens, self.dtype)?;
        for index in 0..self.layers.len() {
            let kept = pass.layer(index, &x, &rope, &mask, past.layers.get(index))?;
            match past.layers.get_mut(index) {
                Some(old) => *old = (kept.k, kept.v),
                None => past.layers.push((kept.k, kept.v)),
            }
            x = kept.out;
        }
        past.length += ids.len();
        let last = x.narrow(0, ids.len() - 1, 1)?;
        let normed = ops::rms_norm(&last, &self.norm, self.shape.eps)?;
        let head = self.head.as_ref().unwrap_or(&self.embedding).plain(self.dtype)?;
        normed.matmul(&head.t()?)?.squeeze(0)
    }

    fn rope(&self, first: usize, length: usize) -> Result<Rope> {
        Rope::new(self.shape.head, self.shape.theta, first, length, self.dtype)
    }
}

impl Pass<'_> {
    fn layer(
        &mut self,
        index: usize,
        x: &Tensor,
        rope: &Rope,
        mask: &Tensor,
        past: Option<&(Tensor, Tensor)>,
    ) -> Result<Kept> {
        let (layer, shape) = (&self.model.layers[index], &self.model.shape);
        let normed = ops::rms_norm(x, &layer.norm, shape.eps)?;
        let mut q = split(&self.project(index, 0, &normed)?, shape.head)?;
        let mut k = split(&self.project(index, 1, &normed)?, shape.head)?;
        let mut v = split(&self.project(index, 2, &normed)?, shape.head)?;
        let mut raw = None;
        if let Some((of_queries, of_keys)) = &layer.head_norms {
            let turned = ops::rms_norm(&q, of_queries, shape.eps)?;
            let keys = ops::rms_norm(&k, of_keys, shape.eps)?;
            raw = Some((std::mem::replace(&mut q, turned), std::mem::replace(&mut k, keys)));
        }
        q = rope.turn(&q)?;
        k = rope.turn(&k)?;
        if let Some((keys, values)) = past {
            k = Tensor::cat(&[keys, &k], 1)?;
            v = Tensor::cat(&[values, &v], 1)?;
        }
        let weights = ops::attention_weights(&q, &k, mask)?;
        let context = weights.matmul(&v)?;
        let rows = x.dim(0)?;
        let context = join(&context.reshape((shape.heads, rows, shape.head))?)?;
        let middle = (x + self.project(index, 3, &context)?)?;
        let inner_normed = ops::rms_norm(&middle, &layer.inner_norm, shape.eps)?;
        let gate = self.project(index, 4, &inner_normed)?;
        let up = self.project(index, 5, &inner_normed)?;
        let gated = ops::gated(&gate, &up)?;
        let out = (&middle + self.project(index, 6, &gated)?)?;
        #[rustfmt::skip]
        let kept = Kept {
            normed, raw, q, k, v, weights, context, middle, inner_normed, gate, up, gated, out,
        };
        Ok(kept)
    }

    fn layer_back(
        &mut self,
        index: usize,
        x: &Tensor,
        rope: &Rope,
        kept: &Kept,
        dy: Tensor,
    ) -> Result<Tensor> {
        let (layer, shape) = (&self.model.layers[index], &self.model.shape);
        let dgated = self.project_back(index, 6, &kept.gated, &dy)?;
        let (dgate, dup) = ops::gated_back(&kept.gate, &kept.up, &dgated)?;
        let dinner = (self.project_back(index, 4, &kept.inner_normed, &dgate)?
            + self.project_back(index, 5, &kept.inner_normed, &dup)?)?;
        let (dmiddle, dweight) =
            ops::rms_norm_back(&kept.middle, &layer.inner_norm, shape.eps, &dinner)?;
        self.add_norm(&format!("model.layers.{index}.post_attention_layernorm"), dweight)?;
        let dmiddle = (dy + dmiddle)?;
        let dcontext = self.project_back(index, 3, &kept.context, &dmiddle)?;
        let dcontext = split(&dcontext, shape.head)?;
        let (dq, dk, dv) =
            ops::attention_back((&kept.q, &kept.k, &kept.v), &kept.weights, &dcontext)?;
        let (mut dq, mut dk) = (rope.turn_back(&dq)?, rope.turn_back(&dk)?);
        if let (Some((of_queries, of_keys)), Some((q, k))) = (&layer.head_norms, &kept.raw) {
            let name = format!("model.layers.{index}.self_attn");
            let (queries, dweight) = ops::rms_norm_back(q, of_queries, shape.eps, &dq)?;
            self.add_norm(&format!("{name}.q_norm"), dweight)?;
            let (keys, dweight) = ops::rms_norm_back(k, of_keys, shape.eps, &dk)?;
            self.add_norm(&format!("{name}.k_norm"), dweight)?;
            (dq, dk) = (queries, keys);
        }
        let mut dnormed = self.project_back(index, 0, &kept.normed, &join(&dq)?)?;
        dnormed = (dnormed + self.project_back(index, 1, &kept.normed, &join(&dk)?)?)?;
        dnormed = (dnormed + self.project_back(index, 2, &kept.normed, &join(&dv)?)?)?;
        let (dx, dweight) = ops::rms_norm_back(x, &layer.norm, shape.eps, &dnormed)?;
        self.add_norm(&format!("model.layers.{index}.input_layernorm"), dweight)?;
        dmiddle + dx
    }

    fn project(&self, layer: usize, index: usize, x: &Tensor) -> Result<Tensor> {
        let linear = &self.model.layers[layer].projections[index];
        let mut y = x.matmul(&linear.weight.plain(self.model.dtype)?.t()?)?;
        if let Some(bias) = &linear.bias {
            y = y.broadcast_add(bias)?;
        }
        if let Some((adapter, a, b)) = self.adapted(&projection_name(layer, index)) {
            let delta = x.matmul(&a.t()?)?.matmul(&b.t()?)?;
            y = (y + (delta * adapter.scale)?)?;
        }
        Ok(y)
    }

    fn project_back(
        &mut self,
        layer: usize,
        index: usize,
        x: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let linear = &self.model.layers[layer].projections[index];
        let name = projection_name(layer, index);
        let mut dx = dy.matmul(&linear.weight.plain(self.model.dtype)?)?;
        if let Some((adapter, a, b)) = self.adapted(&name) {
            let scaled = (dy * adapter.scale)?;
            let inner = scaled.matmul(b)?;
            dx = (dx + inner.matmul(a)?)?;
            let of_a = inner.t()?.matmul(x)?;
            let of_b = scaled.t()?.matmul(&x.matmul(&a.t()?)?)?;
            self.add(&format!("{name}.lora_A"), of_a)?;
            self.add(&format!("{name}.lora_B"), of_b)?;
        }
        if self.wanted == Wanted::All {
            self.add(&format!("{name}.weight"), dy.t()?.matmul(x)?)?;
            if linear.bias.is_some() {
                self.add(&format!("{name}.bias"), dy.sum(0)?)?;
            }
        }
        Ok(dx)
    }

    fn head(
        &mut self,
        x: &Tensor,
        targets: &[(u32, u32)],
        weight: Option<f64>,
    ) -> Result<(f64, usize, Option<Tensor>)> {
        let model = self.model;
        let matrix = model.head.as_ref().unwrap_or(&model.embedding).plain(model.dtype)?;
        let mut dx = match weight {
            Some(_) => Some(x.zeros_like()?),
            None => None,
        };
        let (mut loss, mut hits) = (0.0, 0);
        for part in targets.chunks(ROWS) {
            let rows: Vec<u32> = part.iter().map(|(row, _)| *row).collect();
            let tokens: Vec<u32> = part.iter().map(|(_, token)| *token).collect();
            let rows = Tensor::new(rows, &Device::Cpu)?;
            let chosen = x.index_select(&rows, 0)?;
            let normed = ops::rms_norm(&chosen, &model.norm, model.shape.eps)?;
            let logits = normed.matmul(&matrix.t()?)?;
            let (lost, dlogits, hit) =
                ops::cross_entropy(&logits, &tokens, weight.unwrap_or_default())?;
            loss += lost;
            hits += hit;
            if let Some(so_far) = dx.take() {
                let dnormed = dlogits.matmul(&matrix)?;
                if self.wanted == Wanted::All {
                    let tied = model.head.is_none();
                    let name = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
                    self.add(name, dlogits.t()?.matmul(&normed)?)?;
                }
                let (dchosen, dweight) =
                    ops::rms_norm_back(&chosen, &model.norm, model.shape.eps, &dnormed)?;
                self.add_norm("model.norm", dweight)?;
                dx = Some(so_far.index_add(&rows, &dchosen, 0)?);
            }
        }
        Ok((loss, hits, dx))
    }

    fn adapted(&self, name: &str) -> Option<(&Adapter, &Tensor, &Tensor)> {
        let adapter = self.adapter?;
        let a = adapter.tensors.get(&format!("{name}.lora_A"))?;
        Some((adapter, a, adapter.tensors.get(&format!("{name}.lora_B"))?))
    }

    fn add_norm(&mut self, name: &str, gradient: Tensor) -> Result<()> {
        if self.wanted == Wanted::All {
            self.add(&format!("{name}.weight"), gradient)?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str, gradient: Tensor) -> Result<()> {
        let sum = match self.gradients.remove(name) {
            Some(old) => (old + gradient)?,
            None => gradient,
        };
        self.gradients.insert(name.to_owned(), sum);
        Ok(())
    }
}

/// Splits rows (position, head × width) into heads (head, position, width).
fn split(x: &Tensor, width: usize) -> Result<Tensor> {
    let (rows, all) = x.dims2()?;
    x.reshape((rows, all / width, width))?.transpose(0, 1)?.contiguous()
}

/// Joins heads (head, position, width) into rows (position, head × width).
fn join(x: &Tensor) -> Result<Tensor> {
    let (heads, rows, width) = x.dims3()?;
    x.transpose(0, 1)?.contiguous()?.reshape((rows, heads * width))
}

mod likeliest;

#[cfg(test)]
mod tests;
