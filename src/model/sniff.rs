//! What a file or a folder really is, where it is not what its name says.

use super::torch::LEGACY_MAGIC;
use crate::error::{Error, Result};
use std::io::Read;
use std::path::Path;

/// What a file's first bytes show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A header length, then JSON.
    Safetensors,
    /// A zip archive, as torch 1.6 and later writes.
    Zip,
    /// A stream of pickles with torch's magic number, as torch wrote before.
    LegacyTorch,
    /// Another pickle.
    Pickle,
    /// What git keeps in place of a large file.
    LfsPointer,
    /// A web page.
    Html,
    /// Keras' and TensorFlow's HDF5.
    Hdf5,
    /// llama.cpp's format.
    Gguf,
    /// Torch's format before 0.1.10.
    Tar,
    /// Nothing at all.
    Empty,
    /// None of these.
    Unknown,
}

impl Kind {
    /// Judges the first bytes of a file.
    pub fn of(start: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&start[..start.len().min(64)]).trim_start().to_lowercase();
        match start {
            [] => Kind::Empty,
            [b'P', b'K', 3 | 5, _, ..] => Kind::Zip,
            [0x80, 2..=5, ..] if start.windows(LEGACY_MAGIC.len()).any(|w| w == LEGACY_MAGIC) => Kind::LegacyTorch,
            [0x80, 0..=5, ..] => Kind::Pickle,
            [_, _, _, _, _, 0, 0, 0, b'{', ..] => Kind::Safetensors,
            _ if start.starts_with(b"version https://git-lfs.github.com") => Kind::LfsPointer,
            _ if start.starts_with(b"\x89HDF\r\n\x1a\n") => Kind::Hdf5,
            _ if start.starts_with(b"GGUF") => Kind::Gguf,
            _ if start.get(257..262) == Some(b"ustar") => Kind::Tar,
            _ if text.starts_with("<!doctype html") || text.starts_with("<html") || text.starts_with("<?xml") => {
                Kind::Html
            }
            _ => Kind::Unknown,
        }
    }

    /// Of a file on disk.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self> {
        let mut start = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        file.take(512).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
        Ok(Kind::of(&start))
    }

    /// What stands in place of a file that was meant, and what to do; none for files that are something themselves.
    fn stand_in(self) -> Option<&'static str> {
        match self {
            Kind::LfsPointer => Some("is a Git LFS pointer, not the file itself: run `git lfs pull` in the repository"),
            Kind::Html => Some("is a web page, not the file itself (a login, an error, or the page about the file): download the file again, from its `resolve` address"),
            Kind::Empty => Some("is empty: copy or download it again"),
            _ => None,
        }
    }
}

/// Refuses a small file (JSON, a vocabulary) in whose place another stands.
///
/// # Errors
/// [`Error::Model`] saying what stands there.
pub fn check_text(name: &str, bytes: &[u8]) -> Result<()> {
    match Kind::of(&bytes[..bytes.len().min(512)]) {
        Kind::Empty => Ok(()), // whoever reads it says what is missing
        kind => kind.stand_in().map_or(Ok(()), |what| Err(Error::Model(format!("{name} {what}")))),
    }
}

/// Refuses weights that are not what their name says: `expected` is [`Kind::Safetensors`] or [`Kind::Zip`] (any of torch's).
///
/// # Errors
/// [`Error::Model`] saying what the file is and what to do.
pub fn check_weights(path: &Path, expected: Kind) -> Result<()> {
    let kind = Kind::of_file(path)?;
    let pickled = matches!(kind, Kind::Zip | Kind::LegacyTorch);
    if kind == expected || pickled && expected == Kind::Zip {
        return Ok(());
    }
    let what = match kind {
        Kind::Safetensors => "is a safetensors file under another name: rename it to model.safetensors",
        Kind::Zip | Kind::LegacyTorch => "is a pickle of torch.save under another name: rename it to pytorch_model.bin",
        Kind::Pickle => "is a pickle that torch.save did not write: load it in Python and save the state_dict() with torch.save or safetensors",
        Kind::Hdf5 => "is an HDF5 file (Keras, TensorFlow) under another name: convert it with from_pretrained(..., from_tf=True) of transformers 4, then save_pretrained",
        Kind::Gguf => "is a GGUF file (llama.cpp), whose quantised weights are not read; use the original checkpoint",
        Kind::Tar => "was written by torch before 0.1.10: load it with a newer torch and save it again",
        Kind::LfsPointer | Kind::Html | Kind::Empty => kind.stand_in().unwrap_or_default(),
        // The reader of the format says what is broken.
        Kind::Unknown => return Ok(()),
    };
    Err(Error::Model(format!("{} {what}", path.display())))
}

/// What to say of an adapter.
pub const ADAPTER: &str =
    "a PEFT adapter, not a whole model: load it on its base model, then merge_and_unload() and save_pretrained()";

/// Files that tell of another tool, and what to say.
const TOOLS: &[(&str, &str)] = &[
    ("adapter_config.json", ADAPTER),
    ("adapter_model.safetensors", ADAPTER),
    ("adapter_model.bin", ADAPTER),
    ("open_clip_config.json", "an open_clip checkpoint; use one converted to transformers"),
    ("modules.json", "a sentence-transformers model, which embeds texts and does not classify them"),
    ("tf_model.h5", "a TensorFlow model: convert it with from_pretrained(..., from_tf=True) of transformers 4, then save_pretrained"),
    ("saved_model.pb", "a TensorFlow model (SavedModel); use the checkpoint it was exported from"),
    ("model.ckpt.index", "a TensorFlow checkpoint; use one converted to transformers"),
    ("flax_model.msgpack", "a Flax model: convert it with from_pretrained(..., from_flax=True) of transformers 4, then save_pretrained"),
    ("model.onnx", "an ONNX export, a program and no list of weights; use the checkpoint it was exported from"),
];

/// Endings that tell of another tool.
const ENDINGS: &[(&str, &str)] = &[
    (".onnx", "an ONNX export, a program and no list of weights; use the checkpoint it was exported from"),
    (".gguf", "a GGUF file (llama.cpp), whose quantised weights are not read; use the original checkpoint"),
    (".ckpt", "a checkpoint of Lightning or TensorFlow; save the model with save_pretrained()"),
    (".pth", "a file of torch.save by itself: put it beside its config.json as pytorch_model.bin"),
    (".pt", "a file of torch.save by itself: put it beside its config.json as pytorch_model.bin"),
];

/// What a folder without the files that are looked for is, if that can be told: a sentence without its beginning.
pub fn folder(dir: &Path) -> Option<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).ok()?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    let has = |name: &str| names.iter().any(|n| n == name);
    let step = |name: &String| name.strip_prefix("checkpoint-")?.parse::<u64>().ok();
    if let Some(last) = names.iter().filter(|n| step(n).is_some() && dir.join(n).is_dir()).max_by_key(|n| step(n)) {
        return Some(format!(
            "a Trainer's folder of checkpoints: pass one of them, such as {}",
            dir.join(last).display()
        ));
    }
    if let Some((_, what)) = TOOLS.iter().find(|(name, _)| has(name)) {
        return Some((*what).to_string());
    }
    if let Some((name, what)) =
        names.iter().find_map(|n| Some((n, ENDINGS.iter().find(|(end, _)| n.ends_with(end))?.1)))
    {
        return Some(format!("{name}, {what}"));
    }
    let inner = |n: &&String| dir.join(n).join("config.json").is_file();
    let inner: Vec<_> = names.iter().filter(inner).map(|n| dir.join(n).display().to_string()).take(3).collect();
    (!inner.is_empty()).then(|| format!("a folder of models: pass one of them, such as {}", inner.join(" or ")))
}

/// What tensor names show that are of no family here.
pub fn foreign<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<&'static str> {
    const SIGNS: &[(&str, &str)] = &[
        ("lora_A", "a PEFT adapter's: merge it into its base model (merge_and_unload) and save that"),
        ("blocks.0.attn.qkv.", "timm's, or those of the authors' own code: use a checkpoint converted to transformers"),
        ("patch_embed.proj.", "timm's, or those of the authors' own code: use a checkpoint converted to transformers"),
        ("transformer.resblocks.", "open_clip's: use a checkpoint converted to transformers"),
        ("image_encoder.", "of a model that segments: it has no classes"),
    ];
    names.find_map(|name| SIGNS.iter().find(|(sign, _)| name.contains(sign)).map(|(_, what)| *what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_what_a_file_is() {
        for (start, kind) in [
            (&b"\x10\x05\0\0\0\0\0\0{\"a\""[..], Kind::Safetensors),
            (b"PK\x03\x04", Kind::Zip),
            (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", Kind::LegacyTorch),
            (b"\x80\x04\x95\x0e\0\0\0\0\0\0\0\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", Kind::LegacyTorch),
            (b"\x80\x04}", Kind::Pickle),
            (b"version https://git-lfs.github.com/spec/v1\noid", Kind::LfsPointer),
            (b"\n<!DOCTYPE html><html>", Kind::Html),
            (b"\x89HDF\r\n\x1a\n", Kind::Hdf5),
            (b"", Kind::Empty),
            (b"GGUF\x03", Kind::Gguf),
            (b"what", Kind::Unknown),
        ] {
            assert_eq!(Kind::of(start), kind, "{start:?}");
        }
    }
}
