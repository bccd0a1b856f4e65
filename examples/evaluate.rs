//! Two methods judged over a CSV of labelled pictures, without the command line: `cargo run --example evaluate -- DATA.csv`

use candle_core::{DType, Device};
use std::path::{Path, PathBuf};
use vitx::evaluate::{self, dataset, figures::Figures, labelled::Labelled, study::Study, Candidate};
use vitx::explain;
use vitx::model::{Access, Checkpoint};

/// The table, with intervals and controls.
pub fn table(path: &Path) -> vitx::Result<String> {
    let checkpoint = Checkpoint::open("demo-vit", &Access::default())?;
    let data = Labelled::of(path, dataset::read(path)?, &checkpoint, None)?;
    let methods = explain::methods(&["gae".into(), "grad-rollout".into()], &checkpoint)?;
    let metrics = evaluate::parse_list(&["average-precision", "mass-inside"], &checkpoint.facts())?;
    let candidates = Candidate::judged(methods, &checkpoint.facts())?;
    let model = checkpoint.load(DType::F32, &Device::Cpu)?;
    let study = Study::new(&model, &data, &candidates, &metrics);
    let judged = study.judged()?; // failures are in it, by input
    Ok(Figures::of(&study, &judged).text())
}

fn main() -> vitx::Result<()> {
    let path = std::env::args_os().nth(1).map_or_else(|| "tests/data/vision/labels.csv".into(), PathBuf::from);
    println!("{}", table(&path)?);
    Ok(())
}
