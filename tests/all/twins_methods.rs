//! Naive twins of gradient, CAM, propagation and perturbation methods: the library's answers against those of a model
//! in plain loops (see `naive`).

use crate::naive::input::Naive;
use crate::naive::ops::{mean, Rules};
use crate::naive::twin::{gauss_legendre, heads, lengths, relu, scaled, sums, zip, Answer, Twin};
use crate::naive::{cams, Change, Vector};
use crate::support::*;
use crate::twins::plus;
use candle_core::DType;
use vitx::encoder::{Inputs, Pool};
use vitx::method;
use vitx::run::Batch;
use vitx::target::Output;

fn average(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn variance(x: &[f64]) -> f64 {
    x.iter().map(|v| (v - average(x)).powi(2)).sum::<f64>() / x.len() as f64
}

impl Twin<'_> {
    /// The twin's answer for a `--method` string; none for one it does not know.
    fn answer(&self, spec: &str) -> Option<Answer> {
        self.by_input(spec)
            .or_else(|| self.by_state(spec).or_else(|| self.perturbed(spec)).map(|tokens| (tokens, None)))
    }

    fn by_input(&self, spec: &str) -> Option<Answer> {
        let x = &self.naive.x;
        Some(match spec {
            "gradient" => self.largest(&self.gradient(x)),
            "gradient:norm=l1" => (sums(&zip(&self.gradient(x), x, |g, _| g.abs())), None),
            "gradient-x-input:reduce=l2" => (lengths(&zip(&self.gradient(x), x, |g, x| g * x)), None),
            "gradient-x-input" => self.propagated(Rules::Gradient),
            "gradient-x-input:libra=true,at=input" => self.propagated(Rules::Libra),
            "smoothgrad:n=3,spread=0.1" => self.smoothgrad(3, 0.1, average),
            "smoothgrad-squared:n=3" => {
                self.smoothgrad(3, 0.15, |g| average(&g.iter().map(|g| g * g).collect::<Vector>()))
            }
            "vargrad:n=3" => self.smoothgrad(3, 0.15, variance),
            "integrated-gradients:steps=5" => {
                self.summed(&self.integrated(&self.absence(self.run.encoder().neutral.pad_id), &gauss_legendre(5)))
            }
            "integrated-gradients:quadrature=midpoint,steps=4,baseline=zero" => {
                let nodes: Vec<(f64, f64)> = (1..=4).map(|k| ((f64::from(k) - 0.5) / 4.0, 0.25)).collect();
                self.summed(&self.integrated(&scaled(x, 0.0), &nodes))
            }
            "integrated-gradients:baseline=mask,steps=3,reduce=l2" => {
                let start = self.absence(self.run.encoder().neutral.mask_id.unwrap());
                (lengths(&self.integrated(&start, &gauss_legendre(3))), None)
            }
            "full-lrp" => self.propagated(Rules::Attribution),
            "attn-lrp" | "reslrp:gamma=0" => self.propagated(Rules::AttnLrp),
            "attn-lrp:rules=cp" | "cp-lrp:identity=true" => self.propagated(Rules::Libra),
            "attn-lrp:rules=gamma" => self.propagated(Rules::Gamma(0.05, 0.25)),
            "cp-lrp" => self.propagated(Rules::CpLrp),
            "reslrp" => self.propagated(Rules::ResLrp(1.0)),
            "reslrp:gamma=0.25" => self.propagated(Rules::ResLrp(0.25)),
            "reslrp:cp=true" => self.propagated(Rules::ResLrpCp(1.0)),
            "vit-cx" => self.vit_cx(0.1),
            "vit-cx:delta=0.3" => self.vit_cx(0.3),
            "rise:n=6,cells=3" => self.rise(6, 3, 0.5, true),
            "rise:n=4,cells=2,keep_probability=0.7,score=logit" => self.rise(4, 2, 0.7, false),
            _ => return None,
        })
    }

    fn by_state(&self, spec: &str) -> Option<Vector> {
        let (seed, last) = (self.seed(), self.layers - 1);
        let (gradient, libra) = (Rules::Gradient, Rules::Libra);
        let text = self.text().is_some();
        Some(match spec {
            "gradient-x-input:at=embedding" => self.share(0, &seed, gradient),
            "gradient-x-input:libra=true" => self.share(0, &seed, libra),
            "attn-lrp:at=embedding" => self.share(0, &seed, Rules::AttnLrp),
            "fullgrad" => self.fullgrad(1, &seed, gradient),
            "fullgrad:libra=true" => self.fullgrad(1, &seed, libra),
            "fullgrad-plus:libra=true" => self.fullgrad(self.layers, &seed, libra),
            "fullgrad-plus" => self.fullgrad(self.layers, &seed, gradient),
            "fullgrad-plus:libra=true,score=probability" => self.fullgrad(self.layers, &self.probability_seed(), libra),
            "attcat" => self.attcat(0, self.layers, gradient),
            "attcat:state=output,libra=true" => self.attcat(1, self.layers, libra),
            "attcat:state=official" => self.attcat(1, last, gradient),
            "gae:libra=true" => {
                let a = self.trace.layers.iter().map(|r| &r.attention).zip(self.attention(libra));
                self.multiplied(a.map(|(a, g)| heads(a, &g, |a, g| relu(a * g))).collect(), false)
            }
            "lrp" => self.lrp(0, text),
            "lrp:start_layer=1,row_normalise=true" => self.lrp(1, true),
            "partial-lrp" => self.partial_lrp(Rules::Attribution),
            "partial-lrp:rules=baseline" => self.partial_lrp(Rules::Baseline),
            "legrad" => self.legrad(0, false),
            "legrad:first_layer=last" => self.legrad(last, false),
            "legrad:pool=mean" => self.legrad(0, true),
            "tokentm" => self.tokentm(gradient),
            "tokentm:libra=true" => self.tokentm(libra),
            "beyond-intuition:steps=4" => {
                let start = if text { last } else { self.layers / 4 };
                self.beyond_intuition(4, start, |l| self.perception_by_heads(l))[0].clone()
            }
            "beyond-intuition:kind=token,steps=3" => {
                let start = if text { self.layers.saturating_sub(4) } else { self.layers / 2 };
                self.beyond_intuition(3, start, |l| self.perception_by_tokens(l))[0].clone()
            }
            "beyond-intuition:steps=3,read=class-and-patches" => {
                let product = self.beyond_intuition(3, self.layers / 4, |l| self.perception_by_heads(l));
                plus(&product[0], &mean(&product[self.image().0..]))
            }
            "iia2:steps=3" => self.iia2(3),
            "gradcam" => self.cam(self.point(), true, |_, g, _| average(g)),
            "gradcam:where=hidden,layer=1,clamp=false" => {
                self.cam(self.state(1, &seed, gradient), false, |_, g, _| average(g))
            }
            "gradcam:where=output,layer=0" => self.cam(self.state(1, &seed, gradient), true, |_, g, _| average(g)),
            "gradcam:clamp=false" => self.cam(self.point(), false, |_, g, _| average(g)),
            "gradcam-plusplus" => self.cam(self.point(), true, |a, g, _| cams::plusplus(a, g)),
            "gradcam-plusplus:clamp=false" => self.cam(self.point(), false, |a, g, _| cams::plusplus(a, g)),
            "hirescam" => self.cam(self.point(), true, |_, g, j| g[j]),
            "hirescam:where=hidden,layer=1,clamp=false" => {
                self.cam(self.state(1, &seed, gradient), false, |_, g, j| g[j])
            }
            "hirescam:libra=true" => self.share(last, &seed, libra),
            "xgradcam:clamp=false" => self.cam(self.point(), false, |a, g, _| cams::xgrad(a, g)),
            "xgradcam" => self.cam(self.point(), true, |a, g, _| cams::xgrad(a, g)),
            "layercam" => self.cam(self.point(), true, |_, g, j| relu(g[j])),
            "layercam:clamp=false" => self.cam(self.point(), false, |_, g, j| relu(g[j])),
            "eigencam" => self.eigencam(self.point().0),
            "gradcam-plus" => self.cam_plus(gradient, |_, g| average(g)),
            "gradcam-plus:libra=true" => self.cam_plus(libra, |_, g| average(g)),
            "xgradcam-plus" => self.cam_plus(gradient, |x, g| cams::xgrad(&cams::sizes(x), g)),
            "xgradcam-plus:libra=true" => self.cam_plus(libra, |x, g| cams::xgrad(&cams::sizes(x), g)),
            _ => return None,
        })
    }

    fn perturbed(&self, spec: &str) -> Option<Vector> {
        let neutral = &self.run.encoder().neutral;
        Some(match spec {
            "scorecam" => self.scorecam(true),
            "scorecam:clamp=false" => self.scorecam(false),
            "occlusion" => self.occlusion(1, false, false),
            "occlusion:window=2,baseline=zero,score=probability" => self.occlusion(2, true, true),
            "leave-one-out" => self.leave_one_out(false, false, false, |u| self.replaced(u, neutral.mask_id)),
            "leave-one-out:unit=word,replace=delete" => self.leave_one_out(true, true, false, |u| self.cut(u)),
            "leave-one-out:replace=pad,score=probability" => {
                self.leave_one_out(false, false, true, |u| self.replaced(u, Some(neutral.pad_id)))
            }
            "leave-one-out:replace=attention" => self.leave_one_out(false, false, false, |u| {
                self.naive.forward_changed(&self.naive.x, &Change { hidden: u.to_vec(), ..Change::default() })
            }),
            _ => return None,
        })
    }
}

/// Where a specification is defined.
#[derive(Clone, Copy, PartialEq)]
enum On {
    All,
    Images,
    Texts,
    /// A classifier that reads one token of an image.
    ClassToken,
    /// A classifier that reads the mean of the patches too.
    PatchMean,
}

const SPECS: &[(&str, On)] = &[
    ("gradient", On::All),
    ("gradient:norm=l1", On::Texts),
    ("gradient-x-input:reduce=l2", On::Texts),
    ("gradient-x-input", On::All),
    ("gradient-x-input:libra=true,at=input", On::All),
    ("smoothgrad:n=3,spread=0.1", On::All),
    ("smoothgrad-squared:n=3", On::All),
    ("vargrad:n=3", On::All),
    ("integrated-gradients:steps=5", On::All),
    ("integrated-gradients:quadrature=midpoint,steps=4,baseline=zero", On::All),
    ("integrated-gradients:baseline=mask,steps=3,reduce=l2", On::Texts),
    ("full-lrp", On::Images),
    ("attn-lrp", On::All),
    ("reslrp:gamma=0", On::All),
    ("attn-lrp:rules=cp", On::All),
    ("cp-lrp:identity=true", On::All),
    ("attn-lrp:rules=gamma", On::Images),
    ("cp-lrp", On::All),
    ("reslrp", On::All),
    ("reslrp:gamma=0.25", On::All),
    ("reslrp:cp=true", On::All),
    ("vit-cx", On::Images),
    ("vit-cx:delta=0.3", On::Images),
    ("rise:n=6,cells=3", On::Images),
    ("rise:n=4,cells=2,keep_probability=0.7,score=logit", On::Images),
    ("gradient-x-input:at=embedding", On::All),
    ("gradient-x-input:libra=true", On::All),
    ("attn-lrp:at=embedding", On::All),
    ("fullgrad", On::All),
    ("fullgrad:libra=true", On::All),
    ("fullgrad-plus:libra=true", On::All),
    ("fullgrad-plus", On::All),
    ("fullgrad-plus:libra=true,score=probability", On::All),
    ("attcat", On::All),
    ("attcat:state=output,libra=true", On::All),
    ("attcat:state=official", On::All),
    ("gae:libra=true", On::All),
    ("lrp", On::All),
    ("lrp:start_layer=1,row_normalise=true", On::All),
    ("partial-lrp", On::All),
    ("partial-lrp:rules=baseline", On::All),
    ("legrad", On::All),
    ("legrad:first_layer=last", On::All),
    ("legrad:pool=mean", On::ClassToken),
    ("tokentm", On::Images),
    ("tokentm:libra=true", On::Images),
    ("beyond-intuition:steps=4", On::All),
    ("beyond-intuition:kind=token,steps=3", On::All),
    ("beyond-intuition:steps=3,read=class-and-patches", On::PatchMean),
    ("iia2:steps=3", On::Images),
    ("gradcam", On::All),
    ("gradcam:where=hidden,layer=1,clamp=false", On::All),
    ("gradcam:where=output,layer=0", On::All),
    ("gradcam:clamp=false", On::All),
    ("gradcam-plusplus", On::All),
    ("gradcam-plusplus:clamp=false", On::All),
    ("hirescam", On::All),
    ("hirescam:where=hidden,layer=1,clamp=false", On::All),
    ("hirescam:libra=true", On::All),
    ("xgradcam:clamp=false", On::All),
    ("xgradcam", On::All),
    ("layercam", On::All),
    ("layercam:clamp=false", On::All),
    ("eigencam", On::All),
    ("gradcam-plus", On::All),
    ("gradcam-plus:libra=true", On::All),
    ("xgradcam-plus", On::All),
    ("xgradcam-plus:libra=true", On::All),
    ("scorecam", On::Images),
    ("scorecam:clamp=false", On::Images),
    ("occlusion", On::Images),
    ("occlusion:window=2,baseline=zero,score=probability", On::Images),
    ("leave-one-out", On::Texts),
    ("leave-one-out:unit=word,replace=delete", On::Texts),
    ("leave-one-out:replace=pad,score=probability", On::Texts),
    ("leave-one-out:replace=attention", On::Texts),
];

#[test]
fn methods_equal_their_twins_on_the_naive_model() {
    for name in ["vit-rect", "deit-distilled", "dinov2", "dinov2-registers", "bert", "roberta", "distilbert"] {
        let case = Case::open(name);
        let model = case.model(DType::F64);
        let (inputs, layouts) = case.batch(&model);
        let inputs = match inputs {
            Inputs::Pixels(pixels) => Inputs::Pixels(pixels.to_dtype(DType::F64).unwrap()),
            texts => texts,
        };
        let batch = Batch::new(&model.encoder, inputs.clone(), layouts).unwrap();
        let contrast = batch.pass(vec![Output::contrast(2, 1); 2]).unwrap();
        // Relevance of a contrast starts with a sum of 0, which Chefer's additions cannot share: one class for them.
        let single = batch.pass(vec![Output::of(2); 2]).unwrap();
        for (row, pass) in [(0, &contrast), (1, &contrast), (0, &single), (1, &single)] {
            let run = pass.run(row);
            let naive = Naive::of(&run, &inputs);
            let trace = naive.forward(&naive.x);
            let logits = flat(&run.trace().unwrap().logits.get(row).unwrap());
            assert_close(name, &logits, &trace.head.logits, 1e-12, 1e-12);
            let twin = Twin { layers: trace.layers.len(), output: run.output(), naive, run, trace };
            for (spec, on) in SPECS {
                if shares_totals(spec) == run.output().against.is_none() && defined(*on, &twin) {
                    compare(&format!("{name} {spec} row {row}"), spec, &twin);
                }
            }
        }
    }
}

/// Methods under rules that share totals between summands.
fn shares_totals(spec: &str) -> bool {
    ["lrp", "partial-lrp", "full-lrp"].contains(&entry_of(spec))
}

fn entry_of(spec: &str) -> &str {
    spec.split(':').next().unwrap()
}

fn defined(on: On, twin: &Twin<'_>) -> bool {
    let (text, head) = (twin.run.is_text(), &twin.run.encoder().head);
    match on {
        On::All => true,
        On::Images => !text,
        On::Texts => text,
        On::ClassToken => !text && head.reads_one_token(),
        On::PatchMean => matches!(&head.readings[0].pool, Pool::Beside(_)),
    }
}

/// Results are stored as f32, hence the tolerance: a few of its steps, of the largest value and of each.
fn compare(what: &str, spec: &str, twin: &Twin<'_>) {
    let (tokens, pixels) = twin.answer(spec).unwrap_or_else(|| panic!("{what}: no twin"));
    let got = method::parse(spec).unwrap().explain(&twin.run).unwrap();
    let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vector>();
    // RISE keeps its masks in f32; quotients by sums that pass through 0 lose digits.
    let wider = if ["rise", "xgradcam", "gradcam-plusplus"].contains(&entry_of(spec)) { 10.0 } else { 1.0 };
    let close = |what: &str, got: &[f32], want: &[f64]| {
        let largest = want.iter().fold(0.0, |l: f64, w| l.max(w.abs()));
        assert_close(what, &wide(got), want, 1e-7 * wider * largest + 1e-12, 1e-6 * wider);
    };
    close(what, &got.relevance, &tokens);
    assert_eq!(got.pixels.is_some(), pixels.is_some(), "{what}: pixels");
    if let (Some(got), Some(pixels)) = (got.pixels, pixels) {
        close(&format!("{what} pixels"), &got.values, &pixels);
    }
}

#[test]
fn every_method_has_a_twin() {
    let known: Vec<&str> = crate::twins::SPECS.iter().copied().chain(SPECS.iter().map(|(spec, _)| *spec)).collect();
    for entry in method::all() {
        assert!(known.iter().any(|spec| entry_of(spec) == entry.name), "{} has no naive twin", entry.name);
    }
}
