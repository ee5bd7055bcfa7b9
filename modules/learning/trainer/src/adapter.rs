//! Adapters on the disk: in the form of PEFT, and as GGUF for llama.cpp.

use std::{
    collections::{BTreeMap, HashMap},
    io::Cursor,
    path::{Path, PathBuf},
};

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};

use crate::{
    base::{self, NAMES, order_of_halves, order_of_pairs},
    failure::{Failure, Result},
    files,
    job::{Job, Lora, PROJECTIONS},
    model::{Adapter, Architecture, Shape, Tensors, projection_name},
    random::Random,
};

/// Name that PEFT puts before those of transformers.
pub(crate) const PREFIX: &str = "base_model.model.";

/// Paths and digests of an adapter.
#[derive(Debug)]
pub struct Saved {
    /// Folder of the adapter in PEFT's form.
    pub folder: PathBuf,
    /// Digest of `adapter_model.safetensors`.
    pub sha256: String,
    /// The adapter as GGUF.
    pub gguf: PathBuf,
    /// Digest of the GGUF file.
    pub gguf_sha256: String,
}

/// Creates the matrices of a new adapter: `lora_A` of random numbers, `lora_B` of zeros.
///
/// # Errors
///
/// When there is no memory for it.
pub fn create(shape: &Shape, lora: &Lora, seed: u64) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    let mut random = Random::new(seed ^ 0x10_AA);
    for (layer, index) in places(shape, lora) {
        let (out, inner) = shape.projection(index);
        let name = projection_name(layer, index);
        let bound = (inner as f64).powf(-0.5);
        let values: Vec<f32> =
            (0..lora.r * inner).map(|_| ((random.unit() * 2.0 - 1.0) * bound) as f32).collect();
        let a = Tensor::from_vec(values, (lora.r, inner), &Device::Cpu)?;
        tensors.insert(format!("{name}.lora_A"), a);
        let b = Tensor::zeros((out, lora.r), DType::F32, &Device::Cpu)?;
        tensors.insert(format!("{name}.lora_B"), b);
    }
    Ok(tensors)
}

/// Returns the number of parameters of an adapter.
#[must_use]
pub fn trainable(shape: &Shape, lora: &Lora) -> u64 {
    let size = |(_, index): (usize, usize)| {
        let (out, inner) = shape.projection(index);
        (lora.r * (out + inner)) as u64
    };
    places(shape, lora).map(size).sum()
}

/// Returns the layers and projections that get an adapter.
fn places(shape: &Shape, lora: &Lora) -> impl Iterator<Item = (usize, usize)> {
    let chosen: Vec<usize> = (0..PROJECTIONS.len())
        .filter(|index| lora.target_modules.iter().any(|it| it == PROJECTIONS[*index]))
        .collect();
    (0..shape.layers).flat_map(move |layer| {
        let chosen = chosen.clone();
        chosen.into_iter().map(move |index| (layer, index))
    })
}

/// Writes an adapter in both forms.
///
/// # Errors
///
/// When a file cannot be written.
pub fn save(job: &Job, shape: &Shape, base: &str, tensors: &Tensors) -> Result<Saved> {
    let folder = job.output_dir.clone();
    let weights = folder.join("adapter_model.safetensors");
    files::write(&weights, &peft_weights(tensors)?)?;
    let config = serde_json::to_vec_pretty(&peft_config(job, base))
        .map_err(|error| Failure::other(format!("the adapter's configuration: {error}")))?;
    files::write(&folder.join("adapter_config.json"), &config)?;
    let gguf = job.output_dir.join("adapter.gguf");
    let places = places(shape, &job.lora);
    files::write(&gguf, &gguf_bytes(shape, f64::from(job.lora.alpha), places, tensors)?)?;
    Ok(Saved {
        sha256: base::digest_file(&weights)?,
        gguf_sha256: base::digest_file(&gguf)?,
        folder,
        gguf,
    })
}

fn peft_config(job: &Job, base: &str) -> Value {
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": job.base.path,
        "base_model_sha256": base,
        "revision": job.base.revision,
        "r": job.lora.r,
        "lora_alpha": job.lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": job.lora.target_modules,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "layers_to_transform": null,
        "use_dora": false,
        "use_rslora": false,
    })
}

/// Returns matrices as a file of safetensors that transformers reads.
pub(crate) fn safetensors_bytes(tensors: &Tensors) -> Result<Vec<u8>> {
    let mut parts = BTreeMap::new();
    for (name, tensor) in tensors {
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        parts.insert(name, (tensor.dims().to_vec(), files::bytes_of(&values)));
    }
    let failed = |error: safetensors::SafeTensorError| {
        Failure::other(format!("weights cannot be written: {error}"))
    };
    let mut views = Vec::with_capacity(parts.len());
    for (name, (sizes, bytes)) in &parts {
        views.push((name, TensorView::new(Dtype::F32, sizes.clone(), bytes).map_err(failed)?));
    }
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize(views, Some(format)).map_err(failed)
}

fn peft_weights(tensors: &Tensors) -> Result<Vec<u8>> {
    let renamed = tensors.iter().map(|(name, it)| (format!("{PREFIX}{name}.weight"), it.clone()));
    safetensors_bytes(&renamed.collect())
}

/// Returns an adapter of these layers and projections as a GGUF file.
pub(crate) fn gguf_bytes(
    shape: &Shape,
    alpha: f64,
    places: impl Iterator<Item = (usize, usize)>,
    tensors: &Tensors,
) -> Result<Vec<u8>> {
    use gguf_file::Value as Meta;
    let mut named = Vec::with_capacity(tensors.len());
    for (layer, index) in places {
        let name = projection_name(layer, index);
        let get = |part: &str| {
            let tensor = tensors.get(&format!("{name}.{part}"));
            tensor.ok_or_else(|| Failure::other(format!("the adapter lacks {name}.{part}")))
        };
        let (a, mut b) = (get("lora_A")?.clone(), get("lora_B")?.clone());
        if shape.architecture == Architecture::Llama && index < 2 {
            let order = order_of_pairs(b.dim(0)?, shape.head);
            b = b.index_select(&Tensor::new(order, &Device::Cpu)?, 0)?;
        }
        for (part, tensor) in [("lora_a", a), ("lora_b", b)] {
            let blocks = QTensor::quantize(&tensor, GgmlDType::F32)?;
            named.push((format!("blk.{layer}.{}.weight.{part}", NAMES[index]), blocks));
        }
    }
    let metadata = [
        ("general.type", Meta::String("adapter".into())),
        ("general.architecture", Meta::String(shape.architecture.name().into())),
        ("general.name", Meta::String("adapter".into())),
        ("adapter.type", Meta::String("lora".into())),
        ("adapter.lora.alpha", Meta::F32(alpha as f32)),
    ];
    let metadata: Vec<(&str, &Meta)> = metadata.iter().map(|(key, it)| (*key, it)).collect();
    let named: Vec<(&str, &QTensor)> = named.iter().map(|(key, it)| (key.as_str(), it)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &named)?;
    Ok(file.into_inner())
}

/// Reads an adapter in PEFT's form.
///
/// # Errors
///
/// When it is missing or broken, or was trained for another base.
pub fn load(folder: &Path, shape: &Shape, base: &str) -> Result<Adapter> {
    let config = base::read_json(&folder.join("adapter_config.json"))?;
    if config["base_model_sha256"].as_str().is_some_and(|it| it != base) {
        return Err(Failure::job("the adapter was trained for another base; train it anew"));
    }
    let number = |key: &str| config[key].as_f64().filter(|it| *it >= 1.0);
    let (Some(r), Some(alpha)) = (number("r"), number("lora_alpha")) else {
        return Err(Failure::job("adapter_config.json lacks `r` or `lora_alpha`"));
    };
    let path = folder.join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).map_err(|error| Failure::file("read", &path, &error))?;
    let broken = || Failure::job(format!("{} is broken or for another base", path.display()));
    let file = SafeTensors::deserialize(&bytes).map_err(|_| broken())?;
    let mut tensors = Tensors::new();
    for layer in 0..shape.layers {
        for index in 0..PROJECTIONS.len() {
            let (out, inner) = shape.projection(index);
            for (part, sizes) in [("lora_A", [r as usize, inner]), ("lora_B", [out, r as usize])] {
                let name = format!("{}.{part}", projection_name(layer, index));
                let Ok(view) = file.tensor(&format!("{PREFIX}{name}.weight")) else { continue };
                if view.shape() != sizes || view.dtype() != Dtype::F32 {
                    return Err(broken());
                }
                let values = files::numbers_of(view.data());
                tensors.insert(name, Tensor::from_vec(values, &sizes, &Device::Cpu)?);
            }
        }
    }
    if tensors.len() != file.len() {
        return Err(broken());
    }
    Ok(Adapter { scale: alpha / r, tensors })
}

/// Reads an adapter in llama.cpp's form.
///
/// # Errors
///
/// When it is broken, has parts that are not computed here, or its sizes are not those of the base.
pub fn from_gguf(bytes: &[u8], shape: &Shape) -> Result<Adapter> {
    let broken = || Failure::job("the adapter is broken, or for another base");
    let mut file = Cursor::new(bytes);
    let content = gguf_file::Content::read(&mut file).map_err(|_| broken())?;
    let text = |key: &str| content.metadata.get(key).and_then(|it| it.to_string().ok());
    if text("general.architecture").map(String::as_str) != Some(shape.architecture.name()) {
        return Err(Failure::job("the adapter is for a base of another architecture"));
    }
    let alpha = content.metadata.get("adapter.lora.alpha").and_then(|it| it.to_f32().ok());
    let mut tensors = Tensors::new();
    let mut scale = None;
    for (layer, index) in
        (0..shape.layers).flat_map(|layer| (0..NAMES.len()).map(move |index| (layer, index)))
    {
        let of_gguf = |part: &str| format!("blk.{layer}.{}.weight.{part}", NAMES[index]);
        let [a, b] = ["lora_a", "lora_b"].map(of_gguf);
        if !content.tensor_infos.contains_key(&a) {
            continue;
        }
        let mut read = |name: &str| {
            let blocks = content.tensor(&mut file, name, &Device::Cpu).map_err(|_| broken())?;
            Ok::<_, Failure>(blocks.dequantize(&Device::Cpu)?.to_dtype(DType::F32)?)
        };
        let (a, mut b) = (read(&a)?, read(&b)?);
        let (out, inner) = shape.projection(index);
        let r = a.dim(0)?;
        if r == 0 || a.dims() != [r, inner] || b.dims() != [out, r] {
            return Err(broken());
        }
        if shape.architecture == Architecture::Llama && index < 2 {
            let order = order_of_halves(out, shape.head).into_iter().map(|it| it as u32);
            b = b.index_select(&Tensor::new(order.collect::<Vec<_>>(), &Device::Cpu)?, 0)?;
        }
        // One factor for all: an adapter whose ranks differ has it in its matrices.
        let of_this = f64::from(alpha.filter(|it| *it > 0.0).unwrap_or(r as f32)) / r as f64;
        let first = *scale.get_or_insert(of_this);
        if first != of_this {
            b = (b * (of_this / first))?;
        }
        let name = projection_name(layer, index);
        tensors.insert(format!("{name}.lora_A"), a);
        tensors.insert(format!("{name}.lora_B"), b);
    }
    if tensors.is_empty() || tensors.len() != content.tensor_infos.len() {
        return Err(Failure::job(
            "the adapter changes parts of the base beside its projections, which is not computed \
             here; serve it with llama-server or Ollama",
        ));
    }
    Ok(Adapter { scale: scale.unwrap_or(1.0), tensors })
}
