//! What matches what: a table of cases, and any table against a matcher that is written the simple way.

use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use weir_crds::routes::{Condition, RetryBudget, Text};

use super::*;

struct Headers(Vec<(String, String)>);

impl Fields for Headers {
    fn first(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.0.iter();
        let found = fields.find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_bytes())
    }
}

fn route(name: &str, condition: Condition) -> routes::Route {
    routes::Route {
        name: name.to_owned(),
        condition,
        classes: Vec::new(),
        timeout_ms: None,
        retryable: false,
        backends: Vec::new(),
        missing: 0,
    }
}

fn table(routes: Vec<routes::Route>) -> Table {
    let source = RouteTable {
        routes,
        ..RouteTable::default()
    };
    Table::new(&compile(&source).expect("a table"))
}

fn exact(text: &str) -> Text {
    Text::Exact(text.into())
}

fn regex(text: &str) -> Text {
    Text::Regex(text.into())
}

/// The name of the route that `GET target` with one header is one of.
fn found(table: &Table, target: &str, field: (&str, &str)) -> Option<String> {
    let fields = Headers(vec![(field.0.into(), field.1.into())]);
    let request = Request::new(b"GET", target.as_bytes(), &fields);
    table.find(&request).map(|route| route.name().to_owned())
}

#[test]
fn each_condition_asks_for_its_part_of_the_request() {
    use Condition::{All, Any, Header, Method, Not, Path, PathPrefix, Query};
    for (condition, yes, no) in [
        (Condition::always(), &["/", "/a", "*"][..], &[][..]),
        (Any(vec![]), &[], &["/", "/a"]),
        (Method("GET".into()), &["/"], &[]),
        (Method("get".into()), &[], &["/"]),
        (
            Path(exact("/a")),
            &["/a", "/a?b=/c", "http://h/a"],
            &["/a/", "/A", "/ab", "/"],
        ),
        (
            Path(regex("/a/[^/]+")),
            &["/a/b", "/a/%20?x"],
            &["/a/", "/a/b/c", "x/a/b"],
        ),
        (Path(regex("/a|/b")), &["/a", "/b"], &["/ab", "/a/b"]),
        (
            PathPrefix("/a".into()),
            &["/a", "/a/", "/a/b", "/a?b"],
            &["/ab", "/", "/A/b"],
        ),
        (PathPrefix("/a/".into()), &["/a", "/a/b"], &["/ab"]),
        (PathPrefix("/".into()), &["/", "/a"], &["*"]),
        (Header("X-Kind".into(), exact("one")), &["/"], &[]),
        (Header("x-kind".into(), regex("o.*")), &["/"], &[]),
        (Header("x-kind".into(), regex("n")), &[], &["/"]),
        (Header("x-other".into(), exact("")), &[], &["/"]),
        (
            Query("q".into(), exact("1 2")),
            &["/?q=1+2", "/?a&q=1%202&q=3"],
            &["/?q=3&q=1+2", "/?Q=1+2", "/"],
        ),
        (Not(Box::new(Path(exact("/a")))), &["/b"], &["/a"]),
        (
            All(vec![
                PathPrefix("/a".into()),
                Query("q".into(), regex("[0-9]+")),
            ]),
            &["/a/b?q=12"],
            &["/a?q=x", "/b?q=1"],
        ),
    ] {
        let table = table(vec![route("r", condition.clone())]);
        for (targets, expected) in [(yes, Some("r")), (no, None)] {
            for target in targets {
                let found = found(&table, target, ("x-KIND", "one"));
                assert_eq!(found.as_deref(), expected, "{condition:?} {target}");
            }
        }
    }
}

#[test]
fn the_first_route_that_matches_counts() {
    let prefix = |path: &str| Condition::PathPrefix(path.into());
    let table = table(vec![
        route("one", prefix("/a/b")),
        route("two", prefix("/a")),
        route("three", prefix("/a/c")),
    ]);
    for (target, name) in [("/a/b/c", Some("one")), ("/a/c", Some("two")), ("/", None)] {
        assert_eq!(found(&table, target, ("", "")).as_deref(), name);
    }
}

#[test]
fn what_exceeds_a_bound_is_refused_and_says_what_to_do() {
    let refused = |routes| {
        let source = RouteTable {
            routes,
            ..RouteTable::default()
        };
        compile(&source).expect_err("beyond a bound")
    };
    let many = |n: usize, condition: Condition| vec![route("r", condition); n];
    assert_eq!(
        refused(many(MAX_ROUTES + 1, Condition::always())),
        Bad::Routes(MAX_ROUTES + 1)
    );
    let wide = Condition::Any(vec![Condition::always(); MAX_CONDITIONS]);
    assert_eq!(refused(many(1, wide)), Bad::Conditions);
    let mut deep = Condition::always();
    for _ in 0..=MAX_DEPTH {
        deep = Condition::Not(Box::new(deep));
    }
    assert_eq!(refused(many(1, deep)), Bad::Depth { route: "r".into() });
    let expression = Condition::Path(regex("/a"));
    assert_eq!(
        refused(many(MAX_EXPRESSIONS + 1, expression)),
        Bad::Expressions
    );
    for text in ["(", r"\w{1000}"] {
        let error = refused(many(1, Condition::Path(regex(text))));
        let told = error.to_string();
        assert!(
            told.contains("route \"r\"") && told.contains(&format!("{text:?}")),
            "{told}"
        );
    }
}

#[test]
fn routes_change_while_a_service_is_asked_and_its_budget_stays() {
    let now = Instant::now();
    let routing = Routing::new(1, fastrand::Rng::with_seed(7));
    let source = |path: &str, closed| RouteTable {
        routes: vec![route(path, Condition::Path(exact(path)))],
        closed,
        retry_budget: Some(RetryBudget {
            ratio: 0.0,
            min_per_second: 1,
            ttl: Duration::from_secs(1),
        }),
        backends: Vec::new(),
    };
    let fields = Headers(Vec::new());
    let choose = |target: &str| {
        let request = Request::new(b"GET", target.as_bytes(), &fields);
        match routing.choose(&request) {
            Choice::Matched(route) => route.name().to_owned(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(
        (choose("/a"), routing.may_retry(now)),
        ("Unrouted".into(), false)
    );
    let replace = |table: &RouteTable| {
        let compiled = Arc::new(compile(table).expect("a table"));
        routing.replace(Some(&compiled), now);
    };
    replace(&source("/a", false));
    assert_eq!(
        (choose("/a"), choose("/b")),
        ("/a".into(), "Unmatched".into())
    );
    assert!(routing.may_retry(now) && !routing.may_retry(now));
    replace(&source("/b", true));
    assert_eq!(
        (choose("/a"), choose("/b")),
        ("Refused".into(), "/b".into())
    );
    assert!(!routing.may_retry(now), "it was spent before");
    replace(&RouteTable::default());
    assert!(!routing.has_routes());
}

#[test]
fn a_request_goes_to_what_is_not_there_by_weight() {
    let backend = |weight| Backend {
        authority: "a:80".to_owned(),
        weight,
    };
    let fields = Headers(Vec::new());
    for (backends, missing, of_1000) in [
        (vec![backend(1)], 0, 0..1),
        (vec![], 1, 1000..1001),
        (vec![backend(3)], 1, 200..300),
        (vec![backend(1), backend(2)], 7, 650..750),
    ] {
        let source = RouteTable {
            routes: vec![routes::Route {
                backends,
                missing,
                ..route("r", Condition::always())
            }],
            ..RouteTable::default()
        };
        let routing = Routing::new(1, fastrand::Rng::with_seed(7));
        let compiled = Arc::new(compile(&source).expect("a table"));
        routing.replace(Some(&compiled), Instant::now());
        let request = Request::new(b"GET", b"/", &fields);
        let drawn = (0..1000).map(|_| routing.choose(&request).drawn(|| Some(routing.lot())));
        let gone = drawn.filter(Choice::is_nowhere).count();
        assert!(of_1000.contains(&gone), "{gone} of {missing} missing");
    }
}

/// Conditions over few letters, so that many of them match.
fn conditions() -> impl Strategy<Value = Condition> {
    let text = || {
        prop_oneof![
            "(/[ab]){0,2}/?".prop_map(Text::Exact),
            prop_oneof![Just("/a.*"), Just("[^/]*"), Just("/a|/b/a"), Just("a?b?")]
                .prop_map(|t| Text::Regex(t.to_owned())),
        ]
    };
    let leaf = prop_oneof![
        prop_oneof![Just("GET"), Just("PUT")].prop_map(|m| Condition::Method(m.to_owned())),
        text().prop_map(Condition::Path),
        "(/[ab]){0,2}/?".prop_map(Condition::PathPrefix),
        ("[ab]", text()).prop_map(|(name, text)| Condition::Header(name, text)),
        ("[ab]", text()).prop_map(|(name, text)| Condition::Query(name, text)),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        let several = || proptest::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            several().prop_map(Condition::All),
            several().prop_map(Condition::Any),
            inner.clone().prop_map(|one| Condition::Not(Box::new(one))),
        ]
    })
}

/// A request in the simple form: nothing of it is encoded.
#[derive(Clone, Debug)]
struct Plain {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

fn requests() -> impl Strategy<Value = Plain> {
    let pairs = || proptest::collection::vec(("[ab]", "(/[ab]){0,2}/?|a|b"), 0..3);
    let method = prop_oneof![Just("GET".to_owned()), Just("PUT".to_owned())];
    (method, "/|(/[ab]){1,3}/?|/aba", pairs(), pairs()).prop_map(
        |(method, path, query, headers)| Plain {
            method,
            path,
            query,
            headers,
        },
    )
}

fn naive(condition: &Condition, plain: &Plain) -> bool {
    let text = |text: &Text, value: &str| match text {
        Text::Exact(exact) => exact == value,
        Text::Regex(expression) => {
            let whole = regex::Regex::new(&format!("^({expression})$"));
            whole.expect("an expression").is_match(value)
        }
    };
    let first = |pairs: &[(String, String)], name: &str, wanted: &Text| {
        let found = pairs.iter().find(|(n, _)| n == name);
        found.is_some_and(|(_, value)| text(wanted, value))
    };
    match condition {
        Condition::All(all) => all.iter().all(|one| naive(one, plain)),
        Condition::Any(any) => any.iter().any(|one| naive(one, plain)),
        Condition::Not(not) => !naive(not, plain),
        Condition::Method(method) => *method == plain.method,
        Condition::Path(wanted) => text(wanted, &plain.path),
        Condition::PathPrefix(prefix) => {
            let segments = |path: &str| -> Vec<String> {
                let path = path.strip_suffix('/').unwrap_or(path);
                path.split('/').map(str::to_owned).collect()
            };
            let path: Vec<String> = plain.path.split('/').map(str::to_owned).collect();
            path.starts_with(&segments(prefix))
        }
        Condition::Header(name, wanted) => first(&plain.headers, name, wanted),
        Condition::Query(name, wanted) => first(&plain.query, name, wanted),
    }
}

proptest! {
    #[test]
    fn a_table_finds_what_a_simple_matcher_finds(
        conditions in proptest::collection::vec(conditions(), 0..6),
        plain in requests(),
    ) {
        let expected = conditions.iter().position(|c| naive(c, &plain));
        let routes = conditions.iter().enumerate();
        let table = table(routes.map(|(at, c)| route(&at.to_string(), c.clone())).collect());
        let query: Vec<_> = plain.query.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let target = match query.is_empty() {
            true => plain.path.clone(),
            false => format!("{}?{}", plain.path, query.join("&")),
        };
        let fields = Headers(plain.headers.clone());
        let request = Request::new(plain.method.as_bytes(), target.as_bytes(), &fields);
        let found = table.find(&request).map(|r| r.name().parse::<usize>().expect("a number"));
        prop_assert_eq!(found, expected);
    }
}
