//! Bases in a folder, in the form of transformers.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;

use super::{
    Base, COMPUTED, check_shape, check_sizes, digest_files, mixture, scaled_positions,
    unknown_architecture,
};
use crate::{
    chat::Chat,
    failure::{Failure, Result},
    model::{Architecture, Layer, Linear, Model, Shape, Weight, projection_name},
};

/// Greatest size of the header of a file of weights.
const MAX_HEADER: u64 = 64 << 20;

/// Greatest size of a file of JSON.
const MAX_JSON: u64 = 64 << 20;

/// Opens a base.
pub(super) fn open(folder: &Path) -> Result<Base> {
    let config = read_json(&folder.join("config.json"))?;
    let shape = shape_of(&config)?;
    let files = weight_files(folder)?;
    let mut store = Store::open(folder, &files)?;
    let chat = Chat::from_folder(folder)?;
    let model = build(shape, &config, &mut store)?;
    let mut parts = files;
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        if folder.join(name).is_file() {
            parts.push(name.into());
        }
    }
    let context = config["max_position_embeddings"].as_u64().and_then(|it| it.try_into().ok());
    Ok(Base { context, ..Base::new(model, chat, digest_files(folder, parts)?, false)? })
}

/// Reads a file of JSON.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let failed = |error: std::io::Error| Failure::file("read", path, &error);
    // A pipe would be waited for without an end, even before its first byte.
    let is_plain = std::fs::metadata(path).map_err(failed)?.is_file();
    let mut text = String::new();
    if is_plain {
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_JSON + 1).read_to_string(&mut text).map_err(failed)?;
    }
    if !is_plain || text.len() as u64 > MAX_JSON {
        return Err(Failure::job(format!("{} is no file, or too large", path.display())));
    }
    serde_json::from_str(&text)
        .map_err(|error| Failure::job(format!("{} is no JSON: {error}", path.display())))
}

/// Returns the architecture of a configuration.
fn architecture_of(config: &Value) -> Result<Architecture> {
    let kind = config["model_type"].as_str().unwrap_or_default();
    let architecture = match kind {
        "llama" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        _ if kind.contains("moe") || kind == "mixtral" => return Err(mixture()),
        _ => return Err(unknown_architecture(kind)),
    };
    if ["num_experts", "num_local_experts"].iter().any(|key| config[*key].as_u64() > Some(1)) {
        return Err(mixture());
    }
    Ok(architecture)
}

/// Reads the sizes of a configuration, and refuses what is not computed here.
fn shape_of(config: &Value) -> Result<Shape> {
    architecture_of(config)?;
    let parameters = &config["rope_parameters"];
    let scaling =
        if config["rope_scaling"].is_object() { &config["rope_scaling"] } else { parameters };
    let scale = scaling["rope_type"].as_str().or(scaling["type"].as_str()).unwrap_or("default");
    let is_partial = config["partial_rotary_factor"].as_f64().is_some_and(|it| it != 1.0);
    if scale != "default" || is_partial {
        return Err(scaled_positions());
    }
    let refused = [
        ("attention_bias", "biases of attention"),
        ("mlp_bias", "biases of the feed-forward part"),
        ("use_sliding_window", "a sliding window"),
    ];
    for (key, what) in refused {
        if config[key].as_bool() == Some(true) {
            return Err(Failure::job(format!(
                "{what} (`{key}`) of the base are not computed here; use the strategy `trl`"
            )));
        }
    }
    if config["quantization_config"].is_object() {
        return Err(Failure::job(
            "a folder with `quantization_config` is not read here; give a GGUF of the same model",
        ));
    }
    if config["hidden_act"].as_str().is_some_and(|it| it != "silu") {
        return Err(Failure::job(
            "`hidden_act` of the base must be `silu`; use the strategy `trl`",
        ));
    }
    sizes_of(config)
}

/// Reads the sizes of a configuration, whatever else the base asks for.
pub(super) fn sizes_of(config: &Value) -> Result<Shape> {
    let architecture = architecture_of(config)?;
    let parameters = &config["rope_parameters"];
    let size = |key: &str| {
        config[key].as_u64().and_then(|it| usize::try_from(it).ok()).ok_or_else(|| {
            Failure::job(format!("config.json lacks `{key}`; the base is not whole"))
        })
    };
    let (hidden, heads) = (size("hidden_size")?, size("num_attention_heads")?);
    let theta = parameters["rope_theta"].as_f64().or(config["rope_theta"].as_f64());
    let shape = Shape {
        architecture,
        hidden,
        layers: size("num_hidden_layers")?,
        heads,
        key_heads: size("num_key_value_heads").unwrap_or(heads),
        head: size("head_dim").unwrap_or(hidden / heads.max(1)),
        inner: size("intermediate_size")?,
        vocabulary: size("vocab_size")?,
        eps: config["rms_norm_eps"].as_f64().unwrap_or(1e-6),
        theta: theta.unwrap_or(10_000.0),
    };
    check_shape(&shape)?;
    Ok(shape)
}

/// Returns the names of the files of weights.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join("model.safetensors.index.json");
    if !index.is_file() {
        return Ok(vec!["model.safetensors".into()]);
    }
    let index = read_json(&index)?;
    let map = index["weight_map"].as_object().into_iter().flatten();
    let mut files: Vec<PathBuf> =
        map.filter_map(|(_, file)| file.as_str().map(PathBuf::from)).collect();
    files.sort();
    files.dedup();
    let is_plain = |file: &PathBuf| file.components().count() == 1 && file.is_relative();
    if files.is_empty() || !files.iter().all(is_plain) {
        return Err(Failure::job("the index of the base's weights names no files beside it"));
    }
    Ok(files)
}

/// Place of a matrix: number of its file, kind of its numbers, shape, and range of its bytes.
type Place = (usize, Dtype, Vec<usize>, (usize, usize));

/// Files of weights, of which each matrix is read when it is asked for.
struct Store {
    files: Vec<(File, PathBuf, u64)>,
    places: HashMap<String, Place>,
}

impl Store {
    fn open(folder: &Path, names: &[PathBuf]) -> Result<Self> {
        let mut store = Self { files: Vec::new(), places: HashMap::new() };
        for name in names {
            let path = folder.join(name);
            let mut file =
                File::open(&path).map_err(|error| Failure::file("read", &path, &error))?;
            let (start, header) = read_header(&mut file, &path)?;
            for (name, info) in header.tensors() {
                let place = (store.files.len(), info.dtype, info.shape.clone(), info.data_offsets);
                store.places.insert(name, place);
            }
            store.files.push((file, path, start));
        }
        Ok(store)
    }

    fn read(&mut self, name: &str, expected: &[usize]) -> Result<Tensor> {
        let (file, dtype, sizes, (from, to)) = self
            .places
            .get(name)
            .ok_or_else(|| Failure::job(format!("the base lacks {name}; it is not whole")))?;
        check_sizes(name, sizes, expected)?;
        let dtype = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(Failure::job(format!(
                    "{name} of the base has numbers of kind {other:?}; F32, F16 and BF16 are read"
                )));
            }
        };
        let length = expected.iter().product::<usize>() * dtype.size_in_bytes();
        let (file, path, start) = &mut self.files[*file];
        if to.checked_sub(*from) != Some(length) {
            return Err(Failure::job(format!("{name} of the base has a wrong length")));
        }
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(*start + *from as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| Failure::file("read all of", path, &error))?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, expected, &Device::Cpu)?)
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor> {
        Ok(self.read(name, &[length])?.to_dtype(COMPUTED)?)
    }
}

/// Reads the header of a file of weights, and returns where the weights begin.
fn read_header(file: &mut File, path: &Path) -> Result<(u64, Metadata)> {
    let broken = |why: &str| Failure::job(format!("{} is broken: {why}", path.display()));
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| broken("it is too short"))?;
    let size = u64::from_le_bytes(length);
    let whole = file.metadata().map_err(|error| Failure::file("read", path, &error))?.len();
    if size > MAX_HEADER || size > whole {
        return Err(broken("its header is too long"));
    }
    let mut bytes = length.to_vec();
    let limit = usize::try_from(size).map_err(|_| broken("its header is too long"))?;
    bytes.resize(8 + limit, 0);
    file.read_exact(&mut bytes[8..]).map_err(|_| broken("its header is cut"))?;
    let header: Metadata =
        serde_json::from_slice(&bytes[8..]).map_err(|_| broken("its header has no known form"))?;
    let ends = header.tensors().values().map(|it| it.data_offsets.1 as u64).max();
    if ends.unwrap_or(0) > whole - 8 - size {
        return Err(broken("it is cut"));
    }
    Ok((8 + size, header))
}

fn build(shape: Shape, config: &Value, store: &mut Store) -> Result<Model> {
    let rows = [shape.vocabulary, shape.hidden];
    let embedding = Weight::Plain(store.read("model.embed_tokens.weight", &rows)?);
    let is_tied = config["tie_word_embeddings"].as_bool() == Some(true)
        || !store.places.contains_key("lm_head.weight");
    let head = match is_tied {
        true => None,
        false => Some(Weight::Plain(store.read("lm_head.weight", &rows)?)),
    };
    let mut layers = Vec::with_capacity(shape.layers);
    for index in 0..shape.layers {
        layers.push(layer(&shape, index, store)?);
    }
    let norm = store.vector("model.norm.weight", shape.hidden)?;
    Ok(Model { shape, embedding, layers, norm, head, dtype: COMPUTED })
}

fn layer(shape: &Shape, index: usize, store: &mut Store) -> Result<Layer> {
    let name = format!("model.layers.{index}");
    let mut projections = Vec::with_capacity(7);
    for part in 0..7 {
        let (out, inner) = shape.projection(part);
        let name = projection_name(index, part);
        let weight = Weight::Plain(store.read(&format!("{name}.weight"), &[out, inner])?);
        let has_bias = shape.architecture == Architecture::Qwen2 && part < 3;
        let bias = match has_bias {
            true => Some(store.vector(&format!("{name}.bias"), out)?),
            false => None,
        };
        projections.push(Linear { weight, bias });
    }
    let head_norms = match shape.architecture {
        Architecture::Qwen3 => Some((
            store.vector(&format!("{name}.self_attn.q_norm.weight"), shape.head)?,
            store.vector(&format!("{name}.self_attn.k_norm.weight"), shape.head)?,
        )),
        Architecture::Llama | Architecture::Qwen2 => None,
    };
    Ok(Layer {
        norm: store.vector(&format!("{name}.input_layernorm.weight"), shape.hidden)?,
        inner_norm: store
            .vector(&format!("{name}.post_attention_layernorm.weight"), shape.hidden)?,
        head_norms,
        projections: projections.try_into().map_err(|_| Failure::other("seven were pushed"))?,
    })
}
