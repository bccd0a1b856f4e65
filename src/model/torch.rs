//! Files of `torch.save`: the zip archives of torch 1.6 and later, and the streams of pickles before. Nothing in them is
//! executed; see [`pickle`](super::pickle).

mod state;

use super::pickle::Pickle;
use super::sniff::Kind;
use super::weights::{Entry, Stored};
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use state::Rebuilt;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use zip::result::ZipError;
use zip::CompressionMethod;

/// How a legacy file begins: a pickle of torch's magic number, 0x1950a86a20f9469cfc6c, in protocol 2 and up.
pub const LEGACY_MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Far more than the pickle of any checkpoint: tensors' bytes lie beside it.
const MOST_PICKLE: u64 = 1 << 28;

/// A file of `torch.save`, its tensors not yet read.
pub struct TorchFile {
    path: PathBuf,
    tensors: BTreeMap<String, Place>,
    /// The entry of the file that holds the weights, where it is not the whole.
    inside: Option<String>,
}

/// Where a tensor lies.
struct Place {
    entry: Entry,
    stride: Vec<usize>,
    /// First element within the storage.
    offset: usize,
    /// Bytes from the file's beginning, and how many.
    storage: (u64, u64),
}

impl TorchFile {
    /// Reads what the file says of its tensors.
    ///
    /// # Errors
    /// [`Error::Model`] for a damaged file, and for one that holds no weights by name.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let read = match Kind::of_file(path)? {
            Kind::LegacyTorch => legacy(file),
            _ => zipped(file),
        };
        let (tensors, inside) = read.map_err(|e| match e {
            Error::Model(text) => Error::Model(format!("{}: {text}", path.display())),
            other => other,
        })?;
        Ok(TorchFile { path: path.to_path_buf(), tensors, inside })
    }

    /// Where in the file the weights are, if they are not the whole.
    pub fn note(&self) -> Option<String> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.inside
            .as_ref()
            .map(|entry| format!("{name} holds more than weights: they are read from its entry `{entry}`"))
    }

    /// Names, shapes and dtypes.
    pub fn entries(&self) -> impl Iterator<Item = (String, Entry)> + '_ {
        self.tensors.iter().map(|(name, place)| (name.clone(), place.entry.clone()))
    }

    /// A tensor on the CPU in its stored dtype, if there is one of this name.
    ///
    /// # Errors
    /// [`Error::Model`] for one that reaches beyond its storage.
    pub fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(place) = self.tensors.get(name) else { return Ok(None) };
        let dtype = match &place.entry.stored {
            Stored::Float(dtype) => *dtype,
            Stored::Bytes => DType::U8,
            Stored::Other(kind) => return Err(Error::Model(format!("tensor `{name}` is stored as {kind}"))),
        };
        let (shape, size) = (&place.entry.shape, dtype.size_in_bytes());
        let beyond = || {
            Error::Model(format!(
                "{}: tensor `{name}` reaches beyond its storage; download or copy the file again",
                self.path.display()
            ))
        };
        let span = place.span().ok_or_else(beyond)?;
        let room = place.storage.1 as usize / size;
        // As many elements as the storage has, at the most: a tensor that repeats its elements could ask for any memory.
        if place.offset.checked_add(span).is_none_or(|end| end > room) || shape.iter().product::<usize>() > room {
            return Err(beyond());
        }
        let mut file = File::open(&self.path).map_err(|e| Error::io(&self.path, e))?;
        let length = file.metadata().map_err(|e| Error::io(&self.path, e))?.len();
        // An archive may say anything of its size.
        if place.storage.0.checked_add(place.storage.1).is_none_or(|end| end > length) {
            return Err(beyond());
        }
        let mut bytes = vec![0; span * size];
        file.seek(SeekFrom::Start(place.storage.0 + (place.offset * size) as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|_| beyond())?;
        if !place.contiguous() {
            bytes = gathered(&bytes, shape, &place.stride, size);
        }
        Ok(Some(Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)?))
    }
}

impl Place {
    /// Elements from the first to the last, both counted; none where that overflows.
    fn span(&self) -> Option<usize> {
        let mut last = 0usize;
        let mut elements = 1usize;
        for (n, stride) in self.entry.shape.iter().zip(&self.stride) {
            elements = elements.checked_mul(*n)?;
            last = last.checked_add(n.saturating_sub(1).checked_mul(*stride)?)?;
        }
        if elements == 0 {
            return Some(0);
        }
        last.checked_add(1)
    }

    fn contiguous(&self) -> bool {
        let mut expected = 1;
        self.entry.shape.iter().zip(&self.stride).rev().all(|(n, stride)| {
            let fits = *n == 1 || *stride == expected;
            expected *= n;
            fits
        })
    }
}

/// Elements of a strided tensor in row-major order.
fn gathered(bytes: &[u8], shape: &[usize], stride: &[usize], size: usize) -> Vec<u8> {
    let elements = shape.iter().product();
    let mut row = Vec::with_capacity(elements * size);
    let mut index = vec![0; shape.len()];
    for _ in 0..elements {
        let at: usize = index.iter().zip(stride).map(|(i, s)| i * s).sum::<usize>() * size;
        row.extend_from_slice(&bytes[at..at + size]);
        for (i, n) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *n {
                break;
            }
            *i = 0;
        }
    }
    row
}

type Found = (BTreeMap<String, Place>, Option<String>);

fn zipped(file: File) -> Result<Found> {
    let wrong = |e: ZipError| match e {
        ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => compressed(),
        e => damaged(&e.to_string()),
    };
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(wrong)?;
    let names: Vec<String> = zip.file_names().filter_map(|n| n.ok().map(|n| n.into_owned())).collect();
    let pickles: Vec<&String> = names.iter().filter(|n| *n == "data.pkl" || n.ends_with("/data.pkl")).collect();
    let [name] = pickles[..] else {
        return Err(Error::Model("a zip archive without a single data.pkl: it was not written by torch.save".into()));
    };
    let folder = name.trim_end_matches("data.pkl");
    if names.iter().any(|n| n.strip_prefix(folder) == Some("constants.pkl")) {
        return Err(Error::Model(
            "a TorchScript archive (torch.jit.save), a program and no list of weights; save the model with save_pretrained, or its state_dict() with torch.save".into(),
        ));
    }
    let mut bytes = Vec::new();
    let record = zip.by_name(name).map_err(wrong)?;
    if record.compression() != CompressionMethod::Stored {
        return Err(compressed());
    }
    record.take(MOST_PICKLE).read_to_end(&mut bytes).map_err(unreadable)?;
    let pickle = Pickle::read(&mut &bytes[..])?;
    let (state, inside) = state::find(&pickle)?;
    let mut storages: HashMap<&str, (u64, u64)> = HashMap::new();
    let mut tensors = BTreeMap::new();
    for (name, rebuilt) in state {
        let key = rebuilt.key;
        if !storages.contains_key(key) {
            let record = zip.by_name(&format!("{folder}data/{key}")).map_err(wrong)?;
            let start = record.data_start().filter(|_| record.compression() == CompressionMethod::Stored);
            let start = start.ok_or_else(compressed)?;
            storages.insert(key, (start, record.size()));
        }
        let storage = storages.get(key).copied().unwrap_or_default();
        tensors.insert(name.to_string(), placed(rebuilt, storage));
    }
    Ok((tensors, inside))
}

/// Magic number, protocol version, the machine's sizes, the object, the storages' keys, each a pickle; then for each key
/// its number of elements as i64 and their bytes.
fn legacy(file: File) -> Result<Found> {
    let length = file.metadata().map_err(unreadable)?.len();
    let mut file = BufReader::new(file);
    for _ in 0..3 {
        Pickle::read(&mut file)?;
    }
    let pickle = Pickle::read(&mut file)?;
    let keys = Pickle::read(&mut file)?;
    let (state, inside) = state::find(&pickle)?;
    let sizes = state::storages(&pickle);
    let mut storages = HashMap::new();
    let mut at = file.stream_position().map_err(unreadable)?;
    for key in state::texts(&keys) {
        let cut = || damaged("it ends before its tensors do");
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut count)).map_err(|_| cut())?;
        let size = *sizes.get(key).ok_or_else(|| damaged("a storage belongs to no tensor"))?;
        let bytes = u64::from_le_bytes(count).checked_mul(size).ok_or_else(cut)?;
        at += 8;
        storages.insert(key, (at, bytes));
        at = at.checked_add(bytes).filter(|end| *end <= length).ok_or_else(cut)?;
    }
    let mut tensors = BTreeMap::new();
    for (name, rebuilt) in state {
        let storage = storages.get(rebuilt.key).copied();
        let storage = storage.ok_or_else(|| damaged(&format!("the storage of tensor `{name}` is missing")))?;
        tensors.insert(name.to_string(), placed(rebuilt, storage));
    }
    Ok((tensors, inside))
}

fn placed(rebuilt: Rebuilt<'_>, storage: (u64, u64)) -> Place {
    let Rebuilt { shape, stride, offset, stored, .. } = rebuilt;
    Place { entry: Entry { shape, stored }, stride, offset, storage }
}

fn damaged(why: &str) -> Error {
    Error::Model(format!("damaged or incomplete weights ({why}); download or copy the file again"))
}

fn compressed() -> Error {
    Error::Model("its archive was compressed after torch wrote it; save it again with torch.save".into())
}

fn unreadable(error: std::io::Error) -> Error {
    damaged(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str) -> Result<TorchFile> {
        TorchFile::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickle").join(name))
    }

    fn values(file: &TorchFile, name: &str) -> Vec<f64> {
        let tensor = file.get(name).unwrap().unwrap();
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Written by torch 2.15 as `tests/fixtures/pickle/README.md` says.
    #[test]
    fn every_format_of_torch_gives_the_same_tensors() {
        for name in ["legacy.bin", "legacy-4.bin", "zip-4.bin", "nested.bin"] {
            let file = open(name).unwrap();
            assert_eq!(values(&file, "a"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{name}");
            assert_eq!(values(&file, "transposed"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0], "{name}");
            assert_eq!(file.get("transposed").unwrap().unwrap().dims(), [3, 2], "{name}");
            assert_eq!(values(&file, "view"), [4.0, 5.0, 6.0], "{name}");
            assert_eq!(values(&file, "half"), [0.5, -2.0], "{name}");
            assert_eq!(values(&file, "bf"), [1.5, 3.0], "{name}");
            assert_eq!((values(&file, "double"), values(&file, "parameter")), (vec![0.25], vec![7.0]), "{name}");
            assert!(file.get("ids").unwrap_err().to_string().contains("stored as int64"), "{name}");
            assert!(file.get("loss").unwrap().is_none(), "{name}");
            assert_eq!(file.note().is_some(), name == "nested.bin");
        }
        assert!(open("nested.bin").unwrap().note().unwrap().contains("its entry `model_state_dict`"));
    }

    #[test]
    fn what_is_no_state_dict_is_named() {
        let error = |name: &str| open(name).map(|_| ()).unwrap_err().to_string();
        assert!(
            error("several.bin").contains("several state dicts (`student`, `teacher`)"),
            "{}",
            error("several.bin")
        );
        assert!(
            error("whole.bin").contains("pickled object (torch.nn.modules.linear.Linear)"),
            "{}",
            error("whole.bin")
        );
    }

    #[test]
    fn a_compressed_archive_is_not_damaged() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickle");
        let mut bytes = std::fs::read(folder.join("zip-4.bin")).unwrap();
        // Method 8 (deflated) in every local and central header.
        for (sign, at) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
            let found: Vec<usize> = (0..bytes.len() - 4).filter(|&i| &bytes[i..i + 4] == sign).collect();
            found.into_iter().for_each(|i| bytes[i + at] = 8);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let error = TorchFile::open(file.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("was compressed after torch wrote it") && !error.contains("damaged"), "{error}");
    }

    #[test]
    fn strides_beyond_all_numbers_have_no_span() {
        let place = |shape: &[usize], stride: &[usize]| {
            let entry = Entry { shape: shape.to_vec(), stored: Stored::Bytes };
            Place { entry, stride: stride.to_vec(), offset: 0, storage: (0, 6) }
        };
        let most = i64::MAX as usize;
        for (shape, stride, span) in [
            (&[3, 2][..], &[2, 1][..], Some(6)),
            (&[3, 2], &[most, 0], Some(usize::MAX)),
            (&[3, 2], &[most, 1], None),
            (&[0, 2], &[most, 1], Some(0)),
        ] {
            assert_eq!(place(shape, stride).span(), span, "{shape:?} {stride:?}");
        }
    }

    #[test]
    fn files_cut_anywhere_are_damaged() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickle");
        for name in ["legacy.bin", "zip-4.bin"] {
            let bytes = std::fs::read(folder.join(name)).unwrap();
            for length in [0, 3, 100, 700, bytes.len() - 1] {
                let cut = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(cut.path(), &bytes[..length]).unwrap();
                let error = TorchFile::open(cut.path()).map(|_| ()).unwrap_err().to_string();
                assert!(error.contains("damaged") || error.contains("no pickle"), "{name} cut at {length}: {error}");
            }
        }
    }
}
