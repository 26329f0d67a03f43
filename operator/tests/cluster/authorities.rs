//! The keeper of the Meshes' authorities against an API server in this process, with the time given:
//! what it makes, what it takes from the user, and who is trusted while a root is changed.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod provided;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use serde_json::{Value, json};
use weir_crds::Mesh;
use weir_crds::identity::Identity;
use weir_crds::mesh::MeshSpec;
use weir_operator::ca::Pair;
use weir_operator::index::{Indexed, MeshSet};
use weir_operator::mesh_ca::{
    Authority, Config, Keeper, LEAD, MARGIN, NotReady, SecretSet, Secrets, Signer, TRUST, Trust,
};
use weir_operator::metrics::Metrics;

use crate::api::Api;
use crate::scene::{SECRETS, mesh_secret, secret};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const MAPS: &str = "/api/v1/namespaces/kuma-system/configmaps";

/// One replica.
struct Scene {
    api: Api,
    client: kube::Client,
    keeper: Keeper,
    meshes: MeshSet,
}

impl Scene {
    async fn start(backend: Value) -> Self {
        let (api, client) = Api::start().await;
        let mut scene = Self::replica(api, client);
        scene.put(backend);
        scene
    }

    fn replica(api: Api, client: kube::Client) -> Self {
        let config = Config {
            namespace: "kuma-system".to_owned(),
        };
        let keeper = Keeper::new(client.clone(), &config, Metrics::default());
        Self {
            api,
            client,
            keeper,
            meshes: MeshSet::new(),
        }
    }

    fn put(&mut self, backend: Value) {
        let enabled = backend["name"].clone();
        let mtls = json!({"enabledBackend": enabled, "backends": [backend]});
        self.put_mtls(mtls);
    }

    fn put_mtls(&mut self, mtls: Value) {
        let mut mesh = Mesh::new("default", MeshSpec(json!({"mtls": mtls})));
        mesh.metadata.uid = Some("uid-of-default".to_owned());
        self.meshes.insert("default".to_owned(), Arc::new(mesh));
    }

    /// The Secrets as the watch would show them.
    async fn secrets(&self) -> Arc<SecretSet> {
        let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> =
            kube::Api::namespaced(self.client.clone(), "kuma-system");
        let mut index = Secrets::default();
        index.reset(secrets.list(&ListParams::default()).await.unwrap().items);
        let view = index.view().borrow().clone();
        view.unwrap()
    }

    async fn pass(&mut self, now: Timestamp, may_write: bool) {
        let secrets = self.secrets().await;
        self.keeper
            .pass((&self.meshes, &secrets), now, may_write)
            .await
            .unwrap();
    }

    /// What a pass of the leader's says that has to fail.
    async fn failure(&mut self, now: Timestamp) -> String {
        let secrets = self.secrets().await;
        let pass = self.keeper.pass((&self.meshes, &secrets), now, true);
        pass.await.unwrap_err().to_string()
    }

    /// Passes until nothing more is made.
    async fn settle(&mut self, now: Timestamp) {
        for _ in 0..4 {
            self.pass(now, true).await;
        }
    }

    fn authority(&self) -> Authority {
        let view = self.keeper.view().borrow().clone();
        view.unwrap()["default"].clone()
    }

    fn signer(&self) -> Signer {
        self.authority().signer.unwrap()
    }

    fn roots(&self) -> usize {
        self.authority().bundle.matches("BEGIN CERTIFICATE").count()
    }

    fn trust(&self) -> Trust {
        let map = self.api.get(MAPS, TRUST).unwrap();
        Trust::parse(map["data"]["default"].as_str().unwrap()).unwrap()
    }

    fn give(&self, name: &str, value: &str) {
        let mut object = mesh_secret(value);
        object["metadata"] = json!({"name": name});
        self.api.put(SECRETS, object);
    }
}

fn start() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn builtin() -> Value {
    json!({"name": "ca-1", "type": "builtin"})
}

fn provided() -> Value {
    let source = |name: &str| json!({"secret": name});
    json!({"name": "ca-1", "type": "provided", "conf": {"cert": source("cert"), "key": source("key")}})
}

#[tokio::test]
async fn a_builtin_root_is_made_once_under_kumas_names() {
    let mut scene = Scene::start(builtin()).await;
    scene.settle(start()).await;
    let certificate = secret(&scene.api, "default.ca-builtin-cert-ca-1", "value").unwrap();
    assert_eq!(*scene.authority().bundle, *certificate);
    let stored = scene
        .api
        .get(SECRETS, "default.ca-builtin-key-ca-1")
        .unwrap();
    assert_eq!(stored["type"], "system.kuma.io/secret");
    assert_eq!(stored["metadata"]["labels"]["kuma.io/mesh"], "default");
    let owner = &stored["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("Mesh"), &json!("uid-of-default"))
    );
    let signer = scene.signer();
    assert_eq!(signer.from, start(), "nobody trusts another yet");
    assert_eq!(signer.root.not_after(), start() + DAY * 3650);

    let before = scene.api.requests().len();
    scene.settle(start() + DAY).await;
    let requests = scene.api.requests().split_off(before);
    assert!(
        requests.iter().all(|request| request.starts_with("GET ")),
        "{requests:?}"
    );
    assert!(
        Arc::ptr_eq(&signer.root, &scene.signer().root),
        "it is read once"
    );
}

#[tokio::test]
async fn a_standby_signs_with_what_the_leader_made_and_writes_nothing() {
    let mut leader = Scene::start(builtin()).await;
    let mut standby = Scene::replica(leader.api.clone(), leader.client.clone());
    standby.put(builtin());
    standby.pass(start(), false).await;
    assert_eq!(standby.authority().signer.unwrap_err(), NotReady::Soon);
    let writes = leader.api.requests();
    assert!(
        writes.iter().all(|request| request.starts_with("GET ")),
        "{writes:?}"
    );
    leader.settle(start()).await;
    standby.pass(start(), false).await;
    assert_eq!(standby.authority().bundle, leader.authority().bundle);
    assert_eq!(standby.signer().from, leader.signer().from);
}

#[tokio::test]
async fn what_was_interrupted_goes_on_from_what_is_there() {
    let mut scene = Scene::start(builtin()).await;
    scene.pass(start(), true).await;
    let key = secret(&scene.api, "default.ca-builtin-key-ca-1", "value").unwrap();
    assert!(
        scene
            .api
            .get(SECRETS, "default.ca-builtin-cert-ca-1")
            .is_none()
    );
    scene
        .api
        .fail("POST /api/v1/namespaces/kuma-system/secrets", 500, 1);
    let failed = scene.failure(start()).await;
    assert!(failed.contains("default.ca-builtin-cert-ca-1"), "{failed}");
    scene.settle(start()).await;
    assert_eq!(
        secret(&scene.api, "default.ca-builtin-key-ca-1", "value"),
        Some(key)
    );
    scene.signer();
}

#[tokio::test]
async fn a_builtin_root_is_replaced_before_its_end_and_both_are_trusted() {
    let conf = json!({"caCert": {"expiration": "30d"}});
    let rotation = json!({"rotation": {"expiration": "2d"}});
    let mut scene =
        Scene::start(json!({"name": "ca-1", "type": "builtin", "conf": conf, "dpCert": rotation}))
            .await;
    scene.settle(start()).await;
    let old = scene.signer();
    assert_eq!(old.leaf_life, DAY * 2);
    let late = start() + DAY * 21;
    scene.settle(late).await;
    let new = scene.signer();
    assert_ne!(new.root.anchor(), old.root.anchor());
    assert_eq!(new.from, late + LEAD, "everybody is told before it signs");
    let bundle = scene.authority().bundle;
    assert!(bundle.starts_with(new.root.anchor()) && bundle.ends_with(old.root.anchor()));

    // The old one is trusted until its last certificate has expired, and not longer.
    let end = late + DAY * 2 + MARGIN;
    scene.settle(end - SignedDuration::from_secs(1)).await;
    assert_eq!(scene.roots(), 2);
    scene.settle(end).await;
    assert_eq!(scene.roots(), 1);
    assert_eq!(scene.trust().former, Vec::new());
}

#[tokio::test]
async fn switched_off_the_root_is_trusted_until_its_certificates_end() {
    let mut scene = Scene::start(builtin()).await;
    scene.settle(start()).await;
    let root = scene.signer().root.anchor().to_owned();
    scene.put_mtls(json!({}));
    scene.settle(start()).await;
    assert_eq!(scene.authority().signer.unwrap_err(), NotReady::Off);
    assert_eq!(*scene.authority().bundle, *root);
    // Kuma's way to change the authority: off, and on with another.
    scene.put(json!({"name": "ca-2", "type": "builtin"}));
    scene.settle(start() + SignedDuration::from_mins(1)).await;
    assert_eq!(scene.roots(), 2);
    scene.put_mtls(json!({}));
    scene.settle(start() + DAY * 3).await;
    scene.settle(start() + DAY * 6).await;
    assert_eq!(*scene.authority().bundle, *"");
    assert_eq!(
        scene.api.get(MAPS, TRUST).unwrap()["data"].get("default"),
        None
    );
}

#[tokio::test]
async fn a_mesh_that_cannot_be_helped_holds_up_no_other() {
    let mut scene = Scene::start(builtin()).await;
    let mtls = json!({"enabledBackend": "ca-1", "backends": [builtin()]});
    let first = Mesh::new("a", MeshSpec(json!({ "mtls": mtls })));
    scene.meshes.insert("a".to_owned(), Arc::new(first));
    for _ in 0..3 {
        let taken = "POST /api/v1/namespaces/kuma-system/secrets";
        scene.api.fail(taken, 409, 1);
        let failed = scene.failure(start()).await;
        assert!(failed.contains("a.ca-builtin-key-ca-1"), "{failed}");
    }
    scene.signer();
}

#[tokio::test]
async fn a_root_that_can_never_be_made_is_unusable_and_one_that_may_be_is_not() {
    let create = "POST /api/v1/namespaces/kuma-system/secrets";
    let mut scene = Scene::start(json!({"name": "CA_1", "type": "builtin"})).await;
    for code in [422, 403] {
        scene.api.fail(create, code, 1);
        scene.failure(start()).await;
        let Err(NotReady::Unusable(violation)) = scene.authority().signer else {
            panic!("{:?}", scene.authority());
        };
        assert_eq!(violation.field, "mtls.backends[0].name");
        let said = format!("Secret default.ca-builtin-key-CA_1: Injected ({code})");
        assert!(violation.message.contains(&said), "{violation}");
    }
    for code in [401, 404, 409, 500] {
        scene.api.fail(create, code, 1);
        scene.failure(start()).await;
        let signer = scene.authority().signer;
        assert_eq!(signer.unwrap_err(), NotReady::Soon, "{code}");
    }
    scene.settle(start()).await;
    scene.signer();
    // A root that cannot be replaced signs on.
    let late = start() + DAY * 2500;
    let replace = "PUT /api/v1/namespaces/kuma-system/secrets";
    scene.api.fail(replace, 403, 1);
    scene.failure(late).await;
    scene.signer();
}

#[tokio::test]
async fn a_second_writer_is_a_conflict_and_no_overwrite() {
    let mut scene = Scene::start(builtin()).await;
    let stale = scene.secrets().await;
    let mut other = Scene::replica(scene.api.clone(), scene.client.clone());
    other.put(builtin());
    other.settle(start()).await;
    let root = other.signer().root.anchor().to_owned();
    let failed = scene
        .keeper
        .pass((&scene.meshes, &stale), start(), true)
        .await;
    assert_eq!(failed.unwrap_err().class(), "conflict");
    scene.settle(start()).await;
    assert_eq!(scene.signer().root.anchor(), root);
}

/// An authority, and one below it that it signed.
fn chain(now: Timestamp) -> (Pair, Pair) {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    };
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let end = (now + DAY * 365).as_second();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(end).unwrap();
        params
    };
    let [top_key, key] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let top = params("top").self_signed(&top_key).unwrap();
    let issuer = Issuer::from_ca_cert_der(top.der(), &top_key).unwrap();
    let middle = params("middle").signed_by(&key, &issuer).unwrap();
    let pair = |certificate: String, key: &KeyPair| Pair {
        certificate,
        key: key.serialize_pem(),
    };
    (pair(top.pem(), &top_key), pair(middle.pem(), &key))
}

/// The letters of a PEM text, however its lines end.
fn pem_text(pem: &str) -> Vec<&str> {
    pem.lines().collect()
}

/// An identity that can be certified.
trait DefaultNamed {
    fn default_named() -> Self;
}

impl DefaultNamed for Identity {
    fn default_named() -> Self {
        Self {
            name: "web.shop".to_owned(),
            mesh: "default".to_owned(),
            ..Self::default()
        }
    }
}
