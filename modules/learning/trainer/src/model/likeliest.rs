//! The likeliest tokens of a text that is given, all at once.

use candle_core::{Device, Result, Tensor};

use super::{Adapter, Model, Pass, ROWS, Tensors, Wanted};
use crate::ops;

impl Model {
    /// Returns the likeliest token after each of these tokens, from a place on.
    ///
    /// # Errors
    ///
    /// When a computation fails.
    pub fn likeliest(
        &self,
        adapter: Option<&Adapter>,
        ids: &[u32],
        first: usize,
    ) -> Result<Vec<u32>> {
        let wanted = Wanted::Adapter;
        let mut pass = Pass { model: self, adapter, wanted, gradients: Tensors::new() };
        let tokens = Tensor::new(ids, &Device::Cpu)?;
        let rope = self.rope(0, ids.len())?;
        let mask = ops::causal_mask(ids.len(), ids.len(), self.dtype)?;
        let mut x = self.embedding.rows(&tokens, self.dtype)?;
        for index in 0..self.layers.len() {
            x = pass.layer(index, &x, &rope, &mask, None)?.out;
        }
        let matrix = self.head.as_ref().unwrap_or(&self.embedding).plain(self.dtype)?;
        let mut found = Vec::with_capacity(ids.len().saturating_sub(first));
        for start in (first..ids.len()).step_by(ROWS) {
            let rows = x.narrow(0, start, ROWS.min(ids.len() - start))?;
            let normed = ops::rms_norm(&rows, &self.norm, self.shape.eps)?;
            found.extend(normed.matmul(&matrix.t()?)?.argmax(1)?.to_vec1::<u32>()?);
        }
        Ok(found)
    }
}
