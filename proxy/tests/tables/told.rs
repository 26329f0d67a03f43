//! What the proxy of a bench is told of requests before the first of them comes: the routes of its service, or what the port
//! of its application lets in. Called by `bench`; `routed` says what.

use std::sync::Arc;

use weir_crds::routes::{Condition, RouteTable};
use weir_crds::settings::{InboundSettings, Settings};
use weir_proxy::accept::Aim;
use weir_proxy::app::Config;
use weir_proxy::endpoints::{Roster, Service};
use weir_proxy::routes::compile;

/// What it is told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Nothing,
    /// The routes of the service.
    Routes(RouteTable),
    /// What the port of the application lets in.
    Closed(Condition),
}

impl Told {
    /// The service that the application reaches at `listener`, where there are routes of it.
    pub(super) fn roster(&self, listener: std::net::SocketAddr, aim: Aim) -> Roster {
        let (Self::Routes(table), Aim::Service { name, endpoints }) = (self, aim) else {
            return Roster::new();
        };
        let service = Service {
            name,
            endpoints,
            routes: Some(Arc::new(compile(table).expect("a table"))),
            ..Service::default()
        };
        [(listener, service)].into()
    }

    /// Describes the application's port, where it does not let in everything.
    pub(super) fn change(&self, settings: &mut Settings, port: u16) {
        if let Self::Closed(condition) = self {
            settings.inbounds = Some(vec![InboundSettings {
                port,
                service: "web".into(),
                permission: None,
                routes: Some(vec![condition.clone()]),
            }]);
        }
    }
}

/// How much of what is described is published before there is traffic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Described {
    /// Label sets of connections.
    pub(super) connections: usize,
    pub(super) servers: usize,
}

impl Described {
    pub(super) fn of(config: &Config, told: &Told) -> Self {
        // The port that settings describe is another server than that of the listener, before the same application.
        let by_settings = usize::from(matches!(told, Told::Closed(_)));
        let listeners = config.listeners.iter().map(|(_, aim)| match aim {
            Aim::Application { .. } => (2, 1),
            Aim::Service { .. } => (1, 0),
            Aim::Inbound | Aim::Outbound => (0, 0),
        });
        listeners.fold(
            Self {
                connections: by_settings,
                servers: by_settings,
            },
            |sum, (connections, servers)| Self {
                connections: sum.connections + connections,
                servers: sum.servers + servers,
            },
        )
    }
}
