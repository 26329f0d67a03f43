//! Asks the API server about a token (TokenReview) and remembers its answer for a moment, so that a
//! proxy that opens several streams at once costs one question. Called through `Tokens`. A token is
//! never kept nor logged, only its digest.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{AUDIENCE, Account, Caller, PodRef, TokenError, Tokens};
use crate::call::within;

/// How long an answer is remembered; a token that is withdrawn is accepted for so long yet.
pub const CACHED: Duration = Duration::from_secs(10);
/// Most answers that are remembered.
pub const MOST_CACHED: usize = 16_384;
/// Questions to the API server at once; further ones wait.
const QUESTIONS: usize = 32;
/// What a service account's user name begins with.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Where the API server says which pod a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// And that pod's uid.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

type Answer = Result<Caller, TokenError>;

/// Checks service account tokens with the API server.
pub struct Reviewer {
    reviews: Api<TokenReview>,
    questions: Semaphore,
    cache: Mutex<Cache>,
}

impl Reviewer {
    /// Asks through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            reviews: Api::all(client),
            questions: Semaphore::new(QUESTIONS),
            cache: Mutex::default(),
        }
    }

    async fn answer(&self, token: &str) -> Answer {
        let key = Key::of(token);
        if let Some(answer) = self.cached(key) {
            return answer;
        }
        let _question = self.questions.acquire().await.expect("it is never closed");
        // Whoever asked the same while this waited has been told.
        if let Some(answer) = self.cached(key) {
            return answer;
        }
        let answer = self.ask(token).await;
        if !matches!(answer, Err(TokenError::Unavailable(_))) {
            self.cache().insert(key, answer.clone(), Instant::now());
        }
        answer
    }

    async fn ask(&self, token: &str) -> Answer {
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: Some(token.to_owned()),
            },
            status: None,
        };
        let answer = within(self.reviews.create(&PostParams::default(), &review)).await;
        match answer {
            Ok(review) => read(review.status.unwrap_or_default()),
            Err(error) => Err(TokenError::Unavailable(format!(
                "the API server did not review the token: {error}"
            ))),
        }
    }

    fn cached(&self, key: Key) -> Option<Answer> {
        self.cache().get(key, Instant::now())
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().expect("nothing panics while it is held")
    }
}

impl Tokens for Reviewer {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Answer> {
        self.answer(token).boxed()
    }
}

/// What the API server's answer says.
fn read(status: TokenReviewStatus) -> Answer {
    let rejected = |why: String| Err(TokenError::Rejected(why));
    if status.authenticated != Some(true) {
        let why = status.error.filter(|why| !why.is_empty());
        let why = why.unwrap_or_else(|| "it is expired, revoked or not ours".to_owned());
        return rejected(format!("the API server does not accept the token: {why}"));
    }
    // A server that knows no audiences leaves them out: then the token may be meant for anybody.
    if !status
        .audiences
        .unwrap_or_default()
        .iter()
        .any(|audience| audience == AUDIENCE)
    {
        return rejected(format!(
            "the token is not meant for {AUDIENCE}: project one with that audience"
        ));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name
        .strip_prefix(SERVICE_ACCOUNT)
        .and_then(|name| name.split_once(':'));
    let Some((namespace, service_account)) = account else {
        return rejected(format!(
            "the token is {name:?}'s, which is no service account"
        ));
    };
    let mut extra = user.extra.unwrap_or_default();
    let mut first = |key: &str| {
        extra
            .remove(key)
            .and_then(|values| values.into_iter().next())
    };
    let pod = first(POD_NAME).zip(first(POD_UID));
    Ok(Caller::Account(Account {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        pod: pod.map(|(name, uid)| PodRef { name, uid }),
    }))
}

/// The digest of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key([u8; 32]);

impl Key {
    fn of(token: &str) -> Self {
        let digest = digest(&SHA256, token.as_bytes());
        Self(
            digest
                .as_ref()
                .try_into()
                .expect("a SHA-256 digest has 32 bytes"),
        )
    }
}

/// Answers and the end of their use.
#[derive(Default)]
struct Cache(HashMap<Key, (Answer, Instant)>);

impl Cache {
    fn get(&mut self, key: Key, now: Instant) -> Option<Answer> {
        let (answer, until) = self.0.get(&key)?;
        (now < *until).then(|| answer.clone())
    }

    /// Full, it forgets what is over; full of what is not, it does not remember.
    fn insert(&mut self, key: Key, answer: Answer, now: Instant) {
        if self.0.len() >= MOST_CACHED {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() < MOST_CACHED {
            self.0.insert(key, (answer, now + CACHED));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status() -> TokenReviewStatus {
        let extra = [(POD_NAME, "web-0"), (POD_UID, "uid-0")];
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![AUDIENCE.to_owned()]),
            user: Some(UserInfo {
                username: Some("system:serviceaccount:shop:web".to_owned()),
                extra: Some(
                    extra
                        .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]))
                        .into(),
                ),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    #[test]
    fn a_projected_token_names_account_and_pod() {
        let account = |status| match read(status).unwrap() {
            Caller::Account(account) => account,
            Caller::Dataplane(grant) => panic!("{grant:?}"),
        };
        let caller = account(status());
        assert_eq!(
            (caller.namespace.as_str(), caller.service_account.as_str()),
            ("shop", "web")
        );
        let pod = caller.pod.unwrap();
        assert_eq!((pod.name.as_str(), pod.uid.as_str()), ("web-0", "uid-0"));
        let mut unbound = status();
        unbound.user.as_mut().unwrap().extra = Some(BTreeMap::new());
        assert_eq!(account(unbound).pod, None);
    }

    #[test]
    fn what_is_not_for_us_is_rejected_with_the_reason() {
        type Change = fn(&mut TokenReviewStatus);
        let cases: [(&str, Change); 4] = [
            ("has expired", |status| {
                status.authenticated = Some(false);
                status.error = Some("token has expired".to_owned());
            }),
            ("not meant for weir-operator", |status| {
                status.audiences = Some(vec!["vault".to_owned()])
            }),
            ("not meant for weir-operator", |status| {
                status.audiences = None
            }),
            ("no service account", |status| {
                status.user.as_mut().unwrap().username = Some("kubernetes-admin".to_owned());
            }),
        ];
        for (words, change) in cases {
            let mut status = status();
            change(&mut status);
            let Err(TokenError::Rejected(why)) = read(status) else {
                panic!("{words}")
            };
            assert!(why.contains(words), "{why}");
        }
        assert!(matches!(
            read(TokenReviewStatus::default()),
            Err(TokenError::Rejected(_))
        ));
    }

    #[test]
    fn answers_are_forgotten_and_never_too_many() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let answer = || Err(TokenError::Rejected("no".to_owned()));
        cache.insert(Key::of("a"), answer(), now);
        assert_eq!(cache.get(Key::of("a"), now), Some(answer()));
        assert_eq!(cache.get(Key::of("b"), now), None);
        assert_eq!(cache.get(Key::of("a"), now + CACHED), None);
        for number in 0..=MOST_CACHED {
            cache.insert(Key::of(&number.to_string()), answer(), now);
        }
        assert_eq!(cache.0.len(), MOST_CACHED);
        cache.insert(Key::of("later"), answer(), now + CACHED);
        assert_eq!(cache.0.len(), 1);
    }
}
