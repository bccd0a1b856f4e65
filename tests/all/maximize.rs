//! Activation maximisation: the plain ascent equals the reference's steps, and the command does what it says.

use crate::support::*;
use candle_core::DType;
use vitx::maximize::{Ascent, Colours, Objective, Settings};
use vitx::run::Noise;
use vitx::target::Output;

fn colours() -> Colours {
    Colours { low: vec![-1.0; 3], high: vec![1.0; 3] }
}

#[test]
fn plain_steps_equal_the_reference() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let start = (case.inputs["noise.actmax-start"].clone() * 0.1).unwrap();
    let mut seen = 0;
    for row in 0..2 {
        let class = case.targets()[row];
        let unit = Objective::Unit { layer: 2, channel: Some(5), token: None };
        for (name, objective) in [("class", Objective::Class(Output::of(class))), ("unit", unit)] {
            let start = start.get(row).unwrap();
            let settings = Settings::PLAIN;
            let mut ascent =
                Ascent::new(&model.encoder, objective, settings, colours(), &start, &Noise::default()).unwrap();
            let mut values = vec![ascent.objective().unwrap().0];
            while ascent.advance().unwrap() {
                values.push(ascent.objective().unwrap().0);
                let key = format!("method.activation-maximization.{name}.step{}", ascent.steps());
                let Some(want) = case.expected.get(&key) else { continue };
                let array = &case.json["methods"][&key];
                let (atol, rtol) = (array["atol"].as_f64().unwrap(), array["rtol"].as_f64().unwrap());
                assert_close(&key, &flat(ascent.image()), &flat(&want.get(row).unwrap()), atol, rtol);
                seen += 1;
            }
            let key = format!("method.activation-maximization.{name}.objective");
            let array = &case.json["methods"][&key];
            let (atol, rtol) = (array["atol"].as_f64().unwrap(), array["rtol"].as_f64().unwrap());
            assert_close(&key, &values, &flat(&case.expected[&key].get(row).unwrap()), atol, rtol);
        }
    }
    assert_eq!(seen, 2 * (3 + 1), "three steps of the class, the last of the unit");
}

#[test]
fn gradients_of_units_equal_finite_differences() {
    let case = Case::open("dinov2-registers");
    let model = case.model(DType::F64);
    let start = case.inputs["pixel_values"].get(0).unwrap().to_dtype(DType::F64).unwrap();
    let settings = Settings { steps: 1, lr: 1.0, decay: 0.0, ..Settings::PLAIN };
    let unit = |layer, channel, token| Objective::Unit { layer, channel, token };
    for objective in [unit(3, Some(4), None), unit(1, None, Some(7)), unit(0, None, None)] {
        let ascent = |image: &candle_core::Tensor| {
            Ascent::new(&model.encoder, objective, settings, colours(), image, &Noise::default()).unwrap()
        };
        let mut one = ascent(&start);
        one.advance().unwrap();
        let gradient = flat(&(one.image() - &start).unwrap());
        for at in [0, 700, 2000] {
            let value = |step: f64| {
                let mut pixels = flat(&start);
                pixels[at] += step;
                let moved = candle_core::Tensor::from_vec(pixels, start.shape(), start.device()).unwrap();
                ascent(&moved).objective().unwrap().1
            };
            let slope = (value(1e-5) - value(-1e-5)) / 2e-5;
            assert!((slope - gradient[at]).abs() < 1e-7, "{objective:?} pixel {at}: {} {slope}", gradient[at]);
        }
    }
}

#[test]
fn what_is_not_there_is_refused() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let image = case.inputs["pixel_values"].get(0).unwrap();
    let refused = |objective, part: &str| {
        let noise = Noise::default();
        let error = Ascent::new(&model.encoder, objective, Settings::PLAIN, colours(), &image, &noise).err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(Objective::Unit { layer: 4, channel: None, token: None }, "layer=4: this model has 0 to 3");
    refused(Objective::Unit { layer: 0, channel: Some(32), token: None }, "channel=32");
    refused(Objective::Unit { layer: 0, channel: None, token: Some(17) }, "token=17: this model has 0 to 16");
    refused(Objective::Class(Output::of(9)), "class 9 does not exist");
    let text = Case::open("bert").model(DType::F32);
    let class = Objective::Class(Output::of(0));
    let error = Ascent::new(&text.encoder, class, Settings::PLAIN, colours(), &image, &Noise::default()).err().unwrap();
    assert!(error.to_string().contains("reads texts"), "{error}");
}
