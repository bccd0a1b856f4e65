//! The one folder that requests may name files of. Its own links may lead about inside of it, never out.

use crate::error::{Error, Result};
use std::path::{Component, Path, PathBuf};

/// A folder that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    folder: PathBuf,
}

impl Root {
    /// This folder, whatever links lead to it.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is none.
    pub fn new(folder: &Path) -> Result<Self> {
        let found = folder.canonicalize().ok().filter(|f| f.is_dir());
        let none = || Error::Usage(format!("--root {}: there is no such folder", folder.display()));
        Ok(Root { folder: found.ok_or_else(none)? })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file inside, its links followed.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is outside, [`Error::Input`] for what is no file. Nothing is said of what there is outside.
    pub fn file(&self, path: &Path) -> Result<PathBuf> {
        let inside = self.inside(path)?;
        let found = inside.canonicalize().map_err(|_| Error::Input("there is no such file".into()))?;
        if !found.starts_with(&self.folder) {
            return Err(outside());
        }
        match std::fs::metadata(&found) {
            Ok(meta) if meta.is_file() => Ok(found),
            Ok(meta) if meta.is_dir() => Err(Error::Input("is a folder, not a file".into())),
            _ => Err(Error::Input("is a pipe or a device, not a file".into())),
        }
    }

    /// A name for files that are to be made inside, relative to the folder.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is outside, and for no name.
    pub fn stem(&self, path: &Path) -> Result<PathBuf> {
        let inside = self.inside(path)?;
        let named = path.file_name().is_some() && !path.to_string_lossy().ends_with(std::path::is_separator);
        if !named {
            return Err(Error::Usage("expected the beginning of a file's name".into()));
        }
        let folder = inside.ancestors().skip(1).find(|folder| folder.exists());
        let folder = folder.and_then(|folder| folder.canonicalize().ok());
        if !folder.is_some_and(|folder| folder.starts_with(&self.folder) && folder.is_dir()) {
            return Err(outside());
        }
        Ok(inside.strip_prefix(&self.folder).map_err(|_| outside())?.to_path_buf())
    }

    /// A path below the folder by its letters.
    fn inside(&self, path: &Path) -> Result<PathBuf> {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        let relative = match path.strip_prefix(&self.folder) {
            Ok(relative) => relative,
            Err(_) => path,
        };
        if relative.as_os_str().is_empty() || !relative.components().all(plain) {
            return Err(outside());
        }
        Ok(self.folder.join(relative))
    }
}

fn outside() -> Error {
    Error::Usage("is not inside of the folder of --root".into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, secret) = (dir.path().join("root"), dir.path().join("secret.txt"));
        std::fs::create_dir_all(inner.join("sub")).unwrap();
        std::fs::write(&secret, "s").unwrap();
        std::fs::write(inner.join("sub/a.txt"), "a").unwrap();
        symlink(&secret, inner.join("out.txt")).unwrap();
        symlink(dir.path(), inner.join("up")).unwrap();
        symlink("sub/a.txt", inner.join("in.txt")).unwrap();
        let root = Root::new(&inner).unwrap();
        let whole = inner.canonicalize().unwrap().join("sub/a.txt");
        for good in [Path::new("sub/a.txt"), Path::new("./sub/a.txt"), Path::new("in.txt"), &whole] {
            assert_eq!(root.file(good).unwrap(), whole, "{}", good.display());
        }
        for bad in ["../secret.txt", "sub/../../secret.txt", "out.txt", "up/secret.txt", "/etc/passwd", ""] {
            let error = root.file(Path::new(bad)).unwrap_err().to_string();
            assert!(error.contains("not inside"), "{bad}: {error}");
        }
        assert!(root.file(Path::new("sub")).unwrap_err().to_string().contains("is a folder"));
        assert!(root.file(Path::new("none.jpg")).unwrap_err().to_string().contains("no such file"));
        assert_eq!(root.stem(Path::new("new/x")).unwrap(), Path::new("new/x"));
        for bad in ["../x", "up/x", "up/new/x", "/tmp/x", "", "new/", "sub/a.txt/x", ".."] {
            assert!(root.stem(Path::new(bad)).is_err(), "{bad}");
        }
        assert!(Root::new(&secret).is_err() && Root::new(&dir.path().join("none")).is_err());
    }
}
