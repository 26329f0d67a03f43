//! Error codes (RFC 9113 section 7) as values of the label `error`.
//!
//! `session` calls it for what RST_STREAM and GOAWAY say.

pub const NO_ERROR: u32 = 0x0;
pub const CANCEL: u32 = 0x8;

/// `h2(REASON)`, with the name of the RFC.
pub fn label(code: u32) -> &'static str {
    const LABELS: [&str; 14] = [
        "h2(NO_ERROR)",
        "h2(PROTOCOL_ERROR)",
        "h2(INTERNAL_ERROR)",
        "h2(FLOW_CONTROL_ERROR)",
        "h2(SETTINGS_TIMEOUT)",
        "h2(STREAM_CLOSED)",
        "h2(FRAME_SIZE_ERROR)",
        "h2(REFUSED_STREAM)",
        "h2(CANCEL)",
        "h2(COMPRESSION_ERROR)",
        "h2(CONNECT_ERROR)",
        "h2(ENHANCE_YOUR_CALM)",
        "h2(INADEQUATE_SECURITY)",
        "h2(HTTP_1_1_REQUIRED)",
    ];
    let known = usize::try_from(code).ok().and_then(|at| LABELS.get(at));
    known.unwrap_or(&"h2(UNKNOWN)")
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn every_code_has_its_name_and_others_share_one() {
        for code in 0..14 {
            let expected = format!("h2({:?})", h2::Reason::from(code));
            assert_eq!(label(code), expected);
        }
        assert_eq!(label(14), "h2(UNKNOWN)");
        assert_eq!(label(u32::MAX), "h2(UNKNOWN)");
    }
}
