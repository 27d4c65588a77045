//! `arcbroker status`

use arcbroker_client::{
    Client,
    wire::{
        AuditSink, AuditStatus, Health, PolicyStatus, ShadowStatus, StatusAnswer, TokenStatus,
        UpstreamStatus,
    },
};

use crate::{
    clock,
    duration::{ago, human},
    exit::{Exit, Failure},
    output::{self, Page, Tone, counted},
};

pub(super) async fn run(client: &Client, json: bool) -> Result<Exit, Failure> {
    let answer = client.status().await.map_err(Failure::Status)?;
    if json {
        output::print_json(&answer)?;
    } else {
        let mut page = Page::new();
        fill(&mut page, &answer, clock::now());
        page.print()?;
    }
    Ok(Exit::of_health(answer.health))
}

/// The whole screen; `now` in Unix seconds.
pub(super) fn fill(page: &mut Page, answer: &StatusAnswer, now: u64) {
    let (tone, word) = match answer.health {
        Health::Healthy => (Tone::Good, "healthy"),
        Health::Degraded => (Tone::Warning, "degraded"),
        Health::Starting => (Tone::Warning, "starting"),
        Health::Failing => (Tone::Bad, "failing"),
    };
    let StatusAnswer { version, pid, .. } = answer;
    let up = human(answer.uptime_seconds);
    page.verdict(
        tone,
        word,
        &format!("   arcbrokerd {version}, pid {pid}, up {up}"),
    );
    for reason in &answer.reasons {
        page.line(&format!("  - {reason}"));
    }
    page.blank();
    upstream(page, &answer.upstream, now);
    if let Some(budget) = answer.outage_budget_seconds {
        page.field(
            "",
            &format!("every wanted token outlives an outage of {}", human(budget)),
        );
    }
    policy(page, &answer.policy, now);
    audit(page, &answer.audit);
    let r = answer.requests;
    let throttled = match r.throttled {
        0 => String::new(),
        throttled => format!(", {throttled} over a limit"),
    };
    page.field(
        "Requests",
        &format!(
            "{} issued, {} denied, {} malformed, {} unavailable, {} abandoned{throttled}",
            r.issued, r.denied, r.malformed, r.unavailable, r.abandoned
        ),
    );
    let c = answer.connections;
    let endpoints = match c.endpoints {
        0 => String::new(),
        endpoints => format!(", {} with an endpoint", counted(endpoints, "program")),
    };
    page.field(
        "Sockets",
        &format!(
            "{} open, {} turned away{endpoints}",
            counted(c.open, "connection"),
            c.refused
        ),
    )
    .blank();
    tokens(page, &answer.tokens);
}

fn upstream(page: &mut Page, upstream: &UpstreamStatus, now: u64) {
    let UpstreamStatus {
        kind,
        endpoint,
        reason,
        ..
    } = upstream;
    // A broker of before they were told leaves both out.
    let because = if reason.is_empty() {
        String::new()
    } else {
        format!(", {reason}")
    };
    let cloud = upstream.cloud.as_deref().unwrap_or("not known yet");
    let success = upstream
        .last_success_at
        .map_or_else(|| "never".to_owned(), |at| ago(at, now));
    page.field("Upstream", &format!("{kind} at {endpoint}{because}"))
        .field("", &format!("cloud {cloud}"))
        .field(
            "",
            &format!(
                "last answer {success}, {} since the start",
                counted(upstream.token_requests, "token request")
            ),
        );
    if let Some(left) = upstream.asked_again_in_seconds {
        let why = match upstream.failures_in_a_row {
            Some(failures) => format!("after {failures} failures in a row it"),
            None => "it wants to be left alone, and".to_owned(),
        };
        page.field("", &format!("{why} is asked again in {left} s"));
    }
    if let Some(at) = upstream.last_failure_at {
        let what = upstream
            .last_failure
            .as_deref()
            .unwrap_or("no reason known");
        page.field("", &format!("last failure {}: {what}", ago(at, now)));
    }
}

fn policy(page: &mut Page, policy: &PolicyStatus, now: u64) {
    let PolicyStatus {
        dir, rules, hash, ..
    } = policy;
    let rules = counted(*rules as u64, "rule");
    let loaded = ago(policy.loaded_at, now);
    page.field(
        "Policy",
        &format!("{rules} of {dir}, hash {hash}, read {loaded}"),
    );
    if let Some(error) = &policy.reload_error {
        page.field("", &format!("last reload refused: {error}"));
    }
    for warning in &policy.warnings {
        page.field("", &format!("warning: {warning}"));
    }
    for grant in &policy.grants {
        let left = human(grant.remaining_seconds);
        page.field(
            "",
            &format!(
                "grant {} by {} ends in {left}: {}",
                grant.number, grant.granted_by, grant.reason
            ),
        );
    }
    if let Some(tried) = &policy.shadow {
        shadow(page, tried, now);
    }
}

/// What is tried beside the policy, and what it would change.
fn shadow(page: &mut Page, shadow: &ShadowStatus, now: u64) {
    if let Some(error) = &shadow.error {
        page.field("Shadow", &format!("cannot be used: {error}"));
        return;
    }
    let rules = counted(shadow.rules as u64, "rule");
    page.field(
        "Shadow",
        &format!(
            "{rules} of {}: would have allowed {} and denied {}",
            shadow.dir,
            counted(shadow.would_allow, "request"),
            shadow.would_deny
        ),
    );
    for seen in &shadow.differences {
        let unit = match &seen.last_unit {
            Some(unit) => format!(" in {unit}"),
            None => String::new(),
        };
        page.field(
            "",
            &format!(
                "would {} {} of `{}`, last {} for uid {}{unit}: {}",
                seen.would,
                counted(seen.count, "request"),
                seen.rule,
                ago(seen.last_at, now),
                seen.last_uid,
                seen.last_resource
            ),
        );
    }
}

fn audit(page: &mut Page, audit: &AuditStatus) {
    let file = audit.file.as_deref().unwrap_or("no file");
    let required = if audit.required {
        "no token without a record"
    } else {
        "tokens even without a record"
    };
    page.field(
        "Audit",
        &format!("{file}, record {}, {required}", audit.sequence),
    );
    if let Some(error) = &audit.error {
        page.field("", &format!("last record not written: {error}"));
    }
    let states: Vec<String> = audit
        .sinks
        .iter()
        .map(|sink| format!("{} {}", sink.name, sink.state))
        .collect();
    if !states.is_empty() {
        page.field("", &states.join(", "));
    }
    for sink in &audit.sinks {
        audit_sink(page, sink);
    }
}

fn audit_sink(page: &mut Page, sink: &AuditSink) {
    let AuditSink {
        name,
        waiting,
        missed,
        ..
    } = sink;
    if let Some(error) = &sink.error {
        page.field("", &format!("{name}: {error}"));
    }
    if waiting + missed > 0 {
        page.field(
            "",
            &format!("{name}: of its records {waiting} wait, and {missed} were given up"),
        );
    }
}

fn tokens(page: &mut Page, tokens: &[TokenStatus]) {
    if tokens.is_empty() {
        page.line("No tokens yet: nobody has asked for one.");
        return;
    }
    let rows: Vec<[String; 6]> = tokens.iter().map(row).collect();
    page.table(
        [
            "RESOURCE",
            "IDENTITY",
            "STATE",
            "LEFT",
            "REFRESH IN",
            "WANTED",
        ],
        &rows,
    );
    for token in tokens {
        if let Some(failure) = &token.last_failure {
            page.line(&format!("{}: {failure}", token.resource));
        }
    }
}

fn row(token: &TokenStatus) -> [String; 6] {
    let time = |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), human);
    [
        token.resource.clone(),
        token.identity.clone(),
        token.state.clone(),
        time(token.remaining_seconds),
        time(token.refresh_in_seconds),
        if token.wanted { "yes" } else { "no" }.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use arcbroker_client::wire::{
        ConnectionCounts, RequestCounts, SCHEMA, ShadowDifference, TimedGrant,
    };

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn answer() -> StatusAnswer {
        StatusAnswer {
            schema: SCHEMA,
            version: "0.1.0".into(),
            pid: 4312,
            started_at: NOW - 11_520,
            uptime_seconds: 11_520,
            health: Health::Degraded,
            reasons: vec!["HIMDS refuses connections".into()],
            outage_budget_seconds: Some(20_000),
            upstream: UpstreamStatus {
                kind: "himds".into(),
                reason: "by configuration".into(),
                endpoint: "http://127.0.0.1:40342".into(),
                last_success_at: Some(NOW - 240),
                last_failure_at: Some(NOW - 12),
                last_failure: Some("connection refused".into()),
                token_requests: 7,
                failures_in_a_row: Some(9),
                asked_again_in_seconds: Some(12),
                cloud: Some("AzurePublicCloud".into()),
            },
            policy: policy_status(),
            audit: AuditStatus {
                file: Some("/var/log/arcbroker/audit.jsonl".into()),
                required: true,
                sequence: 1234,
                error: None,
                sinks: vec![
                    AuditSink {
                        name: "file".into(),
                        path: "/var/log/arcbroker/audit.jsonl".into(),
                        state: "failing".into(),
                        error: Some("/var/log/arcbroker/audit.jsonl: no space".into()),
                        waiting: 1,
                        missed: 2,
                    },
                    AuditSink {
                        name: "journald".into(),
                        path: "/run/systemd/journal/socket".into(),
                        state: "ok".into(),
                        error: None,
                        waiting: 0,
                        missed: 0,
                    },
                ],
            },
            tokens: vec![TokenStatus {
                resource: "https://vault.azure.net".into(),
                identity: "system".into(),
                state: "fresh".into(),
                expires_on: Some(NOW + 82_800),
                remaining_seconds: Some(82_800),
                refresh_in_seconds: Some(41_000),
                wanted: true,
                last_failure: Some("\x1b[2Jtimed out".into()),
            }],
            requests: RequestCounts {
                issued: 120,
                denied: 3,
                abandoned: 1,
                throttled: 7,
                ..RequestCounts::default()
            },
            connections: ConnectionCounts {
                open: 3,
                refused: 0,
                endpoints: 2,
            },
        }
    }

    fn policy_status() -> PolicyStatus {
        PolicyStatus {
            dir: "/etc/arcbroker/policy.d".into(),
            hash: "1a2b3c4d5e6f".into(),
            rules: 4,
            loaded_at: NOW - 11_520,
            reload_error: Some("backup.toml:3:1: unknown key".into()),
            warnings: vec!["rule \"all\" is too wide".into()],
            grants: vec![TimedGrant {
                number: 2,
                rule: "version = 1".into(),
                reason: "on call".into(),
                granted_by: "root".into(),
                granted_at: NOW,
                ends_at: NOW + 600,
                remaining_seconds: 600,
            }],
            shadow: Some(ShadowStatus {
                dir: "/etc/arcbroker/policy.shadow.d".into(),
                hash: Some("abc".into()),
                rules: 1,
                error: None,
                warnings: vec![],
                would_allow: 1,
                would_deny: 17,
                differences: vec![ShadowDifference {
                    rule: "backup".into(),
                    would: "deny".into(),
                    count: 17,
                    last_at: NOW - 60,
                    last_uid: 34,
                    last_unit: Some("backup.service".into()),
                    last_resource: "https://vault.azure.net".into(),
                }],
            }),
        }
    }

    fn text(answer: &StatusAnswer) -> String {
        let mut page = Page::with_colours(false);
        fill(&mut page, answer, NOW);
        page.into_text()
    }

    #[test]
    fn the_screen_shows_everything_that_needs_attention() {
        assert_eq!(
            text(&answer()),
            "\
degraded   arcbrokerd 0.1.0, pid 4312, up 3 h 12 min
  - HIMDS refuses connections

Upstream   himds at http://127.0.0.1:40342, by configuration
           cloud AzurePublicCloud
           last answer 4 min ago, 7 token requests since the start
           after 9 failures in a row it is asked again in 12 s
           last failure 12 s ago: connection refused
           every wanted token outlives an outage of 5 h 33 min
Policy     4 rules of /etc/arcbroker/policy.d, hash 1a2b3c4d5e6f, read 3 h 12 min ago
           last reload refused: backup.toml:3:1: unknown key
           warning: rule \"all\" is too wide
           grant 2 by root ends in 10 min: on call
Shadow     1 rule of /etc/arcbroker/policy.shadow.d: would have allowed 1 request and denied 17
           would deny 17 requests of `backup`, last 1 min ago for uid 34 in backup.service: https://vault.azure.net
Audit      /var/log/arcbroker/audit.jsonl, record 1234, no token without a record
           file failing, journald ok
           file: /var/log/arcbroker/audit.jsonl: no space
           file: of its records 1 wait, and 2 were given up
Requests   120 issued, 3 denied, 0 malformed, 0 unavailable, 1 abandoned, 7 over a limit
Sockets    3 connections open, 0 turned away, 2 programs with an endpoint

RESOURCE                 IDENTITY  STATE  LEFT        REFRESH IN   WANTED
https://vault.azure.net  system    fresh  23 h 0 min  11 h 23 min  yes
https://vault.azure.net: [2Jtimed out
"
        );
    }

    #[test]
    fn a_young_broker_has_nothing_to_hide() {
        let mut answer = answer();
        answer.health = Health::Starting;
        answer.reasons.clear();
        answer.tokens.clear();
        answer.upstream.last_success_at = None;
        answer.upstream.last_failure_at = None;
        answer.upstream.cloud = None;
        let text = text(&answer);
        assert!(text.starts_with("starting   arcbrokerd"), "{text}");
        assert!(text.contains("last answer never"), "{text}");
        assert!(text.contains("cloud not known yet"), "{text}");
        assert!(
            text.ends_with("\nNo tokens yet: nobody has asked for one.\n"),
            "{text}"
        );
    }
}
