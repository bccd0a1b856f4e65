//! Value zeroing beside a plain port that runs the layer again for every token, on one layer of a real-size model:
//!
//! `cargo run --release --example random_vit -- DIR && cargo bench --bench value_zeroing -- DIR`
//!
//! Prints seconds and their ratio, and fails unless both give the same matrix.

use candle_core::{DType, Device, Tensor, D};
use std::time::Instant;
use vitx::encoder::{Block, Inputs};
use vitx::method::parse;
use vitx::model::{Access, Checkpoint};
use vitx::nn::attention;
use vitx::run::Batch;
use vitx::target::Output;
use vitx::trace::LayerTrace;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let Some(dir) = std::env::args().skip(1).find(|a| !a.starts_with('-')) else {
        println!("usage: cargo bench --bench value_zeroing -- DIR (a ViT checkpoint)");
        return Ok(());
    };
    let model = Checkpoint::open(&dir, &Access::default())?.load(DType::F32, &Device::Cpu)?;
    let pixels = Tensor::rand(-1f32, 1f32, (1, 3, 224, 224), &Device::Cpu)?;
    let layout = vitx::explanation::Layout::Image(model.image_layout(224, 224)?);
    let batch = Batch::new(&model.encoder, Inputs::Pixels(pixels), vec![layout])?;
    let pass = batch.pass(vec![Output::of(0)])?;
    let layer = batch.trace()?.layers.last().ok_or("a model without layers")?.clone();
    let block = model.encoder.blocks.last().ok_or("a model without layers")?;

    let start = Instant::now();
    let row = parse("value-zeroing")?.explain(&pass.run(0))?.relevance;
    println!("one row of one layer: {:.3} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let ours = parse("value-zeroing:matrix=true")?.explain(&pass.run(0))?.relevance;
    let fast = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let plain = plain_port(block, &layer)?;
    let slow = start.elapsed().as_secs_f64();
    println!("the whole matrix of one layer: {fast:.2} s; plain port {slow:.2} s; ratio {:.2}", slow / fast);

    let off = ours.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let largest = plain.iter().copied().fold(0f32, f32::max);
    println!("largest difference {off:e} of values up to {largest}; row 0 differs by {:e}", (row[1] - ours[1]).abs());
    if off > 1e-5 {
        return Err("the two disagree".into());
    }
    Ok(())
}

/// Runs the layer once for every token with that token's value set to zero, as the authors' code does; `[T,T]`.
fn plain_port(block: &Block, layer: &LayerTrace) -> Result<Vec<f32>, Failure> {
    let (input, output, around) = (&layer.input, &layer.output, &layer.around);
    let tokens = input.dim(1)?;
    let unit = |x: &Tensor| x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?);
    let whole = unit(output)?;
    let mut columns = Vec::with_capacity(tokens);
    for zeroed in 0..tokens {
        let read = block.read(input)?;
        let op = &block.attention.op;
        let split = |x: &Tensor| attention::split_heads(x, op.heads);
        let (query, key) = (split(&op.query.forward(&read)?)?, split(&op.key.forward(&read)?)?);
        let keep: Vec<f32> = (0..tokens).map(|t| f32::from(u8::from(t != zeroed))).collect();
        let keep = Tensor::from_vec(keep, (1, tokens, 1), input.device())?;
        let value = split(&op.value.forward(&read)?.broadcast_mul(&keep)?)?;
        let context =
            attention::context(&attention::probabilities(op.scores.forward(&query, &key, around)?, None)?, &value)?;
        let mid = (input + op.projection.forward(&attention::merge_heads(&context)?)?)?;
        let without = block.finish(&mid)?.output;
        columns.push(((unit(&without)? - &whole)?.sqr()?.sum(D::Minus1)? * 0.5)?.squeeze(0)?);
        // [T]
    }
    let raw = Tensor::stack(&columns, 1)?; // [T(i),T(j)]
    let sums = raw.sum_keepdim(1)?;
    Ok(raw.broadcast_div(&sums)?.flatten_all()?.to_vec1()?)
}
