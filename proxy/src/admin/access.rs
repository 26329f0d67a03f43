//! Who may use what only this pod may: connections over loopback, which is also what `kubectl port-forward` makes;
//! and of those no page of another origin in a browser that has such a forwarded port. Called by `controls`; pure.

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderName, ORIGIN};
use std::net::{IpAddr, SocketAddr};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error(
        "only for this pod: served to loopback addresses, not to {0}. Use kubectl port-forward, or ask from a \
         container of the pod"
    )]
    Peer(IpAddr),
    #[error(
        "asked for the host {0:?}: only localhost and IP addresses are answered here, so that no name of a stranger \
         leads a browser to this port"
    )]
    Host(String),
    #[error("asked by a page of another origin, {0:?}: use curl, or this port's own page")]
    Origin(String),
}

/// Judges a request by its peer and headers.
pub(super) fn check(peer: SocketAddr, headers: &HeaderMap) -> Result<(), Denied> {
    let ip = peer.ip().to_canonical();
    if !ip.is_loopback() {
        return Err(Denied::Peer(ip));
    }
    let text = |name| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    let host = text(HOST);
    if let Some(host) = host.as_deref().filter(|host| !is_local(host)) {
        return Err(Denied::Host(host.to_owned()));
    }
    if let Some(origin) = text(ORIGIN) {
        let own = origin.split_once("://").map(|(_, authority)| authority);
        if own.is_none() || own != host.as_deref() {
            return Err(Denied::Origin(origin.into_owned()));
        }
    }
    match text(FETCH_SITE).as_deref() {
        None | Some("same-origin" | "none") => Ok(()),
        Some(site) => Err(Denied::Origin(site.to_owned())),
    }
}

/// `localhost` or an IP address, with or without a port.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(peer: &str, headers: &[(&'static str, &str)]) -> Result<(), Denied> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        check(SocketAddr::new(peer.parse().unwrap(), 5), &map)
    }

    #[test]
    fn loopback_only() {
        for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(checked(peer, &[]), Ok(()), "{peer}");
        }
        for peer in ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0", "::"] {
            assert!(matches!(checked(peer, &[]), Err(Denied::Peer(_))), "{peer}");
        }
        let said = checked("10.0.0.1", &[]).unwrap_err().to_string();
        assert!(said.contains("10.0.0.1") && said.contains("kubectl port-forward"));
    }

    #[test]
    fn names_of_strangers_are_not_answered() {
        for host in [
            "localhost",
            "LOCALHOST:4191",
            "127.0.0.1:4191",
            "[::1]:4191",
            "[::1]",
            "10.0.0.7:1",
        ] {
            assert_eq!(checked("::1", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:4191",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            let denied = checked("::1", &[("host", host)]);
            assert_eq!(denied, Err(Denied::Host(host.into())));
        }
    }

    #[test]
    fn pages_of_other_origins_are_not_answered() {
        let host = ("host", "localhost:4191");
        for (header, allowed) in [
            (("origin", "http://localhost:4191"), true),
            (("origin", "http://localhost:8080"), false),
            (("origin", "http://evil.example"), false),
            (("origin", "null"), false),
            (("sec-fetch-site", "same-origin"), true),
            (("sec-fetch-site", "none"), true),
            (("sec-fetch-site", "same-site"), false),
            (("sec-fetch-site", "cross-site"), false),
        ] {
            assert_eq!(
                checked("::1", &[host, header]).is_ok(),
                allowed,
                "{header:?}"
            );
        }
        assert!(
            checked("::1", &[("origin", "http://localhost")]).is_err(),
            "without a host to compare with"
        );
    }
}
