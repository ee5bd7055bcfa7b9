//! Adapters that another trainer wrote in PEFT's form, for llama.cpp.

use std::{collections::BTreeSet, path::Path};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

use crate::{
    adapter::{PREFIX, gguf_bytes},
    base::{self, read_json},
    events::Events,
    failure::{Failure, Result},
    files,
    job::{PROJECTIONS, shown},
    model::{Shape, Tensors, projection_name},
};

/// Converts an adapter and tells about it.
///
/// # Errors
///
/// When the adapter is missing, broken, of another base, or of a kind that llama.cpp does not know.
pub fn run(folder: &Path, base: &Path, out: &Path, events: &mut Events<'_>) -> Result<()> {
    let tensors = file(folder, base, out)?;
    events.tell("saved", json!({"gguf": out, "gguf_sha256": base::digest_file(out)?}))?;
    events.tell("done", json!({"tensors": tensors}))
}

/// Converts an adapter, and returns the number of its matrices.
///
/// # Errors
///
/// As [`run`].
pub fn file(folder: &Path, base: &Path, out: &Path) -> Result<usize> {
    let shape = base::sizes(base)?;
    let config = read_json(&folder.join("adapter_config.json"))?;
    let (rank, alpha) = rank_and_alpha(&config)?;
    let path = folder.join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).map_err(|error| Failure::file("read", &path, &error))?;
    let stored = SafeTensors::deserialize(&bytes)
        .map_err(|_| Failure::job(format!("{} is broken", path.display())))?;
    let (places, tensors) = matrices(&stored, &shape, rank)?;
    files::write(out, &gguf_bytes(&shape, alpha, places.into_iter(), &tensors)?)?;
    Ok(tensors.len())
}

/// Reads rank and scale, and refuses what a GGUF file cannot say.
fn rank_and_alpha(config: &Value) -> Result<(usize, f64)> {
    let is_set = |key: &str| match &config[key] {
        Value::Null | Value::Bool(false) => false,
        Value::Object(it) => !it.is_empty(),
        Value::Array(it) => !it.is_empty(),
        _ => true,
    };
    let kind = config["peft_type"].as_str().unwrap_or_default();
    if kind != "LORA" {
        return Err(Failure::job(format!("an adapter of the kind {} is no LoRA", shown(kind))));
    }
    for (key, what) in [
        ("use_dora", "DoRA"),
        ("use_rslora", "rsLoRA"),
        ("rank_pattern", "a rank of its own for some projections"),
        ("alpha_pattern", "a scale of its own for some projections"),
        ("modules_to_save", "a module that was trained as a whole"),
        ("fan_in_fan_out", "matrices that are turned"),
    ] {
        if is_set(key) {
            return Err(Failure::job(format!(
                "an adapter with {what} (`{key}`) cannot be converted; train it without"
            )));
        }
    }
    if config["bias"].as_str().is_some_and(|it| it != "none") {
        return Err(Failure::job("an adapter with biases cannot be converted; train it without"));
    }
    let rank = config["r"].as_u64().and_then(|it| usize::try_from(it).ok()).filter(|it| *it > 0);
    let alpha = config["lora_alpha"].as_f64().filter(|it| *it > 0.0);
    rank.zip(alpha).ok_or_else(|| Failure::job("adapter_config.json lacks `r` or `lora_alpha`"))
}

/// Reads the matrices of an adapter, with the layers and projections that they are of.
fn matrices(
    stored: &SafeTensors<'_>,
    shape: &Shape,
    rank: usize,
) -> Result<(BTreeSet<(usize, usize)>, Tensors)> {
    let (mut places, mut tensors) = (BTreeSet::new(), Tensors::new());
    for layer in 0..shape.layers {
        for index in 0..PROJECTIONS.len() {
            let (out, inner) = shape.projection(index);
            let name = projection_name(layer, index);
            for (part, sizes) in [("lora_A", [rank, inner]), ("lora_B", [out, rank])] {
                let name = format!("{name}.{part}");
                let Ok(view) = stored.tensor(&format!("{PREFIX}{name}.weight")) else { continue };
                places.insert((layer, index));
                tensors.insert(name.clone(), matrix(&name, &view, sizes)?);
            }
        }
    }
    if tensors.is_empty() {
        return Err(Failure::job("the adapter has no matrix of a projection of this base"));
    }
    if tensors.len() != stored.len() {
        return Err(Failure::job(format!(
            "the adapter has {} matrices, of which {} are of projections of this base; train \
             projections alone, on the same base",
            stored.len(),
            tensors.len()
        )));
    }
    Ok((places, tensors))
}

fn matrix(name: &str, view: &TensorView<'_>, sizes: [usize; 2]) -> Result<Tensor> {
    if view.shape() != sizes {
        return Err(Failure::job(format!(
            "{name} of the adapter has the sizes {:?} and should have {sizes:?}; it is of another \
             base",
            view.shape()
        )));
    }
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => {
            return Err(Failure::job(format!(
                "{name} of the adapter has numbers of kind {other:?}; F32, F16 and BF16 are read"
            )));
        }
    };
    let tensor = Tensor::from_raw_buffer(view.data(), dtype, &sizes, &Device::Cpu)?;
    Ok(tensor.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use candle_core::quantized::gguf_file::{self, Content};
    use safetensors::tensor::serialize;

    use super::*;
    use crate::{
        adapter,
        failure::Class,
        job::{Job, Lora},
        model::Architecture,
    };

    fn shape() -> Shape {
        Shape {
            architecture: Architecture::Llama,
            hidden: 8,
            layers: 2,
            heads: 2,
            key_heads: 1,
            head: 4,
            inner: 12,
            vocabulary: 32,
            eps: 1e-5,
            theta: 1e4,
        }
    }

    /// Writes the configuration of a base, with positions that this trainer does not compute.
    fn write_base(folder: &Path, shape: &Shape) {
        let config = json!({
            "model_type": shape.architecture.name(), "hidden_size": shape.hidden,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_heads, "head_dim": shape.head,
            "intermediate_size": shape.inner, "vocab_size": shape.vocabulary,
            "rope_scaling": {"rope_type": "llama3", "factor": 32.0},
        });
        fs::write(folder.join("config.json"), config.to_string()).expect("it is written");
    }

    /// Writes an adapter by this trainer's own hand, which makes both forms.
    fn write_adapter(folder: &Path, shape: &Shape) -> Tensors {
        let job = json!({
            "job_id": "j", "base": {"path": "b"}, "dataset": {"train": "t"}, "output_dir": folder,
            "lora": {"r": 4, "alpha": 6, "target_modules": ["q_proj", "k_proj", "down_proj"]},
        });
        let job = Job::parse(&job.to_string()).expect("it is a job");
        let mut tensors = adapter::create(shape, &job.lora, 7).expect("there is memory");
        // The rows of `lora_B` are told apart, so that their order shows.
        for (name, tensor) in &mut tensors {
            if name.ends_with("lora_B") {
                let count = tensor.elem_count();
                let values: Vec<f32> = (0..count).map(|it| it as f32 / 4.0).collect();
                *tensor = Tensor::from_vec(values, tensor.dims(), &Device::Cpu).expect("it fits");
            }
        }
        adapter::save(&job, shape, "digest", &tensors).expect("it is written");
        tensors
    }

    #[test]
    fn it_is_the_same_file_that_this_trainer_writes_itself() {
        for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3] {
            let folder = tempfile::tempdir().expect("a folder");
            let shape = Shape { architecture, ..shape() };
            write_base(folder.path(), &shape);
            write_adapter(folder.path(), &shape);
            let out = folder.path().join("again.gguf");
            let count = file(folder.path(), folder.path(), &out).expect("it is converted");
            assert_eq!(count, 2 * 3 * 2);
            let read = |name: &str| fs::read(folder.path().join(name)).expect("it is read");
            assert_eq!(read("again.gguf"), read("adapter.gguf"), "{architecture:?}");
        }
    }

    #[test]
    fn rows_of_a_llama_are_put_into_llama_cpps_order() {
        let folder = tempfile::tempdir().expect("a folder");
        write_base(folder.path(), &shape());
        write_adapter(folder.path(), &shape());
        let out = folder.path().join("a.gguf");
        file(folder.path(), folder.path(), &out).expect("it is converted");
        let mut opened = fs::File::open(&out).expect("it is there");
        let content = Content::read(&mut opened).expect("it is GGUF");
        let mut rows = |name: &str| {
            let tensor = content.tensor(&mut opened, name, &Device::Cpu).expect("it is there");
            let tensor = tensor.dequantize(&Device::Cpu).expect("it is plain");
            let rows: Vec<Vec<f32>> = tensor.to_vec2().expect("it has rows");
            rows.into_iter().map(|row| row[0]).collect::<Vec<f32>>()
        };
        // A head has four rows: the two halves are interleaved. Those of the last projection stay.
        let moved = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        assert_eq!(rows("blk.0.attn_q.weight.lora_b"), moved);
        assert_eq!(rows("blk.1.attn_k.weight.lora_b"), moved[..4]);
        let kept: Vec<f32> = (0..8_u8).map(f32::from).collect();
        assert_eq!(rows("blk.1.ffn_down.weight.lora_b"), kept);
        let alpha = &content.metadata["adapter.lora.alpha"];
        assert!(matches!(alpha, gguf_file::Value::F32(it) if *it == 6.0));
    }

    #[test]
    fn numbers_of_sixteen_bits_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let shape = Shape { architecture: Architecture::Qwen3, ..shape() };
        write_base(folder.path(), &shape);
        let tensors = write_adapter(folder.path(), &shape);
        for (dtype, kind) in [(DType::F16, Dtype::F16), (DType::BF16, Dtype::BF16)] {
            let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
                .iter()
                .map(|(name, tensor)| {
                    let values = tensor.flatten_all().and_then(|it| it.to_vec1::<f32>());
                    let values = values.expect("they are numbers").into_iter();
                    let halves = values.map(|it| match dtype {
                        DType::F16 => half_bits(it),
                        _ => (it.to_bits() >> 16) as u16,
                    });
                    let bytes = halves.flat_map(u16::to_le_bytes).collect();
                    (format!("{PREFIX}{name}.weight"), tensor.dims().to_vec(), bytes)
                })
                .collect();
            let views = bytes.iter().map(|(name, sizes, bytes)| {
                (name, TensorView::new(kind, sizes.clone(), bytes).expect("it fits"))
            });
            let bytes = serialize(views, None).expect("it is written");
            fs::write(folder.path().join("adapter_model.safetensors"), bytes).expect("written");
            let out = folder.path().join("a.gguf");
            file(folder.path(), folder.path(), &out).expect("it is converted");
            let mut opened = fs::File::open(&out).expect("it is there");
            let content = Content::read(&mut opened).expect("it is GGUF");
            let name = "blk.0.ffn_down.weight.lora_b";
            let tensor = content.tensor(&mut opened, name, &Device::Cpu).expect("it is there");
            let tensor = tensor.dequantize(&Device::Cpu).expect("it is plain");
            let row: Vec<Vec<f32>> = tensor.to_vec2().expect("it has rows");
            assert_eq!(row[1], [1.0, 1.25, 1.5, 1.75], "{dtype:?}");
        }
    }

    /// Returns the bits of a small number as one of sixteen bits, which it has without loss.
    fn half_bits(value: f32) -> u16 {
        let bits = value.to_bits();
        if value == 0.0 {
            return 0;
        }
        let exponent = ((bits >> 23) & 0xff) as i32 - 127 + 15;
        let sign = (bits >> 16) & 0x8000;
        match u32::try_from(exponent) {
            Ok(exponent) if exponent > 0 => (sign | exponent << 10 | ((bits >> 13) & 0x3ff)) as u16,
            _ => sign as u16,
        }
    }

    #[test]
    fn what_cannot_be_converted_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        write_base(folder.path(), &shape());
        write_adapter(folder.path(), &shape());
        let path = folder.path().join("adapter_config.json");
        let config = read_json(&path).expect("it is JSON");
        let out = folder.path().join("a.gguf");
        let refused = |words: &str| {
            let failure = file(folder.path(), folder.path(), &out).expect_err(words);
            assert_eq!(failure.class, Class::Job, "{words}");
            assert!(failure.to_string().contains(words), "{words}: {failure}");
        };
        for (key, value, words) in [
            ("peft_type", json!("IA3"), "IA3"),
            ("use_dora", json!(true), "DoRA"),
            ("use_rslora", json!(true), "rsLoRA"),
            ("bias", json!("all"), "biases"),
            ("modules_to_save", json!(["lm_head"]), "as a whole"),
            ("rank_pattern", json!({"q_proj": 2}), "rank_pattern"),
            ("r", json!(2), "sizes"),
            ("r", json!(0), "`r`"),
            ("lora_alpha", Value::Null, "lora_alpha"),
        ] {
            let mut changed = config.clone();
            changed[key] = value;
            fs::write(&path, changed.to_string()).expect("it is written");
            refused(words);
        }
        fs::write(&path, config.to_string()).expect("it is written");
        // A base of another size, and one with fewer layers.
        write_base(folder.path(), &Shape { hidden: 16, ..shape() });
        refused("another base");
        write_base(folder.path(), &Shape { layers: 1, ..shape() });
        refused("of which 6 are");
        write_base(folder.path(), &shape());
        fs::write(folder.path().join("adapter_model.safetensors"), "cut").expect("it is written");
        refused("broken");
        fs::remove_file(path).expect("it is there");
        let failure = file(folder.path(), folder.path(), &out).expect_err("it is gone");
        assert_eq!(failure.class, Class::Missing);
    }

    #[test]
    fn the_usual_projections_are_all_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        write_base(folder.path(), &shape());
        write_adapter(folder.path(), &shape());
        let lora = Lora { r: 4, ..Lora::default() };
        let tensors = adapter::create(&shape(), &lora, 1).expect("there is memory");
        let named = tensors.iter().map(|(name, it)| (format!("{PREFIX}{name}.weight"), it.clone()));
        let bytes = adapter::safetensors_bytes(&named.collect()).expect("they are numbers");
        fs::write(folder.path().join("adapter_model.safetensors"), bytes).expect("it is written");
        let count = file(folder.path(), folder.path(), &folder.path().join("a.gguf"));
        assert_eq!(count.expect("it is converted"), 2 * 7 * 2);
    }
}
