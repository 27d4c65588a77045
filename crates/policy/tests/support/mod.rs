use std::collections::BTreeMap;

use arcbroker_policy::{
    Accounts, Caller, Cloud, Diagnostics, Identity, Policy, Resource, RuleSet, SourceFile, Unit,
};

pub const FILE: &str = "/etc/arcbroker/policy.d/web.toml";

pub fn file(name: &str, text: impl AsRef<[u8]>) -> SourceFile {
    SourceFile {
        name: name.to_owned(),
        bytes: text.as_ref().to_vec(),
    }
}

/// Everything that is said about one file, by the parser and by the compiler.
pub fn messages(text: impl AsRef<[u8]>) -> String {
    let mut diagnostics = Diagnostics::new();
    let rules = RuleSet::parse(&[file(FILE, text)], Cloud::Public, &mut diagnostics);
    assert_eq!(rules.is_none(), diagnostics.has_errors(), "{diagnostics}");
    if let Some(rules) = rules {
        _ = rules.compile(&accounts(), &mut diagnostics);
        assert!(!diagnostics.has_errors(), "compiling makes no errors");
    }
    diagnostics.to_string()
}

/// Users and groups `name` with these ids: alice 1, bob 2, deploy 10, ops 11.
pub fn accounts() -> Accounts {
    let ids = |pairs: [(&str, u32); 2]| pairs.map(|(name, id)| (name.to_owned(), id)).into();
    Accounts {
        users: ids([("alice", 1), ("bob", 2)]),
        groups: ids([("deploy", 10), ("ops", 11)]),
        units: BTreeMap::new(),
    }
}

pub fn policy_of(files: &[SourceFile]) -> Policy {
    let mut diagnostics = Diagnostics::new();
    let rules = RuleSet::parse(files, Cloud::Public, &mut diagnostics);
    rules
        .unwrap_or_else(|| panic!("{diagnostics}"))
        .compile(&accounts(), &mut diagnostics)
}

/// The policy of one file, with these rules below its version.
pub fn policy(rules: &str) -> Policy {
    policy_of(&[file(FILE, format!("version = 1\n{rules}"))])
}

pub fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
    Caller::new(uid, gid, groups.to_vec())
}

/// The same user and groups, in a unit.
pub fn in_unit(caller: Caller, unit: &str) -> Caller {
    Caller {
        unit: Some(Unit::parse(unit).unwrap()),
        ..caller
    }
}

/// The same user, groups and unit, in a container, not in one, or not known.
pub fn contained(caller: Caller, container: Option<bool>) -> Caller {
    Caller {
        container,
        ..caller
    }
}

pub fn resource(text: &str) -> Resource {
    Resource::parse(text, Cloud::Public).unwrap()
}

/// The rule that gives the caller the resource with the machine's own identity.
pub fn rule_for(policy: &Policy, caller: &Caller, name: &str) -> Option<String> {
    policy
        .decide(caller, &Identity::System, &resource(name))
        .ok()
        .map(|grant| grant.rule().to_owned())
}
