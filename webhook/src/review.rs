//! The AdmissionReview exchange: a body becomes a request, an answer becomes a body.
//! Called by `serve` only. Objects stay JSON documents; what is admitted and why is decided elsewhere.

use json_patch::Patch;
use k8s_openapi::ByteString;
use kube::core::{
    Status,
    response::{StatusCause, StatusDetails},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use weir_crds::{Violation, violation};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// HTTP code of an object that breaks a rule, as the API server itself answers.
const UNPROCESSABLE: u16 = 422;
/// Kubernetes cuts longer warnings.
const WARNING_LIMIT: usize = 256;

/// Why a body is not a review.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// Not JSON, or a field has another type than the API says.
    #[error("the body is no AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// A review of a version that this webhook is not registered for.
    #[error("expected {KIND} of {API_VERSION}, got {kind} of {api_version}")]
    Version {
        /// The version found.
        api_version: String,
        /// The kind found.
        kind: String,
    },
    /// A review without a request asks nothing.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

/// What the API server asks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Returned in the answer.
    pub uid: String,
    /// The kind of `object`.
    pub kind: Kind,
    /// A part of the resource, such as `status`.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// Name of the object; empty while it is to be generated.
    #[serde(default)]
    pub name: String,
    /// Namespace of the object; absent for cluster-scoped kinds.
    #[serde(default)]
    pub namespace: Option<String>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// The object as it would be stored; null on `DELETE`.
    #[serde(default)]
    pub object: Value,
    /// The object as it is stored; null on `CREATE`.
    #[serde(default)]
    pub old_object: Value,
}

/// Group, version and kind.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    /// As in `v1`.
    pub version: String,
    /// As in `Pod`.
    pub kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

/// Reads a review's request.
pub fn parse(body: &[u8]) -> Result<Request, ReviewError> {
    let review: Review = serde_json::from_slice(body)?;
    if review.api_version != API_VERSION || review.kind != KIND {
        let Review {
            api_version, kind, ..
        } = review;
        return Err(ReviewError::Version { api_version, kind });
    }
    review.request.ok_or(ReviewError::NoRequest)
}

/// What the webhook says to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The object is admitted, changed by the patch; an empty patch changes nothing.
    Allowed {
        /// Changes to the object.
        patch: Patch,
        /// Sentences for the author.
        warnings: Vec<String>,
    },
    /// The object breaks these rules, at least one.
    Denied(Vec<Violation>),
}

impl Answer {
    /// Admitted as it is.
    pub fn unchanged() -> Self {
        Self::warned(Vec::new())
    }

    /// Admitted as it is, with what its author should hear.
    pub fn warned(warnings: Vec<String>) -> Self {
        Self::Allowed {
            patch: Patch(Vec::new()),
            warnings,
        }
    }

    /// A word for the metric label.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Allowed { patch, .. } if patch.0.is_empty() => "allowed",
            Self::Allowed { .. } => "patched",
            Self::Denied(_) => "denied",
        }
    }
}

/// The body that answers a request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Puts an answer into the form the API server reads.
pub fn reply(request: &Request, answer: Answer) -> Reply {
    let mut response = Response {
        uid: request.uid.clone(),
        ..Response::default()
    };
    match answer {
        Answer::Allowed { patch, warnings } => {
            response.allowed = true;
            response.warnings = warnings.into_iter().map(shorten).collect();
            if !patch.0.is_empty() {
                let patch = serde_json::to_vec(&patch).expect("a patch is made of JSON values");
                response.patch = Some(ByteString(patch));
                response.patch_type = Some("JSONPatch");
            }
        }
        Answer::Denied(violations) => response.status = Some(invalid(request, &violations)),
    }
    Reply {
        api_version: API_VERSION,
        kind: KIND,
        response,
    }
}

/// The status of an invalid object, with one cause for each violation, as kubectl prints them.
fn invalid(request: &Request, violations: &[Violation]) -> Status {
    let causes = violations.iter().map(|violation| StatusCause {
        reason: "FieldValueInvalid".to_owned(),
        message: violation.message.clone(),
        field: violation.field.clone(),
    });
    Status::failure(&violation::joined(violations), "Invalid")
        .with_code(UNPROCESSABLE)
        .with_details(StatusDetails {
            name: request.name.clone(),
            group: request.kind.group.clone(),
            kind: request.kind.kind.clone(),
            uid: String::new(),
            causes: causes.collect(),
            retry_after_seconds: 0,
        })
}

fn shorten(warning: String) -> String {
    match warning.char_indices().nth(WARNING_LIMIT - 1) {
        None => warning,
        Some((end, _)) => format!("{}…", &warning[..end]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_v1_review_with_a_request_is_read() {
        let error = |body: Value| parse(body.to_string().as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error(json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"})),
            "expected AdmissionReview of admission.k8s.io/v1, got AdmissionReview of admission.k8s.io/v1beta1"
        );
        assert_eq!(
            error(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"})),
            "the AdmissionReview has no request"
        );
        assert!(parse(b"{").is_err());
    }

    #[test]
    fn a_denial_carries_every_violation_as_a_cause() {
        let request = Request {
            uid: "u1".to_owned(),
            name: "default".to_owned(),
            kind: Kind {
                group: "kuma.io".to_owned(),
                version: "v1alpha1".to_owned(),
                kind: "Mesh".to_owned(),
            },
            ..Request::default()
        };
        let violations = vec![
            Violation::new("spec.a", "is bad"),
            Violation::new("spec.b", "is worse"),
        ];
        let reply = serde_json::to_value(reply(&request, Answer::Denied(violations))).unwrap();
        assert_eq!(
            reply,
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
                "uid": "u1", "allowed": false,
                "status": {
                    "status": "Failure", "code": 422, "reason": "Invalid",
                    "message": "spec.a: is bad; spec.b: is worse",
                    "details": {"name": "default", "group": "kuma.io", "kind": "Mesh", "causes": [
                        {"reason": "FieldValueInvalid", "field": "spec.a", "message": "is bad"},
                        {"reason": "FieldValueInvalid", "field": "spec.b", "message": "is worse"},
                    ]},
                },
            }})
        );
    }

    #[test]
    fn a_patch_is_base64_and_long_warnings_are_cut() {
        let patch: Patch = serde_json::from_value(json!([{"op": "remove", "path": "/a"}])).unwrap();
        let answer = Answer::Allowed {
            patch,
            warnings: vec!["ä".repeat(300)],
        };
        assert_eq!(answer.outcome(), "patched");
        let reply = serde_json::to_value(reply(&Request::default(), answer)).unwrap();
        assert_eq!(reply["response"]["patchType"], "JSONPatch");
        assert_eq!(
            reply["response"]["patch"],
            "W3sib3AiOiJyZW1vdmUiLCJwYXRoIjoiL2EifV0="
        );
        assert_eq!(
            reply["response"]["warnings"][0]
                .as_str()
                .unwrap()
                .chars()
                .count(),
            256
        );
    }
}
