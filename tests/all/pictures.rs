//! Pictures as users have them, and resizing against Pillow's own results.

use crate::support::root;
use image::RgbImage;
use vitx::input::image::decode;
use vitx::input::resize::{resize, Filter};

fn read(name: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/fixtures").join(name)).unwrap()
}

#[test]
fn resizing_equals_pillow_within_one_level() {
    let source = decode(&read("pillow/source.png")).unwrap();
    let filters =
        [(0, Filter::Nearest), (1, Filter::Lanczos), (2, Filter::Bilinear), (3, Filter::Bicubic), (5, Filter::Hamming)];
    for (number, filter) in filters {
        for (h, w) in [(24, 24), (80, 101), (61, 20)] {
            let want = decode(&read(&format!("pillow/{number}-{h}x{w}.png"))).unwrap();
            let got = resize(&source, h, w, filter).unwrap();
            let off = got.as_raw().iter().zip(want.as_raw()).map(|(g, w)| g.abs_diff(*w)).max().unwrap();
            assert!(off <= 1, "{filter:?} to {h}x{w}: {off} levels off");
        }
    }
}

/// Mean absolute difference in levels.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: f64 = a.as_raw().iter().zip(b.as_raw()).map(|(x, y)| f64::from(x.abs_diff(*y))).sum();
    sum / a.as_raw().len() as f64
}

#[test]
fn every_colour_type_and_orientation_is_read() {
    let picture = |name: &str| decode(&read(&format!("pictures/{name}"))).unwrap();
    let plain = picture("plain.jpg");
    for (name, tolerance) in [
        ("cmyk.jpg", 12.0),
        ("alpha.png", 4.0),
        ("rotated.jpg", 4.0),
        ("palette.png", 8.0),
        ("animated.gif", 12.0),
        ("lossless.webp", 4.0),
    ] {
        let d = difference(&picture(name), &plain);
        assert!(d < tolerance, "{name} is {d} levels from the plain picture");
    }
    let gray = picture("gray.png");
    assert!(gray.pixels().all(|p| p[0] == p[1] && p[1] == p[2]));
    assert!(difference(&picture("gray16.png"), &gray) < 0.6);
    assert_eq!(picture("tiny.png").dimensions(), (1, 1));
}

#[test]
fn damaged_pictures_say_why() {
    for (name, part) in [
        ("truncated.jpg", "truncated"),
        ("corrupt.png", "damaged"),
        ("text.jpg", "not an image"),
        ("empty.png", "empty"),
    ] {
        let error = decode(&read(&format!("pictures/{name}"))).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}

#[test]
fn a_picture_of_absurd_size_is_refused() {
    // A BMP header that announces 100000 x 100000 pixels.
    let mut bmp = b"BM\x36\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00".to_vec();
    bmp.extend(100_000i32.to_le_bytes());
    bmp.extend(100_000i32.to_le_bytes());
    bmp.extend([1, 0, 24, 0]);
    bmp.extend([0; 24]);
    let error = decode(&bmp).unwrap_err().to_string();
    assert!(error.contains("Bmp") || error.contains("too large"), "{error}");
}
