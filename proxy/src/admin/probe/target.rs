//! Where an HTTP probe goes, and where a redirect sends it next (RFC 3986 section 5). Pure; used by `http`.

use super::authority;
use hyper::Uri;

/// The address of one probe request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) https: bool,
    /// A DNS name or an IP address, IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query in the form a request line takes.
    pub(super) path: String,
}

impl Target {
    /// `path` is the probe's: it may lack the leading slash and hold characters that must be escaped.
    pub(super) fn new(https: bool, host: String, port: u16, path: &str) -> Self {
        Self {
            https,
            host,
            port,
            path: request_path(path),
        }
    }

    /// The `Host` header. The port is always in it, as in a kubelet's.
    pub(super) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// What `location` in an answer from here leads to; `None` if it is no HTTP address.
    pub(super) fn follow(&self, location: &str) -> Option<Self> {
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.https { "https" } else { "http" };
            return Self::absolute(&format!("{scheme}://{rest}"));
        }
        if has_scheme(location) {
            return Self::absolute(location);
        }
        let (path, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let next = if location.starts_with('/') {
            location.to_owned()
        } else if location.is_empty() || location.starts_with(['?', '#']) {
            format!("{path}{location}")
        } else {
            let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
            format!("{folder}{location}")
        };
        Some(Self::new(
            self.https,
            self.host.clone(),
            self.port,
            &without_dots(&next),
        ))
    }

    fn absolute(location: &str) -> Option<Self> {
        let (location, _) = location.split_once('#').unwrap_or((location, ""));
        let uri: Uri = location.parse().ok()?;
        let https = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self::new(https, host, port, path))
    }
}

fn has_scheme(location: &str) -> bool {
    let scheme = location.split(['/', '?', '#']).next().unwrap_or_default();
    scheme.contains(':')
}

/// Drops a fragment, adds the leading slash and escapes what a request line cannot hold.
fn request_path(path: &str) -> String {
    let (path, _) = path.split_once('#').unwrap_or((path, ""));
    let mut out = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        out.push('/');
    }
    for byte in path.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Resolves `.` and `..` segments of an absolute path.
fn without_dots(path: &str) -> String {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (path, rest) = path.split_at(end);
    let mut segments: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in path.split('/').skip(1) {
        open = matches!(segment, "." | ".." | "");
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let closing = if open && segments.last() != Some(&"") {
        "/"
    } else {
        ""
    };
    let joined = segments.join("/");
    if joined.is_empty() {
        return format!("/{rest}");
    }
    format!("/{joined}{closing}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Target {
        Target::new(false, "10.1.2.3".into(), 8080, "/a/b?x=1")
    }

    fn path_after(location: &str) -> String {
        base().follow(location).unwrap().path
    }

    #[test]
    fn a_path_becomes_a_request_path() {
        let path = |path| Target::new(false, "h".into(), 1, path).path;
        assert_eq!(path(""), "/");
        assert_eq!(path("healthz"), "/healthz");
        assert_eq!(path("/a b?c={d}#e"), "/a%20b?c=%7Bd%7D");
        assert_eq!(path("/é%20"), "/%C3%A9%20");
    }

    #[test]
    fn the_host_header_has_port_and_brackets() {
        assert_eq!(base().authority(), "10.1.2.3:8080");
        let six = Target::new(true, "fd00::1".into(), 443, "/");
        assert_eq!(six.authority(), "[fd00::1]:443");
    }

    #[test]
    fn relative_locations_stay_on_the_host() {
        assert_eq!(path_after("/c?d"), "/c?d");
        assert_eq!(path_after("c"), "/a/c");
        assert_eq!(path_after("../c/"), "/c/");
        assert_eq!(path_after("./"), "/a/");
        assert_eq!(path_after("../../.."), "/");
        assert_eq!(path_after("?y=2"), "/a/b?y=2");
    }

    #[test]
    fn absolute_locations_name_their_host() {
        let next = base().follow("https://other/x#y").unwrap();
        assert_eq!(next, Target::new(true, "other".into(), 443, "/x"));
        let next = base().follow("//[fd00::1]:81").unwrap();
        assert_eq!(next, Target::new(false, "fd00::1".into(), 81, "/"));
        assert_eq!(base().follow("ftp://other/"), None);
        assert_eq!(base().follow("mailto:a"), None);
    }
}
