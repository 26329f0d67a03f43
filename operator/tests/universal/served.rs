//! What the operator answers its clients: certificates, settings and endpoints, and every way to be refused.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::{Code, Streaming};
use weir_crds::grpc::v1::Document;
use weir_crds::settings::MtlsMode;
use weir_operator::state::StateDir;
use weir_operator::token::{Grant, KEY_PATIENCE, Signed};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::client::{HOUR, Operator, change, grant, names, settings, token};
use crate::scene::{Folder, SHOP_TO_WEB, STRICT, caller, dataplane, soon, until};

const FROM_SHOP: &str = r#"{"mesh":"default","dataplane":"shop-1"}"#;

#[tokio::test]
async fn a_dataplane_is_given_its_certificate_its_settings_and_endpoints() {
    let folder = Folder::new("given");
    folder.write("mesh.yaml", STRICT);
    folder.write("permission.yaml", SHOP_TO_WEB);
    folder.write("web-1.yaml", &dataplane("web-1", "web", (11010, 8080)));
    folder.write(
        "shop-1.yaml",
        &caller("shop-1", "shop", (11020, 9000), 15000),
    );
    let operator = Operator::start(&folder).await;
    let web = token(&folder, "web-1", &[("kuma.io/service", "web")]);

    let certified = operator.certify(&web, "web.mesh").await.unwrap();
    assert_eq!(
        names(&certified),
        [
            "web.mesh",
            "metrics.default.mesh",
            "spiffe://default/web",
            "kuma://kuma.io/service/web",
            "kuma://kuma.io/zone/east"
        ]
    );
    let mut stream = operator.watch(Some(&web)).await.unwrap();
    let said = settings(&mut stream).await;
    assert_eq!(said.mtls, MtlsMode::Strict);
    let identity = said.identity.unwrap();
    assert_eq!(identity.name, "web.mesh");
    assert!(identity.trust_bundle.contains("BEGIN CERTIFICATE"));
    let inbound = &said.inbounds.unwrap()[0];
    assert_eq!((inbound.port, inbound.service.as_str()), (11010, "web"));
    assert_eq!(inbound.permission.as_ref().unwrap().name, "shop-to-web");
    folder.remove("permission.yaml");
    let said = settings(&mut stream).await;
    assert_eq!(said.inbounds.unwrap()[0].permission, None);

    let (mut client, request) = operator.destinations("web.mesh:15000", FROM_SHOP);
    let mut profile = client.get_profile(request).await.unwrap().into_inner();
    let profile = soon("a profile", profile.message()).await.unwrap().unwrap();
    assert_eq!(profile.fully_qualified_name, "web.mesh");
    let (mut client, request) = operator.destinations("127.0.0.1:11010", FROM_SHOP);
    let mut profile = client.get_profile(request).await.unwrap().into_inner();
    let profile = soon("a profile", profile.message()).await.unwrap().unwrap();
    let endpoint = profile.endpoint.unwrap();
    let labels = [("service", "web"), ("zone", "east")];
    let labels: BTreeMap<_, _> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(
        endpoint
            .metric_labels
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        labels
    );
    assert_eq!(
        endpoint.tls_identity.unwrap().server_name.unwrap().name,
        "web.mesh"
    );
    operator.end().await;
}

#[tokio::test]
async fn endpoints_come_and_go_with_their_documents() {
    let folder = Folder::new("endpoints");
    folder.write("web-1.yaml", &dataplane("web-1", "web", (11010, 8080)));
    let operator = Operator::start(&folder).await;
    let mut web = operator.get("web.mesh:15000", FROM_SHOP).await;
    assert_eq!(change(&mut web).await, ["+11010"]);
    let mut address = operator.get("127.0.0.1:11010", "").await;
    assert_eq!(change(&mut address).await, ["+11010"]);
    // Its own inbounds are none for it.
    let own = r#"{"mesh":"default","dataplane":"web-1"}"#;
    let mut own = operator.get("web:80", own).await;
    assert_eq!(change(&mut own).await, ["none true"]);
    let mut tagged = operator
        .get("web", r#"{"tags":{"kuma.io/service":"web","version":"2"}}"#)
        .await;
    assert_eq!(change(&mut tagged).await, ["none true"]);
    // What does not exist yet is waited for.
    let mut db = operator.get("db.mesh:15001", FROM_SHOP).await;
    assert_eq!(change(&mut db).await, ["none false"]);

    let second = dataplane("web-2", "web", (11011, 8081));
    let second = second.replace("kuma.io/zone: east", "version: '2'");
    folder.write("web-2.yaml", &second);
    assert_eq!(change(&mut web).await, ["+11011"]);
    assert_eq!(change(&mut own).await, ["+11011"]);
    assert_eq!(change(&mut tagged).await, ["+11011"]);
    folder.remove("web-1.yaml");
    assert_eq!(change(&mut web).await, ["-11010"]);
    assert_eq!(change(&mut address).await, ["none false"]);
    folder.write("db-1.yaml", &dataplane("db-1", "db", (11030, 5432)));
    assert_eq!(change(&mut db).await, ["+11030"]);
    operator.end().await;
}

/// A Mesh with mutual TLS and two Dataplanes in it, web-1 and shop-1.
async fn two_dataplanes(name: &str) -> (Folder, Operator) {
    let folder = Folder::new(name);
    folder.write("mesh.yaml", STRICT);
    folder.write("web-1.yaml", &dataplane("web-1", "web", (11010, 8080)));
    folder.write("shop-1.yaml", &dataplane("shop-1", "shop", (11020, 9000)));
    let operator = Operator::start(&folder).await;
    (folder, operator)
}

/// That no certificate of `identity` is given, for this reason.
async fn assert_refused(operator: &Operator, token: &str, identity: &str, why: (Code, &str)) {
    let error = operator.certify(token, identity).await.unwrap_err();
    let (code, words) = why;
    assert_eq!(error.code(), code, "{identity}: {error}");
    assert!(error.message().contains(words), "{words}: {error}");
}

#[tokio::test]
async fn a_token_that_is_none_of_the_operators_is_refused_with_what_to_do() {
    let (folder, operator) = two_dataplanes("tokens").await;
    let foreign = Folder::new("foreign");
    Signed::open(&StateDir::open(&foreign.state()).unwrap()).unwrap();
    let signed = Signed::existing(&folder.state(), KEY_PATIENCE).unwrap();
    let expired = signed.sign(&grant("web-1", &[]), Timestamp::now() - HOUR * 2, HOUR);
    for (token, words) in [
        (String::new(), "weir-operator token"),
        ("rubbish".to_owned(), "weir-operator token"),
        (expired.unwrap(), "expired"),
        (token(&foreign, "web-1", &[]), "--state-dir"),
    ] {
        assert_refused(
            &operator,
            &token,
            "web.mesh",
            (Code::Unauthenticated, words),
        )
        .await;
    }
    let page = operator.page("/metrics").await;
    for line in [
        r#"weir_operator_certificates_total{outcome="token"} 4"#,
        r#"weir_operator_documents{state="in_force"} 3"#,
        r#"weir_operator_documents{state="wrong"} 0"#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    operator.end().await;
}

#[tokio::test]
async fn a_token_gives_the_identity_of_its_own_dataplane_and_no_other() {
    let (folder, operator) = two_dataplanes("others").await;
    let web = token(&folder, "web-1", &[]);
    let shop = token(&folder, "shop-1", &[]);
    let tagged = token(&folder, "web-1", &[("kuma.io/service", "shop")]);
    let unknown = token(&folder, "web-9", &[]);
    let denied = |words| (Code::PermissionDenied, words);
    for (token, identity, why) in [
        (&web, "shop.mesh", denied("ask for that")),
        (&shop, "web.mesh", denied("shop.mesh")),
        (&tagged, "web.mesh", denied("--tag kuma.io/service=web")),
        (&web, "", (Code::InvalidArgument, "<service>.mesh")),
        (&unknown, "web.mesh", (Code::Unavailable, "--documents")),
    ] {
        assert_refused(&operator, token, identity, why).await;
    }
    operator.certify(&web, "web.mesh").await.unwrap();
    for (token, code, words) in [
        (None, Code::Unauthenticated, "weir-operator token"),
        (
            Some("rubbish"),
            Code::Unauthenticated,
            "weir-operator token",
        ),
        (
            Some(&*tagged),
            Code::PermissionDenied,
            "--tag kuma.io/service=web",
        ),
    ] {
        let error = operator.watch(token).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(words), "{words}: {error}");
    }
    let mut stream = operator.watch(Some(&unknown)).await.unwrap();
    assert_ended(&mut stream, (Code::Unavailable, "--documents")).await;
    operator.end().await;
}

/// That the next thing a stream says is why it ends.
async fn assert_ended(stream: &mut Streaming<Document>, (code, words): (Code, &str)) {
    let error = soon("its end", stream.message()).await.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(words), "{words}: {error}");
}

#[tokio::test]
async fn a_stream_ends_where_its_dataplane_becomes_what_the_token_does_not_allow() {
    let (folder, operator) = two_dataplanes("retagged").await;
    let web = token(&folder, "web-1", &[("kuma.io/service", "web")]);
    let mut stream = operator.watch(Some(&web)).await.unwrap();
    settings(&mut stream).await;
    folder.write("web-1.yaml", &dataplane("web-1", "db", (11010, 8080)));
    let why = (Code::PermissionDenied, "--tag kuma.io/service=db");
    assert_ended(&mut stream, why).await;
    operator.end().await;
}

#[tokio::test]
async fn a_dataplane_of_a_mesh_that_is_in_no_document_is_told_so_until_there_is_one() {
    let folder = Folder::new("no-mesh");
    let web = dataplane("web-1", "web", (11010, 8080));
    folder.write("web-1.yaml", &web.replace("mesh: default", "mesh: shop"));
    let operator = Operator::start(&folder).await;
    let signed = Signed::existing(&folder.state(), KEY_PATIENCE).unwrap();
    let grant = Grant {
        mesh: "shop".to_owned(),
        ..grant("web-1", &[])
    };
    let web = signed.sign(&grant, Timestamp::now(), HOUR).unwrap();
    let mut stream = operator.watch(Some(&web)).await.unwrap();
    let why = (Code::Unavailable, "no document of Mesh \"shop\"");
    assert_ended(&mut stream, why).await;
    folder.write("mesh.yaml", "type: Mesh\nname: shop\n");
    let mut stream = operator.watch(Some(&web)).await.unwrap();
    assert_eq!(settings(&mut stream).await.mesh, "shop");
    // One that is gone takes nothing away.
    folder.remove("mesh.yaml");
    let wrong = || operator.page("/metrics");
    let wrong = until("it is missed", wrong, |page| {
        page.contains(r#"weir_operator_documents{state="wrong"} 1"#)
    });
    wrong.await;
    folder.write("mesh.yaml", "type: Mesh\nname: shop\nmetrics:\n  enabledBackend: p\n  backends:\n  - {name: p, type: prometheus}\n");
    assert!(settings(&mut stream).await.metrics.is_some());
    operator.end().await;
}

#[tokio::test]
async fn a_new_start_with_the_same_state_knows_tokens_and_roots() {
    let folder = Folder::new("again");
    folder.write("mesh.yaml", STRICT);
    folder.write("web-1.yaml", &dataplane("web-1", "web", (11010, 8080)));
    let operator = Operator::start(&folder).await;
    let web = token(&folder, "web-1", &[]);
    let bundle = async |operator: &Operator| {
        let mut stream = operator.watch(Some(&web)).await.unwrap();
        settings(&mut stream).await.identity.unwrap().trust_bundle
    };
    let first = bundle(&operator).await;
    operator.end().await;
    let operator = Operator::start(&folder).await;
    assert_eq!(bundle(&operator).await, first);
    operator.end().await;
}

#[tokio::test]
async fn a_root_that_the_user_provides_signs() {
    let folder = Folder::new("provided");
    let now = Timestamp::now();
    let root = weir_operator::ca::Pair::authority("mesh", now, HOUR * 24).unwrap();
    let mesh = STRICT.replace(
        "type: builtin",
        "type: provided\n    conf:\n      cert: {secret: root-cert}\n      key: {secret: root-key}",
    );
    folder.write("mesh.yaml", &mesh);
    folder.write("web-1.yaml", &dataplane("web-1", "web", (11010, 8080)));
    let operator = Operator::start(&folder).await;
    let web = token(&folder, "web-1", &[]);
    let error = operator.certify(&web, "web.mesh").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(
        error.message().contains("secrets of --state-dir"),
        "{error}"
    );
    let secrets = folder.state().join("secrets");
    std::fs::write(secrets.join("root-cert"), &root.certificate).unwrap();
    std::fs::write(secrets.join("root-key"), &root.key).unwrap();
    let ask = || operator.certify(&web, "web.mesh");
    let certified = until("a certificate", ask, Result::is_ok).await.unwrap();
    let (_, leaf) = X509Certificate::from_der(&certified.leaf_certificate).unwrap();
    let der = CertificateDer::from_pem_slice(root.certificate.as_bytes()).unwrap();
    let (_, root) = X509Certificate::from_der(&der).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
    operator.end().await;
}

#[tokio::test]
async fn a_root_in_files_signs_and_the_next_one_is_seen() {
    let folder = Folder::new("root-files");
    let root = |folder: &Folder| {
        let pair = weir_operator::ca::Pair::authority("mesh", Timestamp::now(), HOUR * 24).unwrap();
        std::fs::write(folder.place("ca.pem"), &pair.certificate).unwrap();
        std::fs::write(folder.place("ca-key.pem"), &pair.key).unwrap();
        pair
    };
    let conf = format!(
        "type: provided\n    conf:\n      cert: {{file: {}}}\n      key: {{file: {}}}",
        folder.place("ca.pem").display(),
        folder.place("ca-key.pem").display()
    );
    folder.write("mesh.yaml", &STRICT.replace("type: builtin", &conf));
    folder.write("web-1.yaml", &dataplane("web-1", "web", (11010, 8080)));
    let operator = Operator::start(&folder).await;
    let web = token(&folder, "web-1", &[]);
    let error = operator.certify(&web, "web.mesh").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    for words in ["mtls.backends[0].conf.cert.file", "ca.pem cannot be read"] {
        assert!(error.message().contains(words), "{error}");
    }
    let first = root(&folder);
    let ask = || operator.certify(&web, "web.mesh");
    until("a certificate", ask, Result::is_ok).await.unwrap();
    let mut stream = operator.watch(Some(&web)).await.unwrap();
    let bundle = settings(&mut stream).await.identity.unwrap().trust_bundle;
    assert_eq!(bundle, first.certificate);
    let second = root(&folder);
    // It is told to everyone before it signs.
    let bundle = settings(&mut stream).await.identity.unwrap().trust_bundle;
    assert!(bundle.contains(&first.certificate) && bundle.contains(&second.certificate));
    operator.end().await;
}
