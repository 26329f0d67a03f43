//! What the end-to-end tests are made of: the application that runs in the pods of the stories, a
//! reader of exposition text, free ports, and, with the feature `cluster`, a real cluster's client, namespaces
//! and Prometheus; and `cargo demo`. Used by `weir-app`, `demo` and the stories; knows nothing of
//! the proxy's inside.

pub mod app;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod demo;
pub mod exposition;
pub mod ports;
