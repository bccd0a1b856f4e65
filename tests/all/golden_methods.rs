//! Gradients, CAMs, perturbation and relevance propagation against the independent reference: every array of every case.

use crate::support::*;
use candle_core::{DType, Tensor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use vitx::explanation::{Explanation, Layout};
use vitx::method::cam::scorecam::ScoreCam;
use vitx::method::gradient::integrated_gradients::IntegratedGradients;
use vitx::method::gradient::smoothgrad::{Kind, SmoothGrad};
use vitx::method::perturbation::rise::Rise;
use vitx::method::perturbation::vit_cx::VitCx;
use vitx::method::{self, account};
use vitx::model::Model;
use vitx::nn::{residual, Rules};
use vitx::run::{Batch, Noise, Params, Run};
use vitx::target::Output;

/// What of an explanation an array holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    /// Patches, or all tokens of a text.
    Content,
    /// All tokens.
    Tokens,
    Pixels,
    Check(&'static str),
}

/// The `--method` string of an array that is part of an explanation, and which part; none for intermediate results.
fn spec(key: &str, array: &Value, text: bool) -> Option<(String, Part)> {
    let params = &array["params"];
    let number = |k: &str| params[k].as_f64().map(|n| n.to_string()).unwrap_or_default();
    let parts: Vec<&str> = key.split('.').collect();
    // A gamma of 0.25 has a dot of its own.
    let has = |p: &str| parts.contains(&p);
    let mut part = match () {
        () if has("tokens") => Part::Tokens,
        () if has("map") || has("pixels") => Part::Pixels,
        () if has("gap") => Part::Check("completeness_delta"),
        () => Part::Content,
    };
    let method = if parts[0] == "libra" { parts[1] } else { parts[0] };
    let mut spec: Vec<String> = Vec::new();
    if parts[0] == "libra" {
        spec.push("libra=true".into());
    }
    match method {
        "states" | "constants" | "completeness" => return None,
        "gradient" if has("l1") => spec.push("norm=l1".into()),
        "gradient" if !has("l2") && part == Part::Content && !has("patch") => return None,
        "gradient-x-input" if has("input") => spec.push("at=input".into()),
        "gradient-x-input" if has("l2") => spec.push("reduce=l2".into()),
        "gradient-x-input" if !text && parts.len() == 1 => return None,
        "smoothgrad" | "smoothgrad-squared" | "vargrad" => {
            if parts.len() == 1 {
                return None;
            }
            spec.push(format!("n={},spread={}", number("n"), number("spread")));
        }
        "integrated-gradients" => {
            if !text && parts.len() == 3 {
                return None;
            }
            let (rule, steps) = parts[2].rsplit_once('-').unwrap();
            spec.push(format!("baseline={},quadrature={rule},steps={steps}", parts[1]));
            if has("l2") {
                spec.push("reduce=l2".into());
            }
        }
        "gradcam" | "gradcam-plusplus" | "hirescam" | "xgradcam" | "layercam" | "eigencam" if parts[0] != "libra" => {
            let place = params["where"].as_str().unwrap();
            spec.push(format!("layer={},where={place},clamp={}", number("layer"), !has("signed")));
        }
        "scorecam" if has("logits") || has("weights") => return None,
        "scorecam" => spec.push(format!("clamp={}", !has("signed"))),
        "vit-cx" if parts.len() == 1 => part = Part::Pixels,
        "vit-cx" if !has("patch") => return None,
        "rise" => {
            if has("masks") || has("scores") {
                return None;
            }
            let keep = number("keep_probability");
            spec.push(format!("n={},cells={},keep_probability={keep}", number("n"), number("cells")));
            part = if has("patch") { Part::Content } else { Part::Pixels };
        }
        "occlusion" => {
            spec.push(format!("window={},baseline={}", number("window"), if has("zero") { "zero" } else { "mean" }));
            spec.push(format!("score={}", if has("prob") { "probability" } else { "logit" }));
        }
        "leave-one-out" => {
            spec.push(format!("replace={}", parts[1]));
            spec.push(format!("score={}", if has("prob") { "probability" } else { "logit" }));
        }
        "lrp" if has("tokens") || has("attention-relevance") => return None,
        "lrp" => {
            spec.push(format!("start_layer={},row_normalise={}", number("start_layer"), params["row_normalise"]));
        }
        "partial-lrp" if has("baseline-rules") => spec.push("rules=baseline".into()),
        "full-lrp" if !has("patch") => part = Part::Pixels,
        "attn-lrp" => {
            spec.push(format!("rules={}", params["rules"].as_str().unwrap()));
            if has("gamma") {
                spec.push(format!("gamma_linear={},gamma_conv={}", number("gamma_linear"), number("gamma_conv")));
            }
        }
        "cp-lrp" | "reslrp" if has("terms") || has("cancellation") || has("amplification") => return None,
        "cp-lrp" => spec.push(format!("identity={}", has("identity"))),
        "reslrp" => spec.push(format!("gamma={},cp={}", number("gamma"), has("cp"))),
        "legrad" if has("layers") => return None,
        "legrad" => {
            let pool = if has("mean-pool") { "mean" } else { "head" };
            spec.push(format!("first_layer={},pool={pool}", number("first_layer")));
        }
        "attcat" if has("output") => spec.push("state=output".into()),
        "attcat" if has("official") => spec.push("state=official".into()),
        "fullgrad-plus" if has("prob") => spec.push("score=probability".into()),
        "beyond-intuition" => {
            spec.push(format!("kind={},start_layer={}", parts[1], number("start_layer")));
            spec.push(format!("steps={}", number("steps")));
            if has("class-and-patches") {
                spec.push("read=class-and-patches".into());
            }
        }
        "iia2" => spec.push(format!("steps={}", number("steps"))),
        _ => {}
    }
    if part == Part::Tokens && ["attn-lrp", "cp-lrp", "reslrp"].contains(&method) {
        spec.push("at=embedding".into());
    }
    Some((format!("{method}:{}", spec.join(",")), part))
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn part_of(e: &Explanation, part: Part) -> Vec<f64> {
    match part {
        Part::Content => wide(e.content()),
        Part::Tokens => wide(&e.relevance),
        Part::Pixels => wide(&e.pixels.as_ref().expect("a pixel map").values),
        Part::Check(name) => vec![e.checks[name].as_f64().unwrap()],
    }
}

/// A row of an expected array; of texts without its padding, which must be 0. The token axis is `axis` (of the row).
fn expected(case: &Case, key: &str, row: usize, axis: Option<usize>, n: usize) -> Vec<f64> {
    let all = case.expected[key].get(row).unwrap();
    let Some(axis) = axis.filter(|a| case.is_text() && all.rank() > *a) else { return flat(&all) };
    let part = all.narrow(axis, 0, n).unwrap().contiguous().unwrap();
    let size = |t: &Tensor| flat(t).iter().map(|v| v.abs()).sum::<f64>();
    assert!((size(&all) - size(&part)).abs() < 1e-9, "{key}: padding is not zero");
    flat(&part)
}

/// The fixture's noise as one row sees it.
fn noise(case: &Case, row: usize, n: usize) -> Noise {
    let mut given = HashMap::new();
    for (key, tensor) in &case.inputs {
        let Some(name) = key.strip_prefix("noise.") else { continue };
        let own = match name {
            "smoothgrad" => {
                let own = tensor.narrow(1, row, 1).unwrap().squeeze(1).unwrap();
                if case.is_text() {
                    own.narrow(1, 0, n).unwrap()
                } else {
                    own
                }
            }
            _ => tensor.clone(),
        };
        given.insert(name.to_string(), own);
    }
    Noise::given(given)
}

/// Arrays that `golden.rs` does not compare.
fn is_ours(key: &str, array: &Value) -> bool {
    let name = array["method"].as_str().unwrap();
    key.starts_with("method.libra") || !crate::golden::ATTENTION_METHODS.contains(&name) && method::find(name).is_ok()
}

#[test]
fn every_array_of_every_method_equals_the_reference() {
    let mut seen: BTreeMap<&'static str, BTreeSet<&str>> = BTreeMap::new();
    for name in CASES {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (inputs, layouts) = case.batch(&model);
        let outputs: Vec<Output> = case.targets().iter().map(|&class| Output::of(class)).collect();
        for (row, layout) in layouts.iter().enumerate() {
            let n = layout.len();
            let batch = Batch::new(&model.encoder, inputs.clone(), layouts.clone()).unwrap();
            let batch = batch.with_noise(noise(&case, row, n));
            let pass = batch.pass(outputs.clone()).unwrap();
            let run = pass.run(row);
            for (key, array) in case.json["methods"].as_object().unwrap() {
                let Some(bare) = key.strip_prefix("method.").filter(|_| is_ours(key, array)) else { continue };
                let (atol, rtol) = (array["atol"].as_f64().unwrap(), array["rtol"].as_f64().unwrap());
                let Some((spec, part)) = spec(bare, array, case.is_text()) else {
                    let (got, want) = intermediate(&case, &model, &run, key, array);
                    assert_close(&format!("{name} {key} row {row}"), &got, &want, atol, rtol);
                    continue;
                };
                let configured = method::parse(&spec).unwrap_or_else(|e| panic!("{key} as {spec}: {e}"));
                seen.entry(configured.entry.name).or_default().insert(name);
                let explanation = configured.explain(&run).unwrap_or_else(|e| panic!("{name} {key} as {spec}: {e}"));
                let want = expected(&case, key, row, Some(0), n);
                let what = format!("{name} {key} [{spec}] row {row}");
                assert_close(&what, &part_of(&explanation, part), &want, atol, rtol);
                if bare == configured.entry.name && part != Part::Pixels && !["eigencam", "rise"].contains(&bare) {
                    let plain = method::parse(bare).unwrap().explain(&run).unwrap();
                    assert_close(&format!("{what}, no parameters"), &part_of(&plain, part), &want, atol, rtol);
                }
            }
        }
    }
    let missing: Vec<_> = method::all().filter(|e| !seen.contains_key(e.name)).map(|e| e.name).collect();
    let elsewhere: Vec<_> = missing.iter().filter(|m| !crate::golden::ATTENTION_METHODS.contains(m)).collect();
    assert!(elsewhere.is_empty(), "methods without golden arrays: {elsewhere:?}");
    let few: Vec<_> = seen.iter().filter(|(_, cases)| cases.len() < 3).collect();
    assert!(few.is_empty(), "golden arrays in few cases: {few:?}");
}

fn params(text: &str) -> Params {
    Params::parse("test", text).unwrap()
}

/// Arrays that are steps of a method, not its result.
fn intermediate(case: &Case, model: &Model, run: &Run<'_>, key: &str, array: &Value) -> (Vec<f64>, Vec<f64>) {
    let (row, n) = (run.number(), run.tokens());
    let bare = key.strip_prefix("method.").unwrap();
    let parts: Vec<&str> = bare.split('.').collect();
    let number = |k: &str| array["params"][k].as_f64().map(|n| n.to_string()).unwrap_or_default();
    let libra = || run.reverse(&Rules::LIBRA).unwrap();
    let layers = run.layers();
    let share = |l: usize| {
        let (state, gradient) = run.state_and(&libra(), l).unwrap();
        (state * gradient).unwrap().sum(1).unwrap()
    };
    let own = |axis| expected(case, key, row, Some(axis), n);
    match (parts[0], parts.last().copied().unwrap()) {
        ("gradient", _) => (flat(&run.input_under(&Rules::GRADIENT).unwrap()), own(0)),
        ("gradient-x-input", _) => {
            let product = run.subject().unwrap().values().unwrap() * run.input_under(&Rules::GRADIENT).unwrap();
            (flat(&product.unwrap()), own(0))
        }
        ("smoothgrad" | "smoothgrad-squared" | "vargrad", _) => {
            let kind = match parts[0] {
                "smoothgrad" => Kind::Mean,
                "vargrad" => Kind::Variance,
                _ => Kind::Squared,
            };
            let text = format!("n={},spread={}", number("n"), number("spread"));
            (flat(&SmoothGrad::read(kind, &mut params(&text)).unwrap().joined(run).unwrap()), own(0))
        }
        ("integrated-gradients", _) => {
            let (rule, steps) = parts[2].rsplit_once('-').unwrap();
            let text = format!("baseline={},quadrature={rule},steps={steps}", parts[1]);
            (flat(&IntegratedGradients::read(&mut params(&text)).unwrap().attribution(run).unwrap().0), own(0))
        }
        ("libra", "states") => (flat(&Tensor::stack(&(0..=layers).map(share).collect::<Vec<_>>(), 0).unwrap()), own(1)),
        ("libra", "constants") => (flat(&Tensor::stack(&run.constants(&libra()).unwrap(), 0).unwrap()), own(1)),
        ("libra", "completeness") => {
            let constants: Vec<f64> = run.constants(&libra()).unwrap().iter().map(|k| flat(k).iter().sum()).collect();
            let pair = |l: usize| [flat(&share(l)).iter().sum(), constants[l..].iter().sum::<f64>()];
            let pairs: Vec<[f64; 2]> = (0..=layers).map(pair).collect();
            for [states, constants] in &pairs {
                assert!((states + constants - run.logit().unwrap()).abs() < 1e-4, "{key}: the two add up to the logit");
            }
            (pairs.concat(), expected(case, key, row, None, n))
        }
        ("cp-lrp" | "reslrp", "terms") => {
            let rules = match bare {
                "cp-lrp.terms" => Rules::CP_LRP,
                "cp-lrp.identity.terms" => Rules::LIBRA,
                "reslrp.cp.terms" => Rules::reslrp_cp(1.0),
                _ => Rules::reslrp(1.0),
            };
            (account::terms(run, &rules).unwrap().to_vec(), expected(case, key, row, None, n))
        }
        ("reslrp", what) => (additions(run, what), expected(case, key, row, None, n)),
        ("scorecam", what) => {
            let scores = ScoreCam::read(&mut params("")).unwrap().channels(run).unwrap().1;
            let got = if what == "logits" { scores } else { vitx::scale::softmax(&scores) };
            (got, expected(case, key, row, None, n))
        }
        ("rise", what) => {
            let text = format!("n={},cells={}", number("n"), number("cells"));
            let (rise, subject) = (Rise::read(&mut params(&text)).unwrap(), run.subject().unwrap());
            let masks = rise.masks(run, subject.size().unwrap()).unwrap();
            match what {
                "masks" => {
                    let want = &case.expected[key];
                    (flat(&masks.range(0..want.dims()[0]).unwrap()), flat(want))
                }
                _ => (rise.scores(&subject, &masks).unwrap(), expected(case, key, row, None, n)),
            }
        }
        ("vit-cx", what) => {
            let causes = VitCx::read(&mut params("")).unwrap().causes(run).unwrap();
            let padded = |values: Vec<f64>, each: usize| {
                let count = case.expected[key].dims()[1];
                [values, vec![0.0; (count - causes.scores.len()) * each]].concat()
            };
            let got = match what {
                "feature-masks" if row == 0 => return (flat(&causes.features), flat(&case.expected[key])),
                "feature-masks" => return (vec![], vec![]),
                "labels" => causes.labels.iter().map(|&l| l as f64).collect(),
                "count" => vec![causes.scores.len() as f64],
                "masks" => {
                    let (h, w) = run.subject().unwrap().size().unwrap();
                    padded(flat(&causes.masks), h * w)
                }
                "p-masked" => padded(causes.masked.clone(), 1),
                "p-noisy" => padded(causes.noisy.clone(), 1),
                "scores" => padded(causes.scores.clone(), 1),
                other => panic!("{key}: no such step as {other}"),
            };
            (got, expected(case, key, row, None, n))
        }
        ("lrp", "tokens") => {
            let reversed = run.reverse(&Rules::TRANSFORMER_ATTRIBUTION).unwrap();
            (flat(&run.state_and(&reversed, 0).unwrap().1.sum(1).unwrap()), own(0))
        }
        ("lrp", layer) => {
            let relevance = run.attention_under(&Rules::TRANSFORMER_ATTRIBUTION, layer.parse().unwrap()).unwrap();
            let all = case.expected[key].get(row).unwrap();
            let part = all.narrow(1, 0, n).unwrap().narrow(2, 0, n).unwrap().contiguous().unwrap();
            (flat(&relevance), flat(&part))
        }
        ("legrad", "layers") => {
            // The mean from layer l on, times the number of layers, less the same from l + 1 on.
            let from = |l: usize| -> Vec<f64> {
                if l == layers {
                    return vec![0.0; n];
                }
                let e = method::parse(&format!("legrad:first_layer={l}")).unwrap().explain(run).unwrap();
                e.relevance.iter().map(|&v| f64::from(v) * (layers - l) as f64).collect()
            };
            let each = (0..layers).flat_map(|l| from(l).into_iter().zip(from(l + 1)).map(|(a, b)| a - b));
            (each.collect(), own(1))
        }
        _ => panic!("{} {key}: nothing compares this array ({:?})", case.name, model.checkpoint.family.name),
    }
}

/// Cancellation or amplification at each addition of the skip connections: attention then feed-forward, layer by layer.
fn additions(run: &Run<'_>, what: &str) -> Vec<f64> {
    let gamma = if what == "attn-lrp" { 0.0 } else { 1.0 };
    let rules = if gamma == 0.0 { Rules::ATTN_LRP } else { Rules::reslrp(gamma) };
    let reversed = run.reverse(&rules).unwrap();
    let size = |t: Tensor| flat(&t).iter().map(|v| v.abs()).sum::<f64>();
    let mut all = Vec::new();
    for l in 0..run.layers() {
        let (record, grads) = (&run.trace().unwrap().layers[l], run.carried(&reversed, l).unwrap());
        let state = |t: &Tensor| run.state(t).unwrap();
        let between = run.block(l).norm_behind_attention();
        let skip = between.map_or_else(|| record.mid.clone(), |norm| norm.forward(&record.mid).unwrap());
        for (a, b, g) in [
            (
                state(&record.input),
                state(&run.block(l).mixed(record).unwrap()),
                state(&grads.inside.as_ref().unwrap().mid),
            ),
            (state(&skip), state(&run.block(l).fed(record).unwrap()), state(&grads.inside.as_ref().unwrap().sum)),
        ] {
            let y = (&a + &b).unwrap();
            let (fa, fb) = residual::factors(&a, &b, gamma).unwrap();
            let share = |x: &Tensor, f: Tensor| size(((x * &g).unwrap() * f).unwrap());
            all.push(match what {
                "cancellation" => (size(a) + size(b)) / size(y),
                _ => (share(&a, fa) + share(&b, fb)) / size((&y * &g).unwrap()),
            });
        }
    }
    all
}

#[test]
fn integrated_gradients_are_complete_on_every_case() {
    for name in CASES {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (batch, outputs) = case.asked(&model);
        let pass = batch.pass(outputs).unwrap();
        for row in 0..2 {
            let e = method::parse("integrated-gradients:steps=64").unwrap().explain(&pass.run(row)).unwrap();
            let delta = e.checks["completeness_delta"].as_f64().unwrap();
            // DistilBERT's head has a ReLU: the integrand jumps, and no quadrature converges fast.
            let bound = if *name == "distilbert" { 5e-3 } else { 1e-3 };
            assert!(delta.abs() < bound, "{name} row {row}: {delta}");
        }
    }
}

#[test]
fn the_blur_equals_scipy_s() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F64);
    let pixels = case.inputs["pixel_values"].to_dtype(DType::F64).unwrap();
    for row in 0..2 {
        let own = pixels.get(row).unwrap();
        let blurred = vitx::run::baseline::ImageBaseline::Blur.of(&own, &model.encoder).unwrap();
        let want = case.inputs["noise.metric-blur"].get(row).unwrap();
        assert_close("blur", &flat(&blurred), &flat(&want), 1e-6, 1e-6);
    }
    assert!(matches!(case.batch(&model).1[0], Layout::Image(_)));
}
