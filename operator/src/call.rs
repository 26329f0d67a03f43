//! One request to the API server under a deadline, and what may go wrong with it. Called by every
//! module that holds a client; it knows no resource.

use std::time::Duration;

/// Longest wait for one answer of the API server.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server (or the way to it) refused.
    #[error("{}", describe(.0))]
    Kube(#[from] kube::Error),
    /// No answer in time.
    #[error("the API server did not answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
}

impl CallError {
    /// A word for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Kube(kube::Error::Api(status)) if status.code == 409 => "conflict",
            Self::Kube(kube::Error::Api(_)) => "refused",
            Self::Kube(_) => "unreachable",
        }
    }

    /// Someone else wrote first, or the object is there already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if status.code == 409)
    }

    /// The object (or its kind) is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if status.code == 404)
    }

    /// Another try would be refused, too: what is asked for is wrong (RFC 9110, 15.5). A token may have been renewed (401),
    /// the server may have waited too long (408), or be asked too much (RFC 6585, 4).
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status))
            if (400..500).contains(&status.code) && ![401, 408, 429].contains(&status.code))
    }
}

/// The API server's own words where there are any, without the rest of its answer.
pub(crate) fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

/// Waits for the answer, at most [`REQUEST_TIMEOUT`].
pub(crate) async fn within<T>(
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    within_time(REQUEST_TIMEOUT, request).await
}

/// Waits for the answer, at most `limit`.
pub(crate) async fn within_time<T>(
    limit: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::Timeout(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_words_are_shown_without_its_whole_answer() {
        let status = kube::core::Status::failure("no room", "Conflict").with_code(409);
        let error = CallError::from(kube::Error::Api(status.boxed()));
        assert_eq!(error.to_string(), "no room (409)");
        assert_eq!(error.class(), "conflict");
        assert!(error.is_conflict());
    }

    #[test]
    fn what_is_refused_for_good_is_told_from_what_may_pass() {
        for (code, is_final) in [(403, true), (404, true), (429, false), (500, false)] {
            let status = kube::core::Status::failure("no", "No").with_code(code);
            let error = CallError::from(kube::Error::Api(status.boxed()));
            assert_eq!(error.is_final(), is_final, "{code}");
        }
        let timeout = CallError::Timeout(REQUEST_TIMEOUT);
        assert!(!timeout.is_final());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_given_up() {
        let error = within(std::future::pending::<kube::Result<()>>())
            .await
            .unwrap_err();
        assert_eq!(error.class(), "timeout");
        assert!(!error.is_conflict());
        assert_eq!(
            error.to_string(),
            "the API server did not answer within 4 s"
        );
    }
}
