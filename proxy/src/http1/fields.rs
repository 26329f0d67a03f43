//! The header fields of a parsed request head, found in its bytes when somebody asks for one. `session` shows them to
//! the routes of a service.

use crate::routes::Fields;

/// A whole request head, as [`super::request::parse`] has taken it.
pub struct HeadFields<'b>(pub &'b [u8]);

impl Fields for HeadFields<'_> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        let mut rest = self.0;
        loop {
            // The first line is no field, the last one is empty.
            let end = memchr::memchr(b'\n', rest)?;
            rest = &rest[end + 1..];
            let (field, after) = rest.split_at_checked(name.len())?;
            if field.eq_ignore_ascii_case(name.as_bytes())
                && let Some(value) = after.strip_prefix(b":")
            {
                let end = memchr::memchr(b'\n', value).unwrap_or(value.len());
                return Some(value[..end].trim_ascii());
            }
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
}
