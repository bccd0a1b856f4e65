//! Texts, labels and file names as a terminal may show them: nothing in them can move the cursor, set a colour or title, or
//! turn the direction of what follows.

use std::borrow::Cow;
use std::fmt::Write;

/// Control characters (C0, DEL, C1) and those that override the direction of text.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// Text of several lines: escapes control characters, but not line ends and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    let line_end = |rest: &str| rest.starts_with(['\n', '\t']) || rest.starts_with("\r\n");
    escaped(text, |c, rest| is_control(c) && !line_end(rest), by_value)
}

/// A name within a line: escapes every control character, line ends and tabs too.
pub fn in_a_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c, _| is_control(c), by_value)
}

/// JSON as a terminal may show it: what serde leaves as it stands in strings (DEL, C1, directions) becomes `\uXXXX`, which reads as the
/// same string.
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |c, _| is_control(c) && !c.is_ascii_whitespace(), |out, c| write!(out, "\\u{:04x}", u32::from(c)))
}

fn by_value(out: &mut String, c: char) -> std::fmt::Result {
    match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    }
}

/// Replaces the characters that `unfit` says of (it sees the text from the character on as well).
fn escaped(
    text: &str,
    unfit: impl Fn(char, &str) -> bool,
    escape: impl Fn(&mut String, char) -> std::fmt::Result,
) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for (at, c) in text.char_indices() {
        if unfit(c, &text[at..]) {
            let _ = escape(&mut out, c); // writing to a String cannot fail
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        for (text, line, lines) in [
            ("caf\u{e9} \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{1f469}\u{200d}\u{1f52c}", None, None),
            ("\x1b[31mred\x1b]0;t\x07", Some("\\x1b[31mred\\x1b]0;t\\x07"), Some("\\x1b[31mred\\x1b]0;t\\x07")),
            ("a\u{9b}2J\x7f", Some("a\\u{9b}2J\\x7f"), Some("a\\u{9b}2J\\x7f")),
            ("x\u{202e}gpj.exe\u{2066}", Some("x\\u{202e}gpj.exe\\u{2066}"), Some("x\\u{202e}gpj.exe\\u{2066}")),
            ("a\nb\tc\r\nd\re", Some("a\\nb\\tc\\r\\nd\\re"), Some("a\nb\tc\r\nd\\re")),
        ] {
            assert_eq!(in_a_line(text), line.unwrap_or(text));
            assert_eq!(printable(text), lines.unwrap_or(text));
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"a\u{9b}": ["\x1b\x7f\u{202e}\n\u{e9}"]});
        let (line, pretty) = (value.to_string(), format!("{value:#}"));
        for text in [line, pretty] {
            let shown = json(&text);
            assert!(!shown.chars().any(|c| is_control(c) && c != '\n'), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
