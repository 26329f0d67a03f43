//! What the Secrets of an authority are called: as Kuma calls them, so that an installation of Kuma
//! keeps its roots. Used by `store`, `resolve` and tests.

/// The type of every Secret of a Mesh.
pub const SECRET_TYPE: &str = "system.kuma.io/secret";
/// The key of a Secret under which its content lies.
pub const VALUE: &str = "value";
/// The ConfigMap that remembers who is trusted, by Mesh.
pub const TRUST: &str = "weir-trust";

/// The Secret with the root certificate of a builtin backend.
#[must_use]
pub fn certificate_secret(mesh: &str, backend: &str) -> String {
    format!("{mesh}.ca-builtin-cert-{backend}")
}

/// The Secret with its key.
#[must_use]
pub fn key_secret(mesh: &str, backend: &str) -> String {
    format!("{mesh}.ca-builtin-key-{backend}")
}
