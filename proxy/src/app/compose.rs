//! From the typed configuration to the listeners of a proxy, and to the endpoints of its services.
//!
//! Called by `run`. A pod's listeners are the two redirected ones; outside Kubernetes they
//! are the Dataplane's. Binds nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_crds::names::SERVICE_TAG;

use crate::accept::Aim;
use crate::app;
use crate::config::{self, Redirected};
use crate::control::{Outbound, Sources, Universal, authorities, discovery};
use crate::endpoints::{Listed, Roster, Service};
use crate::redirection;
use crate::telemetry::{Dst, Server};

/// How much less than a worker's the service thread's priority is, as in nice(1): a tenth of the CPU where it competes with
/// a worker for it, which is enough for a scrape, and many times what a heartbeat takes.
const NICE: u8 = 10;

/// Splits a configuration into what is bound and the sources that feed it.
pub(super) fn compose(config: config::Config) -> (app::Config, Sources) {
    let in_pod = config.sources.universal.is_none();
    let listeners = match &config.sources.universal {
        None => redirected(&config.redirected),
        Some(universal) => described(universal),
    };
    let mut operator = config.operator;
    if let Some(operator) = operator.as_mut() {
        operator.settings = Some(config.sources.publisher());
    }
    let composed = app::Config {
        workers: config.workers,
        worker: config.worker,
        listeners,
        roster: None,
        operator,
        identity: None,
        identity_files: config.identity,
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
        redirection: redirection::Config::default(),
        drain: config.drain,
        service_nice: NICE,
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
        let Service {
            name, endpoints, ..
        } = service(outbound);
        (outbound.listen, Aim::Service { name, endpoints })
    });
    inbounds.chain(outbounds).collect()
}

fn service(outbound: &Outbound) -> Service {
    let endpoints = outbound.endpoints.iter().map(|endpoint| {
        let labels = endpoint
            .labels
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()));
        Listed {
            addr: endpoint.addr,
            dst: Dst::new(labels),
            identity: Some(endpoint.identity.as_str().into()),
            share: None,
        }
    });
    Service {
        name: outbound.service.clone(),
        endpoints: endpoints.collect(),
        ..Service::default()
    }
}

/// The services of a proxy whose endpoints an operator tells to `roster`; those of the files stand until it does.
pub(super) fn services(
    outbounds: &[Outbound],
    files: watch::Receiver<Arc<Roster>>,
    roster: watch::Sender<Arc<Roster>>,
) -> discovery::Services {
    let asked = outbounds.iter().map(|outbound| discovery::Asked {
        listen: outbound.listen,
        tags: outbound.tags.clone(),
        service: service(outbound),
    });
    discovery::Services {
        asked: asked.collect(),
        files,
        roster,
    }
}

/// Keeps `roster` as the sources have it, until `stop`.
pub(super) async fn follow(
    mut outbounds: watch::Receiver<Arc<Vec<Outbound>>>,
    roster: watch::Sender<Arc<Roster>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = outbounds.changed() => if changed.is_err() { return },
        }
        let services = outbounds.borrow_and_update();
        let services = services.iter().map(|o| (o.listen, service(o)));
        roster.send_replace(Arc::new(services.collect()));
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::{Listed, follow};
    use crate::control::{Endpoint, Outbound};
    use crate::telemetry::Dst;

    #[tokio::test]
    async fn new_outbounds_become_a_new_roster() {
        let (outbounds, changes) = watch::channel(Arc::default());
        let (roster, mut rosters) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let following = tokio::spawn(follow(changes, roster, stop.clone()));
        let listen = ([127, 0, 0, 1], 9000).into();
        let addr = ([10, 0, 0, 1], 80).into();
        outbounds.send_replace(Arc::new(vec![Outbound {
            listen,
            service: "db".into(),
            tags: Default::default(),
            endpoints: vec![Endpoint {
                addr,
                labels: [("service".to_owned(), "db".to_owned())].into(),
                identity: "db.mesh".into(),
            }],
        }]));
        rosters.changed().await.expect("a roster");
        let service = rosters.borrow()[&listen].clone();
        assert_eq!(service.name, "db");
        let listed = Listed {
            identity: Some("db.mesh".into()),
            ..Listed::plain(addr, Dst::new([("service", "db")]))
        };
        assert_eq!(service.endpoints, [listed]);
        stop.cancel();
        following.await.expect("it ends");
    }
}
