//! What files of results are called: input, method, target and format, in names that every file system takes.

use crate::identity;
use crate::target::{Labels, Output, Request, Target};
use std::path::{Path, PathBuf};

/// `<stem>.<method>[.<target>].<extension>`; the stem is a path without ending.
pub fn file(stem: &Path, method: &str, target: &str, extension: &str) -> PathBuf {
    let mut name = stem.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}", method_part(method)));
    if !target.is_empty() {
        name.push(format!(".{target}"));
    }
    name.push(format!(".{extension}"));
    stem.with_file_name(name)
}

/// The part of a file name that tells the target: empty for the predicted class.
pub fn target_part(request: &Request, output: Output, labels: &Labels) -> String {
    let minus = if output.lowers { "-" } else { "" };
    if let Some(token) = output.token {
        return format!("{minus}{token}-{}", slug(&labels.name(output.class)));
    }
    if request.target == Target::Predicted {
        return if output.lowers { "-predicted".into() } else { String::new() };
    }
    let part = |class: u32| {
        let label = labels.name(class);
        let plain = |label: &str| slug(label).to_lowercase(); // as the least of file systems tells names apart
        let again = (0..labels.len() as u32).any(|c| c != class && plain(&labels.name(c)) == plain(&label));
        match slug(&label) {
            none if none.is_empty() => format!("class-{class}"),
            part if again => format!("{part}-{class}"),
            part => part,
        }
    };
    match output.against {
        None => format!("{minus}{}", part(output.class)),
        Some(against) => format!("{minus}{}-vs-{}", part(output.class), part(against)),
    }
}

/// Characters of a method or a label in a file name.
const LONGEST: usize = 60;

/// A method with its parameters as part of a file name. What the name cannot hold stands in it as a few digits of the
/// SHA-256, so that two methods never share a name.
fn method_part(method: &str) -> String {
    let name: String = method.chars().map(safe).collect();
    let kept = method.chars().all(|c| safe(c) == c || c == ':' || c == ',');
    if kept && name.chars().count() <= LONGEST {
        return name.trim_matches('-').to_string();
    }
    let digits = &identity::of_bytes(method.as_bytes())[..8];
    let start: String = name.chars().take(LONGEST - 9).collect();
    format!("{}-{digits}", start.trim_matches('-'))
}

/// A label as part of a file name: its first synonym.
fn slug(label: &str) -> String {
    let first = label.split(", ").next().unwrap_or(label); // ImageNet labels list synonyms
    let short: String = first.chars().map(safe).take(LONGEST).collect();
    short.trim_matches('-').to_string()
}

/// What every file system takes.
fn safe(c: char) -> char {
    if c.is_alphanumeric() || "-_=.".contains(c) {
        c
    } else {
        '-'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels::new(["tabby, tabby cat", "crane", "crane", "a/b c"].map(String::from).to_vec())
    }

    #[test]
    fn file_names_tell_method_and_target() {
        let path = file(Path::new("a/img.x"), "rollout:discard_ratio=0.5", "mammal", "json");
        assert_eq!(path, Path::new("a/img.x.rollout-discard_ratio=0.5.mammal.json"));
        let request = |target| Request { text: String::new(), target, lowers: false };
        let one = Output::of;
        assert_eq!(target_part(&request(Target::Predicted), one(0), &labels()), "");
        assert_eq!(target_part(&request(Target::Top(2)), one(0), &labels()), "tabby");
        assert_eq!(target_part(&request(Target::Top(2)), one(2), &labels()), "crane-2");
        let lowers = Output { lowers: true, ..one(0) };
        assert_eq!(target_part(&request(Target::Predicted), lowers, &labels()), "-predicted");
        assert_eq!(target_part(&request(Target::Class(0)), lowers, &labels()), "-tabby");
        let contrast = Target::Contrast { class: 3, against: 0 };
        assert_eq!(target_part(&request(contrast), Output::contrast(3, 0), &labels()), "a-b-c-vs-tabby");
    }

    #[test]
    fn two_methods_never_share_a_name() {
        let long = "integrated-gradients:baseline=black,quadrature=midpoint,steps=";
        let methods = [
            format!("{long}4"),
            format!("{long}40"),
            format!("{long}400"),
            "attention-row=!".into(),
            "attention-row=?".into(),
            "attention-row=".into(),
        ];
        let parts: std::collections::BTreeSet<String> = methods.iter().map(|m| method_part(m)).collect();
        assert_eq!(parts.len(), methods.len(), "{parts:?}");
        assert!(parts.iter().all(|p| p.chars().count() <= LONGEST && !p.contains(['/', ':', ',', '?'])), "{parts:?}");
        assert_eq!(method_part("gae"), "gae");
        assert_eq!(method_part(&methods[0]), method_part(&methods[0]), "the same every time");
    }

    #[test]
    fn labels_that_look_alike_have_their_number() {
        let labels = Labels::new(["Cat", "cat", "!", "?", "dog"].map(String::from).to_vec());
        let parts: Vec<_> = (0..5)
            .map(|c| {
                target_part(
                    &Request { text: String::new(), target: Target::Class(c), lowers: false },
                    Output::of(c),
                    &labels,
                )
            })
            .collect();
        assert_eq!(parts, ["Cat-0", "cat-1", "class-2", "class-3", "dog"]);
    }
}
