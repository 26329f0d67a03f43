//! Linkerd's ServiceProfile (`linkerd.io/v1alpha2`) as a route table. Called by the operator.
//! A route that cannot be read is left out, as Linkerd does, and told of.

use std::time::Duration;

use serde_json::Value;

use super::{
    Backend, Condition, ResponseClass, ResponseCondition, RetryBudget, Route, RouteTable,
    milliseconds, whole,
};
use crate::duration;
use crate::node::Node;
use crate::violation::Violation;

/// The largest ratio of a retry budget (Linkerd's).
const MAX_RATIO: f32 = 1000.0;
/// The shortest and the longest time that a request counts in a retry budget (Linkerd's).
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How deep conditions may lie in one another.
const MAX_DEPTH: usize = 16;

/// The table of a ServiceProfile's `spec`, and what is wrong with it.
#[must_use]
pub fn compile(spec: &Value) -> (RouteTable, Vec<Violation>) {
    let node = Node::at(spec, "spec".to_owned());
    let mut problems = Vec::new();
    let mut take = |problem| problems.push(problem);
    let mut table = RouteTable::default();
    let routes = node.get("routes").items().unwrap_or_else(|problem| {
        take(problem);
        Vec::new()
    });
    for route in &routes {
        match self::route(route) {
            Ok(route) => table.routes.push(route),
            Err(problem) => take(problem),
        }
    }
    match overrides(&node.get("dstOverrides")) {
        Ok(backends) => table.backends = backends,
        Err(problem) => take(problem),
    }
    if table.routes.iter().any(|route| route.retryable) {
        match budget(&node.get("retryBudget")) {
            Ok(budget) => table.retry_budget = Some(budget),
            Err(problem) => take(problem),
        }
    }
    (table, problems)
}

fn route(node: &Node<'_>) -> Result<Route, Violation> {
    let name = node.get("name").text_or_empty()?;
    if name.is_empty() {
        return Err(node
            .get("name")
            .violation("must be set: it is the route's label rt_route"));
    }
    let classes = node.get("responseClasses").items()?;
    Ok(Route {
        name: name.to_owned(),
        condition: condition(&node.get("condition"), MAX_DEPTH)?,
        classes: classes.iter().map(class).collect::<Result<_, _>>()?,
        timeout_ms: timeout(&node.get("timeout"))?,
        retryable: node.get("isRetryable").flag()?.unwrap_or_default(),
        backends: Vec::new(),
        missing: 0,
    })
}

/// Linkerd's rule: all keys of a condition hold at once, and one without any is a mistake.
fn condition(node: &Node<'_>, depth: usize) -> Result<Condition, Violation> {
    let deeper = deeper(node, depth)?;
    let list = |key: &str| -> Result<Option<Vec<Condition>>, Violation> {
        let list = node.get(key);
        if list.is_absent() {
            return Ok(None);
        }
        list.items()?
            .iter()
            .map(|one| condition(one, deeper))
            .collect::<Result<_, _>>()
            .map(Some)
    };
    let mut all = Vec::new();
    if let Some(path) = node.get("pathRegex").text()? {
        all.push(Condition::Path(whole(path, node.get("pathRegex").path())?));
    }
    if let Some(method) = node.get("method").text()? {
        all.push(Condition::Method(method.to_owned()));
    }
    all.extend(list("all")?.map(Condition::All));
    all.extend(list("any")?.map(Condition::Any));
    if !node.get("not").is_absent() {
        all.push(Condition::Not(Box::new(condition(
            &node.get("not"),
            deeper,
        )?)));
    }
    match all.len() {
        0 => Err(node.violation("needs one of pathRegex, method, all, any and not")),
        1 => Ok(all.remove(0)),
        _ => Ok(Condition::All(all)),
    }
}

fn class(node: &Node<'_>) -> Result<ResponseClass, Violation> {
    Ok(ResponseClass {
        condition: response(&node.get("condition"), MAX_DEPTH)?,
        is_failure: node.get("isFailure").flag()?.unwrap_or_default(),
    })
}

fn response(node: &Node<'_>, depth: usize) -> Result<ResponseCondition, Violation> {
    let deeper = deeper(node, depth)?;
    let list = |key: &str| -> Result<Option<Vec<ResponseCondition>>, Violation> {
        let list = node.get(key);
        if list.is_absent() {
            return Ok(None);
        }
        list.items()?
            .iter()
            .map(|one| response(one, deeper))
            .collect::<Result<_, _>>()
            .map(Some)
    };
    let mut all = Vec::new();
    if !node.get("status").is_absent() {
        all.push(status(&node.get("status"))?);
    }
    all.extend(list("all")?.map(ResponseCondition::All));
    all.extend(list("any")?.map(ResponseCondition::Any));
    if !node.get("not").is_absent() {
        all.push(ResponseCondition::Not(Box::new(response(
            &node.get("not"),
            deeper,
        )?)));
    }
    match all.len() {
        0 => Err(node.violation("needs one of status, all, any and not")),
        1 => Ok(all.remove(0)),
        _ => Ok(ResponseCondition::All(all)),
    }
}

/// A range of which one end may be missing: then it is the one status that the other names.
fn status(node: &Node<'_>) -> Result<ResponseCondition, Violation> {
    let end = |key: &str| -> Result<Option<u16>, Violation> {
        let Some(number) = node.get(key).number()? else {
            return Ok(None);
        };
        match u16::try_from(number) {
            Ok(status @ 100..=599) => Ok(Some(status)),
            _ => Err(node
                .get(key)
                .violation("must be an HTTP status from 100 to 599")),
        }
    };
    match (end("min")?, end("max")?) {
        (None, None) => Err(node.violation("needs min or max")),
        (Some(min), Some(max)) if min > max => Err(node.violation("min must not be above max")),
        (min, max) => {
            let (min, max) = (
                min.or(max).unwrap_or_default(),
                max.or(min).unwrap_or_default(),
            );
            Ok(ResponseCondition::Status(min, max))
        }
    }
}

fn deeper(node: &Node<'_>, depth: usize) -> Result<usize, Violation> {
    let deeper = depth.checked_sub(1);
    deeper.ok_or_else(|| {
        node.violation(format!(
            "conditions may lie in one another {MAX_DEPTH} deep"
        ))
    })
}

/// A duration above 0 in milliseconds; none where the field is absent.
fn timeout(node: &Node<'_>) -> Result<Option<u64>, Violation> {
    let Some(text) = node.text()?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let read = duration::parse(text).map_err(|error| node.violation(error.to_string()))?;
    Ok((!read.is_zero()).then(|| milliseconds(read)))
}

fn overrides(node: &Node<'_>) -> Result<Vec<Backend>, Violation> {
    let mut backends = Vec::new();
    for entry in node.items()? {
        let authority = entry.get("authority").text_or_empty()?;
        if authority.is_empty() {
            return Err(entry.get("authority").violation("must be set"));
        }
        // Linkerd writes weights as quantities; whole numbers and thousandths are what they are in practice.
        let weight = entry.get("weight");
        let thousandths = weight
            .text()
            .ok()
            .flatten()
            .and_then(|text| text.strip_suffix('m'));
        let weight = match thousandths.map(str::parse::<u32>) {
            Some(Ok(thousandths)) => thousandths,
            Some(Err(_)) => return Err(weight.violation("must be a number such as 1 or 500m")),
            None => weight.number()?.unwrap_or_default().saturating_mul(1000),
        };
        if weight > 0 {
            backends.push(Backend {
                authority: authority.to_owned(),
                weight,
            });
        }
    }
    Ok(backends)
}

fn budget(node: &Node<'_>) -> Result<RetryBudget, Violation> {
    let mut budget = RetryBudget::default();
    if node.is_absent() {
        return Ok(budget);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a ratio needs no more digits"
    )]
    if let Some(ratio) = node.get("retryRatio").value().as_f64() {
        budget.ratio = ratio as f32;
    }
    if !(0.0..=MAX_RATIO).contains(&budget.ratio) {
        return Err(node
            .get("retryRatio")
            .violation("must be between 0 and 1000"));
    }
    if let Some(minimum) = node.get("minRetriesPerSecond").number()? {
        budget.min_per_second = minimum;
    }
    if let Some(ttl) = timeout(&node.get("ttl"))? {
        budget.ttl = Duration::from_millis(ttl);
    }
    if !(TTL.0..=TTL.1).contains(&budget.ttl) {
        return Err(node.get("ttl").violation("must be between 1s and 60s"));
    }
    Ok(budget)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::routes::Text;

    fn path(regex: &str) -> Condition {
        Condition::Path(Text::Regex(format!("^(?:{regex})$")))
    }

    #[test]
    fn a_profile_becomes_a_table_in_its_order() {
        let (table, problems) = compile(&json!({
            "routes": [
                {
                    "name": "GET /books/{id}",
                    "condition": {"method": "GET", "pathRegex": "/books/[^/]*"},
                    "responseClasses": [
                        {"condition": {"status": {"min": 500, "max": 599}}, "isFailure": true},
                        {"condition": {"not": {"status": {"min": 404}}}}
                    ],
                    "timeout": "300ms",
                    "isRetryable": true
                },
                {"name": "rest", "condition": {"any": [{"method": "POST"}, {"not": {"pathRegex": "/x"}}]}}
            ],
            "retryBudget": {"retryRatio": 0.5, "minRetriesPerSecond": 3, "ttl": "20s"},
            "dstOverrides": [
                {"authority": "a.b.svc.cluster.local:80", "weight": "900m"},
                {"authority": "b.b.svc.cluster.local:80", "weight": 1},
                {"authority": "c.b.svc.cluster.local:80", "weight": 0}
            ]
        }));
        assert_eq!(problems, []);
        let [books, rest] = table.routes.as_slice() else {
            panic!("{table:?}")
        };
        assert_eq!(books.name, "GET /books/{id}");
        assert_eq!(
            books.condition,
            Condition::All(vec![path("/books/[^/]*"), Condition::Method("GET".into())])
        );
        assert_eq!(
            (books.fails(503), books.fails(200), books.fails(404)),
            (Some(true), Some(false), None)
        );
        assert_eq!((books.timeout_ms, books.retryable), (Some(300), true));
        assert_eq!(
            rest.condition,
            Condition::Any(vec![
                Condition::Method("POST".into()),
                Condition::Not(Box::new(path("/x")))
            ])
        );
        let budget = RetryBudget {
            ratio: 0.5,
            min_per_second: 3,
            ttl: Duration::from_secs(20),
        };
        assert_eq!(table.retry_budget, Some(budget));
        let weights: Vec<_> = table
            .backends
            .iter()
            .map(|backend| backend.weight)
            .collect();
        assert_eq!(weights, [900, 1000]);
        assert!(!table.closed);
    }

    #[test]
    fn a_route_that_cannot_be_read_is_left_out_and_told_of() {
        let wrong = [
            (
                json!({"name": "", "condition": {"method": "GET"}}),
                "spec.routes[0].name: must be set",
            ),
            (
                json!({"name": "r"}),
                "spec.routes[0].condition: needs one of pathRegex",
            ),
            (
                json!({"name": "r", "condition": {"pathRegex": "("}}),
                "spec.routes[0].condition.pathRegex: \"(\" is no",
            ),
            // What a proxy would not compile is left out alone, and not the table with it.
            (
                json!({"name": "r", "condition": {"pathRegex": "/users/\\w{1,360}"}}),
                "exceeds size limit",
            ),
            (
                json!({"name": "r", "condition": {"all": [{}]}}),
                "spec.routes[0].condition.all[0]: needs one of",
            ),
            (
                json!({"name": "r", "condition": {"method": "GET"}, "timeout": "soon"}),
                "spec.routes[0].timeout: ",
            ),
            (
                json!({"name": "r", "condition": {"method": "GET"},
                    "responseClasses": [{"condition": {"status": {"min": 600}}}]}),
                "spec.routes[0].responseClasses[0].condition.status.min: must be an HTTP status",
            ),
            (
                json!({"name": "r", "condition": {"method": "GET"},
                    "responseClasses": [{"condition": {"status": {"min": 500, "max": 400}}}]}),
                "min must not be above max",
            ),
        ];
        for (route, message) in wrong {
            let good = json!({"name": "good", "condition": {"method": "PUT"}});
            let (table, problems) = compile(&json!({"routes": [route, good]}));
            assert_eq!(table.routes.len(), 1, "{message}");
            let problem = problems[0].to_string();
            assert!(problem.contains(message), "{problem} is not {message}");
        }
    }

    #[test]
    fn a_budget_out_of_bounds_allows_no_retries() {
        let route = json!({"name": "r", "condition": {"method": "GET"}, "isRetryable": true});
        let of = |budget: Value| compile(&json!({"routes": [route], "retryBudget": budget}));
        assert_eq!(of(Value::Null).0.retry_budget, Some(RetryBudget::default()));
        for budget in [
            json!({"retryRatio": 1001}),
            json!({"retryRatio": -1}),
            json!({"ttl": "61s"}),
            json!({"ttl": "1ms"}),
        ] {
            let (table, problems) = of(budget);
            assert_eq!((table.retry_budget, problems.len()), (None, 1));
        }
    }

    #[test]
    fn conditions_have_a_depth_and_anything_can_be_read() {
        let mut deep = json!({"method": "GET"});
        for _ in 0..100 {
            deep = json!({"not": deep});
        }
        let (table, problems) = compile(&json!({"routes": [{"name": "r", "condition": deep}]}));
        assert!(table.routes.is_empty() && problems[0].message.contains("16 deep"));
        for value in [
            json!(null),
            json!(1),
            json!({"routes": 1, "dstOverrides": "x"}),
            json!({"routes": [1, null, "x"]}),
        ] {
            assert!(compile(&value).0.routes.is_empty());
        }
    }
}
