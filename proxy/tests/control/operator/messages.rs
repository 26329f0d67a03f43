//! What a control plane says, in the words of the published crate.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use linkerd2_proxy_api::destination::{
    AddrSet, NoEndpoints, ProtocolHint, Update, WeightedAddr, WeightedAddrSet,
};
use linkerd2_proxy_api::destination::{protocol_hint, update};
use linkerd2_proxy_api::net::TcpAddress;

use super::{Labels, OPAQUE};

/// What has changed; of what is the same, nothing.
pub(super) fn changes(
    before: &BTreeMap<SocketAddr, Labels>,
    now: &BTreeMap<SocketAddr, Labels>,
) -> Vec<Update> {
    let added: BTreeMap<_, _> = now
        .iter()
        .filter(|(addr, labels)| before.get(addr) != Some(labels))
        .collect();
    let removed: Vec<_> = before
        .keys()
        .filter(|addr| !now.contains_key(addr))
        .collect();
    let mut changes = Vec::new();
    if !added.is_empty() {
        let set = WeightedAddrSet {
            addrs: added
                .into_iter()
                .map(|(addr, labels)| weighted(*addr, labels))
                .collect(),
            metric_labels: [("namespace".to_owned(), "shop".to_owned())].into(),
        };
        changes.push(update::Update::Add(set));
    }
    if !removed.is_empty() {
        let addrs = removed.into_iter().map(|addr| tcp(*addr)).collect();
        changes.push(update::Update::Remove(AddrSet { addrs }));
    }
    let update = |update| Update {
        update: Some(update),
    };
    changes.into_iter().map(update).collect()
}

pub(super) fn none(exists: bool) -> Update {
    Update {
        update: Some(update::Update::NoEndpoints(NoEndpoints { exists })),
    }
}

pub(super) fn weighted(addr: SocketAddr, labels: &Labels) -> WeightedAddr {
    let opaque = protocol_hint::Protocol::Opaque(protocol_hint::Opaque {});
    let protocol_hint = labels.contains_key(OPAQUE).then_some(ProtocolHint {
        protocol: Some(opaque),
        opaque_transport: None,
    });
    let labels = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    WeightedAddr {
        addr: Some(tcp(addr)),
        weight: 10_000,
        metric_labels: labels.collect(),
        protocol_hint,
        ..WeightedAddr::default()
    }
}

fn tcp(addr: SocketAddr) -> TcpAddress {
    let ip: IpAddr = addr.ip();
    TcpAddress {
        ip: Some(ip.into()),
        port: addr.port().into(),
    }
}
