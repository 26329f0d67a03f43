//! What an address of a resource may be: an IP address or a DNS name.
//! Called by `validate` and `annotations`. It resolves nothing.

use std::net::IpAddr;

/// Kuma's words for an address that is neither.
pub(crate) const MESSAGE: &str = "address has to be valid IP address or domain name";

/// Longest DNS name and longest of its labels (RFC 1035).
const NAME_LIMIT: usize = 253;
const LABEL_LIMIT: usize = 63;

/// Whether `address` is an IP address or a DNS name, without scheme or port.
pub(crate) fn is_valid(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok() || is_dns_name(address)
}

/// Whether `name` is a DNS name, with or without a dot at its end.
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    // All digits and dots is an IP address with a slip, never a name.
    let numeric = name
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    !numeric && name.len() <= NAME_LIMIT && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let edges = !label.starts_with('-') && !label.ends_with('-');
    !label.is_empty() && label.len() <= LABEL_LIMIT && edges && label.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_from_the_rest() {
        for valid in [
            "10.0.0.1",
            "::1",
            "localhost",
            "a.b-c.svc.cluster.local",
            "a_b.example.",
            "1a.example",
        ] {
            assert!(is_valid(valid), "{valid}");
        }
        for wrong in [
            "",
            "10.0.0",
            "10.0.0.256",
            "http://a",
            "a:80",
            "[::1]",
            "-a",
            "a..b",
            "a b",
            "é.example",
        ] {
            assert!(!is_valid(wrong), "{wrong}");
        }
        assert!(!is_valid(&"a".repeat(LABEL_LIMIT + 1)));
        assert!(!is_valid(&vec!["abcdefghi"; 26].join(".")));
    }
}
