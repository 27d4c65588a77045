//! What travels over the sockets: paths, answers, error codes and sizes.
//!
//! The broker writes these types and the client reads them, so the two cannot drift apart.
//! `docs/protocol.md` lists every key. Readers ignore keys that they do not know, so that a newer
//! broker can talk to an older client; [`SCHEMA`] changes only when a key changes its meaning.

use serde::{Deserialize, Serialize};

use crate::Secret;

mod audit;
mod decisions;
mod endpoint;

pub use audit::AuditRecord;
pub use decisions::{
    Decision, DecisionsAnswer, ExplainAnswer, Explained, GRANT_PREFIX, GrantsAnswer, RuleExamined,
    ShadowDifference, ShadowStatus, ShadowVerdict, TimedGrant,
};

pub use endpoint::{ENDPOINT_PROTOCOL, EndpointAnswer, Lifetime, READY};

/// The version of every JSON document below.
pub const SCHEMA: u32 = 1;

/// Where the token socket is unless told otherwise.
pub const DEFAULT_TOKEN_SOCKET: &str = "/run/arcbroker/token.sock";

/// Where the admin socket is unless told otherwise.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/arcbroker/admin.sock";

/// Bytes of the longest answer that a client reads; the broker's longest is far below.
pub const MAX_ANSWER: usize = 1024 * 1024;

/// Bytes of the longest resource that may be asked for.
pub const MAX_RESOURCE: usize = 256;

/// The api-version that our own client sends.
pub const API_VERSION: &str = "2020-06-01";

/// The [`ErrorAnswer::error`] of what no rule of the policy allows. A 403 with another word comes from upstream.
pub const ACCESS_DENIED: &str = "access_denied";

/// Request paths.
pub mod path {
    /// A token, in the shape of HIMDS and IMDS (token socket).
    pub const TOKEN: &str = "/metadata/identity/oauth2/token";
    /// The tenant of the machine (token socket).
    pub const IDENTITY_INFO: &str = "/metadata/identity/info";
    /// What the machine is (token socket).
    pub const INSTANCE: &str = "/metadata/instance";
    /// How the broker sees the caller (token socket).
    pub const WHOAMI: &str = "/v1/whoami";
    /// Health in one word (token socket).
    pub const HEALTH: &str = "/v1/health";
    /// An endpoint of its own for a program (token socket, by an upgrade).
    pub const ENDPOINT: &str = "/v1/endpoint";
    /// Everything about the daemon (admin socket).
    pub const STATUS: &str = "/v1/status";
    /// The last decisions (admin socket).
    pub const DECISIONS: &str = "/v1/decisions";
    /// Why a decision is what it is (admin socket, POST).
    pub const EXPLAIN: &str = "/v1/explain";
    /// Rules for a while (admin socket; GET, POST and DELETE).
    pub const GRANTS: &str = "/v1/grants";
    /// Drops tokens (admin socket, POST).
    pub const FLUSH: &str = "/v1/flush";
    /// Refreshes tokens now (admin socket, POST).
    pub const REFRESH: &str = "/v1/refresh";
    /// Loads the policy again (admin socket, POST).
    pub const RELOAD: &str = "/v1/reload";
}

/// A token, in the one shape that every known SDK accepts.
///
/// All values are strings and `expires_on` comes last: one SDK wants a string there, another lets
/// the last of `expires_in` and `expires_on` win.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TokenAnswer {
    /// The bearer token.
    pub access_token: Secret,
    /// Always empty.
    #[serde(default)]
    pub refresh_token: String,
    /// Seconds left when the answer was written.
    pub expires_in: String,
    /// Unix seconds, or empty where upstream gave none.
    #[serde(default)]
    pub not_before: String,
    /// The resource that was asked for, byte for byte.
    pub resource: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// The client id of a user-assigned identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Unix seconds.
    pub expires_on: String,
}

/// A refusal, in the dialect of HIMDS and IMDS and in that of App Service at once.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ErrorAnswer {
    /// The reason as a word: the `error` values of Microsoft's metadata services.
    pub error: String,
    /// What happened and what to do next.
    pub error_description: String,
    /// The HTTP status once more.
    #[serde(rename = "statusCode", default)]
    pub status_code: u16,
    /// `error_description` once more.
    #[serde(default)]
    pub message: String,
    /// The number under which the audit log has this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Present when the api-version was at fault: versions to use instead.
    #[serde(
        rename = "newest-versions",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub newest_versions: Vec<String>,
    /// [`SCHEMA`].
    #[serde(default)]
    pub schema: u32,
}

/// How the broker sees the process that asks, and what that process may have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WhoamiAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Effective user id at the time of the connect.
    pub uid: u32,
    /// The user's name, for display only.
    pub user: Option<String>,
    /// Effective group id at the time of the connect.
    pub gid: u32,
    /// All groups at the time of the connect, the effective one included.
    pub groups: Vec<u32>,
    /// Process id, absent where the kernel gives none.
    pub pid: Option<i32>,
    /// The service or scope of the system that the process runs in now.
    #[serde(default)]
    pub unit: Option<String>,
    /// This run of the unit, as systemd numbers it; for display only.
    #[serde(default)]
    pub invocation: Option<String>,
    /// Whether the process is in a container; absent where that cannot be known, and then no rule
    /// allows it anything.
    #[serde(default)]
    pub container: Option<bool>,
    /// What the policy allows.
    pub resources: Vec<Allowed>,
}

/// One resource that a caller may have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Allowed {
    /// The resource, or `*` for all.
    pub resource: String,
    /// The identity: `system`, or a user-assigned one as the policy writes it.
    pub identity: String,
    /// The rule that allows it.
    pub rule: String,
}

/// Health in one word.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
    Healthy,
    /// Tokens are served, but something needs attention.
    Degraded,
    /// The daemon is up and upstream has not answered yet.
    Starting,
    /// A wanted resource has no token.
    Failing,
}

/// The answer to [`path::HEALTH`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HealthAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Health in one word; the reasons are on the admin socket.
    pub health: Health,
}

/// The answer to [`path::FLUSH`] and [`path::REFRESH`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TokensAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How many tokens were dropped, or are refreshed.
    pub tokens: usize,
}

/// The answer to [`path::STATUS`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StatusAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Unix seconds.
    pub started_at: u64,
    /// Seconds since the start, time asleep included.
    pub uptime_seconds: u64,
    /// Health in one word.
    pub health: Health,
    /// Why health is not `healthy`, one sentence each.
    pub reasons: Vec<String>,
    /// Seconds for which every wanted token would survive if upstream stopped now; absent without one.
    pub outage_budget_seconds: Option<u64>,
    /// Where tokens come from.
    pub upstream: UpstreamStatus,
    /// The rules in force.
    pub policy: PolicyStatus,
    /// The record of decisions.
    pub audit: AuditStatus,
    /// Every token that is kept or wanted.
    pub tokens: Vec<TokenStatus>,
    /// Requests for tokens since the start, by outcome.
    pub requests: RequestCounts,
    /// Connections to the token socket.
    pub connections: ConnectionCounts,
}

/// What came of loading the policy again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReloadAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How many rules are in force.
    pub rules: usize,
    /// First 12 hex digits of the SHA-256 of the files that are in force.
    pub hash: String,
    /// Why the files were refused; those from before stay in force then.
    pub error: Option<String>,
    /// What the rules in force should not have.
    pub warnings: Vec<String>,
}

/// Where tokens come from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UpstreamStatus {
    /// `himds` or `imds`.
    pub kind: String,
    /// Why it is this one.
    #[serde(default)]
    pub reason: String,
    /// Its address.
    pub endpoint: String,
    /// When it last gave what it was asked for, Unix seconds.
    pub last_success_at: Option<u64>,
    /// When it last did not, Unix seconds.
    pub last_failure_at: Option<u64>,
    /// What happened then.
    pub last_failure: Option<String>,
    /// Tokens asked for since the start.
    pub token_requests: u64,
    /// Failures in a row, when they are so many that it is only tried from time to time.
    #[serde(default)]
    pub failures_in_a_row: Option<u32>,
    /// Seconds until it is asked again, when it is left alone.
    #[serde(default)]
    pub asked_again_in_seconds: Option<u64>,
    /// The cloud whose resources short names stand for, as `azEnvironment` names it; absent until
    /// upstream has told.
    #[serde(default)]
    pub cloud: Option<String>,
}

/// The rules in force.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyStatus {
    /// Where the files are.
    pub dir: String,
    /// First 12 hex digits of the SHA-256 of all files: the `policy` of audit records.
    pub hash: String,
    /// How many rules.
    pub rules: usize,
    /// Unix seconds.
    pub loaded_at: u64,
    /// Why the last reload was refused; the rules above stay in force.
    pub reload_error: Option<String>,
    /// What the rules in force should not have.
    pub warnings: Vec<String>,
    /// Rules for a while that lie over them.
    #[serde(default)]
    pub grants: Vec<TimedGrant>,
    /// What is tried beside them; absent where nothing is.
    #[serde(default)]
    pub shadow: Option<ShadowStatus>,
}

/// The record of decisions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuditStatus {
    /// Path of the file; absent where none is kept.
    pub file: Option<String>,
    /// Whether a request is refused when its record cannot be written.
    pub required: bool,
    /// Sequence number of the last record.
    pub sequence: u64,
    /// Why the last record could not be written anywhere.
    pub error: Option<String>,
    /// Every place where records go.
    #[serde(default)]
    pub sinks: Vec<AuditSink>,
}

/// One place where records go. A record is written when one of them has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuditSink {
    /// `file` or `journald`.
    pub name: String,
    /// Path of the file, or of journald's socket.
    pub path: String,
    /// `ok`, `failing`, `stuck` (it does not answer) or `absent` (there is no journal here).
    pub state: String,
    /// Why it does not take records, or did not follow a rotation.
    pub error: Option<String>,
    /// Records that another sink took and that wait for this one.
    pub waiting: u64,
    /// Records that were given up for this one since the start.
    pub missed: u64,
}

/// One slot of the token cache.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TokenStatus {
    /// The resource, byte for byte.
    pub resource: String,
    /// The identity: `system`, or a user-assigned one as the policy writes it.
    pub identity: String,
    /// `fetching`, `fresh`, `due`, `stale`, `expired` or `failed`.
    pub state: String,
    /// Unix seconds.
    pub expires_on: Option<u64>,
    /// Seconds left, by the stricter of the two clocks.
    pub remaining_seconds: Option<u64>,
    /// Seconds until the next refresh; 0 when it is due.
    pub refresh_in_seconds: Option<u64>,
    /// Whether somebody asked for it lately, so that it is kept fresh.
    pub wanted: bool,
    /// Why the last fetch failed.
    pub last_failure: Option<String>,
}

/// Requests for tokens since the start, by outcome.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RequestCounts {
    /// A token was handed out.
    pub issued: u64,
    /// No rule allowed it.
    pub denied: u64,
    /// The request was not one that can be answered.
    pub malformed: u64,
    /// It was allowed, but no token could be had.
    pub unavailable: u64,
    /// The client went away before the answer.
    pub abandoned: u64,
    /// Its caller asked more often than it may; counted for every path, and not recorded.
    #[serde(default)]
    pub throttled: u64,
}

/// Connections to the token socket.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConnectionCounts {
    /// Open now.
    pub open: u64,
    /// Turned away since the start because a limit was reached.
    pub refused: u64,
    /// Endpoints of programs that are served now.
    #[serde(default)]
    pub endpoints: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_answer_keeps_the_order_that_every_sdk_accepts() {
        let answer = TokenAnswer {
            access_token: Secret::from("T".to_owned()),
            refresh_token: String::new(),
            expires_in: "5".into(),
            not_before: "1".into(),
            resource: "r".into(),
            token_type: "Bearer".into(),
            client_id: None,
            expires_on: "6".into(),
        };
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"access_token":"T","refresh_token":"","expires_in":"5","not_before":"1","resource":"r","token_type":"Bearer","expires_on":"6"}"#
        );
    }

    #[test]
    fn an_error_answer_speaks_both_dialects() {
        let answer = ErrorAnswer {
            error: ACCESS_DENIED.into(),
            error_description: "no".into(),
            status_code: 403,
            message: "no".into(),
            request_id: Some("7".into()),
            newest_versions: Vec::new(),
            schema: SCHEMA,
        };
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"error":"access_denied","error_description":"no","statusCode":403,"message":"no","request_id":"7","schema":1}"#
        );
    }
}
