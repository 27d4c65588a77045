//! `arcbroker policy replay`

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use arcbroker_client::{
    Client,
    wire::{AuditRecord, SCHEMA},
};
use arcbroker_policy::{Accounts, Caller, Identity, Policy, Replayed, Resource, Unit};
use arcbroker_policy_files::Owners;
use serde::Serialize;

use crate::{
    args::policy::Replay,
    audit::{
        self,
        files::Files,
        lines::{Lines, Next},
    },
    clock,
    exit::{Exit, Failure},
    output::{self, Page, Tone, counted},
    policy::{judge::Judge, live::cloud_of_machine},
    settings::Settings,
};

/// Different requests that are kept; who may connect can make up any number of resources.
const MOST: usize = 200_000;

/// What a policy judges, and how it was decided.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Request {
    uid: u32,
    gid: u32,
    unit: Option<String>,
    container: Option<bool>,
    identity: String,
    resource: String,
    /// Whether it was allowed.
    allowed: bool,
}

/// What the records say of one request.
#[derive(Clone, Debug)]
struct Seen {
    count: u64,
    last: String,
    rule: Option<String>,
}

/// All records.
#[derive(Debug, Default)]
struct Past {
    requests: HashMap<Request, Seen>,
    records: u64,
    unreadable: u64,
    /// Records of requests that were more than are kept.
    left_out: u64,
}

/// What `--json` prints, and what the page is made from.
#[derive(Debug, Serialize)]
struct Outcome {
    schema: u32,
    records: u64,
    unreadable: u64,
    left_out: u64,
    requests: usize,
    skipped_files: Vec<String>,
    flips: Vec<Entry>,
    depends_on_groups: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    uid: u32,
    gid: u32,
    unit: Option<String>,
    container: Option<bool>,
    identity: String,
    resource: String,
    was: &'static str,
    /// Absent where it depends on groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<&'static str>,
    /// Of the old decision.
    old_rule: Option<String>,
    /// Of the new decision, or those that it depends on.
    rules: Vec<String>,
    count: u64,
    last: String,
}

pub(super) async fn run(
    admin: &Client,
    settings: &Settings,
    args: &Replay,
) -> Result<Exit, Failure> {
    let cloud = match args.cloud.or(settings.cloud) {
        None => cloud_of_machine(admin).await,
        known => known,
    };
    let judge = Judge {
        cloud: cloud.unwrap_or_default(),
        accounts: &Accounts::default(),
    };
    let dir = args.policy.as_deref().unwrap_or(&settings.policy_dir);
    let policy = judge
        .directory(dir, Owners::Anybody)
        .map_err(Failure::Trouble)?
        .policy;
    let since = args
        .since
        .as_deref()
        .map(since)
        .transpose()
        .map_err(Failure::AuditTrouble)?;
    let (past, files) = read(settings, since.as_deref()).map_err(Failure::AuditTrouble)?;
    let outcome = Outcome::new(&policy, past, &files);
    if args.json {
        output::print_json(&outcome)?;
    } else {
        outcome.fill().print()?;
    }
    Ok(if outcome.flips.is_empty() {
        Exit::OK
    } else {
        Exit::FAILED
    })
}

/// The time of the records that count, as they write it.
fn since(text: &str) -> Result<String, audit::Error> {
    let ago = humantime::parse_duration(text).map_err(|_| audit::Error::Time(text.to_owned()))?;
    let then = Duration::from_secs(clock::now()).saturating_sub(ago);
    Ok(humantime::format_rfc3339_millis(UNIX_EPOCH + then).to_string())
}

fn read(settings: &Settings, since: Option<&str>) -> Result<(Past, Files), audit::Error> {
    let path = settings.audit_file.as_deref().ok_or(audit::Error::NoFile)?;
    let files = Files::of(path)?;
    let mut past = Past::default();
    for path in &files.plain {
        past.read(path, since)?;
    }
    Ok((past, files))
}

impl Past {
    fn read(&mut self, path: &Path, since: Option<&str>) -> Result<(), audit::Error> {
        let mut lines = Lines::open(path)?;
        while let Some(next) = lines
            .next()
            .map_err(|error| audit::Error::read(path, error))?
        {
            let record = match next {
                Next::Line(line) => serde_json::from_slice::<AuditRecord>(line).ok(),
                Next::TooLong => None,
                // It is being written.
                Next::Torn => continue,
            };
            let Some(record) = record else {
                self.unreadable += 1;
                continue;
            };
            // All times have the same form, so that their order is that of their text.
            if since.is_none_or(|since| record.time.as_str() >= since) {
                self.records += 1;
                self.add(record);
            }
        }
        Ok(())
    }

    fn add(&mut self, record: AuditRecord) {
        let allowed = match record.outcome.as_str() {
            "denied" => false,
            // Where no rule is named, nothing was decided.
            _ if record.rule.is_some() => true,
            _ => return,
        };
        let (Some(identity), Some(resource)) = (record.identity, record.resource) else {
            return;
        };
        let request = Request {
            uid: record.uid,
            gid: record.gid,
            unit: record.unit,
            container: record.container,
            identity,
            resource,
            allowed,
        };
        if let Some(seen) = self.requests.get_mut(&request) {
            seen.count += 1;
            seen.last = record.time;
            seen.rule = record.rule;
        } else if self.requests.len() < MOST {
            let seen = Seen {
                count: 1,
                last: record.time,
                rule: record.rule,
            };
            self.requests.insert(request, seen);
        } else {
            self.left_out += 1;
        }
    }
}

impl Outcome {
    fn new(policy: &Policy, past: Past, files: &Files) -> Self {
        let skipped = files.skipped.iter().map(|path| path.display().to_string());
        let mut outcome = Self {
            schema: SCHEMA,
            records: past.records,
            unreadable: past.unreadable,
            left_out: past.left_out,
            requests: past.requests.len(),
            skipped_files: skipped.collect(),
            flips: Vec::new(),
            depends_on_groups: Vec::new(),
        };
        for (request, seen) in past.requests {
            match judge(policy, &request) {
                None => outcome.unreadable += seen.count,
                Some(Replayed::Allowed(rule)) if !request.allowed => {
                    let entry = Entry::new(request, seen, Some("allowed"), vec![rule.to_string()]);
                    outcome.flips.push(entry);
                }
                Some(Replayed::Denied(_)) if request.allowed => {
                    outcome
                        .flips
                        .push(Entry::new(request, seen, Some("denied"), Vec::new()));
                }
                Some(Replayed::InGroup(rules)) => {
                    let rules = rules.iter().map(ToString::to_string).collect();
                    outcome
                        .depends_on_groups
                        .push(Entry::new(request, seen, None, rules));
                }
                Some(_) => {}
            }
        }
        for entries in [&mut outcome.flips, &mut outcome.depends_on_groups] {
            entries.sort_by(|one, other| {
                other
                    .last
                    .cmp(&one.last)
                    .then_with(|| one.key().cmp(&other.key()))
            });
        }
        outcome
    }

    fn fill(&self) -> Page {
        let mut page = Page::new();
        for path in &self.skipped_files {
            page.line(&format!("not read, because it is compressed: {path}"));
        }
        for flip in &self.flips {
            let (tone, word) = match flip.now {
                Some("denied") => (Tone::Bad, "denied"),
                _ => (Tone::Warning, "allowed"),
            };
            page.verdict(tone, word, &flip.text());
        }
        for entry in &self.depends_on_groups {
            page.verdict(Tone::Warning, "depends on groups", &entry.text());
        }
        let records = counted(self.records, "record");
        let flips = counted(self.flips.len() as u64, "flip");
        page.line(&format!(
            "{records} of {} different requests: {flips}",
            self.requests
        ));
        if !self.depends_on_groups.is_empty() {
            page.line("What depends on groups is allowed to members of a group only, and records do not hold groups.");
        }
        if self.unreadable > 0 {
            page.line(&format!(
                "{} could not be read",
                counted(self.unreadable, "line")
            ));
        }
        if self.left_out > 0 {
            page.line(&format!(
                "incomplete: {} of yet other requests not looked at; try a shorter --since",
                counted(self.left_out, "record")
            ));
        }
        page
    }
}

/// None where the record has what no record has.
fn judge(policy: &Policy, request: &Request) -> Option<Replayed> {
    let unit = match &request.unit {
        Some(unit) => Some(Unit::parse(unit).ok()?),
        None => None,
    };
    let caller = Caller {
        unit,
        container: request.container,
        ..Caller::new(request.uid, request.gid, Vec::new())
    };
    let identity: Identity = request.identity.parse().ok()?;
    let resource = Resource::exact(&request.resource).ok()?;
    Some(policy.replay(&caller, &identity, &resource))
}

impl Entry {
    fn new(request: Request, seen: Seen, now: Option<&'static str>, rules: Vec<String>) -> Self {
        Self {
            uid: request.uid,
            gid: request.gid,
            unit: request.unit,
            container: request.container,
            identity: request.identity,
            resource: request.resource,
            was: if request.allowed { "allowed" } else { "denied" },
            now,
            old_rule: seen.rule,
            rules,
            count: seen.count,
            last: seen.last,
        }
    }

    fn key(&self) -> (u32, u32, Option<&str>, &str, &str) {
        let unit = self.unit.as_deref();
        (self.uid, self.gid, unit, &self.identity, &self.resource)
    }

    /// Who, what for, by which rules, how often.
    fn text(&self) -> String {
        let unit = self
            .unit
            .as_deref()
            .map(|unit| format!("{unit}, "))
            .unwrap_or_default();
        let place = match self.container {
            Some(true) => " in a container",
            Some(false) => "",
            None => " (not known whether in a container)",
        };
        let identity = match self.identity.as_str() {
            "system" => String::new(),
            other => format!(" as {other}"),
        };
        let new = match self.rules.as_slice() {
            [] => String::new(),
            rules => format!(" by rule {}", rules.join(", ")),
        };
        let old = self
            .old_rule
            .as_deref()
            .map(|rule| format!(" by rule {rule}"))
            .unwrap_or_default();
        let times = counted(self.count, "time");
        format!(
            "{new}: {unit}user {}{place}, {}{identity}: was {}{old} {times}, last {}",
            self.uid, self.resource, self.was, self.last
        )
    }
}
