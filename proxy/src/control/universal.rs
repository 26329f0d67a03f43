//! What a proxy outside Kubernetes is to do: the listeners of its own Dataplane, and the endpoints that the other
//! Dataplanes offer it. Made from documents by `files`; plain values for everyone else.

use super::ControlError;
use super::files::listed;
use super::hosts::Hosts;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use weir_crds::dataplane::{self, DataplaneSpec, Networking};
use weir_crds::merge::MetricsOverride;
use weir_crds::names::SERVICE_TAG;
use weir_crds::universal::Entry;

/// A proxy outside Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Universal {
    pub name: String,
    pub mesh: String,
    /// `networking.address`: where the metrics endpoint listens.
    pub address: IpAddr,
    /// The DNS name of its certificate in a Mesh with mutual TLS: that of its first inbound's service.
    pub identity: String,
    pub inbounds: Vec<Inbound>,
    pub outbounds: Vec<Outbound>,
}

impl Universal {
    /// Whether `other` has the same listeners for the same purposes, wherever the endpoints are.
    pub(super) fn listens_as(&self, other: &Self) -> bool {
        let outbounds = |of: &Self| -> Vec<_> {
            let listeners = of.outbounds.iter().map(|o| (o.listen, o.service.clone()));
            listeners.collect()
        };
        self.address == other.address
            && self.inbounds == other.inbounds
            && outbounds(self) == outbounds(other)
    }
}

/// Connections to `listen` go to the application at `dial`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    pub listen: SocketAddr,
    pub dial: SocketAddr,
    /// Among them `kuma.io/service`.
    pub tags: BTreeMap<String, String>,
}

/// Connections of the application to `listen` go to one of the service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    pub listen: SocketAddr,
    /// The `kuma.io/service` tag.
    pub service: String,
    /// The tags that its endpoints have, that one among them.
    pub tags: BTreeMap<String, String>,
    /// Empty where no other Dataplane offers the service.
    pub endpoints: Vec<Endpoint>,
}

/// One inbound of another proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub addr: SocketAddr,
    /// What is known of it, keyed as the `dst_*` labels are, without `dst_`.
    pub labels: BTreeMap<String, String>,
    /// The DNS name that its certificate has in a Mesh with mutual TLS.
    pub identity: String,
}

/// Which Dataplane is this proxy's: the first that answers to what is given.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) name: Option<String>,
    pub(super) mesh: Option<String>,
}

impl Selection {
    fn fits(&self, entry: &Entry<DataplaneSpec>) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
        fits(&self.name, &entry.name) && fits(&self.mesh, &entry.mesh)
    }

    fn in_words(&self) -> String {
        let name = self.name.iter().map(|name| format!(" named {name:?}"));
        let mesh = self.mesh.iter().map(|mesh| format!(" in mesh {mesh:?}"));
        name.chain(mesh).collect()
    }
}

/// A Dataplane with its networking.
struct Located<'a> {
    entry: &'a Entry<DataplaneSpec>,
    networking: Networking,
}

/// Picks the own Dataplane and resolves it against the others. An endpoint of which `hosts` does not know the address is
/// left out.
pub(super) fn read(
    source_name: &str,
    dataplanes: &[Entry<DataplaneSpec>],
    selection: &Selection,
    hosts: &mut Hosts,
) -> Result<Universal, Vec<ControlError>> {
    let mut problems = Vec::new();
    let mut located: Vec<Located<'_>> = Vec::new();
    for entry in dataplanes {
        match entry.spec.networking() {
            Ok(None) => {}
            Ok(Some(_)) if located.iter().any(|known| same(known.entry, entry)) => {
                problems.push(ControlError::Twice {
                    kind: "Dataplane",
                    name: entry.name.clone(),
                });
            }
            Ok(Some(networking)) => located.push(Located { entry, networking }),
            Err(violation) => {
                problems.push(wrong(&entry.name, &violation.field, violation.message))
            }
        }
    }
    let Some(own) = located.iter().find(|one| selection.fits(one.entry)) else {
        problems.push(ControlError::NoDataplane {
            source_name: source_name.to_owned(),
            wanted: selection.in_words(),
            found: listed(located.iter().map(|one| one.entry.name.as_str())),
        });
        return Err(problems);
    };
    let universal = own.resolve(&located, hosts, &mut problems);
    match universal {
        Some(universal) if problems.is_empty() => Ok(universal),
        _ => Err(problems),
    }
}

/// What the own Dataplane changes of its Mesh's metrics, there or in a document of that name without networking.
pub(super) fn metrics_override(
    dataplanes: &[Entry<DataplaneSpec>],
    (mesh, name): (&str, &str),
) -> Result<Option<MetricsOverride>, ControlError> {
    let mut found = None;
    for entry in dataplanes {
        if entry.mesh != mesh || entry.name != name {
            continue;
        }
        let over = entry
            .spec
            .metrics_override()
            .map_err(|violation| wrong(name, &violation.field, violation.message))?;
        if found.is_some() && over.is_some() {
            return Err(wrong(
                name,
                "metrics",
                "is given by more than one document".into(),
            ));
        }
        found = found.or(over);
    }
    Ok(found)
}

fn same(a: &Entry<DataplaneSpec>, b: &Entry<DataplaneSpec>) -> bool {
    a.name == b.name && a.mesh == b.mesh
}

fn wrong(dataplane: &str, field: &str, message: String) -> ControlError {
    ControlError::Dataplane {
        dataplane: dataplane.to_owned(),
        field: field.to_owned(),
        message,
    }
}

/// Turns hosts into addresses and keeps what is wrong with the Dataplane they stand in.
struct Resolver<'a> {
    dataplane: &'a str,
    hosts: &'a mut Hosts,
    problems: &'a mut Vec<ControlError>,
    /// Where it listens, and the field that says so.
    listening: BTreeMap<SocketAddr, String>,
}

impl Resolver<'_> {
    fn wrong(&mut self, field: &str, message: String) {
        self.problems.push(wrong(self.dataplane, field, message));
    }

    fn address(&mut self, host: &str, port: u16, field: &str) -> Option<SocketAddr> {
        let found = self.hosts.require((host, port), self.dataplane);
        found
            .inspect_err(|error| self.wrong(field, format!("cannot resolve {host:?}: {error}")))
            .ok()
    }

    /// Of two listeners of one address each would have a part of the connections.
    fn listens(&mut self, addr: SocketAddr, field: &str) {
        match self.listening.get(&addr) {
            Some(other) => {
                let message =
                    format!("listens at {addr} as {other} does: give it another port or address");
                self.wrong(field, message);
            }
            None => drop(self.listening.insert(addr, field.to_owned())),
        }
    }

    fn inbound(&mut self, inbound: &dataplane::Inbound, field: &str) -> Option<Inbound> {
        let at = format!("{field}.address");
        let listen = self.address(&inbound.address, inbound.port, &at);
        let to = format!("{field}.serviceAddress");
        let dial = self.address(&inbound.service_address, inbound.service_port, &to);
        let (listen, dial) = (listen?, dial?);
        self.listens(listen, field);
        if listen == dial {
            let message = format!(
                "listens at {listen} and forwards to the same: set servicePort or serviceAddress to where the \
                 application listens"
            );
            self.wrong(field, message);
        }
        Some(Inbound {
            listen,
            dial,
            tags: inbound.tags.clone(),
        })
    }

    /// The listener and the service of an outbound.
    fn outbound(
        &mut self,
        outbound: &dataplane::Outbound,
        field: &str,
    ) -> Option<(SocketAddr, String)> {
        let at = format!("{field}.address");
        let listen = self.address(&outbound.address, outbound.port, &at);
        let service = outbound.service();
        if service.is_none() {
            self.wrong(field, format!("tags[\"{SERVICE_TAG}\"] has to be defined"));
        }
        let listen = listen?;
        self.listens(listen, field);
        Some((listen, service?.to_owned()))
    }
}

impl Located<'_> {
    fn resolve(
        &self,
        all: &[Located<'_>],
        hosts: &mut Hosts,
        problems: &mut Vec<ControlError>,
    ) -> Option<Universal> {
        let mut resolver = Resolver {
            dataplane: &self.entry.name,
            hosts,
            problems,
            listening: BTreeMap::new(),
        };
        let networking = &self.networking;
        let own = resolver.address(&networking.address, 0, "networking.address");
        let mut inbounds = Vec::new();
        for (i, inbound) in networking.inbound.iter().enumerate() {
            inbounds.extend(resolver.inbound(inbound, &format!("networking.inbound[{i}]")));
        }
        let mut outbounds = Vec::new();
        for (i, outbound) in networking.outbound.iter().enumerate() {
            let read = resolver.outbound(outbound, &format!("networking.outbound[{i}]"));
            outbounds.extend(read.map(|(listen, service)| Outbound {
                listen,
                service,
                tags: outbound.tags.clone(),
                endpoints: self.endpoints(all, &outbound.tags, resolver.hosts),
            }));
        }
        Some(Universal {
            name: self.entry.name.clone(),
            mesh: self.entry.mesh.clone(),
            address: own?.ip(),
            identity: networking.identity_name(),
            inbounds,
            outbounds,
        })
    }

    /// The inbounds of the other Dataplanes of this Mesh that carry every one of `tags`.
    fn endpoints(
        &self,
        all: &[Located<'_>],
        tags: &BTreeMap<String, String>,
        hosts: &mut Hosts,
    ) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for other in all {
            if other.entry.mesh != self.entry.mesh || other.entry.name == self.entry.name {
                continue;
            }
            for inbound in &other.networking.inbound {
                let carries =
                    |(key, value): (&String, &String)| inbound.tags.get(key) == Some(value);
                if !tags.iter().all(carries) {
                    continue;
                }
                let at = (other.networking.host_of(inbound), inbound.port);
                // Of what has no address `reading` tells.
                let found = hosts.resolve(at, &other.entry.name);
                endpoints.extend(found.ok().map(|addr| Endpoint {
                    addr,
                    labels: inbound.labels(),
                    identity: other.networking.identity_name(),
                }));
            }
        }
        endpoints
    }
}

/// The names by which a service may be called, in lower case and without port: its tag's value, that in the zone
/// `mesh`, and where it is a Kubernetes Service (`name_namespace_svc` and perhaps `_port`) the names that has in DNS.
pub fn authorities(service: &str) -> Vec<String> {
    let service = service.to_ascii_lowercase();
    let mut names = vec![format!("{service}.mesh")];
    let mut parts = service.split('_');
    if let (Some(name), Some(namespace), Some("svc")) = (parts.next(), parts.next(), parts.next()) {
        let local = format!("{name}.{namespace}");
        names.extend(["", ".svc", ".svc.cluster.local"].map(|zone| format!("{local}{zone}")));
        names.push(name.to_owned());
    }
    names.push(service);
    names
}
