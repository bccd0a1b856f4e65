//! An input with its names: what records call it, and what its outputs are called before the method: never a way out of the
//! folder, never the same for two inputs.

use super::prepare::{Input, Preparer, Ready};
use super::text::Text;
use crate::error::{Error, Result};
use crate::identity;
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// One input of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// As records name it.
    pub name: String,
    /// Output path without method, target and extension, relative to the output folder.
    pub stem: PathBuf,
    /// What it is; or why it cannot be read.
    pub input: std::result::Result<Input, String>,
}

impl Source {
    /// Of a file by its ending: a picture where that says nothing else. An array `[B,C,H,W]` is B inputs.
    pub fn of_file(path: &Path, stem: PathBuf) -> Vec<Source> {
        let name = path.display().to_string();
        let input = Input::of_file(path).unwrap_or_else(|| Input::Picture(path.to_path_buf()));
        let one = |input: Input| match input {
            Input::Array(_, Some(b)) => {
                Source { name: format!("{name}[{b}]"), stem: with_suffix(&stem, &format!("-{b}")), input: Ok(input) }
            }
            _ => Source { name: name.clone(), stem: stem.clone(), input: Ok(input) },
        };
        input.examples().into_iter().map(one).collect()
    }

    /// Texts that were given as they are.
    pub fn of_texts(texts: Vec<Text>) -> Vec<Source> {
        let one = texts.len() == 1;
        let stem = |i: usize| if one { "text".to_string() } else { format!("text-{i}") };
        let source = |(i, text): (usize, Text)| Source {
            name: text.first.clone(),
            stem: stem(i).into(),
            input: Ok(Input::Text(text)),
        };
        texts.into_iter().enumerate().map(source).collect()
    }

    /// The lines of a file, a text each; `stem` is what the file is called in names.
    pub fn of_lines(file: &Path, stem: &str, lines: Vec<Vec<u8>>) -> Vec<Source> {
        let source = |(i, line): (usize, Vec<u8>)| match String::from_utf8(line) {
            Ok(line) if line.trim().is_empty() => None,
            Ok(line) => {
                let text = Text { first: line.clone(), second: None };
                Some(Source { name: line, stem: format!("{stem}-{i}").into(), input: Ok(Input::Text(text)) })
            }
            Err(_) => {
                Some(Source::unreadable(format!("{}, line {}", file.display(), i + 1), "is not UTF-8 text".into()))
            }
        };
        lines.into_iter().enumerate().filter_map(source).collect()
    }

    /// What tells a list of inputs from others: the contents of all, by their stems.
    pub fn whole(list: &[Source]) -> String {
        let stems: Vec<String> = list.iter().map(|s| s.stem.to_string_lossy().into_owned()).collect();
        let parts = list.par_iter().map(|s| s.contents().unwrap_or_default()).collect::<Vec<_>>();
        identity::of_parts(stems.iter().map(String::as_str).zip(parts))
    }

    /// Which of so many parts of a run it belongs to, counted from 0: by what it is called within its folder, or by its text, so that neither
    /// the order of the inputs nor others beside it matter.
    pub fn part(&self, parts: usize) -> usize {
        let file = self.path().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let key = match file {
            Some(file) => format!("{}/{file}", self.stem.display()),
            None => self.name.clone(),
        };
        let digits = identity::of_bytes(key.replace('\\', "/").as_bytes());
        let number = digits.get(..15).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
        (number % parts.max(1) as u64) as usize
    }

    /// What cannot be read, and why.
    pub fn unreadable(name: String, why: String) -> Self {
        Source { name, stem: PathBuf::new(), input: Err(why) }
    }

    /// Reads and prepares it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn prepare(&self, preparer: &mut Preparer<'_>) -> Result<Ready> {
        preparer.prepare(self.input.as_ref().map_err(|why| Error::Input(why.clone()))?)
    }

    /// The contents, whatever it is called; none when it cannot be read.
    pub fn contents(&self) -> Option<String> {
        self.input.as_ref().ok()?.contents().ok()
    }

    /// The file it is read from.
    pub fn path(&self) -> Option<&Path> {
        self.input.as_ref().ok()?.path()
    }
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A file, or what `<(command)` and `/dev/stdin` are: a pipe that somebody writes to.
    File,
    /// A folder.
    Folder,
}

/// What a path leads to; or why it cannot be read.
///
/// # Errors
/// In a phrase.
pub fn place(path: &Path) -> std::result::Result<Place, String> {
    let written_to = ["/dev/fd/", "/proc/self/fd/", "/dev/stdin"];
    match std::fs::metadata(path) {
        Err(e) => Err(why(&e)),
        Ok(meta) if meta.is_dir() => Ok(Place::Folder),
        Ok(meta) if meta.is_file() || written_to.iter().any(|p| path.to_string_lossy().starts_with(p)) => {
            Ok(Place::File)
        }
        Ok(_) => Err("is a pipe or a device, not a file".into()),
    }
}

/// Why something cannot be read, in a phrase.
pub fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        _ => error.to_string(),
    }
}

/// A path without its ending. A name of dots alone keeps its ending: `..jpg` must not become `.`, nor `...jpg` `..`.
pub fn stem_of(path: &Path) -> PathBuf {
    let Some(name) = path.file_name() else { return PathBuf::from("input") };
    let stem = path.file_stem().filter(|s| s.to_string_lossy().chars().any(|c| c != '.')).unwrap_or(name);
    match path.parent() {
        Some(folder) => folder.join(stem),
        None => PathBuf::from(stem),
    }
}

/// Two inputs never overwrite each other: equal stems get their ending, then a number that no other input's name has.
pub fn make_unique(list: &mut [Source]) {
    let shared = repeated(list);
    for source in list.iter_mut().filter(|s| shared.contains(&plain(&s.stem))) {
        if let Some(ending) = source.path().and_then(Path::extension) {
            source.stem = with_suffix(&source.stem, &format!(".{}", ending.to_string_lossy()));
        }
    }
    let mut names: HashSet<PathBuf> = list.iter().map(|s| plain(&s.stem)).collect();
    let shared = repeated(list);
    let mut first: HashSet<PathBuf> = HashSet::new();
    for source in list.iter_mut().filter(|s| shared.contains(&plain(&s.stem))) {
        if first.insert(plain(&source.stem)) {
            continue;
        }
        let mut numbered = (2..).map(|n: usize| with_suffix(&source.stem, &format!("~{n}")));
        if let Some(free) = numbered.find(|s| !names.contains(&plain(s))) {
            names.insert(plain(&free));
            source.stem = free;
        }
    }
}

/// Refuses to write over what is read.
///
/// # Errors
/// [`Error::Usage`] naming the first output that is an input of the same run.
pub fn refuse_inputs<'a>(outputs: impl Iterator<Item = &'a PathBuf>, list: &[Source]) -> Result<()> {
    let inputs: HashSet<PathBuf> = list.iter().filter_map(|s| s.path()?.canonicalize().ok()).collect();
    for path in outputs {
        if path.canonicalize().is_ok_and(|p| inputs.contains(&p)) {
            return Err(Error::Usage(format!(
                "{} is an input of this run and would be overwritten; pass another --out",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Stems that several inputs have.
fn repeated(list: &[Source]) -> HashSet<PathBuf> {
    let mut seen = HashSet::new();
    list.iter().map(|s| plain(&s.stem)).filter(|s| !seen.insert(s.clone())).collect()
}

/// As the file system compares names.
fn plain(stem: &Path) -> PathBuf {
    if cfg!(any(windows, target_os = "macos")) {
        PathBuf::from(stem.to_string_lossy().to_lowercase())
    } else {
        stem.to_path_buf()
    }
}

/// A stem with something behind it.
pub fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// A line as a path: any bytes where the system takes them.
#[cfg(unix)]
pub fn path_of(line: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(line))
}

/// A line as a path.
#[cfg(not(unix))]
pub fn path_of(line: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(paths: &[&str]) -> Vec<String> {
        let source = |path: &&str| {
            let stem = stem_of(Path::new(Path::new(path).file_name().unwrap()));
            Source { name: path.to_string(), stem, input: Ok(Input::Picture(path.into())) }
        };
        let mut list: Vec<Source> = paths.iter().map(source).collect();
        make_unique(&mut list);
        list.iter().map(|s| s.stem.to_str().unwrap().to_string()).collect()
    }

    #[test]
    fn equal_names_are_told_apart() {
        assert_eq!(stems(&["a/x.jpg", "b/x.jpg", "x.png", "y.png"]), ["x.jpg", "x.jpg~2", "x.png", "y"]);
        // The number is not one that another input is called by.
        assert_eq!(stems(&["a/x.jpg", "b/x.jpg", "c/x.jpg~2.jpg"]), ["x.jpg", "x.jpg~3", "x.jpg~2"]);
        assert_eq!(
            stems(&["c/x.jpg~2.jpg", "a/x.jpg", "b/x.jpg", "d/x.jpg"]),
            ["x.jpg~2", "x.jpg", "x.jpg~3", "x.jpg~4"]
        );
        // An ending that makes a name of another input's stem.
        let all = stems(&["a/x.jpg", "b/x.png", "c/x.jpg.gif", "d/x.png.bmp"]);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4, "{all:?}");
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        for (path, stem) in [
            ("..jpg", "..jpg"),
            ("...jpg", "...jpg"),
            ("....png", "....png"),
            ("a/..jpg", "a/..jpg"),
            (".jpg", ".jpg"),
            ("a.b.jpg", "a.b"),
            ("..", "input"),
        ] {
            assert_eq!(stem_of(Path::new(path)), Path::new(stem), "{path}");
        }
    }

    #[test]
    fn an_input_stays_in_its_part_whatever_is_beside_it() {
        let folder = |root: &str, file: &str| {
            Source::of_file(&Path::new(root).join(file), stem_of(Path::new(file))).remove(0).part(7)
        };
        let files: Vec<String> = (0..700).map(|n| format!("deep/{n}.jpg")).collect();
        let parts: Vec<usize> = files.iter().map(|file| folder("photos", file)).collect();
        assert!(files.iter().zip(&parts).all(|(file, part)| folder("/elsewhere/photos", file) == *part));
        let sizes: Vec<usize> = (0..7).map(|part| parts.iter().filter(|p| **p == part).count()).collect();
        assert!(sizes.iter().all(|size| (60..140).contains(size)), "{sizes:?}");
        assert_ne!(folder("p", "x.jpg"), folder("p", "y.jpg"), "the name counts");
    }
}
