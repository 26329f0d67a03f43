//! The operator in this process, and its clients over TLS.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::SignedDuration;
use linkerd2_proxy_api::destination::update::Update as Change;
use linkerd2_proxy_api::destination::{GetDestination, Update};
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};
use weir_crds::grpc::destination::destination_client::DestinationClient;
use weir_crds::grpc::v1::settings_client::SettingsClient;
use weir_crds::grpc::v1::{Document, WatchRequest};
use weir_crds::settings::{SETTINGS_VERSION, Settings};
use weir_operator::app::{Grpc, universal};
use weir_operator::ca::Source;
use weir_operator::documents;
use weir_operator::serve::Limits;
use weir_operator::token::{Grant, TokenRequest};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::scene::{Folder, soon, until};

pub(crate) const HOUR: SignedDuration = SignedDuration::from_hours(1);

pub(crate) struct Operator {
    http: SocketAddr,
    channel: Channel,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Operator {
    pub(crate) async fn start(folder: &Folder) -> Self {
        let loopback = Some(([127, 0, 0, 1], 0).into());
        let names = vec!["operator.example".to_owned()];
        let config = universal::Config {
            http_address: loopback,
            shutdown: Duration::from_secs(5),
            grpc: Grpc {
                address: loopback,
                plaintext: false,
                limits: Limits {
                    grace: Duration::from_millis(100),
                    ..Limits::default()
                },
            },
            documents: documents::Config {
                directory: folder.documents(),
                look: Duration::from_millis(50),
                settle: Duration::ZERO,
            },
            state_dir: folder.state(),
            serving: Source::Own {
                names,
                validity: HOUR * 24,
            },
        };
        let bound = universal::Bound::new(config).await.unwrap();
        let stop = CancellationToken::new();
        let (http, grpc) = (bound.http, bound.grpc);
        let task = tokio::spawn(bound.run(stop.clone()));
        let authority = std::fs::read_to_string(folder.authority()).unwrap();
        let operator = Self {
            http,
            channel: connect(grpc, &authority).await,
            stop,
            task,
        };
        until(
            "it is ready",
            || operator.page("/ready"),
            |page| page.starts_with("HTTP/1.1 200"),
        )
        .await;
        operator
    }

    pub(crate) async fn page(&self, path: &str) -> String {
        crate::programs::page(self.http, path).await
    }

    pub(crate) async fn certify(
        &self,
        token: &str,
        identity: &str,
    ) -> Result<CertifyResponse, Status> {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let request = CertifyRequest {
            identity: identity.to_owned(),
            token: token.as_bytes().to_vec(),
            certificate_signing_request: csr.der().to_vec(),
        };
        let answer = IdentityClient::new(self.channel.clone());
        let answer = soon(
            "an answer",
            async move { answer.clone().certify(request).await },
        )
        .await;
        answer.map(tonic::Response::into_inner)
    }

    pub(crate) async fn watch(&self, token: Option<&str>) -> Result<Streaming<Document>, Status> {
        let mut request = Request::new(WatchRequest {
            newest_version: SETTINGS_VERSION,
        });
        if let Some(token) = token {
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        let mut client = SettingsClient::new(self.channel.clone());
        let answer = soon("an answer", client.watch(request)).await;
        answer.map(tonic::Response::into_inner)
    }

    pub(crate) fn destinations(
        &self,
        path: &str,
        context: &str,
    ) -> (DestinationClient<Channel>, GetDestination) {
        let request = GetDestination {
            path: path.to_owned(),
            context_token: context.to_owned(),
            ..GetDestination::default()
        };
        (DestinationClient::new(self.channel.clone()), request)
    }

    pub(crate) async fn get(&self, path: &str, context: &str) -> Streaming<Update> {
        let (mut client, request) = self.destinations(path, context);
        soon("an answer", client.get(request))
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        soon("its end", self.task).await.unwrap();
    }
}

async fn connect(address: SocketAddr, authority: &str) -> Channel {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("operator.example").unwrap();
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://operator.example:8086");
    soon("a connection", endpoint.connect_with_connector(connect))
        .await
        .unwrap()
}

pub(crate) fn grant(name: &str, tags: &[(&str, &str)]) -> Grant {
    let tags = tags.iter();
    Grant {
        mesh: "default".to_owned(),
        name: name.to_owned(),
        tags: tags
            .map(|(tag, value)| ((*tag).to_owned(), [(*value).to_owned()].into()))
            .collect(),
    }
}

pub(crate) fn token(folder: &Folder, name: &str, tags: &[(&str, &str)]) -> String {
    let request = TokenRequest {
        grant: grant(name, tags),
        life: HOUR,
        state_dir: folder.state(),
    };
    universal::make_token(&request).unwrap()
}

pub(crate) fn names(answer: &CertifyResponse) -> Vec<String> {
    let (_, leaf) = X509Certificate::from_der(&answer.leaf_certificate).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let names = names.value.general_names.iter();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => (*name).to_owned(),
        other => panic!("{other:?}"),
    };
    names.map(text).collect()
}

pub(crate) async fn settings(stream: &mut Streaming<Document>) -> Settings {
    let document = soon("a document", stream.message()).await.unwrap().unwrap();
    Settings::parse(&document.json).unwrap()
}

/// The ports that are added (`+80`) or gone (`-80`) by the next message.
pub(crate) async fn change(stream: &mut Streaming<Update>) -> Vec<String> {
    let update = soon("an update", stream.message()).await.unwrap().unwrap();
    match update.update.unwrap() {
        Change::Add(set) => {
            let ports = set.addrs.iter().map(|one| one.addr.as_ref().unwrap().port);
            ports.map(|port| format!("+{port}")).collect()
        }
        Change::Remove(set) => set
            .addrs
            .iter()
            .map(|one| format!("-{}", one.port))
            .collect(),
        Change::NoEndpoints(none) => vec![format!("none {}", none.exists)],
    }
}
