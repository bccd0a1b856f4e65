//! Requests to the hub: redirects that never take the token to another host, waiting where the hub asks for it, and time
//! limits.

use super::cache::is_name;
use super::proxy::Proxies;
use super::settings::Settings;
use super::wait::{self, PAUSE};
use super::{Download, OnDownload};
use std::io::{ErrorKind, Read};
use std::time::{Duration, SystemTime};
use ureq::http::header::{
    AsHeaderName, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RETRY_AFTER, TRANSFER_ENCODING,
};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

const REDIRECTS: usize = 5;
/// A request is tried so often where the hub is busy or the connection breaks.
const TRIES: u32 = 3;

/// Why a request came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The hub does not let this user have it (401, 403).
    Refused { status: u16, gated: bool, token: bool },
    /// The model has no such branch, tag or commit.
    Revision,
    /// A host answers something else than the file, and may have asked to wait.
    Status { host: String, status: u16, asked: Option<Duration> },
    /// The address of the contents is not, or no longer, one of this file.
    Gone { host: String, status: u16 },
    /// No answer of a host in time.
    Slow { host: String, limit: Duration },
    /// What was kept of an earlier download does not fit, or another part came than was asked for.
    Range { host: String },
    /// Anything else.
    Other { host: String, why: String },
}

/// What the hub says of a file.
pub struct Found {
    pub etag: String,
    pub commit: String,
    /// Its size, where the hub says it.
    size: Option<u64>,
    /// Where its contents are.
    url: String,
    /// The contents themselves, where the hub has sent them at once.
    here: Option<Response<Body>>,
}

impl Found {
    /// Whether so many bytes are more than all of it.
    pub fn is_shorter_than(&self, bytes: u64) -> bool {
        self.size.is_some_and(|size| size < bytes)
    }

    /// Lets go of a connection that nobody will read from for a while.
    pub fn let_go(&mut self) {
        self.here = None;
    }
}

/// Contents that can be read.
pub struct Opened {
    /// Size of the whole file, where it is known.
    pub size: Option<u64>,
    /// The first byte that `body` gives.
    pub from: u64,
    /// Whether it can be told that the body has ended from that it broke off.
    pub ends: bool,
    pub body: Box<dyn Read>,
    /// Who sends it.
    pub host: String,
}

/// One hub.
pub struct Client {
    agent: Agent,
    settings: Settings,
    proxies: Proxies,
    tell: OnDownload,
}

impl Client {
    /// The token goes to the endpoint and to nobody else; `tell` hears of every wait.
    pub fn new(settings: Settings, proxies: Proxies, tell: OnDownload) -> Self {
        let limit = Some(settings.limit);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None) // each address has its own
            .timeout_resolve(limit)
            .timeout_connect(limit)
            .timeout_send_request(limit)
            .timeout_recv_response(limit)
            .timeout_per_read(limit)
            .user_agent(concat!("vitx/", env!("CARGO_PKG_VERSION")));
        Client { agent: config.build().new_agent(), settings, proxies, tell }
    }

    /// The hub's address as it may be shown.
    pub fn shown(&self) -> String {
        nameless(&self.settings.endpoint)
    }

    /// Asks the hub for a file of a model; none when there is no such file.
    ///
    /// # Errors
    /// Any [`Trouble`].
    pub fn find(&self, id: &str, revision: &str, name: &str) -> Result<Option<Found>, Trouble> {
        let mut url =
            format!("{}/{id}/resolve/{}/{}", self.settings.endpoint, escaped(revision, ""), escaped(name, "/"));
        let (mut etag, mut commit, mut size) = (None, None, None);
        for _ in 0..=REDIRECTS {
            let response = self.get(&url, 0)?;
            let tag = text(&response, "x-linked-etag").or_else(|| text(&response, ETAG));
            etag = etag.or(tag.map(|t| t.trim_start_matches("W/").trim_matches('"').to_string()));
            commit = commit.or(text(&response, "x-repo-commit"));
            size = size.or(text(&response, "x-linked-size").and_then(|n| n.trim().parse().ok()));
            let code = text(&response, "x-error-code").unwrap_or_default();
            let here = match response.status().as_u16() {
                404 if code == "RevisionNotFound" => return Err(Trouble::Revision),
                404 => return Ok(None),
                status @ (401 | 403) => {
                    let token = self.settings.token.is_some();
                    return Err(Trouble::Refused { status, gated: code == "GatedRepo", token });
                }
                300..=399 => {
                    url = self.next(&url, &response)?;
                    if self.is_own(&url) {
                        continue;
                    }
                    None
                }
                200 | 206 => Some(response),
                status => return Err(Trouble::Status { host: place(&url), status, asked: asked(&response) }),
            };
            let named = |what: &str, value: Option<String>| match value {
                Some(value) if is_name(&value) => Ok(value),
                _ => Err(other(&self.settings.endpoint, format!("it gives no {what} that can be used"))),
            };
            let (etag, commit) = (named("ETag", etag)?, named("commit", commit)?);
            return Ok(Some(Found { etag, commit, size, url, here }));
        }
        Err(other(&url, "it redirects in circles".into()))
    }

    /// Opens the contents of a file, of which the first `from` bytes are not needed.
    ///
    /// # Errors
    /// Any [`Trouble`].
    pub fn contents(&self, found: Found, from: u64) -> Result<Opened, Trouble> {
        let Found { size, mut url, here, .. } = found;
        let nothing = |host| Opened { size, from, ends: true, body: Box::new(std::io::empty()), host };
        if from > 0 && size == Some(from) {
            return Ok(nothing(place(&url)));
        }
        let mut here = here.filter(|_| from == 0);
        for _ in 0..=REDIRECTS {
            let response = here.take().map_or_else(|| self.get(&url, from), Ok)?;
            match response.status().as_u16() {
                200 | 206 => return opened(response, place(&url), from, size),
                300..=399 => url = self.next(&url, &response)?,
                // There is no more of it than is here already.
                416 if from > 0 => return Ok(nothing(place(&url))),
                status @ (401 | 403 | 404 | 410) => return Err(Trouble::Gone { host: place(&url), status }),
                status => return Err(Trouble::Status { host: place(&url), status, asked: asked(&response) }),
            }
        }
        Err(other(&url, "it redirects in circles".into()))
    }

    /// Why a body that was opened broke off.
    pub fn broken(&self, opened: &Opened, done: u64, e: std::io::Error) -> Trouble {
        let slow = e.kind() == ErrorKind::TimedOut;
        match ureq::Error::from(e) {
            ureq::Error::Timeout(_) => Trouble::Slow { host: opened.host.clone(), limit: self.settings.limit },
            _ if slow => Trouble::Slow { host: opened.host.clone(), limit: self.settings.limit },
            _ => ended(opened, done),
        }
    }

    fn is_own(&self, url: &str) -> bool {
        origin(url).is_some() && origin(url) == origin(&self.settings.endpoint)
    }

    /// Where a redirect leads.
    fn next(&self, url: &str, response: &Response<Body>) -> Result<String, Trouble> {
        let location = text(response, LOCATION).filter(|to| !to.trim().is_empty());
        let location = location.ok_or_else(|| other(url, "it redirects to nowhere".into()))?;
        joined(url, location.trim())
            .ok_or_else(|| other(url, "it redirects to what is no address, or from an encrypted to an open one".into()))
    }

    /// One request, tried again where that may help.
    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Trouble> {
        let proxy = self.proxies.of(url);
        let host = place(url);
        let by = proxy.map(|p| format!(", asked through the proxy {}:{}", p.host(), p.port())).unwrap_or_default();
        let slow = || Trouble::Slow { host: format!("{host}{by}"), limit: self.settings.limit };
        let mut tried = 0;
        loop {
            tried += 1;
            let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
            if let Some(token) = self.settings.token.as_ref().filter(|_| self.is_own(url)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            match request.config().proxy(proxy.cloned()).build().call() {
                Ok(response) => match response.status().as_u16() {
                    status @ (429 | 500..=599) if tried < TRIES => {
                        let (wait, said) = wait::wait(status, asked(&response), tried, &host);
                        drop(response);
                        (self.tell)(Download::Waits(&said));
                        std::thread::sleep(wait);
                    }
                    _ => return Ok(response),
                },
                Err(ureq::Error::Timeout(_)) => return Err(slow()),
                Err(ureq::Error::Io(e)) if e.kind() == ErrorKind::TimedOut => return Err(slow()),
                Err(ureq::Error::Io(_) | ureq::Error::ConnectionFailed) if tried < TRIES => {
                    std::thread::sleep(PAUSE * tried);
                }
                Err(e) => return Err(other(url, format!("{e}{by}"))),
            }
        }
    }
}

/// Contents, once it is sure which.
fn opened(response: Response<Body>, host: String, from: u64, said: Option<u64>) -> Result<Opened, Trouble> {
    let other = |why| Err(Trouble::Other { host: host.clone(), why });
    if let Some(packed) = text(&response, CONTENT_ENCODING).filter(|e| !e.eq_ignore_ascii_case("identity")) {
        return other(format!("it sends the file packed ({packed}), which was not asked for"));
    }
    let (start, total) = match extent(&response) {
        // All of it is as good as the rest.
        Some((start, total)) if start == 0 || start == from => (start, total),
        _ => return Err(Trouble::Range { host }),
    };
    match (said, total) {
        (Some(said), Some(total)) if said != total => {
            return other(format!("it has {total} bytes where the hub says that the file has {said} bytes"));
        }
        _ => {}
    }
    let chunked = text(&response, TRANSFER_ENCODING).is_some_and(|t| t.to_lowercase().contains("chunked"));
    let (size, ends) = (said.or(total), chunked || total.is_some());
    Ok(Opened { size, from: start, ends, body: Box::new(response.into_body().into_reader()), host })
}

/// A body that is shorter than the file.
pub fn ended(opened: &Opened, done: u64) -> Trouble {
    let of = opened.size.map(|size| format!(" of {size}")).unwrap_or_default();
    Trouble::Other { host: opened.host.clone(), why: format!("it broke off after {done}{of} bytes") }
}

fn other(url: &str, why: String) -> Trouble {
    Trouble::Other { host: place(url), why }
}

fn asked(response: &Response<Body>) -> Option<Duration> {
    wait::asked(&text(response, RETRY_AFTER)?, SystemTime::now())
}

/// An address without the user and password that it may hold.
fn nameless(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    format!("{scheme}://{}{path}", host.rsplit('@').next().unwrap_or_default())
}

/// Scheme, host and port as they are written.
fn place(url: &str) -> String {
    let shown = nameless(url);
    let host = shown.find("://").map_or(0, |at| at + 3);
    let end = shown[host..].find(['/', '?', '#']).map_or(shown.len(), |at| host + at);
    shown[..end].to_string()
}

fn text(response: &Response<Body>, name: impl AsHeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_string())
}

/// First byte and size of the whole; none where it is said of a part which one it is not.
fn extent(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    if response.status().as_u16() == 206 {
        let range = text(response, CONTENT_RANGE)?;
        let (span, whole) = range.strip_prefix("bytes ")?.split_once('/')?;
        return Some((span.split('-').next()?.trim().parse().ok()?, whole.trim().parse().ok()));
    }
    Some((0, text(response, CONTENT_LENGTH).and_then(|n| n.trim().parse().ok())))
}

/// Scheme, host and port; none for what is no address of the web.
pub fn origin(url: &str) -> Option<(String, String, u16)> {
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
        assert_eq!(nameless("https://name:secret@hub.example/hf"), "https://hub.example/hf");
        assert_eq!(place("https://name:secret@hub.example:8443/x?y"), "https://hub.example:8443");
    }
}
