//! Files of a model on the HuggingFace hub, downloaded once into the usual cache (feature `hub`).

mod cache;
mod client;
mod proxy;
mod settings;
mod wait;

use super::checkpoint::inside;
use crate::error::{Error, Result};
use cache::Cache;
use client::{Client, Found, Opened, Trouble};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What is told of downloads while they go on.
#[derive(Debug, Clone, Copy)]
pub enum Download<'a> {
    /// The hub is asked for a file. Until [`Over`](Download::Over) nothing that counts is half done: the program may be ended at
    /// any time, and another run goes on there.
    Begins,
    /// Bytes of a file that have come; the whole is 0 where nobody has said it.
    Comes {
        /// Its name in the repository.
        file: &'a str,
        /// Bytes that are here.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Why nothing comes for a while, as a sentence: the hub is busy, another process downloads the same.
    Waits(&'a str),
    /// A file is whole, checked and in the cache.
    Done {
        /// Its name in the repository.
        file: &'a str,
        /// Its bytes.
        size: u64,
        /// The repository's part of the cache.
        folder: &'a Path,
    },
    /// The hub is no longer asked for it, for whatever reason.
    Over,
}

/// Told of every [`Download`].
pub type OnDownload = Arc<dyn Fn(Download<'_>) + Send + Sync>;

/// How often a download that breaks off goes on before it is given up.
const TRIES: u32 = 3;
/// A try that comes so many bytes further than all before it is none of them.
const PROGRESS: u64 = 1 << 20;

/// A model repository, one revision of it.
pub struct HubRepo {
    id: String,
    revision: String,
    /// The commit that the first file came from: all others come from it too.
    commit: OnceLock<String>,
    cache: Cache,
    /// The hub, or what forbids to ask it.
    client: std::result::Result<Client, &'static str>,
    on_download: OnDownload,
    said_to_wait: AtomicBool,
}

impl HubRepo {
    /// Opens a repository; nothing is fetched yet. `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT`, and `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured.
    ///
    /// # Errors
    /// [`Error::Model`] for a token, revision or setting that cannot be one.
    pub fn open(id: &str, revision: Option<&str>, offline: bool, on_download: OnDownload) -> Result<Self> {
        let revision = revision.unwrap_or("main").to_string();
        if !inside(&revision) {
            return Err(Error::Model(format!("revision {revision:?} can be no branch, tag or commit of the hub")));
        }
        let client = match settings::offline() {
            _ if offline => Err("--offline"),
            Some(variable) => Err(variable),
            None => Ok(Client::new(settings::Settings::read()?, proxy::Proxies::read()?, on_download.clone())),
        };
        let cache = Cache::of(id)?;
        let commit = cache.commit(&revision).map_or_else(OnceLock::new, OnceLock::from);
        let said_to_wait = AtomicBool::new(false);
        Ok(HubRepo { id: id.to_string(), revision, commit, cache, client, on_download, said_to_wait })
    }

    /// The local path of a file, downloaded if need be; none when the repository does not have it.
    ///
    /// # Errors
    /// [`Error::Model`] when the hub cannot be reached, refuses, or sends something damaged.
    pub fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        if let Some(commit) = self.commit.get() {
            let here = self.cache.file(commit, name);
            // What a commit does not have it will never have.
            if here.is_some() || self.cache.is_absent(commit, name) {
                return Ok(here);
            }
        }
        let Ok(client) = &self.client else { return Ok(None) };
        if !inside(name) {
            return Err(Error::Model(format!("model `{}`: {name:?} can be no file of a repository", self.id)));
        }
        (self.on_download)(Download::Begins);
        let found = self.persist(client, name);
        (self.on_download)(Download::Over);
        found
    }

    /// Tries until the file is here, or it is clear that it will not come.
    fn persist(&self, client: &Client, name: &str) -> Result<Option<PathBuf>> {
        let (mut tried, mut furthest) = (0, 0);
        loop {
            tried += 1;
            match self.fetch(client, name) {
                Ok(path) => return Ok(path),
                Err(Failure::Fatal(e)) => return Err(e),
                Err(Failure::Again { reached, .. }) if reached >= furthest + PROGRESS => {
                    (tried, furthest) = (0, reached);
                }
                Err(Failure::Again { .. }) if tried < TRIES => std::thread::sleep(wait::PAUSE * tried),
                Err(Failure::Again { trouble, .. }) => return Err(self.explained(client, name, &trouble)),
            }
        }
    }

    /// The commit the revision points to, once a file is cached.
    pub fn commit(&self) -> Option<String> {
        self.commit.get().cloned()
    }

    /// Whether a file that was not found is known not to exist: the hub has said so, now or before.
    pub fn known_absent(&self, name: &str) -> bool {
        self.client.is_ok() || self.commit.get().is_some_and(|commit| self.cache.is_absent(commit, name))
    }

    /// Why nothing was found, for a repository without config.json.
    pub fn missing(&self) -> Error {
        let (id, revision) = (&self.id, &self.revision);
        Error::Model(match &self.client {
            Err(forbids) => format!("model `{id}` (revision {revision}) is not in the cache {} and {forbids} is set; run once without it, or check the id", self.cache.root().display()),
            Ok(client) => format!("model `{id}` was not found: there is no such directory here, and the hub ({}) has no such model or revision ({revision}), or no config.json in it; check the id, or log in (HF_TOKEN) if it is private", client.shown()),
        })
    }

    /// One try: what there is of a large file is kept, and the next goes on there.
    fn fetch(&self, client: &Client, name: &str) -> std::result::Result<Option<PathBuf>, Failure> {
        let fatal = |trouble| Failure::Fatal(self.explained(client, name, &trouble));
        let revision = self.commit.get().unwrap_or(&self.revision);
        let Some(mut found) = client.find(&self.id, revision, name).map_err(fatal)? else {
            self.commit.get().into_iter().for_each(|commit| self.cache.note_absent(commit, name));
            return Ok(None);
        };
        let (etag, commit) = (found.etag.clone(), found.commit.clone());
        let _lock = self.cache.lock(&etag, || {
            found.let_go();
            if !self.said_to_wait.swap(true, Ordering::Relaxed) {
                let folder = self.cache.folder();
                let why = format!(
                    "another process is downloading this model into {}; this one waits for it",
                    folder.display()
                );
                (self.on_download)(Download::Waits(&why));
            }
        })?;
        if !self.cache.blob(&etag).is_file() {
            self.download(client, name, found)?;
        }
        let path = self.cache.link(&commit, name, &etag)?;
        self.cache.note_commit(&self.revision, &commit)?;
        self.commit.set(commit).ok();
        Ok(Some(path))
    }

    /// From the hub to a blob, which is whole and right or does not come to be. The lock of its contents is held.
    fn download(&self, client: &Client, name: &str, found: Found) -> std::result::Result<(), Failure> {
        let etag = found.etag.clone();
        let blob = self.cache.blob(&etag);
        let part = blob.with_file_name(format!("{etag}.part"));
        // Only what can be checked in the end is built from what was left behind.
        let have = if is_sha256(&etag) { length(&part) } else { 0 };
        let have = if found.is_shorter_than(have) { 0 } else { have };
        let come = client.contents(found, have).map_err(|trouble| match trouble {
            Trouble::Range { .. } | Trouble::Gone { .. } => Failure::Again { trouble, reached: 0 },
            trouble => Failure::Fatal(self.explained(client, name, &trouble)),
        });
        let come = come.and_then(|mut opened| {
            self.write(client, (&part, name), &mut opened, &etag)?;
            self.verify((&part, name), &etag, &opened)
        });
        match come {
            Err(Failure::Again { trouble: Trouble::Range { .. }, .. }) => drop(std::fs::remove_file(&part)),
            Err(_) if !is_sha256(&etag) => drop(std::fs::remove_file(&part)),
            _ => {}
        }
        come?;
        std::fs::rename(&part, &blob).map_err(|e| Error::io(&blob, e))?;
        let (size, folder) = (length(&blob), self.cache.folder());
        (self.on_download)(Download::Done { file: name, size, folder: &folder });
        Ok(())
    }

    /// Adds what the hub sends to the part file; an end that comes too early is worth another try.
    fn write(
        &self,
        client: &Client,
        (part, name): (&Path, &str),
        opened: &mut Opened,
        etag: &str,
    ) -> std::result::Result<(), Failure> {
        let io = |e| Failure::Fatal(Error::io(part, e));
        let folder = part.parent().unwrap_or(part);
        std::fs::create_dir_all(folder).map_err(io)?;
        let mut file = File::options().create(true).append(true).open(part).map_err(io)?;
        file.set_len(opened.from).map_err(io)?;
        let mut done = opened.from;
        let again = |trouble, done| Err(Failure::Again { trouble, reached: done });
        let mut buffer = vec![0; 1 << 16];
        // Beyond its end nothing of it comes.
        while opened.size.is_none_or(|size| done <= size) {
            let n = match opened.body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => return again(client.broken(opened, done, e), done),
            };
            file.write_all(&buffer[..n]).map_err(io)?;
            done += n as u64;
            (self.on_download)(Download::Comes { file: name, done, total: opened.size.unwrap_or(0) });
        }
        file.sync_data().map_err(io)?;
        match opened.size {
            Some(size) if done < size => again(client::ended(opened, done), done),
            Some(size) if done > size => again(Trouble::Range { host: opened.host.clone() }, 0),
            None if !opened.ends && !is_sha256(etag) => {
                let why = "nobody says how long it is, so that half of it could not be told from all".into();
                let trouble = Trouble::Other { host: opened.host.clone(), why };
                Err(Failure::Fatal(self.explained(client, name, &trouble)))
            }
            _ => Ok(()),
        }
    }

    /// Large files are named by their SHA-256: a download that does not match is removed.
    fn verify(&self, (part, name): (&Path, &str), etag: &str, opened: &Opened) -> std::result::Result<(), Failure> {
        if !is_sha256(etag) || sha256(part)? == etag.to_lowercase() {
            return Ok(());
        }
        std::fs::remove_file(part).map_err(|e| Error::io(part, e))?;
        if opened.from > 0 {
            // What was kept was of another file: once from the beginning.
            return Err(Failure::Again { trouble: Trouble::Range { host: opened.host.clone() }, reached: 0 });
        }
        Err(Failure::Fatal(Error::Model(format!(
            "model `{}`: what {} sent for {} is damaged (its SHA-256 differs from the hub's); it was removed, run again",
            self.id, opened.host, name
        ))))
    }

    fn explained(&self, client: &Client, name: &str, trouble: &Trouble) -> Error {
        let (id, endpoint) = (&self.id, client.shown());
        let failed = |why: &str| {
            // Nobody knows yet whether a hub's model was meant.
            let local = if name == "config.json" { "there is no such directory here, and " } else { "" };
            format!("model `{id}`: {local}{name} could not be downloaded ({why}); what has come of a large file is kept, and the next run goes on there; check the network, or pass --offline with a cached model, or a local directory")
        };
        let waits = |asked: &Option<std::time::Duration>| match asked {
            Some(asked) if !asked.is_zero() => format!(" and asks to wait {}", wait::seconds(*asked)),
            _ => String::new(),
        };
        Error::Model(match trouble {
            Trouble::Refused { status, gated: true, .. } => format!("model `{id}` is gated (the hub answers {status}): accept its terms on {endpoint}/{id}, and set HF_TOKEN to a token of that account"),
            Trouble::Refused { status, token: true, .. } => format!("model `{id}`: the hub ({endpoint}) answers {status} to {name}: it may not exist, or be private or gated, and the token that was sent (HF_TOKEN, or of a login) may not read it; check the id, or set HF_TOKEN to one that may"),
            Trouble::Refused { status, .. } => format!("model `{id}`: the hub ({endpoint}) answers {status} to {name}: it may not exist, or be private or gated; check the id, or set HF_TOKEN to a token that may read it"),
            Trouble::Revision => format!("model `{id}`: the hub ({endpoint}) has no revision `{}` of it; check --revision (a branch, a tag or a commit)", self.revision),
            Trouble::Status { host, status: 429, asked } => failed(&format!("{host} answers 429, too many requests{}, also after waiting", waits(asked))),
            Trouble::Status { host, status, asked } => failed(&format!("{host} answers {status}{}", waits(asked))),
            Trouble::Gone { host, status } => failed(&format!("{host} answers {status} for contents that the hub says are there")),
            Trouble::Slow { host, limit } => failed(&format!("{host}: no answer within {}; HF_HUB_DOWNLOAD_TIMEOUT sets how many to wait", wait::seconds(*limit))),
            Trouble::Range { host } => failed(&format!("{host} does not send the part that is asked for")),
            Trouble::Other { host, why } => failed(&format!("{host}: {why}")),
        })
    }
}

/// Why a try failed.
enum Failure {
    /// Another may not; this one came as far as this byte.
    Again { trouble: Trouble, reached: u64 },
    /// Another would too.
    Fatal(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Fatal(error)
    }
}

/// Whether an ETag says what the contents are: large files are named by their SHA-256.
fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit())
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
