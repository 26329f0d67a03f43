//! Two proxies with the mesh's TLS between them, on loopback: what goes in comes out, nobody else gets in, and both count
//! the same.

#[path = "../../src/identity/tests/authority.rs"]
mod authority;
#[path = "../../../e2e/src/ports.rs"]
mod ports;
#[allow(dead_code, reason = "the tests of the relay use the rest")]
#[path = "../relay/proxy.rs"]
mod proxy;
#[path = "../relay/talk.rs"]
mod talk;

mod certified;
mod changes;
mod closed;
mod cost;
mod files;
mod foreign;
mod http2;
mod labels;
mod mesh;
mod passes;
mod permission;
mod permissive;
mod refused;
mod renewal;
mod steered;
mod unseen;

use weir_proxy::identity::Certified;
