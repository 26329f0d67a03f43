//! What the tests of the server share: a running server with its authority, channels to it, doubles
//! for who calls and what its pod is, and a Mesh's roots.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Uri};
use weir_crds::identity::Tags;
use weir_operator::ca::Pair;
use weir_operator::mesh_ca::{Authorities, Authority, NotReady, Root, Signer, View};
use weir_operator::metrics::Metrics;
use weir_operator::serve::tls::Certificates;
use weir_operator::serve::{Bound, Limits, Security};
use weir_operator::token::{Account, Caller, Grant, PodRef, TokenError, Tokens};
use weir_operator::workload::{Workload, WorkloadView, Workloads};

pub(crate) const NAME: &str = "weir-operator.kuma-system.svc";
pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Every wait of a test ends by then.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("in time: {what}"),
    }
}

/// Waits until `holds`.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Pair,
    pub(crate) pairs: watch::Sender<Option<Pair>>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(services: Routes, limits: Limits) -> Self {
        let authority = Pair::authority("operator", Timestamp::now(), DAY).unwrap();
        let pairs = watch::Sender::new(Some(serving(&authority)));
        let metrics = Metrics::default();
        let stop = CancellationToken::new();
        let address = Some(([127, 0, 0, 1], 0).into());
        let bound = Bound::new(address, limits).await.unwrap();
        let address = bound.address;
        let certificates = Certificates::new(pairs.subscribe());
        let security = Security::Tls(certificates.config());
        tokio::spawn(certificates.run(stop.clone()));
        let running = bound.run(services, security, (metrics.server.clone(), stop.clone()));
        let task = tokio::spawn(async move { running.await.unwrap() });
        Self {
            address,
            authority,
            pairs,
            metrics,
            stop,
            task,
        }
    }

    /// A channel that trusts the server's authority.
    pub(crate) async fn channel(&self) -> Channel {
        connect(self.address, &self.authority.certificate)
            .await
            .unwrap()
    }

    /// The value of one series, 0 where it is not printed.
    pub(crate) fn series(&self, series: &str) -> f64 {
        let text = self.metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// A serving certificate of an authority.
pub(crate) fn serving(authority: &Pair) -> Pair {
    authority
        .sign_serving(&[NAME.to_owned()], Timestamp::now(), DAY)
        .unwrap()
}

pub(crate) fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    roots
}

/// TLS to the server for a client that trusts `authority`.
pub(crate) async fn shake_hands(
    address: SocketAddr,
    authority: &str,
    alpn: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(authority))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

pub(crate) async fn connect(
    address: SocketAddr,
    authority: &str,
) -> Result<Channel, tonic::transport::Error> {
    let authority = authority.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let authority = authority.clone();
        async move {
            shake_hands(address, &authority, b"h2")
                .await
                .map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{NAME}:8086")).unwrap();
    endpoint
        .timeout(DEADLINE)
        .connect_with_connector(connector)
        .await
}

/// Who is known by which token. Like the API server's, a token that is unknown is rejected.
#[derive(Default)]
pub(crate) struct KnownTokens(pub(crate) Mutex<HashMap<String, Result<Caller, TokenError>>>);

impl KnownTokens {
    /// `web`'s and `admin`'s pod in namespace `shop`, and some that are of no use.
    pub(crate) fn usual() -> Arc<Self> {
        let expired = TokenError::Rejected(
            "the API server does not accept the token: it has expired".to_owned(),
        );
        let silent = TokenError::Unavailable("the API server did not answer".to_owned());
        let known = [
            ("web-token", Ok(caller("web", "web-0"))),
            ("admin-token", Ok(caller("admin", "admin-0"))),
            (
                "unbound-token",
                Ok(Caller::Account(Account {
                    pod: None,
                    ..account("web", "web-0")
                })),
            ),
            (
                "dataplane-token",
                Ok(Caller::Dataplane(Grant {
                    mesh: "default".to_owned(),
                    name: "web-1".to_owned(),
                    ..Grant::default()
                })),
            ),
            ("expired-token", Err(expired)),
            ("silent-token", Err(silent)),
        ];
        let known = known.map(|(token, answer)| (token.to_owned(), answer));
        Arc::new(Self(Mutex::new(known.into())))
    }
}

impl Tokens for KnownTokens {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, TokenError>> {
        let answer = self.0.lock().unwrap().get(token).cloned();
        let unknown = || {
            Err(TokenError::Rejected(
                "the API server does not accept the token".to_owned(),
            ))
        };
        std::future::ready(answer.unwrap_or_else(unknown)).boxed()
    }
}

pub(crate) fn caller(name: &str, pod: &str) -> Caller {
    Caller::Account(account(name, pod))
}

fn account(name: &str, pod: &str) -> Account {
    Account {
        namespace: "shop".to_owned(),
        service_account: name.to_owned(),
        pod: Some(PodRef {
            name: pod.to_owned(),
            uid: format!("uid-of-{pod}"),
        }),
    }
}

/// What the pods are, by name.
#[derive(Default)]
pub(crate) struct Pods(Mutex<HashMap<String, watch::Sender<WorkloadView>>>);

impl Pods {
    pub(crate) fn put(&self, pod: &str, workload: Option<Workload>) {
        let mut pods = self.0.lock().unwrap();
        let view = pods
            .entry(pod.to_owned())
            .or_insert_with(|| watch::Sender::new(None));
        view.send_replace(workload.map(Arc::new));
    }
}

impl Workloads for Pods {
    fn follow(&self, caller: &Caller) -> watch::Receiver<WorkloadView> {
        let mut pods = self.0.lock().unwrap();
        let name = match caller {
            Caller::Account(Account { pod: Some(pod), .. }) => pod.name.clone(),
            Caller::Dataplane(grant) => grant.name.clone(),
            Caller::Account(_) => String::new(),
        };
        let view = pods.entry(name).or_insert_with(|| watch::Sender::new(None));
        view.subscribe()
    }
}

/// A workload in `mesh` with two services.
pub(crate) fn workload(mesh: &str) -> Workload {
    let tags = [
        (
            "kuma.io/service",
            vec!["web_shop_svc_80", "web_shop_svc_81"],
        ),
        ("version", vec!["v1"]),
    ];
    let set = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect();
    let tags: Tags = tags
        .map(|(tag, values)| (tag.to_owned(), set(values)))
        .into();
    Workload {
        mesh: mesh.to_owned(),
        tags,
        ..Workload::default()
    }
}

/// A root of a Mesh: its pair and what reads it.
pub(crate) fn root(now: Timestamp) -> (Pair, Arc<Root>) {
    let pair = Pair::authority("mesh", now, DAY * 365).unwrap();
    let root = Arc::new(Root::read(&pair, now).unwrap());
    (pair, root)
}

/// Authorities: `default` signs with `root`, `plain` has none.
pub(crate) fn authorities(root: &Arc<Root>, bundle: &str) -> View {
    let signer = Signer {
        root: root.clone(),
        from: Timestamp::now(),
        leaf_life: DAY,
    };
    let default = Authority {
        bundle: bundle.into(),
        signer: Ok(signer),
    };
    let plain = Authority {
        bundle: "".into(),
        signer: Err(NotReady::Off),
    };
    let known = [("default".to_owned(), default), ("plain".to_owned(), plain)];
    Some(Arc::new(Authorities::from(BTreeMap::from(known))))
}
