//! What an audit record says, and how it is written.

use std::fmt;
use std::time::{Duration, SystemTime};

use arcbroker_policy::{Caller, Identity, Unit};
use serde::{Serialize, Serializer};

use crate::clock::Clock;

/// The version of a record.
const SCHEMA: u32 = 1;

/// How a request for a token ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A token was handed out.
    Issued,
    /// No rule allows it.
    Denied,
    /// It was no request that can be judged.
    Malformed,
    /// It was allowed, but there was no token.
    Unavailable,
    /// The client went away before the answer.
    Abandoned,
}

/// One decision. `docs/protocol.md` has the keys.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// The number that the client was told.
    pub id: RequestId,
    /// Who asked.
    pub caller: &'a Caller,
    /// Name of the user, for display.
    pub user: Option<&'a str>,
    /// Process that connected.
    pub pid: Option<i32>,
    /// This run of the caller's unit.
    pub invocation: Option<&'a str>,
    /// Whose token.
    pub identity: Option<&'a Identity>,
    /// For what.
    pub resource: Option<&'a str>,
    /// The rule that allowed it.
    pub rule: Option<&'a str>,
    /// Hash of the policy that was asked.
    pub policy: &'a str,
    /// `cache` or `fetch`, for an issued token.
    pub cache: Option<&'a str>,
    /// How long the answer took.
    pub took: Duration,
    /// Of the issued token.
    pub token: Option<TokenFacts<'a>>,
}

/// What a record says of an issued token.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts<'a> {
    /// Unix seconds.
    pub expires_on: u64,
    /// The claim under which Entra logs the token's use.
    pub uti: Option<&'a str>,
    /// First 12 hex digits of its SHA-256.
    pub sha256: &'a str,
}

/// A number for a request: unique while the daemon runs, and very likely ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestId {
    pub(crate) run: u32,
    pub(crate) number: u64,
}

/// A record as it is written. The order of the keys is part of the format.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    schema: u32,
    time: Text<humantime::Rfc3339Timestamp>,
    seq: u64,
    prev: &'a str,
    id: Text<RequestId>,
    outcome: Outcome,
    uid: u32,
    gid: u32,
    user: Option<&'a str>,
    pid: Option<i32>,
    unit: Option<&'a str>,
    invocation: Option<&'a str>,
    container: Option<bool>,
    identity: Option<Text<&'a Identity>>,
    resource: Option<&'a str>,
    rule: Option<&'a str>,
    policy: &'a str,
    cache: Option<&'a str>,
    ms: u64,
    expires_on: Option<u64>,
    uti: Option<&'a str>,
    token_sha256: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// The line with this number, after one with this digest.
    pub(crate) fn new(record: &Record<'a>, clock: &Clock, seq: u64, prev: &'a str) -> Self {
        let time = SystemTime::UNIX_EPOCH
            .checked_add(clock.now().wall)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            time: Text(humantime::format_rfc3339_millis(time)),
            seq,
            prev,
            id: Text(record.id),
            outcome: record.outcome,
            uid: record.caller.uid,
            gid: record.caller.gid,
            user: record.user,
            pid: record.pid,
            unit: record.caller.unit.as_ref().map(Unit::as_str),
            invocation: record.invocation,
            container: record.caller.container,
            identity: record.identity.map(Text),
            resource: record.resource,
            rule: record.rule,
            policy: record.policy,
            cache: record.cache,
            ms: u64::try_from(record.took.as_millis()).unwrap_or(u64::MAX),
            expires_on: record.token.map(|token| token.expires_on),
            uti: record.token.and_then(|token| token.uti),
            token_sha256: record.token.map(|token| token.sha256),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.run, self.number)
    }
}

/// Written as the text that it is displayed as.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
