//! The header fields of a parsed head, found in its bytes when somebody asks for one. `session` shows them to
//! the routes of a service.

use crate::routes::Fields;

/// A whole head, as [`super::request::parse`] or [`super::response::parse`] has taken it.
pub struct HeadFields<'b>(pub &'b [u8]);

impl<'b> HeadFields<'b> {
    /// The value of the only field of a name; none where there are several.
    pub fn only(&self, name: &str) -> Option<&'b [u8]> {
        let (value, rest) = next(self.0, name)?;
        next(rest, name).is_none().then_some(value)
    }
}

impl Fields for HeadFields<'_> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        next(self.0, name).map(|(value, _)| value)
    }
}

/// The value of the first field of a name after this line, and where the next line may be another.
fn next<'b>(mut rest: &'b [u8], name: &str) -> Option<(&'b [u8], &'b [u8])> {
    loop {
        // The first line is no field, the last one is empty.
        let end = memchr::memchr(b'\n', rest)?;
        rest = &rest[end + 1..];
        let (field, after) = rest.split_at_checked(name.len())?;
        if field.eq_ignore_ascii_case(name.as_bytes())
            && let Some(value) = after.strip_prefix(b":")
        {
            let end = memchr::memchr(b'\n', value).unwrap_or(value.len());
            return Some((value[..end].trim_ascii(), rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, HeadFields};

    #[test]
    fn the_first_field_of_a_name_is_found() {
        let head = HeadFields(
            b"GET /a:b HTTP/1.1\r\nHost: web\r\nx-a:1\r\nX-Empty:\r\nX-A: 2\r\nx-ab: 3 \r\n\r\n",
        );
        for (name, value) in [
            ("host", Some("web")),
            ("x-a", Some("1")),
            ("x-ab", Some("3")),
            ("x-empty", Some("")),
            ("x", None),
            ("get /a", None),
            ("x-none", None),
            (
                "x-much-longer-than-anything-that-is-there-by-the-end-of-the-head",
                None,
            ),
        ] {
            let value = value.map(str::as_bytes);
            assert_eq!(head.first(name), value, "{name}");
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_not_the_only_one() {
        let head =
            HeadFields(b"HTTP/1.1 502 X\r\nproxy-status: a\r\nX-A: 1\r\nx-b: 2\r\nx-a: 3\r\n\r\n");
        assert_eq!(head.only("Proxy-Status"), Some(&b"a"[..]));
        assert_eq!(head.only("x-b"), Some(&b"2"[..]));
        assert_eq!(head.only("x-a"), None);
        assert_eq!(head.only("x-c"), None);
    }
}
