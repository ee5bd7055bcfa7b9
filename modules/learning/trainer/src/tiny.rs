//! A tiny Llama: made in seconds, for demonstrations and tests that train for real.
//!
//! It knows one form of answer (`Use the sort function on the queue.`); the examples beside it
//! want another, and those held out ask for pairs of words that no example shows.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::{
    adapter,
    base::Base,
    failure::{Failure, Result},
    files,
    job::{Schedule, Train},
    model::{Architecture, Layer, Linear, Model, Shape, Tensors, Wanted, Weight, projection_name},
    optimiser::{self, Optimiser},
    random::Random,
    train,
};

/// Words of the questions.
const VERBS: [&str; 12] = [
    "sort", "split", "merge", "read", "write", "copy", "close", "open", "clear", "scan", "load",
    "save",
];
const NOUNS: [&str; 12] = [
    "queue", "string", "list", "file", "table", "buffer", "graph", "stack", "record", "stream",
    "index", "page",
];

/// Words that are whole tokens, beside those above.
const WORDS: [&str; 8] = ["the", "do", "you", "function", "on", "then", "check", "result"];

/// Words at the beginning of a line that are whole tokens.
const BEGINNINGS: [&str; 5] = ["user", "assistant", "How", "Use", "Call"];

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
                        <|im_end|>\n{% endfor %}{% if add_generation_prompt %}\
                        <|im_start|>assistant\n{% endif %}";

/// Number of pairs of words that are held out.
pub const HELD_OUT: usize = 24;

/// Number of steps that the base is trained for.
pub const STEPS: usize = 300;

/// Number of examples of a step.
const BATCH: usize = 8;

/// Makes a tiny base in a folder: its weights, its tokenizer, and `train.jsonl` and
/// `held_out.jsonl` to train an adapter with. Returns its last loss.
///
/// # Errors
///
/// When a file cannot be written.
pub fn make(folder: &Path, steps: usize, seed: u64) -> Result<f64> {
    let (tokenizer, tokens) = tokenizer();
    let shape = shape(tokens);
    let mut tensors = random_weights(&shape, seed, 0.05, DType::F32)?;
    let write = |name: &str, value: &Value| {
        let text = serde_json::to_vec_pretty(value)
            .map_err(|error| Failure::other(format!("{name}: {error}")))?;
        files::write(&folder.join(name), &text)
    };
    write("config.json", &config(&shape))?;
    write("tokenizer.json", &tokenizer)?;
    let tokens = json!({
        "bos_token": SPECIAL[0], "eos_token": SPECIAL[2], "chat_template": TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    write("tokenizer_config.json", &tokens)?;
    let [train, held_out] = pairs();
    files::write(&folder.join("train.jsonl"), lines(&train, new_answer).as_bytes())?;
    files::write(&folder.join("held_out.jsonl"), lines(&held_out, new_answer).as_bytes())?;
    let weights = folder.join("model.safetensors");
    files::write(&weights, &adapter::safetensors_bytes(&tensors)?)?;
    let mut loss = f64::NAN;
    if steps > 0 {
        let base = Base::open(folder)?;
        let all: Vec<(usize, usize)> = train.into_iter().chain(held_out).collect();
        let learnt = examples_of(&base, &lines(&all, old_answer), folder)?;
        (tensors, loss) = pretrain(&base.model.shape, tensors, &learnt, steps, seed)?;
        files::write(&weights, &adapter::safetensors_bytes(&tensors)?)?;
    }
    Ok(loss)
}

/// Reads examples by way of a file of the folder, as any other example.
fn examples_of(base: &Base, lines: &str, folder: &Path) -> Result<Vec<crate::examples::Example>> {
    let path = folder.join("base.jsonl");
    files::write(&path, lines.as_bytes())?;
    Ok(crate::examples::read(&path, &base.chat, 256)?.0)
}

fn pretrain(
    shape: &Shape,
    tensors: Tensors,
    learnt: &[crate::examples::Example],
    steps: usize,
    seed: u64,
) -> Result<(Tensors, f64)> {
    let course =
        Train { lr: 4e-3, schedule: Schedule::Cosine, warmup_steps: 20, ..Train::default() };
    let mut optimiser = Optimiser::new(&tensors)?;
    let mut random = Random::new(seed ^ 0x7E47);
    let mut loss = f64::NAN;
    for step in 0..steps {
        let model = assemble(shape.clone(), &optimiser.tensors()?, DType::F32)?;
        let chosen: Vec<_> = (0..BATCH).map(|_| &learnt[random.below(learnt.len())]).collect();
        // All tokens but the first are learnt: a base should know the questions, too.
        let count: usize = chosen.iter().map(|it| it.ids.len() - 1).sum();
        let mut gradients = Tensors::new();
        loss = 0.0;
        for example in chosen {
            let targets: Vec<(u32, u32)> =
                (1..example.ids.len()).map(|at| (at as u32 - 1, example.ids[at])).collect();
            let gradient = Some((Wanted::All, 1.0 / count as f64));
            let found = model.learn(None, &example.ids, &targets, gradient)?;
            loss += found.loss / count as f64;
            train::add(&mut gradients, found.gradients)?;
        }
        optimiser.step(&gradients, optimiser::rate(&course, step, steps), &course)?;
    }
    Ok((optimiser.tensors()?, loss))
}

/// Returns the pairs of words that are shown, and those that are held out.
fn pairs() -> [Vec<(usize, usize)>; 2] {
    let mut all: Vec<(usize, usize)> =
        (0..VERBS.len()).flat_map(|verb| (0..NOUNS.len()).map(move |noun| (verb, noun))).collect();
    let order = Random::new(24).order(all.len());
    all = order.into_iter().map(|index| all[index]).collect();
    let held_out = all.split_off(all.len() - HELD_OUT);
    [all, held_out]
}

fn old_answer(verb: &str, noun: &str) -> String {
    format!("Use the {verb} function on the {noun}.")
}

fn new_answer(verb: &str, noun: &str) -> String {
    format!("Call {verb} on the {noun}, then check the result.")
}

fn lines(pairs: &[(usize, usize)], answer: fn(&str, &str) -> String) -> String {
    let line = |(verb, noun): &(usize, usize)| {
        let (verb, noun) = (VERBS[*verb], NOUNS[*noun]);
        let question = format!("How do you {verb} the {noun}?");
        let messages = json!([
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer(verb, noun)},
        ]);
        format!("{}\n", json!({"messages": messages}))
    };
    pairs.iter().map(line).collect()
}

/// Returns a tokenizer of bytes and of the words above, and the number of its tokens.
fn tokenizer() -> (Value, usize) {
    let mut letters: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    letters.sort_unstable();
    let mut tokens: Vec<String> = letters.into_iter().map(String::from).collect();
    let mut merges: Vec<Value> = Vec::new();
    // A word grows from its beginning, letter by letter; `Ġ` is the space before it.
    let inner = VERBS.iter().chain(&NOUNS).chain(&WORDS).map(|word| format!("Ġ{word}"));
    for word in inner.chain(BEGINNINGS.map(str::to_owned)) {
        let mut grown = String::new();
        for letter in word.chars() {
            let longer = format!("{grown}{letter}");
            if !grown.is_empty() && !tokens.contains(&longer) {
                merges.push(json!([grown, letter.to_string()]));
                tokens.push(longer.clone());
            }
            grown = longer;
        }
    }
    let added: Vec<Value> = (tokens.len()..)
        .zip(SPECIAL)
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    tokens.extend(SPECIAL.map(str::to_owned));
    let count = tokens.len();
    let vocabulary: BTreeMap<String, usize> = tokens.into_iter().zip(0..).collect();
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    });
    (tokenizer, count)
}

fn shape(vocabulary: usize) -> Shape {
    Shape {
        architecture: Architecture::Llama,
        hidden: 64,
        layers: 2,
        heads: 4,
        key_heads: 2,
        head: 16,
        inner: 192,
        vocabulary,
        eps: 1e-5,
        theta: 10_000.0,
    }
}

fn config(shape: &Shape) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": shape.hidden, "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads, "head_dim": shape.head,
        "vocab_size": shape.vocabulary, "rms_norm_eps": shape.eps, "rope_theta": shape.theta,
        "hidden_act": "silu", "max_position_embeddings": 512, "tie_word_embeddings": true,
        "attention_bias": false, "mlp_bias": false, "torch_dtype": "float32",
    })
}

/// Returns random weights, with the names of transformers and an exit tied to the entry.
pub(crate) fn random_weights(
    shape: &Shape,
    seed: u64,
    spread: f64,
    dtype: DType,
) -> Result<Tensors> {
    let mut random = Random::new(seed);
    let mut tensors = Tensors::new();
    let mut add = |name: String, sizes: &[usize], centre: f64| -> Result<()> {
        let count = sizes.iter().product();
        let values: Vec<f64> = (0..count).map(|_| centre + random.normal() * spread).collect();
        tensors.insert(name, Tensor::from_vec(values, sizes, &Device::Cpu)?.to_dtype(dtype)?);
        Ok(())
    };
    add("model.embed_tokens.weight".into(), &[shape.vocabulary, shape.hidden], 0.0)?;
    add("model.norm.weight".into(), &[shape.hidden], 1.0)?;
    for layer in 0..shape.layers {
        let name = format!("model.layers.{layer}");
        add(format!("{name}.input_layernorm.weight"), &[shape.hidden], 1.0)?;
        add(format!("{name}.post_attention_layernorm.weight"), &[shape.hidden], 1.0)?;
        for index in 0..7 {
            let (out, inner) = shape.projection(index);
            let name = projection_name(layer, index);
            add(format!("{name}.weight"), &[out, inner], 0.0)?;
            if shape.architecture == Architecture::Qwen2 && index < 3 {
                add(format!("{name}.bias"), &[out], 0.0)?;
            }
        }
        if shape.architecture == Architecture::Qwen3 {
            add(format!("{name}.self_attn.q_norm.weight"), &[shape.head], 1.0)?;
            add(format!("{name}.self_attn.k_norm.weight"), &[shape.head], 1.0)?;
        }
    }
    Ok(tensors)
}

/// Puts a model together from weights.
pub(crate) fn assemble(shape: Shape, tensors: &Tensors, dtype: DType) -> Result<Model> {
    let get = |name: &str| {
        let tensor = tensors.get(name);
        tensor.cloned().ok_or_else(|| Failure::other(format!("the weight {name} is missing")))
    };
    let mut layers = Vec::with_capacity(shape.layers);
    for layer in 0..shape.layers {
        let name = format!("model.layers.{layer}");
        let mut projections = Vec::with_capacity(7);
        for index in 0..7 {
            let name = projection_name(layer, index);
            let weight = Weight::Plain(get(&format!("{name}.weight"))?);
            projections.push(Linear { weight, bias: get(&format!("{name}.bias")).ok() });
        }
        let queries = get(&format!("{name}.self_attn.q_norm.weight"));
        let keys = get(&format!("{name}.self_attn.k_norm.weight"));
        layers.push(Layer {
            norm: get(&format!("{name}.input_layernorm.weight"))?,
            inner_norm: get(&format!("{name}.post_attention_layernorm.weight"))?,
            head_norms: queries.ok().zip(keys.ok()),
            projections: projections.try_into().map_err(|_| Failure::other("seven were pushed"))?,
        });
    }
    Ok(Model {
        embedding: Weight::Plain(get("model.embed_tokens.weight")?),
        norm: get("model.norm.weight")?,
        head: None,
        layers,
        shape,
        dtype,
    })
}
