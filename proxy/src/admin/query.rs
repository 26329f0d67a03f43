//! Reads the query of a metrics request into a `Selection`, adding to what the Mesh's settings already select.
//! Called by `routes` and `endpoint`; pure.

use crate::telemetry::{Format, Selection};
use regex::{Regex, RegexBuilder};

/// Most memory a compiled filter may take, in bytes; the expression comes from whoever can reach the port.
const FILTER_SIZE: usize = 256 * 1024;

/// The `filter` parameter is no regular expression.
#[derive(Debug, thiserror::Error)]
#[error("query parameter `filter` is not a valid regular expression: {0}")]
pub(super) struct BadFilter(regex::Error);

/// Compiles a filter: an unanchored regular expression on printed family names.
pub(super) fn compile(filter: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(filter).size_limit(FILTER_SIZE).build()
}

/// What of the metrics the Mesh's settings select before any query does.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    pub(super) filter: Option<Regex>,
    pub(super) used_only: bool,
}

/// Narrows `base` by a query string (percent-encoded, without `?`). `filter` and `usedonly` count (the latter by
/// its presence, as in Envoy's admin interface); every other parameter, Envoy's `format`, `text_readouts`,
/// `histogram_buckets` and `type` among them, is accepted and changes nothing.
pub(super) fn select(base: Base, query: Option<&str>) -> Result<Selection, BadFilter> {
    let mut used_only = base.used_only;
    let mut asked = None;
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "usedonly" => used_only = true,
            "filter" if asked.is_none() && !value.is_empty() => {
                asked = Some(compile(&value).map_err(BadFilter)?);
            }
            _ => {}
        }
    }
    Ok(Selection {
        filters: base.filter.into_iter().chain(asked).collect(),
        used_only,
        format: Format::Text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(selection: &Selection) -> Vec<&str> {
        selection.filters.iter().map(Regex::as_str).collect()
    }

    #[test]
    fn an_empty_query_selects_what_the_settings_do() {
        let base = Base {
            filter: Some(compile("tcp_.*").unwrap()),
            used_only: true,
        };
        let selection = select(base, None).unwrap();
        assert_eq!(filters(&selection), ["tcp_.*"]);
        assert!(selection.used_only);
    }

    #[test]
    fn the_query_narrows_the_settings() {
        let base = Base {
            filter: Some(compile("tcp_.*").unwrap()),
            used_only: false,
        };
        let selection = select(base, Some("usedonly&filter=open%7Cclose+x")).unwrap();
        assert_eq!(filters(&selection), ["tcp_.*", "open|close x"]);
        assert!(selection.used_only);
    }

    #[test]
    fn parameters_of_envoy_and_unknown_ones_change_nothing() {
        let query =
            "format=prometheus&text_readouts=&histogram_buckets=none&type=Counters&x=y&filter=";
        let selection = select(Base::default(), Some(query)).unwrap();
        assert!(selection.filters.is_empty());
        assert!(!selection.used_only);
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = select(Base::default(), Some("filter=a%28")).unwrap_err();
        assert!(
            error.to_string().contains("query parameter `filter`"),
            "{error}"
        );
        let huge = "filter=%5Cw%7B999%7D%7B999%7D";
        assert!(select(Base::default(), Some(huge)).is_err());
    }
}
