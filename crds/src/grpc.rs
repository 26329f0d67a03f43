//! The protocol by which a proxy follows its settings: messages, client and server, made from
//! `proto/weir/settings/v1/settings.proto`. Used by the operator (server) and the proxy (client). It carries a
//! [`crate::settings::Settings`] as text and knows nothing of what is in it.

/// Audience of the service account token by which a proxy says who it is.
pub const AUDIENCE: &str = "weir-operator";

/// `weir.settings.v1`.
// The generator's style, not ours; its doc comments are those of the .proto file.
#[allow(clippy::all, clippy::too_many_lines, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("weir.settings.v1");
}
