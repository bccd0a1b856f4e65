//! The one error type of the library. Every message says what, where and what to do.

use std::path::{Path, PathBuf};

/// Shorthand for a result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, sorted by who can mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name, key, value or target that does not exist or does not fit.
    #[error("{0}")]
    Usage(String),
    /// A checkpoint that is missing, incomplete, damaged or of a kind we lack.
    #[error("{0}")]
    Model(String),
    /// One input (picture, array, text) that cannot be used; others may be fine.
    #[error("{0}")]
    Input(String),
    /// A method that is not defined for this model, with the reason.
    #[error("{0}")]
    Refused(String),
    /// Values that must not be shown: NaN or infinity in a result.
    #[error("{0}")]
    Numeric(String),
    /// The user asked to stop in the middle of an input.
    #[error("interrupted before it was finished")]
    Interrupted,
    /// A file that could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tensor operation failed (shapes, device, memory).
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// An [`Error::Io`] that names its file.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_path_buf(), source }
    }
}

/// ``unknown KIND `NAME`; did you mean `NEAREST`? HINT``
pub(crate) fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>, hint: &str) -> Error {
    Error::Usage(match nearest(name, known) {
        Some(near) => format!("unknown {kind} `{name}`; did you mean `{near}`? {hint}"),
        None => format!("unknown {kind} `{name}`; {hint}"),
    })
}

/// The known name that `name` most likely misspells, if any comes close.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(&name, &k.to_lowercase()), k))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_their_neighbour() {
        let known = ["attention", "rollout", "gae"];
        assert_eq!(nearest("rolout", known), Some("rollout"));
        assert_eq!(nearest("Attenton", known), Some("attention"));
        assert_eq!(nearest("xyz", known), None);
    }
}
