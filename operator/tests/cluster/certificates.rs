//! The keeper of the certificates against an API server in this process, with the time given: what
//! it writes at which age, in which order, and what it does when a write fails.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::{Arc, Mutex};

use crate::api::Api;
use crate::scene::{SECRETS, apply_webhooks, bundles, certificates, operator, secret};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use weir_operator::ca::{Config, Facts, Keeper, LEAD};
use weir_operator::metrics::Metrics;

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn start() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn serving(api: &Api) -> String {
    secret(api, "weir-webhook-tls", "tls.crt").unwrap()
}

fn authority(api: &Api) -> String {
    secret(api, "weir-ca", "tls.crt").unwrap()
}

fn client(api: &Api) -> kube::Client {
    let address = format!("http://{}", api.address());
    kube::Client::try_from(kube::Config::new(address.parse().unwrap())).unwrap()
}

async fn installed() -> (Api, Keeper) {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    let mut keeper = Keeper::new(client, certificates(), Metrics::default());
    let next = keeper.pass(start(), true).await.unwrap().unwrap();
    let facts = Facts::read(&serving(&api)).unwrap();
    assert_eq!(next, facts.renew_at(), "it comes back for the renewal");
    (api, keeper)
}

#[tokio::test]
async fn a_pass_over_what_is_in_order_writes_nothing() {
    let (api, mut keeper) = installed().await;
    let before = api.requests().len();
    keeper.pass(start() + DAY, true).await.unwrap();
    let requests = api.requests().split_off(before);
    assert!(
        requests.iter().all(|request| request.starts_with("GET ")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_standby_reads_and_never_writes() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    let mut keeper = Keeper::new(client, certificates(), Metrics::default());
    keeper.pass(start(), false).await.unwrap();
    assert!(
        api.requests()
            .iter()
            .all(|request| request.starts_with("GET "))
    );
}

#[tokio::test]
async fn the_serving_certificate_is_renewed_under_the_same_authority() {
    let (api, mut keeper) = installed().await;
    let (first, signer) = (serving(&api), authority(&api));
    keeper.pass(start() + DAY * 59, true).await.unwrap();
    assert_eq!(serving(&api), first);
    keeper.pass(start() + DAY * 61, true).await.unwrap();
    assert_ne!(serving(&api), first);
    assert_eq!(authority(&api), signer);
}

#[tokio::test]
async fn a_certificate_for_another_domain_of_the_cluster_is_made_anew_and_once() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    let mut keeper = Keeper::new(client.clone(), certificates(), Metrics::default());
    keeper.pass(start(), true).await.unwrap();
    let (first, signer) = (serving(&api), authority(&api));
    let config = Config {
        cluster_domain: "corp.example".to_owned(),
        ..certificates()
    };
    let mut keeper = Keeper::new(client, config, Metrics::default());
    keeper.pass(start() + DAY, true).await.unwrap();
    let second = serving(&api);
    assert_ne!(second, first);
    assert_eq!(authority(&api), signer);
    let names = Facts::read(&second).unwrap().names;
    let full = "weir-webhook.kuma-system.svc.corp.example".to_owned();
    assert!(names.contains(&full), "{names:?}");
    keeper.pass(start() + DAY * 2, true).await.unwrap();
    assert_eq!(serving(&api), second);
}

#[tokio::test]
async fn a_rotation_publishes_both_authorities_for_a_while_before_it_serves_by_the_new_one() {
    let (api, mut keeper) = installed().await;
    keeper.pass(start() + DAY * 200, true).await.unwrap();
    let (old, mut before) = (authority(&api), api.requests().len());
    let mut writes = || {
        let requests = api.requests().split_off(before);
        before += requests.len();
        let writes = requests.iter().filter(|one| !one.starts_with("GET "));
        let names = writes.map(|one| one.rsplit('/').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };

    let published = start() + DAY * 241;
    let next = keeper.pass(published, true).await.unwrap();
    assert_eq!(next, Some(published + LEAD));
    let new = authority(&api);
    assert_ne!(new, old);
    assert_eq!(bundles(&api).unwrap(), vec![format!("{new}{old}"); 3]);
    assert_eq!(secret(&api, "weir-ca", "previous.crt").as_ref(), Some(&old));
    assert_eq!(writes(), ["weir-ca", "weir-webhook", "weir-webhook"]);
    // The watch of the configurations asks for a pass at once, in which nothing changes.
    let early = published + LEAD - SignedDuration::from_secs(1);
    let next = keeper.pass(early, true).await.unwrap();
    assert_eq!(next, Some(published + LEAD));
    // Who takes over meanwhile does not know since when it is published.
    let mut successor = Keeper::new(client(&api), certificates(), Metrics::default());
    let next = successor.pass(early, true).await.unwrap();
    assert_eq!(next, Some(early + LEAD));
    assert_eq!(writes(), [""; 0]);
    keeper.pass(published + LEAD, true).await.unwrap();
    assert_eq!(writes(), ["weir-webhook-tls"]);

    keeper.pass(start() + DAY * 361, true).await.unwrap();
    assert_eq!(bundles(&api).unwrap(), vec![new; 3], "the old one expired");
}

#[tokio::test]
async fn while_the_bundle_cannot_be_published_the_webhook_keeps_its_certificate() {
    let (api, mut keeper) = installed().await;
    keeper.pass(start() + DAY * 200, true).await.unwrap();
    let served = serving(&api);
    api.fail("PATCH /apis/admissionregistration.k8s.io", 500, 1);
    let error = keeper.pass(start() + DAY * 241, true).await.unwrap_err();
    assert!(error.to_string().contains("weir-webhook"), "{error}");
    assert_eq!(serving(&api), served, "the old authority is still trusted");
    let published = start() + DAY * 242;
    keeper.pass(published, true).await.unwrap();
    assert_eq!(serving(&api), served, "nor has anybody heard of it yet");
    keeper.pass(published + LEAD, true).await.unwrap();
    assert_ne!(serving(&api), served);
}

#[tokio::test]
async fn without_any_certificate_it_waits_for_nobody() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    let mut keeper = Keeper::new(client, certificates(), Metrics::default());
    api.fail("PATCH /apis/admissionregistration.k8s.io", 500, 1);
    keeper.pass(start(), true).await.unwrap_err();
    assert!(secret(&api, "weir-webhook-tls", "tls.crt").is_some());
}

#[tokio::test]
async fn of_two_writers_one_gets_a_conflict_and_both_end_with_one_authority() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    let mut one = Keeper::new(client.clone(), certificates(), Metrics::default());
    let mut other = Keeper::new(client, certificates(), Metrics::default());
    let (first, second) = tokio::join!(one.pass(start(), true), other.pass(start(), true));
    for error in [first.err(), second.err()].into_iter().flatten() {
        assert_eq!(error.class(), "conflict", "{error}");
    }
    one.pass(start(), true).await.unwrap();
    other.pass(start(), true).await.unwrap();
    let trusted = authority(&api);
    assert_eq!(bundles(&api).unwrap(), vec![trusted.clone(); 3]);
    assert_eq!(secret(&api, "weir-webhook-tls", "ca.crt"), Some(trusted));
}

#[tokio::test]
async fn a_broken_secret_is_replaced_and_its_type_kept() {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    api.put(
        SECRETS,
        json!({"metadata": {"name": "weir-ca"}, "type": "Opaque", "data": {"tls.crt": "bm9uc2Vuc2U="}}),
    );
    let mut keeper = Keeper::new(client, certificates(), Metrics::default());
    keeper.pass(start(), true).await.unwrap();
    assert!(Facts::read(&authority(&api)).unwrap().is_authority);
    let secret = api.get(SECRETS, "weir-ca").unwrap();
    assert_eq!(secret["type"], "Opaque");
}

#[tokio::test]
async fn an_authority_that_is_lost_is_written_back() {
    let (api, mut keeper) = installed().await;
    let (trusted, served) = (authority(&api), serving(&api));
    let key = secret(&api, "weir-ca", "tls.key");
    api.delete(SECRETS, "weir-ca");
    keeper.pass(start() + DAY, true).await.unwrap();
    assert_eq!(authority(&api), trusted);
    assert_eq!(secret(&api, "weir-ca", "tls.key"), key);
    assert_eq!(serving(&api), served);
    // A replica that has only looked on knows it, too.
    let mut standby = Keeper::new(client(&api), certificates(), Metrics::default());
    standby.pass(start() + DAY, false).await.unwrap();
    let nonsense = json!({"metadata": {"name": "weir-ca"}, "type": "Opaque", "data": {}});
    api.put(SECRETS, nonsense);
    standby.pass(start() + DAY, true).await.unwrap();
    assert_eq!(authority(&api), trusted);
    // One that has expired since is worth nothing.
    api.delete(SECRETS, "weir-ca");
    standby.pass(start() + DAY * 361, true).await.unwrap();
    assert_ne!(authority(&api), trusted);
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn errors(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains("ERROR"));
        lines.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn who_loses_the_authority_that_pods_carry_is_told_to_restart_them() {
    let (api, client) = Api::start().await;
    let config = operator("a").own_ca;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let mut keeper = Keeper::new(client.clone(), config.clone(), Metrics::default());
    keeper.pass(start(), true).await.unwrap();
    keeper.pass(start() + DAY * 241, true).await.unwrap();
    assert_eq!(log.errors(), [""; 0], "the authority before signs on");
    api.delete(SECRETS, "weir-operator-ca");
    let mut successor = Keeper::new(client, config, Metrics::default());
    successor.pass(start() + DAY * 242, true).await.unwrap();
    let errors = log.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    for part in ["injected pods must be restarted", "there is none"] {
        assert!(errors[0].contains(part), "{errors:?}");
    }
}
