//! Reads the query of a metrics request into a `Selection`, adding to what the Mesh's settings already select.
//! Called by `routes` and `endpoint`; pure.

use crate::telemetry::{Format, Selection};
use regex::Regex;
use weir_crds::filter;

/// A query that is not what its author meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadQuery {
    #[error(
        "query parameter `filter` is not a valid regular expression: {0}\nGive one that any part of a family's name \
         is to match, such as ^tcp_ or (request|response)_total, percent-encoded where it has reserved characters."
    )]
    Filter(regex::Error),
    #[error(
        "query parameter `format` is {0:?}, which is not served: leave it out, or give `prometheus`. OpenMetrics is \
         chosen by the header Accept: application/openmetrics-text"
    )]
    Format(String),
}

/// What of the metrics the Mesh's settings select before any query does.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    pub(super) filter: Option<Regex>,
    pub(super) used_only: bool,
}

/// Narrows `base` by a query string (percent-encoded, without `?`). The parameters are those of Envoy's admin
/// interface: `filter` (the first that is not empty), `usedonly` (by its presence, whatever its value), and `format`,
/// of which `prometheus` is all there is. Its `text_readouts`, `histogram_buckets` and `type` are accepted and change
/// nothing, as does every unknown parameter.
pub(super) fn select(
    base: Base,
    query: Option<&str>,
    format: Format,
) -> Result<Selection, BadQuery> {
    // Envoy leaves `+` as it is. A form would make a space of it, which is in no family's name.
    let query = query.unwrap_or_default().replace('+', "%2B");
    let mut used_only = base.used_only;
    let mut asked = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "usedonly" => used_only = true,
            "filter" if asked.is_none() && !value.is_empty() => {
                asked = Some(filter::compile(&value).map_err(BadQuery::Filter)?);
            }
            "format" if !matches!(value.as_ref(), "" | "prometheus") => {
                return Err(BadQuery::Format(value.into_owned()));
            }
            _ => {}
        }
    }
    Ok(Selection {
        filters: base.filter.into_iter().chain(asked).collect(),
        used_only,
        format,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(base: Base, query: Option<&str>) -> Result<Selection, BadQuery> {
        super::select(base, query, Format::default())
    }

    fn filters(selection: &Selection) -> Vec<&str> {
        selection.filters.iter().map(Regex::as_str).collect()
    }

    #[test]
    fn an_empty_query_selects_what_the_settings_do() {
        let base = Base {
            filter: Some(filter::compile("tcp_.*").unwrap()),
            used_only: true,
        };
        let selection = select(base, None).unwrap();
        assert_eq!(filters(&selection), ["tcp_.*"]);
        assert!(selection.used_only);
    }

    #[test]
    fn the_query_narrows_the_settings() {
        let base = Base {
            filter: Some(filter::compile("tcp_.*").unwrap()),
            used_only: false,
        };
        let selection = select(base, Some("usedonly&filter=open%7Cclose.+")).unwrap();
        assert_eq!(filters(&selection), ["tcp_.*", "open|close.+"]);
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
    fn usedonly_counts_by_its_presence() {
        for (query, used_only) in [
            ("usedonly", true),
            ("usedonly=", true),
            ("usedonly=false", true),
            ("a=b&usedonly=1", true),
            ("usedOnly", false),
            ("filter=usedonly", false),
        ] {
            let selection = select(Base::default(), Some(query)).unwrap();
            assert_eq!(selection.used_only, used_only, "{query}");
        }
    }

    #[test]
    fn a_bad_filter_is_named_with_the_remedy() {
        let error = select(Base::default(), Some("filter=a%28"))
            .unwrap_err()
            .to_string();
        for part in [
            "query parameter `filter`",
            "unclosed group",
            "such as ^tcp_",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let huge = "filter=%5Cw%7B999%7D%7B999%7D";
        assert!(select(Base::default(), Some(huge)).is_err());
    }

    #[test]
    fn a_format_that_is_not_served_is_named_with_the_remedy() {
        for query in ["format=json", "format=text&filter=x", "format=%22"] {
            let error = select(Base::default(), Some(query))
                .unwrap_err()
                .to_string();
            for part in ["query parameter `format`", "`prometheus`", "Accept"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
}
