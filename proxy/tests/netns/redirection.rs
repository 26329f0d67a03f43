//! A proxy knows whether its pod is redirected: with the rules, when somebody takes them away, and where there never were
//! any. The proxy and the rules are real; it looks more often than it does by default.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use weir_crds::settings::{MtlsMode, Settings};
use weir_proxy::accept::{Aim, Guard};
use weir_proxy::app;

use crate::mesh::{DEADLINE, ask, inside};
use crate::namespace::is_skipped;
use crate::parser::{self, Syntax};
use crate::pod::{POD_V4, Pod, ask_here, eventually};
use crate::stand_in::{PROXY_UID, redirect};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const INTERVAL: Duration = Duration::from_millis(50);

struct Proxy {
    pod: Pod,
    admin: SocketAddr,
    terminate: tokio::sync::mpsc::Sender<()>,
    served: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In this pod, where the mode of the Mesh is this one, with outbound listeners at these addresses.
    fn start(pod: Pod, mtls: MtlsMode, outbound: &[IpAddr]) -> Self {
        let settings = Settings {
            mtls,
            ..Settings::without_metrics("default")
        };
        let config = config(outbound);
        let (terminate, terminated) = tokio::sync::mpsc::channel(2);
        let (told, admin) = mpsc::channel();
        let served = inside(&pod.inside, Some(PROXY_UID), async move {
            let (_keep, in_force) = watch::channel(Arc::new(settings));
            let app = app::bind(config, in_force).map_err(|error| error.to_string());
            let app = app.unwrap();
            told.send(app.bound().admin).unwrap();
            app.serve(terminated).await.unwrap();
        });
        Self {
            admin: admin.recv_timeout(DEADLINE).unwrap(),
            pod,
            terminate,
            served: Some(served),
        }
    }

    fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        self.pod.inside.enter(|| ask(self.admin, &request))
    }

    /// The samples of the families whose names match.
    fn samples(&self, filter: &str) -> Vec<(String, f64)> {
        let answer = self.get(&format!("/metrics?usedonly&filter={filter}"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let families = parser::parse(body, Syntax::Text).unwrap();
        let samples = families.into_iter().flat_map(|family| family.samples);
        samples.map(|sample| (sample.name, sample.value)).collect()
    }

    fn until_redirected(&self, expected: f64) {
        eventually(&format!("weir_redirected {expected}"), DEADLINE, || {
            self.samples("^weir_redirected$") == [("weir_redirected".to_owned(), expected)]
        });
    }

    fn until_ready(&self, status: &str) -> String {
        let mut ready = String::new();
        eventually(&format!("/ready is {status}"), DEADLINE, || {
            ready = self.get("/ready");
            ready.starts_with(&format!("HTTP/1.0 {status}"))
        });
        ready
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ends = self.terminate.try_send(());
        let _at_once = self.terminate.try_send(());
        if let Some(served) = self.served.take()
            && served.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the proxy has panicked");
        }
    }
}

fn config(outbound: &[IpAddr]) -> app::Config {
    let mut listeners = vec![((Ipv6Addr::UNSPECIFIED, 4143).into(), Aim::Inbound)];
    listeners.extend(
        outbound
            .iter()
            .map(|ip| ((*ip, 4140).into(), Aim::Outbound)),
    );
    let mut config = app::Config {
        workers: 2,
        listeners,
        beats: true,
        ..app::Config::default()
    };
    config.redirection.interval = INTERVAL;
    config.worker.guard = Guard {
        pod_ips: vec![POD_V4],
        own_ports: vec![4140, 4143, 4191],
        ..Guard::default()
    };
    config.admin.addr = (outbound[0], 0).into();
    config.admin.metrics_ip = outbound[0];
    config
}

/// A proxy that knows that its pod is redirected, outside of a Mesh with mutual TLS.
fn in_a_redirected_pod() -> Proxy {
    let pod = Pod::new();
    redirect(&pod.inside, "");
    let proxy = Proxy::start(pod, MtlsMode::Disabled, &[LOOPBACK]);
    proxy.until_redirected(1.0);
    proxy
}

#[test]
fn a_proxy_tells_whether_its_pod_is_redirected() {
    if is_skipped() {
        return;
    }
    let proxy = in_a_redirected_pod();
    proxy.pod.inside.exec("nft delete table inet weir");
    proxy.until_redirected(0.0);
    // Traffic goes on without the proxy, so the pod is as ready as before.
    assert!(proxy.until_ready("200").ends_with("ok\n"));
    assert!(proxy.get("/config").contains(r#""state": "direct""#));
    redirect(&proxy.pod.inside, "--strict");
    proxy.until_redirected(1.0);
    proxy.pod.inside.exec("nft flush table inet weir");
    proxy.until_redirected(0.0);
    redirect(&proxy.pod.inside, "--ip-family-mode ipv4");
    proxy.until_redirected(1.0);
    let counted = proxy.samples("^(tcp|request|response|inbound|outbound|http2)_");
    assert_eq!(counted, [], "the check is no traffic");
}

#[test]
fn nobody_else_is_answered_as_the_check_is() {
    if is_skipped() {
        return;
    }
    let proxy = in_a_redirected_pod();
    let inside = &proxy.pod.inside;
    let check = || ask_here((LOOPBACK, 4189));
    assert_eq!(inside.enter_as(PROXY_UID, check).unwrap(), "weir");
    assert!(inside.enter_as(1000, check).is_err(), "not redirected");
    // Who connects to the listener itself was not redirected either: the guard resets it, and counts.
    let itself = || ask_here((LOOPBACK, 4140));
    assert!(inside.enter_as(1000, itself).is_err());
    let refused = proxy.samples("^outbound_tcp_errors_total$");
    assert_eq!(refused, [("outbound_tcp_errors_total".to_owned(), 1.0)]);
}

#[test]
fn in_a_strict_mesh_a_pod_without_rules_is_not_ready_and_says_why() {
    if is_skipped() {
        return;
    }
    let proxy = Proxy::start(Pod::new(), MtlsMode::Strict, &[LOOPBACK]);
    let refused = proxy.until_ready("503");
    eventually("it says why", DEADLINE, || {
        let ready = proxy.get("/ready");
        ready.contains("this pod is not redirected") && ready.contains("restart the pod")
    });
    assert!(proxy.get("/live").starts_with("HTTP/1.0 200"), "{refused}");
    redirect(&proxy.pod.inside, "--strict");
    proxy.until_ready("200");
    proxy.pod.inside.exec("nft flush ruleset");
    proxy.until_ready("503");
}

#[test]
fn a_pod_of_ipv6_alone_knows_it_too() {
    if is_skipped() {
        return;
    }
    for (without, outbound) in [
        // As the cluster's network makes it: loopback has both addresses.
        (
            "ip -4 addr flush dev eth0",
            &[LOOPBACK, Ipv6Addr::LOCALHOST.into()][..],
        ),
        (
            "ip addr del 127.0.0.1/8 dev lo",
            &[Ipv6Addr::LOCALHOST.into()],
        ),
    ] {
        let pod = Pod::new();
        pod.inside.exec(without);
        redirect(&pod.inside, "");
        let proxy = Proxy::start(pod, MtlsMode::Disabled, outbound);
        proxy.until_redirected(1.0);
        // None of its connections waits for a minute.
        let waiting = proxy
            .pod
            .inside
            .exec("ss -Htan state time-wait sport = :4140");
        assert_eq!(waiting, "");
    }
}
