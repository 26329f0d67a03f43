//! `Identity.Certify` as a client of the published crate sees it: the certificate it gets, judged by
//! rustls, and every way to be refused.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use rcgen::CertificateParams;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status};
use weir_operator::mesh_ca::{Authorities, Authority, NotReady, Root, Signer, View};
use weir_operator::serve::Limits;
use weir_operator::serve::identity::Certifier;
use weir_operator::workload::Workload;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::requests::{foreign, p256, request, unusable};
use crate::scene::{DAY, KnownTokens, Pods, Server, authorities, root, roots, soon, workload};

const WEB: &str = "web.shop.serviceaccount.identity.kuma-system.cluster.local";

/// A server that certifies, and what it knows.
struct Scene {
    server: Server,
    client: IdentityClient<Channel>,
    pods: Arc<Pods>,
    authorities: watch::Sender<View>,
    root: Arc<Root>,
}

impl Scene {
    async fn start() -> Self {
        let (_, root) = root(Timestamp::now());
        let view = watch::Sender::new(authorities(&root, root.anchor()));
        let pods = Arc::new(Pods::default());
        pods.put("web-0", Some(workload("default")));
        let metrics = weir_operator::metrics::Metrics::default();
        let certifier = Certifier {
            tokens: KnownTokens::usual(),
            workloads: pods.clone(),
            authorities: view.subscribe(),
            trust_domain: "cluster.local".into(),
            metrics: metrics.server.clone(),
        };
        let server = Server::start(Routes::new(certifier.service()), Limits::default()).await;
        let server = Server { metrics, ..server };
        let client = IdentityClient::new(server.channel().await);
        Self {
            server,
            client,
            pods,
            authorities: view,
            root,
        }
    }

    async fn ask(
        &mut self,
        token: &str,
        identity: &str,
        csr: Vec<u8>,
    ) -> Result<CertifyResponse, Status> {
        let request = CertifyRequest {
            identity: identity.to_owned(),
            token: token.as_bytes().to_vec(),
            certificate_signing_request: csr,
        };
        soon("an answer", self.client.certify(request))
            .await
            .map(tonic::Response::into_inner)
    }

    /// Asked with everything else right, this is refused with that.
    async fn refused(&mut self, csr: Vec<u8>, code: Code, words: &str) {
        let status = self.ask("web-token", WEB, csr).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{words}: {status}");
    }
}

fn der(bytes: &[u8]) -> CertificateDer<'_> {
    CertificateDer::from(bytes)
}

/// Whether a peer that trusts `bundle` takes the chain, as a server's and as a client's.
fn verified(
    bundle: &str,
    answer: &CertifyResponse,
    name: &str,
    at: Timestamp,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (leaf, chain) = (
        der(&answer.leaf_certificate),
        &answer.intermediate_certificates,
    );
    let chain: Vec<_> = chain.iter().map(|one| der(one)).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().unsigned_abs()));
    let roots = Arc::new(roots(bundle));
    let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    server
        .build()
        .unwrap()
        .verify_server_cert(&leaf, &chain, &name, &[], now)?;
    let client = WebPkiClientVerifier::builder_with_provider(roots, provider);
    client
        .build()
        .unwrap()
        .verify_client_cert(&leaf, &chain, now)?;
    Ok(())
}

/// The alternative names of a certificate without a subject.
fn names_of(leaf: &X509Certificate<'_>) -> Vec<String> {
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "the subject is empty");
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => (*name).to_owned(),
        other => panic!("{other}"),
    };
    names.value.general_names.iter().map(text).collect()
}

#[tokio::test]
async fn a_proxy_gets_a_certificate_that_its_peers_verify() {
    let mut scene = Scene::start().await;
    let key = p256();
    let answer = scene
        .ask("web-token\n", WEB, request(&key, &[WEB]))
        .await
        .unwrap();
    for name in [WEB, "metrics.default.mesh"] {
        verified(scene.root.anchor(), &answer, name, Timestamp::now()).unwrap();
    }
    let (_, leaf) = X509Certificate::from_der(&answer.leaf_certificate).unwrap();
    let names = names_of(&leaf);
    assert_eq!(
        names,
        [
            WEB,
            "metrics.default.mesh",
            "spiffe://default/web_shop_svc_80",
            "spiffe://default/web_shop_svc_81",
            "kuma://kuma.io/service/web_shop_svc_80",
            "kuma://kuma.io/service/web_shop_svc_81",
            "kuma://version/v1",
        ]
    );
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(!leaf.is_ca());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    assert_eq!(
        leaf.public_key().subject_public_key.data,
        key.public_key_raw()
    );
}

#[tokio::test]
async fn a_certificate_lives_as_long_as_its_mesh_says() {
    let mut scene = Scene::start().await;
    let (key, before) = (p256(), Timestamp::now());
    let answer = scene
        .ask("web-token", WEB, request(&key, &[]))
        .await
        .unwrap();
    let (_, leaf) = X509Certificate::from_der(&answer.leaf_certificate).unwrap();
    let until = answer.valid_until.unwrap().seconds;
    assert_eq!(leaf.validity().not_after.timestamp(), until);
    let life = SignedDuration::from_secs(until - before.as_second());
    assert!(
        life >= DAY && life <= DAY + SignedDuration::from_secs(20),
        "{life}"
    );
    let backdated = before.as_second() - leaf.validity().not_before.timestamp();
    assert!((3_599..=3_620).contains(&backdated), "{backdated}");

    let again = scene
        .ask("web-token", WEB, request(&key, &[]))
        .await
        .unwrap();
    let (_, other) = X509Certificate::from_der(&again.leaf_certificate).unwrap();
    assert_ne!(
        leaf.raw_serial(),
        other.raw_serial(),
        "also for the same key"
    );
    assert_eq!(
        scene
            .server
            .series(r#"weir_operator_certificates_total{outcome="issued"}"#),
        2.0
    );
}

#[tokio::test]
async fn a_request_in_pem_is_taken_as_well() {
    let mut scene = Scene::start().await;
    let params = CertificateParams::new(vec![WEB.to_owned()]).unwrap();
    let pem = params.serialize_request(&p256()).unwrap().pem().unwrap();
    scene.ask("web-token", WEB, pem.into_bytes()).await.unwrap();
}

#[tokio::test]
async fn requests_that_cannot_be_used_are_refused_by_field_and_remedy() {
    let mut scene = Scene::start().await;
    for (csr, code, words) in unusable().into_iter().chain(foreign(WEB)) {
        scene.refused(csr, code, &words).await;
    }
    let count = |outcome: &str| {
        scene.server.series(&format!(
            r#"weir_operator_certificates_total{{outcome="{outcome}"}}"#
        ))
    };
    assert_eq!(
        (count("request"), count("identity"), count("issued")),
        (5.0, 3.0, 0.0)
    );
}

#[tokio::test]
async fn a_token_gives_its_own_identity_and_no_other() {
    let mut scene = Scene::start().await;
    let csr = || request(&p256(), &[]);
    for (token, identity, code, words) in [
        ("", WEB, Code::Unauthenticated, "token: is empty"),
        ("expired-token", WEB, Code::Unauthenticated, "expired"),
        ("forged-token", WEB, Code::Unauthenticated, "not accept"),
        ("silent-token", WEB, Code::Unavailable, "did not answer"),
        ("unbound-token", WEB, Code::FailedPrecondition, "projected"),
        ("admin-token", WEB, Code::PermissionDenied, "admin.shop."),
        ("web-token", "", Code::InvalidArgument, "identity: is empty"),
        ("web-token", "web.shop", Code::PermissionDenied, WEB),
    ] {
        let status = scene.ask(token, identity, csr()).await.unwrap_err();
        assert_eq!(status.code(), code, "{token} {identity}: {status}");
        assert!(status.message().contains(words), "{words}: {status}");
        assert!(
            token.is_empty() || !status.message().contains(token),
            "a token is never told"
        );
    }
}

#[tokio::test]
async fn a_dataplane_that_nobody_has_named_gets_no_certificate() {
    let mut scene = Scene::start().await;
    scene.pods.put("web-1", Some(workload("default")));
    let csr = request(&p256(), &[]);
    let asked = scene.ask("dataplane-token", "shop.mesh", csr.clone());
    let status = asked.await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("kuma.io/service"), "{status}");
    let named = Workload {
        name: Some("web.mesh".to_owned()),
        ..workload("default")
    };
    scene.pods.put("web-1", Some(named));
    let status = scene.ask("dataplane-token", "shop.mesh", csr.clone()).await;
    assert_eq!(status.unwrap_err().code(), Code::PermissionDenied);
    scene.ask("dataplane-token", "web.mesh", csr).await.unwrap();
}

#[tokio::test]
async fn a_mesh_without_an_authority_gives_no_certificate() {
    let mut scene = Scene::start().await;
    let csr = request(&p256(), &[]);
    for mesh in ["plain", "missing"] {
        scene.pods.put("web-0", Some(workload(mesh)));
        scene
            .refused(csr.clone(), Code::FailedPrecondition, "mtls.enabledBackend")
            .await;
    }
    scene.pods.put("web-0", Some(workload("default")));
    let field = "mtls.backends[0].conf.cert.secret";
    let violation = weir_crds::Violation::new(field, "there is no Secret \"ca\"");
    let broken = Authority {
        bundle: "".into(),
        signer: Err(NotReady::Unusable(violation)),
    };
    let view = Authorities::from([("default".to_owned(), broken)]);
    scene.authorities.send_replace(Some(Arc::new(view)));
    scene.refused(csr, Code::FailedPrecondition, field).await;
}

#[tokio::test]
async fn a_pod_that_is_not_known_yet_is_waited_for() {
    let mut scene = Scene::start().await;
    scene.pods.put("web-0", None);
    let pods = scene.pods.clone();
    let (answer, ()) = tokio::join!(scene.ask("web-token", WEB, request(&p256(), &[])), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        pods.put("web-0", Some(workload("default")));
    });
    answer.unwrap();
}

#[tokio::test]
async fn a_new_root_signs_when_its_time_has_come() {
    let mut scene = Scene::start().await;
    let lead = SignedDuration::from_millis(400);
    let from = Timestamp::now() + lead;
    let (_, next) = root(Timestamp::now());
    let bundle = format!("{}{}", next.anchor(), scene.root.anchor());
    let signer = Signer {
        root: next.clone(),
        from,
        leaf_life: DAY,
    };
    let authority = Authority {
        bundle: bundle.as_str().into(),
        signer: Ok(signer),
    };
    let view = Authorities::from([("default".to_owned(), authority)]);
    let before = scene
        .ask("web-token", WEB, request(&p256(), &[]))
        .await
        .unwrap();
    scene.authorities.send_replace(Some(Arc::new(view)));
    let after = scene
        .ask("web-token", WEB, request(&p256(), &[]))
        .await
        .unwrap();
    assert!(Timestamp::now() >= from, "it was waited for");

    // Both verify against what everybody was told; alone, neither root verifies the other's.
    for answer in [&before, &after] {
        verified(&bundle, answer, WEB, Timestamp::now()).unwrap();
    }
    verified(next.anchor(), &before, WEB, Timestamp::now()).unwrap_err();
    verified(scene.root.anchor(), &after, WEB, Timestamp::now()).unwrap_err();
    // And neither outlives its time.
    verified(&bundle, &after, WEB, Timestamp::now() + DAY * 2).unwrap_err();
}

#[tokio::test]
async fn calls_go_on_while_roots_change() {
    let scene = Scene::start().await;
    let mut asking = Vec::new();
    for _ in 0..4 {
        let mut client = scene.client.clone();
        asking.push(tokio::spawn(async move {
            for _ in 0..25 {
                let asked = CertifyRequest {
                    identity: WEB.to_owned(),
                    token: b"web-token".to_vec(),
                    certificate_signing_request: request(&p256(), &[WEB]),
                };
                client.certify(asked).await.unwrap();
            }
        }));
    }
    while asking.iter().any(|task| !task.is_finished()) {
        let (_, next) = root(Timestamp::now());
        scene
            .authorities
            .send_replace(authorities(&next, next.anchor()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for task in asking {
        soon("all are answered", task).await.unwrap();
    }
}
