//! From arguments to a list of inputs, each with the name its outputs will have.

use super::args::InputArgs;
use anyhow::{bail, Context, Result};
use std::io::Read;
use std::path::{Path, PathBuf};
use vitx::input::formats;
use vitx::input::source::{make_unique, path_of, place, stem_of, why, Place, Source};
use vitx::input::text::{lines, Text};
use vitx::resume::own::Own;

/// All inputs of a run.
#[derive(Debug)]
pub struct Sources {
    /// In a fixed order.
    pub list: Vec<Source>,
    /// Whether a folder was among the arguments (outputs then go to `vitx-out/`).
    pub from_folder: bool,
    /// Pictures of folders whose format is not read.
    pub left_out: Vec<PathBuf>,
    /// Files of folders that vitx made itself, which are left out.
    pub made: usize,
}

impl Sources {
    /// Lists the inputs. `out` is where outputs go, so that a run inside its own input folder skips them.
    ///
    /// # Errors
    /// A path that does not exist, an unreadable folder, no input at all.
    pub fn list(args: &InputArgs, out: Option<&Path>) -> Result<Self> {
        let mut all = Sources { list: Vec::new(), from_folder: false, left_out: Vec::new(), made: 0 };
        let mut paths = Vec::new();
        for input in &args.inputs {
            if input == Path::new("-") {
                paths.extend(stdin_lines("a list of paths")?.into_iter().map(path_of));
            } else {
                paths.push(input.clone());
            }
        }
        let folders = paths.iter().filter(|p| p.is_dir()).count();
        for path in paths {
            all.path(&path, folders > 1, out)?;
        }
        all.texts(args)?;
        all.refuse_nothing(args)?;
        let parts = args.shard.map(|(i, n)| all.list.iter().map(|source| source.part(n) == i - 1).collect::<Vec<_>>());
        make_unique(&mut all.list); // over the whole run: its parts give no two inputs one name
        if let Some(parts) = parts {
            let mut wanted = parts.into_iter();
            all.list.retain(|_| wanted.next().unwrap_or(false));
        }
        Ok(all)
    }

    /// A run without an input is a mistake, and so is one whose inputs, as they were typed, are all missing.
    fn refuse_nothing(&self, args: &InputArgs) -> Result<()> {
        let made = match self.made {
            0 => String::new(),
            n => format!(" ({n} files there were made by vitx itself)"),
        };
        match &self.list[..] {
            [] if self.from_folder => {
                let left_out = formats::left_out(&self.left_out).map(|l| format!("; {l}")).unwrap_or_default();
                let endings = formats::ENDINGS.join(", .");
                bail!("no images found in the given folder{made}; vitx reads files named .{endings}, .npy{left_out}")
            }
            [] => bail!("no input; pass image files or folders, --text TEXT, or `-` for a list of paths on stdin (see `vitx explain --help`)"),
            [Source { name, input: Err(why), .. }, ..]
                if args.inputs.iter().all(|i| i != Path::new("-")) && self.list.iter().all(|s| s.input.is_err()) =>
            {
                bail!("cannot read {name}: {why}")
            }
            _ => Ok(()),
        }
    }

    /// What is missing or unreadable is that input's error, and the others go on.
    fn path(&mut self, path: &Path, name_folder: bool, out: Option<&Path>) -> Result<()> {
        match place(path) {
            Err(why) => self.unreadable(path.display().to_string(), why),
            Ok(Place::Folder) => self.folder(path, name_folder, out)?,
            Ok(Place::File) => {
                let stem = stem_of(Path::new(path.file_name().unwrap_or_default()));
                self.list.extend(Source::of_file(path, stem));
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, name: String, why: String) {
        self.list.push(Source::unreadable(name, why));
    }

    fn folder(&mut self, path: &Path, name_folder: bool, out: Option<&Path>) -> Result<()> {
        self.from_folder = true;
        let place = out.map_or_else(|| PathBuf::from("vitx-out"), Path::to_path_buf);
        let (own, root) = (place.canonicalize().ok(), path.canonicalize().ok());
        let mut ours = Own::default();
        if own.as_ref().zip(root.as_ref()).is_some_and(|(own, root)| root.starts_with(own)) {
            ours.learn(&place); // elsewhere it says nothing of this folder, and may be long
        }
        let walk = walkdir::WalkDir::new(path).follow_links(true).sort_by_file_name().into_iter();
        let walk = walk.filter_entry(|e| {
            !e.file_type().is_dir() || own.is_none() || own == root || e.path().canonicalize().ok() != own
        });
        let base = if name_folder { path.file_name().map(PathBuf::from).unwrap_or_default() } else { PathBuf::new() };
        for entry in walk {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => ours.learn(entry.path()),
                Ok(entry) if entry.file_type().is_file() => {
                    if formats::is_foreign(entry.path()) {
                        self.left_out.push(entry.path().to_path_buf());
                    }
                    let wanted = formats::is_picture(entry.path()) || formats::ending(entry.path()) == "npy";
                    if wanted && ours.made(entry.path()) {
                        self.made += 1;
                    } else if wanted {
                        let relative = entry.path().strip_prefix(path).unwrap_or(entry.path());
                        self.list.extend(Source::of_file(entry.path(), base.join(stem_of(relative))));
                    }
                }
                Ok(_) => {}
                Err(e) => {
                    let name = e.path().unwrap_or(path).display().to_string();
                    let why = e.io_error().map_or_else(|| e.to_string(), ToString::to_string);
                    self.unreadable(name, why);
                }
            }
        }
        Ok(())
    }

    fn texts(&mut self, args: &InputArgs) -> Result<()> {
        let given = args.text.chunks(1).chain(args.text_pair.chunks(2)).filter_map(Text::of);
        self.list.extend(Source::of_texts(given.collect()));
        for file in &args.text_file {
            if file == Path::new("-") {
                self.list.extend(Source::of_lines(file, "stdin", stdin_lines("texts")?));
                continue;
            }
            match std::fs::read(file) {
                Ok(content) => {
                    let stem = stem_of(Path::new(file.file_name().unwrap_or_default()));
                    self.list.extend(Source::of_lines(file, &stem.to_string_lossy(), lines(&content)));
                }
                Err(e) => self.unreadable(file.display().to_string(), why(&e)),
            }
        }
        Ok(())
    }
}

fn stdin_lines(what: &str) -> Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).with_context(|| format!("stdin: expected {what}"))?;
    Ok(lines(&bytes).into_iter().filter(|l| !l.trim_ascii().is_empty()).collect())
}
