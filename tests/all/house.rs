//! The house rules that a test can hold: who may use whom, and documents that follow the registries.

use crate::support::root;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// Modules that each part of the library may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("identity", &["error"]),
    ("trace", &[]),
    ("labels", &["error"]),
    ("scale", &[]),
    ("output", &["error", "labels", "scale"]),
    ("target", &["error", "labels", "output", "scale"]),
    ("explanation", &["error", "target"]),
    ("input", &["error", "explanation"]),
    ("nn", &["error"]),
    ("encoder", &["error", "explanation", "nn", "scale", "trace"]),
    ("method", &["error", "explanation", "scale", "target", "trace", "nn", "encoder"]),
    (
        "evaluate",
        &["error", "identity", "explanation", "scale", "target", "input", "nn", "encoder", "method", "render"],
    ),
    ("maximize", &["error", "target", "trace", "nn", "encoder", "method"]),
    ("model", &["error", "identity", "explanation", "labels", "scale", "target", "input", "nn", "encoder"]),
    ("render", &["error", "explanation", "target", "input"]),
];

#[test]
fn dependencies_point_one_way() {
    let src = root().join("src");
    let mut seen = BTreeSet::new();
    for file in sources(&src) {
        let relative = file.strip_prefix(&src).unwrap();
        let part = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_string();
        let Some((_, allowed)) = MAY_USE.iter().find(|(p, _)| *p == part) else {
            assert!(["cli", "main", "lib"].contains(&part.as_str()), "{part} is not in the table");
            continue;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let code: String = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for used in code.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            assert!(used == part || allowed.contains(&used.as_str()), "{} uses {used}", relative.display());
        }
        seen.insert(part);
    }
    assert_eq!(seen.len(), MAY_USE.len());
}

#[test]
fn the_library_never_prints() {
    for file in sources(&root().join("src")) {
        let cli = file.components().any(|c| c.as_os_str() == "cli") || file.ends_with("main.rs");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(cli || !text.contains("println!") && !text.contains("eprint"), "{}", file.display());
    }
}

#[test]
fn only_one_function_walks_the_layers_backwards() {
    let walks = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        text.split("#[cfg(test)]").next().unwrap().contains("block.backward(")
    };
    let found: Vec<_> = sources(&root().join("src")).into_iter().filter(walks).collect();
    assert_eq!(found, [root().join("src/encoder/backward.rs")]);
}

#[test]
fn the_readme_s_tables_come_from_the_registries() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for (name, table) in [("methods", vitx::method::markdown()), ("families", vitx::model::markdown())] {
        let (from, to) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let part = readme.split(&from).nth(1).and_then(|r| r.split(&to).next()).unwrap();
        assert_eq!(part, table, "run `vitx methods --markdown` and `vitx models --markdown`");
    }
}
