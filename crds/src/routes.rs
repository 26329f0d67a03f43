//! The routes of a service as one table, whatever resource they were written in.
//! Compiled by the operator from ServiceProfiles ([`service_profile`]) and HTTPRoutes ([`http_route`]), sent to the
//! proxies that call the service, and matched there. It knows no request and compiles no expression.

pub mod http_route;
pub mod service_profile;

use std::time::Duration;

use regex::RegexBuilder;
use serde::{Deserialize, Serialize};

use crate::violation::Violation;

/// The newest version of a table as JSON. A table of it may get further fields; what would be misread without being
/// understood makes a new one.
pub const TABLE_VERSION: u32 = 1;

/// The routes of one service, the first that matches first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTable {
    /// The routes in the order in which they are tried.
    pub routes: Vec<Route>,
    /// Whether a request that matches no route is answered 404; else it goes on without a route's name.
    #[serde(default)]
    pub closed: bool,
    /// How much may be retried; `None` is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
    /// Where requests go whose route has no backends of its own, instead of to the service (`dstOverrides`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<Backend>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Its name, the label `rt_route`.
    pub name: String,
    /// Which requests are its own.
    pub condition: Condition,
    /// What counts as a success or a failure, the first that matches first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ResponseClass>,
    /// How long a request with all its attempts may take until the response's head, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Whether a request that failed may be sent again.
    #[serde(default)]
    pub retryable: bool,
    /// Where its requests go instead of to the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<Backend>,
    /// The weight of further backends that are not there: their part of the requests is answered 500. Where there are no
    /// others, that is all of them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub missing: u32,
}

/// What a request must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// Every one of these; of none, any request.
    All(Vec<Condition>),
    /// At least one of these.
    Any(Vec<Condition>),
    /// Not that.
    Not(Box<Condition>),
    /// The method is that, exactly.
    Method(String),
    /// The path, without query.
    Path(Text),
    /// The path begins with these segments: `/a` matches `/a` and `/a/b`, and not `/ab`.
    PathPrefix(String),
    /// The first header of that name, in lower case.
    Header(String, Text),
    /// The first query parameter of that name.
    Query(String, Text),
}

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Text {
    /// That text.
    Exact(String),
    /// All of it matches the expression.
    Regex(String),
}

/// A judgement on responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseClass {
    /// Which responses it is about.
    pub condition: ResponseCondition,
    /// Whether these are failures.
    pub is_failure: bool,
}

/// What a response must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResponseCondition {
    /// Every one of these; of none, any response.
    All(Vec<ResponseCondition>),
    /// At least one of these.
    Any(Vec<ResponseCondition>),
    /// Not that.
    Not(Box<ResponseCondition>),
    /// The status lies between these, both included.
    Status(u16, u16),
}

/// How much a service's requests may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Retries for each request, as a fraction of the requests.
    pub ratio: f32,
    /// Retries a second that are always allowed.
    pub min_per_second: u32,
    /// How long a request counts.
    pub ttl: Duration,
}

/// Linkerd's: a fifth more, and ten a second.
impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            min_per_second: 10,
            ttl: Duration::from_secs(10),
        }
    }
}

/// A destination with its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// `name.namespace.svc.cluster.local:port`.
    pub authority: String,
    /// Its share in the sum of all weights; never 0.
    pub weight: u32,
}

impl RouteTable {
    /// Where requests go whose route has no backends of its own, instead of to the service: nothing where they go to it.
    /// Where all routes name the same backends, these are no route's own.
    #[must_use]
    pub fn destinations(&self) -> &[Backend] {
        self.shared().unwrap_or(&self.backends)
    }

    /// The backends that routes have of their own, each list once, in the order of the routes.
    #[must_use]
    pub fn branches(&self) -> Vec<&[Backend]> {
        let mut branches: Vec<&[Backend]> = Vec::new();
        if self.shared().is_some() {
            return branches;
        }
        let own = self.routes.iter().map(|route| &route.backends[..]);
        for backends in own.filter(|backends| !backends.is_empty()) {
            if !branches.contains(&backends) {
                branches.push(backends);
            }
        }
        branches
    }

    /// The backends that all routes name.
    fn shared(&self) -> Option<&[Backend]> {
        let mut own = self.routes.iter().map(|route| &route.backends[..]);
        let first = own.next().filter(|first| !first.is_empty())?;
        own.all(|other| other == first).then_some(first)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_none(weight: &u32) -> bool {
    *weight == 0
}

impl Condition {
    /// Any request.
    #[must_use]
    pub fn always() -> Self {
        Self::All(Vec::new())
    }
}

impl ResponseCondition {
    /// Whether a response with this status is one of these.
    #[must_use]
    pub fn matches(&self, status: u16) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.matches(status)),
            Self::Any(any) => any.iter().any(|one| one.matches(status)),
            Self::Not(not) => !not.matches(status),
            Self::Status(min, max) => (*min..=*max).contains(&status),
        }
    }
}

impl Route {
    /// Whether the route's own classes call a response with this status a failure; `None` where they say nothing.
    #[must_use]
    pub fn fails(&self, status: u16) -> Option<bool> {
        let class = self
            .classes
            .iter()
            .find(|class| class.condition.matches(status));
        class.map(|class| class.is_failure)
    }

    /// Takes away the backends that are not there; their weight is missing from now on.
    pub fn keep_backends(&mut self, is_there: impl Fn(&Backend) -> bool) {
        let Self {
            backends, missing, ..
        } = self;
        backends.retain(|backend| {
            let is_kept = is_there(backend);
            if !is_kept {
                *missing = missing.saturating_add(backend.weight);
            }
            is_kept
        });
    }

    /// How many of 2^32 requests go to a backend that is not there.
    #[must_use]
    pub fn missing_share(&self) -> u64 {
        let missing = u128::from(self.missing);
        let there = self.backends.iter().map(|one| u128::from(one.weight));
        let all = missing + there.sum::<u128>();
        let share = (missing << 32).checked_div(all).unwrap_or_default();
        u64::try_from(share).expect("at most 2^32")
    }
}

/// Largest compiled form of one regular expression, in bytes, which a proxy has for each route: a tenth of what the
/// `regex` crate allows. `\w` and `\d` are of all scripts, so a class of letters is much smaller.
pub const MAX_EXPRESSION: usize = 1024 * 1024;

/// An expression that must match all of a text, as both resources mean it, checked for the proxy to compile.
fn whole(expression: &str, field: impl Into<String>) -> Result<Text, Violation> {
    let trimmed = expression.trim();
    let inner = trimmed.strip_prefix('^').unwrap_or(trimmed);
    let inner = match inner.strip_suffix('$') {
        // An escaped dollar is a character.
        Some(rest) if !rest.ends_with('\\') => rest,
        _ => inner,
    };
    let whole = format!("^(?:{inner})$");
    match RegexBuilder::new(&whole).size_limit(MAX_EXPRESSION).build() {
        Ok(_) => Ok(Text::Regex(whole)),
        Err(error) => {
            let last = error.to_string();
            let last = last.lines().last().unwrap_or_default().trim().to_owned();
            Err(Violation::new(
                field,
                format!("{expression:?} is no regular expression: {last}"),
            ))
        }
    }
}

/// Whole milliseconds, at least one.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_about_the_whole_text() {
        let regex = |text: &str| match whole(text, "f").unwrap() {
            Text::Regex(regex) => regex,
            Text::Exact(_) => panic!("exact"),
        };
        assert_eq!(regex("/a/[^/]*"), "^(?:/a/[^/]*)$");
        assert_eq!(regex(" ^/a$ "), "^(?:/a)$");
        assert_eq!(regex(r"/a\$"), r"^(?:/a\$)$");
        assert_eq!(regex("/a|/b"), "^(?:/a|/b)$");
        let error = whole("/a(", "spec.routes[0]").unwrap_err();
        assert_eq!(error.field, "spec.routes[0]");
        assert!(
            error.message.contains("\"/a(\" is no regular expression"),
            "{error}"
        );
    }

    #[test]
    fn the_first_class_that_matches_judges() {
        let class = |condition, is_failure| ResponseClass {
            condition,
            is_failure,
        };
        let route = Route {
            name: "r".into(),
            condition: Condition::always(),
            classes: vec![
                class(ResponseCondition::Status(404, 404), false),
                class(
                    ResponseCondition::Not(Box::new(ResponseCondition::Status(200, 399))),
                    true,
                ),
            ],
            timeout_ms: None,
            retryable: false,
            backends: Vec::new(),
            missing: 0,
        };
        assert_eq!(route.fails(404), Some(false));
        assert_eq!(route.fails(429), Some(true));
        assert_eq!(route.fails(200), None);
        assert!(
            ResponseCondition::All(vec![]).matches(1) && !ResponseCondition::Any(vec![]).matches(1)
        );
    }

    #[test]
    fn backends_are_a_routes_own_where_routes_differ() {
        let backend = |name: &str| Backend {
            authority: format!("{name}:80"),
            weight: 1,
        };
        let route = |backends: &[&str]| Route {
            name: "r".into(),
            condition: Condition::always(),
            classes: Vec::new(),
            timeout_ms: None,
            retryable: false,
            backends: backends.iter().copied().map(backend).collect(),
            missing: 0,
        };
        let names = |backends: &[Backend]| -> Vec<String> {
            let names = backends.iter().map(|one| one.authority.clone());
            names.collect()
        };
        let (none, one, both) = (route(&[]), route(&["a"]), route(&["a", "b"]));
        let (a, ab) = (&["a:80"][..], &["a:80", "b:80"][..]);
        let (t, nothing): (_, &[&[&str]]) = (&["t:80"][..], &[]);
        for (routes, destinations, branches) in [
            (vec![], t, nothing),
            (vec![none.clone(), none.clone()], t, nothing),
            (vec![both.clone(), both.clone()], ab, nothing),
            (vec![both.clone(), one.clone(), both], t, &[ab, a]),
            (vec![none.clone(), one.clone()], t, &[a]),
            (vec![one, none], t, &[a]),
        ] {
            let table = RouteTable {
                routes,
                backends: vec![backend("t")],
                ..RouteTable::default()
            };
            assert_eq!(names(table.destinations()), destinations, "{table:?}");
            let found: Vec<_> = table.branches().into_iter().map(names).collect();
            assert_eq!(found, branches, "{table:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_missed_by_its_weight() {
        let backend = |name: &str, weight| Backend {
            authority: name.to_owned(),
            weight,
        };
        let mut route = Route {
            name: "r".into(),
            condition: Condition::always(),
            classes: Vec::new(),
            timeout_ms: None,
            retryable: false,
            backends: vec![backend("a", 3), backend("b", 1), backend("c", u32::MAX)],
            missing: 0,
        };
        assert_eq!(route.missing_share(), 0);
        route.backends.pop();
        route.keep_backends(|one| one.authority == "a");
        assert_eq!(route.backends, [backend("a", 3)]);
        assert_eq!(route.missing_share(), 1 << 30);
        route.keep_backends(|_| false);
        assert_eq!((route.missing, route.missing_share()), (4, 1 << 32));
        route.backends.push(backend("c", u32::MAX));
        route.missing = u32::MAX;
        assert_eq!(route.missing_share(), 1 << 31);
        route.keep_backends(|_| false);
        assert_eq!(route.missing_share(), 1 << 32);
        let plain = Route {
            missing: 0,
            ..route
        };
        assert_eq!(plain.missing_share(), 0, "it goes to the service");
    }

    #[test]
    fn a_table_survives_the_way_to_the_proxy() {
        let table = RouteTable {
            routes: vec![Route {
                name: "r".into(),
                condition: Condition::Any(vec![
                    Condition::Not(Box::new(Condition::Method("GET".into()))),
                    Condition::Header("x".into(), Text::Exact("1".into())),
                ]),
                classes: vec![],
                timeout_ms: Some(300),
                retryable: true,
                backends: vec![Backend {
                    authority: "a:1".into(),
                    weight: 1,
                }],
                missing: 3,
            }],
            closed: true,
            retry_budget: Some(RetryBudget::default()),
            backends: vec![],
        };
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<RouteTable>(&json).unwrap(), table);
    }
}
