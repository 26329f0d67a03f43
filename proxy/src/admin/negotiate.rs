//! Which representation of the metrics a request gets: the format by `Accept`, the coding by `Accept-Encoding` (RFC
//! 9110, sections 12.5.1 and 12.5.3). Called by `routes` and `endpoint`; pure. Nobody is refused: whoever accepts
//! nothing that is served gets the text format as it is, which is what Prometheus' protocol asks of a target.

use crate::telemetry::Format;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName, HeaderValue};

/// A quality in thousandths; 0 is "not acceptable".
type Quality = u16;

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Representation {
    pub(super) format: Format,
    /// The scheme by which names outside of `[a-zA-Z0-9_:]` are spelled, where the scraper named one. All names of
    /// the proxy are inside, so that every scheme that leaves those alone is kept by doing nothing.
    escaping: Option<&'static str>,
    pub(super) gzip: bool,
}

/// The escaping schemes that change none of our names; `dots` would double their underscores.
const ESCAPINGS: [&str; 3] = ["allow-utf-8", "underscores", "values"];

impl Representation {
    /// The value of `Content-Type`.
    pub(super) fn content_type(&self) -> HeaderValue {
        let media_type = self.format.content_type();
        match self.escaping {
            None => HeaderValue::from_static(media_type),
            Some(scheme) => format!("{media_type}; escaping={scheme}")
                .try_into()
                .expect("two constants of visible characters"),
        }
    }
}

/// Chooses by the request's headers.
pub(super) fn negotiate(headers: &HeaderMap) -> Representation {
    let accepted = list(headers, ACCEPT);
    let accepted: Vec<_> = accepted
        .iter()
        .filter_map(|text| Range::parse(text))
        .collect();
    let quality = |format| {
        let ranges = accepted.iter().enumerate();
        let ranges = ranges.filter_map(|(at, range)| Some((range.matches(format)?, at, range)));
        // The most specific range decides; of equals the first one does.
        ranges.max_by_key(|(specificity, at, _)| (*specificity, usize::MAX - at))
    };
    // The last of equals wins, as with `*/*`: the text format.
    let best = [Format::OpenMetrics, Format::Text]
        .into_iter()
        .filter_map(|format| quality(format).map(|found| (format, found)))
        .filter(|(_, (_, _, range))| range.quality > 0)
        .max_by_key(|(_, (specificity, at, range))| (range.quality, *specificity, usize::MAX - at));
    let (format, escaping) = match best {
        Some((format, (_, _, range))) if format == Format::OpenMetrics => (format, range.escaping),
        _ => (Format::Text, None),
    };
    Representation {
        format,
        escaping,
        gzip: takes_gzip(headers),
    }
}

/// The elements of a header that is a list, on however many lines.
fn list(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    let lines = headers.get_all(name).into_iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| split(line, ','))
        .filter(|element| !element.is_empty())
        .collect()
}

/// The parts between separators that are not quoted, without the space around them.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        if escaped {
            escaped = false;
            return false;
        }
        escaped = quoted && c == '\\';
        quoted ^= c == '"';
        !quoted && c == separator
    })
    .map(|part| part.trim_matches([' ', '\t']))
}

/// A name and value of a parameter, both without the space around them, the value without its quotes.
fn parameter(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim_end(), value.trim_start().trim_matches('"')))
}

/// `0`, `1` or a number between them with at most three decimals.
fn quality(text: &str) -> Option<Quality> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let known = decimals.len() <= 3 && decimals.bytes().all(|b| b.is_ascii_digit());
    let thousandths = format!("{decimals:0<3}").parse().ok().filter(|_| known)?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// A media range of `Accept`.
#[derive(Debug)]
struct Range<'a> {
    media_type: &'a str,
    version: Option<&'a str>,
    charset: Option<&'a str>,
    escaping: Option<&'static str>,
    quality: Quality,
}

impl<'a> Range<'a> {
    /// `None` where it is none.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = split(text, ';');
        let mut range = Self {
            media_type: parts.next().filter(|media_type| media_type.contains('/'))?,
            version: None,
            charset: None,
            escaping: None,
            quality: 1000,
        };
        for (name, value) in parts.filter_map(parameter) {
            match name.to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value),
                "charset" => range.charset = Some(value),
                "escaping" => {
                    let known = ESCAPINGS.into_iter().find(|known| *known == value);
                    range.escaping = Some(known.unwrap_or("underscores"));
                }
                "q" => range.quality = quality(value)?,
                _ => {}
            }
        }
        Some(range)
    }

    /// How specifically it names the format, if it does at all. Parameters that we do not know are not looked at.
    fn matches(&self, format: Format) -> Option<usize> {
        let (media_type, version) = match format {
            Format::Text => ("text/plain", "0.0.4"),
            Format::OpenMetrics => ("application/openmetrics-text", "1.0.0"),
        };
        let (kind, _) = media_type.split_once('/')?;
        let any_of_kind = |range: &str| {
            range
                .strip_suffix("/*")
                .is_some_and(|range| range.eq_ignore_ascii_case(kind))
        };
        if self.media_type == "*/*" {
            return Some(0);
        }
        if any_of_kind(self.media_type) {
            return Some(1);
        }
        let same = self.media_type.eq_ignore_ascii_case(media_type)
            && self.version.is_none_or(|asked| asked == version)
            && self
                .charset
                .is_none_or(|asked| asked.eq_ignore_ascii_case("utf-8"));
        let named = usize::from(self.version.is_some()) + usize::from(self.charset.is_some());
        same.then_some(2 + named)
    }
}

/// Whether the answer is compressed: where gzip is accepted, and not less than the answer as it is.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for element in list(headers, ACCEPT_ENCODING) {
        let mut parts = split(element, ';');
        let coding = parts.next().unwrap_or_default();
        let weights = parts.filter_map(parameter);
        let mut weights = weights.filter(|(name, _)| name.eq_ignore_ascii_case("q"));
        let Some(weight) = weights.next().map_or(Some(1000), |(_, q)| quality(q)) else {
            continue;
        };
        match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = gzip.max(Some(weight)),
            "identity" => identity = Some(weight),
            "*" => any = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

#[cfg(test)]
mod tests;
