//! Where a model's files are: inside the program, in a directory, or on the hub. Opening one reads no weights.

use super::builtin::{Builtin, BUILTINS};
use super::sniff;
use super::spec::Spec;
use super::weights::Weights;
use crate::error::{nearest, Error, Result};
use crate::identity;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How hub models are found.
#[derive(Clone, Default)]
pub struct Access {
    /// Branch, tag or commit; `main` when none.
    pub revision: Option<String>,
    /// Never touch the network.
    pub offline: bool,
    /// Told of downloads.
    #[cfg(feature = "hub")]
    pub on_download: Option<super::hub::OnDownload>,
}

/// A model's files.
pub enum Files {
    /// Part of the program.
    Builtin(&'static Builtin),
    /// A local directory in HuggingFace layout.
    Directory(PathBuf),
    /// A hub repository.
    #[cfg(feature = "hub")]
    Hub(Box<super::hub::HubRepo>),
}

impl Files {
    /// Finds `id`: a built-in name, a directory, or a hub id, in this order.
    ///
    /// # Errors
    /// [`Error::Model`] when it is none of them.
    pub fn locate(id: &str, access: &Access) -> Result<Self> {
        if let Some(builtin) = BUILTINS.iter().find(|b| b.name == id) {
            return Ok(Files::Builtin(builtin));
        }
        let path = Path::new(id);
        if path.is_dir() {
            return Ok(Files::Directory(path.to_path_buf()));
        }
        if path.exists() {
            return Err(Error::Model(format!(
                "model `{id}` is a file; pass the directory that holds config.json and the weights"
            )));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        let hub_like = id.split('/').count() <= 2 && !id.starts_with(['.', '/', '~']) && !id.ends_with('/');
        if id.is_empty() || !hub_like || !id.bytes().all(plain) {
            return Err(Error::Model(format!(
                "model `{id}`: there is no such directory{}, and it is no hub id (like google/vit-base-patch16-224)",
                beside(path).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
            )));
        }
        Self::hub(id, access)
    }

    #[cfg(feature = "hub")]
    fn hub(id: &str, access: &Access) -> Result<Self> {
        let silent: super::hub::OnDownload = std::sync::Arc::new(|_| ());
        let tell = access.on_download.clone().unwrap_or(silent);
        let repo = super::hub::HubRepo::open(id, access.revision.as_deref(), access.offline, tell)?;
        let found = repo.file("config.json").and_then(|config| match config {
            Some(_) => Ok(()),
            None if repo.file("adapter_config.json")?.is_some() => {
                Err(Error::Model(format!("model `{id}`: there is no config.json: this is {}", sniff::ADAPTER)))
            }
            None => Err(repo.missing()),
        });
        let near = || match id.contains('/') {
            true => beside(Path::new(id)),
            false => nearest(id, BUILTINS.iter().map(|b| b.name)).map(String::from),
        };
        match (found, near()) {
            (Ok(()), _) => Ok(Files::Hub(Box::new(repo))),
            (Err(Error::Model(text)), Some(near)) => Err(Error::Model(format!("{text}; or did you mean `{near}`?"))),
            (Err(e), _) => Err(e),
        }
    }

    #[cfg(not(feature = "hub"))]
    fn hub(id: &str, _: &Access) -> Result<Self> {
        Err(Error::Model(format!(
            "model `{id}`: there is no such directory, and this build has no hub support (feature `hub`)"
        )))
    }

    /// The commit of a hub model.
    pub fn revision(&self) -> Option<String> {
        match self {
            #[cfg(feature = "hub")]
            Files::Hub(repo) => repo.commit(),
            _ => None,
        }
    }

    /// What tells the contents of these files (config, processor, tokenizer, weights) from others, see [`identity`].
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read.
    pub fn identity(&self) -> Result<String> {
        match self {
            Files::Builtin(b) => {
                let small = b.files.iter().map(|(name, bytes)| (*name, identity::of_bytes(bytes)));
                Ok(identity::of_parts(small.chain([("weights", identity::of_bytes(b.weights))])))
            }
            Files::Directory(dir) => identity::of_folder(dir, is_content),
            // The folder of a commit holds links to files that are never written again.
            #[cfg(feature = "hub")]
            Files::Hub(repo) => {
                match self.weights().and_then(|_| repo.file("config.json"))?.as_deref().and_then(Path::parent) {
                    Some(dir) => identity::of_folder(dir, is_content),
                    None => Err(repo.missing()),
                }
            }
        }
    }

    /// Whether weights that are at hand hold a classifier, whatever config.json calls them.
    pub fn hold_a_head(&self, spec: &Spec) -> bool {
        let Some(weights) = self.at_hand().then(|| self.weights().ok()).flatten() else { return false };
        let names = spec.spellings.iter().map(|spelling| &spelling.names);
        let mut heads =
            names.flat_map(|n| n.other_heads.iter().map(|(_, names)| *names).chain([n.classifiers])).flatten();
        heads.any(|head| {
            let of_head = |name: &String| {
                name.split_once(head).is_some_and(|(front, _)| front.is_empty() || front.ends_with('.'))
            };
            weights.entries().keys().any(of_head)
        })
    }

    /// Whether nothing needs to be fetched to read the weights.
    fn at_hand(&self) -> bool {
        match self {
            Files::Builtin(_) | Files::Directory(_) => true,
            #[cfg(feature = "hub")]
            Files::Hub(_) => false,
        }
    }

    /// What a directory is that lacks the files of a checkpoint, if that can be told.
    pub fn other_kind(&self) -> Option<String> {
        match self {
            Files::Directory(dir) => sniff::folder(dir),
            Files::Builtin(_) => None,
            #[cfg(feature = "hub")]
            Files::Hub(_) => None,
        }
    }

    /// The path of a file on disk, if the model has it.
    fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        match self {
            Files::Builtin(_) => Ok(None),
            Files::Directory(dir) => Ok(Some(dir.join(name)).filter(|p| p.is_file())),
            #[cfg(feature = "hub")]
            Files::Hub(repo) => repo.file(name),
        }
    }

    /// The contents of a small file, if the model has it.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if let Files::Builtin(b) = self {
            return Ok(b.files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| bytes.to_vec()));
        }
        let Some(path) = self.path(name)? else { return Ok(None) };
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        sniff::check_text(name, &bytes)?;
        Ok(Some(bytes))
    }

    /// A small JSON file, if the model has it.
    pub fn json(&self, name: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::Model(format!("{name}: not valid JSON ({e}); is the file complete?")))
    }

    /// Whether a file that was not found is known not to exist, rather than not to be in the cache.
    pub fn known_absent(&self, name: &str) -> Result<bool> {
        match self {
            #[cfg(feature = "hub")]
            Files::Hub(repo) => Ok(repo.known_absent(name)),
            _ => Ok(self.path(name)?.is_none()),
        }
    }

    /// The weights: `model.safetensors`, its shards, `pytorch_model.bin`, or its shards, the first that exists.
    ///
    /// # Errors
    /// [`Error::Model`] when there are none or they are damaged.
    pub fn weights(&self) -> Result<Weights> {
        if let Files::Builtin(b) = self {
            return Weights::embedded(b.weights);
        }
        if let Some(path) = self.path("model.safetensors")? {
            return Weights::files(&[path]);
        }
        if let Some(shards) = self.shards("model.safetensors.index.json")? {
            return Weights::files(&shards);
        }
        if let Some(path) = self.path("pytorch_model.bin")? {
            return Weights::pickles(&[path]);
        }
        if let Some(shards) = self.shards("pytorch_model.bin.index.json")? {
            return Weights::pickles(&shards);
        }
        if let Some(what) = self.other_kind() {
            return Err(Error::Model(format!(
                "no weights found (model.safetensors or pytorch_model.bin): this is {what}"
            )));
        }
        Err(Error::Model("no weights found: expected model.safetensors (or its .index.json with shards) or pytorch_model.bin beside config.json; TensorFlow and Flax files are not read".into()))
    }

    fn shards(&self, index: &str) -> Result<Option<Vec<PathBuf>>> {
        let Some(json) = self.json(index)? else { return Ok(None) };
        let map = json.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| Error::Model(format!("{index}: `weight_map` is missing")))?;
        let names: BTreeSet<&str> = map.values().map(|v| v.as_str().unwrap_or_default()).collect();
        let find = |name: &str| {
            if !inside(name) {
                return Err(Error::Model(format!(
                    "{index} names the shard {name:?}, which is no file of this repository"
                )));
            }
            self.path(name)?.ok_or_else(|| Error::Model(format!("{index} names the shard {name}, which is missing")))
        };
        names.into_iter().map(find).collect::<Result<Vec<_>>>().map(Some)
    }
}

/// Whether a file of a checkpoint's folder may say something about the model, by its ending.
fn is_content(name: &str) -> bool {
    const ENDINGS: &[&str] = &["json", "txt", "model", "jinja", "safetensors", "bin", "pt", "pth", "ckpt"];
    // What a Trainer leaves beside the model changes with every step and says nothing about it.
    const TRAINING: &[&str] = &["optimizer", "scheduler", "rng_state", "trainer_state", "training_args", "scaler"];
    let ending = Path::new(name).extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    ENDINGS.contains(&ending.as_str()) && !TRAINING.iter().any(|t| name.starts_with(t))
}

/// The directory that a mistyped path most likely means.
fn beside(path: &Path) -> Option<String> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folders = std::fs::read_dir(parent).ok()?.filter_map(|e| e.ok().filter(|e| e.path().is_dir()));
    let names: Vec<String> = folders.filter_map(|e| e.file_name().into_string().ok()).collect();
    let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(parent.join(near).display().to_string())
}

/// Whether a file name of a repository stays inside of it: no absolute name, no `..`, nothing that another system reads so.
pub(super) fn inside(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':']);
    name.split('/').all(plain) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_of_the_repository() {
        for name in ["model-00001-of-00002.safetensors", "sub/model.safetensors", "..a"] {
            assert!(inside(name), "{name}");
        }
        for name in ["/etc/passwd", "../x", "a/../../x", "a//b", "", "C:\\x", "C:x", "a\\..\\x", "x\n", "./x"] {
            assert!(!inside(name), "{name}");
        }
    }
}
