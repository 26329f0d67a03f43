//! Whom a request is for, and the label of that. The sessions say what the client wrote; only the ledger makes a label
//! of it.

/// Longest authority that becomes a label, in bytes: a DNS name and a port.
pub const MAX_AUTHORITY: usize = 253 + 6;

/// The scheme of a request, as far as it implies a port (RFC 9110 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
    /// Another one, or none, as of the target of a CONNECT: every port says something.
    Other,
}

impl Scheme {
    /// The scheme of this name, in either case (RFC 3986 section 3.1).
    pub fn of(name: &[u8]) -> Self {
        if name.eq_ignore_ascii_case(b"http") {
            Self::Http
        } else if name.eq_ignore_ascii_case(b"https") {
            Self::Https
        } else {
            Self::Other
        }
    }

    /// The end of an authority that says nothing.
    fn implied(self) -> Option<&'static str> {
        match self {
            Self::Http => Some(":80"),
            Self::Https => Some(":443"),
            Self::Other => None,
        }
    }
}

/// Whom a request is for, as its client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    pub scheme: Scheme,
    pub text: &'a [u8],
}

/// Of a request that names no scheme: what comes in plain text is `http`.
impl<'a> From<&'a [u8]> for Authority<'a> {
    fn from(text: &'a [u8]) -> Self {
        Self {
            scheme: Scheme::Http,
            text,
        }
    }
}

/// Remembers an authority, to tell whether the next request repeats it.
pub(super) struct Known {
    scheme: Scheme,
    text: Box<[u8]>,
}

impl Known {
    /// A longer one is no label anyway, and an idle connection must not keep it.
    pub(super) fn new(authority: Authority<'_>) -> Option<Self> {
        (authority.text.len() <= MAX_AUTHORITY).then(|| Self {
            scheme: authority.scheme,
            text: authority.text.into(),
        })
    }

    pub(super) fn is(&self, authority: Authority<'_>) -> bool {
        *self.text == *authority.text && self.scheme == authority.scheme
    }
}

/// The label of an authority: lower case, without the port that its scheme implies.
pub(super) fn canonical(authority: Authority<'_>) -> String {
    let Ok(text) = std::str::from_utf8(authority.text) else {
        return String::new();
    };
    let implied = authority.scheme.implied();
    let text = implied
        .and_then(|port| text.strip_suffix(port))
        .unwrap_or(text);
    match text.len() {
        0..=MAX_AUTHORITY => text.to_ascii_lowercase(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Authority, Known, Scheme, canonical};

    fn of<'a>(scheme: &str, text: &'a str) -> Authority<'a> {
        Authority {
            scheme: Scheme::of(scheme.as_bytes()),
            text: text.as_bytes(),
        }
    }

    #[test]
    fn authorities_are_lower_case_and_without_the_port_that_the_scheme_implies() {
        for (scheme, raw, label) in [
            ("http", "Web.Example", "web.example"),
            ("http", "web:80", "web"),
            ("HTTP", "web:443", "web:443"),
            ("http", "web:8080", "web:8080"),
            ("http", "[::1]:80", "[::1]"),
            ("https", "web:443", "web"),
            ("HTTPS", "web:80", "web:80"),
            ("https", "[::1]:443", "[::1]"),
            ("ftp", "web:80", "web:80"),
            ("", "web:443", "web:443"),
            ("http", "", ""),
        ] {
            assert_eq!(canonical(of(scheme, raw)), label, "{scheme} {raw}");
        }
        assert_eq!(canonical(b"\xff"[..].into()), "");
        assert_eq!(canonical([b'a'; 300][..].into()), "");
    }

    #[test]
    fn the_same_text_under_another_scheme_is_another_authority() {
        let known = Known::new(of("http", "web:80")).expect("a short one");
        assert!(known.is(of("http", "web:80")));
        assert!(!known.is(of("https", "web:80")) && !known.is(of("http", "web")));
        assert!(Known::new(of("http", &"a".repeat(300))).is_none());
    }
}
