//! Decisions and their reasons, rules for a while, and a policy that is only tried.

use serde::{Deserialize, Serialize};

/// The answer to [`super::path::DECISIONS`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DecisionsAnswer {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// The newest first.
    pub decisions: Vec<Decision>,
}

/// One decision, and what it was made from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Decision {
    /// The number that the client was told.
    pub id: String,
    /// Unix seconds.
    pub at: u64,
    /// `issued`, `denied`, `malformed`, `unavailable` or `abandoned`.
    pub outcome: String,
    /// Effective user id at the time of the connect.
    pub uid: u32,
    /// The user's name, for display only.
    pub user: Option<String>,
    /// Effective group id at the time of the connect.
    pub gid: u32,
    /// All groups at the time of the connect.
    pub groups: Vec<u32>,
    /// Process that connected.
    pub pid: Option<i32>,
    /// The service or scope of the system that it ran in.
    pub unit: Option<String>,
    /// This run of the unit.
    pub invocation: Option<String>,
    /// Whether it was in a container; absent where that could not be known.
    pub container: Option<bool>,
    /// Whose token; absent where that could not be read.
    pub identity: Option<String>,
    /// For what; absent where that could not be read.
    pub resource: Option<String>,
    /// The rule that allowed it.
    pub rule: Option<String>,
    /// Hash of the policy that was asked.
    pub policy: String,
    /// Milliseconds until the answer.
    pub ms: u64,
    /// The endpoint that was asked, of which the caller above is the owner; absent on the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Why the request is not the owner's, as in an [`super::AuditRecord`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stray: Option<String>,
}

/// The answer to [`super::path::EXPLAIN`]: what the policy that is in force now says, and why.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ExplainAnswer {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// Whether a rule of the files allows it.
    pub allowed: bool,
    /// The first rule that allows it.
    pub rule: Option<String>,
    /// Whether upstream may be asked past its cache.
    pub bypass_cache: bool,
    /// `no-rule-for-caller` or `no-rule-for-resource`, if it is not allowed.
    pub denial: Option<String>,
    /// What was judged.
    pub explained: Explained,
    /// Hash of the policy that was asked.
    pub policy: String,
    /// The rules for which least does not hold.
    pub rules: Vec<RuleExamined>,
    /// How many rules there are.
    pub rules_total: usize,
    /// The rule for a while that allows it.
    pub grant: Option<String>,
    /// What the shadow policy says; absent without one.
    pub shadow: Option<ShadowVerdict>,
    /// The decision that was asked about; absent for a made-up one.
    pub decision: Option<Decision>,
}

/// A request as it was judged.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Explained {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The service or scope of the system.
    pub unit: Option<String>,
    /// Whether it is in a container; absent where that is not known, and then no rule holds.
    pub container: Option<bool>,
    /// Whose token.
    pub identity: String,
    /// For what.
    pub resource: String,
}

/// One rule, and what in it does not hold.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RuleExamined {
    /// Its name.
    pub rule: String,
    /// The file that it is in.
    pub file: String,
    /// The line of its name.
    pub line: usize,
    /// The keys of the rule that do not hold; none where it allows the request.
    pub failed: Vec<String>,
    /// Whether it allows to ask past upstream's cache.
    pub bypass_cache: bool,
}

/// What the shadow policy says of a request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShadowVerdict {
    /// Whether it would allow it.
    pub allowed: bool,
    /// By which rule.
    pub rule: Option<String>,
}

/// The answer to [`super::path::GRANTS`]: all, or the one that was given or ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GrantsAnswer {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// The oldest first.
    pub grants: Vec<TimedGrant>,
}

/// What the name of a rule for a while begins with, so that records tell it from one of the files.
pub const GRANT_PREFIX: &str = "grant: ";

/// A rule that ends by itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TimedGrant {
    /// To end it with.
    pub number: u64,
    /// The text of the rule.
    pub rule: String,
    /// Why it was given.
    pub reason: String,
    /// Who gave it.
    pub granted_by: String,
    /// Unix seconds.
    pub granted_at: u64,
    /// Unix seconds.
    pub ends_at: u64,
    /// Seconds left.
    pub remaining_seconds: u64,
}

/// A policy that is judged beside the one in force, and decides nothing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShadowStatus {
    /// Where its files are.
    pub dir: String,
    /// As in [`super::PolicyStatus`]; absent where it cannot be used.
    pub hash: Option<String>,
    /// How many rules.
    pub rules: usize,
    /// Why it cannot be used.
    pub error: Option<String>,
    /// What it should not have.
    pub warnings: Vec<String>,
    /// Requests that it would have allowed, and that were denied.
    pub would_allow: u64,
    /// Requests that it would have denied, and that were allowed.
    pub would_deny: u64,
    /// By rule, the most frequent ones first.
    pub differences: Vec<ShadowDifference>,
}

/// Requests that the shadow policy decides otherwise because of one rule.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShadowDifference {
    /// The rule that allows them: of the shadow policy if it would allow them, else of the one in force.
    pub rule: String,
    /// `allow` or `deny`: what the shadow policy would do.
    pub would: String,
    /// How many.
    pub count: u64,
    /// Unix seconds.
    pub last_at: u64,
    /// Whose request the last one was.
    pub last_uid: u32,
    /// And in which unit.
    pub last_unit: Option<String>,
    /// And for what.
    pub last_resource: String,
}
