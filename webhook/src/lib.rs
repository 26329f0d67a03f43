//! The admission webhook: review -> decide -> inject -> patch -> review, and the validation of our own kinds.
//! The binary `weir-webhook` and the tests are made of it.
//!
//! ```text
//! app ─ starts ─> cluster::watching ─ fills ─> cluster ─┐
//!   └─ serves ──> server ──> serve ──> review (in)      │ read
//!                              ├─ serve::pods ──────────┴─> decide ─> inject ─> patch ─┐
//!                              ├─ serve::resources ─> weir_crds::{validate, default}   ├─> review (out)
//!                              └─ ready, metrics                                       ┘
//! ```

pub mod app;
pub mod certificate;
pub mod cluster;
pub mod config;
pub mod decide;
pub mod inject;
pub mod metrics;
pub mod namespace;
pub mod pod;
pub mod ready;
pub mod redirection;
pub mod refusal;
pub mod review;
pub mod serve;
pub mod server;
