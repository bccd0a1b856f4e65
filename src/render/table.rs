//! What contact sheets are to pictures, tables are to texts: one coloured line a method, for the terminal or as HTML.

use super::printable::in_a_line;
use super::scale::{Range, SharedRanges};
use super::tokens::{coloured, is_light, spans};
use super::{Scene, Style};
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout, TextLayout};
use std::fmt::Write;

/// A group of lines under one heading: a target, or a layer.
#[derive(Debug)]
pub struct Group {
    /// Above the lines.
    pub heading: String,
    /// Label and explanation of each line.
    pub lines: Vec<(String, Explanation)>,
    /// Scales that lines share; by default each has its own.
    pub ranges: SharedRanges,
}

fn text_of(e: &Explanation) -> Result<&TextLayout> {
    match &e.layout {
        Layout::Text(text) => Ok(text),
        Layout::Image(_) => Err(Error::Usage("tables are for texts; images get a contact sheet".into())),
    }
}

fn range_of(group: &Group, style: &Style, e: &Explanation) -> Range {
    group.ranges.of(e).unwrap_or_else(|| style.range(e))
}

/// For the terminal. Without colour: a table of numbers, one line a token and one column a method.
///
/// # Errors
/// [`Error::Usage`] for images.
pub fn ansi(groups: &[Group], style: &Style) -> Result<String> {
    let mut out = String::new();
    for group in groups {
        let _ = writeln!(out, "{}", in_a_line(&group.heading)); // writing to a String cannot fail
        if !style.colour {
            numbers(&mut out, group)?;
            continue;
        }
        let label = |(l, _): &(String, Explanation)| in_a_line(l).into_owned();
        let width = group.lines.iter().map(|l| label(l).chars().count()).max().unwrap_or(0);
        for labelled in &group.lines {
            let (label, e) = (label(labelled), &labelled.1);
            let line = coloured(style, range_of(group, style, e), e, text_of(e)?);
            let _ = writeln!(out, "  {label:width$}  {}", line.trim_end_matches('\n').replace('\n', " | "));
        }
    }
    Ok(out)
}

fn numbers(out: &mut String, group: &Group) -> Result<()> {
    let Some((_, first)) = group.lines.first() else { return Ok(()) };
    let labels: Vec<&str> = group.lines.iter().map(|(l, _)| l.as_str()).collect();
    let _ = writeln!(out, "token\t{}", labels.join("\t"));
    for (t, token) in text_of(first)?.tokens.iter().enumerate() {
        let values =
            group.lines.iter().map(|(_, e)| e.relevance.get(t).map_or_else(String::new, |r| format!("{r:+.6}")));
        let values: Vec<String> = values.collect();
        let _ = writeln!(out, "{}\t{}", in_a_line(&token.piece), values.join("\t"));
    }
    Ok(())
}

/// A page that needs nothing else: every word (or piece) on its colour, its relevance as a tooltip.
///
/// # Errors
/// [`Error::Usage`] for images.
pub fn html(title: &str, groups: &[Group], style: &Style) -> Result<String> {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let _ = write!(out, "<title>{}</title>\n{STYLE}</head><body>\n<h1>{}</h1>\n", escaped(title), escaped(title));
    for group in groups {
        let _ = writeln!(out, "<h2>{}</h2>\n<table>", escaped(&group.heading));
        for (label, e) in &group.lines {
            let _ = write!(out, "<tr><th>{}</th><td>", escaped(label));
            out.push_str(&line(e, range_of(group, style, e), style)?);
            out.push_str("</td></tr>\n");
        }
        out.push_str("</table>\n");
    }
    out.push_str("</body></html>\n");
    Ok(out)
}

/// A text with every word (or piece) on its colour, its relevance as a tooltip, as part of a page.
///
/// # Errors
/// [`Error::Usage`] for images.
pub fn line(e: &Explanation, range: Range, style: &Style) -> Result<String> {
    let (colours, text) = (style.colormap_for(e).table(), text_of(e)?);
    let mut out = String::new();
    for number in 0..text.texts.len() {
        if number > 0 {
            out.push_str("<br>");
        }
        for span in spans(e, text, number, style.units) {
            let Some(relevance) = span.relevance else {
                out.push_str(&escaped(&span.text));
                continue;
            };
            let [r, g, b] = colours[(range.place(relevance, e.signed) * 255.0).round() as usize];
            let ink = if is_light([r, g, b]) { "#000" } else { "#fff" };
            let _ = write!(
                out,
                "<span title=\"{relevance:+.6}\" style=\"background:rgb({r},{g},{b});color:{ink}\">{}</span>",
                escaped(&span.text)
            );
        }
    }
    Ok(out)
}

/// The same as a part of a page that stands by itself: what it is, and the text.
pub(super) fn fragment(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    if e.matrix {
        return Err(Error::Usage("a whole matrix has no tokens to colour; write it with --format npy".into()));
    }
    let range = scene.shared.unwrap_or_else(|| scene.style.range(e));
    let (caption, text) = (escaped(&scene.caption), line(e, range, scene.style)?);
    let style = "font-family:sans-serif;line-height:1.8;white-space:pre-wrap";
    Ok(format!("<figure style=\"margin:0;{style}\"><div dir=\"auto\">{text}</div><figcaption><small>{caption}</small></figcaption></figure>\n").into_bytes())
}

const STYLE: &str = "<style>body{font:16px/1.7 sans-serif;margin:2em;max-width:70em}h1{font-size:1.2em}h2{font-size:1em;margin-top:1.6em}\
th{text-align:left;vertical-align:top;padding-right:1.2em;white-space:nowrap;font-weight:600}td span{padding:2px 0}</style>\n";

/// Text as it may stand in a page.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::TextToken;
    use crate::target::Output;

    fn group() -> Group {
        let token = |piece: &str, start, end| TextToken {
            piece: piece.into(),
            start,
            end,
            text: 0,
            word: Some(0),
            special: false,
        };
        let layout = TextLayout {
            tokens: vec![token("a", 0, 1), token("<b", 1, 3)],
            texts: vec!["a<b".into()],
            ..Default::default()
        };
        let explanation = Explanation {
            method: "test",
            params: Default::default(),
            pixels: None,
            checks: Default::default(),
            output: Output::of(0),
            relevance: vec![0.0, 1.0],
            layout: Layout::Text(layout),
            matrix: false,
            signed: false,
        };
        Group {
            heading: "positive 0.9".into(),
            lines: vec![("gae".into(), explanation)],
            ranges: SharedRanges::default(),
        }
    }

    #[test]
    fn html_is_escaped_and_coloured() {
        let page = html("x & y", &[group()], &Style::default()).unwrap();
        assert!(page.contains("x &amp; y") && page.contains(">a&lt;b</span>") && page.contains("+1.000000"), "{page}");
    }

    #[test]
    fn without_colour_there_are_numbers() {
        let table = ansi(&[group()], &Style::default()).unwrap();
        assert_eq!(table, "positive 0.9\ntoken\tgae\na\t+0.000000\n<b\t+1.000000\n");
    }
}
