//! An access token as the broker keeps it: encoded once, shared by all answers, wiped on drop.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arcbroker_client::Secret;
use arcbroker_client::wire::TokenAnswer;
use arcbroker_policy::{Identity, IdentityError, Resource};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::clock::Now;
use crate::digest::Digest;

/// Bytes of a token's digest in audit records.
const DIGEST_BYTES: usize = 6;

/// What a token is kept under: exact strings, so that `https://x` and `https://x/` are two.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    /// Whose token.
    pub identity: Identity,
    /// For what.
    pub resource: Resource,
}

/// What upstream is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Whose token, and for what.
    pub key: Key,
    /// Not the one that upstream keeps, but a new one. Agents before 1.66 ignore it.
    pub bypass: bool,
}

/// Where tokens come from: the one trait of the broker's flow.
pub trait TokenSource: Send + Sync + 'static {
    /// One attempt. Retries are the cache's affair.
    fn fetch(
        &self,
        wanted: &Wanted,
    ) -> impl Future<Output = Result<AccessToken, FetchError>> + Send;
}

impl<T: TokenSource> TokenSource for Arc<T> {
    fn fetch(
        &self,
        wanted: &Wanted,
    ) -> impl Future<Output = Result<AccessToken, FetchError>> + Send {
        T::fetch(self, wanted)
    }
}

/// What upstream said of a token, before it is encoded.
#[derive(Debug)]
pub struct Issue {
    /// The bearer token.
    pub access_token: Secret,
    /// Unix seconds, by upstream's word.
    pub expires_on: u64,
    /// Seconds left, by upstream's word; it may be larger than the truth.
    pub expires_in: Option<u64>,
    /// As upstream wrote it; empty on old agents.
    pub not_before: String,
    /// Of a user-assigned identity.
    pub client_id: Option<String>,
}

/// A token with everything that an answer or an audit record needs.
pub struct AccessToken {
    /// The answer up to the digits of `expires_in`, and from there on.
    head: Bytes,
    tail: Bytes,
    /// Where the wall clock and the boot clock say that it ends.
    ends: Now,
    lifetime: Duration,
    expires_on: u64,
    claims: Claims,
    digest: Digest,
    digest_text: Arc<str>,
}

/// The few claims that are of use to us. They are read without trust: no access is decided on them.
#[derive(Debug, Default, Deserialize)]
pub struct Claims {
    /// Unique id of the token, under which Entra logs its use.
    pub uti: Option<String>,
    /// Tenant.
    pub tid: Option<String>,
    /// The identity, as Entra knows it.
    pub oid: Option<String>,
    /// Audience.
    pub aud: Option<String>,
    /// Client id of the identity.
    pub appid: Option<String>,
    /// Resource id of the identity.
    pub xms_mirid: Option<String>,
    /// Unix seconds.
    pub exp: Option<u64>,
}

impl AccessToken {
    /// Encodes a token that has just been received.
    ///
    /// # Errors
    ///
    /// `None` when it has already expired, or never will by any clock.
    pub fn new(issue: &Issue, resource: &Resource, now: Now) -> Option<Self> {
        let claims = Claims::peek(issue.access_token.reveal());
        let ends_wall = Duration::from_secs(issue.expires_on.min(claims.exp.unwrap_or(u64::MAX)));
        let mut lifetime = ends_wall.checked_sub(now.wall)?;
        if let Some(seconds) = issue.expires_in {
            lifetime = lifetime.min(Duration::from_secs(seconds));
        }
        let ends = Now {
            wall: ends_wall,
            boot: now.boot.checked_add(lifetime)?,
        };
        (!lifetime.is_zero()).then(|| Self::known(issue, claims, resource, ends, lifetime))
    }

    /// The token that another daemon had received, from what it [said](Self::said) of it.
    ///
    /// # Errors
    ///
    /// `None` when it is for another resource, or not what a daemon says.
    pub fn again(
        said: TokenAnswer,
        resource: &Resource,
        ends: Now,
        lifetime: Duration,
    ) -> Option<Self> {
        let issue = Issue {
            expires_on: said.expires_on.parse().ok()?,
            expires_in: None,
            access_token: said.access_token,
            not_before: said.not_before,
            client_id: said.client_id,
        };
        let claims = Claims::peek(issue.access_token.reveal());
        (said.resource == resource.as_str())
            .then(|| Self::known(&issue, claims, resource, ends, lifetime))
    }

    fn known(
        issue: &Issue,
        claims: Claims,
        resource: &Resource,
        ends: Now,
        lifetime: Duration,
    ) -> Self {
        let (head, tail) = encode(issue, resource);
        let digest = Digest::of(issue.access_token.reveal().as_bytes());
        Self {
            head,
            tail,
            ends,
            lifetime,
            expires_on: issue.expires_on,
            claims,
            digest,
            digest_text: digest.hex(DIGEST_BYTES).into(),
        }
    }

    /// The answer as it was when the token was received.
    ///
    /// # Errors
    ///
    /// None, unless the answer could not be read by any client.
    pub fn said(&self) -> Option<TokenAnswer> {
        let seconds = self.lifetime.as_secs().to_string();
        let answer = Zeroizing::new([&self.head, seconds.as_bytes(), &self.tail].concat());
        serde_json::from_slice(&answer).ok()
    }

    /// Where the wall clock and the boot clock say that it ends.
    pub fn ends(&self) -> Now {
        self.ends
    }

    /// What is left, by the stricter clock; zero when it has expired.
    pub fn remaining(&self, now: Now) -> Duration {
        let wall = self.ends.wall.saturating_sub(now.wall);
        wall.min(self.ends.boot.saturating_sub(now.boot))
    }

    /// What was left when it was received.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// When it ends by the wall clock, Unix seconds, as upstream said it.
    pub fn expires_on(&self) -> u64 {
        self.expires_on
    }

    /// Claims that nothing is granted on.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The SHA-256 of the token.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its first 12 hex digits.
    pub fn digest_text(&self) -> &Arc<str> {
        &self.digest_text
    }

    /// The answer in three parts, of which only the middle one is made now.
    pub fn answer(&self, now: Now) -> [Bytes; 3] {
        let seconds = self.remaining(now).as_secs();
        [
            self.head.clone(),
            Bytes::from(seconds.to_string()),
            self.tail.clone(),
        ]
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("expires_on", &self.expires_on)
            .field("digest", &self.digest_text)
            .finish_non_exhaustive()
    }
}

impl Claims {
    /// Whether this identity is the one that they name.
    pub fn name(&self, identity: &Identity) -> bool {
        let is = |read: fn(&str) -> Result<Identity, IdentityError>, claim: &Option<String>| {
            claim
                .as_deref()
                .and_then(|claim| read(claim).ok())
                .is_some_and(|named| named == *identity)
        };
        is(Identity::client_id, &self.appid)
            || is(Identity::object_id, &self.oid)
            || is(Identity::resource_id, &self.xms_mirid)
    }

    /// Reads the payload of a JWT; anything else has no claims.
    pub fn peek(token: &str) -> Self {
        let decode = || {
            let payload = token.split('.').nth(1)?;
            let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
            serde_json::from_slice(&json).ok()
        };
        decode().unwrap_or_default()
    }
}

/// Writes the answer of `docs/protocol.md` once, into one buffer that is wiped when its last user
/// is gone. Order and types matter to the SDKs: see [`arcbroker_client::wire::TokenAnswer`].
fn encode(issue: &Issue, resource: &Resource) -> (Bytes, Bytes) {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let token = issue.access_token.reveal();
    let client_id = issue
        .client_id
        .as_deref()
        .map(|id| format!(r#""client_id":{},"#, text(id)));
    let tail = format!(
        r#"","not_before":{},"resource":{},"token_type":"Bearer",{}"expires_on":"{}"}}"#,
        text(&issue.not_before),
        text(resource.as_str()),
        client_id.unwrap_or_default(),
        issue.expires_on
    );

    let (open, close) = (
        r#"{"access_token":""#,
        r#"","refresh_token":"","expires_in":""#,
    );
    // Sized in advance: a buffer that grows leaves its former self behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(
        open.len() + token.len() + close.len() + tail.len(),
    ));
    for part in [open, token, close] {
        whole.extend_from_slice(part.as_bytes());
    }
    let middle = whole.len();
    whole.extend_from_slice(tail.as_bytes());
    let whole = Bytes::from_owner(whole);
    (whole.slice(..middle), whole.slice(middle..))
}

/// Why there is no token.
#[derive(Clone, Debug)]
pub struct FetchError {
    /// What kind of failure: decides retries, how long it is remembered, and the answer.
    pub class: Class,
    /// What happened and what to do about it, fit for a log and for `status`.
    pub detail: Arc<str>,
    /// What upstream said of itself that a client may read; never more than 200 bytes.
    pub upstream: Option<Arc<str>>,
    /// How long upstream asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl FetchError {
    /// A failure of which only the class and the story are known.
    pub fn new(class: Class, detail: impl Into<Arc<str>>) -> Self {
        Self {
            class,
            detail: detail.into(),
            upstream: None,
            retry_after: None,
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Kinds of failure, each with its own retries, memory and answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Nobody listens at the endpoint.
    Down,
    /// Whoever listens is not HIMDS.
    Hostile,
    /// Time-out, reset, or not HTTP.
    Broken,
    /// The key was refused.
    StaleKey,
    /// The challenge cannot be answered.
    Challenge,
    /// The key file may not be read: a matter of set-up.
    KeyDenied,
    /// The request itself is wrong.
    Permanent,
    /// The machine has no such identity.
    UnknownIdentity,
    /// Refused, but that may change.
    Refused,
    /// Upstream failed.
    Server,
    /// Upstream is being updated.
    Upgrading,
    /// Upstream wants fewer requests.
    Throttled,
    /// The answer was not a token.
    Garbage,
    /// More new tokens are asked for than upstream may be asked for.
    Busy,
    /// It took longer than a client can wait.
    Deadline,
}

impl Class {
    /// Whether it says that upstream could not be asked at all, and nothing of what it was asked.
    pub fn is_outage(self) -> bool {
        match self {
            Self::Down
            | Self::Hostile
            | Self::Broken
            | Self::Server
            | Self::Upgrading
            | Self::Throttled
            | Self::Busy
            | Self::Deadline => true,
            Self::StaleKey
            | Self::Challenge
            | Self::KeyDenied
            | Self::Permanent
            | Self::UnknownIdentity
            | Self::Refused
            | Self::Garbage => false,
        }
    }
}

#[cfg(test)]
mod tests;
