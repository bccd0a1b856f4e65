//! A summary as text, and as records.

use super::{Class, Count, Kind, Listed, Summary, Tally};
use crate::evaluate::questions::Explained;
use crate::render::columns::aligned;
use crate::render::number;
use crate::render::printable::in_a_line;
use crate::target::Scale;
use serde_json::{json, Value};

/// Inputs of each list that the text names; the records have all.
const LISTED: usize = 20;

impl Kind {
    /// All of them, in the order of lists.
    pub const ALL: [Kind; 3] = [Kind::LowConfidence, Kind::Constant, Kind::NotFinite];

    /// In records.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LowConfidence => "low-confidence",
            Kind::Constant => "constant",
            Kind::NotFinite => "not-finite",
        }
    }
}

impl Summary {
    /// Name and value, a line each.
    pub fn setup(&self) -> Vec<(&'static str, String)> {
        let about = &self.about;
        let target = match about.settings.explained {
            Explained::Predicted => "the class the model says",
            Explained::Label => "the class the data say",
        };
        let failed = if self.failures.is_empty() { String::new() } else { format!("; {} failed", self.failures.len()) };
        let several = match self.whole.explained {
            n if n == self.inputs => String::new(),
            n => format!(", {n} in all"),
        };
        let inputs = if self.inputs == 1 { "input" } else { "inputs" };
        let mut lines = vec![
            ("model", format!("{} ({})", about.model.0, about.model.1)),
            ("method", about.method.clone()),
            ("data", format!("{}: {} {inputs}{failed}", about.data, self.inputs)),
            ("explained", format!("{target}{several}")),
        ];
        if let Some(told) = self.right(&self.whole) {
            lines.push(("right", told));
        }
        if self.whole.map.others() > 0 {
            let (others, ((rows, columns), _)) = (self.whole.map.others(), self.whole.map.layout());
            lines.push((
                "mean maps",
                format!("of {rows} x {columns} patches; {others} maps of another grid are not in them (--size gives all one)"),
            ));
        }
        lines
    }

    /// How many inputs with labels the model is right on; none without.
    pub(super) fn right(&self, tally: &Tally) -> Option<String> {
        (tally.labelled > 0).then(|| format!("{} of {}", tally.right, tally.labelled))
    }

    /// What a tally's mean of outputs is.
    pub(super) fn unit(&self) -> &'static str {
        match self.about.scale {
            Scale::Softmax | Scale::Sigmoid => "probability",
            Scale::Value => "value",
        }
    }

    /// Headings of [`Summary::row`].
    pub(super) fn head(&self) -> Vec<String> {
        let mut head: Vec<String> = ["class", "inputs"].map(String::from).to_vec();
        head.extend(self.about.labelled.then(|| "right".to_string()));
        head.push(self.unit().into());
        head.extend(self.of_pictures().then(|| "greatest at".to_string()));
        head.extend(self.kinds());
        head
    }

    /// Kinds of tokens, those of the input first.
    fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.whole.shares.means().map(|(kind, _)| kind.to_string()).collect();
        kinds.sort_by_key(|kind| !matches!(kind.as_str(), "patches" | "words"));
        kinds
    }

    /// A class in a line.
    pub(super) fn row(&self, name: &str, tally: &Tally) -> Vec<String> {
        let none = || "-".to_string();
        let mut row = vec![name.to_string(), tally.explained.to_string()];
        row.extend(self.about.labelled.then(|| self.right(tally).unwrap_or_else(none)));
        row.push(tally.said().map_or_else(none, |said| format!("{said:.3}")));
        let peak = tally.map.peak().map_or_else(none, |(row, column)| format!("row {row}, column {column}"));
        row.extend(self.of_pictures().then_some(peak));
        let share = |kind: &String| tally.shares.of(kind).map_or_else(|| "none".into(), percent);
        row.extend(self.kinds().iter().map(share));
        row
    }

    /// The name of a class.
    pub(super) fn label(&self, class: u32) -> String {
        self.about.labels.name(class)
    }

    /// As text: how it was made, a line a class, words, and what to look at again.
    pub fn text(&self) -> String {
        let mut parts: Vec<String> = self.setup().iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let ranked = self.ranked();
        let mut rows: Vec<_> =
            ranked.iter().map(|(number, class)| self.row(&in_a_line(&self.label(*number)), &class.tally)).collect();
        rows.push(self.row("(all)", &self.whole));
        parts.push(String::new());
        parts.push(aligned(&self.head(), &rows));
        parts.push(format!("({})", self.note()));
        for (number, class) in ranked.iter().filter(|(_, class)| !class.words.is_empty()) {
            self.words(&in_a_line(&self.label(*number)), class, &mut parts);
        }
        for kind in Kind::ALL {
            let listed: Vec<_> = self.listed.iter().filter(|l| l.kind == kind).collect();
            if !listed.is_empty() {
                parts.push(String::new());
                parts.push(format!("{}: {}", self.heading(kind), listed.len()));
                let row = |l: &&Listed| {
                    let [class, figure] = self.cells(l);
                    vec![in_a_line(&l.name).into_owned(), in_a_line(&class).into_owned(), figure]
                };
                let rows: Vec<_> = listed.iter().take(LISTED).map(row).collect();
                let head = ["input", "class", self.figure(kind)].map(String::from);
                parts.push(aligned(&head, &rows));
                let more = listed.len().saturating_sub(LISTED);
                parts.extend((more > 0).then(|| format!(" and {more} more (--json has all)")));
            }
        }
        parts.join("\n")
    }

    /// What the columns are.
    pub(super) fn note(&self) -> String {
        let share = "shares: of the relevance by size, mean over inputs; none: the method gives such tokens none";
        let right = if self.about.labelled { "right: of the inputs with a label; " } else { "" };
        let what = match (self.of_pictures(), self.unit()) {
            (true, unit) => format!("{unit}: mean over inputs; greatest at: the greatest patch of the mean map"),
            (false, unit) => format!("{unit}: mean over inputs"),
        };
        format!("{right}{what}; {share}")
    }

    /// What a list is called.
    pub(super) fn heading(&self, kind: Kind) -> String {
        match kind {
            Kind::LowConfidence => format!("Probability below {}", self.about.settings.confidence),
            Kind::Constant => "Constant maps, which say nothing".into(),
            Kind::NotFinite => "Maps that are no numbers".into(),
        }
    }

    /// What a list's figures are.
    pub(super) fn figure(&self, kind: Kind) -> &'static str {
        match kind {
            Kind::LowConfidence => "probability",
            Kind::Constant => "value everywhere",
            Kind::NotFinite => "why",
        }
    }

    /// Class and figure of an input that is listed.
    pub(super) fn cells(&self, listed: &Listed) -> [String; 2] {
        let class = listed.class.map_or_else(|| "-".into(), |class| self.label(class));
        let figure = match (listed.kind, listed.figure) {
            (Kind::LowConfidence, Some(figure)) => format!("{figure:.3}"),
            (_, Some(figure)) => number(figure),
            (_, None) => listed.why.clone().unwrap_or_else(|| "-".into()),
        };
        [class, figure]
    }

    /// The words of a class, a line each.
    fn words(&self, label: &str, class: &Class, parts: &mut Vec<String>) {
        let settings = &self.about.settings;
        let (own, against) = class.words.ranked(settings.top, settings.min_count);
        for (what, words) in [("for", &own), ("against", &against)].into_iter().filter(|(_, words)| !words.is_empty()) {
            let head = ["word", "sum", "mean", "count", "texts"].map(String::from);
            let row = |(word, count): &(&str, Count)| {
                let word = in_a_line(word).into_owned();
                vec![word, value(count.sum), value(count.mean()), count.count.to_string(), count.texts.to_string()]
            };
            parts.push(String::new());
            parts.push(if self.signed { format!("{label}, words {what} it:") } else { format!("{label}, words:") });
            parts.push(aligned(&head, &words.iter().map(row).collect::<Vec<_>>()));
        }
        parts.extend(self.rare(class).map(|rare| format!("({label}: {rare})")));
    }

    /// What is to be said of rare words.
    pub(super) fn rare(&self, class: &Class) -> Option<String> {
        let least = self.about.settings.min_count;
        let (rare, all) = (class.words.rarer(least), class.words.len());
        (rare > 0).then(|| {
            format!("{rare} of {all} different words occur less than {least} times and are left out: --min-count")
        })
    }

    /// A record a class, a record an input that is listed, and one of the whole.
    pub fn records(&self) -> Vec<Value> {
        let class = |(number, class): (u32, &Class)| {
            let mut record = json!({
                "status": "ok", "kind": "class", "class": number, "label": self.label(number), "method": self.about.method,
            });
            self.tallied(&mut record, &class.tally);
            if !class.words.is_empty() {
                let settings = &self.about.settings;
                let (own, against) = class.words.ranked(settings.top, settings.min_count);
                let word = |(word, count): &(&str, Count)| {
                    let Count { count: times, texts, sum } = count;
                    json!({"word": word, "sum": sum, "mean": count.mean(), "count": times, "texts": texts})
                };
                let list = |words: &[(&str, Count)]| words.iter().map(word).collect::<Vec<_>>();
                let rare = class.words.rarer(settings.min_count);
                let all = class.words.len();
                record["words"] = json!({"for": list(&own), "against": list(&against), "different": all, "rare": rare});
            }
            record
        };
        let listed = |l: &Listed| {
            let label = l.class.map(|class| self.label(class));
            let mut record =
                json!({"status": "ok", "kind": l.kind.name(), "input": l.name, "class": l.class, "label": label});
            match l.kind {
                Kind::LowConfidence => record["probability"] = json!(l.figure),
                Kind::Constant => record["value"] = json!(l.figure),
                Kind::NotFinite => record["error"] = json!(l.why),
            }
            record
        };
        let (about, settings) = (&self.about, &self.about.settings);
        let mut whole = json!({
            "status": "ok", "kind": "whole", "model": {"id": about.model.0, "family": about.model.1}, "method": about.method,
            "data": about.data, "target": settings.explained.name(), "inputs": self.inputs, "failed": self.failures.len(),
            "seed": settings.seed, "version": env!("CARGO_PKG_VERSION"),
        });
        self.tallied(&mut whole, &self.whole);
        for kind in Kind::ALL {
            whole[kind.name()] = json!(self.listed.iter().filter(|l| l.kind == kind).count());
        }
        self.ranked().into_iter().map(class).chain(self.listed.iter().map(listed)).chain([whole]).collect()
    }

    /// What all tallies have.
    fn tallied(&self, record: &mut Value, tally: &Tally) {
        record["explained"] = json!(tally.explained);
        record["labelled"] = json!(tally.labelled);
        record["right"] = json!((tally.labelled > 0).then_some(tally.right));
        record[self.unit()] = json!(tally.said());
        record["shares"] = tally.shares.means().map(|(kind, share)| (kind.to_string(), json!(share))).collect();
        if let Some(values) = tally.map.mean() {
            let (grid, _) = tally.map.layout();
            let (maps, others) = (tally.map.maps(), tally.map.others());
            record["map"] = json!({"grid": [grid.0, grid.1], "maps": maps, "other_grids": others, "values": values});
        }
    }
}

/// A share in percent: 0.4 % is not 0.
pub(super) fn percent(share: f64) -> String {
    match 100.0 * share {
        percent if percent < 1.0 => format!("{percent:.2} %"),
        percent if percent < 10.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

/// Signed relevance in three digits.
pub(super) fn value(value: f64) -> String {
    let sign = if value > 0.0 { "+" } else { "" };
    format!("{sign}{}", number(value as f32))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{about, image, one, text};
    use super::*;

    fn of_texts() -> Summary {
        let mut summary = Summary::new(about(&["bad", "good"]));
        summary.input("line 1", &[0.0, 3.0]);
        summary.explanation("line 1", &one(&text(1, &[("Fine", 0.5), ("plot", -0.25)], [0.25, 0.0]), Some(true)));
        summary.input("line 2", &[0.0, 0.0]);
        summary.explanation("line 2", &one(&text(1, &[("fine", 0.25), ("odd", 0.0)], [0.25, 0.0]), Some(false)));
        summary
    }

    #[test]
    fn texts_are_told_by_their_words() {
        let mut summary = of_texts();
        summary.about.settings.confidence = 0.6;
        summary.input("\u{1b}[2J", &[0.0, 0.1]);
        let told = summary.text();
        for part in [
            "right: 1 of 2",
            " class  inputs  right   probability  words  [CLS]  [SEP] ",
            " good   2       1 of 2  0.500        62 %   38 %   none",
            "good, words for it:\n word  sum     mean    count  texts\n fine  +0.750  +0.375  2      2",
            "good, words against it:\n word  sum     mean    count  texts\n plot  -0.250  -0.250  1      1",
            "Probability below 0.6: 1\n input      class  probability\n \\x1b[2J  good   0.525",
        ] {
            let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(plain(&told).contains(&plain(part)), "{part}\n{told}");
        }
        summary.about.settings.min_count = 2;
        assert!(summary.text().contains("2 of 3 different words occur less than 2 times"), "{}", summary.text());
        assert!(!summary.text().contains("plot"));
    }

    #[test]
    fn records_hold_everything() {
        let records = of_texts().records();
        let kinds: Vec<_> = records.iter().map(|r| r["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["class", "whole"], "a probability of 0.5 is not below it");
        let words = json!([{"word": "fine", "sum": 0.75, "mean": 0.375, "count": 2, "texts": 2}]);
        assert_eq!((&records[0]["words"]["for"], &records[0]["label"]), (&words, &json!("good")));
        assert_eq!(records[0]["shares"], json!({"[CLS]": 0.375, "[SEP]": null, "words": 0.625}));
        assert_eq!((&records[1]["right"], &records[1]["labelled"]), (&json!(1), &json!(2)));

        let mut summary = Summary::new(about(&["a"]));
        for (name, values) in [("1", [1.0, 3.0]), ("2", [2.0, 2.0])] {
            summary.input(name, &[1.0]);
            summary.explanation(name, &one(&image(0, 1.0, &values), None));
        }
        summary.failure("3", "token 1 is NaN".into(), true);
        let records = summary.records();
        let map = json!({"grid": [1, 2], "maps": 2, "other_grids": 0, "values": [1.5, 2.5]});
        assert_eq!((&records[0]["map"], &records[0]["right"]), (&map, &Value::Null));
        assert_eq!(
            records[1],
            json!({"status": "ok", "kind": "constant", "input": "2", "class": 0, "label": "a", "value": 2.0})
        );
        assert_eq!((&records[2]["kind"], &records[2]["error"]), (&json!("not-finite"), &json!("token 1 is NaN")));
        assert_eq!((&records[3]["failed"], &records[3]["constant"]), (&json!(1), &json!(1)));
        assert!(summary.text().contains("row 1, column 2"), "{}", summary.text());
    }

    #[test]
    fn lists_are_cut_and_the_number_told() {
        let mut summary = Summary::new(about(&["a", "b"]));
        (0..33).for_each(|n| summary.input(&format!("input {n}"), &[0.0, 0.0]));
        summary.about.settings.confidence = 0.7;
        (0..33).for_each(|n| summary.input(&format!("input {n}"), &[0.0, 0.0]));
        let told = summary.text();
        assert!(told.contains("Probability below 0.7: 33") && told.contains("and 13 more"), "{told}");
        assert!(told.contains("input 19") && !told.contains("input 20"));
        assert_eq!(summary.records().len(), 34);
        assert_eq!([0.0042, 0.042, 0.42].map(percent), ["0.42 %", "4.2 %", "42 %"]);
    }
}
