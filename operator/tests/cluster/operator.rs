//! The whole operator against an API server in this process: what an installation looks like after
//! it ran, what it leaves alone, and how two replicas share the work.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

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

#[tokio::test]
async fn one_replica_writes_and_the_next_takes_over_at_once() {
    let (api, client) = Api::start().await;
    let first = Running::start(&client, operator("a")).await;
    eventually("the decision is kept", || memory(&api)).await;
    assert_eq!(holder(&api).as_deref(), Some("a"));
    let second = Running::start(&client, operator("b")).await;
    assert!(
        second
            .get("/metrics")
            .await
            .contains("weir_operator_leader 0")
    );

    let start = Instant::now();
    first.stop().await;
    eventually("b leads", || holder(&api).filter(|holder| holder == "b")).await;
    let took = start.elapsed();
    assert!(
        took < Duration::from_secs(5),
        "not after the lease's 15 s: {took:?}"
    );
    // And it works: what is taken away now is b's to bring back.
    api.delete(SECRETS, "weir-webhook-tls");
    eventually("a new certificate", || api.get(SECRETS, "weir-webhook-tls")).await;
    second.stop().await;
}

#[tokio::test]
async fn without_an_api_server_it_waits_and_says_so() {
    let (api, client) = Api::start().await;
    api.fail("GET /apis/kuma.io/v1alpha1/meshes", 500, 2);
    api.fail("GET /apis/coordination.k8s.io", 500, 2);
    let running = Running::start(&client, operator("a")).await;
    eventually("the Mesh is accepted", || {
        condition(&api, "default", "True")
    })
    .await;
    let metrics = running.get("/metrics").await;
    assert!(
        metrics.contains(r#"watch_restarts_total{resource="meshes"} 2"#),
        "{metrics}"
    );
    running.stop().await;
}

/// Waits until `/ready` says this.
async fn until_ready_says(running: &Running, text: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let said = running.get("/ready").await;
        if said.contains(text) {
            return;
        }
        assert!(Instant::now() < end, "not in time: {text}, but {said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn whoever_has_lost_the_api_server_sends_proxies_away_until_it_answers() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    put_mesh(&api, json!({"name": "ca-1", "type": "builtin"}));
    put_pod(&api, "web-0", "web-token");
    let mut config = operator("a");
    config.leader.silence = Duration::from_secs(1);
    let running = Running::start(&client, config).await;
    until_ready_says(&running, "200 OK").await;
    let mut stream = watch(channel(&api, running.grpc).await, "web-token").await;

    api.fail("", 500, usize::MAX);
    until_ready_says(&running, "waiting for: the API server\n").await;
    let listed = running.monitor("GET", "/targets").await;
    assert!(listed.starts_with("HTTP/1.0 503 "), "{listed}");
    assert!(listed.contains("lost the API server"), "{listed}");
    let ended = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    assert_eq!(ended.unwrap().code(), Code::Unavailable);
    let mut refused = TcpStream::connect(running.grpc).await.unwrap();
    assert!(
        !matches!(refused.read(&mut [0]).await, Ok(1..)),
        "nothing is said to who connects now"
    );

    api.mend();
    until_ready_says(&running, "200 OK").await;
    let listed = running.monitor("GET", "/targets").await;
    assert!(listed.starts_with("HTTP/1.0 200 "), "{listed}");
    let mut stream = watch(channel(&api, running.grpc).await, "web-token").await;
    assert!(stream.message().await.unwrap().is_some());
    running.stop().await;
}

#[tokio::test]
async fn whoever_is_to_end_gives_the_lease_back_at_once_and_serves_on_for_a_while() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    let backend = |mode: &str| json!({"name": "ca-1", "type": "builtin", "mode": mode});
    put_mesh(&api, backend("STRICT"));
    put_pod(&api, "web-0", "web-token");
    let mut config = operator("a");
    config.shutdown = SHUTDOWN_DELAY;
    let running = Running::start(&client, config).await;
    until_ready_says(&running, "200 OK").await;
    let mut stream = watch(channel(&api, running.grpc).await, "web-token").await;
    assert!(stream.message().await.unwrap().is_some());

    let asked = Instant::now();
    running.stop.cancel();
    until_ready_says(&running, "waiting for: shutdown\n").await;
    let given_back = || holder(&api).is_none().then_some(());
    eventually("the lease is given back", given_back).await;
    let mut late = watch(channel(&api, running.grpc).await, "web-token").await;
    assert!(late.message().await.unwrap().is_some());
    let listed = running.monitor("GET", "/targets").await;
    assert!(listed.starts_with("HTTP/1.0 200 "), "{listed}");
    put_mesh(&api, backend("PERMISSIVE"));
    loop {
        let told = stream.message().await.unwrap().unwrap();
        if told.json.contains(r#""mtls":"permissive""#) {
            break;
        }
    }

    running.task.await.unwrap();
    assert!(asked.elapsed() >= SHUTDOWN_DELAY, "{:?}", asked.elapsed());
    assert_eq!(
        stream.message().await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_writing_before_its_lease_ends() {
    let (api, client) = Api::start().await;
    let config = leader::Config {
        duration: Duration::from_secs(3),
        ..operator("a").leader
    };
    let leader = Leader::new(client, config, Metrics::default());
    let mut leading = leader.leading();
    let stop = CancellationToken::new();
    let task = tokio::spawn(leader.run(stop.clone()));
    leading.wait_for(|leads| *leads).await.unwrap();
    let renewed = Instant::now();
    api.fail("GET /apis/coordination.k8s.io", 500, 1000);
    leading.wait_for(|leads| !leads).await.unwrap();
    let took = renewed.elapsed();
    assert!(
        took >= Duration::from_secs(1),
        "one failure is not the end: {took:?}"
    );
    assert!(
        took < Duration::from_secs(4),
        "the lease is still ours: {took:?}"
    );
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_list_that_is_never_answered_is_asked_for_again() {
    let (api, _) = Api::start().await;
    let address = format!("http://{}", api.address()).parse().unwrap();
    let mut config = kube::Config::new(address);
    config.read_timeout = Some(Duration::from_millis(500));
    let client = weir_process::api_server::client(config).unwrap();
    api.ignore("GET /api/v1/pods");
    let running = Running::start(&client, operator("a")).await;
    let end = Instant::now() + Duration::from_secs(20);
    while !running.get("/ready").await.starts_with("HTTP/1.0 200") {
        assert!(Instant::now() < end, "{}", running.get("/ready").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ignored = "GET /api/v1/pods -> nothing".to_owned();
    assert!(api.requests().contains(&ignored));
    running.stop().await;
}
