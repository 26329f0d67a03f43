//! A mesh of two: a client's proxy and a server's, each with its identity and its settings.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weir_crds::settings::{MtlsMode, Settings};
use weir_proxy::accept::Aim;
use weir_proxy::endpoints::Listed;
use weir_proxy::identity::{Identity, Key, Trust};
use weir_proxy::telemetry::{Dst, Server};
use weir_proxy::worker;

use crate::authority::Authority;
use crate::proxy::{Proxy, bound};

pub(crate) const CLIENT: &str = "api.shop.serviceaccount.identity.kuma-system.cluster.local";
pub(crate) const SERVER: &str = "web.shop.serviceaccount.identity.kuma-system.cluster.local";
pub(crate) const LIFE: Duration = Duration::from_secs(600);

/// An identity that the authority has certified and trusts.
pub(crate) fn identity(authority: &Authority, name: &str, life: Duration) -> Arc<Identity> {
    identity_in(authority, name, (life, &authority.bundle()))
}

/// The same, which trusts whom that bundle names.
pub(crate) fn identity_in(
    authority: &Authority,
    name: &str,
    (life, bundle): (Duration, &str),
) -> Arc<Identity> {
    let key = Key::generate().expect("a key");
    let csr = key.request(name).expect("a request");
    let service = name.split('.').next().unwrap_or_default();
    let uris = [format!("spiffe://default/{service}")];
    let certified = authority.sign(&csr, &uris, life);
    let trust = Arc::new(Trust::from_pem(bundle).expect("a bundle"));
    let identity = Identity::new((&name.into(), &key), &certified, &trust);
    Arc::new(identity.expect("it holds"))
}

pub(crate) fn settings(mtls: MtlsMode) -> Settings {
    let mut settings = Settings::without_metrics("default");
    settings.mtls = mtls;
    settings
}

/// One proxy of the mesh.
pub(crate) struct Party {
    pub(crate) proxy: Proxy,
    pub(crate) settings: watch::Sender<Arc<Settings>>,
    pub(crate) identity: watch::Sender<Option<Arc<Identity>>>,
}

impl Party {
    pub(crate) fn start(
        (settings, identity): (Settings, Option<Arc<Identity>>),
        aim: Aim,
        served: worker::Config,
    ) -> Self {
        Self::start_on(bound(), (settings, identity), aim, served)
    }

    /// The same on this socket: its port may be in the settings.
    fn start_on(
        listener: TcpListener,
        (settings, identity): (Settings, Option<Arc<Identity>>),
        aim: Aim,
        served: worker::Config,
    ) -> Self {
        let (settings, said) = watch::channel(Arc::new(settings));
        let (identity, kept) = watch::channel(identity);
        Self {
            proxy: Proxy::start_on(listener, (said, Some(kept)), aim, served),
            settings,
            identity,
        }
    }

    /// In front of an application.
    pub(crate) fn server(
        (settings, identity): (Settings, Option<Arc<Identity>>),
        application: SocketAddr,
    ) -> Self {
        let served = worker::Config::default();
        Self::server_on(bound(), (settings, identity), application, served)
    }

    /// The same on this socket: its port may be in the settings.
    fn server_on(
        listener: TcpListener,
        (settings, identity): (Settings, Option<Arc<Identity>>),
        application: SocketAddr,
        served: worker::Config,
    ) -> Self {
        let server = Server::new("kuma.io", "dataplane", "web", 80);
        let aim = Aim::Application {
            addr: application,
            server,
        };
        Self::start_on(listener, (settings, identity), aim, served)
    }

    /// In front of a service with one endpoint, whose certificate has this name.
    pub(crate) fn client(
        (settings, identity): (Settings, Option<Arc<Identity>>),
        endpoint: SocketAddr,
        name: Option<&str>,
    ) -> Self {
        let aim = Aim::Service {
            name: "web".to_owned(),
            endpoints: vec![listed(endpoint, name)],
        };
        Self::start((settings, identity), aim, worker::Config::default())
    }
}

pub(crate) fn listed(addr: SocketAddr, name: Option<&str>) -> Listed {
    Listed {
        identity: name.map(Into::into),
        ..Listed::plain(addr, Dst::new([("service", "web")]))
    }
}

/// A client's proxy that dials a server's.
pub(crate) struct Pair {
    pub(crate) authority: Authority,
    pub(crate) client: Party,
    pub(crate) server: Party,
}

impl Pair {
    /// In front of an application, in a STRICT mesh.
    pub(crate) fn start(application: SocketAddr) -> Self {
        Self::start_in(MtlsMode::Strict, application)
    }

    pub(crate) fn start_in(mode: MtlsMode, application: SocketAddr) -> Self {
        Self::start_with(mode, application, worker::Config::default())
    }

    /// The server's proxy is set up like this.
    pub(crate) fn start_with(
        mode: MtlsMode,
        application: SocketAddr,
        served: worker::Config,
    ) -> Self {
        Self::join(bound(), settings(mode), application, served)
    }

    /// In front of an application whose port these settings tell of, from its first connection on.
    pub(crate) fn start_told(
        application: SocketAddr,
        told: impl FnOnce(u16) -> Arc<Settings>,
    ) -> Self {
        let listener = bound();
        let port = listener.local_addr().expect("an address").port();
        let told = Arc::unwrap_or_clone(told(port));
        Self::join(listener, told, application, worker::Config::default())
    }

    fn join(
        listener: TcpListener,
        told: Settings,
        application: SocketAddr,
        served: worker::Config,
    ) -> Self {
        let authority = Authority::new("mesh");
        let of = |name| Some(identity(&authority, name, LIFE));
        let of_client = (settings(told.mtls), of(CLIENT));
        let server = Party::server_on(listener, (told, of(SERVER)), application, served);
        let client = Party::client(of_client, server.proxy.addr, Some(SERVER));
        Self {
            authority,
            client,
            server,
        }
    }
}
