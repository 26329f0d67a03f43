//! The proxy and its operator: real connections on loopback to a control plane of which each test says everything.

mod calls;
mod connection;
mod desk;
mod discovery;
mod operator;
