//! The gRPC server in this process, over real TLS, called by the clients of the published crates.
//! `server` is about connections, `certify` and `settings` about the two services; `scene` is what
//! they share.

mod certify;
mod requests;
mod scene;
mod server;
mod settings;
