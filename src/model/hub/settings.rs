//! What the environment says of the hub, as users of `huggingface_hub` know it.

use super::cache;
use super::client::origin;
use crate::error::{Error, Result};
use std::time::Duration;

/// Where the hub is, who asks, and how long an answer may take.
pub struct Settings {
    /// Without a slash at its end.
    pub endpoint: String,
    pub token: Option<String>,
    /// How long a connection, the beginning of an answer, and each next piece of it may take.
    pub limit: Duration,
}

impl Settings {
    /// Of `HF_ENDPOINT`, `HF_TOKEN` (or a login) and `HF_HUB_DOWNLOAD_TIMEOUT`.
    ///
    /// # Errors
    /// [`Error::Model`] for values that cannot be.
    pub fn read() -> Result<Self> {
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim_end_matches('/').to_string();
        if origin(&endpoint).is_none() {
            return Err(Error::Model(
                "HF_ENDPOINT is no address like https://huggingface.co; set it anew, or not at all".into(),
            ));
        }
        Ok(Settings { endpoint, token: token()?, limit: limit(set("HF_HUB_DOWNLOAD_TIMEOUT").as_deref())? })
    }
}

/// A variable that says something.
pub fn set(key: &str) -> Option<String> {
    std::env::var(key).ok().map(|v| v.trim().to_string()).filter(|v| !v.is_empty())
}

/// The variable, if any, that forbids the network.
pub fn offline() -> Option<&'static str> {
    let says = |key: &&str| set(key).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()));
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(says)
}

/// Ten seconds, where none are set.
fn limit(set: Option<&str>) -> Result<Duration> {
    let Some(text) = set else { return Ok(Duration::from_secs(10)) };
    let seconds = text.parse::<f64>().ok().filter(|s| *s > 0.0);
    let limit = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    // Beyond a year the clock of a connection may overflow.
    limit.filter(|l| !l.is_zero() && l.as_secs() < 31_536_000).ok_or_else(|| {
        Error::Model(format!(
            "HF_HUB_DOWNLOAD_TIMEOUT is {text:?}, which is no number of seconds above 0 to wait for an answer"
        ))
    })
}

/// The token: of the environment, or of `hf auth login`.
fn token() -> Result<Option<String>> {
    let kept = || {
        let file = match set("HF_TOKEN_PATH") {
            Some(path) => path.into(),
            None => cache::home().ok()?.join("token"),
        };
        std::fs::read_to_string(file).ok()
    };
    let token = set("HF_TOKEN").or_else(|| Some(kept()?.trim().to_string())).filter(|t| !t.is_empty());
    match &token {
        Some(t) if !t.bytes().all(|b| b.is_ascii_graphic()) => Err(Error::Model(
            "HF_TOKEN (or the token file of a login) holds a space, a line break or another character that no token has; set it anew".into(),
        )),
        _ => Ok(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_are_seconds_above_none() {
        for (text, want) in [(None, 10_000), (Some("3"), 3000), (Some("0.25"), 250)] {
            assert_eq!(limit(text).unwrap().as_millis(), want, "{text:?}");
        }
        for text in ["0", "-1", "soon", "nan", "inf", "1e300", "1e9", "1e-12"] {
            assert!(limit(Some(text)).unwrap_err().to_string().contains("HF_HUB_DOWNLOAD_TIMEOUT"), "{text}");
        }
    }
}
