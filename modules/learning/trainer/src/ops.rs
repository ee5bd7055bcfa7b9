//! The operations of a layer, each with its derivative written by hand.
//!
//! No graph is recorded: fast forward operations of candle lose gradients silently in a graph, and
//! a graph computes gradients of frozen weights. Here a derivative is a function, and the tests
//! hold each against finite differences.

use candle_core::{D, DType, Device, Result, Tensor};

/// Returns `x` scaled to a mean square of 1 along its last dimension, times `weight`.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    x.broadcast_mul(&inverse_rms(x, eps)?)?.broadcast_mul(weight)
}

/// Returns the derivatives of [`rms_norm`] for `x` and for the weight.
pub(crate) fn rms_norm_back(
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    dy: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let inverse = inverse_rms(x, eps)?;
    let normal = x.broadcast_mul(&inverse)?;
    let dnormal = dy.broadcast_mul(weight)?;
    let along = (&dnormal * &normal)?.mean_keepdim(D::Minus1)?;
    let dx = (dnormal - normal.broadcast_mul(&along)?)?.broadcast_mul(&inverse)?;
    let width = x.dim(D::Minus1)?;
    let dweight = (dy * normal)?.reshape(((), width))?.sum(0)?;
    Ok((dx, dweight))
}

fn inverse_rms(x: &Tensor, eps: f64) -> Result<Tensor> {
    (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()
}

/// Cosines and sines of the positions of a text.
#[derive(Debug, Clone)]
pub(crate) struct Rope {
    cos: Tensor,
    sin: Tensor,
    back: Tensor,
}

impl Rope {
    /// Computes the angles of `length` positions from `first` on.
    pub(crate) fn new(
        head: usize,
        theta: f64,
        first: usize,
        length: usize,
        dtype: DType,
    ) -> Result<Self> {
        let half = head / 2;
        let mut angles = Vec::with_capacity(length * half);
        for position in first..first + length {
            for index in 0..half {
                let rate = theta.powf(-2.0 * index as f64 / head as f64);
                angles.push(position as f64 * rate);
            }
        }
        let angles = Tensor::from_vec(angles, (length, half), &Device::Cpu)?;
        let (cos, sin) = (angles.cos()?.to_dtype(dtype)?, angles.sin()?.to_dtype(dtype)?);
        Ok(Self { cos, back: sin.neg()?, sin })
    }

    /// Turns heads (head, position, width) by the angles of their positions.
    pub(crate) fn turn(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::rotary_emb::rope(&x.unsqueeze(0)?.contiguous()?, &self.cos, &self.sin)?
            .squeeze(0)
    }

    /// Turns heads back: the derivative of [`Rope::turn`].
    pub(crate) fn turn_back(&self, dy: &Tensor) -> Result<Tensor> {
        candle_nn::rotary_emb::rope(&dy.unsqueeze(0)?.contiguous()?, &self.cos, &self.back)?
            .squeeze(0)
    }
}

/// Returns the mask that hides from each of `rows` positions those after it, of `columns` in all.
pub(crate) fn causal_mask(rows: usize, columns: usize, dtype: DType) -> Result<Tensor> {
    let past = columns - rows;
    let mut mask = vec![0_f32; rows * columns];
    for row in 0..rows {
        mask[row * columns + past + row + 1..(row + 1) * columns].fill(f32::NEG_INFINITY);
    }
    Tensor::from_vec(mask, (rows, columns), &Device::Cpu)?.to_dtype(dtype)
}

/// Returns the weights of attention: (key head, group × row, column).
///
/// Queries are (key head × group, row, width), keys (key head, column, width).
pub(crate) fn attention_weights(q: &Tensor, k: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (heads, rows, width) = q.dims3()?;
    let (key_heads, columns, _) = k.dims3()?;
    let group = heads / key_heads;
    let grouped = q.contiguous()?.reshape((key_heads, group * rows, width))?;
    let scores = (grouped.matmul(&k.t()?)? * (width as f64).powf(-0.5))?;
    let scores = scores.reshape((key_heads, group, rows, columns))?.broadcast_add(mask)?;
    let weights = candle_nn::ops::softmax_last_dim(&scores.contiguous()?)?;
    weights.reshape((key_heads, group * rows, columns))
}

/// Returns the derivatives of attention for queries, keys and values.
pub(crate) fn attention_back(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    weights: &Tensor,
    dcontext: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (heads, rows, width) = q.dims3()?;
    let key_heads = k.dim(0)?;
    let grouped = (key_heads, heads / key_heads * rows, width);
    let dcontext = dcontext.contiguous()?.reshape(grouped)?;
    let dv = weights.t()?.contiguous()?.matmul(&dcontext)?;
    let dweights = dcontext.matmul(&v.t()?)?;
    let along = (&dweights * weights)?.sum_keepdim(D::Minus1)?;
    let dscores = (dweights.broadcast_sub(&along)? * weights)?;
    let dscores = (dscores * (width as f64).powf(-0.5))?;
    let dq = dscores.matmul(k)?.reshape((heads, rows, width))?;
    let dk = dscores.t()?.contiguous()?.matmul(&q.contiguous()?.reshape(grouped)?)?;
    Ok((dq, dk, dv))
}

/// Returns `silu(gate) * up`.
pub(crate) fn gated(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

/// Returns the derivatives of [`gated`] for the gate and for the other factor.
pub(crate) fn gated_back(gate: &Tensor, up: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    let sigmoid = candle_nn::ops::sigmoid(gate)?;
    let silu = (gate * &sigmoid)?;
    let slope = (&sigmoid + (&silu * sigmoid.affine(-1.0, 1.0)?)?)?;
    let dgate = ((dy * up)? * slope)?;
    Ok((dgate, (dy * silu)?))
}

/// Returns the sum of the losses of rows of logits, the derivative of that sum times `weight`, and
/// the number of rows whose greatest logit is the target.
pub(crate) fn cross_entropy(
    logits: &Tensor,
    targets: &[u32],
    weight: f64,
) -> Result<(f64, Tensor, usize)> {
    let (rows, width) = logits.dims2()?;
    let dtype = logits.dtype();
    let shares = candle_nn::ops::softmax_last_dim(logits)?;
    let index = Tensor::from_slice(targets, (rows, 1), &Device::Cpu)?;
    let likely = shares.gather(&index, 1)?.to_dtype(DType::F64)?.flatten_all()?;
    // Softmax in 32 bits may give an exact 0, whose logarithm is no number.
    let loss: f64 = likely.to_vec1::<f64>()?.iter().map(|it| -it.max(1e-38).ln()).sum();
    let best = logits.argmax(1)?.to_vec1::<u32>()?;
    let hits = best.iter().zip(targets).filter(|(a, b)| a == b).count();
    let minus = Tensor::full(-1.0_f64, (rows, 1), &Device::Cpu)?.to_dtype(dtype)?;
    let dlogits = shares.reshape((rows, width))?.scatter_add(&index, &minus, 1)?;
    Ok((loss, (dlogits * weight)?, hits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn noise(shape: &[usize], seed: u64) -> Tensor {
        let mut random = Random::new(seed);
        let count = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|_| random.normal()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("the shape fits")
    }

    fn total(y: &Tensor, dy: &Tensor) -> f64 {
        (y * dy).and_then(|it| it.sum_all()?.to_scalar()).expect("the shapes are equal")
    }

    /// Checks a derivative against differences of `f` in every element of `x`.
    fn check(name: &str, x: &Tensor, dx: &Tensor, f: &dyn Fn(&Tensor) -> f64) {
        let values: Vec<f64> =
            x.flatten_all().expect("it is computed").to_vec1().expect("it is computed");
        let slopes: Vec<f64> =
            dx.flatten_all().expect("it is computed").to_vec1().expect("it is computed");
        for index in 0..values.len() {
            let at = |step: f64| {
                let mut moved = values.clone();
                moved[index] += step;
                f(&Tensor::from_vec(moved, x.shape(), &Device::Cpu).expect("it is computed"))
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            let error = (expected - slopes[index]).abs() / expected.abs().max(1.0);
            assert!(error < 1e-7, "{name}[{index}]: {} is not {expected}", slopes[index]);
        }
    }

    #[test]
    fn norm_has_its_derivatives() {
        let (x, w, dy) = (noise(&[3, 4], 1), noise(&[4], 2), noise(&[3, 4], 3));
        let (dx, dw) = rms_norm_back(&x, &w, 1e-5, &dy).expect("it is computed");
        check("x", &x, &dx, &|x| total(&rms_norm(x, &w, 1e-5).expect("it is computed"), &dy));
        check("w", &w, &dw, &|w| total(&rms_norm(&x, w, 1e-5).expect("it is computed"), &dy));
    }

    #[test]
    fn turning_has_its_derivative() {
        let rope = Rope::new(4, 1e4, 2, 3, DType::F64).expect("it is computed");
        let (x, dy) = (noise(&[2, 3, 4], 1), noise(&[2, 3, 4], 2));
        let dx = rope.turn_back(&dy).expect("it is computed");
        check("rope", &x, &dx, &|x| total(&rope.turn(x).expect("it is computed"), &dy));
    }

    #[test]
    fn attention_has_its_derivatives() {
        let mask = causal_mask(3, 3, DType::F64).expect("it is computed");
        let (q, k, v) = (noise(&[4, 3, 2], 1), noise(&[2, 3, 2], 2), noise(&[2, 3, 2], 3));
        let dy = noise(&[2, 6, 2], 4);
        let run = |q: &Tensor, k: &Tensor, v: &Tensor| {
            total(
                &attention_weights(q, k, &mask)
                    .expect("it is computed")
                    .matmul(v)
                    .expect("it is computed"),
                &dy,
            )
        };
        let weights = attention_weights(&q, &k, &mask).expect("it is computed");
        let (dq, dk, dv) = attention_back((&q, &k, &v), &weights, &dy).expect("it is computed");
        check("q", &q, &dq, &|q| run(q, &k, &v));
        check("k", &k, &dk, &|k| run(&q, k, &v));
        check("v", &v, &dv, &|v| run(&q, &k, v));
    }

    #[test]
    fn gate_and_loss_have_their_derivatives() {
        let (g, u, dy) = (noise(&[2, 3], 1), noise(&[2, 3], 2), noise(&[2, 3], 3));
        let (dg, du) = gated_back(&g, &u, &dy).expect("it is computed");
        check("gate", &g, &dg, &|g| total(&gated(g, &u).expect("it is computed"), &dy));
        check("up", &u, &du, &|u| total(&gated(&g, u).expect("it is computed"), &dy));
        let logits = noise(&[3, 5], 4);
        let (_, dlogits, _) = cross_entropy(&logits, &[4, 0, 2], 0.5).expect("it is computed");
        let loss = |x: &Tensor| cross_entropy(x, &[4, 0, 2], 0.5).expect("it is computed").0 * 0.5;
        check("loss", &logits, &dlogits, &loss);
    }

    #[test]
    fn a_mask_lets_the_past_through() {
        let mask = causal_mask(2, 4, DType::F64)
            .expect("it is computed")
            .to_vec2::<f64>()
            .expect("it is computed");
        let open: Vec<usize> =
            mask.iter().map(|row| row.iter().filter(|it| **it == 0.0).count()).collect();
        assert_eq!(open, [3, 4]);
    }
}
