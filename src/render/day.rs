//! The day on which a page is made.

use chrono::DateTime;
use std::time::{SystemTime, UNIX_EPOCH};

/// Today in UTC, `2026-01-31`. `SOURCE_DATE_EPOCH` (seconds since 1970) stands in for the clock, as in other tools: a page that is made
/// again is then the same page.
pub fn today() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.trim().parse().ok());
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    day(given.unwrap_or_else(clock))
}

/// The day of a second since 1970; nothing where the calendar ends.
fn day(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0).map_or_else(String::new, |time| time.format("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight_in_utc() {
        assert_eq!(
            (day(0), day(86_399), day(951_782_400)),
            ("1970-01-01".into(), "1970-01-01".into(), "2000-02-29".into())
        );
        assert_eq!(today().len(), 10);
    }
}
