//! What a worker knows of its mesh's TLS at the moment: whether it is asked for, the identity in force, and so which way
//! a connection goes. `worker` keeps it, the stages that accept and dial ask it. It does no I/O.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Notify;
use weir_crds::settings::MtlsMode;

use crate::identity::Identity;
use crate::telemetry::{NoTlsReason, Tls};

/// One worker's view.
#[derive(Debug)]
pub struct Mesh {
    mode: Cell<MtlsMode>,
    identity: RefCell<Option<Arc<Identity>>>,
    /// There has been one.
    was_certified: Cell<bool>,
    /// The name that the proxy asks a certificate for.
    name: RefCell<Option<String>>,
    /// Tells of each change.
    changed: Notify,
    /// The pod's own addresses.
    own: Vec<IpAddr>,
}

/// How an endpoint is to be dialed.
#[derive(Debug)]
pub enum Way {
    /// As it is, and why.
    Plain(NoTlsReason),
    /// With mesh TLS; its certificate is to have this name.
    Secured(Arc<Identity>, Arc<str>),
    /// Not at all: in a STRICT mesh nothing goes out in plaintext for want of a certificate.
    Refused(Arc<str>),
}

impl Mesh {
    /// Without TLS, in a pod with these addresses.
    pub fn new(own: Vec<IpAddr>) -> Self {
        Self {
            mode: Cell::new(MtlsMode::Disabled),
            identity: RefCell::default(),
            was_certified: Cell::default(),
            name: RefCell::default(),
            changed: Notify::new(),
            own,
        }
    }

    /// Takes over what is in force from now on.
    pub fn set(&self, mode: MtlsMode, identity: Option<Arc<Identity>>) {
        self.mode.set(mode);
        let is_certified = self.was_certified.get() || identity.is_some();
        self.was_certified
            .set(is_certified && mode != MtlsMode::Disabled);
        *self.identity.borrow_mut() = identity;
        self.changed.notify_waiters();
    }

    /// Takes over for which name the proxy is to be certified.
    pub fn expect(&self, name: Option<&str>) {
        let mut known = self.name.borrow_mut();
        if known.as_deref() != name {
            *known = name.map(str::to_owned);
        }
    }

    /// Whether that is this one.
    pub fn expects(&self, name: &str) -> bool {
        self.name.borrow().as_deref() == Some(name)
    }

    /// Whether connections between proxies are secured.
    pub fn mode(&self) -> MtlsMode {
        self.mode.get()
    }

    /// The identity in force.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.borrow().clone()
    }

    /// Whether its first certificate may be on its way. One that has ended is not: it would have been renewed long ago.
    pub fn awaits_first(&self) -> bool {
        !self.was_certified.get()
    }

    /// Waits for an identity, which a proxy that has just begun is still certified for; none once there is to be none.
    pub async fn certified(&self) -> Option<Arc<Identity>> {
        loop {
            let changed = self.changed.notified();
            let identity = self.identity();
            if identity.is_some() || self.mode() == MtlsMode::Disabled {
                return identity;
            }
            changed.await;
        }
    }

    /// Whether an endpoint whose certificate is to have that name is dialed with mesh TLS, or not at all.
    pub fn secures(&self, addr: SocketAddr, name: Option<&Arc<str>>) -> bool {
        self.to_verify(addr, name).is_ok()
    }

    /// How an endpoint is dialed whose certificate is to have that name, where it has one.
    pub fn way_to(&self, addr: SocketAddr, name: Option<&Arc<str>>) -> Way {
        match (self.to_verify(addr, name), self.identity()) {
            (Err(reason), _) => Way::Plain(reason),
            (Ok(name), Some(identity)) => Way::Secured(identity, Arc::clone(name)),
            (Ok(name), None) => Way::Refused(Arc::clone(name)),
        }
    }

    /// The name that an endpoint has to prove; where it need not, why it is dialed as it is.
    fn to_verify<'a>(
        &self,
        addr: SocketAddr,
        name: Option<&'a Arc<str>>,
    ) -> Result<&'a Arc<str>, NoTlsReason> {
        if self.own.contains(&addr.ip()) {
            return Err(NoTlsReason::Loopback);
        }
        let is_secured = match self.mode() {
            MtlsMode::Disabled => false,
            MtlsMode::Permissive => self.identity.borrow().is_some(),
            MtlsMode::Strict => true,
        };
        let name = name.filter(|_| is_secured);
        name.ok_or(NoTlsReason::NotProvidedByServiceDiscovery)
    }
}

impl Way {
    /// The label of a connection that goes this way.
    pub fn tls(&self) -> Tls {
        match self {
            Self::Plain(reason) => Tls::NoIdentity(*reason),
            Self::Secured(_, id) | Self::Refused(id) => Tls::Mutual { id: Arc::clone(id) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{Authority, made};

    #[test]
    fn a_certificate_that_has_ended_is_not_awaited_but_the_first_of_each_mesh_is() {
        let mesh = Mesh::new(Vec::new());
        let (authority, name) = (Authority::new("mesh"), "web.shop.test");
        let identity = made(&authority, name, name).expect("it holds");
        mesh.set(MtlsMode::Permissive, None);
        assert!(mesh.awaits_first());
        mesh.set(MtlsMode::Permissive, Some(Arc::new(identity)));
        mesh.set(MtlsMode::Permissive, None);
        assert!(!mesh.awaits_first());
        // Switched off, and on again with another authority.
        mesh.set(MtlsMode::Disabled, None);
        mesh.set(MtlsMode::Permissive, None);
        assert!(mesh.awaits_first());
    }

    /// Whether or not it is certified: nobody listens on the way, and the application itself speaks no TLS of the mesh.
    #[test]
    fn the_pods_own_addresses_are_loopback_in_every_mesh() {
        let own = ["10.1.2.3", "fd00::3"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let other: SocketAddr = "10.1.2.4:80".parse().unwrap();
        let mesh = Mesh::new(own.to_vec());
        let (authority, name) = (Authority::new("mesh"), "web.shop.test");
        let identity = Arc::new(made(&authority, name, name).expect("it holds"));
        let named: Arc<str> = "api.shop.test".into();
        let undiscovered = || Tls::NoIdentity(NoTlsReason::NotProvidedByServiceDiscovery);
        let mutual = || Tls::Mutual {
            id: Arc::clone(&named),
        };
        for (mode, identity, elsewhere) in [
            (MtlsMode::Disabled, None, undiscovered()),
            (MtlsMode::Permissive, None, undiscovered()),
            (MtlsMode::Permissive, Some(&identity), mutual()),
            (MtlsMode::Strict, None, mutual()),
            (MtlsMode::Strict, Some(&identity), mutual()),
        ] {
            mesh.set(mode, identity.cloned());
            for ip in own {
                let (addr, known) = (SocketAddr::new(ip, 80), Some(&named));
                assert!(!mesh.secures(addr, known), "{mode:?} {ip}");
                let way = mesh.way_to(addr, known);
                assert!(matches!(way, Way::Plain(_)), "{mode:?} {ip}: {way:?}");
                assert_eq!(way.tls(), Tls::NoIdentity(NoTlsReason::Loopback));
            }
            let way = mesh.way_to(other, Some(&named));
            assert_eq!(way.tls(), elsewhere, "{mode:?}");
        }
    }
}
