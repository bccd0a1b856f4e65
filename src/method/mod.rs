//! Attribution methods: a trait, one registry of groups, one room a group, one file a method.
//!
//! # How to add a method
//!
//! 1. `NAME.rs` in the room of the group whose question it answers opens with what it answers in one sentence, the paper
//!    with equation numbers, shapes, the parameters and where their defaults come from, how it differs from the paper or
//!    the authors' code, and its errors. It holds a const [`Entry`], whose `build` reads the parameters, and a struct that
//!    is a [`Method`]; `explain` reads like the paper.
//! 2. Modes are enums with a table of names, read by [`Params::one_of`] and matched exhaustively. What a model must have is
//!    refused in `check`, before its weights are read. `reads` says what of the passes it needs: anything else is dropped.
//! 3. Passes come from [`Run`](crate::run::Run): attention, states and gradients of the shared passes, or a reverse pass
//!    under other [`Rules`](crate::nn::Rules). A method that runs the model on changed inputs takes
//!    [`Run::subject`](crate::run::Run::subject) and makes variants a few at a time. What several methods need is a function
//!    in [`combine`], [`input_map`] or `run/`: methods of one group do not use another's. Relevance is returned raw: signed,
//!    not normalised.
//! 4. Two words: `mod NAME;` and `NAME::ENTRY` in the room's `mod.rs`. The command line, `vitx methods`, completions, the
//!    README's table and the contract tests follow from there.
//! 5. Numbers: golden arrays from `tests/reference/` (`produce` in the file of its subject, one command), a setting for each
//!    array in `tests/all/golden_methods.rs`, and a naive f64 twin in `tests/all/naive/`, written from the paper.
//! 6. `cargo test` is green once README's table is that of `vitx methods --markdown`.

pub mod account;
mod attention;
pub mod cam;
pub mod combine;
mod contract;
pub mod gradient;
pub mod input_map;
mod mixing;
pub mod perturbation;
mod propagation;
mod weighted;

pub use contract::{Configured, Entry, Group, Method, Relevance};

use crate::encoder::Facts;
use crate::error::{unknown, Error, Result};
use crate::run::{Param, Params};
use serde_json::{json, Value};

/// Every kind of method, in the order of `vitx methods`.
pub const GROUPS: &[Group] = &[
    attention::GROUP,
    weighted::GROUP,
    mixing::GROUP,
    gradient::GROUP,
    propagation::GROUP,
    cam::GROUP,
    perturbation::GROUP,
];

/// The methods of `vitx explain` without `--method`: for pictures, where layers do not hold the same tokens (Swin), and for texts.
pub const DEFAULTS: [&str; 3] = ["gae", "gradcam", "attn-lrp"];

/// The method that explains a model where none is named. For texts `gae` is far below what propagates relevance (README's table), which
/// takes one reverse pass like it.
pub fn usual(model: &Facts) -> &'static str {
    let [pictures, staged, texts] = DEFAULTS;
    match (model.text, model.staged()) {
        (true, _) => texts,
        (false, true) => staged,
        (false, false) => pictures,
    }
}

/// Every method, in the order of `vitx methods`.
pub fn all() -> impl Iterator<Item = &'static Entry> + Clone {
    GROUPS.iter().flat_map(|g| g.methods)
}

/// The group of a method.
pub fn group(of: &Entry) -> Option<&'static Group> {
    GROUPS.iter().find(|g| g.methods.iter().any(|e| e.name == of.name))
}

/// What a method is, as a record.
pub fn record(one: &Configured) -> Value {
    let (e, group) = (one.entry, group(one.entry));
    let rules: Vec<_> = one.method.rules().iter().map(|r| json!({"name": r.name, "table": r.table()})).collect();
    json!({
        "name": e.name, "aliases": e.aliases, "title": e.title, "paper": e.paper, "group": group.map(|g| g.name),
        "question": group.map(|g| g.question), "class_specific": e.class_specific,
        "params": e.parameters().iter().map(Param::record).collect::<Vec<_>>(), "rules": rules,
    })
}

/// Finds a method by name or alias.
///
/// # Errors
/// [`Error::Usage`] naming the nearest one.
pub fn find(name: &str) -> Result<&'static Entry> {
    let is = |e: &&Entry| e.name == name || e.aliases.contains(&name);
    let names = all().flat_map(|e| std::iter::once(e.name).chain(e.aliases.iter().copied()));
    all().find(is).ok_or_else(|| unknown("method", name, names, "see `vitx methods`"))
}

/// The README's tables of methods, one a group.
pub fn markdown() -> String {
    let row = |e: &Entry| {
        let keys: Vec<_> = e.parameters().iter().map(|p| format!("`{}`", p.key)).collect();
        let class = if e.class_specific { "yes" } else { "no" };
        format!("| `{}` | {} | {class} | {} | {} |\n", e.name, e.title, keys.join(" "), e.paper)
    };
    let table = |g: &Group| {
        let rows: String = g.methods.iter().map(row).collect();
        format!(
            "**{}**: {}\n\n| method | what it shows | class-specific | parameters | paper |\n| --- | --- | --- | --- | --- |\n{rows}",
            g.name, g.question
        )
    };
    GROUPS.iter().map(table).collect::<Vec<_>>().join("\n")
}

/// Reads `NAME[:key=value,...]`.
///
/// # Errors
/// [`Error::Usage`] for an unknown method, key or value.
pub fn parse(text: &str) -> Result<Configured> {
    let (name, given) = text.split_once(':').unwrap_or((text, ""));
    let entry = find(name.trim())?;
    let mut params = Params::parse(entry.name, given)?;
    let method = (entry.build)(&mut params)?;
    let (spec, measured) = (params.spec(entry.name), params.measured);
    Ok(Configured { entry, spec, params: params.finish()?, measured, method })
}

/// Cuts the values of a list option into `NAME[:key=value,...]` parts: commas separate names, and `key=value` parts belong
/// to the name before them.
pub fn split_specs(texts: &[impl AsRef<str>]) -> Vec<String> {
    let mut specs: Vec<String> = Vec::new();
    for text in texts {
        let mut open = false; // whether the last name has a colon, so that further key=value parts are its own
        for part in text.as_ref().split(',').map(str::trim) {
            match specs.last_mut() {
                Some(last) if open && part.contains('=') && !part.contains(':') => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => {
                    open = part.contains(':');
                    specs.push(part.to_string());
                }
            }
        }
    }
    specs
}

/// Most settings that one text may stand for.
const MOST: usize = 10_000;

/// The settings of a text some of whose values are alternatives, `NAME:key=a|b,...`: each as one method is written, and the values that were
/// chosen in it.
///
/// # Errors
/// [`Error::Usage`] for too many.
pub fn alternatives(text: &str) -> Result<Vec<(String, Vec<String>)>> {
    let (name, given) = text.split_once(':').unwrap_or((text, ""));
    let parts: Vec<&str> = given.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let values = |part: &str| part.split_once('=').map_or(1, |(_, values)| values.split('|').count());
    let count = parts.iter().map(|part| values(part)).fold(1usize, usize::saturating_mul);
    if count > MOST {
        return Err(Error::Usage(format!("`{text}` is a grid of {count} settings; at most {MOST}")));
    }
    let mut settings: Vec<(Vec<String>, Vec<String>)> = vec![Default::default()];
    for part in parts {
        let Some((key, values)) = part.split_once('=').filter(|(_, values)| values.contains('|')) else {
            settings.iter_mut().for_each(|(keys, _)| keys.push(part.to_string()));
            continue;
        };
        let longer = |(keys, chosen): &(Vec<String>, Vec<String>)| {
            let with = |v: &str| {
                let v = v.trim().to_string();
                ([&keys[..], &[format!("{}={v}", key.trim())]].concat(), [&chosen[..], &[v]].concat())
            };
            values.split('|').map(with).collect::<Vec<_>>()
        };
        settings = settings.iter().flat_map(longer).collect();
    }
    let spec =
        |keys: Vec<String>| if keys.is_empty() { name.to_string() } else { format!("{name}:{}", keys.join(",")) };
    Ok(settings.into_iter().map(|(keys, chosen)| (spec(keys), chosen)).collect())
}

/// Methods as they are typed, `layer=all` (or `layers=all`) being each layer of a model of so many.
pub fn in_every_layer(texts: &[impl AsRef<str>], layers: usize) -> Vec<String> {
    let each = (0..layers).map(|layer| layer.to_string()).collect::<Vec<_>>().join("|");
    let own = |part: &str| {
        let (name, pair) = part.split_once(':').map_or(("", part), |(name, pair)| (name, pair));
        let every = matches!(pair.trim().split_once('='), Some(("layer" | "layers", "all")));
        let colon = if name.is_empty() { "" } else { ":" };
        if every {
            format!("{name}{colon}layer={each}")
        } else {
            part.to_string()
        }
    };
    texts.iter().map(|text| text.as_ref().split(',').map(own).collect::<Vec<_>>().join(",")).collect()
}

/// Reads the values of `--method`. `all` stands for every method, and `a|b` for each of two values.
///
/// # Errors
/// As [`parse`] and [`alternatives`]; also for the same method with the same parameters twice.
pub fn parse_list(texts: &[impl AsRef<str>]) -> Result<Vec<Configured>> {
    let mut list: Vec<Configured> = Vec::new();
    for spec in split_specs(texts) {
        let specs: Vec<String> = match spec.eq_ignore_ascii_case("all") {
            true => all().map(|e| e.name.to_string()).collect(),
            false => alternatives(&spec)?.into_iter().map(|(spec, _)| spec).collect(),
        };
        for spec in specs {
            let configured = parse(&spec)?;
            if list.iter().any(|c| c.spec == configured.spec) {
                let spec = configured.spec;
                return Err(Error::Usage(format!("method `{spec}` is given twice with the same parameters")));
            }
            list.push(configured);
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_builds_and_names_are_unique() {
        let mut names: Vec<_> = all().flat_map(|e| std::iter::once(&e.name).chain(e.aliases)).collect();
        for entry in all() {
            parse(entry.name).unwrap();
            assert!(!entry.title.is_empty() && !entry.paper.is_empty());
            assert!(entry.parameters().iter().all(|p| !p.about.is_empty()));
        }
        names.sort();
        let n = names.len();
        names.dedup();
        assert_eq!(n, names.len());
        assert!(DEFAULTS.iter().all(|name| find(name).is_ok()));
    }

    #[test]
    fn lists_keep_parameters_with_their_method() {
        let list = parse_list(&["attention,rollout:discard_ratio=0.5,start_layer=1,gae", "attention-grad"]).unwrap();
        let specs: Vec<_> = list.iter().map(|c| c.spec.as_str()).collect();
        assert_eq!(specs, ["attention", "rollout:discard_ratio=0.5,start_layer=1", "gae", "grad-attention"]);
        assert_eq!(parse_list(&["all"]).unwrap().len(), all().count());
        let list = parse_list(&["attention:layer=0|last,heads=max,gae"]).unwrap();
        let specs: Vec<_> = list.iter().map(|c| c.spec.as_str()).collect();
        assert_eq!(specs, ["attention:layer=0,heads=max", "attention:layer=last,heads=max", "gae"]);
        let every = in_every_layer(&["attention:heads=max,layer=all,gae:start_layer=1", "norm:layers=all"], 3);
        assert_eq!(every, ["attention:heads=max,layer=0|1|2,gae:start_layer=1", "norm:layer=0|1|2"]);
        assert!(alternatives(&format!("rise:n={}", "1|".repeat(20_000))).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("rolout", "did you mean `rollout`"),
            ("rollout:discard=0.5", "did you mean `discard_ratio`"),
            ("rollout:discard_ratio=2", "from 0 to 1"),
            ("rollout:heads=median", "mean, max, min or a head's number"),
            ("gae:foo=1", "start_layer"),
            ("gae:start_layer", "key=value"),
            ("gae,gae", "twice"),
        ] {
            let error = parse_list(&[text]).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
