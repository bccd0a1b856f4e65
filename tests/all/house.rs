//! The house rules that a test can hold: who may use whom, and documents that follow the registries.

use crate::support::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub fn sources(folder: &Path) -> Vec<PathBuf> {
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
    ("guard", &["error"]),
    ("abreast", &["error", "guard"]),
    ("device", &["error"]),
    ("memory", &[]),
    ("identity", &["error"]),
    ("resume", &["error", "identity"]),
    ("trace", &["nn"]),
    ("labels", &["error"]),
    ("scale", &[]),
    ("output", &["error", "labels", "scale"]),
    ("target", &["error", "labels", "output", "scale"]),
    ("explanation", &["error", "target"]),
    ("input", &["error", "explanation", "guard", "identity"]),
    ("nn", &["error"]),
    ("encoder", &["error", "explanation", "nn", "scale", "trace"]),
    ("run", &["error", "explanation", "scale", "target", "trace", "nn", "encoder"]),
    ("method", &["error", "explanation", "scale", "nn", "encoder", "run"]),
    (
        "evaluate",
        &[
            "error",
            "guard",
            "identity",
            "resume",
            "explanation",
            "scale",
            "target",
            "input",
            "nn",
            "encoder",
            "run",
            "method",
            "model",
            "render",
        ],
    ),
    (
        "maximize",
        &["error", "identity", "target", "trace", "input", "nn", "encoder", "run", "method", "model", "render"],
    ),
    ("model", &["error", "device", "identity", "explanation", "labels", "scale", "target", "input", "nn", "encoder"]),
    (
        "explain",
        &[
            "abreast",
            "resume",
            "error",
            "guard",
            "identity",
            "explanation",
            "encoder",
            "nn",
            "scale",
            "labels",
            "target",
            "input",
            "run",
            "method",
            "model",
            "render",
        ],
    ),
    ("render", &["error", "identity", "explanation", "target", "input"]),
    (
        "summary",
        &[
            "abreast",
            "error",
            "evaluate",
            "explain",
            "explanation",
            "input",
            "method",
            "model",
            "render",
            "run",
            "target",
        ],
    ),
    ("worker", &["error", "guard", "explain", "explanation", "input", "method", "model", "render", "run", "target"]),
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

/// Rooms in which nothing runs up: no file uses one that uses it, a `mod.rs` with its registry and exports included.
const ROOMS: &[&str] = &["run", "method", "evaluate"];

/// Sub-rooms that may use few of the others.
const SUB_ROOMS: &[(&str, &[&str])] = &[
    ("evaluate/metric", &["error", "explanation", "scale", "target", "nn", "encoder", "run", "evaluate"]),
    ("model/family", &["error", "encoder", "nn", "model", "scale"]),
];

/// The module of a source file: `method/cam/mod.rs` is `method::cam`.
fn module_of(relative: &Path) -> Vec<String> {
    let mut parts: Vec<String> = relative.iter().map(|p| p.to_str().unwrap().trim_end_matches(".rs").into()).collect();
    if parts.last().is_some_and(|p| p == "mod") {
        parts.pop();
    }
    parts
}

/// Code of a file without comments and tests.
fn code_of(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Paths a file names, `crate::` and `super::` resolved; of a group `{a, b::c}` each.
fn named_paths(file: &Path, module: &[String]) -> Vec<Vec<String>> {
    let code = code_of(file);
    let mut found = Vec::new();
    for (start, base) in [("crate::", &[][..]), ("super::", &module[..module.len().saturating_sub(1)])] {
        for rest in code.split(start).skip(1) {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:{}, \n".contains(c))).unwrap_or(rest.len());
            expand(base.to_vec(), &rest[..end], &mut found);
        }
    }
    found
}

fn expand(base: Vec<String>, text: &str, found: &mut Vec<Vec<String>>) {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() {
        let Some(inner) = text.strip_prefix('{') else { return found.push(base) };
        let (mut depth, mut from) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => return expand(base, inner[from..at].trim(), found),
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(base.clone(), inner[from..at].trim(), found);
                    from = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let mut path = base;
    path.push(name.clone());
    match text[name.len()..].strip_prefix("::") {
        Some(rest) => expand(path, rest, found),
        None => found.push(path),
    }
}

#[test]
fn nothing_runs_up_within_a_room() {
    let src = root().join("src");
    let files = sources(&src);
    let modules: BTreeMap<Vec<String>, &PathBuf> =
        files.iter().map(|f| (module_of(f.strip_prefix(&src).unwrap()), f)).collect();
    let mut arrows: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = BTreeMap::new();
    for (module, file) in modules.iter().filter(|(m, _)| ROOMS.contains(&m[0].as_str())) {
        let mut paths = named_paths(file, module);
        // What a `mod.rs` names without `crate::` is its own.
        for word in code_of(file).split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            if let Some((first, _)) = word.split_once("::") {
                paths.push([&module[..], &[first.to_string()]].concat());
            }
        }
        let longest = |path: &Vec<String>| (1..=path.len()).rev().find_map(|n| modules.get_key_value(&path[..n]));
        let used = paths.iter().filter_map(longest).map(|(m, _)| m).filter(|m| *m != module && m[0] == module[0]);
        arrows.insert(module, used.collect());
    }
    assert!(arrows.len() > 60, "{}", arrows.len());
    let mut done = BTreeSet::new();
    while done.len() < arrows.len() {
        let free: Vec<_> = arrows.iter().filter(|(m, used)| !done.contains(*m) && used.is_subset(&done)).collect();
        let left = || -> Vec<_> { arrows.iter().filter(|(m, _)| !done.contains(*m)).collect() };
        assert!(!free.is_empty(), "circles among {:#?}", left());
        let free: Vec<_> = free.into_iter().map(|(m, _)| *m).collect();
        done.extend(free);
    }
}

#[test]
fn sub_rooms_use_what_they_may() {
    let src = root().join("src");
    for (room, allowed) in SUB_ROOMS {
        for file in sources(&src.join(room)) {
            let module = module_of(file.strip_prefix(&src).unwrap());
            for path in named_paths(&file, &module) {
                assert!(allowed.contains(&path[0].as_str()), "{} uses {path:?}", file.display());
            }
        }
    }
}

#[test]
fn groups_of_methods_do_not_use_each_other() {
    let src = root().join("src");
    let rooms: BTreeSet<String> = std::fs::read_dir(src.join("method"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .map(|p| p.file_name().unwrap().to_str().unwrap().to_string())
        .collect();
    assert_eq!(rooms.len(), vitx::method::GROUPS.len());
    for room in &rooms {
        for file in sources(&src.join("method").join(room)) {
            let module = module_of(file.strip_prefix(&src).unwrap());
            for path in named_paths(&file, &module).iter().filter(|p| p[0] == "method") {
                let other = path.get(1).is_some_and(|p| rooms.contains(p) && p != room);
                assert!(!other, "{} uses {path:?}", file.display());
            }
        }
    }
}

/// The only files with `unsafe`: kernels, each of which was measured against the loop that it replaced, and the program's allocator.
const UNSAFE: &[&str] =
    &["memory.rs", "nn/kernels/memory.rs", "nn/kernels/pack.rs", "nn/kernels/product.rs", "nn/kernels/tile.rs"];

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    let src = root().join("src");
    let mut seen = BTreeSet::new();
    for file in sources(&src) {
        let relative = file.strip_prefix(&src).unwrap().to_str().unwrap().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if !["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"]
                .iter()
                .any(|u| code.contains(u))
            {
                continue;
            }
            assert!(UNSAFE.contains(&relative.as_str()), "{relative}:{} is a new place for `unsafe`", number + 1);
            seen.insert(relative.clone());
            let notes = lines[..number].iter().rev().take_while(|l| l.starts_with("//") || l.starts_with("#["));
            let told = notes.clone().any(|l| l.starts_with("// SAFETY: ") || *l == "/// # Safety");
            // The allocator's methods promise what the trait asks of them: the note is the impl's.
            let method = relative == "memory.rs" && code.starts_with("unsafe fn");
            assert!(told || method, "{relative}:{}: no `// SAFETY:` above it", number + 1);
        }
    }
    assert_eq!(Vec::from_iter(&seen), UNSAFE, "files that need no `unsafe` any more");
}

/// What grows beyond this is no front end any more: it belongs to the library.
#[test]
fn the_command_line_stays_a_front_end() {
    let lines = |file: &PathBuf| std::fs::read_to_string(file).unwrap().lines().count();
    let all: usize = sources(&root().join("src/cli")).iter().map(lines).sum();
    assert!(all <= 3700, "src/cli has {all} lines");
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
        text.split("#[cfg(test)]").next().unwrap().contains("block.backward_")
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
