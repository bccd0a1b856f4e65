//! Where results go and what they are called.

use anyhow::{bail, Result};
use std::path::{Path, PathBuf};
use vitx::render::save;
use vitx::render::Renderer;
pub use vitx::target::Request;
use vitx::target::{Labels, Output, Target};

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

/// A format of `--format`.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    /// One of the registry.
    Drawn(&'static Renderer),
    /// The record.
    Json,
}

impl Format {
    /// On the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Drawn(renderer) => renderer.name,
            Format::Json => "json",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Format::Drawn(renderer) => renderer.extension,
            Format::Json => "json",
        }
    }
}

impl Out {
    /// Decides between stdout, one file and a folder. `outputs` is how many files the run will make.
    ///
    /// # Errors
    /// One place for several outputs, or a file where a folder must be.
    pub fn choose(out: Option<&Path>, from_folder: bool, formats: &[Format], outputs: usize) -> Result<Self> {
        let Some(out) = out else {
            return Ok(Out::Folder(PathBuf::from(if from_folder { "vitx-out" } else { "" })));
        };
        let one = |place: &str| {
            if outputs == 1 {
                return Ok(());
            }
            bail!("--out {place} takes one output, but this run makes {outputs}; pass a directory, or one input, method, target and format")
        };
        if out == Path::new("-") {
            one("-")?;
            return Ok(Out::Stdout);
        }
        let extension = out.extension().map(|e| e.to_string_lossy().to_lowercase());
        let is_output = |e: &String| formats.iter().any(|f| f.extension().rsplit('.').next() == Some(e.as_str()));
        if !out.is_dir() && extension.as_ref().is_some_and(is_output) {
            one(&out.display().to_string())?;
            check_parent(out.parent())?;
            return Ok(Out::File(out.to_path_buf()));
        }
        if out.exists() && !out.is_dir() {
            bail!("--out {}: there is a file in the place of the output directory; name another, or end with an extension of the format ({})", out.display(), formats.iter().map(|f| f.extension()).collect::<Vec<_>>().join(", "));
        }
        check_parent(Some(out))?;
        Ok(Out::Folder(out.to_path_buf()))
    }

    /// The file of one result.
    pub fn path(&self, stem: &Path, method: &str, target: &str, format: Format) -> PathBuf {
        match self {
            Out::Stdout => PathBuf::from("-"),
            Out::File(path) => path.clone(),
            Out::Folder(folder) => {
                let mut name = stem.file_name().unwrap_or_default().to_os_string();
                name.push(format!(".{}", slug(method)));
                if !target.is_empty() {
                    name.push(format!(".{target}"));
                }
                name.push(format!(".{}", format.extension()));
                folder.join(stem.with_file_name(name))
            }
        }
    }
}

/// The nearest existing ancestor must be a directory.
fn check_parent(path: Option<&Path>) -> Result<()> {
    let existing = path.into_iter().flat_map(Path::ancestors).find(|p| p.exists());
    match existing {
        Some(p) if !p.is_dir() => {
            bail!("{} is a file, so nothing can be written below it; choose another --out", p.display())
        }
        _ => Ok(()),
    }
}

/// The part of a file name that tells the target: empty for the predicted class.
pub fn target_part(request: &Request, output: Output, labels: &Labels) -> String {
    let minus = if output.lowers { "-" } else { "" };
    if request.target == Target::Predicted {
        return if output.lowers { "-predicted".into() } else { String::new() };
    }
    let part = |class: u32| {
        let label = labels.name(class);
        let again = (0..labels.len() as u32).any(|c| c != class && slug(&labels.name(c)) == slug(&label));
        if again {
            format!("{}-{class}", slug(&label))
        } else {
            slug(&label)
        }
    };
    match output.against {
        None => format!("{minus}{}", part(output.class)),
        Some(against) => format!("{minus}{}-vs-{}", part(output.class), part(against)),
    }
}

/// A name that is safe in every file system.
fn slug(text: &str) -> String {
    let first = text.split(", ").next().unwrap_or(text); // ImageNet labels list synonyms
    let safe = |c: char| if c.is_alphanumeric() || "-_=.".contains(c) { c } else { '-' };
    let short: String = first.chars().map(safe).take(60).collect();
    short.trim_matches('-').to_string()
}

/// Refuses to start when an output is already there; `hint` says what else could be done.
///
/// # Errors
/// Naming the first such file and their number.
pub fn refuse_existing<'a>(paths: impl Iterator<Item = &'a PathBuf>, hint: &str) -> Result<()> {
    let existing: Vec<_> = paths.filter(|p| p.exists()).collect();
    match existing[..] {
        [] => Ok(()),
        [one] => bail!("{}{hint}", save::exists(one)),
        [first, ..] => bail!("{}{hint}; {} more exist", save::exists(first), existing.len() - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels::new(["tabby, tabby cat", "crane", "crane", "a/b c"].map(String::from).to_vec())
    }

    #[test]
    fn file_names_tell_method_and_target() {
        let out = Out::Folder("out".into());
        let path = out.path(Path::new("a/img.x"), "rollout:discard_ratio=0.5", "mammal", Format::Json);
        assert_eq!(path, Path::new("out/a/img.x.rollout-discard_ratio=0.5.mammal.json"));
        let request = |target| Request { text: String::new(), target, lowers: false };
        let one = Output::of;
        assert_eq!(target_part(&request(Target::Predicted), one(0), &labels()), "");
        assert_eq!(target_part(&request(Target::Top(2)), one(0), &labels()), "tabby");
        assert_eq!(target_part(&request(Target::Top(2)), one(2), &labels()), "crane-2");
        let lowers = Output { lowers: true, ..one(0) };
        assert_eq!(target_part(&request(Target::Predicted), lowers, &labels()), "-predicted");
        assert_eq!(target_part(&request(Target::Class(0)), lowers, &labels()), "-tabby");
        let contrast = Target::Contrast { class: 3, against: 0 };
        assert_eq!(target_part(&request(contrast), Output::contrast(3, 0), &labels()), "a-b-c-vs-tabby");
    }

    #[test]
    fn one_place_holds_one_output() {
        let png = [Format::Drawn(&vitx::render::RENDERERS[0])];
        assert!(Out::choose(Some(Path::new("-")), false, &png, 2).is_err());
        assert_eq!(Out::choose(Some(Path::new("x.png")), false, &png, 1).unwrap(), Out::File("x.png".into()));
        assert_eq!(Out::choose(Some(Path::new("x.d")), false, &png, 3).unwrap(), Out::Folder("x.d".into()));
        assert_eq!(Out::choose(None, true, &png, 3).unwrap(), Out::Folder("vitx-out".into()));
        assert!(Out::choose(Some(Path::new("Cargo.toml")), false, &png, 1).is_err());
        assert!(Out::choose(Some(Path::new("Cargo.toml/x")), false, &png, 1).is_err());
    }
}
