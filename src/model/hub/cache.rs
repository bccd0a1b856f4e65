//! HuggingFace's cache on disk: blobs by their ETag, snapshots of commits as links to them, branches as files that hold a
//! commit. Other tools share it.

use crate::error::{Error, Result};
use crate::model::checkpoint::inside;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Where HuggingFace keeps what it downloads: `HF_HOME`, or `huggingface` in the user's cache.
///
/// # Errors
/// [`Error::Model`] when there is no home directory.
pub fn home() -> Result<PathBuf> {
    if let Some(home) = named("HF_HOME") {
        return Ok(home);
    }
    let cache = named("XDG_CACHE_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.ok_or_else(|| Error::Model("hub: there is no home directory; set HF_HOME".into()))?;
    Ok(cache.join("huggingface"))
}

/// A folder that a variable names; a `~` that no shell has read is the home directory, as in Python.
fn named(key: &str) -> Option<PathBuf> {
    let path = std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from)?;
    let below = path.strip_prefix("~").ok().and_then(|below| Some(std::env::home_dir()?.join(below)));
    Some(below.unwrap_or(path))
}

/// The part of the cache that belongs to one repository.
pub struct Cache {
    root: PathBuf,
    folder: String,
}

impl Cache {
    /// Of a model: `HF_HUB_CACHE`, or `hub` in [`home`].
    ///
    /// # Errors
    /// As [`home`].
    pub fn of(id: &str) -> Result<Self> {
        let root = named("HF_HUB_CACHE").map_or_else(|| Ok::<_, Error>(home()?.join("hub")), Ok)?;
        Ok(Cache { root, folder: format!("models--{}", id.replace('/', "--")) })
    }

    /// The whole cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn part(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The commit that a branch or tag pointed to when it was last asked for; a commit is its own.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let noted = std::fs::read_to_string(self.part("refs").join(revision)).ok();
        let commit = noted.map_or_else(|| revision.to_string(), |text| text.trim().to_string());
        (is_name(&commit) && self.part("snapshots").join(&commit).is_dir()).then_some(commit)
    }

    /// A file of a commit, if it is here.
    pub fn file(&self, commit: &str, name: &str) -> Option<PathBuf> {
        Some(self.part("snapshots").join(commit).join(name)).filter(|p| inside(name) && p.is_file())
    }

    /// Whether a commit is known not to have a file, by this program or another.
    pub fn is_absent(&self, commit: &str, name: &str) -> bool {
        inside(name) && self.part(".no_exist").join(commit).join(name).exists()
    }

    /// Notes that a commit does not have a file, for later runs offline; a cache that cannot be written keeps nothing.
    pub fn note_absent(&self, commit: &str, name: &str) {
        let path = self.part(".no_exist").join(commit).join(name);
        let folder = path.parent().unwrap_or(&self.root);
        if inside(name) && std::fs::create_dir_all(folder).is_ok() {
            File::create(&path).ok();
        }
    }

    /// The part that belongs to the repository.
    pub fn folder(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    /// Contents by their ETag.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.part("blobs").join(etag)
    }

    /// Waits until no other process downloads these contents, having called `busy` if one does; the lock holds until it is
    /// dropped, or its process ends in whatever way.
    ///
    /// # Errors
    /// [`Error::Io`] when the cache cannot be written.
    pub fn lock(&self, etag: &str, busy: impl FnOnce()) -> Result<File> {
        // Where huggingface_hub has its own, by the same kind of lock: the system's, which no dead process leaves behind.
        let path = self.root.join(".locks").join(&self.folder).join(format!("{etag}.lock"));
        let folder = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let open = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| Error::io(&path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                busy();
                file.lock().map_err(|e| Error::io(&path, e))?;
            }
            // A file system without locks: the part files of two processes may meet, and the checksum tells.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(file)
    }

    /// Makes a blob a file of a commit.
    ///
    /// # Errors
    /// [`Error::Io`] when the cache cannot be written.
    pub fn link(&self, commit: &str, name: &str, etag: &str) -> Result<PathBuf> {
        let link = self.part("snapshots").join(commit).join(name);
        let folder = link.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let up = "../".repeat(2 + name.matches('/').count());
        let relative = PathBuf::from(format!("{up}blobs/{etag}"));
        if std::fs::read_link(&link).is_ok_and(|to| to == relative) {
            return Ok(link);
        }
        // Under another name first: another process may be reading the link.
        let own = link.with_file_name(format!(".{etag}.{}", std::process::id()));
        std::fs::remove_file(&own).ok();
        // Without links (Windows without the right to make them) the file itself.
        let made = symlink(&relative, &own).or_else(|_| std::fs::copy(self.blob(etag), &own).map(drop));
        made.and_then(|()| std::fs::rename(&own, &link)).map_err(|e| Error::io(&link, e))?;
        Ok(link)
    }

    /// Notes the commit of a branch or tag.
    ///
    /// # Errors
    /// [`Error::Io`] when the cache cannot be written.
    pub fn note_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.part("refs").join(revision);
        let folder = path.parent().unwrap_or(&self.root);
        let own = folder.join(format!(".{commit}.{}", std::process::id()));
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&own, commit))
            .and_then(|()| std::fs::rename(&own, &path))
            .map_err(|e| Error::io(&path, e))?;
        Ok(())
    }
}

#[cfg(unix)]
fn symlink(to: &Path, from: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, from)
}

#[cfg(windows)]
fn symlink(to: &Path, from: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(to, from)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Whether an ETag or a commit is a plain name, which stays inside of the folder it is used in.
pub fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.')
}
