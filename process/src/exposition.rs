//! What a program says of itself at `/metrics`, in the format that its reader asks for. Used by the servers of operator and
//! webhook; it knows no family.

/// Content type of OpenMetrics 1.0.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of Prometheus text 0.0.4.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type and the body of an exposition for a reader with these values of the header `Accept`: OpenMetrics for
/// whoever asks for it, as Prometheus does; else the text that every tool reads.
pub fn negotiated<'a>(
    mut accept: impl Iterator<Item = &'a str>,
    openmetrics: String,
) -> (&'static str, String) {
    if accept.any(|value| value.contains("application/openmetrics-text")) {
        (OPENMETRICS, openmetrics)
    } else {
        (CLASSIC, classic(&openmetrics))
    }
}

/// In Prometheus text 0.0.4 a counter's family carries the name of its samples, and nothing marks the end.
fn classic(openmetrics: &str) -> String {
    let counters: Vec<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut classic = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(word), Some(name), Some(rest)) if counters.contains(&name) => {
                classic.push_str(&format!("# {word} {name}_total {rest}\n"));
            }
            _ => classic.push_str(&format!("{line}\n")),
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP restarts Watches that broke.\n# TYPE restarts counter\nrestarts_total{resource=\"pods\"} 1\n\
                        # HELP leader Whether it leads.\n# TYPE leader gauge\nleader 1\n# EOF\n";

    #[test]
    fn the_classic_text_names_a_counter_as_its_samples() {
        let expected = "# HELP restarts_total Watches that broke.\n# TYPE restarts_total counter\n\
                        restarts_total{resource=\"pods\"} 1\n# HELP leader Whether it leads.\n# TYPE leader gauge\nleader 1\n";
        assert_eq!(classic(TEXT), expected);
    }

    #[test]
    fn the_format_is_the_readers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
        for (accept, kind) in [
            (None, CLASSIC),
            (Some("*/*"), CLASSIC),
            (Some(prometheus), OPENMETRICS),
        ] {
            let (told, body) = negotiated(accept.into_iter(), TEXT.to_owned());
            assert_eq!(told, kind, "{accept:?}");
            assert_eq!(body == TEXT, kind == OPENMETRICS, "{accept:?}");
        }
    }
}
