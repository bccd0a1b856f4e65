//! candle-transformers' own models as a second opinion on the forward pass.

use crate::support::*;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, vit};
use vitx::encoder::{Inputs, Keep};

fn var_builder(case: &str) -> VarBuilder<'static> {
    let tensors = candle_core::safetensors::load(case_dir(case).join("model/model.safetensors"), &Device::Cpu).unwrap();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

fn config<T: serde::de::DeserializeOwned>(case: &str) -> T {
    serde_json::from_slice(&std::fs::read(case_dir(case).join("model/config.json")).unwrap()).unwrap()
}

#[test]
fn vit_logits_agree() {
    let case = Case::open("vit-square");
    let oracle = vit::Model::new(&config::<vit::Config>("vit-square"), 5, var_builder("vit-square")).unwrap();
    let model = case.model(DType::F32);
    let (inputs, _) = case.batch(&model);
    let Inputs::Pixels(pixels) = &inputs else { panic!() };
    let want = oracle.forward(pixels).unwrap();
    let got = model.encoder.forward(&inputs, Keep::Logits).unwrap().logits;
    assert_close("vit", &flat(&got), &flat(&want), 1e-5, 1e-4);
}

#[test]
fn bert_states_agree() {
    let case = Case::open("bert");
    let oracle = bert::BertModel::load(var_builder("bert").pp("bert"), &config::<bert::Config>("bert")).unwrap();
    let model = case.model(DType::F32);
    let (inputs, layouts) = case.batch(&model);
    let Inputs::Tokens { ids, types, mask } = &inputs else { panic!() };
    let want: Tensor = oracle.forward(ids, types, Some(&mask.to_dtype(DType::F32).unwrap())).unwrap();
    let got = model.encoder.forward(&inputs, Keep::Last).unwrap().last;
    for (row, layout) in layouts.iter().enumerate() {
        let real = |t: &Tensor| flat(&t.get(row).unwrap().narrow(0, 0, layout.len()).unwrap().contiguous().unwrap());
        assert_close("bert", &real(&got), &real(&want), 1e-4, 1e-3);
    }
}
