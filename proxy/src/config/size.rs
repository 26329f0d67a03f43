//! Numbers of bytes as users write them, in the notation of Kubernetes' quantities: `32Mi`, `32MiB`, `1048576`.
//! Used by `config`; pure.

/// Why a text is no number of bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of bytes such as 1048576, 512KiB or 32MiB, found {0:?}")]
pub(super) struct NotASize(String);

/// Units and their bytes.
const UNITS: [(&str, usize); 4] = [("", 1), ("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)];

/// Reads a whole number, perhaps with a unit, perhaps with a `B` after it.
pub(super) fn parse(text: &str) -> Result<usize, NotASize> {
    let wrong = || NotASize(text.to_owned());
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let unit = unit.strip_suffix('B').unwrap_or(unit);
    let number: usize = number.parse().map_err(|_| wrong())?;
    let bytes = UNITS.into_iter().find(|(name, _)| *name == unit);
    let bytes = bytes.and_then(|(_, bytes)| number.checked_mul(bytes));
    bytes.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_have_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("12B", 12),
            ("512KiB", 512 << 10),
            ("32Mi", 32 << 20),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "Mi", "-1", "1.5Mi", "1MB", "1Ti", "99999999999Gi"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("found {wrong:?}")), "{error}");
        }
    }
}
