//! Routes that an operator says: requests of a pod that is really redirected are counted, timed and judged by them, and
//! they change while requests are under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use weir_crds::routes::{Backend, Condition, ResponseClass, ResponseCondition, Route, RouteTable};

use crate::discovery::{WEB, labels, web};
use crate::mesh::Mesh;
use crate::namespace::is_skipped;
use crate::operator::{Endpoints, Labels};

const PODS: &[(&str, &str)] = &[("10.244.0.1:8080", "a"), ("10.244.0.2:8080", "b")];

fn route(name: &str, prefix: &str) -> Route {
    Route {
        name: name.to_owned(),
        condition: Condition::PathPrefix(prefix.to_owned()),
        classes: Vec::new(),
        timeout_ms: None,
        retryable: false,
        backends: Vec::new(),
        missing: 0,
    }
}

fn table(routes: Vec<Route>) -> String {
    let table = RouteTable {
        routes,
        ..RouteTable::default()
    };
    serde_json::to_string(&table).unwrap()
}

/// The status of a request with this path.
fn status(mesh: &Mesh, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    let answer = mesh.say("10.96.0.1:80", &request);
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    status.unwrap_or(&answer).to_owned()
}

/// Books, of which one that is missing is a failure, and what may take two seconds.
fn books_and_slow() -> String {
    let missing = ResponseClass {
        condition: ResponseCondition::Status(404, 404),
        is_failure: true,
    };
    let books = Route {
        classes: vec![missing],
        ..route("books", "/books")
    };
    let slow = Route {
        timeout_ms: Some(2000),
        ..route("slow", "/slow")
    };
    table(vec![books, slow])
}

#[test]
fn requests_are_counted_judged_and_timed_by_their_routes() {
    if is_skipped() {
        return;
    }
    let mesh = Mesh::start();
    mesh.operator
        .routes(&format!("{WEB}:80"), &books_and_slow());
    web(&mesh, "10.96.0.1:80", PODS, false);
    for (path, expected) in [
        ("/books/200", "200"),
        ("/books/404", "404"),
        ("/slow/200", "200"),
        ("/slow/never", "504"),
        ("/other/404", "404"),
    ] {
        assert_eq!(status(&mesh, path), expected, "{path}");
    }
    let dst = format!("direction=outbound,dst={WEB}:80");
    let of = |rest: &str| labels(&format!("{dst}{rest}"));
    let mut requests = mesh.series("route_request_total");
    requests.sort_by_key(|(labels, _)| labels.get("rt_route").cloned());
    let expected = [
        (of(""), 1.0),
        (of(",rt_route=books"), 2.0),
        (of(",rt_route=slow"), 2.0),
    ];
    assert_eq!(requests, expected);
    let response = |route: &str, status: &str, class: &str, error: &str| {
        of(&format!(
            "{route},status_code={status},classification={class},error={error}"
        ))
    };
    let expected = [
        response("", "404", "success", ""),
        response(",rt_route=books", "200", "success", ""),
        response(",rt_route=books", "404", "failure", ""),
        response(",rt_route=slow", "200", "success", ""),
        response(",rt_route=slow", "504", "failure", "timeout"),
    ];
    mesh.until("all are counted", |mesh| {
        mesh.series("route_response_total").len() == expected.len()
    });
    let mut responses = mesh.series("route_response_total");
    responses.sort_by_key(|(labels, _)| {
        (
            labels.get("rt_route").cloned(),
            labels["status_code"].clone(),
        )
    });
    assert_eq!(responses, expected.map(|labels| (labels, 1.0)));
}

#[test]
fn a_table_that_changes_under_load_fails_no_request() {
    if is_skipped() {
        return;
    }
    let mesh = Mesh::start();
    let path = format!("{WEB}:80");
    web(&mesh, "10.96.0.1:80", PODS, false);
    assert_eq!(status(&mesh, "/"), "200");
    let is_over = AtomicBool::new(false);
    let counted = |name: &str| {
        let series = mesh.series("route_request_total");
        series.iter().any(|(labels, count)| {
            labels.get("rt_route").map(String::as_str) == Some(name) && *count > 0.0
        })
    };
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(status(&mesh, "/a/200"), "200");
                sent += 1;
            }
            sent
        });
        for name in (0..8).map(|n| format!("r{n}")) {
            mesh.operator
                .routes(&path, &table(vec![route(&name, "/a")]));
            mesh.until("its requests are counted", |_| {
                load.is_finished() || counted(&name)
            });
            mesh.operator.routes(&path, "");
        }
        is_over.store(true, Ordering::Relaxed);
        let sent = load.join().unwrap();
        assert!(sent > 0);
        println!("{sent} requests");
    });
    for (labels, _) in mesh.series("response_total") {
        assert_eq!((&*labels["status_code"], &*labels["error"]), ("200", ""));
    }
}

#[test]
fn connections_are_divided_by_weight_while_the_weights_change() {
    if is_skipped() {
        return;
    }
    let mesh = Mesh::start();
    let (old, new) = (
        "web-old.shop.svc.cluster.local:80",
        "web-new.shop.svc.cluster.local:80",
    );
    for (service, (at, pod)) in [(old, PODS[0]), (new, PODS[1])] {
        let pod = (at.parse().unwrap(), Labels::from([("pod", pod)]));
        mesh.operator
            .endpoints(service, Endpoints::Are([pod].into()));
    }
    let weighted = |weights: [u32; 2]| {
        let backends = [old, new].into_iter().zip(weights);
        let backends = backends.map(|(authority, weight)| Backend {
            authority: authority.to_owned(),
            weight,
        });
        let table = RouteTable {
            backends: backends.filter(|backend| backend.weight > 0).collect(),
            ..RouteTable::default()
        };
        mesh.operator.routes(
            &format!("{WEB}:80"),
            &serde_json::to_string(&table).unwrap(),
        );
    };
    // Its own endpoint is that of nobody.
    weighted([3, 1]);
    web(&mesh, "10.96.0.1:80", &[("10.244.0.9:1", "own")], false);
    let reached = |requests: u32| {
        let bodies = (0..requests).map(|_| mesh.get("10.96.0.1:80", "web").0);
        let counts = bodies.fold([0, 0], |[old, new], body| match body.as_str() {
            at if at == PODS[0].0 => [old + 1, new],
            at if at == PODS[1].0 => [old, new + 1],
            other => panic!("{other}"),
        });
        println!("{counts:?}");
        counts
    };
    let [_, canary] = reached(400);
    // Five times the deviation of such a draw, 8.7.
    assert!((57..=143).contains(&canary), "{canary} of 400");
    weighted([0, 1]);
    mesh.until("all go to the new one", |_| reached(10) == [0, 10]);
    assert_eq!(reached(50), [0, 50]);
}
