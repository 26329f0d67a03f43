//! A request as routes see it: slices of what the client wrote. Filled by the sessions of either protocol.

use std::borrow::Cow;

/// The header fields of a request.
pub trait Fields {
    /// The value of the first field of this name, which is given in lower case, without white space around it.
    fn first(&self, name: &str) -> Option<&[u8]>;
}

/// What routes tell requests apart by.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    method: &'r [u8],
    path: &'r [u8],
    query: &'r [u8],
    fields: &'r dyn Fields,
}

impl<'r> Request<'r> {
    /// Of a target in any of the forms of RFC 9112 section 3.2.
    pub fn new(method: &'r [u8], target: &'r [u8], fields: &'r dyn Fields) -> Self {
        let target = origin(target);
        let end = memchr::memchr(b'?', target);
        let (path, query) = match end {
            Some(end) => (&target[..end], &target[end + 1..]),
            None => (target, &[][..]),
        };
        Self {
            method,
            path,
            query,
            fields,
        }
    }

    pub(super) fn method(&self) -> &'r [u8] {
        self.method
    }

    /// Without the query.
    pub(super) fn path(&self) -> &'r [u8] {
        self.path
    }

    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.first(name)
    }

    /// The value of the first query parameter of this name, both decoded (application/x-www-form-urlencoded). Nothing
    /// is copied unless it was encoded.
    pub(super) fn parameter(&self, name: &str) -> Option<Cow<'r, str>> {
        let mut pairs = form_urlencoded::parse(self.query);
        pairs.find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// The path and query of an absolute form (RFC 9112 section 3.2.2), other targets as they are.
fn origin(target: &[u8]) -> &[u8] {
    if target.first().is_none_or(|b| *b == b'/') {
        return target;
    }
    let Some(colon) = memchr::memchr(b':', target) else {
        return target;
    };
    let Some(rest) = target[colon..].strip_prefix(b"://") else {
        return target;
    };
    let end = memchr::memchr2(b'/', b'?', rest);
    match end.map(|end| &rest[end..]) {
        Some(path) if path.starts_with(b"/") => path,
        // A query right behind the authority has an empty path, which is "/".
        Some(_) | None => b"/",
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, Request};

    struct Nothing;

    impl Fields for Nothing {
        fn first(&self, _name: &str) -> Option<&[u8]> {
            None
        }
    }

    #[test]
    fn a_target_has_a_path_and_a_query_in_every_form() {
        for (target, path, query) in [
            ("/", "/", ""),
            ("/a/b?c=d?e", "/a/b", "c=d?e"),
            ("http://h/a?b", "/a", "b"),
            ("http://h:80", "/", ""),
            ("http://u:p@h/a:b", "/a:b", ""),
            ("*", "*", ""),
            ("h:443", "h:443", ""),
            ("", "", ""),
        ] {
            let request = Request::new(b"GET", target.as_bytes(), &Nothing);
            let parts = (request.path, request.query);
            assert_eq!(parts, (path.as_bytes(), query.as_bytes()), "{target}");
        }
    }

    #[test]
    fn the_first_parameter_of_a_name_counts_decoded() {
        let target = b"/?b=1&a=x%20y+z&a=2&c&%64=e";
        let request = Request::new(b"GET", target, &Nothing);
        for (name, value) in [
            ("a", Some("x y z")),
            ("b", Some("1")),
            ("c", Some("")),
            ("d", Some("e")),
            ("e", None),
        ] {
            assert_eq!(request.parameter(name).as_deref(), value, "{name}");
        }
    }
}
