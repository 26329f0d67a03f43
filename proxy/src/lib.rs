//! The sidecar proxy as a library; `main` is a thin shell around it.
pub mod heartbeat;
pub mod init;
pub mod telemetry;
