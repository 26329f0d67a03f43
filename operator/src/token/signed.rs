//! Data plane tokens: JSON Web Tokens (RFC 7519) with Kuma's claims, signed by a key in the state directory (ES256). The
//! operator checks what `weir-operator token` has made with the same directory. Called through `Tokens` and by the
//! command. A token is never kept nor logged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use super::{Caller, Grant, TokenError, Tokens};
use crate::state::{StateDir, StateError};

/// The longest life of a token: 10 years, as in Kuma.
pub const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// How far clocks of whoever makes and whoever checks tokens may be apart, in seconds.
const CLOCK_SKEW: u64 = 10;
/// Longest token that is looked at, in bytes; one with a dozen tags has under 1 KiB.
const LONGEST_TOKEN: usize = 8 * 1024;
/// The key that signs, PEM (PKCS#8, P-256).
const KEY: &str = "token-key.pem";
/// How long the command waits for the key: an operator that has just been started makes it in a moment.
pub const KEY_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(20);
/// What tokens of proxies are of, as in Kuma.
const TYPE: &str = "dataplane";

/// What a token says; the names are Kuma's.
#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Mesh", default)]
    mesh: String,
    #[serde(rename = "Tags", default)]
    tags: BTreeMap<String, BTreeSet<String>>,
    #[serde(rename = "Type", default)]
    kind: String,
    iat: i64,
    exp: i64,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key cannot be kept or read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key is none.
    #[error(
        "--state-dir: {KEY} holds no P-256 key in PEM (PKCS#8): {0}; remove it, and make all tokens anew"
    )]
    Key(rcgen::Error),
    /// No operator has made one.
    #[error("--state-dir: {0} has no {KEY}: start the operator first, or check --state-dir")]
    Missing(PathBuf),
    /// It could not be made or signed.
    #[error("cannot make it: {0}")]
    Make(String),
}

/// A token to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// What it is for.
    pub grant: Grant,
    /// How long it is valid.
    pub life: SignedDuration,
    /// Where the key is.
    pub state_dir: PathBuf,
}

/// Makes and checks data plane tokens.
pub struct Signed {
    signs: EncodingKey,
    verifies: DecodingKey,
    validation: Validation,
}

impl Signed {
    /// With the key in the state directory, which is made where there is none.
    ///
    /// # Errors
    /// When it cannot be read or kept.
    pub fn open(state: &StateDir) -> Result<Self, SignError> {
        let make = || -> Result<String, SignError> {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
            let key = key.map_err(|error| SignError::Make(error.to_string()))?;
            Ok(key.serialize_pem())
        };
        Self::of(&state.read_or_make(KEY, make)?)
    }

    /// With the key that the operator has made there, or makes within `patience`; nothing is made here.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn existing(state_dir: &Path, patience: Duration) -> Result<Self, SignError> {
        let (state, begun) = (StateDir::at(state_dir), Instant::now());
        loop {
            if let Some(pem) = state.read(KEY)? {
                return Self::of(&pem);
            }
            if begun.elapsed() >= patience {
                return Err(SignError::Missing(state_dir.to_owned()));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn of(pem: &str) -> Result<Self, SignError> {
        let key = KeyPair::from_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256);
        let key = key.map_err(SignError::Key)?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = CLOCK_SKEW;
        Ok(Self {
            signs: EncodingKey::from_ec_der(&key.serialize_der()),
            verifies: DecodingKey::from_ec_der(key.public_key_raw()),
            validation,
        })
    }

    /// A token for this Dataplane that is valid for `life` from `now`, at most [`LONGEST_LIFE`].
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn sign(
        &self,
        grant: &Grant,
        now: Timestamp,
        life: SignedDuration,
    ) -> Result<String, SignError> {
        let claims = Claims {
            name: grant.name.clone(),
            mesh: grant.mesh.clone(),
            tags: grant.tags.clone(),
            kind: TYPE.to_owned(),
            iat: now.as_second(),
            exp: now.as_second() + life.min(LONGEST_LIFE).as_secs(),
        };
        let token = encode(&Header::new(Algorithm::ES256), &claims, &self.signs);
        token.map_err(|error| SignError::Make(error.to_string()))
    }

    fn read(&self, token: &str) -> Result<Grant, TokenError> {
        let rejected = |why: String| Err(TokenError::Rejected(why));
        if token.len() > LONGEST_TOKEN {
            return rejected(format!("it is longer than {LONGEST_TOKEN} bytes"));
        }
        let claims = match decode::<Claims>(token, &self.verifies, &self.validation) {
            Ok(read) => read.claims,
            Err(error) => return rejected(refusal(error.kind())),
        };
        if claims.kind != TYPE {
            return rejected(format!(
                "its Type is {:?}, not {TYPE:?}: make one with weir-operator token",
                claims.kind
            ));
        }
        if claims.name.is_empty() || claims.mesh.is_empty() {
            return rejected(
                "it names no Dataplane: make one with weir-operator token --name --mesh".to_owned(),
            );
        }
        Ok(Grant {
            mesh: claims.mesh,
            name: claims.name,
            tags: claims.tags,
        })
    }
}

/// Why a token is not accepted, and what to do.
fn refusal(error: &ErrorKind) -> String {
    match error {
        ErrorKind::ExpiredSignature => {
            "it has expired: make a new one with weir-operator token".to_owned()
        }
        ErrorKind::InvalidSignature => {
            "it was signed with another key: make one with weir-operator token and the --state-dir of this operator"
                .to_owned()
        }
        other => format!(
            "it is no data plane token ({other:?}): make one with weir-operator token"
        ),
    }
}

impl Tokens for Signed {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, TokenError>> {
        std::future::ready(self.read(token).map(Caller::Dataplane)).boxed()
    }

    fn wanted(&self) -> &'static str {
        "a data plane token, which weir-operator token makes"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn grant() -> Grant {
        let values = ["web", "admin"].map(str::to_owned);
        Grant {
            mesh: "default".to_owned(),
            name: "web-1".to_owned(),
            tags: [("kuma.io/service".to_owned(), values.into())].into(),
        }
    }

    fn signed(name: &str) -> (Folder, Signed) {
        let folder = Folder::new(name);
        let signed = Signed::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        (folder, signed)
    }

    fn refused(signed: &Signed, token: &str) -> String {
        match signed.read(token) {
            Err(TokenError::Rejected(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_says_whose_it_is_to_every_holder_of_the_key() {
        let (folder, maker) = signed("token-made");
        let token = maker.sign(&grant(), Timestamp::now(), HOUR).unwrap();
        assert_eq!(maker.read(&token), Ok(grant()));
        let checker = Signed::existing(folder.path(), Duration::ZERO).unwrap();
        assert_eq!(checker.read(&token), Ok(grant()));
    }

    #[test]
    fn a_key_that_no_operator_has_made_is_waited_for_and_not_made() {
        let folder = Folder::new("token-nowhere");
        let place = folder.path().join("stae");
        let error = Signed::existing(&place, LOOK).err().unwrap().to_string();
        assert!(error.contains("check --state-dir"), "{error}");
        assert!(!place.exists());
        let (operator, made) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn({
            let place = place.clone();
            move || {
                let opened = Signed::existing(&place, Duration::from_secs(30));
                operator.send(opened.map(|_| ())).unwrap();
            }
        });
        assert!(made.recv_timeout(LOOK * 2).is_err());
        Signed::open(&StateDir::open(&place).unwrap()).unwrap();
        made.recv_timeout(Duration::from_secs(30)).unwrap().unwrap();
        waiting.join().unwrap();
    }

    #[test]
    fn a_token_is_refused_with_what_to_do() {
        let (_folder, ours) = signed("token-ours");
        let (_folder, theirs) = signed("token-theirs");
        let now = Timestamp::now();
        let token = |by: &Signed, grant: Grant| by.sign(&grant, now, HOUR).unwrap();
        let expired = ours.sign(&grant(), now - HOUR * 2, HOUR).unwrap();
        let unnamed = Grant {
            name: String::new(),
            ..grant()
        };
        let good = token(&ours, grant());
        let (head, _) = good.rsplit_once('.').unwrap();
        for (token, words) in [
            (expired, "expired"),
            (token(&theirs, grant()), "another key"),
            (token(&ours, unnamed), "names no Dataplane"),
            (format!("{head}."), "weir-operator token"),
            (head.to_owned(), "no data plane token"),
            ("rubbish".to_owned(), "no data plane token"),
            (String::new(), "no data plane token"),
            ("x".repeat(LONGEST_TOKEN + 1), "longer than"),
        ] {
            let why = refused(&ours, &token);
            assert!(why.contains(words), "{words}: {why}");
        }
    }

    #[test]
    fn a_token_of_another_kind_or_without_signature_is_refused() {
        let (_folder, ours) = signed("token-kind");
        let mut claims = Claims {
            name: "web-1".to_owned(),
            mesh: "default".to_owned(),
            tags: BTreeMap::new(),
            kind: "zone".to_owned(),
            iat: 0,
            exp: Timestamp::now().as_second() + 60,
        };
        let zone = encode(&Header::new(Algorithm::ES256), &claims, &ours.signs).unwrap();
        assert!(refused(&ours, &zone).contains(r#"Type is "zone""#));
        claims.kind = TYPE.to_owned();
        let secret = EncodingKey::from_secret(b"guessed");
        let other = encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
        assert!(refused(&ours, &other).contains("no data plane token"));
        // {"alg":"none","typ":"JWT"} with the claims of a token that holds.
        let good = ours.sign(&grant(), Timestamp::now(), HOUR).unwrap();
        let claims = good.split('.').nth(1).unwrap();
        let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
        assert!(refused(&ours, &none).contains("no data plane token"));
    }

    #[test]
    fn a_key_that_is_none_is_named() {
        let folder = Folder::new("token-key");
        folder.write(KEY, "rubbish");
        let opened = Signed::open(&StateDir::open(folder.path()).unwrap());
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(KEY), "{error}");
    }
}
