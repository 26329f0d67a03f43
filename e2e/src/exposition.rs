//! Reads exposition text (format 0.0.4) into series, for assertions. Used by the stories, and as a
//! file by `proxy/tests/tables`; judges nothing: promtool does that.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

/// One sample: its name as it is printed, its labels and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// The names of the labels as they are printed.
    pub order: Vec<String>,
    pub value: f64,
}

impl Series {
    /// Whether every label of the list has that value; a label that is absent counts as empty.
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| {
            self.labels
                .get(*name)
                .map(String::as_str)
                .unwrap_or_default()
                == *value
        })
    }
}

/// All samples of a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape(pub Vec<Series>);

impl Scrape {
    /// Errors name the line that is no sample.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(index, line)| {
                sample(line).with_context(|| format!("line {}: '{line}'", index + 1))
            })
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// The samples of that name with these labels.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.0
            .iter()
            .filter(move |series| series.name == name && series.has(labels))
    }

    /// The sum of the samples of that name with these labels; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|series| series.value).sum()
    }
}

fn sample(line: &str) -> anyhow::Result<Series> {
    let name_end = line.find(['{', ' ']).context("a name alone is no sample")?;
    let (name, rest) = line.split_at(name_end);
    let mut order = Vec::new();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest, &mut order)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next().context("no value")?;
    Ok(Series {
        name: name.to_owned(),
        labels,
        order,
        value: value.parse().context("the value is no number")?,
    })
}

/// Labels up to the closing brace, and what follows it.
fn labels<'t>(
    mut rest: &'t str,
    order: &mut Vec<String>,
) -> anyhow::Result<(BTreeMap<String, String>, &'t str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, after) = rest.split_once("=\"").context("a label without a value")?;
        let (value, after) = quoted(after)?;
        order.push(name.to_owned());
        if labels.insert(name.to_owned(), value).is_some() {
            bail!("label '{name}' occurs twice");
        }
        rest = after;
    }
}

/// A value up to its closing quote, unescaped, and what follows it.
fn quoted(text: &str) -> anyhow::Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[index + 1..])),
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some(escaped @ ('"' | '\\')) => value.push(escaped),
                other => bail!("an unknown escape: {other:?}"),
            },
            _ => value.push(character),
        }
    }
    bail!("a value without its closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP request_total Requests.
# TYPE request_total counter
request_total{direction="inbound",authority="a\"b\\c\nd,}"} 3
request_total{direction="outbound",authority=""} 4 1700000000
process_threads 2
response_latency_ms_bucket{le="+Inf"} 5
"#;

    #[test]
    fn samples_have_names_labels_and_values() {
        let scrape = Scrape::parse(TEXT).unwrap();
        assert_eq!(scrape.0.len(), 4);
        assert_eq!(scrape.0[0].labels["authority"], "a\"b\\c\nd,}");
        assert_eq!(scrape.0[0].order, ["direction", "authority"]);
        assert_eq!(scrape.sum("request_total", &[]), 7.0);
        assert_eq!(
            scrape.sum("request_total", &[("direction", "outbound")]),
            4.0
        );
        assert_eq!(scrape.sum("request_total", &[("tls", "")]), 7.0);
        assert_eq!(scrape.sum("process_threads", &[]), 2.0);
    }

    #[test]
    fn what_is_no_sample_is_named() {
        for (text, expected) in [
            ("a{b=\"c} 1", "line 1: 'a{b=\"c} 1'"),
            ("\na{b=\"c\",b=\"d\"} 1", "line 2"),
            ("a x", "line 1"),
            ("a", "line 1"),
        ] {
            let error = Scrape::parse(text).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
