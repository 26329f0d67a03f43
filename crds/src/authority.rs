//! The certificate authority of a Mesh, as `mtls` describes it: where its root comes from and how long its
//! certificates live. Read by the operator. It judges what can be seen in the resource alone: whether a certificate
//! that is named there can be used is for whoever reads it.

use std::time::Duration;

use crate::mesh::MeshSpec;
use crate::node::Node;
use crate::violation::Violation;

/// How long a root that the operator makes is valid, unless `conf.caCert.expiration` says otherwise: 10 years.
pub const ROOT_LIFE: Duration = Duration::from_hours(24 * 3650);
/// How long a proxy's certificate is valid, unless `dpCert.rotation.expiration` says otherwise: 24 hours.
pub const LEAF_LIFE: Duration = Duration::from_hours(24);
/// The shortest life of either: what is shorter is lengthened to it.
pub const SHORTEST_LIFE: Duration = Duration::from_secs(10);
/// The longest life of either: what is longer is shortened to it. X.509 has four digits for a year.
pub const LONGEST_LIFE: Duration = Duration::from_hours(24 * 365 * 100);

/// The enabled backend of `mtls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Its name.
    pub name: String,
    /// Path of the backend in the resource, such as `mtls.backends[0]`.
    pub path: String,
    /// Where its root comes from.
    pub root: RootSource,
    /// How long a proxy's certificate is valid.
    pub leaf_life: Duration,
}

/// Where a root comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// The operator makes it, valid for so long.
    Builtin {
        /// `conf.caCert.expiration`.
        life: Duration,
    },
    /// The user gives it.
    Provided {
        /// `conf.cert`.
        certificate: DataSource,
        /// `conf.key`.
        key: DataSource,
    },
}

/// Where a text comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct DataSource {
    /// Path of what chose it, such as `mtls.backends[0].conf.cert.secret`.
    pub path: String,
    /// The text, or where it lies.
    pub data: Data,
}

/// A text, or where it lies.
#[derive(Clone, PartialEq, Eq)]
pub enum Data {
    /// Key `value` of the Secret of this name.
    Secret(String),
    /// The text itself in base64 (`inline`).
    Base64(String),
    /// The text itself (`inlineString`).
    Text(String),
    /// A file where the control plane runs (`file`), by its path.
    File(String),
}

impl std::fmt::Debug for DataSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is inline may be a key.
        f.debug_tuple("DataSource").field(&self.path).finish()
    }
}

impl MeshSpec {
    /// The enabled certificate authority; `None` where there is none.
    ///
    /// # Errors
    /// Names the field that cannot be used.
    pub fn authority(&self) -> Result<Option<Authority>, Violation> {
        let Some(enabled) = self.enabled_ca() else {
            return Ok(None);
        };
        let backends = Node::root(&self.0).get("mtls").get("backends").items()?;
        let named = |node: &&Node<'_>| node.get("name").text() == Ok(Some(enabled));
        let Some(backend) = backends.iter().find(named) else {
            let message = "has to be set to one of the backends in the mesh";
            return Err(Violation::new("mtls.enabledBackend", message));
        };
        let conf = backend.get("conf");
        let root = match backend.get("type").text_or_empty()? {
            "builtin" => RootSource::Builtin {
                life: life(&conf.get("caCert").get("expiration"), ROOT_LIFE)?,
            },
            "provided" => RootSource::Provided {
                certificate: source(&conf.get("cert"))?,
                key: source(&conf.get("key"))?,
            },
            _ => {
                let message =
                    "could not find installed plugin for this type; use builtin or provided";
                return Err(backend.get("type").violation(message));
            }
        };
        let expiration = backend.get("dpCert").get("rotation").get("expiration");
        Ok(Some(Authority {
            name: enabled.to_owned(),
            path: backend.path().to_owned(),
            root,
            leaf_life: life(&expiration, LEAF_LIFE)?,
        }))
    }
}

/// A life time in Kuma's notation, digits and one unit; absent, empty and 0 are the default.
fn life(node: &Node<'_>, default: Duration) -> Result<Duration, Violation> {
    let text = node.text_or_empty()?;
    if text.is_empty() || text == "0" {
        return Ok(default);
    }
    let wrong =
        || node.violation("has to be a valid format: digits and one of y, w, d, h, m, s, ms");
    let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()]
        .parse()
        .map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        "w" => 7 * 24 * 3600 * 1000,
        "y" => 365 * 24 * 3600 * 1000,
        _ => return Err(wrong()),
    };
    let life = Duration::from_millis(number.saturating_mul(milliseconds));
    Ok(if life.is_zero() {
        default
    } else {
        life.clamp(SHORTEST_LIFE, LONGEST_LIFE)
    })
}

fn source(node: &Node<'_>) -> Result<DataSource, Violation> {
    let chosen = |name: &str| -> Result<Option<DataSource>, Violation> {
        let value = node.object()?.get(name);
        let text = value.text_or_empty()?;
        if text.is_empty() {
            return Ok(None);
        }
        let data = match name {
            "secret" => Data::Secret(text.to_owned()),
            "inline" => Data::Base64(text.to_owned()),
            "inlineString" => Data::Text(text.to_owned()),
            _ => Data::File(text.to_owned()),
        };
        Ok(Some(DataSource {
            path: value.path().to_owned(),
            data,
        }))
    };
    for name in ["secret", "inline", "inlineString", "file"] {
        if let Some(source) = chosen(name)? {
            return Ok(source);
        }
    }
    Err(node.violation("has to be defined; use secret, inline, inlineString or file"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn authority(backend: Value) -> Result<Option<Authority>, Violation> {
        MeshSpec(json!({"mtls": {"enabledBackend": "ca-1", "backends": [backend]}})).authority()
    }

    #[test]
    fn a_builtin_authority_has_kumas_defaults() {
        let found = authority(json!({"name": "ca-1", "type": "builtin"}))
            .unwrap()
            .unwrap();
        assert_eq!(found.path, "mtls.backends[0]");
        assert_eq!(found.root, RootSource::Builtin { life: ROOT_LIFE });
        assert_eq!(found.leaf_life, LEAF_LIFE);
        assert_eq!(MeshSpec::initial().authority(), Ok(None));
    }

    #[test]
    fn lives_are_read_in_kumas_notation_and_kept_within_bounds() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("2h", 7200),
            ("1d", 86_400),
            ("1w", 604_800),
            ("1y", 31_536_000),
            ("60000ms", 60),
            ("1ms", 10),
            ("0", 86_400),
            ("0s", 86_400),
            ("", 86_400),
            ("99999999999999999y", LONGEST_LIFE.as_secs()),
        ] {
            let rotation = json!({"rotation": {"expiration": text}});
            let backend = json!({"name": "ca-1", "type": "builtin", "dpCert": rotation});
            let found = authority(backend).unwrap().unwrap();
            assert_eq!(found.leaf_life, Duration::from_secs(seconds), "{text}");
        }
        let conf = json!({"caCert": {"expiration": "1h"}});
        let found = authority(json!({"name": "ca-1", "type": "builtin", "conf": conf}));
        let life = Duration::from_hours(1);
        assert_eq!(found.unwrap().unwrap().root, RootSource::Builtin { life });
    }

    #[test]
    fn a_provided_root_is_found_where_it_lies_and_never_printed() {
        let file = json!({"cert": {"file": "/ca"}, "key": {"secret": "root"}});
        let backend = json!({"name": "ca-1", "type": "provided", "conf": file});
        let RootSource::Provided { certificate, .. } = authority(backend).unwrap().unwrap().root
        else {
            panic!("not provided")
        };
        assert_eq!(certificate.path, "mtls.backends[0].conf.cert.file");
        assert!(certificate.data == Data::File("/ca".to_owned()));
        let conf = json!({"cert": {"secret": "root"}, "key": {"inlineString": "the key itself"}});
        let found = authority(json!({"name": "ca-1", "type": "provided", "conf": conf}));
        let found = found.unwrap().unwrap();
        let RootSource::Provided { certificate, key } = &found.root else {
            panic!("{found:?}");
        };
        assert!(certificate.data == Data::Secret("root".into()));
        assert!(key.data == Data::Text("the key itself".into()));
        assert_eq!(key.path, "mtls.backends[0].conf.key.inlineString");
        assert!(!format!("{found:?}").contains("the key itself"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let provided = |conf| json!({"name": "ca-1", "type": "provided", "conf": conf});
        let cert = json!({"secret": "c"});
        for (backend, field) in [
            (json!({"name": "other"}), "mtls.enabledBackend"),
            (
                json!({"name": "ca-1", "type": "vault"}),
                "mtls.backends[0].type",
            ),
            (provided(json!({"key": cert})), "mtls.backends[0].conf.cert"),
            (
                provided(json!({"cert": cert, "key": {}})),
                "mtls.backends[0].conf.key",
            ),
            (
                provided(json!({"cert": {"secret": 1}, "key": cert})),
                "mtls.backends[0].conf.cert.secret",
            ),
            (
                json!({"name": "ca-1", "type": "builtin", "dpCert": {"rotation": {"expiration": "1x"}}}),
                "mtls.backends[0].dpCert.rotation.expiration",
            ),
        ] {
            assert_eq!(authority(backend).unwrap_err().field, field);
        }
    }
}
