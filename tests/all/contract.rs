//! What every method promises, over every entry of the registry and every family.

use crate::support::*;
use candle_core::DType;
use vitx::encoder::{Inputs, Keep};
use vitx::explanation::Layout;
use vitx::method;
use vitx::model::Model;
use vitx::run::{Batch, Memory, Reads};
use vitx::target::Output;

fn explain(model: &Model, inputs: &Inputs, layouts: &[Layout], method: &str, classes: &[u32]) -> Vec<Vec<f32>> {
    explain_reading(Reads::Everything, model, inputs, layouts, method, classes)
}

fn explain_reading(
    reads: Reads,
    model: &Model,
    inputs: &Inputs,
    layouts: &[Layout],
    method: &str,
    classes: &[u32],
) -> Vec<Vec<f32>> {
    let batch = Batch::new(&model.encoder, inputs.clone(), layouts.to_vec()).unwrap().reading(reads);
    let pass = batch.pass(classes.iter().map(|&class| Output::of(class)).collect()).unwrap();
    let configured = method::parse(method).unwrap();
    (0..layouts.len()).map(|row| configured.explain(&pass.run(row)).unwrap().relevance).collect()
}

/// Rows of a batch, in any order and number; texts keep their padding.
fn rows(inputs: &Inputs, layouts: &[Layout], order: &[u32]) -> (Inputs, Vec<Layout>) {
    let index = candle_core::Tensor::new(order, &candle_core::Device::Cpu).unwrap();
    let pick = |t: &candle_core::Tensor| t.index_select(&index, 0).unwrap();
    let inputs = match inputs {
        Inputs::Pixels(p) => Inputs::Pixels(pick(p)),
        Inputs::Tokens { ids, types, mask } => Inputs::Tokens { ids: pick(ids), types: pick(types), mask: pick(mask) },
        Inputs::Words { .. } => panic!("fixtures are pixels or token ids"),
    };
    (inputs, order.iter().map(|&i| layouts[i as usize].clone()).collect())
}

/// The same to the last bit. Candle's own product (`VITX_KERNELS=off`, processors without AVX2) sums few rows in another order
/// than many, so that a pass of fewer rows has other last bits there.
fn assert_same(what: &str, got: &[f32], want: &[f32]) {
    if vitx::nn::instructions().unwrap() == "portable" {
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        assert_close(what, &wide(got), &wide(want), 1e-5, 1e-4);
    } else {
        assert_eq!(got, want, "{what}");
    }
}

/// One row without its padding.
fn alone(inputs: &Inputs, layouts: &[Layout], row: usize) -> (Inputs, Vec<Layout>) {
    let inputs = inputs.example(row, layouts[row].len()).unwrap();
    (inputs, vec![layouts[row].clone()])
}

/// The `--method` string that stands for a method here: few samples, and no clamp that could leave an empty map.
pub(crate) fn quick(name: &str) -> String {
    match name {
        "rise" => "rise:n=24".into(),
        "smoothgrad" | "smoothgrad-squared" | "vargrad" => format!("{name}:n=4"),
        "integrated-gradients" => "integrated-gradients:steps=8".into(),
        "gradcam" | "gradcam-plusplus" | "hirescam" | "xgradcam" | "layercam" | "scorecam" => {
            format!("{name}:clamp=false")
        }
        _ => name.into(),
    }
}

/// Methods defined for a model.
fn defined(model: &Model) -> impl Iterator<Item = &'static method::Entry> {
    let facts = model.checkpoint.facts();
    method::all().filter(move |e| method::parse(&quick(e.name)).unwrap().method.check(&facts).is_ok())
}

#[test]
fn methods_keep_their_contract_on_every_family() {
    for name in CASES {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (inputs, layouts) = case.batch(&model);
        for entry in defined(&model) {
            let (what, spec) = (format!("{name} {}", entry.name), quick(entry.name));
            let base = explain(&model, &inputs, &layouts, &spec, &[0, 0]);
            for (map, layout) in base.iter().zip(&layouts) {
                assert_eq!(map.len(), layout.len(), "{what}: one value a token, none for padding");
                assert!(map.iter().all(|v| v.is_finite()), "{what}: finite");
            }
            let reads = method::parse(&spec).unwrap().method.reads();
            let again = explain_reading(reads, &model, &inputs, &layouts, &spec, &[0, 0]);
            for (base, again) in base.iter().zip(&again) {
                assert_same(&format!("{what}: when passes keep no more than it reads"), again, base);
            }

            let order = [1, 0, 0, 1, 1, 0, 1, 0];
            let (eight, eight_layouts) = rows(&inputs, &layouts, &order);
            let many = explain(&model, &eight, &eight_layouts, &spec, &[0; 8]);
            for (map, &row) in many.iter().zip(&order) {
                assert_eq!(map, &base[row as usize], "{what}: the same numbers in a batch of 8");
            }
            for (row, padded) in base.iter().enumerate() {
                let (one, layout) = alone(&inputs, &layouts, row);
                let single = explain(&model, &one, &layout, &spec, &[0]);
                let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                // Padding changes the shapes of sums, so the last bits may differ; images have none.
                let tolerance = match case.is_text() {
                    false => 0.0,
                    // It divides by sums that nearly vanish; Grad-CAM++ by differences.
                    true if ["xgradcam", "gradcam-plusplus"].contains(&entry.name) => 2e-3,
                    true => 2e-5,
                };
                assert_close(&format!("{what}: alone"), &wide(&single[0]), &wide(padded), tolerance * 0.1, tolerance);
            }

            let other = explain(&model, &inputs, &layouts, &spec, &[1, 1]);
            assert_eq!(base != other, entry.class_specific, "{what}: class_specific");
        }
    }
}

#[test]
fn settings_of_methods_read_what_they_say() {
    let specs = [
        "aggregate:heads=mean,layers=rollout",
        "aggregate:heads=grad,layers=gae",
        "fullgrad:score=probability",
        "hirescam:libra=true",
        "gradcam:where=hidden,layer=0",
        "gradient-x-input:at=embedding",
        "attn-lrp:rules=gamma",
        "scorecam:layer=0",
        "legrad:pool=mean",
        "partial-lrp:rules=baseline",
    ];
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let (inputs, layouts) = case.batch(&model);
    for spec in specs {
        let reads = method::parse(spec).unwrap().method.reads();
        assert!(reads < Reads::Everything, "{spec}");
        let less = explain_reading(reads, &model, &inputs, &layouts, spec, &[0, 0]);
        for (less, all) in less.iter().zip(&explain(&model, &inputs, &layouts, spec, &[0, 0])) {
            assert_same(spec, less, all);
        }
    }
}

/// Layers that are computed anew, gradients that are dropped on the way down and rows that nobody reads change no bit.
#[test]
fn what_a_pass_does_not_keep_changes_nothing() {
    let none = Some(Memory { kept: 0, most: usize::MAX });
    for name in CASES {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (inputs, layouts) = rows(&case.batch(&model).0, &case.batch(&model).1, &[0]);
        for entry in defined(&model) {
            let configured = method::parse(&quick(entry.name)).unwrap();
            let (reads, top_down) = (configured.method.reads(), configured.method.top_down());
            let explained = |batch: Batch<'_>| {
                let pass = batch.pass(vec![Output::of(0)]).unwrap();
                configured.explain(&pass.run(0)).unwrap().relevance
            };
            let batch = || Batch::new(&model.encoder, inputs.clone(), layouts.clone()).unwrap();
            let whole = explained(batch());
            assert_same(
                &format!("{name}, {}", entry.name),
                &explained(batch().reading(reads).top_down(top_down)),
                &whole,
            );
            let anew = explained(batch().reading(reads).top_down(top_down).within(none));
            assert_same(&format!("{name}, {}: anew", entry.name), &anew, &whole);
            // One that says it goes down and does not is slow, and right.
            let down = explained(batch().reading(reads).top_down(true));
            assert_same(&format!("{name}, {}: top down", entry.name), &down, &whole);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_tried() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let (inputs, layouts) = case.batch(&model);
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap().within(Memory::parse("1K").ok());
    let error = batch.logits().unwrap_err().to_string();
    assert!(error.contains("GiB") && error.contains("--memory"), "{error}");
}

#[test]
fn prefix_tokens_are_dropped_by_the_layout() {
    for (name, prefix) in [("vit-square", 1), ("deit-distilled", 2), ("dinov2", 1), ("dinov2-registers", 5)] {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (_, layouts) = case.batch(&model);
        let Layout::Image(image) = &layouts[0] else { panic!() };
        assert_eq!(image.prefix.len(), prefix, "{name}");
        let grid: Vec<u64> = case.json["grid"].as_array().unwrap().iter().map(|g| g.as_u64().unwrap()).collect();
        assert_eq!([image.grid.0 as u64, image.grid.1 as u64], grid[..], "{name}");
    }
}

#[test]
fn a_contrast_is_the_difference_of_two_seeds() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F64);
    let (inputs, layouts) = case.batch(&model);
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    let gradient = |class, against| {
        let pass = batch.pass(vec![Output { against, ..Output::of(class) }; 2]).unwrap();
        flat(&pass.run(0).attention_gradient(1).unwrap())
    };
    let difference: Vec<f64> = gradient(2, None).iter().zip(gradient(4, None)).map(|(a, b)| a - b).collect();
    assert_close("contrast", &gradient(2, Some(4)), &difference, 1e-12, 1e-12);
}

/// Parts of a batch that run side by side give the numbers of the whole, to the last bit.
#[test]
fn logits_alone_equal_those_of_the_recorded_pass() {
    for name in CASES {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (inputs, layouts) = case.batch(&model);
        let n = layouts.len() as u32;
        for copies in [1, 3, 4] {
            let order: Vec<u32> = (0..n * copies).map(|i| i % n).collect();
            let (many, _) = rows(&inputs, &layouts, &order);
            let recorded = model.encoder.forward(&many, Keep::Layers).unwrap().logits;
            let numbers = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_same(name, &numbers(&model.encoder.logits(&many).unwrap()), &numbers(&recorded));
        }
        assert_eq!(model.encoder.passes.counts().0, 6, "a batch counts once");
    }
}

#[cfg(feature = "demo")]
#[test]
fn one_forward_and_one_reverse_pass_serve_every_method_that_needs_no_other() {
    use vitx::model::{Access, Checkpoint, Processor};
    let checkpoint = Checkpoint::open("demo-vit", &Access::default()).unwrap();
    let model = checkpoint.load(DType::F32, &candle_core::Device::Cpu).unwrap();
    let Processor::Image(processor) = &model.checkpoint.processor else { panic!() };
    let picture = vitx::input::image::decode(&std::fs::read(root().join("assets/flower.jpg")).unwrap()).unwrap();
    let (inputs, layouts) = model.image_inputs(&[processor.apply(&picture).unwrap()]).unwrap();
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    let pass = batch.pass(vec![Output::of(5)]).unwrap();
    let own_passes = ["perturbation", "class activation maps"];
    let own = |e: &method::Entry| {
        method::group(e).is_some_and(|g| own_passes.contains(&g.name)) && e.name != "gradcam"
            || ["smoothgrad", "smoothgrad-squared", "vargrad", "integrated-gradients"].contains(&e.name)
            || ["beyond-intuition", "iia2"].contains(&e.name)
    };
    let mut rules = Vec::new();
    for entry in defined(&model).filter(|e| !own(e)) {
        let configured = method::parse(entry.name).unwrap();
        configured.explain(&pass.run(0)).unwrap();
        rules.extend(configured.method.rules().iter().map(|r| r.name));
    }
    rules.sort_unstable();
    rules.dedup();
    assert_eq!(rules, ["attn-lrp", "cp-lrp", "gradient", "reslrp", "transformer-attribution"]);
    assert_eq!(model.encoder.passes.counts(), (1, rules.len()), "one reverse pass a rule set");
}

#[test]
fn globenc_is_refused_where_it_is_not_defined() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let (inputs, layouts) = case.batch(&model);
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    let pass = batch.pass(vec![Output::of(0); 2]).unwrap();
    let error = method::parse("globenc").unwrap().explain(&pass.run(0)).unwrap_err().to_string();
    assert!(error.contains("BERT"), "{error}");
}

#[test]
fn any_output_token_can_be_explained() {
    for name in ["vit-rect", "bert"] {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (inputs, layouts) = case.batch(&model);
        let n = layouts[0].len();
        let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
        let outputs = vec![Output::of(0); 2];
        let pass = batch.pass(outputs.clone()).unwrap();
        let other = batch.pass(outputs.clone()).unwrap().with_rows(vec![Some(3), None]).unwrap();
        for entry in defined(&model) {
            if method::parse(entry.name).unwrap().method.rows().is_none() {
                let refused = method::parse(entry.name).unwrap().explain(&other.run(0)).unwrap_err().to_string();
                assert!(refused.contains("--row"), "{refused}");
                continue;
            }
            let relevance = |spec: &str, pass: &vitx::run::Pass<'_>| {
                method::parse(spec).unwrap().explain(&pass.run(0)).unwrap().relevance
            };
            let row = relevance(&format!("{}:row=3", entry.name), &pass);
            assert_eq!(row, relevance(entry.name, &other), "{name} {}: the run's row is the parameter's", entry.name);
            let matrix = relevance(&format!("{}:matrix=true", entry.name), &pass);
            assert_eq!(matrix.len(), n * n);
            let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let of_matrix = &matrix[3 * n..4 * n];
            assert_close(&format!("{name} {}", entry.name), &wide(of_matrix), &wide(&row), 1e-6, 1e-4);
        }
        assert!(batch.pass(outputs).unwrap().with_rows(vec![Some(99), None]).is_err());
    }
}

#[test]
fn a_row_that_is_not_there_is_refused() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let (inputs, layouts) = case.batch(&model);
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    let pass = batch.pass(vec![Output::of(0); 2]).unwrap();
    for (spec, part) in [("gae:row=distillation", "no distillation token"), ("gae:row=17", "tokens 0 to 16")] {
        let error = method::parse(spec).unwrap().explain(&pass.run(0)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_front_ends_share_may_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Model>();
    crosses::<vitx::model::Checkpoint>();
    crosses::<method::Configured>();
    crosses::<vitx::evaluate::Configured>();
    crosses::<vitx::evaluate::Candidate>();
    crosses::<vitx::explanation::Explanation>();
    crosses::<vitx::Error>();
}
