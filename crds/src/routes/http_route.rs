//! Gateway API HTTPRoutes (`gateway.networking.k8s.io/v1`) with a Service as parent, as that Service's route table.
//! Called by the operator with all routes of one Service. What of a route is not obeyed is told of.

use std::cmp::Reverse;

use serde_json::Value;

use super::{Backend, Condition, Route, RouteTable, Text, milliseconds, whole};
use crate::duration;
use crate::node::Node;
use crate::ports;
use crate::violation::Violation;

/// An HTTPRoute.
#[derive(Clone, Copy, Debug)]
pub struct HttpRoute<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// When it was created, in seconds since the epoch.
    pub created: i64,
    /// Its `spec`.
    pub spec: &'a Value,
}

/// A port of a Service.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Name of the Service.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The port that clients connect to.
    pub port: u16,
    /// The domain of the cluster's Services, as `cluster.local`.
    pub domain: &'a str,
}

/// What comes first: an exact path, an expression (the API leaves its place open), the longest prefix; then a method,
/// the most headers, the most query parameters.
type Precedence = (u8, usize, bool, usize, usize);

/// The table of a Service's port, and what is wrong with its routes. Without a route it is open and empty, else
/// requests that match nothing are answered 404, as the API says.
#[must_use]
pub fn compile(routes: &[HttpRoute<'_>], parent: Parent<'_>) -> (RouteTable, Vec<Violation>) {
    let mut attached: Vec<_> = routes
        .iter()
        .filter(|route| attaches(route, parent))
        .collect();
    attached.sort_by_key(|route| (route.created, route.namespace, route.name));
    let mut problems = Vec::new();
    let mut ranked = Vec::new();
    for route in &attached {
        let root = Node::at(route.spec, "spec".to_owned());
        let rules = root.get("rules").items().unwrap_or_else(|problem| {
            problems.push(problem);
            Vec::new()
        });
        for (index, node) in rules.iter().enumerate() {
            match rule(node, (route, index), parent, &mut problems) {
                Ok(matches) => ranked.extend(matches),
                Err(problem) => problems.push(problem),
            }
            problems.extend(unheeded(node));
        }
    }
    // Stable: of equals the oldest route's first rule comes first.
    ranked.sort_by_key(|(precedence, _)| Reverse(*precedence));
    let table = RouteTable {
        routes: ranked.into_iter().map(|(_, route)| route).collect(),
        closed: !attached.is_empty(),
        ..RouteTable::default()
    };
    (table, problems)
}

/// A Service that an HTTPRoute names as a parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The one port that is meant; `None` means all of them.
    pub port: Option<u32>,
}

/// The Services among the parents of a `spec` in this namespace. What cannot be read names none.
#[must_use]
pub fn parents(spec: &Value, namespace: &str) -> Vec<ParentRef> {
    let root = Node::root(spec);
    let parents = root.get("parentRefs").items().unwrap_or_default();
    let services = parents.iter().filter_map(|node| {
        let text = |key: &str| node.get(key).text().ok().flatten();
        let is_service =
            text("kind") == Some("Service") && matches!(text("group"), Some("" | "core"));
        Some(ParentRef {
            name: text("name").filter(|_| is_service)?.to_owned(),
            namespace: text("namespace").unwrap_or(namespace).to_owned(),
            port: node.get("port").number().ok()?,
        })
    });
    services.collect()
}

/// Whether the route names this Service's port, or all of its ports, as a parent.
#[must_use]
pub fn attaches(route: &HttpRoute<'_>, parent: Parent<'_>) -> bool {
    let port = u32::from(parent.port);
    let is_meant = |named: &ParentRef| {
        named.name == parent.name
            && named.namespace == parent.namespace
            && named.port.is_none_or(|named| named == port)
    };
    parents(route.spec, route.namespace).iter().any(is_meant)
}

/// A rule is one route for each of its matches, all with its name.
fn rule(
    node: &Node<'_>,
    (route, index): (&HttpRoute<'_>, usize),
    parent: Parent<'_>,
    problems: &mut Vec<Violation>,
) -> Result<Vec<(Precedence, Route)>, Violation> {
    let node = node.object()?;
    let own = node.get("name").text()?.filter(|name| !name.is_empty());
    let own = own.map_or_else(|| index.to_string(), str::to_owned);
    let refs = node.get("backendRefs");
    let (backends, missing) = backends(&refs, route.namespace, parent, problems)?;
    let route = Route {
        name: format!("{}/{own}", route.name),
        condition: Condition::always(),
        classes: Vec::new(),
        timeout_ms: timeout(&node.get("timeouts").get("request"))?,
        retryable: false,
        backends,
        missing,
    };
    let matches = node.get("matches").items()?;
    if matches.is_empty() {
        let anything = Condition::PathPrefix("/".to_owned());
        return Ok(vec![(
            (0, 1, false, 0, 0),
            Route {
                condition: anything,
                ..route
            },
        )]);
    }
    let one = |node: &Node<'_>| {
        let (precedence, condition) = request(node)?;
        Ok((
            precedence,
            Route {
                condition,
                ..route.clone()
            },
        ))
    };
    matches.iter().map(one).collect()
}

fn request(node: &Node<'_>) -> Result<(Precedence, Condition), Violation> {
    let mut all = Vec::new();
    let (kind, length, path) = path(&node.get("path"))?;
    all.push(path);
    let method = node
        .get("method")
        .text()?
        .filter(|method| !method.is_empty());
    all.extend(method.map(|method| Condition::Method(method.to_owned())));
    let (headers, query) = (
        node.get("headers").items()?,
        node.get("queryParams").items()?,
    );
    for header in &headers {
        let (name, text) = named(header)?;
        all.push(Condition::Header(name.to_ascii_lowercase(), text));
    }
    for parameter in &query {
        let (name, text) = named(parameter)?;
        all.push(Condition::Query(name.to_owned(), text));
    }
    let precedence = (kind, length, method.is_some(), headers.len(), query.len());
    let condition = match all.len() {
        1 => all.remove(0),
        _ => Condition::All(all),
    };
    Ok((precedence, condition))
}

fn path(node: &Node<'_>) -> Result<(u8, usize, Condition), Violation> {
    let value = node.get("value").text()?.unwrap_or("/");
    let kind = node.get("type").text()?.unwrap_or("PathPrefix");
    match kind {
        "Exact" => Ok((2, 0, Condition::Path(Text::Exact(value.to_owned())))),
        "RegularExpression" => {
            let text = whole(value, node.get("value").path())?;
            Ok((1, 0, Condition::Path(text)))
        }
        "PathPrefix" => Ok((0, value.len(), Condition::PathPrefix(value.to_owned()))),
        _ => Err(node
            .get("type")
            .violation("must be Exact, PathPrefix or RegularExpression")),
    }
}

fn named<'a>(node: &Node<'a>) -> Result<(&'a str, Text), Violation> {
    let name = node.get("name").text_or_empty()?;
    if name.is_empty() {
        return Err(node.get("name").violation("must be set"));
    }
    let value = node.get("value").text_or_empty()?;
    match node.get("type").text()?.unwrap_or("Exact") {
        "Exact" => Ok((name, Text::Exact(value.to_owned()))),
        "RegularExpression" => Ok((name, whole(value, node.get("value").path())?)),
        _ => Err(node
            .get("type")
            .violation("must be Exact or RegularExpression")),
    }
}

fn timeout(node: &Node<'_>) -> Result<Option<u64>, Violation> {
    let Some(text) = node.text()? else {
        return Ok(None);
    };
    let read = duration::parse(text).map_err(|error| node.violation(error.to_string()))?;
    // The API's 0s is no timeout at all.
    Ok((!read.is_zero()).then(|| milliseconds(read)))
}

/// The backends of a rule, and the weight of those that cannot be there: each of them is a problem, and its part of the
/// requests is answered 500, as the API says. So are all of a rule that names backends and gives none of them a weight.
fn backends(
    node: &Node<'_>,
    namespace: &str,
    parent: Parent<'_>,
    problems: &mut Vec<Violation>,
) -> Result<(Vec<Backend>, u32), Violation> {
    let entries = node.items()?;
    let (mut backends, mut missing) = (Vec::new(), 0_u32);
    for entry in &entries {
        let weight = entry.get("weight").number()?.unwrap_or(1);
        match authority(entry, namespace, parent) {
            Ok(authority) if weight > 0 => backends.push(Backend { authority, weight }),
            Ok(_) => {}
            Err(problem) => {
                problems.push(problem);
                missing = missing.saturating_add(weight);
            }
        }
    }
    if backends.is_empty() && missing == 0 && !entries.is_empty() {
        problems.push(node.violation(
            "gives no backend a weight, so all requests of the rule are answered 500: give one a weight of at least 1",
        ));
        missing = 1;
    }
    Ok((backends, missing))
}

/// Where a backend is.
fn authority(entry: &Node<'_>, namespace: &str, parent: Parent<'_>) -> Result<String, Violation> {
    let kind = entry.get("kind").text()?.unwrap_or("Service");
    let group = entry.get("group").text()?.unwrap_or_default();
    if kind != "Service" || !matches!(group, "" | "core") {
        return Err(entry.get("kind").violation(
            "must be Service: nothing else is reached by a proxy, which answers its part of the requests 500",
        ));
    }
    let name = entry.get("name").text_or_empty()?;
    let port = entry.get("port").number()?.and_then(ports::checked);
    let Some(port) = port.filter(|_| !name.is_empty()) else {
        return Err(entry.get("port").violation(
            "a backend needs a name and a port: its part of the requests is answered 500",
        ));
    };
    let namespace = entry.get("namespace").text()?.unwrap_or(namespace);
    for (field, value) in [("name", name), ("namespace", namespace)] {
        // They are labels of the DNS name below (RFC 1123), and one with a dot would be another name.
        if value.contains('.') {
            return Err(entry.get(field).violation(
                "must not have a dot, no Service has one: its part of the requests is answered 500, give the Service's own name and, in namespace, its namespace",
            ));
        }
    }
    Ok(format!("{name}.{namespace}.svc.{}:{port}", parent.domain))
}

/// What a rule asks for and does not get: a proxy that measures changes no request.
fn unheeded(node: &Node<'_>) -> Vec<Violation> {
    let backends = node.get("backendRefs").items().unwrap_or_default();
    let filters = backends.iter().map(|one| one.get("filters"));
    let filters = filters.chain([node.get("filters")]);
    filters
        .filter(|filters| filters.items().is_ok_and(|items| !items.is_empty()))
        .map(|filters| filters.violation("is not obeyed: requests pass unchanged"))
        .collect()
}

#[cfg(test)]
mod tests;
