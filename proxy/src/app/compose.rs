//! From the typed configuration to the listeners of a proxy.
//!
//! Called by `run`. A pod's listeners are the two redirected ones; outside Kubernetes they
//! are the Dataplane's. Binds nothing.

use std::net::SocketAddr;

use weir_crds::names::SERVICE_TAG;

use crate::accept::Aim;
use crate::app;
use crate::config::{self, Redirected};
use crate::control::{Sources, Universal, authorities};
use crate::telemetry::{Dst, Server};

/// Splits a configuration into what is bound and the sources that feed it.
pub(super) fn compose(config: config::Config) -> (app::Config, Sources) {
    let in_pod = config.sources.universal.is_none();
    let listeners = match &config.sources.universal {
        None => redirected(&config.redirected),
        Some(universal) => described(universal),
    };
    let composed = app::Config {
        workers: config.workers,
        worker: config.worker,
        listeners,
        admin: config.admin,
        telemetry: config.telemetry,
        metrics_policy: Some(config.sources.metrics_policy()),
        known_authorities: config
            .sources
            .universal
            .as_ref()
            .map(known_authorities)
            .unwrap_or_default(),
        beats: in_pod,
        drain: config.drain,
        levels: None,
    };
    (composed, config.sources)
}

fn redirected(redirected: &Redirected) -> Vec<(SocketAddr, Aim)> {
    let outbound = redirected
        .outbound
        .iter()
        .map(|addr| (*addr, Aim::Outbound));
    std::iter::once((redirected.inbound, Aim::Inbound))
        .chain(outbound)
        .collect()
}

fn described(universal: &Universal) -> Vec<(SocketAddr, Aim)> {
    let inbounds = universal.inbounds.iter().map(|inbound| {
        let service = inbound.tags.get(SERVICE_TAG).map_or("", String::as_str);
        let server = Server::new("kuma.io", "dataplane", service, inbound.listen.port());
        (
            inbound.listen,
            Aim::Application {
                addr: inbound.dial,
                server,
            },
        )
    });
    let outbounds = universal.outbounds.iter().map(|outbound| {
        let endpoints = outbound.endpoints.iter().map(|endpoint| {
            let labels = endpoint
                .labels
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()));
            (endpoint.addr, Dst::new(labels))
        });
        let name = outbound.service.clone();
        (
            outbound.listen,
            Aim::Service {
                name,
                endpoints: endpoints.collect(),
            },
        )
    });
    inbounds.chain(outbounds).collect()
}

/// What clients may call the services by that this proxy offers or calls.
fn known_authorities(universal: &Universal) -> Vec<String> {
    let own = universal.inbounds.iter();
    let own = own.filter_map(|inbound| inbound.tags.get(SERVICE_TAG));
    let called = universal.outbounds.iter().map(|outbound| &outbound.service);
    own.chain(called)
        .flat_map(|name| authorities(name))
        .collect()
}
