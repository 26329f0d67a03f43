//! A strict reader of both formats: what it takes for valid is the grammar of text 0.0.4 or of OpenMetrics 1.0 as the
//! proxy may use it (no timestamps, no exemplars), and everything else is an error with its line. Used by the tests of
//! the exposition and by the fuzz target of the same name.

use std::collections::{BTreeMap, BTreeSet};

/// Labels by name.
pub(crate) type Labels = BTreeMap<String, String>;

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

/// A family as it is described, with its samples in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// The format to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    Text,
    OpenMetrics,
}

/// Reads a whole body.
pub(crate) fn parse(body: &str, syntax: Syntax) -> Result<Vec<Family>, String> {
    let body = match (syntax, body.strip_suffix("# EOF\n")) {
        (Syntax::Text, _) => body,
        (Syntax::OpenMetrics, Some(body)) => body,
        (Syntax::OpenMetrics, None) => return Err("no # EOF at the end".into()),
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let mut families: Vec<Family> = Vec::new();
    for (at, line) in body.split_terminator('\n').enumerate() {
        read_line(line, syntax, &mut families)
            .map_err(|e| format!("line {}: {e}: {line:?}", at + 1))?;
    }
    check(&families, syntax)?;
    Ok(families)
}

fn read_line(line: &str, syntax: Syntax, families: &mut Vec<Family>) -> Result<(), String> {
    let Some(metadata) = line.strip_prefix("# ") else {
        let sample = sample(line)?;
        let family = families.last_mut().ok_or("a sample without a family")?;
        if !family.sample_names(syntax)?.contains(&sample.name) {
            return Err(format!("no sample of {} {}", family.kind, family.name));
        }
        family.samples.push(sample);
        return Ok(());
    };
    let mut words = metadata.splitn(3, ' ');
    let (Some(word), Some(name), Some(text)) = (words.next(), words.next(), words.next()) else {
        return Err("incomplete metadata".into());
    };
    let first = if syntax == Syntax::Text {
        "HELP"
    } else {
        "TYPE"
    };
    if word == first {
        families.push(Family {
            name: name.to_owned(),
            ..Family::default()
        });
    }
    let family = families.last_mut().filter(|family| family.name == name);
    let family = family.ok_or("metadata of another family")?;
    if !family.samples.is_empty() {
        return Err("metadata after samples".into());
    }
    match (word, syntax) {
        ("HELP", _) if family.help.is_empty() => family.help = help(text, syntax)?,
        ("TYPE", _) if family.kind.is_empty() => family.kind = text.to_owned(),
        ("UNIT", Syntax::OpenMetrics) if family.unit.is_none() => {
            family.unit = Some(text.to_owned())
        }
        _ => return Err("metadata that is unknown or comes twice".into()),
    }
    Ok(())
}

fn help(text: &str, syntax: Syntax) -> Result<String, String> {
    let (value, rest) = unescape(
        text,
        if syntax == Syntax::Text {
            "\\n"
        } else {
            "\\n\""
        },
    )?;
    match rest {
        "" => Ok(value),
        _ => Err("a quote that is not escaped".into()),
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("a name alone")?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let number = rest.strip_prefix(' ').ok_or("no space before the value")?;
    if !is_name(name, ":") {
        return Err(format!("{name:?} is no name"));
    }
    let digits = number
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.e".contains(&b));
    let value = number.parse().ok().filter(|_| digits && !number.is_empty());
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: value.ok_or("no number")?,
    })
}

/// Labels after their opening brace, and what follows the closing one.
fn labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(name, "") {
            return Err(format!("{name:?} is no label"));
        }
        let (value, after) = unescape(after, "\\n\"")?;
        let after = after.strip_prefix('"').ok_or("a value without its end")?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("label {name} comes twice"));
        }
        match (after.strip_prefix('}'), after.strip_prefix(',')) {
            (Some(after), _) => return Ok((labels, after)),
            (None, Some(after)) => rest = after,
            (None, None) => return Err("neither a comma nor a brace after a label".into()),
        }
    }
}

/// Text up to the first bare quote (or the end, where quotes are not `escaped`), and the rest.
fn unescape<'a>(text: &'a str, escaped: &str) -> Result<(String, &'a str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' if escaped.contains('"') => return Ok((value, &text[at..])),
            '\0' => return Err("a NUL, at which Prometheus stops reading".into()),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c)) if escaped.contains(c) => value.push(c),
                other => return Err(format!("an unknown escape: {other:?}")),
            },
            c => value.push(c),
        }
    }
    Ok((value, ""))
}

fn is_name(name: &str, also: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || also.contains(c);
    !name.is_empty() && name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

impl Family {
    /// What its samples may be called.
    fn sample_names(&self, syntax: Syntax) -> Result<Vec<String>, String> {
        let suffixes: &[&str] = match (self.kind.as_str(), syntax) {
            ("gauge", _) | ("counter", Syntax::Text) | ("unknown", Syntax::OpenMetrics) => &[""],
            ("counter", Syntax::OpenMetrics) => &["_total"],
            ("info", Syntax::OpenMetrics) => &["_info"],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            (kind, _) => return Err(format!("unknown type {kind:?}")),
        };
        Ok(suffixes
            .iter()
            .map(|suffix| format!("{}{suffix}", self.name))
            .collect())
    }
}

/// What no line shows alone.
fn check(families: &[Family], syntax: Syntax) -> Result<(), String> {
    let mut names = BTreeSet::new();
    let mut series = BTreeSet::new();
    for family in families {
        if family.samples.is_empty() || family.help.is_empty() || family.kind.is_empty() {
            return Err(format!("{} is not complete", family.name));
        }
        let own = std::iter::once(family.name.clone());
        let own: BTreeSet<_> = own.chain(family.sample_names(syntax)?).collect();
        for name in own {
            if !names.insert(name.clone()) {
                return Err(format!("{name} is the name of more than one thing"));
            }
        }
        if let Some(unit) = &family.unit
            && !family.name.ends_with(&format!("_{unit}"))
        {
            return Err(format!("{} does not end in its unit {unit}", family.name));
        }
        for sample in &family.samples {
            if !series.insert((&sample.name, &sample.labels)) {
                return Err(format!("{sample:?} comes twice"));
            }
            if family.kind == "counter" && !(sample.value.is_finite() && sample.value >= 0.0) {
                return Err(format!("{sample:?} counts nothing"));
            }
        }
        if family.kind == "histogram" {
            check_histogram(family, syntax)?;
        }
    }
    Ok(())
}

/// Each metric's buckets come one after the other, rising in bound and count, then the sum and the count of all.
fn check_histogram(family: &Family, syntax: Syntax) -> Result<(), String> {
    let wrong = |what: &str, sample: &Sample| Err(format!("{what}: {sample:?}"));
    let (mut bound, mut count, mut of) = (f64::NEG_INFINITY, 0.0, None::<Labels>);
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let le = labels.remove("le");
        if of.as_ref().is_some_and(|of| *of != labels) {
            return wrong("another metric in between", sample);
        }
        match sample
            .name
            .strip_prefix(family.name.as_str())
            .unwrap_or_default()
        {
            "_bucket" => {
                let le = le.ok_or("a bucket without a bound")?;
                let upper: f64 = le.trim_start_matches('+').parse().map_err(|_| "no bound")?;
                let spelled = match (syntax, upper.is_finite()) {
                    (_, false) => "+Inf".to_owned(),
                    (Syntax::Text, true) => format!("{upper}"),
                    (Syntax::OpenMetrics, true) => format!("{upper:?}"),
                };
                if upper <= bound || sample.value < count || le != spelled {
                    return wrong("a bucket out of order, or a bound misspelled", sample);
                }
                (bound, count, of) = (upper, sample.value, Some(labels));
            }
            "_sum" if bound.is_infinite() && of.is_some() => {}
            "_count" if bound.is_infinite() && count == sample.value => {
                (bound, count, of) = (f64::NEG_INFINITY, 0.0, None);
            }
            _ => return wrong("out of order", sample),
        }
    }
    of.map_or(Ok(()), |of| {
        Err(format!("a histogram without its count: {of:?}"))
    })
}
