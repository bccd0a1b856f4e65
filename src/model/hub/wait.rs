//! How long to wait until a hub that is busy is asked again.

use std::time::{Duration, SystemTime};

/// The longest that a hub may make this program wait between two requests.
const LONGEST: Duration = Duration::from_secs(60);
/// Where it does not say how long: once after the first request, twice after the second.
pub const PAUSE: Duration = Duration::from_millis(300);

/// What a `Retry-After` asks for: seconds, or a date (RFC 9110, section 10.2.3); none for what is neither.
pub fn asked(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = chrono::DateTime::parse_from_rfc2822(value).ok()?.timestamp();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    // Up to the second that is meant, and not short of it.
    Some(Duration::from_secs(u64::try_from(date).unwrap_or(0).saturating_sub(now)))
}

/// How long it is waited, and what is said of it.
pub fn wait(status: u16, asked: Option<Duration>, tried: u32, host: &str) -> (Duration, String) {
    let wait = asked.unwrap_or(PAUSE * tried).min(LONGEST);
    let says = format!("{host} answers {status}");
    let said = match asked {
        Some(asked) if asked > LONGEST => {
            format!("{says} and asks to wait {}; it is asked again after {}", seconds(asked), seconds(LONGEST))
        }
        Some(asked) if !asked.is_zero() => format!("{says} and asks to wait {}; waiting", seconds(asked)),
        _ => format!("{says}; it is asked again"),
    };
    (wait, said)
}

/// `1 second`, `60 seconds`.
pub fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        1.0 => "1 second".into(),
        s => format!("{s} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_400);
        for (value, want) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:39 GMT", Some(2)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(3_155_760_000)),
            ("Thu, 01 Jan 1925 00:00:00 GMT", Some(0)),
            ("-5", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(asked(value, now).map(|d| d.as_secs()), want, "{value}");
        }
    }

    #[test]
    fn no_wait_is_longer_than_a_minute() {
        for (asked, tried, want) in [(None, 2, 600), (Some(0), 1, 0), (Some(7), 1, 7000), (Some(u64::MAX), 1, 60_000)] {
            let (got, said) = wait(429, asked.map(Duration::from_secs), tried, "hub");
            assert_eq!(got.as_millis(), want);
            assert!(said.contains("hub answers 429"));
        }
    }
}
