//! What destinations are, as they change; how many are followed, and for how long.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;
use weir_proxy::destinations::Answer;
use weir_proxy::endpoints::Share;
use weir_proxy::routes::{Compiled, compile};
use weir_proxy::telemetry::Dst;

use crate::connection::web;
use crate::desk::{connection, following, service, start, until};
use crate::operator::{Endpoints, Known, Labels, Operator};

pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
pub(crate) const WEB: &str = "web.shop.svc.cluster.local";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn pods(pods: &[(&str, &'static str)]) -> Endpoints {
    let labels = |pod| Labels::from([("pod", pod)]);
    Endpoints::Are(
        pods.iter()
            .map(|(at, pod)| (addr(at), labels(*pod)))
            .collect(),
    )
}

#[tokio::test]
async fn a_services_endpoints_come_change_and_go() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    web(&operator, "10.96.0.1:80");
    let (a, b) = (("10.1.0.1:8080", "a"), ("10.1.0.2:8080", "b"));
    let set = |of: &[_]| operator.endpoints(&format!("{WEB}:80"), pods(of));
    set(&[a, b]);
    let mut running = start(connection(serving.addr), following());
    let (mut watched, answer) = running.learn("10.96.0.1:80").await;
    let (name, addrs) = service(&answer);
    assert_eq!(
        (name.as_str(), addrs),
        (WEB, vec![a.0.to_owned(), b.0.to_owned()])
    );
    let Answer::Inside(inside) = answer else {
        panic!("it is a service");
    };
    // Labels of the set and of the endpoint.
    let dst = Dst::new([("namespace", "shop"), ("pod", "a")]);
    assert_eq!(inside.service.endpoints[0].dst, dst);
    assert!(!inside.is_opaque);
    for now in [&[b][..], &[], &[a, b]] {
        set(now);
        let expected: Vec<_> = now.iter().map(|(at, _)| (*at).to_owned()).collect();
        watched.until(|answer| service(answer).1 == expected).await;
    }
    // Both were gone, one after the other.
    for _ in 0..2 {
        assert_eq!(running.told.gone.try_recv().map(|gone| gone.len()), Ok(1));
    }
    // Another pod at the same address is another destination.
    set(&[("10.1.0.1:8080", "c"), b]);
    let gone = crate::desk::soon(running.told.gone.recv()).await;
    assert_eq!(gone, Some(vec![dst]));
    operator.profile(
        "10.96.0.1:80",
        Known::Service {
            name: WEB,
            is_opaque: true,
        },
    );
    let is_opaque = |answer: &Answer| matches!(answer, Answer::Inside(i) if i.is_opaque);
    watched.until(is_opaque).await;
    // The address is given to another service.
    operator.profile(
        "10.96.0.1:80",
        Known::Service {
            name: "db.shop.svc.cluster.local",
            is_opaque: false,
        },
    );
    operator.endpoints("db.shop.svc.cluster.local:80", pods(&[b]));
    let is_db = |answer: &Answer| service(answer).0.starts_with("db.");
    watched.until(is_db).await;
    until("its streams are over", || operator.streams().0 == 2).await;
    operator.profile("10.96.0.1:80", Known::Outside);
    watched.until(|answer| *answer == Answer::Outside).await;
    watched.forgotten().await;
}

#[tokio::test]
async fn a_services_routes_come_change_and_go() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    web(&operator, "10.96.0.1:80");
    let table = |name: &str| {
        format!(r#"{{"routes":[{{"name":"{name}","condition":{{"method":"GET"}}}}]}}"#)
    };
    let path = format!("{WEB}:80");
    operator.routes(&path, &table("first"));
    let running = start(connection(serving.addr), following());
    // Nothing is known of the service before its routes are: the first request is one of them.
    let (mut watched, answer) = running.learn("10.96.0.1:80").await;
    let route = |name: &str| {
        let table = serde_json::from_str(&table(name)).expect("a table");
        Some(Arc::new(compile(&table).expect("a good one")))
    };
    let has = |answer: &Answer, routes: &Option<Arc<Compiled>>| match answer {
        Answer::Inside(inside) => inside.service.routes == *routes,
        Answer::Outside | Answer::Pending => false,
    };
    assert!(has(&answer, &route("first")), "{answer:?}");
    assert_eq!(operator.streams().0, 3);
    for name in ["second", "first"] {
        operator.routes(&path, &table(name));
        watched.until(|answer| has(answer, &route(name))).await;
    }
    // What is no table changes nothing; what comes after it does.
    operator.routes(&path, "{");
    operator.endpoints(&path, pods(&[("10.1.0.2:8080", "b")]));
    let moved = watched
        .until(|answer| service(answer).1 == ["10.1.0.2:8080"])
        .await;
    assert!(has(&moved, &route("first")));
    operator.routes(&path, "");
    watched.until(|answer| has(answer, &None)).await;
    until("they are not followed any more", || {
        operator.streams().0 == 2
    })
    .await;
    // They come back, and nobody who has the service waits for them.
    operator.routes(&path, &table("third"));
    watched.until(|answer| has(answer, &route("third"))).await;
    assert_eq!(service(&watched.answers.borrow()).1, ["10.1.0.2:8080"]);
}

#[tokio::test]
async fn requests_are_divided_among_destinations_by_weight() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    web(&operator, "10.96.0.1:80");
    let (old, new) = (
        "old.shop.svc.cluster.local:80",
        "new.shop.svc.cluster.local:80",
    );
    let table = |backends: &[(&str, u32)]| {
        let backends = backends.iter();
        let backends =
            backends.map(|(to, weight)| format!(r#"{{"authority":"{to}","weight":{weight}}}"#));
        let backends = backends.collect::<Vec<_>>().join(",");
        format!(r#"{{"routes":[],"backends":[{backends}]}}"#)
    };
    let path = format!("{WEB}:80");
    operator.endpoints(old, pods(&[("10.1.1.1:8080", "o")]));
    operator.endpoints(new, pods(&[("10.1.2.1:8080", "n"), ("10.1.2.2:8080", "m")]));
    operator.routes(&path, &table(&[(old, 900), (new, 100)]));
    let running = start(connection(serving.addr), following());
    let (mut watched, answer) = running.learn("10.96.0.1:80").await;
    let shares = |answer: &Answer| -> Vec<(String, Option<(u8, u32)>)> {
        let Answer::Inside(inside) = answer else {
            panic!("{answer:?}");
        };
        let listed = inside.service.endpoints.iter();
        let share = |share: Share| (share.destination, share.weight);
        listed
            .map(|l| (l.addr.to_string(), l.share.map(share)))
            .collect()
    };
    let of = |addr: &str, share| (addr.to_owned(), share);
    let divided = [
        of("10.1.1.1:8080", Some((0, 900))),
        of("10.1.2.1:8080", Some((1, 100))),
        of("10.1.2.2:8080", Some((1, 100))),
    ];
    assert_eq!(
        (service(&answer).0.as_str(), shares(&answer)),
        (WEB, divided.to_vec())
    );
    // Both are followed, each for itself.
    operator.endpoints(old, pods(&[]));
    let rest = divided[1..].to_vec();
    watched.until(|answer| shares(answer) == rest).await;
    operator.routes(&path, &table(&[(new, 1)]));
    let all = [
        of("10.1.2.1:8080", Some((0, 1))),
        of("10.1.2.2:8080", Some((0, 1))),
    ];
    watched.until(|answer| shares(answer) == all).await;
    until("one is not followed any more", || operator.streams().0 == 4).await;
    assert_eq!(
        operator.times(new),
        1,
        "the other was not asked about again"
    );
    operator.routes(&path, "");
    let own = [of("10.1.0.1:8080", None)];
    watched.until(|answer| shares(answer) == own).await;
    until("only the service is followed", || operator.streams().0 == 2).await;
}

#[tokio::test]
async fn a_pods_address_is_one_endpoint_and_the_world_is_outside() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    let labels = Labels::from([("pod", "web-0"), ("statefulset", "web")]);
    let pod = addr("10.1.0.7:8080");
    operator.profile("10.1.0.7:8080", Known::Pod(pod, labels));
    let running = start(connection(serving.addr), following());
    let (_pod, answer) = running.learn("10.1.0.7:8080").await;
    let Answer::Inside(inside) = answer else {
        panic!("it is a pod");
    };
    assert_eq!(inside.service.name, "");
    let endpoint = &inside.service.endpoints[0];
    let dst = Dst::new([("pod", "web-0"), ("statefulset", "web")]);
    assert_eq!((endpoint.addr, &endpoint.dst), (pod, &dst));
    let (mut world, answer) = running.learn("93.184.216.34:443").await;
    assert_eq!(answer, Answer::Outside);
    // It is not followed.
    world.forgotten().await;
    until("one stream is open", || operator.streams().0 == 1).await;
}

#[tokio::test]
async fn what_the_operator_refuses_for_good_is_not_asked_again() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    let running = start(connection(serving.addr), following());
    let for_good = [
        Code::InvalidArgument,
        Code::FailedPrecondition,
        Code::NotFound,
        Code::Unimplemented,
    ];
    for (at, code) in [
        "10.96.1.1:80",
        "10.96.1.2:80",
        "10.96.1.3:80",
        "10.96.1.4:80",
    ]
    .into_iter()
    .zip(for_good)
    {
        operator.profile(at, Known::Refused(code));
        let (_, answer) = running.learn(at).await;
        assert_eq!(
            (answer, operator.times(at)),
            (Answer::Outside, 1),
            "{code:?}"
        );
        // A service that cannot be resolved is gone to as it was meant.
        let at = at.replace("10.96.1.", "10.96.2.");
        operator.profile(
            &at,
            Known::Service {
                name: WEB,
                is_opaque: false,
            },
        );
        operator.endpoints(&format!("{WEB}:80"), Endpoints::Refused(code));
        let (_, answer) = running.learn(&at).await;
        assert_eq!(
            service(&answer),
            (WEB.to_owned(), vec![at.clone()]),
            "{code:?}"
        );
    }
    operator.endpoints(&format!("{WEB}:80"), Endpoints::NoSuchService);
    operator.profile(
        "10.96.3.1:80",
        Known::Service {
            name: WEB,
            is_opaque: false,
        },
    );
    let (_, answer) = running.learn("10.96.3.1:80").await;
    assert_eq!(service(&answer).1, ["10.96.3.1:80"]);
}

#[tokio::test]
async fn what_may_pass_is_asked_again() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    let running = start(connection(serving.addr), following());
    for code in [Code::Unavailable, Code::Unauthenticated, Code::Internal] {
        let at = "10.96.4.1:80";
        operator.profile(at, Known::Refused(code));
        let before = operator.times(at);
        let mut watched = running.ask(at).await.expect("room");
        until("it is asked again", || operator.times(at) >= before + 2).await;
        assert_eq!(*watched.answers.borrow(), Answer::Pending, "{code:?}");
        operator.profile(at, Known::Outside);
        watched.until(|answer| *answer == Answer::Outside).await;
        watched.forgotten().await;
    }
}

#[tokio::test]
async fn of_two_thousand_destinations_at_most_500_are_followed_and_those_in_use_stay() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    let running = start(connection(serving.addr), following());
    let at = |n: usize| format!("10.{}.{}.1:80", n / 200, n % 200);
    let known = |n: usize| Known::Pod(addr(&at(n)), Labels::new());
    let mut pinned = Vec::new();
    for n in 0..2000 {
        operator.profile(&at(n), known(n));
        let (watched, answer) = running.learn(&at(n)).await;
        assert_eq!(service(&answer).1, [at(n)]);
        if n < 10 {
            let held = running.connect(&watched);
            pinned.push((watched, held));
        }
    }
    let (_, most) = operator.streams();
    // The last one's place is free before the operator knows.
    assert!((500..=520).contains(&most), "{most} streams");
    until("500 are left", || operator.streams().0 == 500).await;
    for (watched, held) in &pinned {
        assert!(
            watched.answers.has_changed().is_ok(),
            "{held:?} is forgotten"
        );
    }
    // Nobody is forgotten for another where connections are open to all.
    let held: Vec<_> = futures::future::join_all((1510..2000).map(|n| {
        let running = &running;
        let at = at(n);
        async move {
            let watched = running.ask(&at).await.expect("it is followed");
            running.connect(&watched)
        }
    }))
    .await;
    assert!(running.ask("10.99.0.1:80").await.is_none());
    drop(held);
    assert!(running.ask("10.99.0.1:80").await.is_some());
    assert_eq!(operator.times(&at(0)), 1);
}

#[tokio::test]
async fn what_is_not_used_is_forgotten_after_a_while() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    let mut config = following();
    config.idle = Duration::from_millis(300);
    config.sweep = Duration::from_millis(20);
    let running = start(connection(serving.addr), config);
    let pod = |at: &str| Known::Pod(addr(at), Labels::new());
    for at in ["10.1.0.1:80", "10.1.0.2:80"] {
        operator.profile(at, pod(at));
    }
    let (mut unused, _) = running.learn("10.1.0.1:80").await;
    let (mut used, _) = running.learn("10.1.0.2:80").await;
    let held = running.connect(&used);
    unused.forgotten().await;
    until("one stream is left", || operator.streams().0 == 1).await;
    assert!(used.answers.has_changed().is_ok());
    let ended = std::time::Instant::now();
    drop(held);
    used.forgotten().await;
    assert!(ended.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn without_an_operator_what_is_known_of_a_service_is_stale() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    let addr = serving.addr;
    web(&operator, "10.96.0.1:80");
    operator.endpoints(&format!("{WEB}:80"), pods(&[("10.1.0.1:8080", "a")]));
    let running = start(connection(addr), following());
    let (mut watched, answer) = running.learn("10.96.0.1:80").await;
    let stale = |answer: &Answer, is_stale: bool| {
        matches!(answer, Answer::Inside(inside) if inside.is_stale == is_stale)
            && service(answer).1 == ["10.1.0.1:8080"]
    };
    assert!(stale(&answer, false));
    drop(serving);
    watched.until(|answer| stale(answer, true)).await;
    let _serving = operator.serve(addr).await;
    watched.until(|answer| stale(answer, false)).await;
}
