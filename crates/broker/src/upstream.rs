//! HIMDS as a source of tokens: make sure who it is, ask, be challenged, read the key, ask again.
//!
//! The order matters. Who holds the port is known before anything is sent or believed, and once
//! more before a key file is opened; every attempt has a challenge of its own, because a key is
//! used once.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcbroker_policy::Identity;
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::challenge::{ChallengeError, KeyFiles};
use crate::clock::Clock;
use crate::dial::{Connector, DialError};
use crate::issue::{Complaint, IssueError, decode};
use crate::link::Link;
use crate::token::{AccessToken, Class, FetchError, Key, TokenSource, Wanted};

/// The one api-version that every agent in use knows.
const API_VERSION: &str = "2020-06-01";
const TOKEN: &str = "/metadata/identity/oauth2/token";

/// How long an answer may take that needs no more than HIMDS itself.
const LOCAL: Duration = Duration::from_secs(10);
/// How long a token may take: HIMDS asks Entra, perhaps through a proxy.
const REMOTE: Duration = Duration::from_secs(30);

/// All but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Seconds that a Retry-After can mean.
const RETRY_AFTER_LIMITS: (u64, u64) = (1, 300);
/// What is assumed when upstream throttles without saying for how long.
const THROTTLED: Duration = Duration::from_secs(10);

/// Where HIMDS is and what is believed of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its address: always loopback.
    pub endpoint: SocketAddr,
    /// Who may hold the endpoint.
    pub owners: Vec<u32>,
    /// Where it puts key files.
    pub keys: KeyFiles,
}

/// HIMDS, through whatever makes connections to it.
#[derive(Debug)]
pub struct Upstream {
    options: Options,
    connector: Connector,
    clock: Clock,
    record: Mutex<Record>,
}

/// How it went so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Unix seconds.
    pub last_success_at: Option<u64>,
    /// Unix seconds, and what happened.
    pub last_failure: Option<(u64, String)>,
    /// Attempts to get a token.
    pub token_requests: u64,
}

/// Why HIMDS gave nothing. No variant carries text of a key or a token.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// There was no answer, or not from HIMDS.
    #[error("HIMDS: {0}")]
    Dial(#[from] DialError),
    /// A token without a challenge: HIMDS never does that.
    #[error("HIMDS: {0} gave a token without a challenge; it was not used")]
    Unchallenged(SocketAddr),
    /// The challenge cannot be answered.
    #[error("HIMDS's challenge was not answered: {0}")]
    Challenge(#[from] ChallengeError),
    /// The key was not accepted.
    #[error("HIMDS did not accept the key that it had asked for")]
    StaleKey,
    /// Another status than was hoped for.
    #[error("HIMDS answered {status}{}{words}", if words.is_empty() { "" } else { ": " })]
    Status {
        /// The status.
        status: StatusCode,
        /// The `error` of the body.
        code: String,
        /// What the body says: printable and short.
        words: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer is no token.
    #[error("HIMDS: {0}")]
    Issue(#[from] IssueError),
    /// The token is of no use.
    #[error("HIMDS gave a token that has already expired: compare the clocks")]
    Expired,
}

impl Upstream {
    /// Nothing is sent until something is asked for.
    pub fn new(options: Options, connector: Connector, clock: Clock) -> Self {
        Self {
            options,
            connector,
            clock,
            record: Mutex::default(),
        }
    }

    /// Its address.
    pub fn endpoint(&self) -> SocketAddr {
        self.options.endpoint
    }

    /// How it went so far.
    pub fn record(&self) -> Record {
        self.with_record(|record| record.clone())
    }

    /// A document about the machine, which needs no key.
    ///
    /// # Errors
    ///
    /// As for a token; the owner of the socket is checked here as well.
    pub async fn document(&self, path: &str) -> Result<Bytes, FetchError> {
        let result = async {
            let mut link = self.dial().await?;
            let answer = link
                .get(&format!("{path}?api-version={API_VERSION}"), None, LOCAL)
                .await?;
            match answer.status() {
                StatusCode::OK => Ok(answer.into_body()),
                _ => Err(refusal(&answer)),
            }
        };
        self.note(result.await)
    }

    async fn dial(&self) -> Result<Link, DialError> {
        Link::dial(&self.connector, self.options.endpoint, &self.options.owners).await
    }

    async fn converse(&self, wanted: &Wanted) -> Result<AccessToken, UpstreamError> {
        self.with_record(|record| record.token_requests += 1);
        let target = target(wanted);
        let mut link = self.dial().await?;
        let challenge = link.get(&target, None, LOCAL).await?;
        match challenge.status() {
            StatusCode::UNAUTHORIZED => {}
            StatusCode::OK => return Err(UpstreamError::Unchallenged(self.options.endpoint)),
            _ => return Err(refusal(&challenge)),
        }
        let mut link = self.attested(link).await?;
        let authorization = self
            .options
            .keys
            .read(&self.options.keys.locate(challenge.headers())?)?;
        let answer = link.get(&target, Some(&authorization), REMOTE).await?;
        match answer.status() {
            StatusCode::OK => self.accept(answer.body(), &wanted.key),
            StatusCode::UNAUTHORIZED => Err(UpstreamError::StaleKey),
            _ => Err(refusal(&answer)),
        }
    }

    /// A connection that is held by HIMDS at this moment: the same one, unless it has been closed.
    async fn attested(&self, mut link: Link) -> Result<Link, UpstreamError> {
        if link.attest(&self.options.owners)? && link.is_open().await {
            return Ok(link);
        }
        Ok(self.dial().await?)
    }

    fn accept(&self, body: &[u8], key: &Key) -> Result<AccessToken, UpstreamError> {
        let now = self.clock.now();
        let issue = decode(body, key, now.wall.as_secs())?;
        let token = AccessToken::new(&issue, &key.resource, now).ok_or(UpstreamError::Expired)?;
        // Only a sign that something is odd: the token is the resource's to judge, not ours.
        if token
            .claims()
            .aud
            .as_ref()
            .is_some_and(|aud| aud != key.resource.as_str())
        {
            tracing::warn!(resource = %key.resource, "the audience of the token is not the resource that was asked for");
        }
        Ok(token)
    }

    fn note<T>(&self, result: Result<T, UpstreamError>) -> Result<T, FetchError> {
        let now = self.clock.now();
        self.with_record(|record| match &result {
            Ok(_) => record.last_success_at = Some(now.wall.as_secs()),
            Err(error) => record.last_failure = Some((now.wall.as_secs(), error.to_string())),
        });
        result.map_err(FetchError::from)
    }

    fn with_record<T>(&self, f: impl FnOnce(&mut Record) -> T) -> T {
        f(&mut lock(&self.record))
    }
}

impl TokenSource for Upstream {
    async fn fetch(&self, wanted: &Wanted) -> Result<AccessToken, FetchError> {
        self.note(self.converse(wanted).await)
    }
}

impl UpstreamError {
    fn class(&self) -> Class {
        match self {
            Self::Dial(DialError::Down(_) | DialError::ToItself(_)) => Class::Down,
            Self::Dial(DialError::Owner { .. } | DialError::UnknownOwner { .. }) => Class::Hostile,
            Self::Dial(DialError::TooLarge { .. }) | Self::Issue(_) | Self::Expired => {
                Class::Garbage
            }
            Self::Dial(_) => Class::Broken,
            Self::Challenge(ChallengeError::Denied) => Class::KeyDenied,
            Self::Unchallenged(_) | Self::Challenge(_) => Class::Challenge,
            Self::StaleKey => Class::StaleKey,
            Self::Status { status, code, .. } => status_class(*status, code),
        }
    }
}

impl From<UpstreamError> for FetchError {
    fn from(error: UpstreamError) -> Self {
        let mut fetch = Self::new(error.class(), error.to_string());
        if let UpstreamError::Status {
            words, retry_after, ..
        } = error
        {
            fetch.retry_after =
                retry_after.or((fetch.class == Class::Throttled).then_some(THROTTLED));
            fetch.upstream = (!words.is_empty()).then(|| words.into());
        }
        fetch
    }
}

/// A panic elsewhere leaves it as it was: every change is a single assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn status_class(status: StatusCode, code: &str) -> Class {
    match status.as_u16() {
        404 if code == "identity_not_found" => Class::UnknownIdentity,
        401 | 403 | 404 => Class::Refused,
        408 | 500..=599 => Class::Server,
        410 => Class::Upgrading,
        429 => Class::Throttled,
        400..=499 => Class::Permanent,
        _ => Class::Garbage,
    }
}

fn refusal(answer: &Response<Bytes>) -> UpstreamError {
    let Complaint { code, words } = Complaint::decode(answer.body());
    UpstreamError::Status {
        status: answer.status(),
        code,
        words,
        retry_after: retry_after(answer.headers()),
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

/// Path and query of a token request. HIMDS ignores `mi_res_id` in silence, so that a resource id
/// always goes as `msi_res_id`.
fn target(Wanted { key, bypass }: &Wanted) -> String {
    let encode = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let selector = match &key.identity {
        Identity::System => String::new(),
        Identity::ClientId(id) => format!("&client_id={}", encode(&id.to_string())),
        Identity::ObjectId(id) => format!("&object_id={}", encode(&id.to_string())),
        Identity::ResourceId(id) => format!("&msi_res_id={}", encode(id.as_str())),
    };
    let bypass = if *bypass { "&bypass_cache=true" } else { "" };
    format!(
        "{TOKEN}?api-version={API_VERSION}&resource={}{selector}{bypass}",
        encode(key.resource.as_str())
    )
}

#[cfg(test)]
mod tests;
