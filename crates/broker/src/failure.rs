//! Why upstream gave nothing: in words that name the right service, and as a class.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::challenge::ChallengeError;
use crate::dial::DialError;
use crate::issue::{Complaint, IssueError};
use crate::kind::Kind;
use crate::token::{Class, FetchError};

/// Seconds that a Retry-After can mean.
const RETRY_AFTER_LIMITS: (u64, u64) = (1, 300);
/// What is assumed when upstream throttles without saying for how long.
const THROTTLED: Duration = Duration::from_secs(10);

/// A conversation that came to nothing.
#[derive(Debug, thiserror::Error)]
pub struct Failure {
    /// With whom.
    pub kind: Kind,
    /// Why.
    pub cause: Cause,
}

/// What went wrong; each text goes on where the name of the service ends. No variant carries text
/// of a key or a token.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// There was no answer, or not from whom it should be.
    #[error(": {0}")]
    Dial(#[from] DialError),
    /// A token without a challenge: HIMDS never does that.
    #[error(" gave a token without a challenge; it was not used")]
    Unchallenged,
    /// The challenge cannot be answered.
    #[error("'s challenge was not answered: {0}")]
    Challenge(#[from] ChallengeError),
    /// The key was not accepted.
    #[error(" did not accept the key that it had asked for")]
    StaleKey,
    /// Another status than was hoped for.
    #[error(" answered {status}{}{words}", if words.is_empty() { "" } else { ": " })]
    Status {
        /// The status.
        status: StatusCode,
        /// What it means.
        class: Class,
        /// What the body says: printable and short.
        words: String,
        /// How long upstream wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer is no token.
    #[error(": {0}")]
    Issue(#[from] IssueError),
    /// The token is of no use.
    #[error(" gave a token that has already expired: compare the clocks")]
    Expired,
}

impl Cause {
    /// What an answer that is not a 200 says.
    pub fn refusal(answer: &Response<Bytes>) -> Self {
        let complaint = Complaint::decode(answer.body());
        Self::Status {
            status: answer.status(),
            class: status_class(answer.status(), &complaint),
            words: complaint.words,
            retry_after: retry_after(answer.headers()),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Dial(DialError::Down(_) | DialError::ToItself(_)) => Class::Down,
            Self::Dial(DialError::Owner { .. } | DialError::UnknownOwner { .. }) => Class::Hostile,
            Self::Dial(DialError::TooLarge { .. }) | Self::Issue(_) | Self::Expired => {
                Class::Garbage
            }
            Self::Dial(_) => Class::Broken,
            Self::Challenge(ChallengeError::Denied) => Class::KeyDenied,
            Self::Unchallenged | Self::Challenge(_) => Class::Challenge,
            Self::StaleKey => Class::StaleKey,
            Self::Status { class, .. } => *class,
        }
    }
}

impl Failure {
    /// What is often behind it.
    fn hint(&self) -> &'static str {
        match (self.kind, &self.cause) {
            (Kind::Himds, Cause::Dial(DialError::Down(_))) => ": is himdsd running?",
            (Kind::Himds, Cause::Issue(IssueError::Identity)) => {
                ": the agent may be older than 1.66"
            }
            _ => "",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.kind, self.cause, self.hint())
    }
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> Self {
        let mut fetch = Self::new(failure.cause.class(), failure.to_string());
        if let Cause::Status {
            words, retry_after, ..
        } = failure.cause
        {
            fetch.retry_after =
                retry_after.or((fetch.class == Class::Throttled).then_some(THROTTLED));
            fetch.upstream = (!words.is_empty()).then(|| words.into());
        }
        fetch
    }
}

/// HIMDS says that an identity is not there by a 404 with a word of its own, IMDS by a 400 with a
/// sentence.
fn status_class(status: StatusCode, complaint: &Complaint) -> Class {
    match status.as_u16() {
        404 if complaint.code == "identity_not_found" => Class::UnknownIdentity,
        400 if complaint.words.contains("Identity not found") => Class::UnknownIdentity,
        401 | 403 | 404 => Class::Refused,
        408 | 500..=599 => Class::Server,
        410 => Class::Upgrading,
        429 => Class::Throttled,
        400..=499 => Class::Permanent,
        _ => Class::Garbage,
    }
}

/// Seconds only: a date would have to be judged by a clock that may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers
        .get(RETRY_AFTER)
        .and_then(|value: &HeaderValue| value.to_str().ok())?
        .trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        // More than fits is more than the limit.
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => u64::MAX,
        Err(_) => return None,
    };
    let (least, most) = RETRY_AFTER_LIMITS;
    Some(Duration::from_secs(seconds.clamp(least, most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, body: &'static str) -> FetchError {
        let mut response = Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header(RETRY_AFTER, value);
        }
        let response = response.body(Bytes::from_static(body.as_bytes())).unwrap();
        failure(Kind::Himds, Cause::refusal(&response)).into()
    }

    fn failure(kind: Kind, cause: Cause) -> Failure {
        Failure { kind, cause }
    }

    #[test]
    fn a_status_has_a_class() {
        for (status, class) in [
            (400, Class::Permanent),
            (401, Class::Refused),
            (403, Class::Refused),
            (404, Class::Refused),
            (405, Class::Permanent),
            (408, Class::Server),
            (410, Class::Upgrading),
            (421, Class::Permanent),
            (429, Class::Throttled),
            (500, Class::Server),
            (503, Class::Server),
            (301, Class::Garbage),
            (204, Class::Garbage),
        ] {
            assert_eq!(answer(status, None, "").class, class, "{status}");
        }
    }

    #[test]
    fn an_identity_that_is_not_there_is_told_in_two_ways() {
        for (status, body, class) in [
            (
                404,
                r#"{"error":"identity_not_found"}"#,
                Class::UnknownIdentity,
            ),
            (
                400,
                r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                Class::UnknownIdentity,
            ),
            (404, r#"{"error":"not_found"}"#, Class::Refused),
            (400, r#"{"error":"identity_not_found"}"#, Class::Permanent),
        ] {
            assert_eq!(answer(status, None, body).class, class, "{status} {body}");
        }
    }

    #[test]
    fn t39_retry_after_is_clamped_and_only_seconds_count() {
        for (text, seconds) in [
            ("0", Some(1)),
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("301", Some(300)),
            ("1000000000000", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ] {
            assert_eq!(
                answer(503, Some(text), "").retry_after,
                seconds.map(Duration::from_secs),
                "{text}"
            );
        }
        assert_eq!(answer(429, None, "").retry_after, Some(THROTTLED));
        assert_eq!(answer(500, None, "").retry_after, None);
    }

    #[test]
    fn upstreams_own_words_are_kept_apart_from_ours() {
        let error = answer(
            400,
            None,
            r#"{"error":"invalid_resource","error_description":"AADSTS500011"}"#,
        );
        assert_eq!(
            error.upstream.as_deref(),
            Some("invalid_resource: AADSTS500011")
        );
        assert_eq!(
            &*error.detail,
            "HIMDS answered 400 Bad Request: invalid_resource: AADSTS500011"
        );
    }

    #[test]
    fn every_failure_names_the_service_that_it_was_and_no_other() {
        let address = "127.0.0.1:1".parse().unwrap();
        let causes: [fn(std::net::SocketAddr) -> Cause; 5] = [
            |address| DialError::Down(address).into(),
            |address| DialError::Owner { address, uid: 7 }.into(),
            |_| Cause::refusal(&Response::new(Bytes::new())),
            |_| IssueError::Identity.into(),
            |_| Cause::Expired,
        ];
        for cause in causes {
            let himds = failure(Kind::Himds, cause(address)).to_string();
            let imds = failure(Kind::Imds, cause(address)).to_string();
            assert!(himds.starts_with("HIMDS"), "{himds}");
            assert!(imds.starts_with("IMDS"), "{imds}");
            for word in ["himds", "HIMDS", "agent"] {
                assert!(!imds.contains(word), "{imds}");
            }
        }
    }
}
