//! Tables for papers and READMEs: LaTeX (`booktabs`) and Markdown, the best figure of each column in bold. Whatever a name holds, it is
//! text there and no command.

use super::contract::Direction;
use crate::render::printable::in_a_line;

/// What marks a figure that is not better than the random control.
pub const DAGGER: char = '†';

/// A table with what belongs to it.
pub struct Table {
    /// One each.
    pub columns: Vec<Column>,
    /// Each of as many cells as there are columns.
    pub rows: Vec<Row>,
    /// What stands below it: how its figures are to be read.
    pub notes: Vec<String>,
    /// How it was made, a line each: comments of LaTeX, a list behind the table of Markdown.
    pub about: Vec<String>,
}

/// What stands above a column.
pub struct Column {
    /// Its name.
    pub name: String,
    /// Of figures of a metric: which end is better. None is best where there is no better end.
    pub better: Option<Direction>,
}

impl Column {
    /// Without a better end.
    pub fn plain(name: &str) -> Self {
        Column { name: name.into(), better: None }
    }
}

/// A row of cells.
pub struct Row {
    /// In the order of the columns.
    pub cells: Vec<Cell>,
    /// Stands apart, and is never the best.
    pub control: bool,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// As it is typed: a method.
    Name(String),
    /// Text, or nothing.
    Words(String),
    /// A figure.
    Figure(Number),
    /// Two ends with their signs.
    Interval([f64; 2], usize),
}

/// A figure with what is said beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    /// The figure.
    pub value: f64,
    /// Digits behind the point.
    pub digits: usize,
    /// Its confidence interval.
    pub interval: Option<[f64; 2]>,
    /// Not better than the random control.
    pub weak: bool,
    /// Whether it may be the best of its column.
    pub rival: bool,
}

impl Number {
    fn written(&self) -> String {
        format!("{:.*}", self.digits, self.value)
    }
}

/// What made a table, for [`Table::about`].
pub fn made_by(command: &str) -> impl Iterator<Item = String> {
    std::iter::once(format!("vitx {}, {command}", env!("CARGO_PKG_VERSION")))
}

/// The best of some figures; none of none that is a number.
pub fn best(figures: impl Iterator<Item = f64>, better: Direction) -> Option<f64> {
    figures.filter(|v| v.is_finite()).reduce(|best, v| if better.prefers(v, best) { v } else { best })
}

/// How a language writes cells.
struct Language {
    name: fn(&str) -> String,
    words: fn(&str) -> String,
    /// A number, whether it is weak and whether it is the best.
    number: fn(&str, bool, bool) -> String,
    interval: fn(&str, &str) -> String,
}

const LATEX: Language = Language {
    name: latex_words,
    words: latex_words,
    number: |written, weak, best| {
        let bold = if best { format!("\\mathbf{{{written}}}") } else { written.into() };
        format!("${bold}{}$", if weak { "^{\\dagger}" } else { "" })
    },
    interval: |low, high| format!("{{\\scriptsize$[{low}, {high}]$}}"),
};

const MARKDOWN: Language = Language {
    name: markdown_code,
    words: markdown_words,
    number: |written, weak, best| {
        let bold = if best { format!("**{written}**") } else { written.into() };
        format!("{bold}{}", if weak { DAGGER.to_string() } else { String::new() })
    },
    interval: |low, high| format!("[{low}, {high}]"),
};

impl Table {
    /// A `tabular` to paste or `\input`.
    pub fn latex(&self) -> String {
        let comments = self.about.iter().map(String::as_str).chain(["needs \\usepackage{booktabs}"]);
        let comments: String = comments.map(|line| format!("% {}\n", in_a_line(line))).collect();
        let kinds: String = (0..self.columns.len()).map(|c| if self.of_figures(c) { 'r' } else { 'l' }).collect();
        let head = |column: &Column| {
            let name = latex_words(&column.name);
            match column.better {
                Some(Direction::Higher) => format!("{name} $\\uparrow$"),
                Some(Direction::Lower) => format!("{name} $\\downarrow$"),
                None => name,
            }
        };
        let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
        let head = line(self.columns.iter().map(head).collect());
        let mut body = String::new();
        for (row, above) in self.rows.iter().zip(std::iter::once(None).chain(self.rows.iter().map(Some))) {
            if row.control && above.is_some_and(|above| !above.control) {
                body.push_str("\\midrule\n");
            }
            body.push_str(&line(self.cells(row, &LATEX)));
        }
        let across = self.columns.len();
        let note = |note: &String| {
            let text = latex_words(note).replace(DAGGER, "$^{\\dagger}$");
            format!("\\multicolumn{{{across}}}{{l}}{{\\footnotesize {text}}} \\\\\n")
        };
        let notes: String = self.notes.iter().map(note).collect();
        format!(
            "{comments}\\begin{{tabular}}{{{kinds}}}\n\\toprule\n{head}\\midrule\n{body}\\bottomrule\n{notes}\\end{{tabular}}\n"
        )
    }

    /// A table of GitHub's Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let head = |column: &Column| {
            let arrow = column.better.map_or(String::new(), |better| format!(" {}", better.arrow()));
            format!("{}{arrow}", markdown_words(&column.name))
        };
        let head = line(self.columns.iter().map(head).collect());
        let kind = |c: usize| if self.of_figures(c) { "---:" } else { "---" }.to_string();
        let kinds = line((0..self.columns.len()).map(kind).collect());
        let body: String = self.rows.iter().map(|row| line(self.cells(row, &MARKDOWN))).collect();
        let notes: Vec<String> = self.notes.iter().map(|note| markdown_words(note)).collect();
        let about: String = self.about.iter().map(|line| format!("- {}\n", markdown_words(line))).collect();
        format!("{head}{kinds}{body}\n{}\n\n{about}", notes.join(" "))
    }

    fn cells(&self, row: &Row, language: &Language) -> Vec<String> {
        let cell = |(c, cell): (usize, &Cell)| match cell {
            Cell::Name(name) => (language.name)(name),
            Cell::Words(words) => (language.words)(words),
            Cell::Interval([low, high], digits) => {
                (language.interval)(&format!("{low:+.digits$}"), &format!("{high:+.digits$}"))
            }
            Cell::Figure(number) => {
                let written = number.written();
                let best = number.rival && !row.control && self.best(c).is_some_and(|best| best == written);
                let figure = (language.number)(&written, number.weak, best);
                let digits = number.digits;
                let interval = number
                    .interval
                    .map(|[low, high]| (language.interval)(&format!("{low:.digits$}"), &format!("{high:.digits$}")));
                std::iter::once(figure).chain(interval).collect::<Vec<_>>().join(" ")
            }
        };
        row.cells.iter().enumerate().map(cell).collect()
    }

    /// The best figure of a column as it is written: those that are written the same are all the best.
    fn best(&self, column: usize) -> Option<String> {
        let better = self.columns.get(column)?.better?;
        let of = |row: &Row| match row.cells.get(column) {
            Some(Cell::Figure(number)) if number.rival => Some((number.value, number.digits)),
            _ => None,
        };
        let figures: Vec<(f64, usize)> = self.rows.iter().filter(|row| !row.control).filter_map(of).collect();
        let digits = figures.first()?.1;
        let best = best(figures.into_iter().map(|(value, _)| value), better)?;
        Some(format!("{best:.digits$}"))
    }

    /// Whether a column holds figures, which stand at its right.
    fn of_figures(&self, column: usize) -> bool {
        self.rows.iter().any(|row| matches!(row.cells.get(column), Some(Cell::Figure(_) | Cell::Interval(..))))
    }
}

/// Text that LaTeX sets as it stands.
fn latex_words(text: &str) -> String {
    let mut out = String::new();
    for c in in_a_line(text).chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            '"' => out.push_str("\\char34{}"), // some languages make it a command
            '_' | '%' | '&' | '#' | '$' | '{' | '}' => out.extend(['\\', c]),
            // In front of a row they belong to the end of the row above it, as its space or its star.
            '[' | ']' | '*' => out.extend(['{', c, '}']),
            c => out.push(c),
        }
    }
    out
}

/// Text that Markdown shows as it stands, within a cell too.
fn markdown_words(text: &str) -> String {
    let mut out = String::new();
    for c in in_a_line(text).chars() {
        if "\\`*_[]<>|~&#$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Text in the letters of code, within a cell.
fn markdown_code(text: &str) -> String {
    let text = in_a_line(text).replace('|', "\\|");
    if text.contains('`') {
        return markdown_words(&text.replace("\\|", "|")); // no fence is sure to be longer
    }
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a_b%&#$x{~^\\}|<i>[`*\n";

    fn number(value: f64, weak: bool) -> Cell {
        Cell::Figure(Number { value, digits: 3, interval: Some([value - 0.1, value + 0.1]), weak, rival: true })
    }

    fn table() -> Table {
        let row = |name: Cell, up: Cell, down: Cell, control| Row { cells: vec![name, up, down], control };
        let name = |name: &str| Cell::Name(name.into());
        Table {
            columns: vec![
                Column::plain("method"),
                Column { name: "srg".into(), better: Some(Direction::Higher) },
                Column { name: "deletion:value=logit".into(), better: Some(Direction::Lower) },
            ],
            rows: vec![
                row(name("gae"), number(0.5, false), number(0.25, false), false),
                row(name(HOSTILE), number(0.4999, true), number(-0.125, false), false),
                row(name("flow"), Cell::Words("-".into()), number(f64::NAN, false), false),
                row(Cell::Words("(random)".into()), number(0.9, false), number(-0.9, false), true),
            ],
            notes: vec!["Bold: the best; 95 % intervals.".into(), "†: not better than random.".into()],
            about: vec!["data: x_y%\n\\input{z}".into()],
        }
    }

    #[test]
    fn latex_has_the_best_in_bold_and_no_name_is_a_command() {
        let tex = table().latex();
        for part in [
            "% data: x_y%\\n\\input{z}\n% needs \\usepackage{booktabs}\n\\begin{tabular}{lrr}\n\\toprule\n",
            "method & srg $\\uparrow$ & deletion:value=logit $\\downarrow$ \\\\\n\\midrule\n",
            "gae & $\\mathbf{0.500}$ {\\scriptsize$[0.400, 0.600]$} & $0.250$ {",
            "a\\_b\\%\\&\\#\\$x\\{\\textasciitilde{}\\textasciicircum{}\\textbackslash{}\\}\\textbar{}\\textless{}i\\textgreater{}{[}`{*}\\textbackslash{}n & ",
            "$\\mathbf{0.500}^{\\dagger}$",
            "$\\mathbf{-0.125}$",
            "\\midrule\n(random) & $0.900$",
            "\\bottomrule\n\\multicolumn{3}{l}{\\footnotesize Bold: the best; 95 \\% intervals.} \\\\\n",
            "\\footnotesize $^{\\dagger}$: not better than random.} \\\\\n\\end{tabular}\n",
        ] {
            assert!(tex.contains(part), "{part} is missing from\n{tex}");
        }
        assert_eq!(tex.matches("\\mathbf").count(), 3);
        balanced(&tex);
    }

    /// Braces that are no text close, `$` too, and every row has as many cells.
    fn balanced(tex: &str) {
        let rows = tex.lines().filter(|l| !l.starts_with('%')).map(|l| l.replace("\\\\", ""));
        for row in rows {
            let (mut depth, mut math, mut cells, mut letters) = (0, false, 1, row.chars());
            while let Some(c) = letters.next() {
                match c {
                    '\\' => drop(letters.next()),
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    '$' => math = !math,
                    '&' => cells += 1,
                    '%' | '#' | '~' => panic!("{c} in {row}"),
                    '_' | '^' => assert!(math, "{row}"),
                    _ => {}
                }
                assert!(depth >= 0, "{row}");
            }
            assert!(depth == 0 && !math && (cells == 3 || row.starts_with('\\')), "{row}");
        }
    }

    #[test]
    fn markdown_has_the_same() {
        let text = table().markdown();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| method | srg ↑ | deletion:value=logit ↓ |");
        assert_eq!(lines[1], "| --- | ---: | ---: |");
        assert_eq!(lines[2], "| `gae` | **0.500** [0.400, 0.600] | 0.250 [0.150, 0.350] |");
        assert!(
            lines[3].starts_with("| a\\_b%\\&\\#\\$x{\\~^\\\\}\\|\\<i\\>\\[\\`\\*\\\\n | **0.500**† ["),
            "{}",
            lines[3]
        );
        assert_eq!(lines[5], "| (random) | 0.900 [0.800, 1.000] | -0.900 [-1.000, -0.800] |");
        assert_eq!(lines[7], "Bold: the best; 95 % intervals. †: not better than random.");
        assert_eq!(lines[9], "- data: x\\_y%\\\\n\\\\input{z}");
        assert_eq!((markdown_code("a|b"), markdown_code("`")), ("`a\\|b`".into(), "\\`".into()));
    }
}
