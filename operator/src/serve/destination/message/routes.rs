//! A table of routes in the words of Linkerd's API, for any client of it. Only what was written as a ServiceProfile can
//! be said so: the API's conditions know paths and methods, and its overrides are those of all requests. Pure.

use std::time::Duration;

use hyper::http::Method;
use linkerd2_proxy_api::destination as api;
use linkerd2_proxy_api::destination::request_match::Match;
use linkerd2_proxy_api::destination::response_match::Match as ResponseKind;
use linkerd2_proxy_api::destination::{request_match, response_match};
use weir_crds::routes::{Condition, ResponseCondition, Route, RouteTable, Text};

/// Label of a route's metrics: its name.
const NAME: &str = "route";

/// The routes of a table; those that the API has no words for are left out.
pub(super) fn routes(table: &RouteTable) -> Vec<api::Route> {
    table.routes.iter().filter_map(route).collect()
}

fn route(route: &Route) -> Option<api::Route> {
    let classes = route.classes.iter().map(|class| api::ResponseClass {
        condition: Some(response(&class.condition)),
        is_failure: class.is_failure,
    });
    Some(api::Route {
        condition: Some(request(&route.condition)?),
        response_classes: classes.collect(),
        metrics_labels: [(NAME.to_owned(), route.name.clone())].into(),
        is_retryable: route.retryable,
        timeout: route.timeout_ms.map(Duration::from_millis).and_then(time),
    })
}

/// How much may be retried.
pub(super) fn budget(table: &RouteTable) -> Option<api::RetryBudget> {
    table.retry_budget.map(|budget| api::RetryBudget {
        retry_ratio: budget.ratio,
        min_retries_per_second: budget.min_per_second,
        ttl: time(budget.ttl),
    })
}

/// Where requests go instead.
pub(super) fn overrides(table: &RouteTable) -> Vec<api::WeightedDst> {
    let backends = table.backends.iter();
    let overrides = backends.map(|backend| api::WeightedDst {
        authority: backend.authority.clone(),
        weight: backend.weight,
        backend_ref: None,
    });
    overrides.collect()
}

fn time(time: Duration) -> Option<prost_types::Duration> {
    time.try_into().ok()
}

fn request(condition: &Condition) -> Option<api::RequestMatch> {
    let all = |conditions: &[Condition]| {
        let matches = conditions.iter().map(request);
        let matches = matches.collect::<Option<Vec<_>>>()?;
        Some(request_match::Seq { matches })
    };
    let path = |regex: String| Match::Path(api::PathMatch { regex });
    let kind = match condition {
        Condition::All(conditions) => Match::All(all(conditions)?),
        Condition::Any(conditions) => Match::Any(all(conditions)?),
        Condition::Not(not) => Match::Not(Box::new(request(not)?)),
        Condition::Method(method) => {
            let method = Method::from_bytes(method.as_bytes()).ok()?;
            Match::Method(method.into())
        }
        Condition::Path(Text::Regex(regex)) => path(regex.clone()),
        Condition::Path(Text::Exact(_))
        | Condition::PathPrefix(_)
        | Condition::Header(..)
        | Condition::Query(..) => return None,
    };
    Some(api::RequestMatch {
        r#match: Some(kind),
    })
}

fn response(condition: &ResponseCondition) -> api::ResponseMatch {
    let all = |conditions: &[ResponseCondition]| response_match::Seq {
        matches: conditions.iter().map(response).collect(),
    };
    let kind = match condition {
        ResponseCondition::All(conditions) => ResponseKind::All(all(conditions)),
        ResponseCondition::Any(conditions) => ResponseKind::Any(all(conditions)),
        ResponseCondition::Not(not) => ResponseKind::Not(Box::new(response(not))),
        ResponseCondition::Status(min, max) => ResponseKind::Status(api::HttpStatusRange {
            min: u32::from(*min),
            max: u32::from(*max),
        }),
    };
    api::ResponseMatch {
        r#match: Some(kind),
    }
}
