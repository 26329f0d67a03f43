//! Weir's operator: keeps the cluster side of Weir in order.
//!
//! ```text
//!  API server ──watch──> watch ──> index ──view──> reconcile ──> apply    Mesh default, once; Dataplanes
//!      ^                   │         └───views─────────────┬───> status   conditions, events
//!      │                   └──> workload ──────────────────┤        │
//!      ├──── Lease ── leader ──leading─────────────────────┼────────┤ (only the leader writes)
//!      ├──── Secrets, bundles ── ca ── certificate ────────┤        │
//!      ├──── Secrets, who is trusted ── mesh_ca ── roots ──┼────────┘
//!      └──── TokenReview ── token ── who calls ──────────> serve (gRPC: Identity, Settings, Destination) <── proxies
//!                                 health: /live /ready /metrics <── metrics
//!                                 monitoring: /targets <── index
//! ```
//! Without Kubernetes (`weir-operator run`) two modules stand in for the API server, behind the same `serve`:
//! ```text
//!  directory of documents ── documents ── Meshes, permissions, workloads, offers ──> serve
//!  state directory ── state ── ca, mesh_ca, token (data plane tokens) ─────────────> serve
//! ```
//! `index`, `reconcile` and `workload` are synchronous and know no client; `serve` and `monitoring` neither; `watch`,
//! `apply`, `status`, `events`, `leader`, `ca`, `mesh_ca` and `token` hold one. The operator never
//! writes a `spec` of the user's.

pub mod app;
pub mod apply;
mod backoff;
pub mod ca;
mod call;
pub mod config;
pub mod documents;
mod events;
#[cfg(test)]
mod folder;
pub mod health;
pub mod index;
pub mod leader;
pub mod mesh_ca;
pub mod metrics;
pub mod monitoring;
mod object;
mod passes;
pub mod reconcile;
pub mod serve;
pub mod state;
pub mod status;
pub mod token;
mod watch;
pub mod workload;

/// The field manager of every write, and the reporting controller of every event.
pub const FIELD_MANAGER: &str = weir_crds::names::OPERATOR;
