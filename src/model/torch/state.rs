//! Where in a pickled object the weights are: a state dict, the whole or an entry of it, and its tensors as torch writes
//! them.

use crate::error::{Error, Result};
use crate::model::pickle::{Id, Pickle, Value};
use crate::model::weights::{elements, Stored};
use candle_core::DType;
use std::collections::{HashMap, HashSet};

/// Entries under which training scripts keep the weights, the likeliest first.
const ENTRIES: &[&str] =
    &["model_state_dict", "state_dict", "model", "module", "model_state", "net", "network", "weights", "params"];

/// How deep an entry may lie, as in `{"checkpoint": {"state_dict": {...}}}`.
const DEPTH: usize = 3;

/// Bytes of a storage's key, and of an entry's name, at most: one long text may be named by any number of tensors.
const LONGEST_KEY: usize = 256;

/// Tensors, and sides of one, at most: what is kept of each is far more than the few bytes that say it.
const MOST_TENSORS: usize = 1 << 20;
const MOST_SIDES: usize = 16;

/// A tensor as torch rebuilds it: a view of a storage.
pub struct Rebuilt<'p> {
    /// The storage's key.
    pub key: &'p str,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
    pub stored: Stored,
}

/// Tensors by name.
type Named<'p> = Vec<(&'p str, Rebuilt<'p>)>;

/// The tensors, and the entry they were found in, none for the whole.
pub fn find(p: &Pickle) -> Result<(Named<'_>, Option<String>)> {
    let Value::Dict(root) = p.root() else { return Err(no_dict(p)) };
    let mut nested = Vec::new();
    descend(p, root, "", DEPTH, &mut (HashSet::new(), &mut nested));
    let direct = count(p, root);
    nested.retain(|(_, pairs)| count(p, pairs) > direct);
    if nested.is_empty() {
        if direct == 0 {
            return Err(Error::Model(format!(
                "holds no tensors by name, only {}; save the model's state_dict()",
                listed(p, root)
            )));
        }
        return Ok((tensors(p, root)?, None));
    }
    let known =
        ENTRIES.iter().find_map(|entry| nested.iter().position(|(path, _)| path.rsplit('.').next() == Some(entry)));
    let chosen = match (known, nested.len()) {
        (Some(i), _) => i,
        (None, 1) => 0,
        (None, _) => {
            let paths: Vec<_> = nested.iter().take(6).map(|(path, _)| format!("`{path}`")).collect();
            return Err(Error::Model(format!(
                "holds several state dicts ({}); save the one that is meant alone",
                paths.join(", ")
            )));
        }
    };
    let (path, pairs) = nested.swap_remove(chosen);
    Ok((tensors(p, pairs)?, Some(path)))
}

/// State dicts seen, and those found with their paths.
type Nested<'p, 'n> = (HashSet<Id>, &'n mut Vec<(String, &'p [(Id, Id)])>);

/// Every dict is visited once, however often it is named.
fn descend<'p>(p: &'p Pickle, pairs: &'p [(Id, Id)], path: &str, depth: usize, found: &mut Nested<'p, '_>) {
    for (key, value) in pairs {
        let (Some(key), Value::Dict(inner)) = (p.text(*key), p.get(*value)) else { continue };
        if key.len() > LONGEST_KEY || !found.0.insert(*value) {
            continue;
        }
        let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
        if depth > 1 {
            descend(p, inner, &path, depth - 1, found);
        }
        found.1.push((path, inner));
    }
}

fn count(p: &Pickle, pairs: &[(Id, Id)]) -> usize {
    pairs.iter().filter(|(key, value)| p.text(*key).is_some() && rebuilding(p, *value).is_some()).count()
}

fn tensors<'p>(p: &'p Pickle, pairs: &[(Id, Id)]) -> Result<Named<'p>> {
    let mut tensors = Vec::new();
    for (key, value) in pairs {
        let (Some(name), Some((function, arguments))) = (p.text(*key), rebuilding(p, *value)) else { continue };
        let rebuilt = rebuilt(p, function, arguments).ok_or_else(|| {
            Error::Model(format!("tensor `{name}` is written in a way of {function} that is not known"))
        })?;
        if tensors.len() == MOST_TENSORS {
            return Err(Error::Model(format!(
                "holds more than {MOST_TENSORS} tensors; no model that is read has so many"
            )));
        }
        tensors.push((name, rebuilt));
    }
    Ok(tensors)
}

/// The innermost function of torch that makes this tensor, and its arguments.
fn rebuilding(p: &Pickle, mut id: Id) -> Option<(&str, &[Id])> {
    for _ in 0..4 {
        let Value::Call { what, with, .. } = p.get(id) else { return None };
        let (function, arguments) = (p.name(*what)?, p.tuple(*with)?);
        match function {
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                id = *arguments.first()?
            }
            "torch._tensor._rebuild_from_type_v2" => {
                let inner = p.tuple(*arguments.get(2)?)?;
                return Some((p.name(*arguments.first()?)?, inner));
            }
            "torch._utils._rebuild_tensor"
            | "torch._utils._rebuild_tensor_v2"
            | "torch._utils._rebuild_tensor_v3"
            | "torch._utils._rebuild_qtensor" => return Some((function, arguments)),
            _ => return None,
        }
    }
    None
}

/// Arguments are storage, offset, size, stride, and more that does not matter but for the dtype of version 3.
fn rebuilt<'p>(p: &'p Pickle, function: &str, arguments: &[Id]) -> Option<Rebuilt<'p>> {
    let storage = stored(p, *arguments.first()?)?;
    let numbers = |id: &Id| {
        let sides = p.tuple(*id).filter(|sides| sides.len() <= MOST_SIDES)?;
        sides.iter().map(|n| p.number(*n)).collect::<Option<Vec<_>>>()
    };
    let (shape, stride) = (numbers(arguments.get(2)?)?, numbers(arguments.get(3)?)?);
    let stored = match function {
        "torch._utils._rebuild_qtensor" => Stored::Other("a quantised tensor".into()),
        "torch._utils._rebuild_tensor_v3" => Stored::Other(short(p.name(*arguments.get(6)?)?)),
        _ => storage.kind,
    };
    let offset = p.number(*arguments.get(1)?)?.checked_add(storage.from)?;
    elements(&shape)?;
    (shape.len() == stride.len()).then_some(Rebuilt { key: storage.key, offset, shape, stride, stored })
}

struct Storage<'p> {
    key: &'p str,
    kind: Stored,
    size: u64,
    /// First element of a view; before torch 0.4 storages could be views.
    from: usize,
}

/// `('storage', type, key, device, elements[, (view's key, offset, elements)])`
fn stored(p: &Pickle, id: Id) -> Option<Storage<'_>> {
    let Value::Stored(id) = p.get(id) else { return None };
    let parts = p.tuple(*id)?;
    let (kind, size) = kind(p.name(*parts.get(1)?)?);
    let view = parts.get(5).and_then(|v| p.tuple(*v)).and_then(|v| p.number(*v.get(1)?));
    let key = p.text(*parts.get(2)?).filter(|key| key.len() <= LONGEST_KEY)?;
    Some(Storage { key, kind, size, from: view.unwrap_or(0) })
}

/// A storage class, and the bytes of its elements.
fn kind(class: &str) -> (Stored, u64) {
    let name = class.rsplit('.').next().unwrap_or(class);
    let other = |kind: &str, size| (Stored::Other(kind.into()), size);
    match name {
        "FloatStorage" => (Stored::Float(DType::F32), 4),
        "DoubleStorage" => (Stored::Float(DType::F64), 8),
        "HalfStorage" => (Stored::Float(DType::F16), 2),
        "BFloat16Storage" => (Stored::Float(DType::BF16), 2),
        "ByteStorage" => (Stored::Bytes, 1),
        "CharStorage" => other("int8", 1),
        "BoolStorage" => other("bool", 1),
        "ShortStorage" => other("int16", 2),
        "IntStorage" => other("int32", 4),
        "LongStorage" => other("int64", 8),
        "ComplexFloatStorage" => other("complex64", 8),
        "ComplexDoubleStorage" => other("complex128", 16),
        other_name => other(&short(other_name), 1),
    }
}

/// The beginning of a class's name.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Bytes of an element in every storage that is named anywhere.
pub fn storages(p: &Pickle) -> HashMap<&str, u64> {
    p.ids().filter_map(|id| stored(p, id)).map(|s| (s.key, s.size)).collect()
}

/// A pickled list of texts.
pub fn texts(p: &Pickle) -> Vec<&str> {
    match p.root() {
        Value::List(list) => list.iter().filter_map(|id| p.text(*id)).collect(),
        _ => Vec::new(),
    }
}

fn no_dict(p: &Pickle) -> Error {
    let class = match p.root() {
        // Before torch 1.6 a module's class was kept beside the pickle, with its source.
        Value::Call { what, .. } => match p.get(*what) {
            Value::Stored(id) => p.tuple(*id).and_then(|parts| p.name(*parts.get(1)?)),
            _ => p.name(*what),
        },
        _ => None,
    };
    Error::Model(match class {
        Some(class) => format!("holds a whole pickled object ({class}) and no state dict, and no code of it is run; save the model with save_pretrained, or its state_dict() with torch.save"),
        None => "holds no state dict; save the model's state_dict()".into(),
    })
}

fn listed(p: &Pickle, pairs: &[(Id, Id)]) -> String {
    let keys: Vec<_> =
        pairs.iter().filter_map(|(key, _)| p.text(*key)).take(6).map(|k| format!("`{}`", short(k))).collect();
    if keys.is_empty() {
        "nothing".into()
    } else {
        keys.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pickle of tensors `(name, sides, class)` in the storage of this key.
    fn pickle(key: &str, tensors: &[(&str, &str, &str)]) -> Pickle {
        let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let mut bytes = b"\x80\x02}(".to_vec();
        for (name, sides, class) in tensors {
            bytes.extend(text(name));
            bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            bytes.extend([text("storage"), format!("ctorch\n{class}\n").into(), text(key), text("cpu")].concat());
            bytes.extend(format!("I4\ntQI0\n({sides}t({sides}tI00\nNtR").bytes());
        }
        Pickle::read(&mut &[&bytes[..], b"u."].concat()[..]).unwrap()
    }

    #[test]
    fn tensors_that_no_memory_holds_are_refused() {
        let good = pickle("0", &[("a", "I2\nI2\n", "FloatStorage")]);
        assert_eq!(find(&good).unwrap().0[0].1.shape, [2, 2]);
        let side = "I1099511627776\n";
        for (key, sides) in [
            ("0", [side; 2].concat()),
            // A side of none, whatever its place, does not make the others possible.
            ("0", format!("I0\n{side}{side}")),
            ("0", format!("{side}{side}I0\n")),
            ("0", "I1\n".repeat(17)),
            (&"k".repeat(300), "I2\n".into()),
        ] {
            let error = find(&pickle(key, &[("a", &sides, "FloatStorage")])).map(drop).unwrap_err().to_string();
            assert!(error.contains("that is not known"), "{error}");
        }
        let long = pickle("0", &[("a", "I2\n", &"C".repeat(5000))]);
        assert!(matches!(&find(&long).unwrap().0[0].1.stored, Stored::Other(kind) if kind.len() == 64));
    }
}
