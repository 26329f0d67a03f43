//! HTTPRoutes as users write them, and the tables they make.

use serde_json::json;

use super::*;

const WEB: Parent<'_> = Parent {
    name: "web",
    namespace: "shop",
    port: 80,
    domain: "cluster.local",
};

fn parent() -> Value {
    json!([{"group": "", "kind": "Service", "name": "web"}])
}

fn named_route<'a>(name: &'a str, created: i64, spec: &'a Value) -> HttpRoute<'a> {
    HttpRoute {
        name,
        namespace: "shop",
        created,
        spec,
    }
}

fn table(rules: &Value) -> (RouteTable, Vec<Violation>) {
    let spec = json!({"parentRefs": parent(), "rules": rules});
    compile(&[named_route("r", 0, &spec)], WEB)
}

#[test]
fn a_service_is_a_parent_by_kind_group_name_namespace_and_port() {
    let of = |parents: Value| {
        let spec = json!({"parentRefs": parents});
        attaches(&named_route("r", 0, &spec), WEB)
    };
    assert!(of(parent()));
    assert!(of(
        json!([{"group": "core", "kind": "Service", "name": "web", "namespace": "shop", "port": 80}])
    ));
    for other in [
        json!([{"name": "web"}]),
        json!([{"kind": "Service", "name": "web"}]),
        json!([{"group": "", "kind": "Service", "name": "web", "namespace": "other"}]),
        json!([{"group": "", "kind": "Service", "name": "web", "port": 81}]),
        json!([{"group": "", "kind": "Service", "name": "api"}]),
        json!("x"),
    ] {
        assert!(!of(other.clone()), "{other}");
    }
    assert_eq!(compile(&[], WEB), (RouteTable::default(), vec![]));
}

#[test]
fn matches_come_in_the_order_of_the_api() {
    let (table, problems) = table(&json!([
        {},
        {"name": "long", "matches": [{"path": {"value": "/long"}}]},
        {"matches": [
            {"path": {"type": "Exact", "value": "/e"}},
            {"path": {"value": "/long"}, "method": "GET"},
            {"path": {"type": "RegularExpression", "value": "/x.*"}},
            {"headers": [{"name": "X-A", "value": "1"}]},
            {"queryParams": [{"name": "q", "value": "a.*", "type": "RegularExpression"}]}
        ]}
    ]));
    assert_eq!(problems, []);
    let shown: Vec<_> = table
        .routes
        .iter()
        .map(|r| (r.name.as_str(), &r.condition))
        .collect();
    let prefix = |path: &str| Condition::PathPrefix(path.into());
    let regex = |text: &str| Text::Regex(format!("^(?:{text})$"));
    let expected = [
        ("r/2", Condition::Path(Text::Exact("/e".into()))),
        ("r/2", Condition::Path(regex("/x.*"))),
        (
            "r/2",
            Condition::All(vec![prefix("/long"), Condition::Method("GET".into())]),
        ),
        ("r/long", prefix("/long")),
        (
            "r/2",
            Condition::All(vec![
                prefix("/"),
                Condition::Header("x-a".into(), Text::Exact("1".into())),
            ]),
        ),
        (
            "r/2",
            Condition::All(vec![
                prefix("/"),
                Condition::Query("q".into(), regex("a.*")),
            ]),
        ),
        ("r/0", prefix("/")),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, condition)| (*name, condition))
        .collect();
    assert_eq!(shown, expected);
    assert!(table.closed);
}

#[test]
fn of_equals_the_oldest_route_is_first_then_the_first_by_name() {
    let spec = json!({"parentRefs": parent(), "rules": [{}]});
    let routes = [
        named_route("b", 2, &spec),
        named_route("c", 1, &spec),
        named_route("a", 2, &spec),
    ];
    let (table, _) = compile(&routes, WEB);
    let names: Vec<_> = table
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(names, ["c/0", "a/0", "b/0"]);
}

#[test]
fn backends_have_names_weights_and_a_timeout() {
    let (table, problems) = table(&json!([{
        "timeouts": {"request": "1m30s"},
        "backendRefs": [
            {"name": "v1", "port": 80, "weight": 9},
            {"name": "v2", "namespace": "next", "port": 81},
            {"name": "off", "port": 80, "weight": 0}
        ]
    }]));
    assert_eq!(problems, []);
    let route = &table.routes[0];
    assert_eq!(route.timeout_ms, Some(90_000));
    let backends: Vec<_> = route
        .backends
        .iter()
        .map(|b| (b.authority.as_str(), b.weight))
        .collect();
    let expected = [
        ("v1.shop.svc.cluster.local:80", 9),
        ("v2.next.svc.cluster.local:81", 1),
    ];
    assert_eq!(backends, expected);
}

#[test]
fn backends_that_cannot_be_there_or_have_no_weight_are_missed() {
    let ok = json!({"name": "a", "port": 80, "weight": 3});
    let off = json!({"name": "off", "port": 80, "weight": 0});
    let job = json!({"kind": "Job", "name": "b", "port": 80});
    let job_off = json!({"kind": "Job", "name": "b", "port": 80, "weight": 0});
    let portless = json!({"name": "c", "weight": 2});
    let dotted = json!({"name": "a.shop", "port": 80, "weight": 4});
    for (refs, names, missing) in [
        (json!([]), vec![], 0),
        (json!([ok, off]), vec!["a"], 0),
        (json!([off]), vec![], 1),
        (json!([off, off]), vec![], 1),
        (json!([ok, job, portless]), vec!["a"], 3),
        (json!([job]), vec![], 1),
        (json!([portless, off]), vec![], 2),
        (json!([ok, dotted]), vec!["a"], 4),
        (json!([job_off, off]), vec![], 1),
    ] {
        let (table, _) = table(&json!([{"backendRefs": refs}]));
        let route = &table.routes[0];
        let found: Vec<_> = route
            .backends
            .iter()
            .map(|one| &one.authority[..1])
            .collect();
        assert_eq!((found, route.missing), (names, missing), "{refs}");
    }
}

#[test]
fn what_cannot_be_read_or_is_not_obeyed_is_told_of() {
    let wrong = [
        (
            json!({"matches": [{"path": {"type": "Glob"}}]}),
            "spec.rules[0].matches[0].path.type: must be Exact",
        ),
        (
            json!({"matches": [{"headers": [{"value": "x"}]}]}),
            "spec.rules[0].matches[0].headers[0].name: must be set",
        ),
        (
            json!({"backendRefs": [{"name": "a"}]}),
            "spec.rules[0].backendRefs[0].port: a backend needs",
        ),
        (
            json!({"backendRefs": [{"kind": "Job", "name": "a", "port": 1}]}),
            "must be Service",
        ),
        (
            json!({"backendRefs": [{"name": "a.shop.svc", "port": 1}]}),
            "spec.rules[0].backendRefs[0].name: must not have a dot",
        ),
        (
            json!({"backendRefs": [{"name": "a", "namespace": "b.c", "port": 1}]}),
            "spec.rules[0].backendRefs[0].namespace: must not have a dot",
        ),
        (
            json!({"backendRefs": [{"name": "a", "port": 1, "weight": 0}]}),
            "spec.rules[0].backendRefs: gives no backend a weight",
        ),
        (
            json!({"timeouts": {"request": "soon"}}),
            "spec.rules[0].timeouts.request: ",
        ),
        (
            json!({"filters": [{"type": "RequestRedirect"}]}),
            "spec.rules[0].filters: is not obeyed",
        ),
    ];
    for (rule, message) in wrong {
        let (_, problems) = table(&json!([rule]));
        let problem = problems[0].to_string();
        assert!(problem.contains(message), "{problem} is not {message}");
    }
    let (table, problems) = table(&json!([1, null, {"matches": 3}]));
    let names: Vec<_> = table
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!((names, problems.len()), (vec!["r/1"], 2));
    let spec = json!({"parentRefs": parent(), "rules": "all"});
    let (_, problems) = compile(&[named_route("r", 0, &spec)], WEB);
    assert!(
        problems[0].to_string().starts_with("spec.rules: "),
        "{problems:?}"
    );
    let nothing = json!(null);
    let (table, _) = compile(&[named_route("r", 0, &nothing)], WEB);
    assert!(table.routes.is_empty() && !table.closed);
}
