//! Which proxy a request goes through, as curl and Python know it: `HTTPS_PROXY` for encrypted addresses, `HTTP_PROXY` for
//! others, `ALL_PROXY` where neither is set, none for the hosts of `NO_PROXY`; small letters count before capitals.

use super::client::origin;
use super::settings::set;
use crate::error::{Error, Result};
use std::net::IpAddr;
use ureq::Proxy;

/// The proxies of the environment.
pub struct Proxies {
    open: Option<Proxy>,
    encrypted: Option<Proxy>,
    spared: Vec<String>,
}

impl Proxies {
    /// As the environment has them.
    ///
    /// # Errors
    /// [`Error::Model`] for a proxy that is no address. It may hold a password and is not shown.
    pub fn read() -> Result<Self> {
        let any = named("ALL_PROXY")?;
        let spared = either("NO_PROXY").map(|(_, list)| list).unwrap_or_default().to_lowercase();
        let spared = spared.split([',', ' ']).filter(|entry| !entry.is_empty()).map(String::from).collect();
        let (open, encrypted) = (named("HTTP_PROXY")?, named("HTTPS_PROXY")?);
        Ok(Proxies { open: open.or_else(|| any.clone()), encrypted: encrypted.or(any), spared })
    }

    /// The one for an address.
    pub fn of(&self, url: &str) -> Option<&Proxy> {
        let (scheme, host, port) = origin(url)?;
        let proxy = if scheme == "https" { &self.encrypted } else { &self.open };
        proxy.as_ref().filter(|_| !self.spared.iter().any(|entry| spares(entry, &host, port)))
    }
}

/// A variable and what it says, small letters first.
fn either(key: &str) -> Option<(String, String)> {
    [key.to_lowercase(), key.to_string()].into_iter().find_map(|key| set(&key).map(|value| (key, value)))
}

fn named(key: &str) -> Result<Option<Proxy>> {
    let Some((key, value)) = either(key) else { return Ok(None) };
    let wrong = |_| {
        Error::Model(format!(
            "{key} is not the address of a proxy, like http://proxy.example:3128; set it anew, or not at all"
        ))
    };
    Proxy::new(&value).map(Some).map_err(wrong)
}

/// Whether an entry of `NO_PROXY` means a host: `*`, a name with all below it, an address, a block of addresses; perhaps of one port.
fn spares(entry: &str, host: &str, port: u16) -> bool {
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_string();
    let host = bare(host);
    if let (Ok(address), Some((block, bits))) = (host.parse::<IpAddr>(), entry.split_once('/')) {
        return block.parse().is_ok_and(|block| bits.parse().is_ok_and(|bits| holds(block, bits, address)));
    }
    let (name, only) = match entry.rsplit_once(':') {
        // More colons are an address of version 6 without a port.
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse::<u16>().ok()),
        _ => (entry, None),
    };
    if only.is_some_and(|only| only != port) {
        return false;
    }
    let name = bare(name);
    let name = name.trim_start_matches('*').trim_start_matches('.');
    entry == "*"
        || !name.is_empty() && (host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
}

/// Whether the first bits of two addresses are the same.
fn holds(block: IpAddr, bits: u32, address: IpAddr) -> bool {
    let (block, address, whole) = match (block, address) {
        (IpAddr::V4(b), IpAddr::V4(a)) => (b.to_bits().into(), a.to_bits().into(), 32),
        (IpAddr::V6(b), IpAddr::V6(a)) => (b.to_bits(), a.to_bits(), 128),
        _ => return false,
    };
    bits <= whole && (bits == 0 || (block ^ address) >> (whole - bits) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_spared_as_everywhere() {
        for (entry, host, want) in [
            ("*", "hub.example", true),
            ("hub.example", "hub.example", true),
            ("example", "hub.example", true),
            (".example", "hub.example", true),
            ("*.example", "hub.example", true),
            ("ample", "hub.example", false),
            ("hub.example:443", "hub.example", true),
            ("hub.example:80", "hub.example", false),
            (".", "hub.example", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("10.0.0.0/8", "hub.example", false),
            ("::1", "[::1]", true),
            ("[::1]:443", "[::1]", true),
            ("[::1]:80", "[::1]", false),
            ("fe80::/10", "[fe80::7]", true),
        ] {
            assert_eq!(spares(entry, host, 443), want, "{entry} {host}");
        }
    }
}
