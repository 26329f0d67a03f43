//! The metrics of the gRPC server: connections, calls, streams and the certificates it gives out.
//! Counted by `serve`, printed with the others. Label values are enums; it knows no connection.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

label! {
    /// What is called.
    Method {
        /// `io.linkerd.proxy.identity.Identity/Certify`.
        Certify = "certify",
        /// `io.linkerd.proxy.destination.Destination/Get`.
        DestinationGet = "destination_get",
        /// `io.linkerd.proxy.destination.Destination/GetProfile`.
        DestinationGetProfile = "destination_get_profile",
        /// `weir.settings.v1.Settings/Watch`.
        SettingsWatch = "settings_watch",
        /// `weir.routes.v1.Routes/Watch`.
        RoutesWatch = "routes_watch",
        /// Something that is not served.
        Other = "other",
    }
}

impl Method {
    /// The method of a request's path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        match path {
            "/io.linkerd.proxy.identity.Identity/Certify" => Self::Certify,
            "/io.linkerd.proxy.destination.Destination/Get" => Self::DestinationGet,
            "/io.linkerd.proxy.destination.Destination/GetProfile" => Self::DestinationGetProfile,
            "/weir.settings.v1.Settings/Watch" => Self::SettingsWatch,
            "/weir.routes.v1.Routes/Watch" => Self::RoutesWatch,
            _ => Self::Other,
        }
    }
}

label! {
    /// Why a connection never carried a call.
    Handshake {
        /// The client was silent for too long.
        Timeout = "timeout",
        /// The client closed, or the network failed.
        Io = "io",
        /// TLS was not agreed on, for one because the client does not trust the certificate.
        Tls = "tls",
    }
}

label! {
    /// What became of a request for a certificate.
    Certified {
        /// It was given.
        Issued = "issued",
        /// The token is not accepted.
        Token = "token",
        /// The token is another's than the identity or a name that was asked for.
        Identity = "identity",
        /// The signing request cannot be used.
        Request = "request",
        /// The Mesh has no certificate authority, or one that cannot be used.
        Mesh = "mesh",
        /// Too many at once, or something did not answer; the proxy asks again.
        Unavailable = "unavailable",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: Method,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: Method,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    reason: Handshake,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertifiedLabels {
    outcome: Certified,
}

/// Handles to the series of the server. Clones count into the same series.
#[derive(Clone, Debug, Default)]
pub struct Server {
    connections: Gauge,
    failures: Family<HandshakeLabels, Counter>,
    calls: Family<CallLabels, Counter>,
    open: Family<MethodLabels, Gauge>,
    certificates: Family<CertifiedLabels, Counter>,
}

impl Server {
    /// Adds the families to a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "grpc_connections",
            "Connections of the gRPC server",
            self.connections.clone(),
        );
        registry.register(
            "grpc_handshake_failures",
            "Connections that ended before their first call, by reason",
            self.failures.clone(),
        );
        registry.register(
            "grpc_calls",
            "Calls that ended, by method and gRPC status",
            self.calls.clone(),
        );
        registry.register(
            "grpc_open_calls",
            "Calls under way, watches among them",
            self.open.clone(),
        );
        registry.register(
            "certificates",
            "Requests for a certificate by what became of them",
            self.certificates.clone(),
        );
    }

    /// A connection is open until the guard is dropped.
    #[must_use]
    pub fn connected(&self) -> Open {
        Open::new(self.connections.clone())
    }

    /// Counts a connection that never carried a call.
    pub fn count_failure(&self, reason: Handshake) {
        self.failures
            .get_or_create(&HandshakeLabels { reason })
            .inc();
    }

    /// A call is open until the guard is dropped.
    #[must_use]
    pub fn called(&self, method: Method) -> Open {
        let gauge = self.open.get_or_create(&MethodLabels { method });
        Open::new(gauge.clone())
    }

    /// Counts a call that ended with this gRPC status.
    pub fn count_call(&self, method: Method, code: &'static str) {
        self.calls.get_or_create(&CallLabels { method, code }).inc();
    }

    /// Counts a request for a certificate.
    pub fn count_certificate(&self, outcome: Certified) {
        self.certificates
            .get_or_create(&CertifiedLabels { outcome })
            .inc();
    }
}

/// Holds a gauge up by one.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use linkerd2_proxy_api::identity::identity_server;
    use weir_crds::grpc::METHODS;

    use super::*;

    #[test]
    fn every_call_that_is_served_has_a_label_of_its_own() {
        let certify = format!("/{}/Certify", identity_server::SERVICE_NAME);
        let paths: Vec<&str> = METHODS.iter().copied().chain([&*certify]).collect();
        assert!(paths.contains(&"/weir.routes.v1.Routes/Watch"), "{paths:?}");
        let labels: HashSet<Method> = paths.iter().map(|path| Method::of(path)).collect();
        assert!(!labels.contains(&Method::Other), "{paths:?}: {labels:?}");
        assert_eq!(labels.len(), paths.len(), "{paths:?}: {labels:?}");
        assert_eq!(Method::of("/weir.routes.v1.Routes"), Method::Other);
    }
}
