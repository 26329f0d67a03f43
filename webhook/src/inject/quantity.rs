//! Kubernetes' quantities, as flags of the webhook say what the injected containers may take.
//! Read by `config`, so that a slip of the pen ends the webhook and not every pod. Knows no flag.

/// What a suffix stands for, in thousand millionths (`n`, the least that Kubernetes tells apart).
const SUFFIXES: [(&str, u128); 12] = [
    ("Ki", (1 << 10) * ONE),
    ("Mi", (1 << 20) * ONE),
    ("Gi", (1 << 30) * ONE),
    ("Ti", (1 << 40) * ONE),
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("k", 1_000 * ONE),
    ("M", 1_000_000 * ONE),
    ("G", 1_000_000_000 * ONE),
    ("T", 1_000_000_000_000 * ONE),
    ("", ONE),
];
const ONE: u128 = 1_000_000_000;

/// A quantity as it was written, or nothing.
pub(super) fn quantity(text: &str) -> Result<String, String> {
    match text.is_empty() || value(text).is_some() {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is no quantity: use for example 10m, 0.5, 20Mi or 1Gi"
        )),
    }
}

/// Whether both are given and the one is less than the other.
pub(super) fn is_less(one: &str, other: &str) -> bool {
    value(one)
        .zip(value(other))
        .is_some_and(|(one, other)| one < other)
}

/// In units of `n`; what is finer counts as one of them, as in Kubernetes.
fn value(text: &str) -> Option<u128> {
    let (number, unit) = SUFFIXES
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, part].concat();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: u128 = digits.parse().ok()?;
    let parts = 10_u128.checked_pow(part.len().try_into().ok()?)?;
    Some(digits.checked_mul(unit)?.div_ceil(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_checked() {
        for good in ["", "1", "10m", "0.5", ".5", "20Mi", "1Gi"] {
            assert_eq!(quantity(good).as_deref(), Ok(good));
        }
        for bad in ["m", ".", "ten", "1.2.3", "5 Mi", "-1", "+1", "1e3Q"] {
            assert!(quantity(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quantities_are_compared_by_what_they_are_worth() {
        for (less, more) in [
            ("10m", "0.1"),
            ("999m", "1"),
            ("0.3", "301m"),
            ("19Mi", "20Mi"),
            ("20M", "20Mi"),
            ("1023Mi", "1Gi"),
            ("0", "1n"),
        ] {
            assert!(is_less(less, more), "{less} {more}");
            assert!(!is_less(more, less), "{more} {less}");
        }
        for (one, same) in [
            ("300m", "0.3"),
            ("1024Mi", "1Gi"),
            ("1k", "1000"),
            ("0.5Ki", "512"),
            ("", "1"),
            ("1", ""),
        ] {
            assert!(!is_less(one, same) && !is_less(same, one), "{one} {same}");
        }
    }
}
