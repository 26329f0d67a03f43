//! Conditions with their expressions compiled. `routes` makes one of each route; it looks at a request and answers yes
//! or no.

use regex::bytes::{Regex, RegexBuilder};
use weir_crds::routes::{Condition, Text};

use super::{Bad, MAX_CONDITIONS, MAX_DEPTH, MAX_EXPRESSION, MAX_EXPRESSIONS, MAX_SEARCH, Request};

/// What a request must be.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    All(Vec<Matcher>),
    Any(Vec<Matcher>),
    Not(Box<Matcher>),
    Method(Box<[u8]>),
    Path(Pattern),
    /// Without the slash at its end, which says nothing.
    PathPrefix(Box<[u8]>),
    Field(Box<str>, Pattern),
    Parameter(Box<str>, Pattern),
}

/// What a text must be.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Exact(Box<[u8]>),
    Regex(Regex),
}

/// What one table has used up of its bounds.
#[derive(Debug, Default)]
pub(super) struct Limits {
    conditions: usize,
    expressions: usize,
    depth: usize,
}

impl Matcher {
    pub(super) fn compile(
        condition: &Condition,
        route: &str,
        limits: &mut Limits,
    ) -> Result<Self, Bad> {
        limits.conditions += 1;
        if limits.conditions > MAX_CONDITIONS {
            return Err(Bad::Conditions);
        }
        if limits.depth > MAX_DEPTH {
            let route = route.to_owned();
            return Err(Bad::Depth { route });
        }
        let mut pattern = |text: &Text| Pattern::compile(text, route, limits);
        Ok(match condition {
            Condition::All(all) => Self::All(inner(all, route, limits)?),
            Condition::Any(any) => Self::Any(inner(any, route, limits)?),
            Condition::Not(not) => {
                let one = inner(std::slice::from_ref(not.as_ref()), route, limits)?;
                Self::Not(Box::new(Self::All(one)))
            }
            Condition::Method(method) => Self::Method(method.as_bytes().into()),
            Condition::Path(text) => Self::Path(pattern(text)?),
            Condition::PathPrefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                Self::PathPrefix(prefix.as_bytes().into())
            }
            Condition::Header(name, text) => {
                Self::Field(name.to_ascii_lowercase().into(), pattern(text)?)
            }
            Condition::Query(name, text) => Self::Parameter(name.as_str().into(), pattern(text)?),
        })
    }

    pub(super) fn matches(&self, request: &Request<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.matches(request)),
            Self::Any(any) => any.iter().any(|one| one.matches(request)),
            Self::Not(not) => !not.matches(request),
            Self::Method(method) => **method == *request.method(),
            Self::Path(pattern) => pattern.matches(request.path()),
            Self::PathPrefix(prefix) => {
                let rest = request.path().strip_prefix(&**prefix);
                rest.is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/'))
            }
            Self::Field(name, pattern) => request.field(name).is_some_and(|v| pattern.matches(v)),
            Self::Parameter(name, pattern) => {
                let value = request.parameter(name);
                value.is_some_and(|value| pattern.matches(value.as_bytes()))
            }
        }
    }
}

fn inner(conditions: &[Condition], route: &str, limits: &mut Limits) -> Result<Vec<Matcher>, Bad> {
    limits.depth += 1;
    let matchers = conditions
        .iter()
        .map(|one| Matcher::compile(one, route, limits))
        .collect();
    limits.depth -= 1;
    matchers
}

impl Pattern {
    fn compile(text: &Text, route: &str, limits: &mut Limits) -> Result<Self, Bad> {
        let expression = match text {
            Text::Exact(text) => return Ok(Self::Exact(text.as_bytes().into())),
            Text::Regex(expression) => expression,
        };
        limits.expressions += 1;
        if limits.expressions > MAX_EXPRESSIONS {
            return Err(Bad::Expressions);
        }
        // All of a text has to match, whoever wrote the table.
        let compiled = RegexBuilder::new(&format!("^(?:{expression})$"))
            .size_limit(MAX_EXPRESSION)
            .dfa_size_limit(MAX_SEARCH)
            .build();
        compiled.map(Self::Regex).map_err(|error| {
            let error = error.to_string();
            Bad::Expression {
                route: route.to_owned(),
                text: expression.clone(),
                error: error.lines().last().unwrap_or_default().trim().to_owned(),
            }
        })
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}
