//! Writing files: to a temporary name in the same folder, then renamed, so that no reader ever sees half a file.

use crate::error::{Error, Result};
use std::io::Write;
use std::path::Path;

/// Writes a file whole or not at all, creating its folder. An existing file is replaced only if `replace`.
///
/// # Errors
/// [`Error::Io`] naming the file: a full disk, missing rights; [`Error::Usage`] when it exists and must stay.
pub fn save(path: &Path, bytes: &[u8], replace: bool) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let file = tempfile::Builder::new().prefix(".vitx-").suffix(".tmp").tempfile_in(folder);
    let mut file = file.map_err(|e| Error::io(path, cause(e)))?;
    file.write_all(bytes).map_err(|e| Error::io(path, cause(e)))?;
    set_permissions(file.path()).map_err(|e| Error::io(path, e))?;
    let saved = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    match saved {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(e) => Err(Error::io(path, cause(e.error))),
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
        let missing = tempfile::Builder::new().prefix(".vitx-").tempfile_in(dir.path().join("no")).unwrap_err();
        let (whole, told) = (missing.to_string(), cause(missing).to_string());
        assert!(!told.contains(".vitx-") && !told.is_empty() && whole.starts_with(&told), "{told}");
    }
}
