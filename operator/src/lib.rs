//! Weir's operator: keeps the cluster side of Weir in order.
//!
//! ```text
//!  API server ──watch──> watch ──> index ──view──> reconcile ──> apply    Mesh default, once; Dataplanes
//!      ^                            │                      └───> status   conditions, events
//!      │                            └──views──> serve (gRPC)        │
//!      ├──── Lease ── leader ──leading──────────────────────────────┤ (only the leader writes)
//!      └──── Secrets, caBundle ── ca (material, plan, store, keeper)┘
//!                                 health: /live /ready /metrics <── metrics
//! ```
//! `index` and `reconcile` are synchronous and know no client; `watch`, `apply`, `status`, `events`,
//! `leader` and `ca` hold one. The operator never writes a `spec` of the user's.

pub mod app;
pub mod apply;
mod backoff;
pub mod ca;
mod call;
pub mod config;
mod events;
pub mod health;
pub mod index;
pub mod leader;
pub mod metrics;
pub mod reconcile;
pub mod serve;
pub mod status;
mod watch;

/// The field manager of every write, and the reporting controller of every event.
pub const FIELD_MANAGER: &str = "weir-operator";
