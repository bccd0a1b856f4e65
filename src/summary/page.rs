//! A summary as a page: one file that asks for nothing outside of itself, and has no script.
//!
//! Every name and text in it goes through the template's escaping, and its policy lets no script run.

use super::tell::value;
use super::{Class, Count, Kind, Listed, Summary, Tally};
use crate::error::{Error, Result};
use crate::render::colormap::Colormap;
use crate::render::number;
use crate::render::page::{filled, source, STYLE};
use crate::render::png;
use crate::render::scale::Range;
use image::{DynamicImage, Rgb, RgbImage};
use minijinja::{context, Value};

const TEMPLATE: &str = include_str!("page.html");
const OWN: &str = include_str!("page.css");

/// Inputs of each list that the page names.
const LISTED: usize = 200;
/// Lists that are no longer are open.
const OPEN: usize = 20;
/// Pixels along the longer side of a map on the page.
const SIDE: f64 = 176.0;

impl Summary {
    /// The page.
    ///
    /// # Errors
    /// [`Error::Input`] for a map that cannot be encoded, [`Error::Fault`] where vitx itself fails.
    pub fn page(&self) -> Result<Vec<u8>> {
        let (title, version) = (format!("Summary of {}", self.about.data), env!("CARGO_PKG_VERSION"));
        let ranked = self.ranked();
        let setup: Vec<_> = self.setup().into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
        let classes = ranked.iter().map(|(number, class)| (Some(*number), self.label(*number), &class.tally));
        let all: Vec<_> = classes.chain([(None, "all classes".to_string(), &self.whole)]).collect();
        let row = |(class, name, tally): &(Option<u32>, String, &Tally)| {
            let cells = self.row(name, tally).split_off(1);
            context! { id => class.map(id_of), name, cells }
        };
        let rows: Vec<Value> = all.iter().map(row).collect();
        let map = |(class, name, tally): &(Option<u32>, String, &Tally)| self.map(*class, name, tally).transpose();
        let shown = if ranked.len() == 1 { 1 } else { all.len() }; // of one class, the map of all is its own
        let maps = all.iter().take(shown).filter_map(map).collect::<Result<Vec<_>>>()?;
        let words = ranked.iter().filter(|(_, class)| !class.words.is_empty());
        let words: Vec<Value> = words.map(|(number, class)| self.class_words(*number, class)).collect();
        let mut lists: Vec<Value> = Kind::ALL.into_iter().filter_map(|kind| self.list(kind)).collect();
        lists.extend(self.failed());
        let ramp = self.colormap().table();
        let ramp = picture(RgbImage::from_fn(256, 1, |x, _| Rgb(ramp.get(x as usize).copied().unwrap_or_default())))?;
        let (head, note) = (self.head(), self.note());
        filled(
            TEMPLATE,
            context! { title, setup, head, rows, note, maps, words, lists, version, ramp, style => STYLE, own => OWN },
        )
    }

    fn colormap(&self) -> Colormap {
        if self.signed {
            Colormap::Coolwarm
        } else {
            Colormap::Inferno
        }
    }

    /// A mean map as the page shows it; none of texts.
    fn map(&self, class: Option<u32>, name: &str, tally: &Tally) -> Result<Option<Value>> {
        let Some(mean) = tally.map.mean() else { return Ok(None) };
        let ((rows, columns), patch) = tally.map.layout();
        let ends = mean.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
        let reach = ends.0.abs().max(ends.1.abs()) as f32;
        let range = match self.signed {
            true => Range { low: -reach, high: reach },
            false => Range { low: ends.0 as f32, high: ends.1 as f32 },
        };
        let colours = self.colormap().table();
        let colour = |x: u32, y: u32| {
            let value = mean.get(y as usize * columns + x as usize).copied().unwrap_or(0.0) as f32;
            Rgb(colours.get((range.place(value, self.signed) * 255.0).round() as usize).copied().unwrap_or_default())
        };
        let src = picture(RgbImage::from_fn(columns as u32, rows as u32, colour))?;
        let seen = tally.map.picture().map(picture).transpose()?;
        let (across, down) = ((columns * patch.1) as f64, (rows * patch.0) as f64);
        let side = |pixels: f64| (SIDE * pixels / across.max(down)).round();
        let peak = tally.map.peak().map(|(row, column)| format!(", greatest at row {row}, column {column}"));
        let alt = format!("{rows} rows and {columns} columns of patches{}", peak.unwrap_or_default());
        let (maps, others) = (tally.map.maps(), tally.map.others());
        let others = if others > 0 { format!("; {others} of another grid are not in it") } else { String::new() };
        let about = format!("{maps} {}{others}", if maps == 1 { "map" } else { "maps" });
        Ok(Some(context! {
            id => class.map(id_of), name, src, picture => seen, alt, about, low => number(range.low), high => number(range.high),
            width => side(across), height => side(down),
        }))
    }

    /// The words of a class, with the length of each bar.
    fn class_words(&self, class: u32, of: &Class) -> Value {
        let settings = &self.about.settings;
        let (own, against) = of.words.ranked(settings.top, settings.min_count);
        // One length means one relevance in both lists.
        let most = own.iter().chain(&against).map(|(_, count)| count.sum.abs()).fold(f64::MIN_POSITIVE, f64::max);
        let word = |(text, count): &(&str, Count)| {
            let share = format!("{:.1}", 100.0 * count.sum.abs() / most);
            context! { text => *text, share, sum => value(count.sum), mean => value(count.mean()), count => count.count, texts => count.texts }
        };
        let captions = if self.signed { ["Words for it", "Words against it"] } else { ["Words", ""] };
        let lists = [("for", captions[0], own), ("against", captions[1], against)].into_iter();
        let lists: Vec<Value> = lists
            .filter(|(.., words)| !words.is_empty())
            .map(|(sign, caption, words)| context! { sign, caption, words => words.iter().map(word).collect::<Vec<_>>() })
            .collect();
        context! { id => id_of(class), name => self.label(class), rare => self.rare(of), lists }
    }

    /// A list of inputs; none where nothing is in it.
    fn list(&self, kind: Kind) -> Option<Value> {
        let listed: Vec<&Listed> = self.listed.iter().filter(|l| l.kind == kind).collect();
        let row = |l: &&Listed| [&[l.name.clone()][..], &self.cells(l)].concat();
        let rows = listed.iter().take(LISTED).map(row).collect();
        let head = vec!["input", "class", self.figure(kind)];
        list(&self.heading(kind), listed.len(), head, rows)
    }

    /// Inputs that failed.
    fn failed(&self) -> Option<Value> {
        let row = |(name, why): &(String, String)| vec![name.clone(), why.clone()];
        let rows = self.failures.iter().take(LISTED).map(row).collect();
        list("Not used", self.failures.len(), vec!["input", "why"], rows)
    }
}

fn list(heading: &str, number: usize, head: Vec<&'static str>, rows: Vec<Vec<String>>) -> Option<Value> {
    let (more, open) = (number.saturating_sub(rows.len()), number <= OPEN);
    (number > 0).then(|| context! { heading, number, head, rows, more, open })
}

/// Where a class is on the page.
fn id_of(class: u32) -> String {
    format!("class-{class}")
}

fn picture(picture: RgbImage) -> Result<String> {
    if picture.width() == 0 || picture.height() == 0 {
        return Err(Error::Fault("a map of no patches".into()));
    }
    Ok(source("image/png", &png(DynamicImage::ImageRgb8(picture))?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{about, image, one, text};
    use super::*;
    use crate::summary::One;

    /// Names and words that would run, each in its own way.
    const HOSTILE: [&str; 4] = [
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(2)</script>",
        "\" onmouseover=\"alert(3)",
        "</style><svg onload=alert(4)>",
    ];

    fn page(summary: &Summary) -> String {
        String::from_utf8(summary.page().unwrap()).unwrap()
    }

    #[test]
    fn nothing_that_a_name_says_runs() {
        for hostile in HOSTILE {
            let mut about = about(&[hostile, hostile]);
            (about.data, about.model.0, about.method) = (hostile.into(), hostile.into(), hostile.into());
            about.settings.confidence = 0.9;
            let mut summary = Summary::new(about);
            summary.input(hostile, &[0.0, 0.1]);
            summary.explanation(hostile, &one(&text(0, &[(hostile, 1.0), ("b", -1.0)], [0.1, 0.1]), Some(true)));
            summary.explanation(hostile, &one(&text(1, &[(hostile, 1.0), ("b", 1.0)], [0.1, 0.1]), Some(true)));
            summary.failure(hostile, hostile.into(), true);
            let page = page(&summary);
            assert!(!page.contains(hostile), "{page}");
            assert!(!page.contains("<script") && page.matches("<img").count() == 0, "{page}");
            assert_eq!(page.matches("</style>").count(), 1, "{page}");
            assert!(page.contains("default-src 'none'"));
        }
    }

    #[test]
    fn maps_have_the_colours_of_their_values_and_numbers_at_the_ends() {
        let mut summary = Summary::new(about(&["a", "b"]));
        let small = RgbImage::from_pixel(2, 1, Rgb([1, 2, 3]));
        let explanation = image(0, 9.0, &[0.25, 0.75]);
        summary.input("1", &[1.0, 0.0]);
        summary.explanation("1", &One { picture: Some(&small), ..one(&explanation, Some(true)) });
        let page = page(&summary);
        for part in
            ["<span>0.250</span>", "<span>0.750</span>", "id=\"class-0\"", "row 1, column 2", "vitx 0.", "1 of 1"]
        {
            assert!(page.contains(part), "{part}\n{page}");
        }
        // The ramp, and a map and a picture of the one class.
        let pictures: Vec<&str> = page.split("data:image/png;base64,").skip(1).collect();
        assert_eq!(pictures.len(), 3);
        let encoded = pictures[1].split('"').next().unwrap();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).unwrap();
        let map = image::load_from_memory(&bytes).unwrap().into_rgb8();
        let table = Colormap::Inferno.table();
        assert_eq!((map.dimensions(), map.get_pixel(0, 0).0, map.get_pixel(1, 0).0), ((2, 1), table[0], table[255]));
    }

    #[test]
    fn bars_are_as_long_as_their_relevance_and_long_lists_are_cut() {
        let mut summary = Summary::new(about(&["a", "b"]));
        let words = [("good", 2.0), ("fine", 1.0), ("bad", -0.5)];
        summary.explanation("1", &one(&text(0, &words, [0.0, 0.0]), None));
        (0..201).for_each(|n| summary.failure(&format!("f{n}"), "no".into(), false));
        let page = page(&summary);
        for part in [
            "words for",
            "words against",
            "width: 100.0%",
            "width: 50.0%",
            "width: 25.0%",
            "Not used: 201",
            "and 1 more",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("Mean maps"));
    }
}
