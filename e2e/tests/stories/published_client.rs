//! The operator as any client of the published crate `linkerd2-proxy-api` finds it: every call's answer, to good
//! questions and to bad ones, over TLS and by the tokens that the API server makes for pods.

#[path = "../../../operator/tests/grpc/requests.rs"]
mod requests;

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use hyper_util::rt::TokioIo;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::dangerous::insecure_decode_claims;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams};
use linkerd2_proxy_api::destination::destination_client::DestinationClient;
use linkerd2_proxy_api::destination::tls_identity::Strategy;
use linkerd2_proxy_api::destination::update::Update as Change;
use linkerd2_proxy_api::destination::{DestinationProfile, GetDestination, WeightedAddrSet};
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status, Streaming};
use weir_crds::names::{OPERATOR, OPERATOR_CA, OPERATOR_CA_KEY, SYSTEM_NAMESPACE};
use weir_e2e::cluster::pod::{ip, name};
use weir_e2e::cluster::{Cluster, Story, Workload, eventually};

use self::requests::{foreign, p256, request, unusable};
use crate::beside_others;

/// Every wait ends by then.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a token is valid, in seconds: the API server gives none for less, so the story makes those that have expired.
const LIFE: u64 = 600;
/// The operator's port for proxies.
const GRPC: &str = "8086";

#[tokio::test]
async fn every_call_is_answered_as_the_published_api_says() -> anyhow::Result<()> {
    beside_others("published-client", async |story| {
        story.mesh("PERMISSIVE", "24h").await?;
        for account in ["web", "admin"] {
            story.account(account).await?;
        }
        let web = Workload::web("web").mesh(&story.namespace).account("web");
        story.create(&web.service(8080)).await?;
        let admin = Workload::new("admin", &["sleep", "600"]);
        let admin = admin.mesh(&story.namespace).account("admin");
        let (web, admin) = (web.pod(), admin.pod());
        let (web, _) = tokio::try_join!(story.start(&web), story.start(&admin))?;
        story.certified(&["web", "admin"]).await?;
        let (_forward, channel) = connect(&story.cluster).await?;
        certifies(story, channel.clone()).await?;
        discovers(story, channel, &web).await
    })
    .await
}

/// A way to the operator and a channel over it, by the authority that is published.
async fn connect(cluster: &Cluster) -> anyhow::Result<(Child, Channel)> {
    let target = format!("deployment/{OPERATOR}");
    let mut forward = Command::new(cluster.checkout().join("e2e/kubectl"))
        .args(["--namespace", SYSTEM_NAMESPACE, "port-forward", &target])
        .arg(format!(":{GRPC}"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = forward.stdout.take().context("it has an output")?;
    let mut lines = BufReader::new(output).lines();
    let line = timeout(DEADLINE, lines.next_line()).await??;
    let line = line.context("kubectl port-forward ended")?;
    let address = line
        .strip_prefix("Forwarding from ")
        .and_then(|rest| rest.split(' ').next());
    let address: SocketAddr = address.with_context(|| line.clone())?.parse()?;

    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), SYSTEM_NAMESPACE);
    let published = maps.get(OPERATOR_CA).await?.data.unwrap_or_default();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(published[OPERATOR_CA_KEY].as_bytes()) {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let host = format!("{OPERATOR}.{SYSTEM_NAMESPACE}.svc");
    let server = ServerName::try_from(host.clone())?;
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, server) = (tls.clone(), server.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            tls.connect(server, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{host}:{GRPC}"))?;
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok((forward, channel))
}

/// A token of a ServiceAccount, with more arguments for `kubectl create token`.
async fn token(story: &Story, account: &str, more: &[&str]) -> anyhow::Result<String> {
    let create = ["--namespace", &story.namespace, "create", "token", account];
    let command = [create.as_slice(), more].concat();
    let token = story.cluster.kubectl(&command, "").await?;
    Ok(token.trim().to_owned())
}

/// A token as a pod's proxy has it.
async fn token_of(story: &Story, account: &str, pod: &str) -> anyhow::Result<String> {
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", pod];
    let audience = ["--audience", OPERATOR];
    token(story, account, &[bound.as_slice(), &audience].concat()).await
}

/// Asks for certificates.
struct Certifier(IdentityClient<Channel>);

impl Certifier {
    async fn ask(
        &mut self,
        token: &str,
        identity: &str,
        csr: Vec<u8>,
    ) -> anyhow::Result<Result<CertifyResponse, Status>> {
        let asked = CertifyRequest {
            identity: identity.to_owned(),
            token: token.as_bytes().to_vec(),
            certificate_signing_request: csr,
        };
        let answer = timeout(DEADLINE, self.0.certify(asked)).await?;
        Ok(answer.map(tonic::Response::into_inner))
    }

    async fn refuses(
        &mut self,
        what: &str,
        (token, identity, csr): (&str, &str, Vec<u8>),
        (code, words): (Code, &str),
    ) -> anyhow::Result<()> {
        match self.ask(token, identity, csr).await? {
            Ok(_) => bail!("{what}: a certificate was given"),
            Err(status) => ensure!(
                status.code() == code && status.message().contains(words),
                "{what}: {status} instead of {code:?} with '{words}'"
            ),
        }
        Ok(())
    }
}

async fn certifies(story: &Story, channel: Channel) -> anyhow::Result<()> {
    let own = story.identity("web");
    let good = token_of(story, "web", "web").await?;
    let csr = || request(&p256(), &[]);
    let mut client = Certifier(IdentityClient::new(channel));
    let key = story.cluster.token_key().await?;
    for token in [&good, &issued(&good, &key, 0)?] {
        let asked = client.ask(token, &own, request(&p256(), &[&own]));
        let answer = asked.await?.context("the pod's own certificate")?;
        ensure!(
            !answer.leaf_certificate.is_empty() && answer.valid_until.is_some(),
            "{answer:?}"
        );
    }
    for (csr, code, words) in unusable().into_iter().chain(foreign(&own)) {
        let refused = (good.as_str(), own.as_str(), csr);
        client.refuses("a request", refused, (code, &words)).await?;
    }

    for (what, token, code, words) in useless(story, &good, &key).await? {
        let asked = (token.as_str(), own.as_str(), csr());
        client.refuses(what, asked, (code, words)).await?;
    }
    let nobody = (good.as_str(), "", csr());
    let empty = (Code::InvalidArgument, "identity");
    client.refuses("no identity", nobody, empty).await
}

/// Tokens that give nobody the certificate of `web`, and why; `good` is one that does, `key` what it is signed with.
async fn useless(
    story: &Story,
    good: &str,
    key: &str,
) -> anyhow::Result<[(&'static str, String, Code, &'static str); 7]> {
    let other_audience = ["--audience", "somebody-else"];
    Ok([
        ("no token", String::new(), Code::Unauthenticated, "empty"),
        ("nonsense", "nonsense".to_owned(), Code::Unauthenticated, ""),
        (
            "a token for somebody else",
            token(story, "web", &other_audience).await?,
            Code::Unauthenticated,
            "",
        ),
        (
            "a token of no pod",
            token(story, "web", &["--audience", OPERATOR]).await?,
            Code::FailedPrecondition,
            "projected",
        ),
        (
            "a token that has ended with its pod",
            ended_token(story).await?,
            Code::Unauthenticated,
            "",
        ),
        (
            "a token that has expired",
            issued(good, key, LIFE + 60)?,
            Code::Unauthenticated,
            "expired",
        ),
        (
            "another pod's token",
            token_of(story, "admin", "admin").await?,
            Code::PermissionDenied,
            "admin.",
        ),
    ])
}

/// The token as the API server would have made it so many seconds ago, with its own key.
fn issued(token: &str, key: &str, ago: u64) -> anyhow::Result<String> {
    let header = jsonwebtoken::decode_header(token)?;
    let mut claims: serde_json::Value = insecure_decode_claims(token)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for (claim, at) in [("iat", 0), ("nbf", 0), ("exp", LIFE)] {
        claims[claim] = (now - ago + at).into();
    }
    // Of an elliptic curve in the local cluster, of RSA in kind's.
    let key = EncodingKey::from_ec_pem(key.as_bytes())
        .or_else(|_| EncodingKey::from_rsa_pem(key.as_bytes()))?;
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}

/// A token whose pod is deleted.
async fn ended_token(story: &Story) -> anyhow::Result<String> {
    let pod = Workload::new("gone", &["sleep", "600"]).account("web");
    story.start(&pod.without_proxy().pod()).await?;
    let token = token_of(story, "web", "gone").await?;
    let pods = story.api::<Pod>();
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete("gone", &at_once).await?;
    eventually("the pod is gone", DEADLINE, async || {
        ensure!(pods.get_opt("gone").await?.is_none(), "it is there");
        Ok(token.clone())
    })
    .await
}

fn about(path: &str, context: &str) -> GetDestination {
    GetDestination {
        scheme: "k8s".to_owned(),
        path: path.to_owned(),
        context_token: context.to_owned(),
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> anyhow::Result<T> {
    let message = timeout(DEADLINE, stream.message()).await??;
    message.context("the stream goes on")
}

async fn discovers(story: &Story, channel: Channel, web: &Pod) -> anyhow::Result<()> {
    let mut client = DestinationClient::new(channel);
    let host = format!("web.{}.svc.cluster.local", story.namespace);
    let path = format!("{host}:80");
    let context = format!(r#"{{"ns":"{}","pod":"admin"}}"#, story.namespace);

    let mut stream = client.get(about(&path, &context)).await?.into_inner();
    match next(&mut stream).await?.update {
        Some(Change::Add(set)) => is_web(story, &set, web)?,
        other => bail!("{path}: {other:?}"),
    }
    let mut stream = client.get_profile(about(&path, &context)).await?;
    let profile = next(stream.get_mut()).await?;
    ensure!(profile.fully_qualified_name == host, "{profile:?}");
    let address = format!("{}:8080", ip(web));
    let mut stream = client.get_profile(about(&address, &context)).await?;
    let profile = next(stream.get_mut()).await?;
    let endpoint = profile.endpoint.context("what stands behind an address")?;
    ensure!(
        endpoint.metric_labels.get("pod").map(String::as_str) == Some(name(web)),
        "{endpoint:?}"
    );

    let unknown = format!("nobody.{}.svc.cluster.local:80", story.namespace);
    let mut stream = client.get_profile(about(&unknown, &context)).await?;
    let profile = next(stream.get_mut()).await?;
    ensure!(profile == DestinationProfile::default(), "{profile:?}");
    for (path, code) in [
        (unknown.as_str(), Code::NotFound),
        ("example.com:80", Code::InvalidArgument),
        ("web:0", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let status = client.get(about(path, &context)).await.err();
        let status = status.with_context(|| format!("'{path}' was answered"))?;
        ensure!(status.code() == code, "'{path}': {status}");
    }
    Ok(())
}

/// The one endpoint of the Service: its address, who it is, and the labels for metrics.
fn is_web(story: &Story, set: &WeightedAddrSet, web: &Pod) -> anyhow::Result<()> {
    let [addr] = &set.addrs[..] else {
        bail!("not one endpoint: {set:?}");
    };
    let address = addr.addr.context("it has an address")?;
    let host: IpAddr = address.ip.context("it has an IP address")?.try_into()?;
    ensure!(
        (host.to_string().as_str(), address.port) == (ip(web), 8080),
        "{address:?}"
    );
    let identity = addr.tls_identity.clone().context("it has an identity")?;
    let Some(Strategy::DnsLikeIdentity(told)) = identity.strategy else {
        bail!("{identity:?}");
    };
    ensure!(told.name == story.identity("web"), "{told:?}");
    for (labels, label, expected) in [
        (&set.metric_labels, "service", "web"),
        (&set.metric_labels, "namespace", story.namespace.as_str()),
        (&addr.metric_labels, "pod", name(web)),
        (&addr.metric_labels, "serviceaccount", "web"),
    ] {
        let found = labels.get(label).map(String::as_str);
        ensure!(found == Some(expected), "{label}: {found:?}");
    }
    Ok(())
}
