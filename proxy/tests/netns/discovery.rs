//! Where connections lead when an operator knows the cluster: really redirected, and counted under the labels of whom they
//! reached.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use weir_crds::settings::Settings;

use crate::mesh::{Control, DEADLINE, Mesh};
use crate::namespace::is_skipped;
use crate::operator::{Endpoints, Known, Labels};
use crate::parser;

pub(crate) const WEB: &str = "web.shop.svc.cluster.local";
const A: (&str, &str) = ("10.244.0.1:8080", "a");
const B: (&str, &str) = ("10.244.0.2:8080", "b");
const C: (&str, &str) = ("10.244.0.3:8080", "c");

/// Says where the service is, and what its endpoints are.
pub(crate) fn web(mesh: &Mesh, at: &str, pods: &[(&str, &'static str)], is_opaque: bool) {
    mesh.operator.profile(
        at,
        Known::Service {
            name: WEB,
            is_opaque,
        },
    );
    let labels = |pod| Labels::from([("deployment", "web"), ("pod", pod), ("service", "web")]);
    let pods = pods
        .iter()
        .map(|(at, pod)| (at.parse().unwrap(), labels(*pod)));
    let (_, port) = at.rsplit_once(':').unwrap();
    mesh.operator
        .endpoints(&format!("{WEB}:{port}"), Endpoints::Are(pods.collect()));
}

pub(crate) fn labels(text: &str) -> parser::Labels {
    let pairs = text.split(',').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

const UNDISCOVERED: &str = "tls=no_identity,no_tls_reason=not_provided_by_service_discovery";

#[test]
fn the_first_connection_waits_for_the_operator_and_is_labelled() {
    if is_skipped() {
        return;
    }
    let mesh = Mesh::start();
    mesh.operator.profile("10.96.0.1:80", Known::Silence);
    let delay = Duration::from_millis(150);
    let (body, took) = thread::scope(|scope| {
        scope.spawn(|| {
            mesh.until("it is asked", |mesh| {
                mesh.operator.times("10.96.0.1:80") == 1
            });
            thread::sleep(delay);
            web(&mesh, "10.96.0.1:80", &[A], false);
        });
        mesh.get("10.96.0.1:80", "web.shop")
    });
    assert_eq!(body, A.0);
    assert!(took >= delay, "{took:?}");
    let dst = "dst_deployment=web,dst_namespace=shop,dst_pod=a,dst_service=web";
    let request =
        format!("direction=outbound,authority=web.shop,target_port=80,{UNDISCOVERED},{dst}");
    let connection =
        format!("direction=outbound,peer=dst,{UNDISCOVERED},authority={WEB},{dst},target_port=80");
    mesh.until("both ends are closed", |mesh| {
        mesh.series("tcp_close_total").len() == 2
    });
    assert_eq!(mesh.series("request_total"), [(labels(&request), 1.0)]);
    let outbound = |family: &str| {
        let mut series = mesh.series(family);
        series.retain(|(labels, _)| labels["peer"] == "dst" && labels["direction"] == "outbound");
        series
    };
    assert_eq!(outbound("tcp_open_total"), [(labels(&connection), 1.0)]);
    assert_eq!(
        outbound("tcp_open_connections"),
        [(labels(&connection), 0.0)]
    );
    // The second is not asked about.
    for _ in 0..3 {
        mesh.get("10.96.0.1:80", "web.shop");
    }
    assert_eq!(mesh.series("request_total"), [(labels(&request), 4.0)]);
    assert_eq!(mesh.operator.times("10.96.0.1:80"), 1);
    // What the proxy itself has asked.
    let operator = mesh.control.as_ref().unwrap().addr;
    let calls = format!("addr={operator},tls=no_identity,no_tls_reason=loopback");
    assert_eq!(
        mesh.series("control_request_total"),
        [(labels(&calls), 2.0)]
    );
}

#[test]
fn a_pods_own_address_is_labelled_and_the_world_is_not() {
    if is_skipped() {
        return;
    }
    let mesh = Mesh::start();
    let pod = Labels::from([("pod", "web-0"), ("statefulset", "web")]);
    mesh.operator
        .profile(A.0, Known::Pod(A.0.parse().unwrap(), pod));
    assert_eq!(mesh.get(A.0, "web-0.web").0, A.0);
    for _ in 0..2 {
        assert_eq!(mesh.get(B.0, "example.com").0, B.0);
    }
    assert_eq!(mesh.operator.times(B.0), 1, "the answer is remembered");
    let of = |authority, dst| {
        let text = format!(
            "direction=outbound,authority={authority},target_port=8080,{UNDISCOVERED}{dst}"
        );
        labels(&text)
    };
    let expected = [
        (of("web-0.web", ",dst_pod=web-0,dst_statefulset=web"), 1.0),
        (of("example.com", ""), 2.0),
    ];
    assert_eq!(mesh.series("request_total"), expected);
}

#[test]
fn an_operator_that_does_not_answer_costs_half_a_second_once() {
    if is_skipped() {
        return;
    }
    let mesh = Mesh::impatient();
    mesh.operator.profile("10.96.0.9:8080", Known::Silence);
    let (body, took) = mesh.get("10.96.0.9:8080", "slow");
    assert_eq!(body, "10.96.0.9:8080", "it goes where it was going");
    assert!(took >= Duration::from_millis(500), "{took:?}");
    let start = Instant::now();
    for _ in 0..5 {
        mesh.get("10.96.0.9:8080", "slow");
    }
    assert!(
        start.elapsed() < Duration::from_millis(2500),
        "each of them waited"
    );
    let series = mesh.series("request_total");
    assert_eq!((series.len(), series[0].1), (1, 6.0));
    assert!(series[0].0.keys().all(|key| !key.starts_with("dst_")));
}

#[test]
fn endpoints_come_and_go_without_a_failed_request() {
    if is_skipped() {
        return;
    }
    let mesh = Mesh::start();
    let sets = [&[A, B][..], &[B, C], &[C], &[A, C]];
    web(&mesh, "10.96.0.1:80", sets[0], false);
    let mut kept = mesh.pod.inside.enter(|| connect("10.96.0.1:80"));
    let first = again(&mut kept);
    for set in sets.iter().cycle().skip(1).take(12) {
        web(&mesh, "10.96.0.1:80", set, false);
        let now: BTreeSet<_> = set.iter().map(|(at, _)| (*at).to_owned()).collect();
        // Every request is answered; soon all of them by some of those that are there now.
        let start = Instant::now();
        let mut seen = BTreeSet::new();
        while seen.is_empty() || !seen.is_subset(&now) {
            assert!(start.elapsed() < DEADLINE, "{seen:?} is not {now:?}");
            seen = (0..12).map(|_| mesh.get("10.96.0.1:80", "web").0).collect();
            assert!(
                seen.iter().all(|body| body.starts_with("10.244.0.")),
                "{seen:?}"
            );
        }
        // A connection stays where it is.
        assert_eq!(again(&mut kept), first);
    }
    for (labels, _) in mesh.series("response_total") {
        assert_eq!((&*labels["status_code"], &*labels["error"]), ("200", ""));
    }
}

fn connect(to: &str) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to.parse().unwrap(), DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Another request on a connection that is kept.
fn again(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        .unwrap();
    let mut answer = [0; 512];
    let n = stream.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
    answer.rsplit_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn traffic_goes_on_without_the_operator_which_is_back_within_ten_seconds() {
    if is_skipped() {
        return;
    }
    let mut mesh = Mesh::impatient();
    web(&mesh, "10.96.0.1:80", &[A], false);
    assert_eq!(mesh.get("10.96.0.1:80", "web").0, A.0);
    let port = mesh.control.take().unwrap().addr.port();
    mesh.until("its streams are broken", |mesh| {
        mesh.operator.streams().0 == 0
    });
    web(&mesh, "10.96.0.1:80", &[B], false);
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(3) {
        assert_eq!(mesh.get("10.96.0.1:80", "web").0, A.0);
    }
    let (body, took) = mesh.get("10.96.0.7:80", "new");
    assert_eq!(body, "10.96.0.7:80");
    assert!(took >= Duration::from_millis(500), "{took:?}");
    mesh.control = Some(Control::start(&mesh.pod, &mesh.operator, port));
    let back = Instant::now();
    while mesh.get("10.96.0.1:80", "web").0 != B.0 {
        assert!(back.elapsed() < Duration::from_secs(10), "it is not back");
    }
    println!("back after {:?}", back.elapsed());
    let responses = mesh.series("response_total");
    assert!(
        responses
            .iter()
            .all(|(labels, _)| labels["status_code"] == "200")
    );
}

#[test]
fn nothing_is_read_into_an_opaque_service() {
    if is_skipped() {
        return;
    }
    let mesh = Mesh::start();
    web(&mesh, "10.96.0.1:80", &[A, B], true);
    let answer = mesh.say(
        "10.96.0.1:80",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    mesh.until("it is counted", |mesh| {
        mesh.series("tcp_close_total").len() == 2
    });
    assert_eq!(mesh.series("request_total"), []);
    let opened = mesh.series("tcp_open_total");
    let dst = opened.iter().find(|(labels, _)| labels["peer"] == "dst");
    let (labels, count) = dst.unwrap();
    assert_eq!((&*labels["authority"], *count), (WEB, 1.0));
    assert!(["a", "b"].contains(&&*labels["dst_pod"]));
}

#[test]
fn without_passthrough_only_what_is_known_is_reached() {
    if is_skipped() {
        return;
    }
    let mesh = Mesh::start();
    let mut settings = Settings::without_metrics("default");
    settings.passthrough = false;
    mesh.settings.send_replace(Arc::new(settings.clone()));
    web(&mesh, "10.96.0.1:80", &[A], false);
    assert_eq!(mesh.get("10.96.0.1:80", "web").0, A.0);
    let refused = mesh.say(
        B.0,
        "GET / HTTP/1.1\r\nHost: far\r\nConnection: close\r\n\r\n",
    );
    assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
    assert_eq!(
        mesh.say(B.0, "neither HTTP nor anything\r\n"),
        "ConnectionReset"
    );
    let errors = mesh.series("outbound_tcp_errors_total");
    let error = labels("direction=outbound,peer=dst,error=connect,target_port=8080");
    assert_eq!(errors, [(error, 2.0)]);
    let mut answers = mesh.series("outbound_http_errors_total");
    answers.retain(|(_, count)| *count > 0.0);
    assert_eq!(answers, [(labels("direction=outbound,error=connect"), 1.0)]);
    let responses = mesh.series("response_total");
    let far = responses
        .iter()
        .find(|(labels, _)| labels["authority"] == "far");
    let (labels, count) = far.unwrap();
    assert_eq!(
        (&*labels["status_code"], &*labels["error"], *count),
        ("502", "connect", 1.0)
    );
    settings.passthrough = true;
    mesh.settings.send_replace(Arc::new(settings));
    mesh.until("it may go there again", |mesh| {
        mesh.get(B.0, "far").0 == B.0
    });
}
