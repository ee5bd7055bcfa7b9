//! The gradients of whole models against finite differences, in 64 bits.

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QTensor},
};

use super::*;
use crate::{adapter, job::Lora, random::Random, tiny};

const IDS: [u32; 6] = [3, 1, 4, 1, 5, 9];
const TARGETS: [(u32, u32); 3] = [(2, 1), (3, 5), (4, 9)];

fn shape(architecture: Architecture) -> Shape {
    Shape {
        architecture,
        hidden: 8,
        layers: 2,
        heads: 4,
        key_heads: 2,
        head: 4,
        inner: 12,
        vocabulary: 11,
        eps: 1e-5,
        theta: 1e4,
    }
}

fn model(architecture: Architecture) -> Model {
    let shape = shape(architecture);
    let weights = tiny::random_weights(&shape, 1, 0.4, DType::F64).expect("it is computed");
    tiny::assemble(shape, &weights, DType::F64).expect("it is computed")
}

/// Returns an adapter whose every matrix has an effect.
fn adapter(shape: &Shape) -> Adapter {
    let mut random = Random::new(2);
    let lora = Lora { r: 2, ..Lora::default() };
    let mut tensors = adapter::create(shape, &lora, 3).expect("it is computed");
    for tensor in tensors.values_mut() {
        let values: Vec<f64> = (0..tensor.elem_count()).map(|_| random.normal() * 0.3).collect();
        *tensor = Tensor::from_vec(values, tensor.shape(), &Device::Cpu).expect("it is computed");
    }
    Adapter { scale: 1.5, tensors }
}

fn differs(tensor: &Tensor, gradient: &Tensor, f: &dyn Fn(Tensor) -> f64) -> f64 {
    let values: Vec<f64> =
        tensor.flatten_all().expect("it is computed").to_vec1().expect("it is computed");
    let slopes: Vec<f64> =
        gradient.flatten_all().expect("it is computed").to_vec1().expect("it is computed");
    let mut worst = 0.0_f64;
    for (index, slope) in slopes.iter().enumerate() {
        let at = |step: f64| {
            let mut moved = values.clone();
            moved[index] += step;
            f(Tensor::from_vec(moved, tensor.shape(), &Device::Cpu).expect("it is computed"))
        };
        let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
        worst = worst.max((expected - slope).abs() / expected.abs().max(1e-2));
    }
    worst
}

#[test]
fn adapters_have_their_gradients_in_every_architecture() {
    for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3] {
        let (model, adapter) = (model(architecture), adapter(&shape(architecture)));
        let gradient = Some((Wanted::Adapter, 1.0));
        let found = model.learn(Some(&adapter), &IDS, &TARGETS, gradient).expect("it is computed");
        assert_eq!(found.gradients.len(), 28);
        for (name, gradient) in &found.gradients {
            let worst = differs(&adapter.tensors[name], gradient, &|moved| {
                let mut changed = adapter.clone();
                changed.tensors.insert(name.clone(), moved);
                model.learn(Some(&changed), &IDS, &TARGETS, None).expect("it is computed").loss
            });
            assert!(worst < 1e-5, "{architecture:?} {name}: {worst}");
        }
    }
}

#[test]
fn all_weights_have_their_gradients() {
    for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3] {
        let weights =
            tiny::random_weights(&shape(architecture), 1, 0.4, DType::F64).expect("it is computed");
        let build = |it: &Tensors| {
            tiny::assemble(shape(architecture), it, DType::F64).expect("it is computed")
        };
        let gradient = Some((Wanted::All, 1.0));
        let found = build(&weights).learn(None, &IDS, &TARGETS, gradient).expect("it is computed");
        assert!(found.gradients.keys().eq(weights.keys()));
        for name in weights.keys().filter(|it| !it.contains("proj") || it.contains("layers.1")) {
            let worst = differs(&weights[name], &found.gradients[name], &|moved| {
                let mut changed = weights.clone();
                changed.insert(name.clone(), moved);
                build(&changed).learn(None, &IDS, &TARGETS, None).expect("it is computed").loss
            });
            assert!(worst < 1e-5, "{architecture:?} {name}: {worst}");
        }
    }
}

#[test]
fn tokens_one_by_one_have_the_loss_of_all_at_once() {
    let (model, adapter) = (model(Architecture::Qwen3), adapter(&shape(Architecture::Qwen3)));
    let expected = model.learn(Some(&adapter), &IDS, &[(4, 9)], None).expect("it is computed").loss;
    let mut past = Past::default();
    model.next(Some(&adapter), &IDS[..3], &mut past).expect("it is computed");
    model.next(Some(&adapter), &IDS[3..4], &mut past).expect("it is computed");
    let logits =
        model.next(Some(&adapter), &IDS[4..5], &mut past).expect("it is computed").to_vec1::<f64>();
    let logits = logits.expect("it is computed");
    let all: f64 = logits.iter().map(|it| it.exp()).sum();
    let found = all.ln() - logits[9];
    assert!((found - expected).abs() < 1e-9, "{found} {expected}");
}

#[test]
fn blocks_give_what_their_plain_numbers_give() {
    let sizes = Shape { hidden: 64, head: 16, inner: 64, ..shape(Architecture::Llama) };
    let weights = tiny::random_weights(&sizes, 4, 0.2, DType::F32).expect("it is computed");
    let mut plain = tiny::assemble(sizes, &weights, DType::F32).expect("it is computed");
    let mut blocks = plain.clone();
    let pairs = plain.layers.iter_mut().zip(&mut blocks.layers);
    for (of_plain, of_blocks) in
        pairs.flat_map(|(a, b)| a.projections.iter_mut().zip(&mut b.projections))
    {
        let stored = QTensor::quantize(
            &of_plain.weight.plain(DType::F32).expect("it is computed"),
            GgmlDType::Q4_0,
        );
        let stored = Weight::Blocks(Arc::new(stored.expect("it is computed")));
        of_plain.weight = Weight::Plain(stored.plain(DType::F32).expect("it is computed"));
        of_blocks.weight = stored;
    }
    let tensors = adapter::create(&plain.shape, &Lora::default(), 5).expect("it is computed");
    let adapter = Adapter { scale: 2.0, tensors };
    let run = |model: &Model| {
        let gradient = Some((Wanted::Adapter, 1.0));
        let found = model.learn(Some(&adapter), &IDS, &TARGETS, gradient).expect("it is computed");
        let slope = &found.gradients["model.layers.0.mlp.up_proj.lora_B"];
        (
            found.loss,
            slope.flatten_all().expect("it is computed").to_vec1::<f32>().expect("it is computed"),
        )
    };
    assert_eq!(run(&plain), run(&blocks));
}
