//! A look at a base: its kind, its digest, and the cost of training it.

use std::path::Path;

use serde_json::json;

use crate::{
    adapter, base::Base, events::Events, examples::Example, failure::Result, job::Lora,
    model::Adapter, predict,
};

/// Length of the example that is tried, in tokens.
const TRIED: usize = 128;

/// Lengths for which memory and time are told.
const LENGTHS: [usize; 3] = [256, 512, 1024];

/// Opens a base and tells about it.
///
/// # Errors
///
/// When it cannot be trained.
pub fn run(path: &Path, events: &mut Events<'_>) -> Result<()> {
    let base = Base::open(path)?;
    let (shape, lora) = (&base.model.shape, Lora::default());
    let scale = f64::from(lora.alpha) / lora.r as f64;
    let adapter = Adapter { scale, tensors: adapter::create(shape, &lora, 0)? };
    let ids: Vec<u32> = (0..TRIED).map(|it| (it % shape.vocabulary) as u32).collect();
    let example = Example { ids, prompt: TRIED / 2, weight: 1.0, answer: String::new() };
    let each = predict::seconds_a_token(&base, &adapter, &example)?;
    let costs: Vec<_> = LENGTHS
        .iter()
        .map(|length| {
            json!({
                "tokens": length, "example_s": each * *length as f64,
                "mb": predict::memory_mb(&base, &lora, 1, *length, length / 2),
            })
        })
        .collect();
    events.tell(
        "base",
        json!({
            "architecture": shape.architecture.name(), "sha256": base.sha256,
            "kinds": base.kinds, "parameters": base.parameters,
            "method": if base.is_quantised { "qlora" } else { "lora" },
            "layers": shape.layers, "hidden": shape.hidden, "vocabulary": shape.vocabulary,
            "r": lora.r, "trainable": adapter::trainable(shape, &lora), "costs": costs,
        }),
    )
}
