//! A record of the audit file, as others read it.

use serde::{Deserialize, Serialize};

/// One line of the audit file: one decision. The broker writes the keys in this order.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuditRecord {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// UTC, RFC 3339, milliseconds.
    pub time: String,
    /// Number of the line.
    pub seq: u64,
    /// Of the line before; how it is made says [`crate::chain`].
    pub prev: String,
    /// The number that the client was told.
    pub id: String,
    /// `issued`, `denied`, `malformed`, `unavailable` or `abandoned`.
    pub outcome: String,
    /// Effective user id of the caller.
    pub uid: u32,
    /// Effective group id of the caller.
    pub gid: u32,
    /// Name of the user.
    pub user: Option<String>,
    /// Process that connected.
    pub pid: Option<i32>,
    /// The caller's unit of the system.
    pub unit: Option<String>,
    /// This run of it.
    pub invocation: Option<String>,
    /// Whether the caller is in a container.
    pub container: Option<bool>,
    /// Whose token, as the policy writes it.
    pub identity: Option<String>,
    /// For what.
    pub resource: Option<String>,
    /// The rule that allowed it.
    pub rule: Option<String>,
    /// Hash of the policy that was asked.
    pub policy: String,
    /// `cache`, `fetch` or `stale`, for an issued token.
    pub cache: Option<String>,
    /// How long the answer took.
    pub ms: u64,
    /// When the issued token ends, Unix seconds.
    pub expires_on: Option<u64>,
    /// The claim under which Entra logs the token's use.
    pub uti: Option<String>,
    /// First 12 hex digits of the token's SHA-256.
    pub token_sha256: Option<String>,
    /// The endpoint that was asked, of which the caller above is the owner; absent on the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Why the request is not the owner's: `host`, `browser`, `proxy`, `secret`, `user` or `gone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stray: Option<String>,
    /// The user who sent it, where that is known and another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stray_uid: Option<u32>,
}
