//! From the messages of Linkerd's destination API to plain values. The only file that knows what they look like.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use linkerd2_proxy_api::destination::{
    DestinationProfile, Update, WeightedAddr, protocol_hint::Protocol, tls_identity::Strategy,
    update,
};
use linkerd2_proxy_api::net::TcpAddress;

use crate::endpoints::Listed;
use crate::telemetry::Dst;

/// Most endpoints of one service that are taken; Kubernetes' own limits are below it.
const MOST_ENDPOINTS: usize = 20_000;

/// What a destination is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Profile {
    /// The name of its service, empty where it leads to none.
    pub(super) name: String,
    pub(super) is_opaque: bool,
    /// There are routes to be asked for.
    pub(super) has_routes: bool,
    /// Where it is an endpoint itself.
    pub(super) endpoint: Option<Listed>,
}

impl From<DestinationProfile> for Profile {
    fn from(profile: DestinationProfile) -> Self {
        let endpoint = profile.endpoint;
        Self {
            name: profile.fully_qualified_name,
            is_opaque: profile.opaque_protocol,
            has_routes: profile.profile_ref.is_some(),
            endpoint: endpoint.and_then(|endpoint| listed(endpoint, &HashMap::new())),
        }
    }
}

/// The endpoints of a service, message by message.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    /// Each with whether nothing is to be read into its bytes.
    all: BTreeMap<SocketAddr, (Listed, bool)>,
    /// The operator knows no such service.
    pub(super) is_unknown: bool,
}

impl Endpoints {
    /// Takes a message over; false where it says nothing.
    pub(super) fn take(&mut self, update: Update) -> bool {
        match update.update {
            None => return false,
            Some(update::Update::Add(set)) => {
                self.is_unknown = false;
                let labels = set.metric_labels;
                let added = set.addrs.into_iter();
                let added = added.filter_map(|addr| {
                    let is_opaque = is_opaque(&addr);
                    Some((listed(addr, &labels)?, is_opaque))
                });
                for (listed, is_opaque) in added {
                    if self.all.len() < MOST_ENDPOINTS || self.all.contains_key(&listed.addr) {
                        self.all.insert(listed.addr, (listed, is_opaque));
                    }
                }
            }
            Some(update::Update::Remove(set)) => {
                for addr in set.addrs.into_iter().filter_map(address) {
                    self.all.remove(&addr);
                }
            }
            Some(update::Update::NoEndpoints(none)) => {
                self.all.clear();
                self.is_unknown = !none.exists;
            }
        }
        true
    }

    /// In the order of their addresses.
    pub(super) fn listed(&self) -> Vec<Listed> {
        self.all
            .values()
            .map(|(listed, _)| listed.clone())
            .collect()
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether nothing is to be read into the bytes of any. It is decided before one is chosen, so one that is not opaque
    /// is enough for none to be.
    pub(super) fn is_opaque(&self) -> bool {
        !self.is_empty() && self.all.values().all(|(_, is_opaque)| *is_opaque)
    }
}

/// One endpoint; its own labels outweigh those of its set.
fn listed(endpoint: WeightedAddr, set: &HashMap<String, String>) -> Option<Listed> {
    let addr = address(endpoint.addr?)?;
    let labels = set.iter().chain(&endpoint.metric_labels);
    let dst = Dst::new(labels.map(|(key, value)| (key.as_str(), value.as_str())));
    let strategy = endpoint.tls_identity.and_then(|tls| tls.strategy);
    let identity = match strategy {
        Some(Strategy::DnsLikeIdentity(identity)) => Some(identity.name.into()),
        Some(Strategy::UriLikeIdentity(_)) | None => None,
    };
    Some(Listed {
        addr,
        dst,
        identity,
        share: None,
    })
}

/// Whether its pod says so of the port.
fn is_opaque(endpoint: &WeightedAddr) -> bool {
    let hint = endpoint.protocol_hint.as_ref();
    let protocol = hint.and_then(|hint| hint.protocol.as_ref());
    matches!(protocol, Some(Protocol::Opaque(_)))
}

fn address(addr: TcpAddress) -> Option<SocketAddr> {
    let ip: IpAddr = addr.ip?.try_into().ok()?;
    let port = u16::try_from(addr.port).ok()?;
    Some((ip, port).into())
}

#[cfg(test)]
mod tests {
    use linkerd2_proxy_api::destination::{
        AddrSet, NoEndpoints, ProtocolHint, TlsIdentity, WeightedAddrSet, protocol_hint,
        tls_identity::DnsLikeIdentity,
    };

    use super::*;

    fn tcp(host: u8, port: u32) -> TcpAddress {
        let ip: IpAddr = [10, 0, 0, host].into();
        TcpAddress {
            ip: Some(ip.into()),
            port,
        }
    }

    fn weighted(host: u8, labels: &[(&str, &str)]) -> WeightedAddr {
        let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        WeightedAddr {
            addr: Some(tcp(host, 80)),
            metric_labels: labels.collect(),
            ..WeightedAddr::default()
        }
    }

    fn add(addrs: Vec<WeightedAddr>) -> Update {
        let labels = [("service", "web"), ("zone", "")];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let set = WeightedAddrSet {
            addrs,
            metric_labels: labels.into(),
        };
        Update {
            update: Some(update::Update::Add(set)),
        }
    }

    fn addr(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 80).into()
    }

    #[test]
    fn endpoints_come_change_and_go() {
        let mut endpoints = Endpoints::default();
        let pods = vec![weighted(2, &[("pod", "b")]), weighted(1, &[("pod", "a")])];
        assert!(endpoints.take(add(pods)));
        let labels = |pod| Dst::new([("pod", pod), ("service", "web"), ("zone", "")]);
        let a = Listed::plain(addr(1), labels("a"));
        assert_eq!(
            endpoints.listed(),
            [a.clone(), Listed::plain(addr(2), labels("b"))]
        );
        assert!(endpoints.take(add(vec![weighted(2, &[("pod", "c"), ("zone", "z")])])));
        let other = Dst::new([("pod", "c"), ("service", "web"), ("zone", "z")]);
        assert_eq!(
            endpoints.listed(),
            [a, Listed::plain(addr(2), other.clone())]
        );
        let gone = AddrSet {
            addrs: vec![tcp(1, 80), tcp(9, 80)],
        };
        assert!(endpoints.take(Update {
            update: Some(update::Update::Remove(gone)),
        }));
        assert_eq!(endpoints.listed(), [Listed::plain(addr(2), other)]);
        for exists in [true, false] {
            let none = update::Update::NoEndpoints(NoEndpoints { exists });
            assert!(endpoints.take(Update { update: Some(none) }));
            assert!(endpoints.listed().is_empty());
            assert_eq!(endpoints.is_unknown, !exists);
        }
        assert!(!endpoints.take(Update { update: None }));
    }

    #[test]
    fn endpoints_are_opaque_where_all_of_them_are() {
        let mut endpoints = Endpoints::default();
        assert!(!endpoints.is_opaque(), "there is none");
        let pod = |host, protocol: Option<Protocol>| WeightedAddr {
            protocol_hint: protocol.map(|protocol| ProtocolHint {
                protocol: Some(protocol),
                opaque_transport: None,
            }),
            ..weighted(host, &[])
        };
        let opaque = || Some(Protocol::Opaque(protocol_hint::Opaque {}));
        let http2 = Some(Protocol::H2(protocol_hint::H2 {}));
        for (host, hint, are_opaque) in [
            (1, opaque(), true),
            (2, opaque(), true),
            (2, http2, false),
            (2, opaque(), true),
            (2, None, false),
        ] {
            assert!(endpoints.take(add(vec![pod(host, hint)])));
            assert_eq!(endpoints.is_opaque(), are_opaque);
        }
        let gone = AddrSet {
            addrs: vec![tcp(2, 80)],
        };
        let update = Some(update::Update::Remove(gone));
        assert!(endpoints.take(Update { update }) && endpoints.is_opaque());
    }

    #[test]
    fn an_endpoint_may_have_an_identity_and_must_have_an_address() {
        let name = "web.shop.serviceaccount.identity.kuma-system.cluster.local";
        let identity = DnsLikeIdentity { name: name.into() };
        let mut pod = weighted(1, &[]);
        pod.tls_identity = Some(TlsIdentity {
            server_name: None,
            strategy: Some(Strategy::DnsLikeIdentity(identity)),
        });
        let profile = DestinationProfile {
            endpoint: Some(pod),
            opaque_protocol: true,
            ..DestinationProfile::default()
        };
        let profile = Profile::from(profile);
        assert!(profile.is_opaque && profile.name.is_empty());
        let endpoint = profile.endpoint.expect("an endpoint");
        assert_eq!(
            (endpoint.addr, endpoint.identity.as_deref()),
            (addr(1), Some(name))
        );
        for wrong in [None, Some(tcp(1, 1 << 16)), Some(TcpAddress::default())] {
            let endpoint = WeightedAddr {
                addr: wrong,
                ..WeightedAddr::default()
            };
            assert_eq!(listed(endpoint, &HashMap::new()), None);
        }
    }
}
