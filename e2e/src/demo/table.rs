//! The table of the demo: a row for each proxy, direction and authority, computed from the proxy's
//! scrapes alone, and its text. Called by `demo`; knows no terminal and does no I/O.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::rates::History;

/// What one proxy saw in one direction for one authority. Rates are a second, over the window;
/// none where nothing happened in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub proxy: String,
    pub direction: &'static str,
    /// Empty for traffic that is not HTTP.
    pub authority: String,
    pub requests_per_second: f64,
    /// From 0 to 1.
    pub success: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// Requests since the proxy started.
    pub requests: f64,
    /// On the first row of a direction only, for connections have no authority.
    pub transport: Option<Transport>,
}

/// The connections that a proxy accepted in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Transport {
    pub open: f64,
    pub bytes_in_per_second: f64,
    pub bytes_out_per_second: f64,
}

/// The rows of a proxy: only what it has ever seen.
pub(super) fn rows(proxy: &str, history: &History) -> Vec<Row> {
    ["inbound", "outbound"]
        .into_iter()
        .flat_map(|direction| direction_rows(proxy, direction, history))
        .collect()
}

fn direction_rows(proxy: &str, direction: &'static str, history: &History) -> Vec<Row> {
    let Some(scrape) = history.latest() else {
        return Vec::new();
    };
    let accepted = [("direction", direction), ("peer", "src")];
    if scrape.sum("tcp_open_total", &accepted) == 0.0 {
        return Vec::new();
    }
    let rate = |name| history.rate(name, &accepted).unwrap_or_default();
    let mut transport = Some(Transport {
        open: scrape.sum("tcp_open_connections", &accepted),
        bytes_in_per_second: rate("tcp_read_bytes_total"),
        bytes_out_per_second: rate("tcp_write_bytes_total"),
    });
    let labels = [("direction", direction)];
    let requests = scrape.select("request_total", &labels);
    let mut authorities: BTreeSet<&str> = requests
        .filter(|series| series.value > 0.0)
        .map(|series| series.labels.get("authority").map_or("", String::as_str))
        .collect();
    if authorities.is_empty() {
        authorities.insert("");
    }
    let row = |authority: &str| Row {
        transport: transport.take(),
        ..http_row(proxy, direction, authority, history)
    };
    authorities.into_iter().map(row).collect()
}

fn http_row(proxy: &str, direction: &'static str, authority: &str, history: &History) -> Row {
    let labels = [("direction", direction), ("authority", authority)];
    let [in_direction, to_authority] = labels;
    let succeeded = [in_direction, to_authority, ("classification", "success")];
    let responses = history.rate("response_total", &labels).filter(|r| *r > 0.0);
    let quantile = |q| history.quantile(q, "response_latency_ms", &labels);
    let requests = history
        .latest()
        .map(|scrape| scrape.sum("request_total", &labels));
    Row {
        proxy: proxy.to_owned(),
        direction,
        authority: authority.to_owned(),
        requests_per_second: history.rate("request_total", &labels).unwrap_or_default(),
        success: responses.and_then(|all| Some(history.rate("response_total", &succeeded)? / all)),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        requests: requests.unwrap_or_default(),
        transport: None,
    }
}

/// The table as text, a line a row below a line of titles.
pub(super) fn render(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<7} {:<9} {:<16} {:>7} {:>8} {:>7} {:>7} {:>6} {:>9} {:>9} {:>9}\n",
        "PROXY",
        "DIRECTION",
        "AUTHORITY",
        "REQ/S",
        "SUCCESS",
        "P50 ms",
        "P99 ms",
        "CONNS",
        "IN B/s",
        "OUT B/s",
        "REQUESTS"
    );
    for row in rows {
        let authority = if row.authority.is_empty() {
            "-"
        } else {
            &row.authority
        };
        let success = row.success.map(|share| share * 100.0);
        let [open, bytes_in, bytes_out] = row.transport.map_or([const { String::new() }; 3], |t| {
            [t.open, t.bytes_in_per_second, t.bytes_out_per_second].map(|n| format!("{n:.0}"))
        });
        writeln!(
            text,
            "{:<7} {:<9} {:<16} {:>7.1} {:>8} {:>7} {:>7} {open:>6} {bytes_in:>9} {bytes_out:>9} {:>9}",
            row.proxy,
            row.direction,
            authority,
            row.requests_per_second,
            known(success, "%"),
            known(row.p50_ms, ""),
            known(row.p99_ms, ""),
            row.requests,
        )
        .expect("a string takes all");
    }
    text
}

fn known(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}{unit}"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::exposition::Scrape;

    const BEFORE: &str = r#"request_total{direction="outbound",authority="web"} 10
response_total{direction="outbound",authority="web",classification="success"} 10
tcp_open_total{direction="outbound",peer="src"} 4
tcp_open_connections{direction="outbound",peer="src"} 4
tcp_read_bytes_total{direction="outbound",peer="src"} 1000
tcp_open_total{direction="inbound",peer="src"} 0
request_total{direction="inbound",authority=""} 0
"#;
    const AFTER: &str = r#"request_total{direction="outbound",authority="web"} 50
request_total{direction="outbound",authority="other"} 2
response_total{direction="outbound",authority="web",classification="success"} 40
response_total{direction="outbound",authority="web",classification="failure"} 10
response_latency_ms_bucket{direction="outbound",authority="web",le="10"} 36
response_latency_ms_bucket{direction="outbound",authority="web",le="20"} 40
response_latency_ms_bucket{direction="outbound",authority="web",le="+Inf"} 40
tcp_open_total{direction="outbound",peer="src"} 5
tcp_open_total{direction="outbound",peer="dst"} 5
tcp_open_connections{direction="outbound",peer="src"} 3
tcp_read_bytes_total{direction="outbound",peer="src"} 5000
tcp_write_bytes_total{direction="outbound",peer="src"} 8000
tcp_open_total{direction="inbound",peer="src"} 0
"#;

    fn history() -> History {
        let mut history = History::default();
        let start = Instant::now();
        history.push(start, Scrape::parse(BEFORE).unwrap());
        history.push(
            start + Duration::from_secs(4),
            Scrape::parse(AFTER).unwrap(),
        );
        history
    }

    #[test]
    fn a_row_for_each_authority_that_was_asked() {
        let rows = rows("bot", &history());
        let [other, web] = rows.as_slice() else {
            panic!("two rows: {rows:#?}")
        };
        assert_eq!((other.authority.as_str(), other.requests), ("other", 2.0));
        assert_eq!((other.success, other.p50_ms), (None, None));
        assert_eq!(
            other.transport,
            Some(Transport {
                open: 3.0,
                bytes_in_per_second: 1000.0,
                bytes_out_per_second: 2000.0,
            })
        );
        assert_eq!((web.direction, web.requests_per_second), ("outbound", 10.0));
        assert_eq!((web.success, web.transport), (Some(0.75), None));
        assert!((web.p99_ms.unwrap() - 19.0).abs() < 1e-9, "{web:?}");
    }

    #[test]
    fn connections_without_requests_have_a_row() {
        let mut history = History::default();
        let text = "tcp_open_total{direction=\"inbound\",peer=\"src\"} 1\n";
        history.push(Instant::now(), Scrape::parse(text).unwrap());
        let rows = rows("web", &history);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].direction, rows[0].authority.as_str()),
            ("inbound", "")
        );
    }

    #[test]
    fn the_text_has_a_column_for_each_number() {
        let text = render(&rows("bot", &history()));
        let line = text.lines().last().unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "bot", "outbound", "web", "10.0", "75.0%", "5.6", "19.0", "50"
            ]
        );
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(
            widths
                .iter()
                .all(|width| *width == widths[0] && *width <= 110),
            "{text}"
        );
    }
}
