//! Requests to the hub: redirects that never take the token to another host, waiting where the hub asks for it, and time
//! limits.

use super::cache::is_name;
use std::io::Read;
use std::time::Duration;
use ureq::http::header::{AsHeaderName, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RETRY_AFTER};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

const REDIRECTS: usize = 5;
/// A request is tried so often where the hub is busy or the connection breaks.
const TRIES: u32 = 3;
/// The longest that a hub may ask to wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a request came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The hub said no.
    Status(u16),
    /// No answer within so many seconds.
    Slow(u64),
    /// What was kept of an earlier download does not fit the file of this ETag.
    Range(String),
    /// Anything else.
    Other(String),
}

/// A file of the hub whose contents can be read.
pub struct Opened {
    pub etag: String,
    pub commit: String,
    /// Size of the whole file, where the hub says it.
    pub size: Option<u64>,
    /// The first byte that `body` gives.
    pub from: u64,
    pub body: Box<dyn Read>,
}

/// One hub.
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    seconds: u64,
}

impl Client {
    /// `endpoint` without a slash at its end; `token` goes to it and to nobody else.
    pub fn new(endpoint: String, token: Option<String>, seconds: u64) -> Self {
        let limit = Some(Duration::from_secs(seconds));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(limit)
            .timeout_recv_response(limit)
            .timeout_per_read(limit)
            .user_agent(concat!("vitx/", env!("CARGO_PKG_VERSION")));
        Client { agent: config.build().new_agent(), endpoint, token, seconds }
    }

    /// Opens a file of a model; none when there is no such file. Once its ETag is known, `have` says how many of its first
    /// bytes are not needed.
    ///
    /// # Errors
    /// Any [`Trouble`].
    pub fn open(
        &self,
        id: &str,
        revision: &str,
        name: &str,
        have: impl Fn(&str) -> u64,
    ) -> Result<Option<Opened>, Trouble> {
        let mut url = format!("{}/{id}/resolve/{}/{}", self.endpoint, escaped(revision, ""), escaped(name, "/"));
        let (mut etag, mut commit) = (None, None);
        for _ in 0..=REDIRECTS {
            let own = origin(&url).is_some() && origin(&url) == origin(&self.endpoint);
            let wanted = etag.as_deref().map_or(0, &have);
            let response = self.get(&url, own, wanted)?;
            if own {
                let tag = text(&response, "x-linked-etag").or_else(|| text(&response, ETAG));
                etag = etag.or(tag.map(|t| t.trim_start_matches("W/").trim_matches('"').to_string()));
                commit = commit.or(text(&response, "x-repo-commit"));
            }
            match response.status().as_u16() {
                404 => return Ok(None),
                416 => return Err(Trouble::Range(etag.unwrap_or_default())),
                300..=399 => {
                    let location = text(&response, LOCATION);
                    let location = location.ok_or_else(|| Trouble::Other("it redirects to nowhere".into()))?;
                    url = joined(&url, &location).ok_or_else(|| {
                        Trouble::Other("it redirects to what is no address, or from an encrypted to an open one".into())
                    })?;
                    continue;
                }
                200 | 206 => {}
                status => return Err(Trouble::Status(status)),
            }
            let named = |what: &str, value: Option<&String>| match value {
                Some(value) if is_name(value) => Ok(value.clone()),
                _ => Err(Trouble::Other(format!("it gives no {what} that can be used"))),
            };
            let (tag, commit) = (named("ETag", etag.as_ref())?, named("commit", commit.as_ref())?);
            // Contents without a redirect: only now is it known what is here already.
            if have(&tag) != wanted {
                continue;
            }
            let (from, size) = extent(&response);
            let body = Box::new(response.into_body().into_reader());
            return Ok(Some(Opened { etag: tag, commit, size, from, body }));
        }
        Err(Trouble::Other("it redirects in circles".into()))
    }

    /// One request, tried again where that may help.
    fn get(&self, url: &str, own: bool, from: u64) -> Result<Response<Body>, Trouble> {
        let mut tried = 0;
        loop {
            tried += 1;
            let mut request = self.agent.get(url);
            if let Some(token) = self.token.as_ref().filter(|_| own) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let pause = Duration::from_millis(300) * tried;
            match request.call() {
                Ok(response) => match response.status().as_u16() {
                    429 | 500..=599 if tried < TRIES => {
                        let asked = text(&response, RETRY_AFTER).and_then(|s| s.trim().parse().ok());
                        std::thread::sleep(asked.map_or(pause, Duration::from_secs).min(LONGEST_WAIT));
                    }
                    _ => return Ok(response),
                },
                Err(ureq::Error::Timeout(_)) => return Err(Trouble::Slow(self.seconds)),
                Err(ureq::Error::Io(e)) if e.kind() == std::io::ErrorKind::TimedOut => {
                    return Err(Trouble::Slow(self.seconds));
                }
                Err(ureq::Error::Io(_) | ureq::Error::ConnectionFailed) if tried < TRIES => std::thread::sleep(pause),
                Err(e) => return Err(Trouble::Other(e.to_string())),
            }
        }
    }
}

fn text(response: &Response<Body>, name: impl AsHeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_string())
}

/// First byte and size of the whole.
fn extent(response: &Response<Body>) -> (u64, Option<u64>) {
    if let Some(range) = text(response, CONTENT_RANGE).as_deref().and_then(|r| r.strip_prefix("bytes ")) {
        let (span, whole) = range.split_once('/').unwrap_or((range, "*"));
        let from = span.split('-').next().and_then(|n| n.trim().parse().ok());
        return (from.unwrap_or(0), whole.trim().parse().ok());
    }
    (0, text(response, CONTENT_LENGTH).and_then(|n| n.trim().parse().ok()))
}

/// Scheme, host and port; none for what is no address of the web.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_lowercase();
    let port = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some((scheme, uri.host()?.to_lowercase(), uri.port_u16().unwrap_or(port)))
}

/// Where a redirect leads. From an encrypted address it may not lead to an open one.
fn joined(base: &str, location: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    let joined = if location.contains("://") {
        location.to_string()
    } else if let Some(other) = location.strip_prefix("//") {
        format!("{scheme}://{other}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        let path = rest.split(['?', '#']).next()?;
        format!("{scheme}://{}/{location}", path.rsplit_once('/').map_or(host, |(folder, _)| folder))
    };
    let (from, to) = (origin(base)?, origin(&joined)?);
    (from.0 == to.0 || to.0 == "https").then_some(joined)
}

/// Percent-encodes what a path may not hold; characters of `keep` stay.
fn escaped(text: &str, keep: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || keep.as_bytes().contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_and_told_apart() {
        let base = "https://hub.example/org/m/resolve/main/a.json?x";
        for (location, want) in [
            ("/api/x", Some("https://hub.example/api/x")),
            ("b.json", Some("https://hub.example/org/m/resolve/main/b.json")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("https://cdn.example/x", Some("https://cdn.example/x")),
            ("http://hub.example/x", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(joined(base, location).as_deref(), want, "{location}");
        }
        assert_eq!(origin("https://Hub.example:443/x"), origin("https://hub.example"));
        assert_ne!(origin("http://hub.example"), origin("https://hub.example"));
        assert_ne!(origin("https://hub.example@evil.example/"), origin("https://hub.example"));
        assert_eq!(escaped("refs/pr 1", ""), "refs%2Fpr%201");
    }
}
