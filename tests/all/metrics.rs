//! Metrics against the independent reference, on its injected maps.

use crate::support::*;
use candle_core::DType;
use vitx::encoder::Inputs;
use vitx::evaluate::mask::Place;
use vitx::evaluate::{self, Candidate, Case as Judged, Score, Truth};
use vitx::explanation::{Explanation, PixelMap};
use vitx::run::{Batch, Run};
use vitx::target::Output;

/// An explanation whose relevance is the fixture's injected map.
fn injected(case: &Case, run: &Run<'_>, pixel_map: bool) -> Explanation {
    let map = flat(&case.inputs["noise.metric-map"].get(run.number()).unwrap());
    let own: Vec<f32> = map.into_iter().map(|v| v as f32).collect();
    let prefix = run.tokens() - if case.is_text() { run.tokens() } else { own.len() };
    let relevance = std::iter::repeat_n(0.0, prefix).chain(own).take(run.tokens()).collect();
    let pixels = (pixel_map && !case.is_text()).then(|| {
        let map = case.inputs["noise.metric-pixel-map"].get(run.number()).unwrap();
        let size = map.dims2().unwrap();
        PixelMap { values: flat(&map).into_iter().map(|v| v as f32).collect(), size, drawn: true }
    });
    Explanation {
        method: "injected",
        params: Default::default(),
        output: run.output(),
        relevance,
        pixels,
        checks: Default::default(),
        layout: run.layout().clone(),
        matrix: false,
        signed: false,
    }
}

fn score(case: &Case, run: &Run<'_>, spec: &str, pixel_map: bool) -> Score {
    let explanation = injected(case, run, pixel_map);
    let mask = case.inputs.get("noise.metric-mask").map(|m| flat(&m.get(run.number()).unwrap()));
    let place = |v: &f64| if *v > 0.0 { Place::Object } else { Place::Background };
    let truth = Truth { mask: mask.map(|m| m.iter().map(place).collect()), rationale: None };
    let judged = Judged { run, explanation: &explanation, truth: &truth, candidate: &Candidate::Gaussian };
    let metric = evaluate::parse(spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
    metric.score(&judged).unwrap().expect("a score")
}

/// The metric of an array, whether it reads the pixel map, and which part of the score the array holds.
fn how(key: &str) -> Option<(String, bool, &'static str)> {
    let parts: Vec<&str> = key.split('.').collect();
    let has = |p: &str| parts.contains(&p);
    let value = ["prob", "logit", "hit"].into_iter().find(|v| has(v));
    let value = value.map(|v| if v == "prob" { "probability" } else { v }).unwrap_or_default();
    let auc = if has("mean") { "mean" } else { "nine" };
    let part = if has("auc") || has("mean") { "value" } else { "curve" };
    Some(match parts[0] {
        "deletion" => {
            let size = if has("step3") { 3 } else { 1 };
            (format!("deletion:baseline=zero,patches={size},value={value}"), false, part)
        }
        "insertion" => {
            let start = if has("zero") { "zero" } else { "blur" };
            let size = if has("step3") { 3 } else { 1 };
            (format!("insertion:baseline={start},patches={size},value={value}"), false, part)
        }
        "perturbation" | "perturbation-patch" => {
            let level = if parts[0] == "perturbation" { "pixel" } else { "patch" };
            (format!("{}:level={level},value={value},auc={auc}", parts[1]), level == "pixel", part)
        }
        "segmentation" | "segmentation-pixel" => {
            let pixel = parts[0] == "segmentation-pixel";
            match parts[1] {
                "pixel-accuracy" => ("pixel-accuracy".into(), pixel, "value"),
                "miou" => ("miou".into(), pixel, "value"),
                "iou" => ("miou".into(), pixel, "iou"),
                "f1" => ("miou".into(), pixel, "f1"),
                "ap" => ("average-precision".into(), pixel, "value"),
                _ => return None, // over the whole data set
            }
        }
        "pointing-game" if has("energy") => ("mass-inside".into(), true, "value"),
        "pointing-game" if has("tolerance") => ("pointing-game:tolerance=3".into(), true, "value"),
        "pointing-game" => ("pointing-game".into(), true, "value"),
        "eraser" => {
            let part = if has("aopc") { "value" } else { "curve" };
            (format!("{}:removal={}", parts[2], parts[1]), false, part)
        }
        other => panic!("no metric for {other}"),
    })
}

fn part_of(score: Score, part: &str) -> Vec<f64> {
    match part {
        "value" => vec![score.value],
        "curve" => score.curve,
        "iou" => vec![score.counts[0] / score.counts[2], score.counts[1] / score.counts[3]],
        // 2 TP / (predicted + true), from intersection and union of the object
        _ => vec![2.0 * score.counts[1] / (score.counts[3] + score.counts[1])],
    }
}

#[test]
fn every_metric_array_equals_the_reference() {
    let mut seen = 0;
    for name in CASES {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (batch, outputs) = case.asked(&model);
        let pass = batch.pass(outputs).unwrap();
        for (key, array) in case.json["methods"].as_object().unwrap() {
            let Some(bare) = key.strip_prefix("metric.") else { continue };
            let (atol, rtol) = (array["atol"].as_f64().unwrap(), array["rtol"].as_f64().unwrap());
            let want = &case.expected[key];
            let Some((spec, pixel_map, part)) = how(bare) else {
                let pooled = |spec: &str| {
                    let scores: Vec<Score> = (0..2)
                        .map(|row| score(&case, &pass.run(row), spec, bare.starts_with("segmentation-pixel")))
                        .collect();
                    (evaluate::parse(spec).unwrap().entry.pool)(&scores.iter().collect::<Vec<_>>())
                };
                let got = ["pixel-accuracy", "miou", "average-precision"].map(pooled);
                assert_close(&format!("{name} {key}"), &got, &flat(want), atol, rtol);
                continue;
            };
            for row in 0..2 {
                let got = part_of(score(&case, &pass.run(row), &spec, pixel_map), part);
                let want = flat(&want.get(row).unwrap());
                assert_close(&format!("{name} {key} as {spec} row {row}"), &got, &want, atol.max(1e-7), rtol);
                seen += 1;
            }
        }
    }
    assert!(seen > 400, "{seen} arrays compared");
}

#[test]
fn an_order_and_its_reverse_mirror_each_other() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let (inputs, layouts) = case.batch(&model);
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    let pass = batch.pass(vec![Output::of(1); 2]).unwrap();
    let run = pass.run(0);
    let mut explanation = injected(&case, &run, false);
    let truth = Truth::default();
    let of = |spec: &str, e: &Explanation| {
        let judged = Judged { run: &run, explanation: e, truth: &truth, candidate: &Candidate::Gaussian };
        evaluate::parse(spec).unwrap().score(&judged).unwrap()
    };
    let specs = ["srg", "road"];
    let before = specs.map(|s| of(s, &explanation).unwrap().value);
    let (positive, negative) = (of("positive:level=patch", &explanation), of("negative:level=patch", &explanation));
    explanation.relevance.iter_mut().for_each(|r| *r = -*r);
    for (spec, before) in specs.iter().zip(before) {
        let after = of(spec, &explanation).unwrap().value;
        assert!((before + after).abs() < 1e-6, "{spec}: {before} and {after}");
    }
    assert_eq!(of("positive:level=patch", &explanation).map(|s| s.curve), negative.map(|s| s.curve));
    assert_eq!(of("negative:level=patch", &explanation).map(|s| s.curve), positive.map(|s| s.curve));
    assert!(of("pointing-game", &explanation).is_none(), "no mask, no score");
}

#[test]
fn a_steady_map_is_less_sensitive_than_a_gradient() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let (inputs, layouts) = case.batch(&model);
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    let pass = batch.pass(vec![Output::of(1); 2]).unwrap();
    let of = |candidate: Candidate| {
        let run = pass.run(0);
        let explanation = candidate.explain(&run).unwrap();
        let truth = Truth::default();
        let judged = Judged { run: &run, explanation: &explanation, truth: &truth, candidate: &candidate };
        evaluate::parse("max-sensitivity:n=4").unwrap().score(&judged).unwrap().unwrap().value
    };
    let method = |spec: &str| Candidate::Method(vitx::method::parse(spec).unwrap());
    let (steady, gradient) = (of(Candidate::Gaussian), of(method("gradient")));
    assert_eq!(steady, 0.0);
    assert!(gradient > 0.0 && gradient < 1.0, "{gradient}");
    assert!(of(Candidate::Random) > gradient, "random maps change altogether");
}

#[test]
fn judging_together_gives_each_its_own_score() {
    use vitx::evaluate::judge::{judge, Waiting};
    for (name, metrics) in [
        ("vit-rect", ["deletion:patches=3", "positive", "road", "sparseness"]),
        ("bert", ["comprehensiveness", "sufficiency:removal=mask", "negative", "max-sensitivity:n=2"]),
    ] {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (inputs, layouts) = case.batch(&model);
        let alone = |row: usize| {
            let inputs = inputs.example(row, layouts[row].len()).unwrap();
            Batch::new(&model.encoder, inputs, vec![layouts[row].clone()]).unwrap()
        };
        let batches = [alone(0), alone(1)];
        let metrics: Vec<_> = metrics.iter().map(|m| evaluate::parse(m).unwrap()).collect();
        let candidates =
            [Candidate::Random, Candidate::Gaussian, Candidate::Method(vitx::method::parse("gae").unwrap())];
        let (truth, output) = (Truth::default(), Output::of(1));
        let mut waiting = Vec::new();
        let mut direct = Vec::new();
        for batch in &batches {
            for candidate in &candidates {
                let pass = batch.pass(vec![output]).unwrap();
                let run = pass.run(0);
                let explanation = candidate.explain(&run).unwrap();
                let judged = Judged { run: &run, explanation: &explanation, truth: &truth, candidate };
                direct.push(metrics.iter().map(|m| m.score(&judged).unwrap()).collect::<Vec<_>>());
                waiting.push(Waiting { batch, output, explanation, truth: &truth, candidate });
            }
        }
        let before = model.encoder.passes.counts().0;
        let together = judge(&model.encoder, &waiting, &metrics).unwrap();
        let passes = model.encoder.passes.counts().0 - before;
        for (own, direct) in together.into_iter().zip(direct) {
            for (own, direct) in own.into_iter().zip(direct) {
                let value = |s: Option<Score>| s.map_or(vec![], |s| [vec![s.value], s.curve, s.at, s.counts].concat());
                assert_eq!(value(own.unwrap()), value(direct), "{name}: to the last bit");
            }
        }
        // Many inputs a pass; max-sensitivity runs its own.
        assert!(passes < 40, "{name}: {passes} passes");
    }
}

#[test]
fn an_input_that_blows_up_does_not_take_the_others_along() {
    use vitx::evaluate::judge::{judge, Waiting};
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let (inputs, layouts) = case.batch(&model);
    let alone = |inputs: Inputs, row: usize| Batch::new(&model.encoder, inputs, vec![layouts[row].clone()]).unwrap();
    let Inputs::Pixels(bad) = inputs.example(1, 0).unwrap() else { panic!() };
    let batches = [alone(inputs.example(0, 0).unwrap(), 0), alone(Inputs::Pixels((bad * f64::NAN).unwrap()), 1)];
    let (truth, output) = (Truth::default(), Output::of(1));
    let sound = batches[0].pass(vec![output]).unwrap();
    let candidate = Candidate::Gaussian;
    let waiting = batches.iter().map(|batch| {
        let explanation = candidate.explain(&sound.run(0)).unwrap();
        Waiting { batch, output, explanation, truth: &truth, candidate: &candidate }
    });
    let metrics = [evaluate::parse("insertion").unwrap()];
    let scores = judge(&model.encoder, &waiting.collect::<Vec<_>>(), &metrics).unwrap();
    assert!(scores[0][0].as_ref().is_ok_and(|s| s.as_ref().is_some_and(|s| s.value.is_finite())));
    assert!(scores[1][0].as_ref().is_err_and(|e| e.to_string().contains("not finite")), "{:?}", scores[1][0]);
}

#[test]
fn what_belongs_to_another_input_is_refused() {
    for name in ["vit-square", "bert"] {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (inputs, layouts) = case.batch(&model);
        let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
        let pass = batch.pass(vec![Output::of(1); 2]).unwrap();
        let run = pass.run(0);
        let own = Candidate::Gaussian.explain(&run).unwrap();
        let shorter = Explanation { relevance: own.relevance[1..].to_vec(), ..own.clone() };
        let none = Truth::default();
        let mask = Truth { mask: Some(vec![Place::Object; 3]), ..Truth::default() };
        let rationale = Truth { rationale: Some(vec![true; 3]), ..Truth::default() };
        let (ranking, truth, what) = match case.is_text() {
            true => ("comprehensiveness", &rationale, "the rationale has 3 entries"),
            false => ("deletion", &mask, "the mask has 3 entries"),
        };
        for (spec, explanation, truth, what) in
            [(ranking, &shorter, &none, "the explanation has"), ("sparseness", &own, truth, what)]
        {
            let judged = Judged { run: &run, explanation, truth, candidate: &Candidate::Gaussian };
            let error = evaluate::parse(spec).unwrap().score(&judged).unwrap_err().to_string();
            assert!(error.contains(what), "{name} {spec}: {error}");
        }
        assert!(Batch::new(&model.encoder, batch_of_none(&case, &model), Vec::new()).is_err(), "{name}");
    }
}

/// A batch of no inputs.
fn batch_of_none(case: &Case, model: &vitx::model::Model) -> Inputs {
    case.batch(model).0.rows(0..0).unwrap()
}
