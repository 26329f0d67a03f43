//! Writes the settings document in the version that a proxy reads. The operator is the newer one: it
//! writes the current version and the two before it. Called by `settings`. A new version of the
//! document adds its way back here, or nothing compiles.

use serde_json::Value;
use weir_crds::settings::{SETTINGS_VERSION, Settings};

/// How many versions before the current one are written.
pub const BACK: u32 = 2;

/// Ways back: entry `n` makes version `n + 1` of version `n + 2`.
const WAYS_BACK: &[fn(&mut Value)] = &[];

const _: () = assert!(
    WAYS_BACK.len() as u32 + 1 == SETTINGS_VERSION,
    "every version of the settings document but the first has a way back to the one before it"
);

/// Why a document cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The caller did not say what it reads.
    #[error("newest_version: is 0: say which version of the settings document you read, from 1")]
    Unsaid,
    /// The caller is too old.
    #[error(
        "newest_version: {asked} is no longer written, {oldest} is the oldest: use a proxy of a newer release (recreate the pod)"
    )]
    Old {
        /// What the caller reads.
        asked: u32,
        /// The oldest version that is written.
        oldest: u32,
    },
}

/// The version to write for a caller that reads up to `newest`.
///
/// # Errors
/// When it reads none that is written.
pub fn choose(newest: u32) -> Result<u32, VersionError> {
    chosen(newest, SETTINGS_VERSION)
}

fn chosen(newest: u32, current: u32) -> Result<u32, VersionError> {
    let oldest = current.saturating_sub(BACK).max(1);
    match newest {
        0 => Err(VersionError::Unsaid),
        asked if asked < oldest => Err(VersionError::Old { asked, oldest }),
        asked => Ok(asked.min(current)),
    }
}

/// The document in this version, JSON.
pub(super) fn write(settings: &Settings, version: u32) -> String {
    if version >= SETTINGS_VERSION {
        return settings.to_json();
    }
    let document = serde_json::to_value(settings)
        .expect("settings hold only strings, numbers and maps keyed by strings");
    lowered(document, version, WAYS_BACK).to_string()
}

fn lowered(mut document: Value, version: u32, ways: &[fn(&mut Value)]) -> Value {
    let steps = usize::try_from(version.saturating_sub(1)).unwrap_or(usize::MAX);
    for way in ways.iter().skip(steps).rev() {
        way(&mut document);
    }
    document["version"] = version.into();
    document
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_caller_gets_the_newest_version_that_both_know() {
        assert_eq!(chosen(9, 5), Ok(5));
        assert_eq!(chosen(5, 5), Ok(5));
        assert_eq!(chosen(3, 5), Ok(3));
        assert_eq!(
            chosen(2, 5),
            Err(VersionError::Old {
                asked: 2,
                oldest: 3
            })
        );
        assert_eq!(chosen(0, 5), Err(VersionError::Unsaid));
        assert_eq!(chosen(1, 1), Ok(1));
        assert_eq!(chosen(1, 3), Ok(1));
    }

    #[test]
    fn a_document_goes_back_step_by_step() {
        let ways: &[fn(&mut Value)] = &[
            |document| document["trace"] = format!("{}1", text(document)).into(),
            |document| document["trace"] = format!("{}2", text(document)).into(),
        ];
        let document = || json!({"version": 3, "trace": ""});
        assert_eq!(
            lowered(document(), 1, ways),
            json!({"version": 1, "trace": "21"})
        );
        assert_eq!(
            lowered(document(), 2, ways),
            json!({"version": 2, "trace": "2"})
        );
        assert_eq!(
            lowered(document(), 3, ways),
            json!({"version": 3, "trace": ""})
        );
    }

    fn text(document: &Value) -> &str {
        document["trace"].as_str().unwrap()
    }
}
