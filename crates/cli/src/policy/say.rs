//! Differences between policies, in words and as JSON.

use std::fmt;

use arcbroker_policy::{Change, Comparison, Identity, Permission, Subject, UnitPattern};
use nix::unistd::{Gid, Group, Uid, User};
use serde::Serialize;

use crate::output::{Page, Tone};

/// A line for each subject and rule that something changes for.
pub(crate) fn fill(page: &mut Page, comparison: &Comparison) {
    let mut changes = comparison.changes.as_slice();
    while let Some((first, rest)) = changes.split_first() {
        let more = rest
            .iter()
            .take_while(|change| is_like(change, first))
            .count();
        let (alike, others) = rest.split_at_checked(more).unwrap_or_default();
        let resources = std::iter::once(first).chain(alike);
        let resources: Vec<_> = resources
            .map(|change| change.resource.to_string())
            .collect();
        line(page, first, &resources.join(", "));
        changes = others;
    }
    if !comparison.complete {
        page.verdict(
            Tone::Warning,
            "incomplete",
            ": the rules list so much that not all of it was compared",
        );
    }
}

fn is_like(change: &Change, first: &Change) -> bool {
    fn but_the_resource(change: &Change) -> (bool, Permission, &Subject, &Identity, &str) {
        let Change {
            gained,
            subject,
            identity,
            permission,
            rule,
            ..
        } = change;
        (*gained, *permission, subject, identity, rule)
    }
    but_the_resource(change) == but_the_resource(first)
}

fn line(page: &mut Page, change: &Change, resources: &str) {
    let (sign, verb, tone) = if change.gained {
        ("+", "gains", Tone::Warning)
    } else {
        ("-", "loses", Tone::Bad)
    };
    let what = match change.permission {
        Permission::Access => resources.to_owned(),
        Permission::AccessAndBypass => format!("{resources}, also past the cache"),
        Permission::Bypass => format!("asking past the cache for {resources}"),
    };
    let identity = match &change.identity {
        Identity::System => String::new(),
        other => format!(" as {other}"),
    };
    let who = Named(&change.subject);
    let rule = &change.rule;
    page.verdict(
        tone,
        sign,
        &format!(" {who} {verb} {what}{identity} (rule {rule})"),
    );
}

/// A subject with the names of its numbers.
pub(crate) struct Named<'s>(pub(crate) &'s Subject);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.0;
        let parts = [
            subject.unit.as_ref().map(ToString::to_string),
            subject.user.map(|id| format!("user {}", user(id))),
            subject.group.map(|id| format!("group {}", group(id))),
            subject.container.then(|| "in a container".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

/// The name of a user, or the number of one who has none.
pub(crate) fn user(id: u32) -> String {
    let user = User::from_uid(Uid::from_raw(id)).ok().flatten();
    user.map_or_else(|| id.to_string(), |user| user.name)
}

/// As [`user`].
pub(crate) fn group(id: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(id)).ok().flatten();
    group.map_or_else(|| id.to_string(), |group| group.name)
}

/// What `policy diff --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
    schema: u32,
    complete: bool,
    changes: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    gained: bool,
    user: Option<u32>,
    group: Option<u32>,
    unit: Option<String>,
    container: bool,
    identity: String,
    resource: String,
    permission: &'static str,
    rule: String,
}

impl Document {
    pub(crate) fn new(comparison: &Comparison) -> Self {
        Self {
            schema: arcbroker_client::wire::SCHEMA,
            complete: comparison.complete,
            changes: comparison.changes.iter().map(Entry::new).collect(),
        }
    }
}

impl Entry {
    fn new(change: &Change) -> Self {
        Self {
            gained: change.gained,
            user: change.subject.user,
            group: change.subject.group,
            unit: change.subject.unit.as_ref().map(UnitPattern::to_string),
            container: change.subject.container,
            identity: change.identity.to_string(),
            resource: change.resource.to_string(),
            permission: match change.permission {
                Permission::Access => "access",
                Permission::AccessAndBypass => "access-and-bypass",
                Permission::Bypass => "bypass",
            },
            rule: change.rule.to_string(),
        }
    }
}
