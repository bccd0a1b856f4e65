//! Pictures, arrays and image processors on which people stumble, with transformers' and Pillow's answers.

use crate::support::*;
use candle_core::{DType, Device, Tensor};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{json, Value};
use std::io::Cursor;
use std::path::Path;
use vitx::input::image::{decode, decode_with, ImageProcessor, Origin, Remark, Window};
use vitx::model::{Access, Checkpoint, Processor};
use vitx::run::Batch;
use vitx::target::Output;

const ORIGIN: Origin<'_> = Origin { file: "preprocessor_config.json", family: "vit", channels: 3 };

/// The picture of tests/reference/processors.py.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|c| ((x * 7 + y * 13 + c * 50 + x * y / 3) % 256) as u8)))
}

#[test]
fn every_class_makes_the_pixels_that_transformers_makes() {
    let cases: Value =
        serde_json::from_slice(&std::fs::read(root().join("tests/fixtures/processors.json")).unwrap()).unwrap();
    let (mut made, mut refused) = (0, 0);
    for case in cases.as_array().unwrap() {
        let side = |key: &str, i: usize| case[key][i].as_u64().unwrap();
        let read = ImageProcessor::from_json(&case["config"], ORIGIN);
        let picture = picture(side("picture", 0) as u32, side("picture", 1) as u32);
        let result = read.and_then(|(processor, _)| processor.apply(&picture));
        if case["refused"].is_string() {
            assert!(result.is_err(), "transformers refuses {}", case["config"]);
            refused += 1;
            continue;
        }
        let prepared = result.unwrap_or_else(|e| panic!("{}: {e}", case["config"]));
        assert_eq!(prepared.size, (side("size", 0) as usize, side("size", 1) as usize), "{}", case["config"]);
        let n = prepared.pixels.len() - 1;
        let got: Vec<f64> = (0..9).map(|i| f64::from(prepared.pixels[i * n / 8])).collect();
        let want: Vec<f64> = case["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_close(&case["config"].to_string(), &got, &want, 2e-5, 1e-5);
        let sum: f64 = prepared.pixels.iter().map(|p| f64::from(*p)).sum();
        let whole = case["sum"].as_f64().unwrap();
        assert!((sum - whole).abs() < 1e-3 + 1e-5 * n as f64, "{}: sum {sum}, expected {whole}", case["config"]);
        made += 1;
    }
    assert!(made > 50 && refused > 2, "{made} {refused}");
}

#[test]
fn what_cannot_be_honoured_is_refused_or_said() {
    let read = |config: Value| ImageProcessor::from_json(&config, ORIGIN);
    for (config, part) in [
        (json!({"image_processor_type": "DonutImageProcessor"}), "`image_processor_type` is \"DonutImageProcessor\""),
        (json!({"image_processor_type": "ViTImageProcesor"}), "ViTImageProcessor"),
        (json!({"size": {"longest_edge": 32}}), "`size` is {\"longest_edge\":32}"),
        (json!({"size": 100_000}), "from 1 to 8192 pixels"),
        (json!({"size": {"height": 9_223_372_036_854_775_808u64, "width": 3}}), "from 1 to 8192 pixels"),
        (json!({"do_center_crop": true, "crop_size": 10_000_000_000u64}), "`crop_size`"),
        (json!({"do_center_crop": true}), "`crop_size` is null"),
        (json!({"resample": 6}), "`resample` is 6"),
        (json!({"image_std": [0.0, 1.0, 1.0]}), "`image_std`"),
        (json!({"image_mean": null}), "`image_mean` is null"),
        (json!({"do_resize": "yes"}), "`do_resize` is \"yes\""),
        (json!([1]), "expected a JSON object"),
    ] {
        let error = read(config).map(drop).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let (_, notes) = read(json!({"crop_pct": 0.9, "do_thumbnail": true, "do_align": false, "_commit": null})).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("`crop_pct`, `do_thumbnail` changes nothing"), "{notes:?}");
    let narrow = read(json!({"size": {"shortest_edge": 256}})).unwrap().0.apply(&RgbImage::new(20_000, 1));
    assert!(narrow.unwrap_err().to_string().contains("cannot become 256x5120000"));
}

/// `config.json` of a fixture in a folder of its own, with these other files.
fn checkpoint(dir: &Path, files: &[(&str, Value)]) -> vitx::Result<Checkpoint> {
    std::fs::copy(case_dir("vit-square").join("model/config.json"), dir.join("config.json")).unwrap();
    files.iter().for_each(|(name, json)| std::fs::write(dir.join(name), json.to_string()).unwrap());
    Checkpoint::open(dir.to_str().unwrap(), &Access::default())
}

#[test]
fn what_stands_in_and_what_differs_is_noted() {
    let notes =
        |files: &[(&str, Value)]| checkpoint(tempfile::tempdir().unwrap().path(), files).unwrap().notes.join("; ");
    assert!(notes(&[]).contains("preprocessor_config.json is missing: pictures are resized to"), "{}", notes(&[]));
    let other = json!({"image_processor_type": "ViTImageProcessor", "size": 80});
    assert!(notes(&[("preprocessor_config.json", other.clone())])
        .contains("makes pictures of 80x80, the model was trained at"));
    let nested = json!({"image_processor": {"image_processor_type": "ViTImageProcessor", "size": 96}});
    assert!(notes(&[("preprocessor_config.json", other.clone()), ("processor_config.json", nested)]).contains("96x96"));
    let flat = json!({"processor_class": "X", "size": 96});
    assert!(notes(&[("preprocessor_config.json", other), ("processor_config.json", flat)]).contains("80x80"));
    let varies = json!({"size": {"shortest_edge": 32}});
    assert!(notes(&[("preprocessor_config.json", varies)]).contains("depends on their own"));
}

#[test]
fn one_channel_reads_grey_and_equals_a_colour_model_of_grey() {
    let (case, dir) = (Case::open("vit-square"), tempfile::tempdir().unwrap());
    let own = case_dir("vit-square").join("model");
    let mut config: Value = serde_json::from_slice(&std::fs::read(own.join("config.json")).unwrap()).unwrap();
    config["num_channels"] = json!(1);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let how = json!({"image_processor_type": "ViTImageProcessor", "size": 64, "image_mean": 0.4, "image_std": [0.25, 0.25, 0.25]});
    std::fs::write(dir.path().join("preprocessor_config.json"), how.to_string()).unwrap();
    let mut weights = candle_core::safetensors::load(own.join("model.safetensors"), &Device::Cpu).unwrap();
    let name = "vit.embeddings.patch_embeddings.projection.weight";
    let summed: Tensor = weights[name].sum_keepdim(1).unwrap();
    weights.insert(name.into(), summed);
    candle_core::safetensors::save(&weights, dir.path().join("model.safetensors")).unwrap();

    let grey = Checkpoint::open(dir.path().to_str().unwrap(), &Access::default()).unwrap();
    let (grey, colour) = (grey.load(DType::F32, &Device::Cpu).unwrap(), case.model(DType::F32));
    let Processor::Image(processor) = &grey.checkpoint.processor else { panic!() };
    let three = ImageProcessor::from_json(&how, ORIGIN).unwrap().0;
    let logits = |model: &vitx::model::Model, processor: &ImageProcessor, picture: &RgbImage| {
        let (inputs, layouts) = model.image_inputs(&[processor.apply(picture).unwrap()]).unwrap();
        let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
        let pass = batch.pass(vec![Output::of(1)]).unwrap();
        for method in ["gae", "gradient-x-input", "integrated-gradients:steps=2", "occlusion"] {
            vitx::method::parse(method).unwrap().explain(&pass.run(0)).unwrap();
        }
        batch.logits().unwrap().remove(0).into_iter().map(f64::from).collect::<Vec<_>>()
    };
    let picture = RgbImage::from_fn(50, 40, |x, y| Rgb([((x * 5 + y * 3) % 256) as u8; 3]));
    assert_close("logits", &logits(&grey, processor, &picture), &logits(&colour, &three, &picture), 1e-4, 1e-4);
    // Pillow: (19595 R + 38470 G + 7471 B + 2^15) >> 16
    let red = processor.apply(&RgbImage::from_pixel(9, 9, Rgb([255, 0, 0]))).unwrap();
    assert_eq!(processor.picture(&red.pixels, red.size.0, red.size.1).get_pixel(0, 0).0, [76; 3]);
}

#[test]
fn models_of_other_channels_read_arrays_alone() {
    let origin = Origin { channels: 5, ..ORIGIN };
    let (five, notes) = ImageProcessor::from_json(&json!({"size": 8}), origin).unwrap();
    assert!(notes.is_empty() && five.black() == [-1.0; 5]);
    let error = five.apply(&picture(8, 8)).unwrap_err().to_string();
    assert!(error.contains("5 channels (num_channels)") && error.contains("[5,H,W]"), "{error}");
    let three = ImageProcessor::from_json(&json!({"image_mean": [0.1, 0.2, 0.3]}), origin).unwrap_err().to_string();
    assert!(three.contains("`image_mean`") && three.contains("5 numbers (num_channels)"), "{three}");
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn motion_photos_are_pictures_and_cut_ones_are_not() {
    let jpeg = encoded(picture(40, 30), ImageFormat::Jpeg);
    let plain = decode(&jpeg).unwrap();
    // What follows looks like the start of another scan, of which the end is missing.
    let motion = [&jpeg[..], &b"\0\0\0\x18ftypmp42 \xff\xda\0\x08 \xff\xd8 \xff\xda\xff\xff"[..]].concat();
    assert_eq!(decode(&motion).unwrap(), plain);
    let cut = [&jpeg[..jpeg.len() - 200], &[0; 300]].concat();
    for bytes in [&jpeg[..jpeg.len() - 2], &jpeg[..jpeg.len() / 2], &cut] {
        assert!(decode(bytes).unwrap_err().to_string().contains("truncated"));
    }
}

#[test]
fn pictures_of_no_or_too_many_pixels_are_refused() {
    let gif = b"GIF89a\0\0\0\0\x80\0\0\0\0\0\0\0\0\x2c\0\0\0\0\0\0\0\0\0\x02\x02\x44\x01\0\x3b";
    for bytes in [&b"P6\n0 0\n255\n"[..], b"P6\n0 7\n255\n", b"P5\n3 0\n255\n", gif] {
        let error = decode(bytes).unwrap_err().to_string();
        assert!(error.contains("pixels") || error.contains("damaged"), "{error}");
    }
    assert!(decode(b"P4\n39999 39999\n").unwrap_err().to_string().contains("too large"));
    let error = vitx::input::resize::resize(&RgbImage::new(0, 4), 2, 2, vitx::input::resize::Filter::Box).unwrap_err();
    assert!(error.to_string().contains("cannot become"));
}

#[test]
fn what_a_picture_hides_is_said() {
    let grey16 = |most: u32| image::ImageBuffer::from_fn(64, 2, |x, _| image::Luma([(x * most / 63) as u16]));
    let remarks = |bytes: &[u8]| decode_with(bytes, None).unwrap().remarks;
    assert_eq!(remarks(&encoded(DynamicImage::ImageLuma16(grey16(65535)), ImageFormat::Png)), [Remark::Sixteen]);
    let twelve = encoded(DynamicImage::ImageLuma16(grey16(4095)), ImageFormat::Png);
    assert_eq!(remarks(&twelve), [Remark::Faint(4095)]);
    assert!(Remark::Faint(4095).to_string().contains("--window 0,4095"));
    let seen = decode_with(&twelve, Some(Window { low: 0.0, high: 4095.0 })).unwrap();
    assert!(seen.remarks.is_empty());
    assert_eq!((seen.picture.get_pixel(0, 0).0, seen.picture.get_pixel(63, 0).0), ([0; 3], [255; 3]));
    assert_eq!(seen.picture.get_pixel(21, 0).0, [85; 3]);
    let alpha = |colour: u8, alpha: u8| image::RgbaImage::from_pixel(4, 4, image::Rgba([colour, 255, 255, alpha]));
    assert_eq!(remarks(&encoded(alpha(9, 0), ImageFormat::Png)), [Remark::Hidden]);
    for (colour, opacity) in [(9, 255), (255, 0)] {
        assert!(remarks(&encoded(alpha(colour, opacity), ImageFormat::Png)).is_empty());
    }
    let animation = std::fs::read(root().join("tests/fixtures/pictures/animated.gif")).unwrap();
    assert!(matches!(remarks(&animation)[..], [Remark::Frames(n)] if n > 1));
}

type Page<'a> = (&'a [(u16, &'a [u16])], &'a [u8]);

/// A TIFF of pages, each of these tags (values of 2 bytes, or a list of them) and samples; `wide`: BigTIFF.
fn tiff(wide: bool, pages: &[Page<'_>]) -> Vec<u8> {
    let (number, entry, head) = if wide { (8, 20, 16) } else { (4, 12, 8) };
    let put = |n: usize| (n as u64).to_le_bytes()[..number].to_vec();
    let mut out = if wide { b"II\x2b\0\x08\0\0\0".to_vec() } else { b"II\x2a\0".to_vec() };
    out.extend(put(head));
    for (number_of, (tags, samples)) in pages.iter().enumerate() {
        let mut tags: Vec<(u16, Vec<u16>)> = tags.iter().map(|(t, v)| (*t, v.to_vec())).collect();
        tags.push((273, vec![])); // where the samples stand
        tags.push((279, vec![samples.len() as u16]));
        tags.sort();
        let counter = if wide { 8 } else { 2 };
        let behind = out.len() + counter + tags.len() * entry + number;
        let mut data = samples.to_vec();
        out.extend(&(tags.len() as u64).to_le_bytes()[..counter]);
        for (tag, values) in &tags {
            let list: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let (kind, count, mut field) = match values.len() {
                0 => (4u16, 1, (behind as u32).to_le_bytes().to_vec()),
                n if list.len() > number => {
                    data.extend(&list);
                    (3, n, put(behind + data.len() - list.len()))
                }
                n => (3, n, list),
            };
            field.resize(number, 0);
            out.extend([&tag.to_le_bytes()[..], &kind.to_le_bytes(), &put(count), &field].concat());
        }
        let last = number_of + 1 == pages.len();
        out.extend(put(if last { 0 } else { behind + data.len() }));
        out.extend(data);
    }
    out
}

#[test]
fn tiffs_of_every_kind_are_read_or_named() {
    let plain = |bits: &'static [u16], colours: u16, samples: u16| {
        [
            (256u16, &[2u16][..]),
            (257, &[2]),
            (258, bits),
            (259, &[1]),
            (
                262,
                if colours == 6 {
                    &[6]
                } else if colours == 3 {
                    &[3]
                } else if colours == 2 {
                    &[2]
                } else {
                    &[1]
                },
            ),
            (277, if samples == 3 { &[3] } else { &[1] }),
            (278, &[2]),
        ]
    };
    let pixel = |bytes: &[u8], x: u32, y: u32| decode(bytes).map(|p| p.get_pixel(x, y).0).map_err(|e| e.to_string());
    let rgb = plain(&[8, 8, 8], 2, 3);
    let samples = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    for wide in [false, true] {
        assert_eq!(pixel(&tiff(wide, &[(&rgb, &samples)]), 1, 1), Ok([10, 11, 12]), "BigTIFF: {wide}");
        let three = decode_with(&tiff(wide, &[(&rgb[..], &samples[..]); 3]), None).unwrap();
        assert_eq!((three.remarks, three.picture.get_pixel(0, 0).0), (vec![Remark::Pages(3)], [1, 2, 3]));
    }
    let reduced = [&[(254u16, &[1u16][..])], &rgb[..]].concat();
    assert!(decode_with(&tiff(false, &[(&rgb, &samples), (&reduced, &samples)]), None).unwrap().remarks.is_empty());

    let map: Vec<u16> = (0..3 * 16).map(|i| i * 257).collect();
    let four = [&plain(&[4], 3, 1)[..], &[(320, &map[..])]].concat();
    assert_eq!(pixel(&tiff(false, &[(&four, &[0x12, 0x3f])]), 1, 1), Ok([15, 31, 47]));
    let eight = [&plain(&[8], 3, 1)[..], &[(320, &map[..])]].concat();
    let error = pixel(&tiff(false, &[(&eight, &[0, 1, 2, 16])]), 0, 0).unwrap_err();
    assert!(error.contains("palette does not fit"), "{error}");

    let ycbcr = [&plain(&[8, 8, 8], 6, 3)[..], &[(530, &[1, 1])]].concat();
    let levels = [76, 85, 255, 150, 44, 21, 29, 255, 107, 128, 128, 128];
    assert_eq!(pixel(&tiff(false, &[(&ycbcr, &levels)]), 0, 0), Ok([254, 0, 0])); // Pillow's answers
    assert_eq!(pixel(&tiff(false, &[(&ycbcr, &levels)]), 1, 1), Ok([128; 3]));
    let halved = [&plain(&[8, 8, 8], 6, 3)[..], &[(530, &[2, 2])]].concat();
    let error = pixel(&tiff(false, &[(&halved, &levels)]), 0, 0).unwrap_err();
    assert!(error.contains("subsampled") && error.contains("convert it"), "{error}");

    let floats: Vec<u8> = [0.0f32, 0.25, 1.0, -3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let float = [&plain(&[32], 1, 1)[..], &[(339, &[3])]].concat();
    let bytes = tiff(false, &[(&float, &floats)]);
    let error = pixel(&bytes, 0, 0).unwrap_err();
    assert!(error.contains("floats from -3 to 1") && error.contains("--window"), "{error}");
    let seen = decode_with(&bytes, Some(Window { low: 0.0, high: 1.0 })).unwrap().picture;
    assert_eq!(seen.pixels().map(|p| p.0[1]).collect::<Vec<_>>(), [0, 64, 255, 0]);
}
