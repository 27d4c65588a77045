//! How the daemon is doing: one word for everybody, and the whole for the administrator.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arcbroker_client::wire::{
    AuditSink, AuditStatus, ConnectionCounts, Health, RequestCounts, SCHEMA, StatusAnswer,
    TokenStatus, UpstreamStatus,
};
use arcbroker_policy::Identity;
use tokio::sync::watch;

use crate::audit::{self, AuditLog, SinkState};
use crate::cache::{Report, TokenCache};
use crate::clock::{Clock, Now};
use crate::gate::Gate;
use crate::kind::Kind;
use crate::place::Place;
use crate::registry::Registry;
use crate::reply::whole_seconds;
use crate::rules::Rules;
use crate::slot::HARD_FLOOR;
use crate::timed_grants::TimedGrants;
use crate::token::{AccessToken, Class};
use crate::turns::Turns;
use crate::upstream::{Record, Upstream};

/// By then it has been asked for the cloud of the machine more than once.
const TOLD_BY: Duration = Duration::from_mins(1);

/// Reads the state of every part when it is asked; keeps none of its own.
#[derive(Debug)]
pub struct StatusBoard {
    /// The time.
    pub clock: Clock,
    /// When the daemon started.
    pub started: Now,
    /// Where tokens come from.
    pub upstream: Arc<Upstream>,
    /// When it may be asked.
    pub turns: Arc<Turns>,
    /// Where tokens are.
    pub tokens: TokenCache<Arc<Upstream>>,
    /// Who may have what.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// Where the rules are.
    pub policy_dir: String,
    /// Rules for a while.
    pub timed_grants: Arc<TimedGrants>,
    /// Where decisions are recorded.
    pub audit: Arc<AuditLog>,
    /// How they are.
    pub audit_options: audit::Options,
    /// Who is connected.
    pub gate: Arc<Gate>,
    /// Programs with endpoints.
    pub registry: Arc<Registry>,
}

impl StatusBoard {
    /// Health in one word, and the reasons where it is not `healthy`.
    pub fn health(&self) -> (Health, Vec<String>) {
        let audit = self.audit_status();
        self.judge(&self.tokens.reports(), &self.upstream.record(), &audit)
    }

    /// The tenant of the machine, as the last token of its own identity says.
    pub fn tenant(&self) -> Option<String> {
        let mut own = self.own_tokens();
        own.find_map(|token| token.claims().tid.clone())
    }

    /// Tokens of the machine's own identity.
    pub fn own_tokens(&self) -> impl Iterator<Item = Arc<AccessToken>> {
        let own = self
            .tokens
            .reports()
            .into_iter()
            .filter(|report| report.key.identity == Identity::System);
        own.filter_map(|report| report.view.token)
    }

    /// Everything.
    pub fn status(&self) -> StatusAnswer {
        let now = self.clock.now();
        let (reports, record) = (self.tokens.reports(), self.upstream.record());
        let audit = self.audit_status();
        let (health, reasons) = self.judge(&reports, &record, &audit);
        let turns = self.turns.view();
        let (choice, rules) = (self.upstream.choice(), Arc::clone(&self.rules.borrow()));
        let budget = |report: &Report| {
            let token = report.view.token.as_ref().filter(|_| report.wanted)?;
            Some(token.remaining(now).saturating_sub(HARD_FLOOR).as_secs())
        };
        StatusAnswer {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started.wall.as_secs(),
            uptime_seconds: now.boot.saturating_sub(self.started.boot).as_secs(),
            health,
            reasons,
            outage_budget_seconds: reports.iter().filter_map(budget).min(),
            upstream: UpstreamStatus {
                kind: choice.kind.as_str().to_owned(),
                reason: choice.reason.to_string(),
                endpoint: format!("http://{}", self.upstream.endpoint()),
                last_success_at: record.last_success_at,
                last_failure_at: record.last_failure.as_ref().map(|(at, _)| *at),
                last_failure: record.last_failure.map(|(_, what)| what),
                token_requests: record.token_requests,
                failures_in_a_row: turns.failures,
                asked_again_in_seconds: turns.shut_for.map(whole_seconds),
                cloud: rules
                    .place
                    .is_settled()
                    .then(|| rules.place.cloud().to_string()),
            },
            policy: rules.status(&self.policy_dir, self.timed_grants.list(now)),
            audit,
            tokens: reports
                .into_iter()
                .map(|report| token_status(report, now))
                .collect(),
            requests: RequestCounts {
                throttled: self.gate.throttled(),
                ..self.audit.counts()
            },
            connections: ConnectionCounts {
                endpoints: self.registry.count() as u64,
                ..self.gate.counts()
            },
        }
    }

    fn audit_status(&self) -> AuditStatus {
        let options = &self.audit_options;
        let ((sequence, error), (file, journal)) = (self.audit.state(), self.audit.sinks());
        let sink =
            |name, path: &Option<PathBuf>, state| Some(audit_sink(name, path.as_deref()?, state?));
        let sinks = [
            sink("file", &options.file, file),
            sink("journald", &options.journal, journal),
        ];
        AuditStatus {
            file: options.file.as_ref().map(|file| file.display().to_string()),
            required: options.required,
            sequence,
            error: error.map(|error| error.to_string()),
            sinks: sinks.into_iter().flatten().collect(),
        }
    }

    fn judge(
        &self,
        reports: &[Report],
        record: &Record,
        audit: &AuditStatus,
    ) -> (Health, Vec<String>) {
        let mut found = audit_health(audit);
        found.extend(
            reports
                .iter()
                .filter(|report| report.wanted)
                .filter_map(slot_health),
        );
        if self.rules.borrow().reload_error.is_some() {
            found.push((
                Health::Degraded,
                "the last policy reload was refused; the old policy is in force".to_owned(),
            ));
        }
        let kind = self.upstream.kind();
        match (record.last_success_at, &record.last_failure) {
            (None, None) => {
                found.push((Health::Starting, format!("{kind} has not answered yet")));
            }
            (None, Some((_, what))) => {
                let health = if self.turns.is_booting() {
                    Health::Starting
                } else {
                    Health::Degraded
                };
                found.push((health, format!("{kind} has not answered yet: {what}")));
            }
            _ => {}
        }
        if record.last_success_at.is_some() {
            let up = self.clock.now().boot.saturating_sub(self.started.boot);
            found.extend(place_health(&self.rules.borrow().place, kind, up));
        }
        found.sort_by_key(|(health, _)| severity(*health));
        let worst = found.first().map_or(Health::Healthy, |(health, _)| *health);
        (worst, found.into_iter().map(|(_, reason)| reason).collect())
    }
}

/// A sink that fails beside one that works loses nothing, but somebody should look.
fn audit_health(audit: &AuditStatus) -> Vec<(Health, String)> {
    if let Some(error) = &audit.error {
        let health = if audit.required {
            Health::Failing
        } else {
            Health::Degraded
        };
        return vec![(health, error.clone())];
    }
    let errors = audit.sinks.iter().filter_map(|sink| sink.error.clone());
    errors.map(|error| (Health::Degraded, error)).collect()
}

fn audit_sink(name: &str, path: &Path, state: SinkState) -> AuditSink {
    let word = match &state {
        SinkState { is_stuck: true, .. } => "stuck",
        SinkState {
            is_absent: true, ..
        } => "absent",
        SinkState { error: Some(_), .. } => "failing",
        _ => "ok",
    };
    AuditSink {
        name: name.to_owned(),
        path: path.display().to_string(),
        state: word.to_owned(),
        error: state.error.map(|error| error.to_string()),
        waiting: state.waiting,
        missed: state.missed,
    }
}

/// The worst first.
fn severity(health: Health) -> u8 {
    match health {
        Health::Failing => 0,
        Health::Degraded => 1,
        Health::Starting => 2,
        Health::Healthy => 3,
    }
}

/// An upstream that answers also tells where the machine is; if it does not, somebody may be waiting
/// in vain for what is allowed in another cloud.
fn place_health(place: &Place, kind: Kind, up: Duration) -> Option<(Health, String)> {
    (!place.is_settled() && up >= TOLD_BY).then(|| {
        let what = format!(
            "{kind} has not told which cloud this machine is in, and the names of {} stand in: see whether it answers \
             /metadata/instance, or write [upstream] cloud",
            place.cloud()
        );
        (Health::Degraded, what)
    })
}

/// A token that never was, because what was asked for does not exist, is the caller's affair.
fn slot_health(report: &Report) -> Option<(Health, String)> {
    let (resource, failure) = (&report.key.resource, report.view.failure.as_ref()?);
    let mistaken = matches!(failure.class, Class::Permanent | Class::UnknownIdentity);
    if mistaken && !report.view.had_token {
        return None;
    }
    Some(match report.view.token {
        Some(_) => (
            Health::Degraded,
            format!("{resource}: the token is valid, but cannot be refreshed: {failure}"),
        ),
        None => (
            Health::Failing,
            format!("{resource}: there is no token: {failure}"),
        ),
    })
}

fn token_status(report: Report, now: Now) -> TokenStatus {
    let token = report.view.token.as_ref();
    let state = match (token, &report.view.failure, report.view.refresh_in) {
        (None, _, _) if report.flying => "fetching",
        (None, Some(_), _) => "failed",
        (None, None, _) => "expired",
        (Some(_), Some(_), _) => "stale",
        (Some(_), None, Some(Duration::ZERO)) => "due",
        (Some(_), None, _) => "fresh",
    };
    TokenStatus {
        resource: report.key.resource.to_string(),
        identity: report.key.identity.to_string(),
        state: state.to_owned(),
        expires_on: token.map(|token| token.expires_on()),
        remaining_seconds: token.map(|token| token.remaining(now).as_secs()),
        refresh_in_seconds: report.view.refresh_in.map(|left| left.as_secs()),
        wanted: report.wanted,
        last_failure: report.view.failure.map(|failure| failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use arcbroker_policy::Cloud;

    use super::*;

    #[test]
    fn a_cloud_that_stays_unknown_needs_attention_and_any_other_does_not() {
        let judged = |place: &Place, up| place_health(place, Kind::Imds, Duration::from_secs(up));
        assert_eq!(judged(&Place::Unknown, 59), None);
        let (health, reason) = judged(&Place::Unknown, 60).unwrap();
        assert_eq!(health, Health::Degraded);
        assert!(
            reason.starts_with("IMDS has not told which cloud"),
            "{reason}"
        );
        for place in [Place::Known(Cloud::China), Place::Foreign("x".into())] {
            assert_eq!(judged(&place, 3600), None);
        }
    }
}
