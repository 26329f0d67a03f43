//! Tables of routes, and what is to be counted under them. Used by the tests of the terminating path as well.

use std::collections::BTreeMap;

use weir_crds::routes::{Condition, ResponseClass, ResponseCondition, Route, RouteTable};

use super::proxy::Proxy;

/// A route of everything below a path.
pub(crate) fn below(path: &str) -> Route {
    Route {
        name: format!("below {path}"),
        condition: Condition::PathPrefix(path.to_owned()),
        classes: Vec::new(),
        timeout_ms: None,
        retryable: false,
        backends: Vec::new(),
        missing: 0,
    }
}

/// The same, on which 404 is a failure and 500 none.
pub(crate) fn classed(route: Route) -> Route {
    let class = |status, is_failure| ResponseClass {
        condition: ResponseCondition::Status(status, status),
        is_failure,
    };
    Route {
        classes: vec![class(404, true), class(500, false)],
        ..route
    }
}

/// The same, which may take this many milliseconds.
pub(crate) fn timed(route: Route, ms: u64) -> Route {
    Route {
        timeout_ms: Some(ms),
        ..route
    }
}

pub(crate) fn table(routes: Vec<Route>) -> RouteTable {
    RouteTable {
        routes,
        ..RouteTable::default()
    }
}

/// The series of routes but for the buckets, with `dst` and direction taken out of their labels.
pub(crate) fn series(proxy: &Proxy) -> BTreeMap<String, f64> {
    let dst = format!("direction=\"outbound\",dst=\"web:{}\"", proxy.addr.port());
    let all = proxy.samples().into_iter();
    let ours = all.filter(|(series, _)| {
        series.starts_with("route_") && !series.contains("_bucket") && !series.contains("_sum")
    });
    let named = ours.map(|(series, value)| {
        assert!(series.contains(&dst), "{series} is of {dst}");
        (
            series.replace(&format!("{dst},"), "").replace(&dst, ""),
            value,
        )
    });
    named.collect()
}

/// Responses of a route: classification, status, error, and how many there are.
pub(crate) type Ends<'a> = &'a [(&'a str, u16, &'a str, f64)];

/// What is to be there of each route, by its name.
pub(crate) fn expected(rows: &[(&str, Ends<'_>)]) -> BTreeMap<String, f64> {
    let mut all = unsent(rows);
    for (series, n) in all.clone() {
        if let Some(rest) = series.strip_prefix("route_re")
            && !rest.starts_with("sponse_latency")
        {
            all.insert(format!("route_actual_re{rest}"), n);
        }
    }
    all
}

/// The same of requests that went nowhere: nothing was sent for them.
pub(crate) fn unsent(rows: &[(&str, Ends<'_>)]) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for (route, responses) in rows {
        let label = match *route {
            "" => String::new(),
            route => format!("rt_route=\"{route}\""),
        };
        let comma = if label.is_empty() { "" } else { "," };
        let total: f64 = responses.iter().map(|(.., n)| n).sum();
        all.insert(format!("route_request_total{{{label}}}"), total);
        all.insert(format!("route_actual_request_total{{{label}}}"), 0.0);
        for (class, status, error, n) in *responses {
            let end =
                format!("status_code=\"{status}\",classification=\"{class}\",error=\"{error}\"");
            all.insert(format!("route_response_total{{{label}{comma}{end}}}"), *n);
            let time = format!(
                "route_response_latency_ms_count{{{label}{comma}status_code=\"{status}\"}}"
            );
            all.insert(time, *n);
        }
    }
    all
}
