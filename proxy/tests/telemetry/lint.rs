//! `promtool check metrics` on an exposition that has every family of the table in it. It may complain of nothing but
//! what follows from the names that Linkerd's page fixes.

use weir_proxy::telemetry::{self, Config, Selection};

use crate::scrape::text;
use crate::{everything, promtool};

/// Every complaint that is allowed, and must be there.
const ALLOWED: [&str; 6] = [
    "control_response_latency_ms metric names should not contain abbreviated units",
    "identity_cert_refresh_count counter metrics should have \"_total\" suffix",
    "identity_cert_refresh_count non-histogram and non-summary metrics should not have \"_count\" suffix",
    "response_latency_ms metric names should not contain abbreviated units",
    "route_response_latency_ms metric names should not contain abbreviated units",
    "tcp_connection_duration_ms metric names should not contain abbreviated units",
];

/// An exposition of every family, under this policy.
pub(crate) fn everything_counted(policy: &str) -> String {
    let (telemetry, mut seats) = telemetry::new(Config::default(), 1);
    telemetry.set_policy(&telemetry::policy(policy).unwrap());
    everything::count(&telemetry, &seats.remove(0).take());
    // What a scrape tells of the one before it.
    text(&telemetry, &Selection::default());
    text(&telemetry, &Selection::default())
}

#[test]
fn promtool_says_only_what_the_names_entail() {
    let body = everything_counted("");
    assert_eq!(promtool::said_of(&body), ALLOWED);
}
