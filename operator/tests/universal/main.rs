//! The operator without Kubernetes: on a directory of documents, with data plane tokens. `served` calls it in this process
//! by `client`s, `programs` runs it with proxies as users do; `scene` is what they share.

mod client;
#[path = "../../../e2e/src/ports.rs"]
mod ports;
mod programs;
mod scene;
mod served;
