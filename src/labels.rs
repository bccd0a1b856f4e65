//! The class names of a model, and how the names people write find their class.

use crate::error::{nearest, Error, Result};

/// The class names of a classifier, in class order (`id2label`). A class may lack one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Vec<Option<String>>);

/// What a written name was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A label, or one of its comma-separated synonyms.
    Name,
    /// A class number.
    Number,
}

impl Labels {
    /// Labels in class order.
    pub fn new(names: Vec<String>) -> Self {
        Labels(names.into_iter().map(Some).collect())
    }

    /// Labels in class order, some of them unknown.
    pub fn with_gaps(names: Vec<Option<String>>) -> Self {
        Labels(names)
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for a model without classes (which no checkpoint loader returns).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The label of a class; `class N` for one without, and beyond the end.
    pub fn name(&self, class: u32) -> String {
        self.0.get(class as usize).cloned().flatten().unwrap_or_else(|| format!("class {class}"))
    }

    /// The class that `text` names; see [`Labels::read`].
    ///
    /// # Errors
    /// As [`Labels::read`].
    pub fn find(&self, text: &str) -> Result<u32> {
        self.read(text).map(|(class, _)| class)
    }

    /// The class that `text` names, and how: `id:N` is class N; else the label spelled so, the label in any case, a
    /// comma-separated synonym spelled so, a synonym in any case; a number that no label reads as is the class of that number.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that several classes share (listing them), for a number beyond the classes and for an
    /// unknown label (naming the nearest one).
    pub fn read(&self, text: &str) -> Result<(u32, Reading)> {
        self.lookup(text)?.ok_or_else(|| self.unknown(text))
    }

    /// The same; none for what is unknown.
    pub(crate) fn lookup(&self, text: &str) -> Result<Option<(u32, Reading)>> {
        let text = text.trim();
        if let Some(number) = text.strip_prefix("id:") {
            return Ok(self.numbered(number));
        }
        let (same, alike) = (|l: &str| l.trim() == text, |l: &str| l.trim().to_lowercase() == text.to_lowercase());
        let levels: [&dyn Fn(&str) -> bool; 4] =
            [&same, &alike, &|l| l.split(',').any(same), &|l| l.split(',').any(alike)];
        for matches in levels {
            let named =
                |(i, label): (usize, &Option<String>)| label.as_deref().is_some_and(matches).then_some(i as u32);
            match self.0.iter().enumerate().filter_map(named).collect::<Vec<_>>()[..] {
                [] => {}
                [class] => return Ok(Some((class, Reading::Name))),
                ref several => return Err(ambiguous(text, several)),
            }
        }
        Ok(self.numbered(text))
    }

    fn numbered(&self, number: &str) -> Option<(u32, Reading)> {
        let class = number.trim().parse::<u32>().ok()?;
        ((class as usize) < self.len()).then_some((class, Reading::Number))
    }

    /// The error for a name that is no class's.
    pub(crate) fn unknown(&self, text: &str) -> Error {
        let text = text.trim();
        let number = text.strip_prefix("id:").unwrap_or(text);
        if number.trim().parse::<u64>().is_ok() {
            return Error::Usage(format!(
                "class {number} does not exist; this model has classes 0 to {}",
                self.len().saturating_sub(1)
            ));
        }
        if text.is_empty() {
            return Error::Usage("an empty label names no class".into());
        }
        let synonyms = self.0.iter().flatten().flat_map(|l| l.split(',')).map(str::trim);
        let hint = match nearest(text, synonyms) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let some: Vec<_> = (0..self.len().min(8) as u32).map(|class| self.name(class)).collect();
                format!("its labels are {}{}", some.join(", "), if self.len() > 8 { ", ..." } else { "" })
            }
        };
        Error::Usage(format!("this model has no label `{text}`; {hint} (all of them: `vitx inspect MODEL --labels`)"))
    }
}

fn ambiguous(text: &str, classes: &[u32]) -> Error {
    let listed = |prefix: &str, and: &str| {
        let all: Vec<_> = classes.iter().take(8).map(|c| format!("{prefix}{c}")).collect();
        let (last, before) = (all.last().cloned().unwrap_or_default(), all[..all.len().saturating_sub(1)].join(", "));
        if classes.len() > all.len() {
            return format!("{before}, {last}, ... ({} in all)", classes.len());
        }
        format!("{before} {and} {last}")
    };
    Error::Usage(format!("label `{text}` reads as classes {}; say {}", listed("", "and"), listed("id:", "or")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Labels {
        Labels::new(names.iter().map(|n| n.to_string()).collect())
    }

    #[test]
    fn the_nearest_reading_wins() {
        use Reading::{Name, Number};
        let stars = of(&["1", "2", "3", "4", "5"]);
        let animals = of(&["T-shirt", "t-shirt", "maillot", "maillot, tank suit", "tabby, Tabby cat", "id:0"]);
        for (labels, text, want) in [
            (&stars, "5", (4, Name)),
            (&stars, "1", (0, Name)),
            (&stars, "0", (0, Number)),
            (&stars, "id:1", (1, Number)),
            (&animals, "t-shirt", (1, Name)),
            (&animals, "T-shirt", (0, Name)),
            (&animals, "maillot", (2, Name)),
            (&animals, "TANK SUIT", (3, Name)),
            (&animals, " tabby cat ", (4, Name)),
            (&animals, "id:0", (0, Number)),
            (&animals, "5", (5, Number)),
        ] {
            assert_eq!(labels.read(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_names_no_class_or_several_is_an_error() {
        let labels = of(&["cat", "crane", "dog", "crane", "T-shirt", "t-shirt", "owl, hawk", "hawk, kite"]);
        for (text, part) in [
            ("crane", "`crane` reads as classes 1 and 3; say id:1 or id:3"),
            ("CRANE", "classes 1 and 3"),
            ("T-SHIRT", "classes 4 and 5"),
            ("hawk", "classes 6 and 7"),
            ("8", "classes 0 to 7"),
            ("id:8", "class 8 does not exist"),
            ("crame", "did you mean `crane`"),
            ("", "empty label"),
        ] {
            let error = labels.read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let same = of(&["x"; 12]).read("x").unwrap_err().to_string();
        assert!(same.contains("6, 7, ... (12 in all)"), "{same}");
    }

    #[test]
    fn a_class_without_a_name_is_called_by_its_number() {
        let labels = Labels::with_gaps(vec![None, Some("one".into())]);
        assert_eq!((labels.len(), labels.name(0), labels.name(1)), (2, "class 0".into(), "one".into()));
        assert_eq!((labels.find("0").unwrap(), labels.find("one").unwrap()), (0, 1));
        assert!(labels.find("two!").unwrap_err().to_string().contains("class 0, one"));
    }
}
