//! Who calls: the token that a proxy sends, checked. Used by `serve`; `review` asks the API server, tests
//! and installations without Kubernetes bring a checker of their own. It knows no call.

mod review;

use futures::future::BoxFuture;

pub use review::{CACHED, MOST_CACHED, Reviewer};

/// Audience of the tokens that are accepted.
pub use weir_crds::names::OPERATOR as AUDIENCE;

/// The workload that a token was given to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its pod; `None` where the token is of the service account alone.
    pub pod: Option<PodRef>,
}

/// The pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its name.
    pub name: String,
    /// Its uid; another pod of the same name has another.
    pub uid: String,
}

/// Why a token tells nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not accepted.
    #[error("{0}")]
    Rejected(String),
    /// Nobody could say.
    #[error("{0}")]
    Unavailable(String),
}

/// Checks tokens.
pub trait Tokens: Send + Sync + 'static {
    /// Who was given this token.
    ///
    /// # Errors
    /// When it is not accepted, or when that cannot be found out.
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, TokenError>>;
}
