//! Two replicas share the work, and one that ends, or hears nothing of the API server, leaves it to the other.

use super::*;

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
    config.leader.silence = Duration::from_secs(3);
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
