//! The reader of these tests is strict: what is wrong is an error.

use crate::parser::{Syntax, parse};

const TEXT: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n";
const OPEN_METRICS: &str = "# TYPE a counter\n# HELP a A.\na_total{x=\"1\"} 2\n# EOF\n";

fn histogram(lines: &str) -> String {
    format!("# HELP h_ms H.\n# TYPE h_ms histogram\n{lines}")
}

#[test]
fn what_is_right_is_read() {
    let families = parse(TEXT, Syntax::Text).unwrap();
    assert_eq!(families[0].samples[0].labels["x"], "1");
    assert_eq!(
        parse(OPEN_METRICS, Syntax::OpenMetrics).unwrap()[0].samples[0].value,
        2.0
    );
    let escaped = "# HELP a A\\nb\\\\.\n# TYPE a gauge\na{x=\"\\\"\\\\\\n,}\"} 1\n";
    let families = parse(escaped, Syntax::Text).unwrap();
    assert_eq!(families[0].help, "A\nb\\.");
    assert_eq!(families[0].samples[0].labels["x"], "\"\\\n,}");
    let buckets = histogram("h_ms_bucket{le=\"1\"} 1\nh_ms_bucket{le=\"+Inf\"} 2\nh_ms_sum{} 3\n");
    assert!(
        parse(&buckets, Syntax::Text).is_err(),
        "braces without labels"
    );
}

#[test]
fn what_is_wrong_is_refused() {
    for (change, into) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\n\n"),
        ("# EOF\n", "# EOF"),
        ("a_total{", "a{"),
        ("a counter\n", "a_total counter\n"),
        ("# HELP a A.\n", ""),
        ("# HELP a A.\n", "# HELP a \"A\".\n"),
        ("# HELP a A.\n", "# UNIT a seconds\n# HELP a A.\n"),
        ("} 2\n", "} 2\na_total{x=\"1\"} 3\n"),
        ("} 2\n", "} -2\n"),
        ("} 2\n", "} NaN\n"),
        ("} 2\n", "}  2\n"),
        ("} 2\n", "} 2 \n"),
        ("} 2\n", "} 2\n\n"),
        ("\"1\"", "\"1"),
        ("\"1\"", "\"\\t\""),
        ("\"1\"", "\"\0\""),
        ("\"1\"", "\"1\",x=\"2\""),
        ("\"1\"", "\"1\","),
        ("x=", "1x="),
        ("# TYPE a counter\n", "# TYPE a counter\n# TYPE a counter\n"),
        ("# EOF\n", "# TYPE a gauge\n# HELP a A.\na 1\n# EOF\n"),
        (
            "# EOF\n",
            "# TYPE a_total gauge\n# HELP a_total A.\na_total 1\n# EOF\n",
        ),
    ] {
        let body = OPEN_METRICS.replacen(change, into, 1);
        assert!(parse(&body, Syntax::OpenMetrics).is_err(), "{body}");
    }
    let whole = "h_ms_bucket{le=\"1\"} 1\nh_ms_bucket{le=\"+Inf\"} 2\nh_ms_sum 3\nh_ms_count 2\n";
    assert!(parse(&histogram(whole), Syntax::Text).is_ok());
    for (change, into) in [
        ("} 2", "} 0"),
        ("count 2", "count 1"),
        ("h_ms_count 2\n", ""),
        ("\"1\"", "\"1.0\""),
        ("le=\"+Inf\"", "le=\"0\""),
        ("h_ms_sum", "h_ms_sum{a=\"b\"}"),
    ] {
        let body = histogram(&whole.replacen(change, into, 1));
        assert!(parse(&body, Syntax::Text).is_err(), "{body}");
    }
}
