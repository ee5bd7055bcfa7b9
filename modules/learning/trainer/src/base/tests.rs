//! The same base from a folder and from a GGUF file.

use std::{fs, fs::File};

use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Content, Value as Meta},
    },
};

use super::*;
use crate::{
    adapter, examples,
    failure::Class,
    job::Job,
    model::{Adapter, projection_name},
    tiny, train,
};

/// Writes a tiny base with random weights as a folder and as a GGUF file.
fn both(folder: &Path, kind: GgmlDType, change: impl Fn(&mut Vec<(String, Meta)>)) -> PathBuf {
    tiny::make(folder, 0, 7).expect("the folder is writable");
    let model = Base::open(folder).expect("it is whole").model;
    let shape = &model.shape;
    let tokenizer = read_json(&folder.join("tokenizer.json")).expect("it is JSON");
    let mut tokens = vec![String::new(); shape.vocabulary];
    for (token, id) in tokenizer["model"]["vocab"].as_object().expect("a vocabulary") {
        tokens[id.as_u64().expect("an id") as usize] = token.clone();
    }
    let merges = tokenizer["model"]["merges"].as_array().expect("merges").iter();
    let merge = |it: &serde_json::Value| {
        format!("{} {}", it[0].as_str().expect("text"), it[1].as_str().expect("text"))
    };
    let texts = |it: Vec<String>| Meta::Array(it.into_iter().map(Meta::String).collect());
    let kinds = tokens.iter().map(|it| Meta::I32(if it.starts_with("<|") { 3 } else { 1 }));
    let kinds = Meta::Array(kinds.collect());
    let config = read_json(&folder.join("tokenizer_config.json")).expect("it is JSON");
    let template = config["chat_template"].as_str().expect("a template").to_owned();
    let word = |text: &str| Meta::String(text.into());
    let number = |it: usize| Meta::U32(it as u32);
    let mut metadata: Vec<(String, Meta)> = [
        ("general.architecture", word("llama")),
        ("llama.embedding_length", number(shape.hidden)),
        ("llama.block_count", number(shape.layers)),
        ("llama.attention.head_count", number(shape.heads)),
        ("llama.attention.head_count_kv", number(shape.key_heads)),
        ("llama.feed_forward_length", number(shape.inner)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
        ("llama.rope.freq_base", Meta::F32(10_000.0)),
        ("tokenizer.ggml.model", word("gpt2")),
        ("tokenizer.ggml.pre", word("gpt-2")),
        ("tokenizer.ggml.eos_token_id", number(shape.vocabulary - 1)),
        ("tokenizer.ggml.bos_token_id", number(shape.vocabulary - 3)),
        ("tokenizer.ggml.tokens", texts(tokens)),
        ("tokenizer.ggml.merges", texts(merges.map(merge).collect())),
        ("tokenizer.ggml.token_type", kinds),
        ("tokenizer.chat_template", Meta::String(template)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    change(&mut metadata);
    let plain = |tensor: &Tensor| QTensor::quantize(tensor, GgmlDType::F32).expect("plain");
    let rows = model.embedding.plain(COMPUTED).expect("plain");
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), QTensor::quantize(&rows, kind).expect("it fits")),
        ("output_norm.weight".to_owned(), plain(&model.norm)),
    ];
    for (index, layer) in model.layers.iter().enumerate() {
        tensors.push((format!("blk.{index}.attn_norm.weight"), plain(&layer.norm)));
        tensors.push((format!("blk.{index}.ffn_norm.weight"), plain(&layer.inner_norm)));
        for (part, linear) in layer.projections.iter().enumerate() {
            let mut matrix = linear.weight.plain(COMPUTED).expect("plain");
            if part < 2 {
                let order = order_of_pairs(matrix.dims()[0], shape.head);
                let order = Tensor::new(order, &Device::Cpu).expect("numbers");
                matrix = matrix.index_select(&order, 0).expect("the rows are there");
            }
            let blocks = QTensor::quantize(&matrix, kind).expect("it fits");
            tensors.push((format!("blk.{index}.{}.weight", NAMES[part]), blocks));
        }
    }
    let path = folder.join("base.gguf");
    let metadata: Vec<_> = metadata.iter().map(|(key, it)| (key.as_str(), it)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(key, it)| (key.as_str(), it)).collect();
    let mut file = File::create(&path).expect("the folder is writable");
    gguf_file::write(&mut file, &metadata, &tensors).expect("the folder is writable");
    path
}

fn loss(base: &Base, folder: &Path) -> f64 {
    let (found, _) = examples::read(&folder.join("held_out.jsonl"), &base.chat, 256).expect("read");
    train::held_out(&base.model, None, &found).expect("it computes").0
}

#[test]
fn a_gguf_file_gives_what_the_folder_gives() {
    let folder = tempfile::tempdir().expect("a folder");
    for (kind, is_quantised, bound) in [
        (GgmlDType::F32, false, 1e-6),
        (GgmlDType::F16, false, 1e-3),
        (GgmlDType::Q8_0, true, 2e-2),
    ] {
        let path = both(folder.path(), kind, |_| ());
        let (plain, gguf) = (Base::open(folder.path()), Base::open(&path));
        let (plain, gguf) = (plain.expect("it is whole"), gguf.expect("it is whole"));
        assert_eq!(gguf.is_quantised, is_quantised);
        let text = "<|im_start|>user\nHow do you sort the queue?<|im_end|>\n";
        assert_eq!(gguf.chat.encode(text).expect("text"), plain.chat.encode(text).expect("text"));
        let (a, b) = (loss(&plain, folder.path()), loss(&gguf, folder.path()));
        assert!((a - b).abs() < bound, "{kind:?}: {a} {b}");
        assert_ne!(plain.sha256, gguf.sha256);
    }
}

#[test]
fn a_gguf_file_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |key: &str, value: Meta, expected: &str| {
        let path = both(folder.path(), GgmlDType::F32, |metadata| {
            metadata.retain(|(known, _)| known != key);
            metadata.push((key.to_owned(), value.clone()));
        });
        let failure = Base::open(&path).err().expect(key);
        assert_eq!(failure.class, Class::Job, "{key}");
        assert!(failure.to_string().contains(expected), "{key}: {failure}");
    };
    check("general.architecture", Meta::String("gemma3".into()), "gemma3");
    check("general.architecture", Meta::String("qwen3moe".into()), "MoE");
    check("llama.expert_count", Meta::U32(8), "MoE");
    check("llama.rope.scaling.type", Meta::String("yarn".into()), "rope_scaling");
    check("tokenizer.ggml.pre", Meta::String("tekken".into()), "tekken");
    check("llama.embedding_length", Meta::U32(32), "sizes");
    let path = both(folder.path(), GgmlDType::F32, |_| ());
    let bytes = fs::read(&path).expect("it was written");
    for length in [0, 3, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).expect("it is writable");
        let failure = Base::open(&path).err().expect("it is cut");
        assert_eq!(failure.class, Class::Job, "{length}");
    }
}

#[test]
fn a_folder_that_is_cut_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    tiny::make(folder.path(), 0, 7).expect("the folder is writable");
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).expect("it was written");
    for length in [0, 7, 50, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).expect("it is writable");
        let failure = Base::open(folder.path()).err().expect("it is cut");
        assert_eq!(failure.class, Class::Job, "{length}");
    }
    fs::write(&path, [255; 64]).expect("it is writable");
    assert_eq!(Base::open(folder.path()).err().expect("no header").class, Class::Job);
    fs::remove_file(&path).expect("it is there");
    assert_eq!(Base::open(folder.path()).err().expect("no weights").class, Class::Missing);
}

#[test]
fn an_adapter_comes_back_from_both_forms() {
    let folder = tempfile::tempdir().expect("a folder");
    tiny::make(folder.path(), 0, 7).expect("the folder is writable");
    let base = Base::open(folder.path()).expect("it is whole");
    let job = serde_json::json!({
        "job_id": "j", "base": {"path": folder.path()}, "dataset": {"train": "t"},
        "output_dir": folder.path(), "lora": {"r": 4, "alpha": 8, "target_modules": ["q_proj"]},
    });
    let job = Job::parse(&job.to_string()).expect("it is a job");
    let mut tensors = adapter::create(&base.model.shape, &job.lora, 1).expect("it fits");
    for (seed, tensor) in (0..).zip(tensors.values_mut()) {
        let mut random = crate::random::Random::new(seed);
        let values: Vec<f32> = (0..tensor.elem_count()).map(|_| random.unit() as f32).collect();
        *tensor = Tensor::from_vec(values, tensor.shape(), &Device::Cpu).expect("it fits");
    }
    let saved = adapter::save(&job, &base.model.shape, &base.sha256, &tensors).expect("writable");
    let read: Adapter =
        adapter::load(&saved.folder, &base.model.shape, &base.sha256).expect("it is whole");
    assert_eq!((read.scale, read.tensors.len()), (2.0, 4));
    let values = |tensor: &Tensor| tensor.to_vec2::<f32>().expect("a matrix");
    for (name, tensor) in &tensors {
        assert_eq!(values(tensor), values(&read.tensors[name]), "{name}");
    }
    let other = adapter::load(&saved.folder, &base.model.shape, "another");
    assert_eq!(other.expect_err("another base").class, Class::Job);
    let mut file = File::open(&saved.gguf).expect("it was written");
    let content = Content::read(&mut file).expect("it is GGUF");
    assert_eq!(content.metadata["adapter.type"].to_string().expect("text"), "lora");
    assert_eq!(content.metadata["adapter.lora.alpha"].to_f32().expect("a number"), 8.0);
    let part = content.tensor(&mut file, "blk.1.attn_q.weight.lora_b", &Device::Cpu);
    let found = part.and_then(|it| it.dequantize(&Device::Cpu)).expect("it is there");
    let expected = values(&tensors[&format!("{}.lora_B", projection_name(1, 0))]);
    // Row 1 of a head in GGUF is the first row of its second half.
    assert_eq!(values(&found)[1], expected[8]);
}
