//! Which files are pictures: by their ending in folders, by their first bytes when they are read.

use crate::error::{Error, Result};
use image::ImageFormat;
use std::path::{Path, PathBuf};

/// Endings of the pictures that are read, in lower case.
pub const ENDINGS: &[&str] = &[
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "gif", "webp", "bmp", "dib", "tif", "tiff", "pnm", "ppm", "pgm",
    "pbm", "pam",
];

/// Formats that people have and that are not read.
struct Foreign {
    name: &'static str,
    /// Endings of pictures that a folder's listing names as left out, in lower case.
    endings: &'static [&'static str],
    /// How to turn one into a picture that is read.
    convert: &'static str,
    /// Whether a file's bytes are of it.
    is: fn(&[u8]) -> bool,
}

const PILLOW: &str = "convert to PNG or JPEG (with an image viewer's export, or ImageMagick: magick IN OUT.png)";

const FOREIGN: &[Foreign] = &[
    Foreign {
        name: "HEIC",
        endings: &["heic", "heif", "hif"],
        convert: "convert to JPEG: heif-convert IN OUT.jpg, on macOS sips -s format jpeg IN --out OUT.jpg",
        is: |b| brand(b, &[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]),
    },
    Foreign {
        name: "AVIF",
        endings: &["avif", "avifs"],
        convert: "convert to PNG: avifdec IN OUT.png",
        is: |b| brand(b, &[b"avif", b"avis"]),
    },
    Foreign {
        name: "JPEG XL (JXL)",
        endings: &["jxl"],
        convert: "convert to PNG: djxl IN OUT.png",
        is: |b| b.starts_with(b"\xff\x0a") || b.starts_with(b"\0\0\0\x0cJXL \r\n\x87\n"),
    },
    Foreign {
        name: "JPEG 2000",
        endings: &["jp2", "j2k", "jpx", "jpf"],
        convert: "convert to PNG: opj_decompress -i IN -o OUT.png",
        is: |b| b.starts_with(b"\0\0\0\x0cjP  \r\n\x87\n") || b.starts_with(b"\xff\x4f\xff\x51"),
    },
    Foreign {
        name: "camera raw",
        endings: &["dng", "cr2", "cr3", "crw", "nef", "arw", "raf", "orf", "rw2", "pef", "srw"],
        convert: "develop it to JPEG or TIFF with a raw converter",
        is: |b| brand(b, &[b"crx "]) || b.get(8..10) == Some(b"CR") || b.starts_with(b"FUJIFILMCCD-RAW"),
    },
    Foreign {
        name: "MP4 or QuickTime video",
        endings: &[],
        convert: "take a frame of it: ffmpeg -i IN -frames:v 1 OUT.png",
        is: |b| b.get(4..8) == Some(b"ftyp") || b.get(4..8) == Some(b"moov"),
    },
    Foreign {
        name: "Matroska or WebM video",
        endings: &[],
        convert: "take a frame of it: ffmpeg -i IN -frames:v 1 OUT.png",
        is: |b| b.starts_with(b"\x1a\x45\xdf\xa3"),
    },
    Foreign {
        name: "SVG",
        endings: &["svg", "svgz"],
        convert: "draw it as PNG: rsvg-convert IN -o OUT.png",
        is: |b| text_holds(b, "<svg"),
    },
    Foreign {
        name: "a web page (HTML), not a picture",
        endings: &[],
        convert: "the download failed or wants a login: fetch the picture itself",
        is: |b| text_holds(b, "<html") || text_holds(b, "<!doctype html"),
    },
    Foreign {
        name: "a pointer of Git LFS, not a picture",
        endings: &[],
        convert: "fetch the file itself: git lfs pull",
        is: |b| b.starts_with(b"version https://git-lfs"),
    },
    Foreign {
        name: "PDF",
        endings: &["pdf"],
        convert: "draw a page: pdftoppm -png IN OUT",
        is: |b| b.starts_with(b"%PDF"),
    },
    Foreign { name: "Photoshop", endings: &["psd", "psb"], convert: PILLOW, is: |b| b.starts_with(b"8BPS") },
    Foreign { name: "OpenEXR", endings: &["exr"], convert: PILLOW, is: |b| b.starts_with(b"\x76\x2f\x31\x01") },
    Foreign { name: "Radiance HDR", endings: &["hdr"], convert: PILLOW, is: |b| b.starts_with(b"#?") },
    Foreign { name: "QOI", endings: &["qoi"], convert: PILLOW, is: |b| b.starts_with(b"qoif") },
    Foreign { name: "DDS", endings: &["dds"], convert: PILLOW, is: |b| b.starts_with(b"DDS ") },
    Foreign { name: "TGA", endings: &["tga"], convert: PILLOW, is: |_| false },
    Foreign { name: "an icon (ICO)", endings: &["ico"], convert: PILLOW, is: |b| b.starts_with(b"\0\0\x01\0") },
    Foreign {
        name: "DICOM",
        endings: &["dcm"],
        convert: "convert to PNG: dcm2img IN OUT.png (mind the window)",
        is: |b| b.get(128..132) == Some(b"DICM"),
    },
];

/// Whether an ISO media file names one of these brands as its own or as compatible.
fn brand(bytes: &[u8], brands: &[&[u8; 4]]) -> bool {
    if bytes.get(4..8) != Some(b"ftyp") {
        return false;
    }
    // The major brand decides where it is a special one; `mif1` and `msf1` leave it to the compatible brands.
    let end = bytes.iter().take(4).fold(0usize, |n, b| n << 8 | usize::from(*b)).min(bytes.len()).min(256);
    let major = bytes.get(8..12).unwrap_or_default();
    let named = |name: &[u8]| brands.iter().any(|b| b.as_slice() == name);
    let general = major == b"mif1" || major == b"msf1";
    let avif = || bytes.get(16..end).is_some_and(|list| list.chunks_exact(4).any(|b| b == b"avif" || b == b"avis"));
    match general && avif() {
        true => brands.contains(&b"avif"),
        false => named(major),
    }
}

/// Whether the start of a text file holds this, in any case.
fn text_holds(bytes: &[u8], what: &str) -> bool {
    let start = bytes[..bytes.len().min(512)].to_ascii_lowercase();
    start.trim_ascii_start().starts_with(b"<") && start.windows(what.len()).any(|w| w == what.as_bytes())
}

/// A file name's ending, in lower case.
pub fn ending(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Whether a file is a picture that is read, by its ending.
pub fn is_picture(path: &Path) -> bool {
    ENDINGS.contains(&ending(path).as_str())
}

/// Whether a file is a picture of a format that is not read, by its ending.
pub fn is_foreign(path: &Path) -> bool {
    let ending = ending(path);
    FOREIGN.iter().any(|f| f.endings.contains(&ending.as_str()))
}

/// What to say of a folder's pictures that are not read: which, and how to convert them. None when there are none.
pub fn left_out(files: &[PathBuf]) -> Option<String> {
    let first = files.first()?;
    let ending = ending(first);
    let convert = FOREIGN.iter().find(|f| f.endings.contains(&ending.as_str())).map_or(PILLOW, |f| f.convert);
    let names: Vec<_> = files.iter().take(3).map(|f| f.display().to_string()).collect();
    let (list, verb) = match (&names[..], files.len()) {
        ([one], _) => (one.clone(), "was"),
        ([a, b], _) => (format!("{a} and {b}"), "were"),
        (_, 3) => (format!("{}, {} and {}", names[0], names[1], names[2]), "were"),
        (_, n) => (format!("{}, {} and {} more", names[0], names[1], n - 2), "were"),
    };
    Some(format!("{list} {verb} not read: {convert}"))
}

/// The format of a picture that is read.
///
/// # Errors
/// [`Error::Input`] naming the format, where it is a known one, and what to convert it to.
pub fn format_of(bytes: &[u8]) -> Result<ImageFormat> {
    if bytes.is_empty() {
        return Err(Error::Input("the file is empty".into()));
    }
    if let Some(foreign) = FOREIGN.iter().find(|f| (f.is)(bytes)) {
        return Err(Error::Input(format!("is {}, which is not read; {}", foreign.name, foreign.convert)));
    }
    let big_tiff = bytes.starts_with(b"II\x2b\0") || bytes.starts_with(b"MM\0\x2b");
    match image::guess_format(bytes) {
        _ if big_tiff => Ok(ImageFormat::Tiff),
        Ok(format) if format.reading_enabled() => Ok(format),
        _ => {
            let start: String = String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).escape_debug().collect();
            Err(Error::Input(format!("not an image: unknown format (it starts with \"{start}\"); vitx reads JPEG, PNG, GIF, WebP, BMP, TIFF and PNM")))
        }
    }
}

/// Whether a name is that of something vitx reads.
pub fn is_input(path: &Path) -> bool {
    is_picture(path) || ["npy", "txt"].contains(&ending(path).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_files_are_called_what_they_are() {
        let ftyp = |brand: &[u8]| [b"\0\0\0\x18ftyp", brand, b"\0\0\0\0mif1avif"].concat();
        for (bytes, part) in [
            (ftyp(b"heic"), "is HEIC"),
            (ftyp(b"avif"), "is AVIF"),
            (ftyp(b"mif1"), "is AVIF"),
            ([b"\0\0\0\x18ftyp", &b"mif1\0\0\0\0mif1heic"[..]].concat(), "is HEIC"),
            (ftyp(b"isom"), "video"),
            (b"\xff\x0a\x00".to_vec(), "JXL"),
            (b"<?xml version='1.0'?>\n<svg></svg>".to_vec(), "is SVG"),
            (b"\n<!DOCTYPE html><html>".to_vec(), "web page"),
            (b"version https://git-lfs.github.com/spec/v1".to_vec(), "git lfs pull"),
            (b"%PDF-1.7".to_vec(), "is PDF"),
            (b"hello, a < b".to_vec(), "not an image"),
        ] {
            let error = format_of(&bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(format_of(b"II\x2b\0\x08\0\0\0").unwrap(), ImageFormat::Tiff);
    }

    #[test]
    fn what_is_left_out_is_listed_shortly() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(left_out(&[]), None);
        assert!(left_out(&files(&["b.HEIC"])).unwrap().starts_with("b.HEIC was not read: convert to JPEG"));
        assert!(left_out(&files(&["b.heic", "c.avif"])).unwrap().starts_with("b.heic and c.avif were not read"));
        assert!(left_out(&files(&["1.jxl", "2.jxl", "3.jxl", "4.jxl"]))
            .unwrap()
            .starts_with("1.jxl, 2.jxl and 2 more"));
        assert!(is_picture(Path::new("A.JFIF")) && !is_picture(Path::new("a.heic")) && is_foreign(Path::new("a.DNG")));
    }
}
