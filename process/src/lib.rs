//! What Weir's programs have in common as processes: how each ends, what it
//! says of itself and, with the feature `kube`, how those in a cluster ask
//! its API server. Used by the `app` of each. It knows neither resources nor settings.

#[cfg(feature = "kube")]
pub mod api_server;
mod ending;
pub mod exposition;

pub use ending::{LAST_CALL, run_to_end};
