//! Who may read the metrics: what the settings ask of a scraper, on the Mesh's own endpoint and on 4191. Called by
//! `endpoint` and `routes` for every request, so a change holds for connections that are open. Pure.

use super::socket::Client;
use std::net::IpAddr;
use weir_crds::settings::{MetricsSettings, MetricsTls, MtlsMode, Settings};

/// Where metrics are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the port and path of the Mesh.
    Endpoint,
    /// On 4191.
    Admin,
}

/// Why a scraper is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(
        "the metrics of Mesh {0:?} are for its own mutual TLS alone (tls.mode activeMTLSBackend): scrape through a proxy \
         of this Mesh, from within the pod, or set tls.mode: disabled in metrics.backends[].conf"
    )]
    Plaintext(String),
    #[error(
        "no TrafficPermission of Mesh {mesh:?} lets {peer:?} read its metrics: one is needed whose destinations match \
         {tags}"
    )]
    Denied {
        mesh: String,
        peer: String,
        tags: String,
    },
}

/// The settings of metrics that only the mesh may read there. Kuma's endpoint takes no plaintext in a PERMISSIVE mesh
/// either; 4191, where scrapers that know no mesh come, does.
fn secured(settings: &Settings, place: Place) -> Option<&MetricsSettings> {
    let metrics = settings.metrics.as_ref()?;
    let is_meshed = match place {
        Place::Endpoint => settings.mtls != MtlsMode::Disabled,
        Place::Admin => settings.mtls == MtlsMode::Strict,
    };
    let is_secured = is_meshed && metrics.tls == MetricsTls::ActiveMtlsBackend;
    is_secured.then_some(metrics)
}

/// Judges a scraper. The pod itself (`own` addresses), and whoever forwards a port to it, is subject to nothing.
pub(super) fn check(
    settings: &Settings,
    place: Place,
    client: &Client,
    own: &[IpAddr],
) -> Result<(), Refused> {
    let ip = client.addr.ip().to_canonical();
    let is_own = ip.is_loopback() || own.iter().any(|own| own.to_canonical() == ip);
    let Some(metrics) = secured(settings, place).filter(|_| !is_own) else {
        return Ok(());
    };
    let mesh = || settings.mesh.clone();
    let Some(peer) = &client.peer else {
        return Err(Refused::Plaintext(mesh()));
    };
    let permission = metrics.permission.as_ref();
    if permission.is_some_and(|permission| permission.allows(&peer.identity, &settings.mesh)) {
        return Ok(());
    }
    let tags = metrics.tags.iter();
    let tags: Vec<_> = tags.map(|(tag, value)| format!("{tag}: {value}")).collect();
    Err(Refused::Denied {
        mesh: mesh(),
        peer: peer.name.to_string(),
        tags: tags.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Peer;
    use std::sync::Arc;
    use weir_crds::identity::Identity;
    use weir_crds::permission::Permission;

    fn settings(tls: MetricsTls, mtls: MtlsMode) -> Settings {
        let tag = |value: &str| [("kuma.io/service".to_owned(), value.to_owned())].into();
        Settings {
            mtls,
            metrics: Some(MetricsSettings {
                port: 5670,
                path: "/metrics".into(),
                tags: tag("dataplane-metrics"),
                permission: Some(Permission {
                    name: "scrape".into(),
                    sources: vec![tag("prometheus")],
                }),
                tls,
                filter: None,
                used_only: false,
                aggregate: Vec::new(),
            }),
            ..Settings::without_metrics("default")
        }
    }

    fn client(ip: &str, service: Option<&str>) -> Client {
        let peer = service.map(|service| {
            let uri = format!("spiffe://default/{service}");
            let identity = Identity::read([service], [uri.as_str()]);
            Peer {
                name: service.into(),
                identity: Arc::new(identity),
            }
        });
        let addr = (ip.parse::<IpAddr>().unwrap(), 9).into();
        Client { addr, peer }
    }

    fn pod() -> [IpAddr; 2] {
        [[10, 0, 0, 5].into(), "fd00::5".parse().unwrap()]
    }

    #[test]
    fn what_is_asked_depends_on_the_place_the_mode_and_the_mesh() {
        use MetricsTls::{ActiveMtlsBackend, Disabled};
        use MtlsMode::{Permissive, Strict};
        let plain = client("10.0.0.9", None);
        let meshed = client("10.0.0.9", Some("prometheus"));
        let other = client("10.0.0.9", Some("web"));
        for (place, tls, mtls, may) in [
            (
                Place::Endpoint,
                ActiveMtlsBackend,
                Strict,
                [false, true, false],
            ),
            (
                Place::Endpoint,
                ActiveMtlsBackend,
                Permissive,
                [false, true, false],
            ),
            (
                Place::Endpoint,
                ActiveMtlsBackend,
                MtlsMode::Disabled,
                [true; 3],
            ),
            (Place::Endpoint, Disabled, Strict, [true; 3]),
            (
                Place::Admin,
                ActiveMtlsBackend,
                Strict,
                [false, true, false],
            ),
            (Place::Admin, ActiveMtlsBackend, Permissive, [true; 3]),
            (Place::Admin, Disabled, Strict, [true; 3]),
        ] {
            let settings = settings(tls, mtls);
            let judged = [&plain, &meshed, &other]
                .map(|client| check(&settings, place, client, &pod()).is_ok());
            assert_eq!(judged, may, "{place:?} {tls:?} {mtls:?}");
        }
        let without = Settings {
            mtls: Strict,
            ..Settings::without_metrics("default")
        };
        assert_eq!(check(&without, Place::Admin, &plain, &pod()), Ok(()));
    }

    #[test]
    fn the_pod_itself_may_always_and_nobody_may_without_a_permission() {
        let mut settings = settings(MetricsTls::ActiveMtlsBackend, MtlsMode::Strict);
        for ip in ["127.0.0.1", "::1", "10.0.0.5", "::ffff:10.0.0.5", "fd00::5"] {
            let own = check(&settings, Place::Endpoint, &client(ip, None), &pod());
            assert_eq!(own, Ok(()), "{ip}");
        }
        settings.metrics.as_mut().unwrap().permission = None;
        let meshed = client("10.0.0.9", Some("prometheus"));
        let denied = check(&settings, Place::Endpoint, &meshed, &pod()).unwrap_err();
        let denied = denied.to_string();
        assert!(
            denied.contains("kuma.io/service: dataplane-metrics"),
            "{denied}"
        );
        assert!(denied.contains("\"prometheus\""), "{denied}");
        let plain = client("10.0.0.9", None);
        let refused = check(&settings, Place::Endpoint, &plain, &pod()).unwrap_err();
        assert!(
            refused.to_string().contains("tls.mode: disabled"),
            "{refused}"
        );
    }
}
