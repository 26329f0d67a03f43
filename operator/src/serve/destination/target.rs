//! What a request asks for: its path, `name:port` or `ip:port`, and its context token. Called by `destination`; pure.

use std::net::IpAddr;

use serde::Deserialize;

use crate::index::ObjectKey;

/// The port of a path without one.
const DEFAULT_PORT: u16 = 80;
/// Longest name (RFC 1035, section 2.3.4).
pub(super) const LONGEST_NAME: usize = 253;
/// Longest context token that is read; its names have at most 253 characters each.
const LONGEST_CONTEXT: usize = 1024;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `ip:port`, `[ip]:port`.
    Address(IpAddr, u16),
    /// `<service>.<namespace>.svc.<cluster domain>:port`, with the name of one pod before it.
    Name {
        service: ObjectKey,
        instance: Option<String>,
        port: u16,
    },
}

/// Why a target cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    /// Not `name:port`.
    #[error("invalid authority {0:?}: a name or an IP address, and a port from 1 to 65535")]
    Authority(String),
    /// A name of another place.
    #[error("invalid authority {name:?}: not <service>.<namespace>.svc.{domain}")]
    Foreign { name: String, domain: String },
    /// The Service is an alias for a name outside.
    #[error("invalid authority {0:?}: the Service is an ExternalName and has no endpoints")]
    External(String),
    /// There is no such Service.
    #[error("Service {0} not found")]
    NotFound(String),
}

impl Target {
    /// Reads a path.
    pub(super) fn parse(path: &str, domain: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError::Authority(path.chars().take(LONGEST_NAME).collect());
        let (host, port) = split(path).ok_or_else(wrong)?;
        if let Ok(address) = host.parse() {
            return Ok(Self::Address(address, port));
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if host.len() > LONGEST_NAME || host.split('.').any(str::is_empty) {
            return Err(wrong());
        }
        let foreign = || TargetError::Foreign {
            name: host.clone(),
            domain: domain.to_owned(),
        };
        let service = host
            .strip_suffix(domain)
            .and_then(|rest| rest.strip_suffix(".svc."))
            .ok_or_else(foreign)?;
        let labels: Vec<&str> = service.split('.').collect();
        let (instance, name, namespace) = match labels[..] {
            [name, namespace] => (None, name, namespace),
            [instance, name, namespace] => (Some(instance.to_owned()), name, namespace),
            _ => return Err(foreign()),
        };
        Ok(Self::Name {
            service: ObjectKey {
                namespace: namespace.into(),
                name: name.into(),
            },
            instance,
            port,
        })
    }
}

/// Host and port of a path.
pub(super) fn split(path: &str) -> Option<(&str, u16)> {
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
    if let Some(rest) = path.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<IpAddr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(number) => Some((host, port(number)?)),
            None => rest.is_empty().then_some((host, DEFAULT_PORT)),
        };
    }
    match path.split_once(':') {
        None => (!path.is_empty()).then_some((path, DEFAULT_PORT)),
        Some((host, number)) => (!host.is_empty()).then_some((host, port(number)?)),
    }
}

/// The pod and the node of a context token: `{"ns":"..","pod":"..","nodeName":".."}`. One that cannot be read says
/// nothing: it only makes answers better.
pub(super) fn read_context(token: &str) -> (Option<ObjectKey>, Option<String>) {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Context {
        ns: String,
        pod: String,
        node_name: String,
    }
    if token.len() > LONGEST_CONTEXT {
        return (None, None);
    }
    let context: Context = serde_json::from_str(token).unwrap_or_default();
    let is_named = !context.ns.is_empty() && !context.pod.is_empty();
    let pod = is_named.then(|| ObjectKey {
        namespace: context.ns.into(),
        name: context.pod.into(),
    });
    (pod, Some(context.node_name).filter(|node| !node.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(instance: Option<&str>, port: u16) -> Option<Target> {
        Some(Target::Name {
            service: ObjectKey {
                namespace: "shop".into(),
                name: "web".into(),
            },
            instance: instance.map(str::to_owned),
            port,
        })
    }

    #[test]
    fn a_path_is_a_name_or_an_address_with_a_port() {
        let address = |ip: &str, port| Some(Target::Address(ip.parse().unwrap(), port));
        for (path, want) in [
            ("web.shop.svc.cluster.local:8080", name(None, 8080)),
            ("web.shop.svc.cluster.local", name(None, 80)),
            ("web.shop.svc.cluster.local.:8080", name(None, 8080)),
            ("Web.Shop.SVC.cluster.local:8080", name(None, 8080)),
            (
                "web-0.web.shop.svc.cluster.local:80",
                name(Some("web-0"), 80),
            ),
            ("10.0.0.1:80", address("10.0.0.1", 80)),
            ("10.0.0.1", address("10.0.0.1", 80)),
            ("[fd00::1]:443", address("fd00::1", 443)),
            ("[fd00::1]", address("fd00::1", 80)),
            ("web:80", None),
            ("web.shop:80", None),
            ("web.shop.svc:80", None),
            ("web.shop.svc.other.local:80", None),
            ("web.shop.svcxcluster.local:80", None),
            ("a.b.c.d.svc.cluster.local:80", None),
            ("svc.cluster.local:80", None),
            (".shop.svc.cluster.local:80", None),
            ("web.shop.svc.cluster.local:0", None),
            ("web.shop.svc.cluster.local:65536", None),
            ("web.shop.svc.cluster.local:http", None),
            ("web.shop.svc.cluster.local:80:80", None),
            ("fd00::1", None),
            ("[web]:80", None),
            ("[fd00::1]80", None),
            (":80", None),
            ("", None),
        ] {
            assert_eq!(Target::parse(path, "cluster.local").ok(), want, "{path}");
        }
        let long = format!("{}.shop.svc.cluster.local", "x".repeat(LONGEST_NAME));
        assert!(Target::parse(&long, "cluster.local").is_err());
    }

    #[test]
    fn a_context_says_who_asks() {
        let pod = Some(ObjectKey {
            namespace: "shop".into(),
            name: "p".into(),
        });
        let node = Some("n".to_owned());
        let long = format!(r#"{{"ns":"shop","pod":"{}"}}"#, "p".repeat(LONGEST_CONTEXT));
        for (token, want) in [
            (
                r#"{"ns":"shop","pod":"p","nodeName":"n"}"#,
                (pod.clone(), node.clone()),
            ),
            (r#"{"ns":"shop","pod":"p","other":1}"#, (pod, None)),
            (r#"{"nodeName":"n"}"#, (None, node)),
            (r#"{"ns":"shop"}"#, (None, None)),
            ("ns:shop", (None, None)),
            ("", (None, None)),
            (&long, (None, None)),
        ] {
            assert_eq!(read_context(token), want, "{token}");
        }
    }
}
