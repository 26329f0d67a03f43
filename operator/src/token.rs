//! Who calls: the token that a proxy sends, checked. Used by `serve`; `review` asks the API server, `signed` makes and
//! checks the data plane tokens of installations without Kubernetes, tests bring a checker of their own. It knows no call.

mod review;
mod signed;

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use weir_crds::identity::{Tags, workload_name};

pub use review::{CACHED, MOST_CACHED, Reviewer};
pub use signed::{KEY_PATIENCE, LONGEST_LIFE, SignError, Signed, TokenRequest};

/// Audience of the tokens that are accepted.
pub use weir_crds::names::OPERATOR as AUDIENCE;

/// Whom a token was given to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A service account in a cluster, and its pod.
    Account(Account),
    /// A proxy outside Kubernetes.
    Dataplane(Grant),
}

/// The service account that a token was given to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
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

/// What a data plane token is for: one Dataplane, and what that may be tagged with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The Dataplane's Mesh.
    pub mesh: String,
    /// The Dataplane's name.
    pub name: String,
    /// The values that each of these tags may have; the Dataplane must have all of them. Empty: whatever it is tagged
    /// with.
    pub tags: BTreeMap<String, BTreeSet<String>>,
}

/// Why a Dataplane is not the one that its proxy's token is for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// A tag of the token is missing.
    #[error(
        "the token is for a Dataplane with the tag {tag}, which {name:?} has not: make one without it (weir-operator token)"
    )]
    Missing {
        /// The Dataplane's name.
        name: String,
        /// The tag.
        tag: String,
    },
    /// A tag of the Dataplane has another value.
    #[error(
        "the token does not allow {tag}={value}, which Dataplane {name:?} has: make one with --tag {tag}={value} (weir-operator token)"
    )]
    Value {
        /// The Dataplane's name.
        name: String,
        /// The tag.
        tag: String,
        /// Its value.
        value: String,
    },
}

impl Caller {
    /// The DNS name of its certificate, where the token alone tells it.
    #[must_use]
    pub fn own_name(&self, trust_domain: &str) -> Option<String> {
        match self {
            Self::Account(account) => Some(workload_name(
                &account.service_account,
                &account.namespace,
                trust_domain,
            )),
            Self::Dataplane(_) => None,
        }
    }

    /// Whether the token is of one workload, and not of many.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        match self {
            Self::Account(account) => account.pod.is_some(),
            Self::Dataplane(_) => true,
        }
    }

    /// Whether its workload may be tagged with these.
    ///
    /// # Errors
    /// Names the tag that the token does not allow.
    pub fn allows(&self, tags: &Tags) -> Result<(), NotGranted> {
        match self {
            // What a pod is tagged with is not its own to say.
            Self::Account(_) => Ok(()),
            Self::Dataplane(grant) => grant.allows(tags),
        }
    }
}

impl Grant {
    /// As Kuma judges: the tags of the token must be there, each with no other value than the token's.
    fn allows(&self, tags: &Tags) -> Result<(), NotGranted> {
        for (tag, allowed) in &self.tags {
            let Some(values) = tags.get(tag) else {
                let (name, tag) = (self.name.clone(), tag.clone());
                return Err(NotGranted::Missing { name, tag });
            };
            if let Some(value) = values.iter().find(|value| !allowed.contains(*value)) {
                return Err(NotGranted::Value {
                    name: self.name.clone(),
                    tag: tag.clone(),
                    value: value.clone(),
                });
            }
        }
        Ok(())
    }
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

    /// What a caller without a token is to send.
    fn wanted(&self) -> &'static str {
        "a service account token with the audience weir-operator"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn a_token_allows_the_tags_it_names_with_their_values_and_no_others() {
        let service = "kuma.io/service".to_owned();
        let grant = |values: &[&str]| Grant {
            name: "web-1".to_owned(),
            tags: [(service.clone(), set(values))].into(),
            ..Grant::default()
        };
        let has = |values: &[&str]| Tags::from([(service.clone(), set(values))]);
        assert_eq!(Grant::default().allows(&has(&["anything"])), Ok(()));
        assert_eq!(grant(&["web", "admin"]).allows(&has(&["web"])), Ok(()));
        let error = grant(&["web"]).allows(&has(&["db", "web"])).unwrap_err();
        assert!(
            error.to_string().contains("--tag kuma.io/service=db"),
            "{error}"
        );
        let error = grant(&["web"]).allows(&Tags::new()).unwrap_err();
        assert!(matches!(error, NotGranted::Missing { .. }), "{error}");
    }
}
