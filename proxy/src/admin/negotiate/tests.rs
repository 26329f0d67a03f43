//! The headers that scrapers really send, and the corners of the two RFC sections.

use super::*;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn asked(name: HeaderName, lines: &[&str]) -> Representation {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(&name, line.parse().unwrap());
    }
    negotiate(&headers)
}

fn content_type(accept: &str) -> String {
    let representation = asked(ACCEPT, &[accept]);
    representation.content_type().to_str().unwrap().to_owned()
}

#[test]
fn what_scrapers_send() {
    let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let utf8 = &format!("{OPEN_METRICS}; escaping=allow-utf-8");
    let underscores = &format!("{OPEN_METRICS}; escaping=underscores");
    let cases: [(&str, &str, &str); 11] = [
        (
            "Prometheus 2.5",
            "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            TEXT,
        ),
        (
            "Prometheus 2.42 (Debian 12)",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPEN_METRICS,
        ),
        (
            "Prometheus 3",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            utf8,
        ),
        (
            "Prometheus 3 with legacy names",
            "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=underscores;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            underscores,
        ),
        (
            "Prometheus 3 that prefers protobuf",
            &format!(
                "{protobuf};q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
            ),
            utf8,
        ),
        (
            "Prometheus 3 with scrape_protocols: [PrometheusText1.0.0]",
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.2,*/*;q=0.1",
            TEXT,
        ),
        (
            "Prometheus 3 with scrape_protocols: [PrometheusText0.0.4]",
            "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            TEXT,
        ),
        ("curl", "*/*", TEXT),
        (
            "a browser",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            TEXT,
        ),
        ("vmagent", "text/plain;version=0.0.4;q=1,*/*;q=0.1", TEXT),
        ("one that reads nothing but protobuf", protobuf, TEXT),
    ];
    for (scraper, accept, expected) in cases {
        assert_eq!(content_type(accept), expected, "{scraper}");
    }
    assert_eq!(negotiate(&HeaderMap::new()).content_type(), TEXT);
}

#[test]
fn the_higher_quality_wins_and_the_more_specific_range_says_it() {
    for (accept, format) in [
        ("application/openmetrics-text", Format::OpenMetrics),
        (
            "APPLICATION/OpenMetrics-Text ; Version=1.0.0",
            Format::OpenMetrics,
        ),
        (
            "application/openmetrics-text; version=\"1.0.0\"",
            Format::OpenMetrics,
        ),
        (
            "application/openmetrics-text;charset=utf-8",
            Format::OpenMetrics,
        ),
        ("application/openmetrics-text;charset=latin1", Format::Text),
        ("application/openmetrics-text;version=2.0.0", Format::Text),
        ("application/*", Format::OpenMetrics),
        ("text/*, application/*", Format::Text),
        ("application/*, text/*", Format::OpenMetrics),
        ("*/*, application/openmetrics-text", Format::OpenMetrics),
        (
            "text/plain;q=0.5, application/openmetrics-text;q=0.501",
            Format::OpenMetrics,
        ),
        (
            "text/plain;q=0.501, application/openmetrics-text;q=0.5",
            Format::Text,
        ),
        ("application/openmetrics-text;q=0, */*", Format::Text),
        ("text/plain;q=0, */*;q=0.1", Format::OpenMetrics),
        (
            "text/plain;q=0, application/openmetrics-text;q=0",
            Format::Text,
        ),
        (
            "application/openmetrics-text;q=2, text/plain;q=0.1",
            Format::Text,
        ),
        (
            "application/openmetrics-text;q=0.1234, text/plain;q=0.1",
            Format::Text,
        ),
        (
            "application/openmetrics-text;q=, text/plain;q=0.1",
            Format::Text,
        ),
        // A comma and a semicolon in quotes separate nothing.
        (
            "text/html;x=\"a,application/openmetrics-text;q=1,\\\",b\", text/plain",
            Format::Text,
        ),
        ("", Format::Text),
        (",;,q", Format::Text),
    ] {
        assert_eq!(asked(ACCEPT, &[accept]).format, format, "{accept}");
    }
    let lines = ["text/plain;q=0.1", "application/openmetrics-text;q=0.2"];
    assert_eq!(asked(ACCEPT, &lines).format, Format::OpenMetrics);
}

#[test]
fn a_scheme_that_would_change_our_names_is_not_promised() {
    for (scheme, told) in [
        ("values", "values"),
        ("dots", "underscores"),
        ("x\\\";y", "underscores"),
    ] {
        let accept = format!("application/openmetrics-text;version=1.0.0;escaping=\"{scheme}\"");
        assert_eq!(
            content_type(&accept),
            format!("{OPEN_METRICS}; escaping={told}")
        );
    }
    // Text 0.0.4 has no schemes.
    assert_eq!(
        content_type("text/plain;version=0.0.4;escaping=values"),
        TEXT
    );
}

#[test]
fn gzip_is_used_where_it_is_accepted() {
    for (accepted, gzip) in [
        ("gzip", true),
        ("deflate, gzip", true),
        ("gzip,deflate", true),
        ("brotli,gzip,deflate", true),
        ("x-GZIP", true),
        ("gzip;q=0.001", true),
        ("*", true),
        ("identity, gzip", true),
        ("*;q=0.5, identity;q=0.1", true),
        ("identity;q=0, *", true),
        ("deflate, br, zstd", false),
        ("identity", false),
        ("gzip;q=0", false),
        ("gzip;q=0.0, *", false),
        ("gzip;q=0.5, identity", false),
        ("*;q=0", false),
        ("gzip;q=7", false),
        ("notgzip", false),
        ("", false),
    ] {
        assert_eq!(asked(ACCEPT_ENCODING, &[accepted]).gzip, gzip, "{accepted}");
    }
    assert!(!negotiate(&HeaderMap::new()).gzip);
}
