//! Writes a document in the version that a proxy reads. The operator is the newer one: it writes the
//! current version and the two before it. Used by the services whose messages are documents; it knows
//! none of these. A new version of a document adds its way back, or nothing compiles.

use serde::Serialize;
use serde_json::Value;
use tonic::Status;

/// How many versions before the current one are written.
pub const BACK: u32 = 2;

/// Makes of a document of one version that of the version before it.
pub(super) type WayBack = fn(&mut Value);

/// Why a document cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The caller did not say what it reads.
    #[error("newest_version: is 0: say which version of the document you read, from 1")]
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

impl From<VersionError> for Status {
    fn from(error: VersionError) -> Self {
        match error {
            VersionError::Unsaid => Self::invalid_argument(error.to_string()),
            VersionError::Old { .. } => Self::failed_precondition(error.to_string()),
        }
    }
}

/// The versions of one kind of document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions {
    current: u32,
    /// Entry `n` makes version `n + 1` of version `n + 2`.
    ways_back: &'static [WayBack],
}

impl Versions {
    /// Made in a constant, so that a way back that is missing is an error of the compiler.
    pub(super) const fn new(current: u32, ways_back: &'static [WayBack]) -> Self {
        assert!(
            ways_back.len() as u32 + 1 == current,
            "every version of the document but the first has a way back to the one before it"
        );
        Self { current, ways_back }
    }

    /// The version to write for a caller that reads up to `newest`.
    ///
    /// # Errors
    /// When it reads none that is written.
    pub(super) fn choose(self, newest: u32) -> Result<u32, VersionError> {
        let oldest = self.current.saturating_sub(BACK).max(1);
        match newest {
            0 => Err(VersionError::Unsaid),
            asked if asked < oldest => Err(VersionError::Old { asked, oldest }),
            asked => Ok(asked.min(self.current)),
        }
    }

    /// The document in this version, JSON on one line. Where it says its version, it says this one.
    pub(super) fn write(self, document: &impl Serialize, version: u32) -> String {
        let written = if version >= self.current {
            serde_json::to_string(document)
        } else {
            serde_json::to_value(document).map(|document| self.lowered(document, version))
        };
        written.expect("a document is made of texts, numbers and maps keyed by texts")
    }

    fn lowered(self, mut document: Value, version: u32) -> String {
        let steps = usize::try_from(version.saturating_sub(1)).unwrap_or(usize::MAX);
        for way in self.ways_back.iter().skip(steps).rev() {
            way(&mut document);
        }
        if let Some(said) = document.get_mut("version") {
            *said = version.into();
        }
        document.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tonic::Code;

    use super::*;

    const STAYS: WayBack = |_| {};

    #[test]
    fn a_caller_gets_the_newest_version_that_both_know() {
        let five = Versions::new(5, &[STAYS; 4]);
        assert_eq!(five.choose(9), Ok(5));
        assert_eq!(five.choose(5), Ok(5));
        assert_eq!(five.choose(3), Ok(3));
        let old = VersionError::Old {
            asked: 2,
            oldest: 3,
        };
        assert_eq!(five.choose(2), Err(old));
        assert_eq!(five.choose(0), Err(VersionError::Unsaid));
        assert_eq!(Versions::new(1, &[]).choose(1), Ok(1));
        assert_eq!(Versions::new(3, &[STAYS; 2]).choose(1), Ok(1));
        assert_eq!(Status::from(old).code(), Code::FailedPrecondition);
    }

    #[test]
    fn a_document_goes_back_step_by_step() {
        let three = Versions::new(
            3,
            &[
                |document| document["trace"] = format!("{}1", text(document)).into(),
                |document| document["trace"] = format!("{}2", text(document)).into(),
            ],
        );
        for (version, trace) in [(1, "21"), (2, "2"), (3, "")] {
            let written = three.write(&json!({"version": 3, "trace": ""}), version);
            let document: Value = serde_json::from_str(&written).unwrap();
            assert_eq!(document, json!({"version": version, "trace": trace}));
            let written = three.write(&json!({"trace": ""}), version);
            let document: Value = serde_json::from_str(&written).unwrap();
            assert_eq!(document, json!({"trace": trace}), "it says no version");
        }
    }

    fn text(document: &Value) -> &str {
        document["trace"].as_str().unwrap()
    }
}
