//! Every family beyond those of the golden arrays: its passes are those of transformers (or timm), its texts are tokenised alike, and
//! every method explains it or says why not.

use crate::support::{assert_close, flat, pieces, root};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use vitx::encoder::{Inputs, Keep};
use vitx::explanation::Layout;
use vitx::input::text::{Text, Tokenised};
use vitx::method;
use vitx::model::{Access, Checkpoint, Classes, Model, Outputs, Processor, FAMILIES};
use vitx::nn::Rules;
use vitx::run::Batch;
use vitx::target::{seed, Output};

pub(crate) struct Kin {
    name: String,
    pub json: Value,
    pub inputs: HashMap<String, Tensor>,
    pub expected: HashMap<String, Tensor>,
    pub model: Model,
}

/// Fixtures of families, and of models that compare pictures with texts.
fn folders() -> Vec<PathBuf> {
    let inside = |folder: &str| std::fs::read_dir(root().join("tests/fixtures").join(folder)).unwrap();
    let mut folders: Vec<PathBuf> =
        inside("families").chain(inside("towers")).map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// The checkpoint of a fixture; the texts that it names are its classes.
pub(crate) fn checkpoint(folder: &Path) -> vitx::Result<Checkpoint> {
    let json: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_string();
    let texts = |prompts: &Vec<Value>| Classes { names: prompts.iter().map(text).collect(), template: None };
    let outputs = Outputs { head: None, classes: json["prompts"].as_array().map(texts) };
    Checkpoint::open_as(folder.join("model").to_str().unwrap(), &Access::default(), &outputs)
}

fn all() -> Vec<Kin> {
    folders().into_iter().map(Kin::open).collect()
}

impl Kin {
    pub fn open(folder: PathBuf) -> Self {
        let name = folder.file_name().unwrap().to_str().unwrap().to_string();
        let load = |file: &str| candle_core::safetensors::load(folder.join(file), &Device::Cpu).unwrap();
        let json = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
        let model = checkpoint(&folder).and_then(|c| c.load(DType::F32, &Device::Cpu));
        let model = model.unwrap_or_else(|e| panic!("{name}: {e}"));
        Kin { json, inputs: load("inputs.safetensors"), expected: load("expected.safetensors"), model, name }
    }

    fn texts(&self) -> Vec<Tokenised> {
        let Processor::Text(processor) = &self.model.checkpoint.processor else { return Vec::new() };
        let text = |v: &Value| v.as_str().map(String::from);
        let texts = self.json["texts"].as_array().unwrap().iter();
        texts.map(|p| processor.apply(&Text { first: text(&p[0]).unwrap(), second: text(&p[1]) }).unwrap()).collect()
    }

    fn batch(&self) -> (Inputs, Vec<Layout>) {
        match self.inputs.get("pixel_values") {
            Some(pixels) => {
                let (b, _, h, w) = pixels.dims4().unwrap();
                let layout = Layout::Image(self.model.image_layout(h, w).unwrap());
                (Inputs::Pixels(pixels.clone()), vec![layout; b])
            }
            None => self.model.text_inputs(&self.texts()).unwrap(),
        }
    }

    /// What a tensor holds of an example's real tokens: models differ in what padded ones see.
    fn real(&self, kind: &str, t: &Tensor, row: usize) -> Tensor {
        let own = t.get(row).unwrap();
        if self.inputs.contains_key("pixel_values") {
            return own;
        }
        let Some(tokens) = self.json["lengths"].get(row).and_then(Value::as_u64) else { return own };
        let tokens = tokens as usize;
        match kind {
            "hidden" => own.narrow(0, 0, tokens).unwrap(),
            "attention" | "attention_grad" => own.narrow(1, 0, tokens).unwrap().narrow(2, 0, tokens).unwrap(),
            _ => own,
        }
    }

    fn outputs(&self) -> Vec<Output> {
        self.json["targets"].as_array().unwrap().iter().map(|t| Output::of(t.as_u64().unwrap() as u32)).collect()
    }
}

#[test]
fn passes_and_tokens_are_those_of_the_reference() {
    for kin in all() {
        let (name, encoder) = (&kin.name, &kin.model.encoder);
        for (row, text) in kin.texts().iter().enumerate() {
            let want: Vec<&str> =
                kin.json["tokens"][row].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
            assert_eq!(pieces(&text.layout), want[..text.ids.len()], "{name} row {row}");
        }
        let (inputs, _) = kin.batch();
        let trace = encoder.forward(&inputs, Keep::Layers).unwrap_or_else(|e| panic!("{name}: {e}"));
        let seeds = seed(&kin.outputs(), encoder.classes(), DType::F32, &Device::Cpu).unwrap();
        let grads = encoder.backward(&trace, &seeds, &Rules::GRADIENT).unwrap();
        let mut seen = 0;
        let mut keys: Vec<_> = kin.expected.iter().collect();
        keys.sort_by(|a, b| a.0.cmp(b.0)); // attention first: what is wrong is found where it begins
        for (key, want) in keys {
            let (kind, layer) = key.split_once('.').unwrap_or((key, "0"));
            let layer: usize = layer.parse().unwrap_or(0);
            let (got, atol) = match kind {
                "logits" | "logits_per_image" => (&trace.logits, 1e-5),
                "hidden" if layer == 0 => (&trace.embedding, 1e-5),
                "hidden" => (trace.layers.get(layer).map_or(&trace.last, |l| &l.input), 2e-5),
                "attention" => (&trace.layers[layer].attention, 1e-5),
                "attention_grad" => (&grads.layers[layer].attention, 2e-5),
                _ => continue,
            };
            assert_eq!(got.dims(), want.dims(), "{name} {key}");
            for row in 0..got.dims()[0] {
                let (got, want) = (kin.real(kind, got, row), kin.real(kind, want, row));
                assert_close(&format!("{name} {key} row {row}"), &flat(&got), &flat(&want), atol, 1e-4);
            }
            seen += 1;
        }
        assert_eq!(seen, 2 + 3 * encoder.blocks.len(), "{name}: logits, hidden, attention, gradients");
    }
}

#[test]
fn every_method_explains_every_family_or_says_why_not() {
    for kin in all() {
        let (name, facts) = (&kin.name, kin.model.checkpoint.facts());
        let (inputs, layouts) = kin.batch();
        let batch = Batch::new(&kin.model.encoder, inputs, layouts).unwrap();
        let pass = batch.pass(kin.outputs()).unwrap();
        let mut explained = 0;
        for entry in method::all() {
            let method = method::parse(entry.name).unwrap();
            if let Err(why) = method.check(&facts) {
                assert!(why.to_string().len() > 20, "{name} {}: {why}", entry.name);
                continue;
            }
            let found = method.explain(&pass.run(0)).unwrap_or_else(|e| panic!("{name} {}: {e}", entry.name));
            assert!(found.relevance.iter().all(|v| v.is_finite()), "{name} {}", entry.name);
            explained += 1;
        }
        let least = if facts.staged() { 24 } else { 30 };
        assert!(explained >= least, "{name}: {explained} methods");
    }
}

/// Which methods explain which model types: what README says, made from the checkpoints themselves.
#[test]
fn the_matrix_in_the_readme_is_what_the_models_allow() {
    let mut rows: Vec<(Vec<String>, String)> = Vec::new();
    for family in FAMILIES {
        let refusals = refusals(family.name);
        match rows.iter_mut().find(|(_, known)| *known == refusals) {
            Some((names, _)) => names.push(format!("`{}`", family.name)),
            None => rows.push((vec![format!("`{}`", family.name)], refusals)),
        }
    }
    let rows: String = rows.iter().map(|(names, refused)| format!("| {} | {refused} |\n", names.join(", "))).collect();
    let table = format!("| `model_type` | methods |\n| --- | --- |\n{rows}");
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let own = readme.split("<!-- matrix -->\n").nth(1).and_then(|rest| rest.split("<!-- /matrix -->").next());
    assert!(own == Some(&table[..]), "the table of model types and methods should be\n{table}");
}

/// What a fixture of a family says of every method.
fn refusals(family: &str) -> String {
    let golden = std::fs::read_dir(root().join("tests/fixtures")).unwrap().map(|entry| entry.unwrap().path());
    let golden = golden.filter(|folder| folder.join("case.json").is_file());
    let mut models: Vec<PathBuf> = golden.chain(folders()).collect();
    models.sort();
    let open = |folder: &PathBuf| checkpoint(folder).ok().filter(|c| c.family.name == family);
    let checkpoint = models.iter().find_map(open).unwrap_or_else(|| panic!("no fixture of {family}"));
    let facts = checkpoint.facts();
    let refused = method::all().filter(|entry| method::parse(entry.name).unwrap().check(&facts).is_err());
    let said: Vec<String> = refused.map(|entry| format!("`{}`", entry.name)).collect();
    if said.is_empty() {
        return "all".into();
    }
    format!("all but {}", said.join(", "))
}

/// Logits of transformers 5.24 in f64, for pixels `sin(0.37 i)` on other grids than the trained one: tables of relative positions are
/// resampled.
#[test]
fn relative_positions_are_resampled_for_other_sizes() {
    let model = Kin::open(root().join("tests/fixtures/families/beit")).model;
    for (h, w, want) in [
        (48, 32, [-0.878344, -0.847708, 0.386066, -1.007533, 0.374191]),
        (24, 40, [-0.553102, -0.927869, 0.334436, -0.77216, 0.861695]),
    ] {
        let pixels: Vec<f32> = (0..3 * h * w).map(|i| (f64::from(i) * 0.37).sin() as f32).collect();
        let pixels = Tensor::from_vec(pixels, (1, 3, h as usize, w as usize), &Device::Cpu).unwrap();
        let got = flat(&model.encoder.logits(&Inputs::Pixels(pixels)).unwrap());
        assert_close(&format!("{h}x{w}"), &got, &want, 2e-5, 1e-4);
    }
}
