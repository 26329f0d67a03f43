//! The pod annotations that override a Mesh's metrics (`prometheus.metrics.kuma.io/...`, the Kuma page), and the one that
//! closes its ports to requests without a route. Called by the webhook, on the pod's annotations after those of the
//! namespace were added, and by the operator. It knows nothing of the Mesh: what only shows after merging (an application without any port) is found by [`crate::merge::check`].

use std::collections::BTreeMap;

use crate::conf::{AggregateConf, PrometheusConf};
use crate::merge::{MetricsOverride, OverrideSource};
use crate::names::{
    CLOSED_ROUTES, METRICS_AGGREGATE_PREFIX, METRICS_PATH, METRICS_PORT, METRICS_PREFIX,
};
use crate::violation::Violation;
use crate::{address, ports};

/// What follows the name in an aggregate annotation.
const FIELDS: [&str; 4] = ["port", "path", "enabled", "address"];

/// The override that a pod's annotations ask for, every wrong one named by its key. Applications come in the order
/// of their names. A pod without such annotations has an override that changes nothing.
pub fn metrics_override(
    annotations: &BTreeMap<String, String>,
) -> Result<MetricsOverride, Vec<Violation>> {
    let mut conf = PrometheusConf::default();
    let mut applications: BTreeMap<&str, AggregateConf> = BTreeMap::new();
    let mut violations = Vec::new();
    for (key, value) in annotations {
        let read = match key.as_str() {
            METRICS_PORT => read_metrics_port(key, value).map(|port| conf.port = Some(port)),
            METRICS_PATH => read_path(key, value).map(|path| conf.path = Some(path)),
            _ => match aggregate_key(key) {
                Some((name, field)) => {
                    read_field(applications.entry(name).or_default(), (key, field), value)
                }
                None => Ok(()),
            },
        };
        violations.extend(read.err());
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    conf.aggregate = applications
        .into_iter()
        .map(|(name, application)| AggregateConf {
            name: name.to_owned(),
            ..application
        })
        .collect();
    Ok(MetricsOverride {
        conf,
        source: OverrideSource::Annotations,
    })
}

/// Whether a request that none of the routes of a Service matches is refused at the pod. A pod that says nothing lets
/// every request in.
pub fn closed_routes(annotations: &BTreeMap<String, String>) -> Result<bool, Violation> {
    let said = annotations.get(CLOSED_ROUTES);
    said.map_or(Ok(false), |value| read_flag(CLOSED_ROUTES, value))
}

/// The keys below `prometheus.metrics.kuma.io/` that mean nothing, which is most likely a slip: to be warned about.
pub fn unknown(annotations: &BTreeMap<String, String>) -> Vec<&str> {
    let known =
        |key: &str| key == METRICS_PORT || key == METRICS_PATH || aggregate_key(key).is_some();
    annotations
        .keys()
        .map(String::as_str)
        .filter(|key| key.starts_with(METRICS_PREFIX) && !known(key))
        .collect()
}

/// Splits `...aggregate-<name>-<field>` at its last dash; names are letters, digits and dashes.
fn aggregate_key(key: &str) -> Option<(&str, &str)> {
    let (name, field) = key
        .strip_prefix(METRICS_AGGREGATE_PREFIX)?
        .rsplit_once('-')?;
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let known = FIELDS.contains(&field) && !name.is_empty() && name.bytes().all(of_name);
    known.then_some((name, field))
}

fn read_field(
    entry: &mut AggregateConf,
    (key, field): (&str, &str),
    value: &str,
) -> Result<(), Violation> {
    match field {
        "port" => entry.port = Some(read_port(key, value)?),
        "path" => entry.path = Some(read_path(key, value)?),
        "enabled" => entry.enabled = Some(read_flag(key, value)?),
        _ => entry.address = Some(read_address(key, value)?),
    }
    Ok(())
}

fn wrong(key: &str, value: &str, remedy: &str) -> Violation {
    Violation::new(
        key,
        format!("annotation has wrong value {value:?}: {remedy}"),
    )
}

fn read_port(key: &str, value: &str) -> Result<u32, Violation> {
    let number = value
        .parse()
        .ok()
        .filter(|number| ports::checked(*number).is_some());
    number.ok_or_else(|| wrong(key, value, ports::RANGE_MESSAGE))
}

fn read_metrics_port(key: &str, value: &str) -> Result<u32, Violation> {
    let port = read_port(key, value)?;
    match ports::OWN.map(u32::from).contains(&port) {
        true => Err(wrong(key, value, ports::OWN_MESSAGE)),
        false => Ok(port),
    }
}

fn read_path(key: &str, value: &str) -> Result<String, Violation> {
    if value.starts_with('/') {
        Ok(value.to_owned())
    } else {
        Err(wrong(key, value, "path has to start with '/'"))
    }
}

fn read_flag(key: &str, value: &str) -> Result<bool, Violation> {
    match value {
        "true" | "yes" | "enabled" => Ok(true),
        "false" | "no" | "disabled" => Ok(false),
        _ => Err(wrong(key, value, "has to be \"true\" or \"false\"")),
    }
}

fn read_address(key: &str, value: &str) -> Result<String, Violation> {
    if address::is_valid(value) {
        Ok(value.to_owned())
    } else {
        Err(wrong(key, value, address::MESSAGE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned =
            |(key, value): &(&str, &str)| (format!("{METRICS_PREFIX}{key}"), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_pod_closes_its_ports_by_a_flag() {
        let said =
            |value: &str| closed_routes(&[(CLOSED_ROUTES.to_owned(), value.to_owned())].into());
        assert_eq!(closed_routes(&BTreeMap::new()), Ok(false));
        assert_eq!((said("true"), said("disabled")), (Ok(true), Ok(false)));
        let wrong = said("closed").unwrap_err();
        assert_eq!(wrong.field, CLOSED_ROUTES);
        assert!(wrong.message.contains("\"true\" or \"false\""), "{wrong}");
    }

    #[test]
    fn the_examples_of_the_page_are_read() {
        let over = metrics_override(&annotations(&[
            ("port", "1234"),
            ("path", "/non-standard-path"),
            ("aggregate-my-service-enabled", "false"),
            ("aggregate-other-sidecar-port", "1234"),
            ("aggregate-application-port", "80"),
            ("aggregate-application-path", "/stats"),
        ]))
        .unwrap();
        assert_eq!(over.source, OverrideSource::Annotations);
        assert_eq!(
            (over.conf.port, over.conf.path.as_deref()),
            (Some(1234), Some("/non-standard-path"))
        );
        let application = |name: &str| AggregateConf {
            name: name.into(),
            ..AggregateConf::default()
        };
        assert_eq!(
            over.conf.aggregate,
            [
                AggregateConf {
                    port: Some(80),
                    path: Some("/stats".into()),
                    ..application("application")
                },
                AggregateConf {
                    enabled: Some(false),
                    ..application("my-service")
                },
                AggregateConf {
                    port: Some(1234),
                    ..application("other-sidecar")
                },
            ]
        );
    }

    #[test]
    fn every_wrong_value_is_named_by_its_key() {
        for (key, value) in [
            ("port", "123a"),
            ("port", "0"),
            ("port", "65536"),
            ("port", ""),
            ("port", "4191"),
            ("path", "metrics"),
            ("aggregate-a-port", "-1"),
            ("aggregate-a-path", ""),
            ("aggregate-a-enabled", "maybe"),
            ("aggregate-a-address", "http://localhost"),
        ] {
            let violations = metrics_override(&annotations(&[(key, value)])).unwrap_err();
            assert_eq!(violations.len(), 1, "{key}={value}");
            assert_eq!(violations[0].field, format!("{METRICS_PREFIX}{key}"));
            assert!(
                violations[0].message.contains(&format!("{value:?}")),
                "{}",
                violations[0]
            );
        }
        let two = metrics_override(&annotations(&[("port", "x"), ("path", "y")])).unwrap_err();
        assert_eq!(two.len(), 2);
    }

    #[test]
    fn a_name_reaches_to_the_last_dash() {
        assert_eq!(
            aggregate_key("prometheus.metrics.kuma.io/aggregate-a-port-path"),
            Some(("a-port", "path"))
        );
        assert_eq!(
            aggregate_key("prometheus.metrics.kuma.io/aggregate-port"),
            None
        );
        assert_eq!(
            aggregate_key("prometheus.metrics.kuma.io/aggregate-a.b-port"),
            None
        );
        assert_eq!(aggregate_key("other.io/aggregate-a-port"), None);
    }

    #[test]
    fn a_slip_is_unknown_and_changes_nothing() {
        let slips = annotations(&[("aggregate-a-prot", "80"), ("prot", "80"), ("port", "80")]);
        let over = metrics_override(&slips).unwrap();
        assert!(over.conf.aggregate.is_empty());
        let keys = unknown(&slips);
        assert_eq!(
            keys,
            [
                "prometheus.metrics.kuma.io/aggregate-a-prot",
                "prometheus.metrics.kuma.io/prot"
            ]
        );
    }
}
