//! Who may connect to the application, and what its ports are called: the part of the settings that an inbound is held
//! to. `worker` makes it anew with every document; `connection` asks it once the peer is known, before anything is
//! dialed. Beside it are the ports that are closed, whose routes are `routes`'s. It knows no connection.

use std::collections::HashMap;

use weir_crds::identity::Identity;
use weir_crds::permission::Permission;
use weir_crds::settings::{MtlsMode, Settings};

use crate::telemetry::{Authz, Server};

mod gate;

pub use gate::{Gate, Permit};

/// The inbounds of the application, by port.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    mesh: String,
    mode: MtlsMode,
    /// None where only the operator would know.
    inbounds: Option<HashMap<u16, Inbound>>,
    /// Of every other port.
    others: Option<(Permission, Authz)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Inbound {
    server: Server,
    permission: Option<(Permission, Authz)>,
}

/// Whether a peer may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By this permission, where one is known; by none in plaintext, and in a mesh without mutual TLS, where nobody asks.
    Allowed(Option<Authz>),
    Denied,
}

impl Permissions {
    /// Those of a settings document, in a mesh whose proxies secure their connections so.
    pub fn of(settings: &Settings, mode: MtlsMode) -> Self {
        let named = |permission: &Permission| {
            let authz = Authz::new("kuma.io", "trafficpermission", &permission.name);
            (permission.clone(), authz)
        };
        let inbounds = settings.inbounds.as_ref().map(|inbounds| {
            let inbounds = inbounds.iter().map(|inbound| {
                let described = Inbound {
                    server: Server::new("kuma.io", "dataplane", &inbound.service, inbound.port),
                    permission: inbound.permission.as_ref().map(named),
                };
                (inbound.port, described)
            });
            inbounds.collect()
        });
        Self {
            mesh: settings.mesh.clone(),
            mode,
            inbounds,
            others: settings.other_ports.as_ref().map(named),
        }
    }

    /// What a port is counted under; none where no resource describes it.
    pub fn server(&self, port: u16) -> Option<Server> {
        let inbound = self.inbounds.as_ref()?.get(&port)?;
        Some(inbound.server.clone())
    }

    /// Every port that a resource describes, and what it is counted under.
    pub fn servers(&self) -> Vec<(u16, Server)> {
        let inbounds = self.inbounds.iter().flatten();
        inbounds
            .map(|(port, inbound)| (*port, inbound.server.clone()))
            .collect()
    }

    /// Judges a peer by its certificate, if it has shown one. Where the inbounds are known, nobody may connect to a port
    /// without a permission, nor to one that is not among them, unless a permission holds for those; where they are not, whoever the mesh has certified may. Plaintext is subject to no
    /// permission: it is let in, or it is not.
    pub fn judge(&self, port: u16, peer: Option<&Identity>) -> Verdict {
        let peer = match (self.mode, peer) {
            (MtlsMode::Disabled, _) | (MtlsMode::Permissive, None) => {
                return Verdict::Allowed(None);
            }
            (MtlsMode::Strict, None) => return Verdict::Denied,
            (_, Some(peer)) => peer,
        };
        let Some(inbounds) = &self.inbounds else {
            return Verdict::Allowed(None);
        };
        let permission = match inbounds.get(&port) {
            Some(inbound) => &inbound.permission,
            None => &self.others,
        };
        match permission {
            Some((permission, authz)) if permission.allows(peer, &self.mesh) => {
                Verdict::Allowed(Some(authz.clone()))
            }
            Some(_) | None => Verdict::Denied,
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_crds::settings::InboundSettings;

    use super::*;

    fn peer(service: &str) -> Identity {
        Identity::read(["x.test"], [format!("spiffe://default/{service}").as_str()])
    }

    #[test]
    fn a_port_is_open_to_whom_its_permission_names() {
        let source = [("kuma.io/service".to_owned(), "api".to_owned())];
        let permission = Permission {
            name: "api-to-web".into(),
            sources: vec![source.into()],
        };
        let inbound = |port, permission| InboundSettings {
            port,
            service: "web".into(),
            permission,
            routes: None,
        };
        let mut settings = Settings::without_metrics("default");
        let of = Permissions::of;
        assert_eq!(
            of(&settings, MtlsMode::Strict).judge(80, Some(&peer("web"))),
            Verdict::Allowed(None)
        );
        settings.inbounds = Some(vec![inbound(80, Some(permission)), inbound(81, None)]);
        let permissions = of(&settings, MtlsMode::Strict);
        let authz = Authz::new("kuma.io", "trafficpermission", "api-to-web");
        for (port, service, verdict) in [
            (80, "api", Verdict::Allowed(Some(authz))),
            (80, "web", Verdict::Denied),
            (81, "api", Verdict::Denied),
            (82, "api", Verdict::Denied),
        ] {
            assert_eq!(
                permissions.judge(port, Some(&peer(service))),
                verdict,
                "{port} {service}"
            );
        }
        for (mode, verdict) in [
            (MtlsMode::Disabled, Verdict::Allowed(None)),
            (MtlsMode::Permissive, Verdict::Allowed(None)),
            (MtlsMode::Strict, Verdict::Denied),
        ] {
            let plaintext = of(&settings, mode).judge(81, None);
            assert_eq!(plaintext, verdict, "{mode:?}");
        }
        settings.other_ports = Some(Permission {
            name: "all".into(),
            sources: vec![[("kuma.io/service".to_owned(), "*".to_owned())].into()],
        });
        let open = of(&settings, MtlsMode::Strict);
        let all = Authz::new("kuma.io", "trafficpermission", "all");
        let allowed = Verdict::Allowed(Some(all));
        assert_eq!(open.judge(82, Some(&peer("api"))), allowed);
        assert_eq!(open.judge(81, Some(&peer("api"))), Verdict::Denied);
        let server = Server::new("kuma.io", "dataplane", "web", 80);
        assert_eq!(permissions.server(80), Some(server));
        assert_eq!(permissions.server(82), None);
        let mut ports: Vec<_> = permissions.servers().into_iter().map(|(p, _)| p).collect();
        ports.sort_unstable();
        assert_eq!(ports, [80, 81]);
    }
}
