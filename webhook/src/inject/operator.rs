//! How a proxy reaches the operator: its address, the authority of its certificate and a token of the pod's own.
//! Called by `inject`. A pod without them is measured all the same. It knows nothing of what the operator answers.

use serde_json::{Value, json};
use weir_crds::{env, names};

use crate::pod::Pod;

/// The volume with the token.
const VOLUME: &str = "weir-token";
/// Where the proxy's container has it.
const DIRECTORY: &str = "/var/run/secrets/weir.io";
/// The token's file there.
const FILE: &str = "token";
/// How long a token is good; the kubelet replaces it at four fifths of that.
const TOKEN_SECONDS: u32 = 3600;

/// Where the operator is and how it is known.
#[derive(Debug, Clone, Copy)]
pub struct Operator<'a> {
    /// Its URL.
    pub url: &'a str,
    /// The authority of its certificate, PEM.
    pub authority: &'a str,
}

/// The environment variables by which a proxy finds it.
pub(super) fn variables(operator: &Operator<'_>) -> [(&'static str, String); 3] {
    [
        (env::CONTROL_PLANE_URL, operator.url.to_owned()),
        (env::CONTROL_PLANE_CA_CERT, operator.authority.to_owned()),
        (env::TOKEN_PATH, format!("{DIRECTORY}/{FILE}")),
    ]
}

/// The token in the proxy's container alone: the application has no use for it.
pub(super) fn mount() -> Value {
    json!({"name": VOLUME, "mountPath": DIRECTORY, "readOnly": true})
}

/// Gives the pod the volume that [`mount`] names. A token of its own, because the one that the API server accepts is
/// none of the operator's business, and may not be there.
pub(super) fn add_token(pod: &mut Pod) {
    let volumes = pod.volumes_mut();
    volumes.retain(|volume| volume["name"] != VOLUME);
    let token = json!({
        "audience": names::OPERATOR,
        "expirationSeconds": TOKEN_SECONDS,
        "path": FILE,
    });
    volumes.push(json!({
        "name": VOLUME,
        "projected": {"sources": [{"serviceAccountToken": token}]},
    }));
}
