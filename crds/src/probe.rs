//! The original probes of a pod, as the webhook hands them to the proxy in [`crate::env::PROBES`].
//! The webhook moves a kubelet probe to `/probe/<n>` of the admin port and stores the original here at index `n`;
//! the proxy performs it. Knows nothing of Kubernetes' probe type or of how a probe is performed.

use serde::{Deserialize, Serialize};

/// One probe or lifecycle hook to be performed against the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// What to do.
    pub action: ProbeAction,
    /// How long the application may take, in seconds; at least 1.
    pub timeout_seconds: u32,
}

/// The kinds of probe the kubelet knows, with ports already resolved to numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ProbeAction {
    /// A GET that succeeds with a status of 200 to 399.
    Http {
        /// Port to connect to.
        port: u16,
        /// Path with its query, starting with `/`.
        path: String,
        /// Address to connect to instead of the pod's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Whether to speak TLS, without verification, as the kubelet does.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        https: bool,
        /// Extra request headers, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
    },
    /// A connection that succeeds when it is established.
    Tcp {
        /// Port to connect to.
        port: u16,
        /// Address to connect to instead of the pod's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// A `grpc.health.v1.Health/Check` that succeeds with SERVING.
    Grpc {
        /// Port to connect to.
        port: u16,
        /// The service asked for; empty asks for the whole server.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        service: String,
    },
}

/// Why [`parse`] refused its input.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not the JSON of a list of probes.
    #[error("the probes are not valid: {0}")]
    Json(#[source] serde_json::Error),
}

/// Reads the value of [`crate::env::PROBES`]; empty text is no probes.
pub fn parse(json: &str) -> Result<Vec<Probe>, ProbeError> {
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(json).map_err(ProbeError::Json)
}

/// Writes the value of [`crate::env::PROBES`].
pub fn to_json(probes: &[Probe]) -> String {
    serde_json::to_string(probes).expect("probes hold only strings, numbers and booleans")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_survive_the_environment() {
        let probes = vec![
            Probe {
                action: ProbeAction::Http {
                    port: 8080,
                    path: "/ready?full=1".into(),
                    host: Some("10.0.0.9".into()),
                    https: true,
                    headers: vec![("X-A".into(), "1".into()), ("X-A".into(), "2".into())],
                },
                timeout_seconds: 3,
            },
            Probe {
                action: ProbeAction::Tcp {
                    port: 5432,
                    host: None,
                },
                timeout_seconds: 1,
            },
            Probe {
                action: ProbeAction::Grpc {
                    port: 9000,
                    service: String::new(),
                },
                timeout_seconds: 1,
            },
        ];
        let json = to_json(&probes);
        assert_eq!(parse(&json).unwrap(), probes);
        assert!(
            json.contains(r#"{"action":{"tcp":{"port":5432}},"timeoutSeconds":1}"#),
            "{json}"
        );
        assert_eq!(parse("").unwrap(), vec![]);
        assert!(parse(r#"[{"action":{"exec":{}},"timeoutSeconds":1}]"#).is_err());
    }
}
