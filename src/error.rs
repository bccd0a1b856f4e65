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
    /// A panic: a fault of this program, met on one input.
    #[error("{0}")]
    Fault(String),
    /// The user asked to stop in the middle of an input.
    #[error("interrupted before it was finished")]
    Interrupted,
    /// A file that could not be read or written. What the system said is in the message, and not its source, to be told once.
    #[error("{}: {said}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        said: std::io::Error,
    },
    /// A tensor operation failed (shapes, device, memory).
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// An [`Error::Io`] that names its file.
    pub fn io(path: impl AsRef<Path>, said: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_path_buf(), said }
    }

    /// Whether it is the place's where results go, and will be met by everything that is still to be written there.
    pub fn is_of_the_place(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(self, Error::Io { said, .. } if matches!(said.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem))
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
    let name = plain(name);
    let likeness = |known: &str| {
        let known = plain(known);
        let slips = strsim::osa_distance(&name, &known);
        let whole = name.chars().count().max(known.chars().count()).max(1);
        let likeness = strsim::jaro_winkler(&name, &known).max(1.0 - slips as f64 / whole as f64);
        // Two letters that changed places are most of a short name: `gea` is `gae`.
        let swapped = slips == 1 && sorted(&name) == sorted(&known);
        let likeness = if swapped { likeness.max(0.95) } else { likeness };
        (likeness > 0.75).then_some(likeness)
    };
    let likely = known.into_iter().filter_map(|k| Some((likeness(k)?, k)));
    likely.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, k)| k)
}

/// As registries write names: `Grad-CAM++` and `grad_cam_plusplus` are both `gradcamplusplus`.
fn plain(name: &str) -> String {
    let name = name.to_lowercase().replace("++", "plusplus").replace('+', "plus");
    name.chars().filter(|c| !"-_ ".contains(*c)).collect()
}

fn sorted(name: &str) -> Vec<char> {
    let mut letters: Vec<char> = name.chars().collect();
    letters.sort_unstable();
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_their_neighbour() {
        let known = ["attention", "rollout", "gae", "generic-attention-explainability"];
        assert_eq!(nearest("rolout", known), Some("rollout"));
        assert_eq!(nearest("Attenton", known), Some("attention"));
        assert_eq!(nearest("gea", known), Some("gae"));
        assert_eq!(nearest("xyz", known), None);
        let cams = ["gradcam", "gradcam-plus", "gradcam-plusplus", "xgradcam-plus"];
        for name in ["GradCAM++", "grad-cam++", "Grad_CAM_PlusPlus"] {
            assert_eq!(nearest(name, cams), Some("gradcam-plusplus"), "{name}");
        }
        assert_eq!(nearest("GradCAM+", cams), Some("gradcam-plus"));
    }
}
