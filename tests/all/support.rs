//! The fixtures: tiny random models of every family, their inputs, and the arrays every method must return.

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use vitx::encoder::Inputs;
use vitx::explanation::{Layout, TextLayout};
use vitx::input::text::{Text, Tokenised};
use vitx::model::{Access, Checkpoint, Model, Processor};
use vitx::run::Batch;
use vitx::target::Output;

pub const CASES: &[&str] = &[
    "vit-square",
    "vit-rect",
    "deit-distilled",
    "dinov2",
    "dinov2-registers",
    "dinov2-interp",
    "dinov2-registers-interp",
    "bert",
    "roberta",
    "distilbert",
    "dinov3",
    "dinov3-gated",
    "modernbert",
    "modernbert-mean",
];

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn case_dir(case: &str) -> PathBuf {
    root().join("tests/fixtures").join(case)
}

pub struct Case {
    pub name: &'static str,
    pub json: Value,
    pub inputs: HashMap<String, Tensor>,
    pub expected: HashMap<String, Tensor>,
}

impl Case {
    pub fn open(name: &'static str) -> Case {
        let dir = case_dir(name);
        let json = serde_json::from_slice(&std::fs::read(dir.join("case.json")).unwrap()).unwrap();
        let load = |file: &str| candle_core::safetensors::load(dir.join(file), &Device::Cpu).unwrap();
        Case { name, json, inputs: load("inputs.safetensors"), expected: load("expected.safetensors") }
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(case_dir(self.name).join("model").to_str().unwrap(), &Access::default()).unwrap()
    }

    pub fn model(&self, dtype: DType) -> Model {
        self.checkpoint().load(dtype, &Device::Cpu).unwrap()
    }

    pub fn targets(&self) -> Vec<u32> {
        self.json["targets"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
    }

    pub fn is_text(&self) -> bool {
        self.inputs.contains_key("input_ids")
    }

    /// The stored input tensors with the layouts the library derives itself.
    pub fn batch(&self, model: &Model) -> (Inputs, Vec<Layout>) {
        if self.is_text() {
            return model.text_inputs(&self.tokenised(&model.checkpoint)).unwrap();
        }
        let pixels = self.inputs["pixel_values"].clone();
        let (b, _, h, w) = pixels.dims4().unwrap();
        let layout = Layout::Image(model.image_layout(h, w).unwrap());
        (Inputs::Pixels(pixels), vec![layout; b])
    }

    /// The stored inputs, run; and the stored targets as what is explained.
    pub fn asked<'m>(&self, model: &'m Model) -> (Batch<'m>, Vec<Output>) {
        let (inputs, layouts) = self.batch(model);
        let outputs = self.targets().iter().map(|&class| Output::of(class)).collect();
        (Batch::new(&model.encoder, inputs, layouts).unwrap(), outputs)
    }

    pub fn texts(&self) -> Vec<Text> {
        let pairs = self.json["texts"].as_array().unwrap().iter();
        let text = |v: &Value| v.as_str().map(String::from);
        pairs
            .map(|p| {
                if p.is_array() {
                    Text { first: text(&p[0]).unwrap(), second: text(&p[1]) }
                } else {
                    Text { first: text(p).unwrap(), second: None }
                }
            })
            .collect()
    }

    pub fn tokenised(&self, checkpoint: &Checkpoint) -> Vec<Tokenised> {
        let Processor::Text(processor) = &checkpoint.processor else { panic!("{} is no text model", self.name) };
        self.texts().iter().map(|t| processor.apply(t).unwrap()).collect()
    }

    /// `method.*` entries of case.json whose method is `name`.
    pub fn arrays(&self, name: &str) -> Vec<(String, &Value)> {
        let all = self.json["methods"].as_object().unwrap().iter();
        all.filter(|(_, m)| m["method"] == name).map(|(k, m)| (k.clone(), m)).collect()
    }
}

pub fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `|got - want| <= atol + rtol |want|`, entry by entry.
pub fn assert_close(what: &str, got: &[f64], want: &[f64], atol: f64, rtol: f64) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= atol + rtol * w.abs(), "{what}: entry {i} is {g}, expected {w} (atol {atol:e})");
    }
}

/// Text layouts as case.json has them, for comparison.
pub fn pieces(layout: &TextLayout) -> Vec<&str> {
    layout.tokens.iter().map(|t| t.piece.as_str()).collect()
}
