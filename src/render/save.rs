//! Writing files: to a temporary name in the same folder, then renamed, so that no reader ever sees half a file.

use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::NamedTempFile;

/// Names of temporary files begin and end so.
const TEMPORARY: (&str, &str) = (".vitx-", ".tmp");

/// Writes a file whole or not at all, creating its folder. An existing file is replaced only if `replace`.
///
/// # Errors
/// [`Error::Io`] naming the file: a full disk, missing rights; [`Error::Usage`] when it exists and must stay.
pub fn save(path: &Path, bytes: &[u8], replace: bool) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let mut file = temporary(folder).map_err(|e| Error::io(path, cause(e)))?;
    file.write_all(bytes).map_err(|e| Error::io(path, cause(e)))?;
    set_permissions(file.path()).map_err(|e| Error::io(path, e))?;
    let saved = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    match saved {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(e) => Err(Error::io(path, cause(e.error))),
    }
}

/// A temporary file, locked: the lock goes with its process, by which [`sweep`] knows what a killed one has left.
fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    loop {
        let file = tempfile::Builder::new().prefix(TEMPORARY.0).suffix(TEMPORARY.1).tempfile_in(folder)?;
        // Where a file system has no locks nothing is ever swept. Where somebody sweeps at this very moment, the file may be gone.
        let _ = file.as_file().lock();
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes the temporary files that killed processes have left in a folder; those of living ones stay.
pub fn sweep(folder: &Path) {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(std::result::Result::ok) {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1));
        if ours && File::options().write(true).open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path()); // one that stays does no harm
        }
    }
}

/// For whoever writes into many folders: each is swept before the first file.
#[derive(Debug, Default)]
pub struct Swept(Mutex<HashSet<PathBuf>>);

impl Swept {
    /// Sweeps the folder of a file, unless that was done before.
    pub fn before(&self, file: &Path) {
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(folder) {
            known.insert(folder.to_path_buf());
            drop(known);
            sweep(folder);
        }
    }
}

/// What the system said, without the temporary name that only this file knows.
fn cause(error: std::io::Error) -> std::io::Error {
    // The temporary file's error gives its path and cause as text alone.
    match error.to_string().split_once(" at path \"") {
        Some((said, _)) => std::io::Error::new(error.kind(), said),
        None => error,
    }
}

/// The error for a file that must stay.
pub fn exists(path: &Path) -> Error {
    Error::Usage(format!("{} exists; pass --overwrite to replace it", path.display()))
}

/// Temporary files are private; outputs are for everybody the umask allows.
#[cfg(unix)]
fn set_permissions(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666 & !umask()))
}

#[cfg(not(unix))]
fn set_permissions(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// The process's umask, read from /proc where there is one; the common 022 elsewhere.
#[cfg(unix)]
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:"));
    line.and_then(|m| u32::from_str_radix(m.trim(), 8).ok()).unwrap_or(0o022)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_whole_and_kept_unless_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.png");
        save(&path, b"one", false).unwrap();
        assert!(save(&path, b"two", false).unwrap_err().to_string().contains("--overwrite"));
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        save(&path, b"two", true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1, "no temporary file stays");
        assert!(save(&path.join("c"), b"x", true).is_err());
        std::fs::write(dir.path().join(".vitx-killed.tmp"), "half").unwrap();
        let living = temporary(dir.path()).unwrap();
        let swept = Swept::default();
        swept.before(&path);
        assert!(dir.path().join(".vitx-killed.tmp").exists(), "another folder");
        swept.before(&dir.path().join("c.png"));
        assert!(living.path().exists() && !dir.path().join(".vitx-killed.tmp").exists());
        let missing = tempfile::Builder::new().prefix(".vitx-").tempfile_in(dir.path().join("no")).unwrap_err();
        let (whole, told) = (missing.to_string(), cause(missing).to_string());
        assert!(!told.contains(".vitx-") && !told.is_empty() && whole.starts_with(&told), "{told}");
    }
}
