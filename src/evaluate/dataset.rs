//! Labelled data: a folder of class folders, or a CSV of pictures with masks or texts with rationales.

use crate::error::{Error, Result};
use crate::explanation::TextLayout;
use crate::input::image::Prepared;
use image::GrayImage;
use std::path::{Path, PathBuf};

/// One labelled input.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// As reports name it.
    pub name: String,
    /// What is explained.
    pub content: Content,
    /// The label as written: a name or a class number.
    pub label: String,
    /// A mask of the object.
    pub mask: Option<PathBuf>,
    /// The reason people marked: character ranges `10-15`, or passages of the text, separated by semicolons.
    pub rationale: Option<String>,
}

/// What is explained.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A picture file.
    Picture(PathBuf),
    /// A text.
    Text(String),
}

/// File names of pictures, by ending.
const PICTURES: &[&str] = &["jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "pnm", "ppm", "pgm"];

/// Reads a data set.
///
/// # Errors
/// [`Error::Usage`] for a path that is neither, a CSV without the columns it needs, or no sample at all.
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    let samples = if path.is_dir() { folders(path)? } else { table(path)? };
    if samples.is_empty() {
        return Err(Error::Usage(format!("--data {}: no labelled input in it", path.display())));
    }
    Ok(samples)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>();
    if let Ok(paths) = &mut paths {
        paths.sort();
    }
    paths.map_err(|e| Error::io(folder, e))
}

fn folders(root: &Path) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for class in sorted(root)?.into_iter().filter(|p| p.is_dir()) {
        let label = class.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for file in sorted(&class)? {
            let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            let content = match extension.as_str() {
                "txt" => Content::Text(std::fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?),
                e if PICTURES.contains(&e) => Content::Picture(file),
                _ => continue,
            };
            samples.push(Sample { name, content, label: label.clone(), mask: None, rationale: None });
        }
    }
    Ok(samples)
}

fn table(path: &Path) -> Result<Vec<Sample>> {
    let at = |e: csv::Error| Error::Usage(format!("--data {}: {e}", path.display()));
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(at)?;
    let headers = reader.headers().map_err(at)?.clone();
    let column = |names: &[&str]| headers.iter().position(|h| names.iter().any(|n| h.eq_ignore_ascii_case(n)));
    let (picture, text) = (column(&["path", "image", "file"]), column(&["text"]));
    let (label, mask, rationale) = (column(&["label", "label_id"]), column(&["mask"]), column(&["rationale"]));
    let (Some(label), Some(content)) = (label, picture.or(text)) else {
        return Err(Error::Usage(format!(
            "--data {}: expected the columns path,label[,mask] or text,label[,rationale]; it has {}",
            path.display(),
            headers.iter().collect::<Vec<_>>().join(",")
        )));
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut samples = Vec::new();
    for (line, record) in reader.records().enumerate() {
        let record = record.map_err(at)?;
        let field = |i: usize| record.get(i).unwrap_or_default().to_string();
        let filled = |i: Option<usize>| i.map(field).filter(|f| !f.is_empty());
        let (name, content) = if picture.is_some() {
            (field(content), Content::Picture(folder.join(field(content))))
        } else {
            (format!("line {}", line + 2), Content::Text(field(content)))
        };
        let mask = filled(mask).map(|m| folder.join(m));
        samples.push(Sample { name, content, label: field(label), mask, rationale: filled(rationale) });
    }
    Ok(samples)
}

/// A mask as the model's input sees it, `[H*W]`: the mask's value at the place of each input pixel; outside of the picture
/// there is no object. The mask may have another size than the picture.
pub fn mask_at_input(mask: &GrayImage, picture: (u32, u32), prepared: &Prepared) -> Vec<bool> {
    let (h, w) = prepared.size;
    let view = prepared.view;
    (0..h * w)
        .map(|i| {
            let x = view.x + ((i % w) as f64 + 0.5) / w as f64 * view.width;
            let y = view.y + ((i / w) as f64 + 0.5) / h as f64 * view.height;
            let at = |place: f64, side: u32, own: u32| place / f64::from(side) * f64::from(own);
            let (mx, my) = (at(x, picture.0, mask.width()), at(y, picture.1, mask.height()));
            let inside = mx >= 0.0 && my >= 0.0 && mx < f64::from(mask.width()) && my < f64::from(mask.height());
            inside && mask.get_pixel(mx as u32, my as u32).0[0] > 127
        })
        .collect()
}

/// The tokens of a rationale, `[T]`.
///
/// # Errors
/// [`Error::Input`] for a passage that the text does not hold.
pub fn rationale_tokens(rationale: &str, layout: &TextLayout) -> Result<Vec<bool>> {
    let text: Vec<char> = layout.texts.first().map(|t| t.chars().collect()).unwrap_or_default();
    let mut ranges = Vec::new();
    for part in rationale.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let numbers = part.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let range = numbers.or_else(|| {
            let passage: Vec<char> = part.chars().collect();
            let found = text.windows(passage.len()).position(|w| w == passage)?;
            Some((found, found + passage.len()))
        });
        ranges.push(range.ok_or_else(|| Error::Input(format!("its text does not hold the rationale `{part}`")))?);
    }
    let marked = |start: usize, end: usize| ranges.iter().any(|(from, to)| start < *to && end > *from);
    Ok(layout.tokens.iter().map(|t| !t.special && t.text == 0 && marked(t.start, t.end)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::TextToken;
    use crate::input::image::View;
    use image::Luma;

    #[test]
    fn csv_and_folders_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("d.csv");
        std::fs::write(&csv, "image,label,mask\na.jpg,cat,m.png\nb.jpg,3,\n").unwrap();
        let samples = read(&csv).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0].mask, Some(dir.path().join("m.png")));
        assert_eq!((samples[1].label.as_str(), &samples[1].mask), ("3", &None));
        std::fs::write(&csv, "text,label,rationale\n\"good, really\",positive,good\n").unwrap();
        assert_eq!(read(&csv).unwrap()[0].content, Content::Text("good, really".into()));
        std::fs::write(&csv, "a,b\n1,2\n").unwrap();
        assert!(read(&csv).unwrap_err().to_string().contains("path,label"));
        std::fs::create_dir_all(dir.path().join("data/cat")).unwrap();
        assert!(read(&dir.path().join("data")).is_err());
        std::fs::write(dir.path().join("data/cat/1.PNG"), b"").unwrap();
        assert_eq!(read(&dir.path().join("data")).unwrap()[0].label, "cat");
    }

    #[test]
    fn masks_follow_the_crop() {
        let mask = GrayImage::from_fn(4, 4, |x, _| Luma([if x >= 2 { 255 } else { 0 }]));
        let view = View { x: 2.0, y: 0.0, width: 4.0, height: 8.0 }; // of a picture of 8 x 8: columns 2 to 5
        let prepared = Prepared { pixels: vec![], size: (1, 4), view };
        assert_eq!(mask_at_input(&mask, (8, 8), &prepared), [false, false, true, true]);
    }

    #[test]
    fn rationales_mark_tokens() {
        let token = |start, end, special| TextToken { piece: String::new(), start, end, text: 0, word: None, special };
        let tokens = vec![token(0, 0, true), token(0, 1, false), token(2, 6, false), token(6, 8, false)];
        let layout = TextLayout { tokens, texts: vec!["a goodly".into()] };
        assert_eq!(rationale_tokens("good", &layout).unwrap(), [false, false, true, false]);
        assert_eq!(rationale_tokens("0-1; goodly", &layout).unwrap(), [false, true, true, true]);
        assert!(rationale_tokens("bad", &layout).is_err());
    }
}
