//! Who may connect to the application, and what its ports are called: the part of the settings that an inbound is held
//! to. `worker` makes it anew with every document; `connection` asks it once the peer is known, before anything is
//! dialed. It knows no connection.

use std::collections::HashMap;

use weir_crds::identity::Identity;
use weir_crds::permission::Permission;
use weir_crds::settings::Settings;

use crate::telemetry::{Authz, Server};

/// The inbounds of the application, by port.
#[derive(Debug, Default)]
pub struct Permissions {
    mesh: String,
    /// None where only the operator would know.
    inbounds: Option<HashMap<u16, Inbound>>,
}

#[derive(Debug)]
struct Inbound {
    server: Server,
    permission: Option<(Permission, Authz)>,
}

/// Whether a peer may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By this permission, where one is known.
    Allowed(Option<Authz>),
    Denied,
}

impl Permissions {
    /// Those of a settings document.
    pub fn of(settings: &Settings) -> Self {
        let inbounds = settings.inbounds.as_ref().map(|inbounds| {
            let inbounds = inbounds.iter().map(|inbound| {
                let named = |permission: &Permission| {
                    let authz = Authz::new("kuma.io", "trafficpermission", &permission.name);
                    (permission.clone(), authz)
                };
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
            inbounds,
        }
    }

    /// What a port is counted under; none where no resource describes it.
    pub fn server(&self, port: u16) -> Option<Server> {
        let inbound = self.inbounds.as_ref()?.get(&port)?;
        Some(inbound.server.clone())
    }

    /// Judges a peer by its certificate. Where the inbounds are known, nobody may connect to a port without a
    /// permission; where they are not, whoever the mesh has certified may.
    pub fn judge(&self, port: u16, peer: &Identity) -> Verdict {
        let Some(inbounds) = &self.inbounds else {
            return Verdict::Allowed(None);
        };
        let permission = inbounds.get(&port).and_then(|i| i.permission.as_ref());
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
        };
        let mut settings = Settings::without_metrics("default");
        assert_eq!(
            Permissions::of(&settings).judge(80, &peer("web")),
            Verdict::Allowed(None)
        );
        settings.inbounds = Some(vec![inbound(80, Some(permission)), inbound(81, None)]);
        let permissions = Permissions::of(&settings);
        let authz = Authz::new("kuma.io", "trafficpermission", "api-to-web");
        for (port, service, verdict) in [
            (80, "api", Verdict::Allowed(Some(authz))),
            (80, "web", Verdict::Denied),
            (81, "api", Verdict::Denied),
            (82, "api", Verdict::Denied),
        ] {
            assert_eq!(
                permissions.judge(port, &peer(service)),
                verdict,
                "{port} {service}"
            );
        }
        let server = Server::new("kuma.io", "dataplane", "web", 80);
        assert_eq!(permissions.server(80), Some(server));
        assert_eq!(permissions.server(82), None);
    }
}
