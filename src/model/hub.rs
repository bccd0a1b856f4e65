//! Files of a model on the HuggingFace hub, downloaded once into the usual cache (feature `hub`).

mod cache;
mod client;

use super::checkpoint::inside;
use crate::error::{Error, Result};
use cache::Cache;
use client::{Client, Opened, Trouble};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Told of every download: file name, bytes done, bytes in all; once with both the same, at the end.
pub type OnDownload = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// How often an interrupted download goes on before it is given up.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// A model repository, one revision of it.
pub struct HubRepo {
    id: String,
    revision: String,
    /// The commit that the first file came from: all others come from it too.
    commit: OnceLock<String>,
    cache: Cache,
    client: Option<Client>,
    on_download: OnDownload,
}

impl HubRepo {
    /// Opens a repository; nothing is fetched yet. `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`
    /// and `HF_HUB_DOWNLOAD_TIMEOUT` are honoured.
    ///
    /// # Errors
    /// [`Error::Model`] for a token or revision that cannot be one.
    pub fn open(id: &str, revision: Option<&str>, offline: bool, on_download: OnDownload) -> Result<Self> {
        let set = |key: &str| std::env::var(key).ok().map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
        let revision = revision.unwrap_or("main").to_string();
        if !inside(&revision) {
            return Err(Error::Model(format!("revision {revision:?} can be no branch, tag or commit of the hub")));
        }
        let offline = offline || set("HF_HUB_OFFLINE").is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true"));
        let client = if offline {
            None
        } else {
            let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
            let seconds = set("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|s| s.parse().ok()).unwrap_or(10);
            Some(Client::new(endpoint.trim_end_matches('/').to_string(), token(set("HF_TOKEN"))?, seconds))
        };
        let cache = Cache::of(id)?;
        let commit = cache.commit(&revision).map_or_else(OnceLock::new, OnceLock::from);
        Ok(HubRepo { id: id.to_string(), revision, commit, cache, client, on_download })
    }

    /// The local path of a file, downloaded if need be; none when the repository does not have it.
    ///
    /// # Errors
    /// [`Error::Model`] when the hub cannot be reached, refuses, or sends something damaged.
    pub fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        if let Some(path) = self.commit.get().and_then(|commit| self.cache.file(commit, name)) {
            return Ok(Some(path));
        }
        let Some(client) = &self.client else { return Ok(None) };
        if !inside(name) {
            return Err(Error::Model(format!("model `{}`: {name:?} can be no file of a repository", self.id)));
        }
        let mut tried = 0;
        loop {
            tried += 1;
            match self.fetch(client, name) {
                Ok(path) => return Ok(path),
                Err(Failure::Again(_)) if tried < TRIES => std::thread::sleep(PAUSE * tried),
                Err(Failure::Again(trouble)) => return Err(self.explained(name, &trouble)),
                Err(Failure::Fatal(e)) => return Err(e),
            }
        }
    }

    /// The commit the revision points to, once a file is cached.
    pub fn commit(&self) -> Option<String> {
        self.commit.get().cloned()
    }

    /// Whether a file that was not found is known not to exist: the hub has said so, now or before.
    pub fn known_absent(&self, name: &str) -> bool {
        self.client.is_some() || self.commit.get().is_some_and(|commit| self.cache.is_absent(commit, name))
    }

    /// Why nothing was found, for a repository without config.json.
    pub fn missing(&self) -> Error {
        let id = &self.id;
        Error::Model(if self.client.is_none() {
            format!("model `{id}` (revision {}) is not in the cache {} and --offline is set; run once without it, or check the id", self.revision, self.cache.root().display())
        } else {
            format!("model `{id}` was not found: there is no such directory here, and the hub has no such model, revision ({}) or config.json; check the id, or log in (HF_TOKEN) if it is private", self.revision)
        })
    }

    /// One try: what there is of the file is kept, and the next goes on there.
    fn fetch(&self, client: &Client, name: &str) -> std::result::Result<Option<PathBuf>, Failure> {
        let have = |etag: &str| length(&self.part(etag));
        let revision = self.commit.get().unwrap_or(&self.revision);
        let open = || client.open(&self.id, revision, name, have).map_err(|t| self.sorted(name, t));
        let Some(mut opened) = open()? else {
            self.commit.get().into_iter().for_each(|commit| self.cache.note_absent(commit, name));
            return Ok(None);
        };
        let etag = opened.etag.clone();
        let before = have(&etag);
        let _lock = self.cache.lock(&etag)?;
        let blob = self.cache.blob(&etag);
        if !blob.is_file() {
            if have(&etag) != before {
                // Another process wrote while this one waited.
                opened = open()?.ok_or(Failure::Again(Trouble::Status(404)))?;
            }
            let part = self.part(&etag);
            self.write(&part, name, &mut opened)?;
            self.verify(&part, &etag, opened.from)?;
            std::fs::rename(&part, &blob).map_err(|e| Error::io(&blob, e))?;
            let size = length(&blob);
            (self.on_download)(name, size, size);
        }
        let path = self.cache.link(&opened.commit, name, &etag)?;
        self.cache.note_commit(&self.revision, &opened.commit)?;
        self.commit.set(opened.commit).ok();
        Ok(Some(path))
    }

    /// Adds what the hub sends to the part file; an end that comes too early is worth another try.
    fn write(&self, part: &Path, name: &str, opened: &mut Opened) -> std::result::Result<(), Failure> {
        let io = |e| Failure::Fatal(Error::io(part, e));
        let folder = part.parent().unwrap_or(part);
        std::fs::create_dir_all(folder).map_err(io)?;
        let mut file = File::options().create(true).append(true).open(part).map_err(io)?;
        if opened.from == 0 {
            file.set_len(0).map_err(io)?;
        } else if opened.from != length(part) {
            std::fs::remove_file(part).map_err(io)?;
            return Err(Failure::Again(Trouble::Range(opened.etag.clone())));
        }
        let (mut done, total) = (opened.from, opened.size.unwrap_or(0));
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = match opened.body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => return Err(Failure::Again(Trouble::Other(e.to_string()))),
            };
            file.write_all(&buffer[..n]).map_err(io)?;
            done += n as u64;
            if done < total {
                (self.on_download)(name, done, total);
            }
        }
        file.sync_data().map_err(io)?;
        match opened.size {
            Some(size) if done < size => {
                Err(Failure::Again(Trouble::Other(format!("it ended after {done} of {size} bytes"))))
            }
            Some(size) if done > size => {
                std::fs::remove_file(part).map_err(io)?;
                Err(Failure::Again(Trouble::Range(opened.etag.clone())))
            }
            _ => Ok(()),
        }
    }

    /// Large files are named by their SHA-256: a download that does not match is removed.
    fn verify(&self, part: &Path, etag: &str, from: u64) -> std::result::Result<(), Failure> {
        let is_sha256 = etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_sha256 || sha256(part)? == etag.to_lowercase() {
            return Ok(());
        }
        std::fs::remove_file(part).map_err(|e| Error::io(part, e))?;
        if from > 0 {
            // What was kept was of another file: once from the beginning.
            return Err(Failure::Again(Trouble::Range(etag.to_string())));
        }
        Err(Failure::Fatal(Error::Model(format!(
            "model `{}`: the download is damaged (its SHA-256 differs from the hub's); it was removed, run again",
            self.id
        ))))
    }

    /// Whether trouble is worth another try.
    fn sorted(&self, name: &str, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Range(etag) => {
                // The part file is longer than the file: without it the next try begins at 0.
                std::fs::remove_file(self.part(&etag)).ok();
                Failure::Again(Trouble::Range(etag))
            }
            other => Failure::Fatal(self.explained(name, &other)),
        }
    }

    /// What has come of these contents so far.
    fn part(&self, etag: &str) -> PathBuf {
        self.cache.blob(etag).with_file_name(format!("{etag}.part"))
    }

    fn explained(&self, name: &str, trouble: &Trouble) -> Error {
        let id = &self.id;
        let failed = |why: &str| {
            // Nobody knows yet whether a hub's model was meant.
            let local = if name == "config.json" { "there is no such directory here, and " } else { "" };
            Error::Model(format!("model `{id}`: {local}{name} could not be downloaded ({why}); a partial download is kept and resumed; check the network, or pass --offline with a cached model, or a local directory"))
        };
        match trouble {
            Trouble::Status(401 | 403) => Error::Model(format!("model `{id}`: the hub refused access to {name}; it may not exist, or be private or gated: set HF_TOKEN to a token that may read it")),
            Trouble::Status(429) => failed("the hub answers 429, too many requests, also after waiting as it asked"),
            Trouble::Status(status) => failed(&format!("the hub answers {status}")),
            Trouble::Slow(seconds) => failed(&format!("no answer within {seconds} seconds; HF_HUB_DOWNLOAD_TIMEOUT sets how long to wait")),
            Trouble::Range(_) => failed("the hub does not send the part that is asked for"),
            Trouble::Other(why) => failed(why),
        }
    }
}

/// Why a try failed.
enum Failure {
    /// Another may not.
    Again(Trouble),
    /// Another would too.
    Fatal(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Fatal(error)
    }
}

/// The token: of the environment, or of `huggingface-cli login`.
fn token(set: Option<String>) -> Result<Option<String>> {
    let kept = || std::fs::read_to_string(cache::home().ok()?.join("token")).ok();
    let token = set.or_else(|| Some(kept()?.trim().to_string())).filter(|t| !t.is_empty());
    match &token {
        Some(t) if !t.bytes().all(|b| b.is_ascii_graphic()) => Err(Error::Model(
            "HF_TOKEN (or the token file of a login) holds a space, a line break or another character that no token has; set it anew".into(),
        )),
        _ => Ok(token),
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
