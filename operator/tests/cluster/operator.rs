//! The whole operator against an API server in this process: what an installation looks like after
//! it ran, and what it leaves alone. How two replicas share the work is in `replicas`.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod replicas;

use std::net::SocketAddr;
use std::time::Duration;

use crate::api::Api;
use crate::mesh::{channel, put_mesh, put_pod, watch};
use crate::scene::{SECRETS, apply_webhooks, bundles, eventually, operator, secret};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use weir_operator::app::{Bound, Config, SHUTDOWN_DELAY};
use weir_operator::leader::{self, Leader};
use weir_operator::metrics::Metrics;

const MESHES: &str = "/apis/kuma.io/v1alpha1/meshes";
const PERMISSIONS: &str = "/apis/kuma.io/v1alpha1/trafficpermissions";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kuma-system/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kuma-system/leases";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// A running operator.
pub(crate) struct Running {
    http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    monitoring: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(client: &kube::Client, config: Config) -> Self {
        let bound = Bound::new(client.clone(), config).await.unwrap();
        let (http, grpc, monitoring) = (bound.http, bound.grpc, bound.monitoring);
        let stop = CancellationToken::new();
        let task = tokio::spawn(bound.run(stop.clone()));
        Self {
            http,
            grpc,
            monitoring,
            stop,
            task,
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        ask(self.http, "GET", path).await
    }

    /// What the monitoring server answers.
    pub(crate) async fn monitor(&self, method: &str, path: &str) -> String {
        ask(self.monitoring, method, path).await
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn condition(api: &Api, mesh: &str, status: &str) -> Option<Value> {
    let mesh = api.get(MESHES, mesh)?;
    let conditions = mesh["status"]["conditions"].as_array()?;
    let accepted = conditions.iter().find(|one| one["type"] == "Accepted")?;
    (accepted["status"] == status).then(|| accepted.clone())
}

fn memory(api: &Api) -> Option<String> {
    let state = api.get(CONFIG_MAPS, "weir-operator")?;
    Some(state["data"]["initial-mesh"].as_str()?.to_owned())
}

fn holder(api: &Api) -> Option<String> {
    let lease = api.get(LEASES, "weir-operator")?;
    Some(lease["spec"]["holderIdentity"].as_str()?.to_owned())
}

#[tokio::test]
async fn an_empty_installation_is_put_in_order() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    let running = Running::start(&client, operator("a")).await;

    let accepted = eventually("the Mesh is accepted", || {
        condition(&api, "default", "True")
    })
    .await;
    assert_eq!(accepted["observedGeneration"], 1);
    let memory = eventually("the decision is kept", || memory(&api)).await;
    assert!(memory.starts_with("created "), "{memory}");
    let bundles = eventually("every webhook has a bundle", || bundles(&api)).await;
    let authority = secret(&api, "weir-ca", "tls.crt").unwrap();
    assert_eq!(bundles, vec![authority.clone(); 3]);
    eventually("the webhook has a certificate", || {
        secret(&api, "weir-webhook-tls", "tls.key")
    })
    .await;
    assert_eq!(secret(&api, "weir-webhook-tls", "ca.crt"), Some(authority));
    assert_eq!(holder(&api).as_deref(), Some("a"));

    assert!(running.get("/ready").await.starts_with("HTTP/1.0 200"));
    let metrics = running.get("/metrics").await;
    for line in [
        "weir_operator_leader 1",
        r#"weir_operator_reconciles_total{controller="default_mesh",outcome="changed"} 1"#,
        r#"weir_operator_certificate_expiration_timestamp_seconds{certificate="webhook"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    running.stop().await;
    assert_eq!(holder(&api), None, "the lease is given back");
}

#[tokio::test]
async fn who_wants_no_default_mesh_gets_none() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    let mut config = operator("a");
    config.create_default_mesh = false;
    let running = Running::start(&client, config).await;
    // What the leader does after it is decided.
    eventually("the operator leads", || holder(&api)).await;
    eventually("every webhook has a bundle", || bundles(&api)).await;
    assert_eq!(api.list(MESHES), Vec::<Value>::new());
    let metrics = running.get("/metrics").await;
    assert!(
        !metrics.contains(r#"controller="default_mesh""#),
        "{metrics}"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_mesh_that_the_user_deleted_stays_deleted() {
    let (api, client) = Api::start().await;
    let first = Running::start(&client, operator("a")).await;
    eventually("the decision is kept", || memory(&api)).await;
    first.stop().await;
    api.delete(MESHES, "default");

    let second = Running::start(&client, operator("b")).await;
    let decided = r#"reconciles_total{controller="default_mesh",outcome="unchanged"} 1"#;
    let end = Instant::now() + Duration::from_secs(20);
    while !second.get("/metrics").await.contains(decided) {
        assert!(Instant::now() < end, "the second operator decides too");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(api.list(MESHES), Vec::<Value>::new());
    second.stop().await;
}

#[tokio::test]
async fn a_mesh_begins_with_a_permission_for_everyone_once() {
    let (api, client) = Api::start().await;
    let without = json!({"skipCreatingInitialPolicies": ["TrafficPermission"]});
    api.put(
        MESHES,
        json!({"metadata": {"name": "closed"}, "spec": without}),
    );
    api.put(MESHES, json!({"metadata": {"name": "open"}, "spec": {}}));
    // The webhook may not serve yet, and an earlier Mesh of that name may have left its own behind.
    api.fail(&format!("POST {PERMISSIONS}"), 500, 1);
    let owner = json!({"kind": "Mesh", "name": "open", "uid": "earlier"});
    let left = json!({"metadata": {"name": "allow-all-open", "ownerReferences": [owner]}});
    api.put(PERMISSIONS, left);
    let first = Running::start(&client, operator("a")).await;
    eventually("the Mesh without is decided", || reason(&api, "closed")).await;
    assert_eq!(reason(&api, "open"), None, "the earlier one goes first");
    api.delete(PERMISSIONS, "allow-all-open");
    let reason_open = eventually("the other is decided", || reason(&api, "open")).await;
    assert_eq!(
        (reason_open.as_str(), reason(&api, "closed").as_deref()),
        ("Created", Some("Skipped"))
    );
    let permission = api.get(PERMISSIONS, "allow-all-open").unwrap();
    let uid = &api.get(MESHES, "open").unwrap()["metadata"]["uid"];
    assert_eq!(&permission["metadata"]["ownerReferences"][0]["uid"], uid);
    assert!(api.get(PERMISSIONS, "allow-all-closed").is_none());
    first.stop().await;

    api.delete(PERMISSIONS, "allow-all-open");
    api.put(MESHES, json!({"metadata": {"name": "late"}, "spec": {}}));
    let second = Running::start(&client, operator("b")).await;
    eventually("a late Mesh is decided", || reason(&api, "late")).await;
    second.stop().await;
    let names: Vec<Value> = api.list(PERMISSIONS);
    let names: Vec<_> = names.iter().map(|one| &one["metadata"]["name"]).collect();
    assert_eq!(names, ["allow-all-late"], "what was deleted stays deleted");
}

/// How it was decided which policies a Mesh begins with.
fn reason(api: &Api, mesh: &str) -> Option<String> {
    let mesh = api.get(MESHES, mesh)?;
    let conditions = mesh["status"]["conditions"].as_array()?;
    let decided = conditions
        .iter()
        .find(|one| one["type"] == "InitialPolicies")?;
    Some(decided["reason"].as_str()?.to_owned())
}

#[tokio::test]
async fn where_the_user_has_meshes_none_is_added() {
    let (api, client) = Api::start().await;
    api.put(MESHES, json!({"metadata": {"name": "mine"}, "spec": {}}));
    let running = Running::start(&client, operator("a")).await;
    let memory = eventually("the decision is kept", || memory(&api)).await;
    assert!(memory.starts_with("found "), "{memory}");
    eventually("the Mesh is accepted", || condition(&api, "mine", "True")).await;
    running.stop().await;
    assert!(api.get(MESHES, "default").is_none());
    assert_eq!(api.get(MESHES, "mine").unwrap()["spec"], json!({}));
}

#[tokio::test]
async fn an_invalid_mesh_gets_a_condition_and_one_warning() {
    let (api, client) = Api::start().await;
    let broken = json!({"metrics": {"enabledBackend": "nope"}});
    api.put(
        MESHES,
        json!({"metadata": {"name": "mine"}, "spec": broken}),
    );
    let running = Running::start(&client, operator("a")).await;
    let refused = eventually("it is refused", || condition(&api, "mine", "False")).await;
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.starts_with("spec.metrics.enabledBackend: "),
        "{message}"
    );
    eventually("a warning", || api.list(EVENTS).pop()).await;

    // Touched, still as wrong: the condition follows the generation, no event repeats it.
    let broken = json!({"metrics": {"enabledBackend": "nope"}, "constraints": {}});
    api.put(
        MESHES,
        json!({"metadata": {"name": "mine"}, "spec": broken}),
    );
    eventually("the new generation is seen", || {
        condition(&api, "mine", "False").filter(|one| one["observedGeneration"] == 2)
    })
    .await;
    api.put(MESHES, json!({"metadata": {"name": "mine"}, "spec": {}}));
    eventually("it is accepted", || condition(&api, "mine", "True")).await;
    eventually("the second event", || api.list(EVENTS).get(1).cloned()).await;
    running.stop().await;
    let events: Vec<Value> = api.list(EVENTS);
    let shown: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["type"].as_str().unwrap(),
                event["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(shown, [("Warning", "Invalid"), ("Normal", "Accepted")]);
    assert_eq!(events[0]["note"], refused["message"]);
}

#[tokio::test]
async fn what_someone_takes_away_comes_back() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    let running = Running::start(&client, operator("a")).await;
    let before = eventually("every webhook has a bundle", || bundles(&api)).await;
    eventually("a certificate", || api.get(SECRETS, "weir-webhook-tls")).await;

    apply_webhooks(&api);
    let after = eventually("every webhook has a bundle again", || bundles(&api)).await;
    assert_eq!(after, before, "the authority stays");
    api.delete(SECRETS, "weir-webhook-tls");
    eventually("a new certificate", || api.get(SECRETS, "weir-webhook-tls")).await;
    running.stop().await;
}
