//! Files of a model on the HuggingFace hub, downloaded once into the usual cache (feature `hub`).

use crate::error::{Error, Result};
use crate::identity::sha256;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::api::Progress;
use hf_hub::{Cache, Repo, RepoType};
use std::path::PathBuf;
use std::sync::Arc;

/// Told of every download: file name, bytes done, bytes in all.
pub type OnDownload = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// A model repository, one revision of it.
pub struct HubRepo {
    id: String,
    revision: String,
    cache: Cache,
    api: Option<ApiRepo>,
    on_download: OnDownload,
}

impl HubRepo {
    /// Opens a repository; nothing is fetched yet. `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` are honoured.
    ///
    /// # Errors
    /// [`Error::Model`] when no HTTP client can be set up.
    pub fn open(id: &str, revision: Option<&str>, offline: bool, on_download: OnDownload) -> Result<Self> {
        let cache = std::env::var_os("HF_HUB_CACHE").map_or_else(Cache::from_env, |dir| Cache::new(dir.into()));
        let revision = revision.unwrap_or("main").to_string();
        let offline =
            offline || std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| v == "1" || v.eq_ignore_ascii_case("true"));
        let api = if offline {
            None
        } else {
            let mut builder = ApiBuilder::from_env().with_cache_dir(cache.path().clone()).with_retries(2);
            let token = std::env::var("HF_TOKEN").ok().filter(|t| !t.trim().is_empty()).or_else(|| cache.token());
            builder = builder.with_token(token);
            let api = builder.build().map_err(|e| Error::Model(format!("hub: {e}")))?;
            Some(api.repo(Repo::with_revision(id.to_string(), RepoType::Model, revision.clone())))
        };
        Ok(HubRepo { id: id.to_string(), revision, cache, api, on_download })
    }

    /// The local path of a file, downloaded if need be; none when the repository does not have it.
    ///
    /// # Errors
    /// [`Error::Model`] when the hub cannot be reached, refuses, or sends something damaged.
    pub fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        if let Some(path) = self.cached(name) {
            return Ok(Some(path));
        }
        let Some(api) = &self.api else { return Ok(None) };
        let progress = Report { file: name.to_string(), done: 0, total: 0, tell: self.on_download.clone() };
        match api.download_with_progress(name, progress) {
            Ok(path) => verified(path).map(Some),
            Err(e) if status(&e) == Some(404) => Ok(None),
            Err(e) => Err(self.explained(name, &e)),
        }
    }

    /// The commit the revision points to, once a file is cached.
    pub fn commit(&self) -> Option<String> {
        let dir = self.cache.path().join(format!("models--{}", self.id.replace('/', "--")));
        let commit = std::fs::read_to_string(dir.join("refs").join(&self.revision)).ok()?;
        Some(commit.trim().to_string())
    }

    /// Why nothing was found, for a repository without config.json.
    pub fn missing(&self) -> Error {
        let id = &self.id;
        Error::Model(if self.api.is_none() {
            format!("model `{id}` (revision {}) is not in the cache {} and --offline is set; run once without it, or check the id", self.revision, self.cache.path().display())
        } else {
            format!("model `{id}` was not found: there is no such directory here, and the hub has no such model, revision ({}) or config.json; check the id, or log in (HF_TOKEN) if it is private", self.revision)
        })
    }

    fn cached(&self, name: &str) -> Option<PathBuf> {
        let repo = Repo::with_revision(self.id.clone(), RepoType::Model, self.revision.clone());
        let cache = self.cache.repo(repo);
        // A full commit hash has a snapshot but, when another tool downloaded it, no ref.
        let by_hash = cache.pointer_path(&self.revision).join(name);
        cache.get(name).or_else(|| by_hash.exists().then_some(by_hash))
    }

    fn explained(&self, name: &str, error: &ApiError) -> Error {
        let id = &self.id;
        Error::Model(match status(error) {
            Some(401 | 403) => format!("model `{id}`: the hub refused access to {name}; it may not exist, or be private or gated: set HF_TOKEN to a token that may read it"),
            _ => format!("model `{id}`: {name} could not be downloaded ({error}); a partial download is kept and resumed; check the network, or pass --offline with a cached model, or a local directory"),
        })
    }
}

fn status(error: &ApiError) -> Option<u16> {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = source {
        let text = e.to_string();
        for code in [401, 403, 404] {
            if text.contains(&format!("status: {code}")) || text.contains(&format!("status code {code}")) {
                return Some(code);
            }
        }
        source = e.source();
    }
    None
}

/// Large files are named by their SHA-256 in the cache: a download that does not match is removed.
fn verified(path: PathBuf) -> Result<PathBuf> {
    let blob = std::fs::canonicalize(&path).map_err(|e| Error::io(&path, e))?;
    let name = blob.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let is_sha256 = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if is_sha256 && sha256(&blob)? != name.to_lowercase() {
        std::fs::remove_file(&blob).map_err(|e| Error::io(&blob, e))?;
        std::fs::remove_file(&path).ok();
        return Err(Error::Model(format!(
            "{}: the download is damaged (its SHA-256 differs from the hub's); it was removed, run again",
            path.display()
        )));
    }
    Ok(path)
}

struct Report {
    file: String,
    done: u64,
    total: u64,
    tell: OnDownload,
}

impl Progress for Report {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
        (self.tell)(&self.file, 0, self.total);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.tell)(&self.file, self.done, self.total);
    }

    fn finish(&mut self) {
        (self.tell)(&self.file, self.total, self.total);
    }
}
