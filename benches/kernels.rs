//! The operations of a pass at the sizes of ViT-B/16, and whole passes:
//!
//! `cargo bench --bench kernels`, with `VITX_KERNELS=off` for candle's own operations; `VITX_MODEL=DIR` for the passes of another
//! model than demo-vit.
//!
//! Items a second of products are floating-point operations.

#![allow(clippy::unwrap_used, clippy::panic)]

use candle_core::{DType, Device, Tensor};
use divan::counter::ItemsCount;
use divan::{black_box, Bencher};
use vitx::encoder::{Inputs, Keep};
use vitx::input::image::decode;
use vitx::input::{self, Ready};
use vitx::method;
use vitx::model::{Access, Checkpoint, Model, Processor};
use vitx::nn::rules::{ActivationRule, NormRule};
use vitx::nn::{attention, Activation, Centre, Linear, Norm, Rules};
use vitx::render::{self, Scene, Style};
use vitx::run::Batch;
use vitx::target::Target;

const TOKENS: usize = 197;
const HEADS: usize = 12;
const WIDTH: usize = 768;

fn main() {
    divan::main();
}

fn random(shape: &[usize]) -> Tensor {
    Tensor::rand(-1f32, 1f32, shape, &Device::Cpu).unwrap()
}

const SIZES: [(usize, usize); 3] = [(WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)];

#[divan::bench(args = SIZES)]
fn linear(bencher: Bencher, (input, out): (usize, usize)) {
    let own = Linear { weight: random(&[out, input]), bias: Some(random(&[out])) };
    let x = random(&[1, TOKENS, input]);
    bencher.counter(ItemsCount::new(2 * TOKENS * input * out)).bench(|| own.forward(black_box(&x)).unwrap());
}

#[divan::bench(args = SIZES)]
fn linear_vjp(bencher: Bencher, (input, out): (usize, usize)) {
    let own = Linear { weight: random(&[out, input]), bias: None };
    let grad = random(&[1, TOKENS, out]);
    bencher.counter(ItemsCount::new(2 * TOKENS * input * out)).bench(|| own.vjp(black_box(&grad)).unwrap());
}

#[divan::bench]
fn context(bencher: Bencher) {
    let (a, v) = (random(&[1, HEADS, TOKENS, TOKENS]), random(&[1, HEADS, TOKENS, WIDTH / HEADS]));
    let operations = ItemsCount::new(2 * TOKENS * TOKENS * WIDTH);
    bencher.counter(operations).bench(|| attention::context(black_box(&a), &v).unwrap());
}

#[divan::bench]
fn softmax(bencher: Bencher) {
    let scores = random(&[1, HEADS, TOKENS, TOKENS]);
    let copy = || scores.copy().unwrap();
    bencher.with_inputs(copy).bench_values(|scores| attention::probabilities(scores, None).unwrap());
}

#[divan::bench]
fn softmax_vjp(bencher: Bencher) {
    let p = attention::probabilities(random(&[1, HEADS, TOKENS, TOKENS]), None).unwrap();
    let grad = random(&[1, HEADS, TOKENS, TOKENS]);
    bencher.bench(|| attention::probabilities_reverse(black_box(&p), &grad, &Rules::GRADIENT).unwrap());
}

fn layer_norm() -> Norm {
    Norm { weight: random(&[WIDTH]), bias: Some(random(&[WIDTH])), eps: 1e-12, centre: Centre::Mean }
}

#[divan::bench]
fn norm(bencher: Bencher) {
    let (own, x) = (layer_norm(), random(&[1, TOKENS, WIDTH]));
    bencher.bench(|| own.forward(black_box(&x)).unwrap());
}

#[divan::bench]
fn norm_vjp(bencher: Bencher) {
    let (own, x, grad) = (layer_norm(), random(&[1, TOKENS, WIDTH]), random(&[1, TOKENS, WIDTH]));
    bencher.bench(|| own.reverse(black_box(&x), &grad, NormRule::Gradient).unwrap());
}

#[divan::bench]
fn gelu(bencher: Bencher) {
    let x = random(&[1, TOKENS, 4 * WIDTH]);
    bencher.bench(|| Activation::Gelu.forward(black_box(&x)).unwrap());
}

#[divan::bench]
fn gelu_vjp(bencher: Bencher) {
    let (x, grad) = (random(&[1, TOKENS, 4 * WIDTH]), random(&[1, TOKENS, 4 * WIDTH]));
    bencher.bench(|| Activation::Gelu.reverse(black_box(&x), &grad, ActivationRule::Gradient).unwrap());
}

#[divan::bench]
fn heads_split_and_merge(bencher: Bencher) {
    let x = random(&[1, TOKENS, WIDTH]);
    bencher.bench(|| attention::merge_heads(&attention::split_heads(black_box(&x), HEADS).unwrap()).unwrap());
}

#[divan::bench]
fn mean_of_weighted_heads(bencher: Bencher) {
    let (a, g) = (random(&[HEADS, TOKENS, TOKENS]), random(&[HEADS, TOKENS, TOKENS]));
    bencher.bench(|| attention::mean_products(black_box(&a), &g, true).unwrap());
}

fn model() -> Model {
    let id = std::env::var("VITX_MODEL").unwrap_or_else(|_| "demo-vit".into());
    Checkpoint::open(&id, &Access::default()).unwrap().load(DType::F32, &Device::Cpu).unwrap()
}

fn picture() -> Vec<u8> {
    std::fs::read("assets/flower.jpg").unwrap()
}

fn pixels(model: &Model) -> Inputs {
    let Processor::Image(processor) = &model.checkpoint.processor else { panic!("a vision model") };
    model.image_inputs(&[processor.apply(&decode(&picture()).unwrap()).unwrap()]).unwrap().0
}

#[divan::bench]
fn decode_and_resize(bencher: Bencher) {
    let (model, bytes) = (model(), picture());
    let Processor::Image(processor) = &model.checkpoint.processor else { panic!("a vision model") };
    bencher.bench(|| processor.apply(&decode(black_box(&bytes)).unwrap()).unwrap());
}

#[divan::bench(args = [Keep::Logits, Keep::Reverse, Keep::Layers])]
fn forward(bencher: Bencher, keep: Keep) {
    let model = model();
    let inputs = pixels(&model);
    bencher.bench(|| model.encoder.forward(black_box(&inputs), keep).unwrap());
}

#[divan::bench]
fn reverse(bencher: Bencher) {
    let model = model();
    let trace = model.encoder.forward(&pixels(&model), Keep::Reverse).unwrap();
    let seed = trace.logits.ones_like().unwrap();
    bencher
        .bench(|| model.encoder.backward_each(black_box(&trace), &seed, &Rules::GRADIENT, &mut |_, _| Ok(())).unwrap());
}

#[divan::bench]
fn render_overlay(bencher: Bencher) {
    let model = model();
    let Processor::Image(processor) = &model.checkpoint.processor else { panic!("a vision model") };
    let upright = decode(&picture()).unwrap();
    let prepared = processor.apply(&upright).unwrap();
    let (inputs, layouts) = model.image_inputs(std::slice::from_ref(&prepared)).unwrap();
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    let outputs = Target::Predicted.resolve(&batch.logits().unwrap()[0]);
    let found = method::parse("gae").unwrap().explain(&batch.pass(outputs).unwrap().run(0)).unwrap();
    let ready = Ready::Picture(Box::new(input::prepare::Picture { upright, prepared, remarks: Vec::new() }));
    let style = Style::default();
    let overlay = render::find("overlay").unwrap();
    bencher.bench(|| (overlay.render)(&Scene::of(black_box(&ready), &style), &found).unwrap());
}
