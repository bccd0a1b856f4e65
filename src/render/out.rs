//! Where results go and what they are called.

use super::{foreign, names, save, Renderer, FILES};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// A format of `--format`.
pub type Format = &'static Renderer;

/// `--out`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// `-`
    Stdout,
    /// The one output's file.
    File(PathBuf),
    /// A folder.
    Folder(PathBuf),
}

impl Out {
    /// Decides between stdout, one file and a folder. `outputs` is how many files the run will make.
    ///
    /// # Errors
    /// [`Error::Usage`] for one place for several outputs, or a file where a folder must be.
    pub fn choose(out: Option<&Path>, from_folder: bool, formats: &[Format], outputs: usize) -> Result<Self> {
        let Some(out) = out else {
            return Ok(Out::Folder(PathBuf::from(if from_folder { "vitx-out" } else { "" })));
        };
        let one = |place: &str| {
            if outputs == 1 {
                return Ok(());
            }
            Err(Error::Usage(format!("--out {place} takes one output, but this run makes {outputs}; pass a directory, or one input, method, target and format")))
        };
        if out == Path::new("-") {
            one("-")?;
            return Ok(Out::Stdout);
        }
        let extension = out.extension().map(|e| e.to_string_lossy().to_lowercase());
        let is_output = |e: &String| formats.iter().any(|f| f.extension.rsplit('.').next() == Some(e.as_str()));
        let folder = out.is_dir() || out.to_string_lossy().ends_with(std::path::is_separator);
        if let Some(e) = extension.as_ref().filter(|e| !folder && !is_output(e) && FILES.contains(&e.as_str())) {
            return Err(Error::Usage(format!("--out {}: {}", out.display(), foreign(e, formats))));
        }
        if !folder && extension.as_ref().is_some_and(is_output) {
            one(&out.display().to_string())?;
            check_parent(out.parent())?;
            return Ok(Out::File(out.to_path_buf()));
        }
        if out.exists() && !out.is_dir() {
            return Err(Error::Usage(format!("--out {}: there is a file in the place of the output directory; name another, or end with an extension of the format ({})", out.display(), formats.iter().map(|f| f.extension).collect::<Vec<_>>().join(", "))));
        }
        check_parent(Some(out))?;
        Ok(Out::Folder(out.to_path_buf()))
    }

    /// The file of one result.
    pub fn path(&self, stem: &Path, method: &str, target: &str, format: Format) -> PathBuf {
        match self {
            Out::Stdout => PathBuf::from("-"),
            Out::File(path) => path.clone(),
            Out::Folder(folder) => folder.join(names::file(stem, method, target, format.extension)),
        }
    }
}

impl Out {
    /// The file of all results of one input.
    pub fn whole(&self, stem: &Path, format: Format) -> PathBuf {
        match self {
            Out::Stdout => PathBuf::from("-"),
            Out::File(path) => path.clone(),
            Out::Folder(folder) => {
                let mut name = stem.file_name().unwrap_or_default().to_os_string();
                name.push(format!(".{}", format.extension));
                folder.join(stem.with_file_name(name))
            }
        }
    }
}

/// The nearest existing ancestor must be a directory.
fn check_parent(path: Option<&Path>) -> Result<()> {
    let existing = path.into_iter().flat_map(Path::ancestors).find(|p| p.exists());
    match existing {
        Some(p) if !p.is_dir() => Err(Error::Usage(format!(
            "{} is a file, so nothing can be written below it; choose another --out",
            p.display()
        ))),
        _ => Ok(()),
    }
}

/// Refuses a file whose ending says something else than what will be in it.
///
/// # Errors
/// [`Error::Usage`] naming the flag, the file and the ending that would do.
pub fn refuse_ending(flag: &str, file: Option<&Path>, endings: &[&str]) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let ending = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    if endings.contains(&ending.as_str()) || (ending.is_empty() && file.starts_with("/dev")) {
        return Ok(());
    }
    Err(Error::Usage(format!("{flag} {}: expected a file ending in .{}", file.display(), endings.join(" or ."))))
}

/// Refuses to start when an output is already there; `hint` says what else could be done.
///
/// # Errors
/// [`Error::Usage`] naming the first such file and their number.
pub fn refuse_existing<'a>(paths: impl Iterator<Item = &'a PathBuf>, hint: &str) -> Result<()> {
    let existing: Vec<_> = paths.filter(|p| p.exists()).collect();
    match existing[..] {
        [] => Ok(()),
        [one] => Err(Error::Usage(format!("{}{hint}", save::exists(one)))),
        [first, ..] => Err(Error::Usage(format!("{}{hint}; {} more exist", save::exists(first), existing.len() - 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::RENDERERS;

    #[test]
    fn a_file_that_no_format_writes_is_refused() {
        let png = [&RENDERERS[0]];
        for (out, part) in [
            ("fig.svg", "pass --format svg"),
            ("fig.PDF", "pass --format pdf"),
            ("fig.jpg", "no format writes .jpg"),
            ("fig.npy", "pass --format npy"),
            ("fig.json", "pass --format json"),
        ] {
            let error = Out::choose(Some(Path::new(out)), false, &png, 1).unwrap_err().to_string();
            assert!(error.contains(part), "{out}: {error}");
        }
        for folder in ["fig.svg/", "run-0.5", "results.v2"] {
            assert_eq!(Out::choose(Some(Path::new(folder)), false, &png, 1).unwrap(), Out::Folder(folder.into()));
        }
    }

    #[test]
    fn one_place_holds_one_output() {
        let png = [&RENDERERS[0]];
        assert!(Out::choose(Some(Path::new("-")), false, &png, 2).is_err());
        assert_eq!(Out::choose(Some(Path::new("x.png")), false, &png, 1).unwrap(), Out::File("x.png".into()));
        assert_eq!(Out::choose(Some(Path::new("x.d")), false, &png, 3).unwrap(), Out::Folder("x.d".into()));
        assert_eq!(Out::choose(None, true, &png, 3).unwrap(), Out::Folder("vitx-out".into()));
        assert!(Out::choose(Some(Path::new("Cargo.toml")), false, &png, 1).is_err());
        assert!(Out::choose(Some(Path::new("Cargo.toml/x")), false, &png, 1).is_err());
    }
}
