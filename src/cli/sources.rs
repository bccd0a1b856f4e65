//! From arguments to a list of inputs, each with the name its outputs will have.

use super::args::InputArgs;
use anyhow::{bail, Context, Result};
use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use vitx::input::text::Text;

/// One input.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// As records name it.
    pub name: String,
    /// Output path without method, target and extension, relative to the output folder.
    pub stem: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// Kinds of input.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A picture file.
    Picture(PathBuf),
    /// One example of an array `[3,H,W]` or `[B,3,H,W]` of pixel values.
    Array(PathBuf, Option<usize>),
    /// A text.
    Text(Text),
    /// A file that holds one text.
    TextFile(PathBuf),
    /// What could not even be listed, with the reason.
    Unreadable(String),
}

/// All inputs of a run.
#[derive(Debug)]
pub struct Sources {
    /// In a fixed order.
    pub list: Vec<Source>,
    /// Whether a folder was among the arguments (outputs then go to `vitx-out/`).
    pub from_folder: bool,
}

const PICTURES: &[&str] = &[
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "gif", "webp", "bmp", "tif", "tiff", "pnm", "ppm", "pgm", "pbm", "pam",
];

fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Whether a name is that of something vitx reads.
pub fn is_input(path: &Path) -> bool {
    let extension = extension(path);
    PICTURES.contains(&extension.as_str()) || ["npy", "txt"].contains(&extension.as_str())
}

impl Source {
    /// Whether it needs a text model.
    pub fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Text(_) | Kind::TextFile(_))
    }
}

impl Sources {
    /// Lists the inputs. `out` is where outputs go, so that a run inside its own input folder skips them.
    ///
    /// # Errors
    /// A path that does not exist, an unreadable folder, no input at all.
    pub fn list(args: &InputArgs, out: Option<&Path>) -> Result<Self> {
        let mut all = Sources { list: Vec::new(), from_folder: false };
        let mut paths = Vec::new();
        for input in &args.inputs {
            if input == Path::new("-") {
                paths.extend(stdin_lines("a list of paths")?.into_iter().map(PathBuf::from));
            } else {
                paths.push(input.clone());
            }
        }
        let folders = paths.iter().filter(|p| p.is_dir()).count();
        for path in paths {
            all.path(&path, folders > 1, out)?;
        }
        all.texts(args)?;
        if all.list.is_empty() {
            if all.from_folder {
                bail!("no images found in the given folder; vitx reads files named .{}, .npy", PICTURES.join(", ."));
            }
            bail!("no input; pass image files or folders, --text TEXT, or `-` for a list of paths on stdin (see `vitx explain --help`)");
        }
        all.make_stems_unique();
        if let Some((i, n)) = args.shard {
            all.list = all.list.into_iter().skip(i - 1).step_by(n).collect();
        }
        Ok(all)
    }

    fn path(&mut self, path: &Path, name_folder: bool, out: Option<&Path>) -> Result<()> {
        if !path.is_dir() {
            std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
            let stem = PathBuf::from(path.file_stem().unwrap_or_default());
            return self.file(path, stem);
        }
        self.from_folder = true;
        std::fs::read_dir(path).with_context(|| format!("cannot read the folder {}", path.display()))?;
        let own = out.map_or_else(|| PathBuf::from("vitx-out"), Path::to_path_buf).canonicalize().ok();
        let root = path.canonicalize().ok();
        let walk = walkdir::WalkDir::new(path).follow_links(true).sort_by_file_name().into_iter();
        let walk = walk.filter_entry(|e| {
            !e.file_type().is_dir() || own.is_none() || own == root || e.path().canonicalize().ok() != own
        });
        let base = if name_folder { path.file_name().map(PathBuf::from).unwrap_or_default() } else { PathBuf::new() };
        for entry in walk {
            match entry {
                Ok(entry) if entry.file_type().is_file() => {
                    let wanted =
                        PICTURES.contains(&extension(entry.path()).as_str()) || extension(entry.path()) == "npy";
                    if wanted {
                        let relative = entry.path().strip_prefix(path).unwrap_or(entry.path());
                        self.file(entry.path(), base.join(relative.with_extension("")))?;
                    }
                }
                Ok(_) => {}
                Err(e) => {
                    let name = e.path().unwrap_or(path).display().to_string();
                    let kind = Kind::Unreadable(e.to_string());
                    self.list.push(Source { name, stem: PathBuf::new(), kind });
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, stem: PathBuf) -> Result<()> {
        let name = path.display().to_string();
        let mut push = |name: String, stem: PathBuf, kind: Kind| self.list.push(Source { name, stem, kind });
        match extension(path).as_str() {
            "npy" => match super::prepare::array_shape(path) {
                Ok(shape) if shape.len() == 4 => {
                    for b in 0..shape[0] as usize {
                        let numbered = with_suffix(&stem, &format!("-{b}"));
                        push(format!("{name}[{b}]"), numbered, Kind::Array(path.to_path_buf(), Some(b)));
                    }
                }
                _ => push(name, stem, Kind::Array(path.to_path_buf(), None)),
            },
            "txt" => push(name, stem, Kind::TextFile(path.to_path_buf())),
            _ => push(name, stem, Kind::Picture(path.to_path_buf())),
        }
        Ok(())
    }

    fn texts(&mut self, args: &InputArgs) -> Result<()> {
        let mut texts: Vec<(String, String, Text)> = Vec::new();
        let one = |first: &str| Text { first: first.to_string(), second: None };
        let pairs = args.text_pair.chunks_exact(2).map(|p| Text { first: p[0].clone(), second: Some(p[1].clone()) });
        let given: Vec<Text> = args.text.iter().map(|t| one(t)).chain(pairs).collect();
        for (i, text) in given.iter().enumerate() {
            let stem = if given.len() == 1 { "text".into() } else { format!("text-{i}") };
            texts.push((text.first.clone(), stem, text.clone()));
        }
        for file in &args.text_file {
            let (label, lines) = if file == Path::new("-") {
                ("stdin".to_string(), stdin_lines("texts")?)
            } else {
                let content =
                    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                (stem, content.lines().map(String::from).collect())
            };
            let filled = lines.iter().enumerate().filter(|(_, l)| !l.trim().is_empty());
            texts.extend(filled.map(|(i, line)| (line.clone(), format!("{label}-{i}"), one(line))));
        }
        self.list.extend(texts.into_iter().map(|(name, stem, text)| Source {
            name,
            stem: stem.into(),
            kind: Kind::Text(text),
        }));
        Ok(())
    }

    /// Two inputs never overwrite each other: equal stems get their extension, then a number.
    fn make_stems_unique(&mut self) {
        let count = |list: &[Source]| {
            let mut counts: HashMap<PathBuf, usize> = HashMap::new();
            list.iter().for_each(|s| *counts.entry(s.stem.clone()).or_default() += 1);
            counts
        };
        let counts = count(&self.list);
        for source in &mut self.list {
            if let (true, Kind::Picture(path) | Kind::Array(path, _) | Kind::TextFile(path)) =
                (counts[&source.stem] > 1, &source.kind)
            {
                source.stem =
                    with_suffix(&source.stem, &format!(".{}", path.extension().unwrap_or_default().to_string_lossy()));
            }
        }
        let counts = count(&self.list);
        let mut used: HashMap<PathBuf, usize> = HashMap::new();
        for source in &mut self.list {
            if counts[&source.stem] > 1 {
                let n = used.entry(source.stem.clone()).or_default();
                *n += 1;
                if *n > 1 {
                    source.stem = with_suffix(&source.stem, &format!("~{n}"));
                }
            }
        }
    }
}

fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn stdin_lines(what: &str) -> Result<Vec<String>> {
    let mut text = String::new();
    let mut stdin = std::io::stdin().lock();
    if stdin.fill_buf().is_ok_and(|b| !b.is_empty()) {
        stdin.read_to_string(&mut text).with_context(|| format!("stdin: expected {what} in UTF-8"))?;
    }
    Ok(text.lines().filter(|l| !l.trim().is_empty()).map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_told_apart() {
        let source = |path: &str| Source {
            name: path.into(),
            stem: Path::new(path).file_stem().unwrap().into(),
            kind: Kind::Picture(path.into()),
        };
        let list = ["a/x.jpg", "b/x.jpg", "x.png", "y.png"].map(source).to_vec();
        let mut all = Sources { list, from_folder: false };
        all.make_stems_unique();
        let stems: Vec<_> = all.list.iter().map(|s| s.stem.to_str().unwrap()).collect();
        assert_eq!(stems, ["x.jpg", "x.jpg~2", "x.png", "y"]);
    }
}
