//! How one checkpoint writes a family's tensor names: a common prefix, with or without the base model's name in front, the
//! names of transformers 4 or 5, layer norms as TensorFlow called them; and which tensors nothing read.

use super::sniff;
use super::spec::Names;
use super::weights::{missing, Weights};
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Finds a family's tensors among the names of one checkpoint.
pub struct Naming<'w> {
    weights: &'w Weights,
    /// `vit`, `bert`
    base: &'static str,
    /// What stands in front of all names, dot included.
    prefix: String,
    /// The base model's name is left out.
    bare: bool,
    /// Names in the files that were asked for.
    used: RefCell<BTreeSet<String>>,
}

impl<'w> Naming<'w> {
    /// Looks for the family's embedding.
    ///
    /// # Errors
    /// [`Error::Model`] when there is none, or more than one.
    pub fn of(weights: &'w Weights, names: &Names) -> Result<Self> {
        let (base, rest) = names.first.split_once('.').unwrap_or((names.first, ""));
        let fronts: BTreeSet<&str> = weights
            .entries()
            .keys()
            .filter_map(|name| name.strip_suffix(rest))
            .filter(|front| front.is_empty() || front.ends_with('.'))
            .collect();
        let own = format!("{base}.");
        let named: BTreeSet<&str> = fronts.iter().copied().filter(|front| front.ends_with(&own)).collect();
        let fronts = if named.len() == 1 { named } else { fronts };
        let front = match fronts.len() {
            0 => return Err(foreign(weights, names.first)),
            1 => fronts.first().copied().unwrap_or_default(),
            _ if fronts.contains(own.as_str()) => own.as_str(),
            _ => {
                let list: Vec<_> = fronts.iter().map(|f| format!("`{f}`")).collect();
                return Err(Error::Model(format!(
                    "the weights are of several models, under the names {}; save the one that is meant alone",
                    list.join(", ")
                )));
            }
        };
        let whole = front.strip_suffix(own.as_str()).filter(|p| p.is_empty() || p.ends_with('.'));
        let (prefix, bare) = (whole.unwrap_or(front).to_string(), whole.is_none());
        Ok(Naming { weights, base, prefix, bare, used: RefCell::default() })
    }

    /// How its names differ from the family's, as the end of a sentence.
    pub fn differs(&self) -> String {
        let behind = if self.prefix.is_empty() { String::new() } else { format!(", behind `{}`", self.prefix) };
        match self.bare {
            true => format!("{behind}, without `{}.`", self.base),
            false => behind,
        }
    }

    /// The name in the files for a name of the family.
    pub fn find(&self, name: &str) -> Option<String> {
        let (stem, end) = name.rsplit_once('.').unwrap_or(("", name));
        let old = match end {
            "weight" => Some(format!("{stem}.gamma")),
            "bias" => Some(format!("{stem}.beta")),
            _ => None,
        };
        let found = [Some(name.to_string()), old].into_iter().flatten().find_map(|name| self.spelled(&name))?;
        Some(found)
    }

    /// As [`Naming::find`], counting the tensor as used.
    ///
    /// # Errors
    /// [`Error::Model`] when there is none.
    pub fn used(&self, name: &str, shape: &[usize]) -> Result<String> {
        let found = self.find(name).ok_or_else(|| missing(name, shape))?;
        self.used.borrow_mut().extend([found.clone(), format!("{found}.scale")]);
        Ok(found)
    }

    fn spelled(&self, name: &str) -> Option<String> {
        let short = name.strip_prefix(self.base).and_then(|n| n.strip_prefix('.')).filter(|_| self.bare);
        let name = short.unwrap_or(name);
        let all = self.weights.entries();
        [format!("{}{name}", self.prefix), name.to_string()].into_iter().find(|n| all.contains_key(n))
    }

    /// Numbers N for which `NAME.N.weight` is stored: a head that is a sequence of layers.
    pub fn sequence(&self, name: &str) -> Vec<String> {
        let start = format!("{}{name}.", self.prefix);
        let number = |n: &String| n.strip_prefix(&start)?.strip_suffix(".weight")?.parse::<u32>().ok();
        let mut numbers: Vec<_> = self.weights.entries().keys().filter_map(number).collect();
        numbers.sort_unstable();
        numbers.iter().map(u32::to_string).collect()
    }

    /// Tensors outside of the base model, without their `.weight` and `.bias`.
    pub fn outside(&self) -> Vec<String> {
        const BARE: &[&str] = &["embeddings", "encoder", "layers", "layernorm", "pooler", "transformer"];
        let inside = |name: &str| {
            let first = name.split('.').next().unwrap_or_default();
            first == self.base || self.bare && BARE.contains(&first)
        };
        let names = self.weights.entries().keys().map(|n| n.strip_prefix(&self.prefix).unwrap_or(n));
        let stems = names.filter(|n| !inside(n)).map(|n| n.rsplit_once('.').map_or(n, |(stem, _)| stem).to_string());
        stems.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What the user may want to know: the prefix, and the tensors that nothing read.
    /// `apart`: how the names of tensors begin that are read by themselves.
    pub fn notes(&self, apart: &[&str]) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.prefix.is_empty() {
            notes.push(format!("the tensors' names begin with `{}`, which is left out", self.prefix));
        }
        let used = self.used.borrow();
        let all = self.weights.entries();
        let elsewhere = |name: &str| {
            let name = name.strip_prefix(&self.prefix).unwrap_or(name);
            apart.iter().any(|start| name.starts_with(start))
        };
        let left = all
            .iter()
            .filter(|(name, e)| !used.contains(*name) && !e.shape.contains(&0) && !harmless(name) && !elsewhere(name));
        notes.extend(left_over(left.map(|(name, _)| name.as_str())));
        notes
    }
}

/// Buffers, and parts that no classifier of a family here reads.
fn harmless(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    ["position_ids", "token_type_ids", "mask_token", "num_batches_tracked"].contains(&last)
        || name.contains(".pooler.")
        || name.starts_with("pooler.")
}

/// "16 tensors of vit.encoder.layer.1 are in the file and not used"
fn left_over<'n>(names: impl Iterator<Item = &'n str>) -> Option<String> {
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let parts: Vec<&str> = name.split('.').collect();
        let numbered = parts.iter().position(|p| p.parse::<u32>().is_ok()).map(|i| i + 1);
        let keep = numbered.unwrap_or(parts.len() - 1).max(1);
        *groups.entry(parts[..keep.min(parts.len())].join(".")).or_default() += 1;
    }
    let total: usize = groups.values().sum();
    if total == 0 {
        return None;
    }
    let tensors = |n: usize| format!("{n} tensor{}", if n == 1 { "" } else { "s" });
    let mut shown: Vec<String> = groups.iter().take(4).map(|(of, n)| format!("{} of {of}", tensors(*n))).collect();
    if groups.len() > 4 {
        shown.push(format!("{} more", groups.values().skip(4).sum::<usize>()));
    }
    let are = if total == 1 { "is" } else { "are" };
    Some(format!("{} {are} in the file and not used", shown.join(", ")))
}

fn foreign(weights: &Weights, first: &str) -> Error {
    let names = || weights.entries().keys().map(String::as_str);
    let some: Vec<_> = names().take(3).map(|n| format!("`{n}`")).collect();
    Error::Model(match sniff::foreign(names()) {
        Some(what) => format!(
            "the weights are not of the family that config.json says: their names are {what} (such as {})",
            some.join(", ")
        ),
        None => format!(
            "the weights are not of the family that config.json says: `{first}` is missing; they hold {}",
            some.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_over_tensors_are_counted_by_layer() {
        let names = ["vit.encoder.layer.1.a.weight", "vit.encoder.layer.1.a.bias", "cls.predictions.bias"];
        assert_eq!(
            left_over(names.into_iter()).unwrap(),
            "1 tensor of cls.predictions, 2 tensors of vit.encoder.layer.1 are in the file and not used"
        );
        assert_eq!(left_over(["x"].into_iter()).unwrap(), "1 tensor of x is in the file and not used");
        assert_eq!(left_over(std::iter::empty()), None);
        let many: Vec<String> = (0..9).map(|i| format!("a.{i}.weight")).collect();
        assert!(left_over(many.iter().map(String::as_str)).unwrap().contains("1 tensor of a.3, 5 more are"));
    }
}
