//! Where results go and what they are called.

use anyhow::{bail, Result};
use std::path::{Path, PathBuf};
use vitx::identity;
use vitx::render::save;
use vitx::render::{Draws, Renderer, RENDERERS};
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

    /// What of the style it shows.
    pub fn draws(self) -> Draws {
        match self {
            Format::Drawn(renderer) => renderer.draws,
            Format::Json => Draws::Numbers,
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
        let folder = out.is_dir() || out.to_string_lossy().ends_with(std::path::is_separator);
        if let Some(e) = extension.as_ref().filter(|e| !folder && !is_output(e) && FILES.contains(&e.as_str())) {
            bail!("--out {}: {}", out.display(), foreign(e, formats));
        }
        if !folder && extension.as_ref().is_some_and(is_output) {
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
                name.push(format!(".{}", method_part(method)));
                if !target.is_empty() {
                    name.push(format!(".{target}"));
                }
                name.push(format!(".{}", format.extension()));
                folder.join(stem.with_file_name(name))
            }
        }
    }
}

/// Endings by which people mean a file; a folder may have any other.
const FILES: &[&str] = &[
    "ansi", "avif", "bmp", "csv", "eps", "gif", "htm", "html", "jpeg", "jpg", "json", "jsonl", "jxl", "md", "npy",
    "npz", "parquet", "pdf", "png", "ps", "svg", "tex", "tif", "tiff", "tsv", "txt", "webp",
];

/// Why a file of this ending cannot be written.
fn foreign(ending: &str, formats: &[Format]) -> String {
    let writes = |e: &str| e.rsplit('.').next() == Some(ending);
    let other = RENDERERS.iter().find(|r| writes(r.extension)).map(|r| r.name);
    let other = other.or((ending == "json").then_some("json"));
    let now: Vec<_> = formats.iter().map(|f| format!(".{}", f.extension())).collect();
    let now = now.join(", ");
    match other {
        Some(format) => format!("this run writes {now}; pass --format {format} for .{ending}, or end a folder with /"),
        None => format!("no format writes .{ending}; this run writes {now}; end a folder with /"),
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
        let plain = |label: &str| slug(label).to_lowercase(); // as the least of file systems tells names apart
        let again = (0..labels.len() as u32).any(|c| c != class && plain(&labels.name(c)) == plain(&label));
        match slug(&label) {
            none if none.is_empty() => format!("class-{class}"),
            part if again => format!("{part}-{class}"),
            part => part,
        }
    };
    match output.against {
        None => format!("{minus}{}", part(output.class)),
        Some(against) => format!("{minus}{}-vs-{}", part(output.class), part(against)),
    }
}

/// Characters of a method or a label in a file name.
const LONGEST: usize = 60;

/// A method with its parameters as part of a file name. What the name cannot hold stands in it as a few digits of the
/// SHA-256, so that two methods never share a name.
fn method_part(method: &str) -> String {
    let name: String = method.chars().map(safe).collect();
    let kept = method.chars().all(|c| safe(c) == c || c == ':' || c == ',');
    if kept && name.chars().count() <= LONGEST {
        return name.trim_matches('-').to_string();
    }
    let digits = &identity::of_bytes(method.as_bytes())[..8];
    let start: String = name.chars().take(LONGEST - 9).collect();
    format!("{}-{digits}", start.trim_matches('-'))
}

/// A label as part of a file name: its first synonym.
fn slug(label: &str) -> String {
    let first = label.split(", ").next().unwrap_or(label); // ImageNet labels list synonyms
    let short: String = first.chars().map(safe).take(LONGEST).collect();
    short.trim_matches('-').to_string()
}

/// What every file system takes.
fn safe(c: char) -> char {
    if c.is_alphanumeric() || "-_=.".contains(c) {
        c
    } else {
        '-'
    }
}

/// Refuses a file whose ending says something else than what will be in it.
///
/// # Errors
/// Naming the flag, the file and the ending that would do.
pub fn refuse_ending(flag: &str, file: Option<&Path>, endings: &[&str]) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let ending = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    if endings.contains(&ending.as_str()) || (ending.is_empty() && file.starts_with("/dev")) {
        return Ok(());
    }
    bail!("{flag} {}: expected a file ending in .{}", file.display(), endings.join(" or ."))
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
    fn two_methods_never_share_a_name() {
        let long = "integrated-gradients:baseline=black,quadrature=midpoint,steps=";
        let methods = [
            format!("{long}4"),
            format!("{long}40"),
            format!("{long}400"),
            "attention-row=!".into(),
            "attention-row=?".into(),
            "attention-row=".into(),
        ];
        let parts: std::collections::BTreeSet<String> = methods.iter().map(|m| method_part(m)).collect();
        assert_eq!(parts.len(), methods.len(), "{parts:?}");
        assert!(parts.iter().all(|p| p.chars().count() <= LONGEST && !p.contains(['/', ':', ',', '?'])), "{parts:?}");
        assert_eq!(method_part("gae"), "gae");
        assert_eq!(method_part(&methods[0]), method_part(&methods[0]), "the same every time");
    }

    #[test]
    fn labels_that_look_alike_have_their_number() {
        let labels = Labels::new(["Cat", "cat", "!", "?", "dog"].map(String::from).to_vec());
        let parts: Vec<_> = (0..5)
            .map(|c| {
                target_part(
                    &Request { text: String::new(), target: Target::Class(c), lowers: false },
                    Output::of(c),
                    &labels,
                )
            })
            .collect();
        assert_eq!(parts, ["Cat-0", "cat-1", "class-2", "class-3", "dog"]);
    }

    #[test]
    fn a_file_that_no_format_writes_is_refused() {
        let png = [Format::Drawn(&vitx::render::RENDERERS[0])];
        for (out, part) in [
            ("fig.svg", "no format writes .svg"),
            ("fig.PDF", "no format writes .pdf"),
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
        let png = [Format::Drawn(&vitx::render::RENDERERS[0])];
        assert!(Out::choose(Some(Path::new("-")), false, &png, 2).is_err());
        assert_eq!(Out::choose(Some(Path::new("x.png")), false, &png, 1).unwrap(), Out::File("x.png".into()));
        assert_eq!(Out::choose(Some(Path::new("x.d")), false, &png, 3).unwrap(), Out::Folder("x.d".into()));
        assert_eq!(Out::choose(None, true, &png, 3).unwrap(), Out::Folder("vitx-out".into()));
        assert!(Out::choose(Some(Path::new("Cargo.toml")), false, &png, 1).is_err());
        assert!(Out::choose(Some(Path::new("Cargo.toml/x")), false, &png, 1).is_err());
    }
}
