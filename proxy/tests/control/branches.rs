//! Routes with backends of their own, as workers are told of them: a set of endpoints for each list.

use weir_proxy::destinations::Answer;
use weir_proxy::endpoints::Listed;
use weir_proxy::telemetry::Dst;

use crate::connection::web;
use crate::desk::{connection, following, service, soon, start, until};
use crate::discovery::{LOOPBACK, WEB, pods};
use crate::operator::Operator;

#[tokio::test]
async fn the_backends_of_each_route_are_followed_once() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    web(&operator, "10.96.0.1:80");
    let path = format!("{WEB}:80");
    let new = "new.shop.svc.cluster.local:80";
    operator.endpoints(new, pods(&[("10.1.2.1:8080", "n")]));
    let table = |routes: &[&[(&str, u32)]]| {
        let routes = routes.iter().zip(0..).map(|(backends, n)| {
            let backends = backends.iter();
            let backends =
                backends.map(|(to, weight)| format!(r#"{{"authority":"{to}","weight":{weight}}}"#));
            let backends = backends.collect::<Vec<_>>().join(",");
            let condition = format!(r#"{{"pathPrefix":"/{n}"}}"#);
            format!(r#"{{"name":"{n}","condition":{condition},"backends":[{backends}]}}"#)
        });
        format!(r#"{{"routes":[{}]}}"#, routes.collect::<Vec<_>>().join(","))
    };
    operator.routes(
        &path,
        &table(&[&[(new, 1)], &[(&path, 9), (new, 1)], &[(new, 1)], &[]]),
    );
    let mut running = start(connection(serving.addr), following());
    let (mut watched, answer) = running.learn("10.96.0.1:80").await;
    let branches = |answer: &Answer| -> Vec<Vec<String>> {
        let Answer::Inside(inside) = answer else {
            panic!("{answer:?}");
        };
        let routes = inside.service.routes.as_ref();
        let named = routes.map_or_else(Vec::new, |routes| routes.branches());
        let branches = &inside.service.branches;
        let backends: Vec<_> = branches.iter().map(|branch| &*branch.backends).collect();
        assert_eq!(backends, named, "each has its endpoints");
        let branches = branches.iter().map(|branch| {
            let listed = branch.endpoints.iter();
            let share = |listed: &Listed| listed.share.map(|s| (s.destination, s.weight));
            let listed = listed.map(|l| format!("{} {:?}", l.addr, share(l).expect("a share")));
            listed.collect()
        });
        branches.collect()
    };
    let own = ["10.1.0.1:8080".to_owned()];
    assert_eq!(service(&answer).1, own, "for those that have none");
    assert_eq!(
        branches(&answer),
        [
            vec!["10.1.2.1:8080 (0, 1)"],
            vec!["10.1.0.1:8080 (0, 9)", "10.1.2.1:8080 (1, 1)"]
        ]
    );
    assert_eq!(operator.streams().0, 4);
    assert_eq!((operator.times(new), operator.times(&path)), (1, 1));
    // One that is gone from a branch is gone, and its series may be.
    operator.endpoints(new, pods(&[]));
    let rest = [vec![], vec!["10.1.0.1:8080 (0, 9)"]];
    watched.until(|answer| branches(answer) == rest).await;
    let gone = soon(running.told.gone.recv()).await.expect("it is told");
    let dst = Dst::new([("namespace", "shop"), ("pod", "n")]);
    assert!(gone.iter().all(|one| *one == dst), "{gone:?}");
    operator.routes(&path, "");
    watched.until(|answer| branches(answer).is_empty()).await;
    until("only the service is followed", || operator.streams().0 == 2).await;
}
