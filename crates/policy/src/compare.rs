//! What one policy gives that another does not.
//!
//! Each rule falls apart into atoms: one user or any, one group or any, one unit or any, one resource
//! or any. An atom is given by the other policy as well exactly if that policy gives it to a caller
//! who has what the atom names and nothing else that any rule names. So the question is put to
//! [`Policy::decide`] itself, and what is said here cannot differ from what will happen.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::Arc,
};

use crate::{
    Caller, Identity, Policy, Resource, ResourcePattern, Unit, UnitPattern, index::CompiledRule,
    subject::Conditions,
};

/// Atoms that are looked at; a rule may list 256 values of each kind.
const MOST: usize = 100_000;

/// How two policies differ.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Comparison {
    /// What changes, losses first.
    pub changes: Vec<Change>,
    /// Whether that is all: not where rules list so much that it would take too long.
    pub complete: bool,
}

/// Something that some callers can have by one policy and not by the other.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Change {
    /// Whether the second policy gives it, and not the first.
    pub gained: bool,
    /// Who.
    pub subject: Subject,
    /// Whose token.
    pub identity: Identity,
    /// For what.
    pub resource: ResourcePattern,
    /// What changes about it.
    pub permission: Permission,
    /// The rule that gives it.
    pub rule: Arc<str>,
}

/// What a rule can allow.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Permission {
    /// Tokens.
    Access,
    /// Tokens, also past the cache.
    AccessAndBypass,
    /// What is new or lost is only that they may be asked for past the cache.
    Bypass,
}

/// All callers who have what is named here.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Subject {
    /// The user, or any.
    pub user: Option<u32>,
    /// A group, or any.
    pub group: Option<u32>,
    /// The unit, or any and none.
    pub unit: Option<UnitPattern>,
    /// Whether the caller is in a container.
    pub container: bool,
}

/// What `new` gives that `old` does not, and the other way round.
pub fn compare(old: &Policy, new: &Policy) -> Comparison {
    let fresh = Fresh::beside(old, new);
    let mut budget = MOST;
    let mut changes = missing(old, new, &fresh, false, &mut budget);
    changes.extend(missing(new, old, &fresh, true, &mut budget));
    Comparison {
        changes,
        complete: budget > 0,
    }
}

/// What `has` gives and `other` does not.
fn missing(
    has: &Policy,
    other: &Policy,
    fresh: &Fresh,
    gained: bool,
    budget: &mut usize,
) -> Vec<Change> {
    type Content<'r> = (&'r Conditions, &'r [ResourcePattern], &'r [Identity], bool);
    fn content(rule: &CompiledRule) -> Content<'_> {
        (
            &rule.conditions,
            &rule.resources,
            &rule.identities,
            rule.bypass,
        )
    }
    let same: HashSet<Content<'_>> = other.index().rules().iter().map(content).collect();
    let mut seen = HashSet::new();
    let mut changes = Vec::new();
    for rule in has
        .index()
        .rules()
        .iter()
        .filter(|rule| !same.contains(&content(rule)))
    {
        for subject in atoms(&rule.conditions) {
            let caller = fresh.caller(&subject);
            for (identity, pattern) in gifts(rule) {
                if *budget == 0 {
                    return changes;
                }
                *budget -= 1;
                let resource = fresh.resource(pattern);
                let Some(permission) = lacks(other, &caller, identity, resource, rule.bypass)
                else {
                    continue;
                };
                let change = Change {
                    gained,
                    subject: subject.clone(),
                    identity: identity.clone(),
                    resource: pattern.clone(),
                    permission,
                    rule: Arc::clone(&rule.name),
                };
                if seen.insert((subject.clone(), identity, pattern, permission)) {
                    changes.push(change);
                }
            }
        }
    }
    changes
}

pub(crate) fn gifts(rule: &CompiledRule) -> impl Iterator<Item = (&Identity, &ResourcePattern)> {
    let with = |identity| {
        rule.resources
            .iter()
            .map(move |pattern| (identity, pattern))
    };
    rule.identities.iter().flat_map(with)
}

/// What this policy does not give to the caller.
fn lacks(
    policy: &Policy,
    caller: &Caller,
    identity: &Identity,
    resource: &Resource,
    bypass: bool,
) -> Option<Permission> {
    match policy.decide(caller, identity, resource) {
        Err(_) if bypass => Some(Permission::AccessAndBypass),
        Err(_) => Some(Permission::Access),
        Ok(grant) => (bypass && !grant.may_bypass_cache()).then_some(Permission::Bypass),
    }
}

/// One for each combination of values that the rule names.
pub(crate) fn atoms(conditions: &Conditions) -> impl Iterator<Item = Subject> + '_ {
    let users = each(conditions.users.as_ref().map(|users| users.iter().copied()));
    let groups = move || {
        each(
            conditions
                .groups
                .as_ref()
                .map(|groups| groups.iter().copied()),
        )
    };
    let units = move || each(conditions.units.as_ref().map(|units| units.iter().cloned()));
    users.flat_map(move |user| {
        groups().flat_map(move |group| {
            units().map(move |unit| Subject {
                user,
                group,
                unit,
                container: conditions.container,
            })
        })
    })
}

/// Each value, or once none where the rule names none.
fn each<T>(named: Option<impl Iterator<Item = T>>) -> impl Iterator<Item = Option<T>> {
    let any = named.is_none().then_some(None);
    named.into_iter().flatten().map(Some).chain(any)
}

/// Values that no rule names.
#[derive(Debug)]
pub(crate) struct Fresh {
    user: u32,
    group: u32,
    instance: String,
    resource: Resource,
}

impl Fresh {
    pub(crate) fn beside(old: &Policy, new: &Policy) -> Self {
        let rules = || old.index().rules().iter().chain(new.index().rules());
        let users = rules().filter_map(|rule| rule.conditions.users.as_ref());
        let groups = rules().filter_map(|rule| rule.conditions.groups.as_ref());
        let units = rules().filter_map(|rule| rule.conditions.units.as_ref());
        let units: Vec<String> = units
            .flat_map(|units| units.iter().map(ToString::to_string))
            .collect();
        let resources: HashSet<&ResourcePattern> =
            rules().flat_map(|rule| &rule.resources).collect();
        Self {
            user: unused(&users.flatten().copied().collect()),
            group: unused(&groups.flatten().copied().collect()),
            instance: unused_instance(&units),
            resource: unused_resource(&resources),
        }
    }

    /// A caller with what the subject names, and nothing else that a rule could name.
    pub(crate) fn caller(&self, subject: &Subject) -> Caller {
        let unit = subject.unit.as_ref().and_then(|unit| match unit {
            UnitPattern::Exact(unit) => Some(unit.clone()),
            UnitPattern::Instances(template) => {
                Unit::parse(&template.replacen('@', &format!("@{}", self.instance), 1)).ok()
            }
        });
        Caller {
            uid: subject.user.unwrap_or(self.user),
            gid: subject.group.unwrap_or(self.group),
            groups: Vec::new(),
            unit,
            container: Some(subject.container),
        }
    }

    pub(crate) fn resource<'r>(&'r self, pattern: &'r ResourcePattern) -> &'r Resource {
        match pattern {
            ResourcePattern::Any => &self.resource,
            ResourcePattern::Exact(resource) => resource,
        }
    }
}

/// The highest number that can be an id and is not among these.
fn unused(ids: &BTreeSet<u32>) -> u32 {
    let free = (0..u32::MAX).rev().find(|id| !ids.contains(id));
    free.unwrap_or(u32::MAX)
}

fn unused_instance(units: &[String]) -> String {
    let mut number = 0_usize;
    loop {
        let part = format!("@{number}.");
        if !units.iter().any(|unit| unit.contains(&part)) {
            return number.to_string();
        }
        number += 1;
    }
}

fn unused_resource(named: &HashSet<&ResourcePattern>) -> Resource {
    let mut number = 0_usize;
    loop {
        let resource = Resource::numbered(number);
        if !named.contains(&ResourcePattern::Exact(resource.clone())) {
            return resource;
        }
        number += 1;
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.user.map(|user| format!("user {user}")),
            self.group.map(|group| format!("group {group}")),
            self.unit.as_ref().map(|unit| format!("unit {unit}")),
            self.container.then(|| "in a container".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}
