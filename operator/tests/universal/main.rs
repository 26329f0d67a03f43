//! The operator without Kubernetes: on a directory of documents, with data plane tokens. `served` calls it in this process
//! by `client`s, `programs` runs it with proxies as users do; `scene` is what they share.

mod client;
mod programs;
mod scene;
mod served;
