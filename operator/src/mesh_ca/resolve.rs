//! Finds the root that a Mesh asks for among the Secrets, and says what of a builtin one has to be
//! made. Pure: the Mesh, the Secrets and the time come in. Called by `keeper`.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use weir_crds::Violation;
use weir_crds::authority::{Authority, Data, DataSource, RootSource};

use super::given::Texts;
use super::names::{SECRET_TYPE, VALUE, certificate_secret, key_secret};
use super::root::Root;
use super::secrets::SecretSet;
use super::store::SECRETS;
use crate::ca::Pair;

/// What the leader has to write for a builtin root. The key comes first: a certificate is made for
/// the key that is stored, so whatever is interrupted goes on from what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Make {
    /// A new key: there is none, or its certificate is to be replaced.
    Key,
    /// A certificate for the key that is there.
    Certificate,
}

/// What a Mesh's authority is found to be.
#[derive(Debug)]
pub(super) enum Found {
    /// A root that can sign, and what to write nevertheless.
    Usable(Arc<Root>, Option<Make>),
    /// A builtin root that is not whole yet.
    Incomplete(Make),
    /// What the user gave cannot be used, or what is to be made not be kept.
    Unusable(Violation),
}

/// Where the texts of roots lie.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) secrets: &'a SecretSet,
    /// What the files hold that the Mesh names; none where files are not read.
    pub(super) files: Option<&'a Texts>,
}

/// Finds the root of `mesh`. `known` is the root that was read from a pair before, so that a pass
/// over what did not change reads no key.
pub(super) fn find(
    (mesh, authority): (&str, &Authority),
    stored: Stored<'_>,
    known: impl Fn(&Pair) -> Option<Arc<Root>>,
    now: Timestamp,
) -> Found {
    match &authority.root {
        RootSource::Builtin { .. } => builtin((mesh, &authority.name), stored.secrets, known, now),
        RootSource::Provided { certificate, key } => {
            match provided((certificate, key), stored, known, now) {
                Ok(root) => Found::Usable(root, None),
                Err(violation) => Found::Unusable(violation),
            }
        }
    }
}

/// A life of `crds` as the clock here counts it.
pub(super) fn signed(life: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX)
}

fn builtin(
    (mesh, backend): (&str, &str),
    secrets: &SecretSet,
    known: impl Fn(&Pair) -> Option<Arc<Root>>,
    now: Timestamp,
) -> Found {
    let content = |name: String| secrets.get(&name).and_then(|stored| stored.value.clone());
    let Some(key) = content(key_secret(mesh, backend)) else {
        return Found::Incomplete(Make::Key);
    };
    let Some(certificate) = content(certificate_secret(mesh, backend)) else {
        return Found::Incomplete(Make::Certificate);
    };
    match read(Pair { certificate, key }, known, now) {
        Ok(root) => {
            let is_due = root.renew_at() <= now;
            Found::Usable(root, is_due.then_some(Make::Key))
        }
        Err(super::RootError::Key) => Found::Incomplete(Make::Key),
        Err(_) => Found::Incomplete(Make::Certificate),
    }
}

fn provided(
    (certificate, key): (&DataSource, &DataSource),
    stored: Stored<'_>,
    known: impl Fn(&Pair) -> Option<Arc<Root>>,
    now: Timestamp,
) -> Result<Arc<Root>, Violation> {
    let pair = Pair {
        certificate: text(certificate, stored)?,
        key: text(key, stored)?,
    };
    read(pair, known, now).map_err(|error| {
        let blamed = if error.is_of_key() { key } else { certificate };
        Violation::new(&blamed.path, error.to_string())
    })
}

fn read(
    pair: Pair,
    known: impl Fn(&Pair) -> Option<Arc<Root>>,
    now: Timestamp,
) -> Result<Arc<Root>, super::RootError> {
    match known(&pair) {
        Some(root) if now < root.not_after() => Ok(root),
        _ => Root::read(&pair, now).map(Arc::new),
    }
}

/// The text of a data source.
pub(super) fn text(source: &DataSource, stored: Stored<'_>) -> Result<String, Violation> {
    let wrong = |message: String| Violation::new(&source.path, message);
    match &source.data {
        Data::Text(text) => Ok(text.clone()),
        Data::Base64(text) => {
            let decoded: Option<k8s_openapi::ByteString> =
                serde_json::from_value(text.as_str().into()).ok();
            decoded
                .and_then(|bytes| String::from_utf8(bytes.0).ok())
                .ok_or_else(|| {
                    wrong("is not PEM in base64; inlineString takes PEM as it is".to_owned())
                })
        }
        Data::Secret(name) => {
            let Some(secret) = stored.secrets.get(name) else {
                return Err(wrong(format!(
                    "there is no Secret {name:?} of type {SECRET_TYPE} in the namespace of the operator: create it with PEM in its key {VALUE:?} (without Kubernetes: a file of that name in {SECRETS} of --state-dir)"
                )));
            };
            secret.value.clone().ok_or_else(|| {
                wrong(format!(
                    "the Secret {name:?} has no text in its key {VALUE:?}: put PEM there"
                ))
            })
        }
        Data::File(path) => match stored.files.map(|files| files.get(path)) {
            Some(Some(Ok(text))) => Ok(text.clone()),
            Some(Some(Err(why))) => Err(wrong(why.clone())),
            Some(None) | None => Err(wrong(
                "files of the control plane are not read in a cluster; put the text into a Secret and name it in secret, or give it in inlineString"
                    .to_owned(),
            )),
        },
    }
}
