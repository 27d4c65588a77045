//! What holds for every policy, every caller and every file.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "not every test file uses all of the support module"
)]

mod support;

use std::fmt::Write as _;

use arcbroker_policy::{
    Caller, Cloud, Diagnostics, Identity, Permission, Policy, Replayed, Resource, ResourcePattern,
    RuleSet, Subject, Unit, UnitPattern, compare,
};
use proptest::{bool::weighted, collection::vec, option, prelude::*, sample::select};
use support::{FILE, accounts, caller, file, policy};

const USERS: [(&str, Option<u32>); 5] = [
    ("'alice'", Some(1)),
    ("'bob'", Some(2)),
    ("0", Some(0)),
    ("'3'", Some(3)),
    ("'ghost'", None),
];
const GROUPS: [(&str, Option<u32>); 4] = [
    ("'deploy'", Some(10)),
    ("'ops'", Some(11)),
    ("12", Some(12)),
    ("'ghosts'", None),
];
/// With the units of [`UNITS`] that each stands for.
const PATTERNS: [(&str, &[usize]); 4] = [
    ("'a.service'", &[0]),
    ("'w@1.service'", &[1]),
    ("'w@*.service'", &[1, 2]),
    ("'other.service'", &[]),
];
const UNITS: [&str; 4] = ["a.service", "w@1.service", "w@2.service", "w.service"];
const RESOURCES: [&str; 4] = ["https://a", "https://a/", "https://b", "urn:c"];
const IDENTITIES: [&str; 3] = [
    "system",
    "client-id:00000000-0000-0000-0000-000000000001",
    "resource-id:/subscriptions/s",
];

/// A rule, as the reference reads it.
#[derive(Clone, Debug)]
struct Model {
    users: Option<Vec<usize>>,
    groups: Option<Vec<usize>>,
    units: Option<Vec<usize>>,
    container: bool,
    /// None for all.
    resources: Option<Vec<usize>>,
    /// None for the default.
    identities: Option<Vec<usize>>,
    bypass: bool,
}

impl Model {
    fn text(&self, name: usize) -> String {
        let mut text = format!("[[rule]]\nname = '{name}'\n");
        let mut line = |key: &str, values: Vec<String>| {
            writeln!(text, "{key} = [{}]", values.join(", ")).unwrap();
        };
        let quoted = |texts: &[&str], chosen: &[usize]| {
            chosen
                .iter()
                .map(|one| format!("'{}'", texts[*one]))
                .collect()
        };
        if let Some(users) = &self.users {
            line(
                "user",
                users.iter().map(|one| USERS[*one].0.to_owned()).collect(),
            );
        }
        if let Some(groups) = &self.groups {
            line(
                "group",
                groups.iter().map(|one| GROUPS[*one].0.to_owned()).collect(),
            );
        }
        if let Some(units) = &self.units {
            line(
                "unit",
                units
                    .iter()
                    .map(|one| PATTERNS[*one].0.to_owned())
                    .collect(),
            );
        }
        line(
            "resources",
            self.resources
                .as_ref()
                .map_or(vec!["'*'".to_owned()], |chosen| quoted(&RESOURCES, chosen)),
        );
        if let Some(identities) = &self.identities {
            line("identity", quoted(&IDENTITIES, identities));
        }
        if self.container {
            text.push_str("container = true\n");
        }
        if self.bypass {
            text.push_str("bypass-cache = true\n");
        }
        text
    }

    fn allows(&self, caller: &Caller, identity: usize, resource: usize) -> bool {
        let user = |one: &usize| USERS[*one].1 == Some(caller.uid);
        let group = |one: &usize| GROUPS[*one].1.is_some_and(|gid| caller.in_group(gid));
        let number = caller.unit.as_ref().map(|unit| {
            UNITS
                .iter()
                .position(|name| *name == unit.as_str())
                .unwrap()
        });
        let unit = |one: &usize| number.is_some_and(|number| PATTERNS[*one].1.contains(&number));
        caller.container == Some(self.container)
            && self
                .users
                .as_ref()
                .is_none_or(|users| users.iter().any(user))
            && self
                .units
                .as_ref()
                .is_none_or(|units| units.iter().any(unit))
            && self
                .groups
                .as_ref()
                .is_none_or(|groups| groups.iter().any(group))
            && self
                .resources
                .as_ref()
                .is_none_or(|resources| resources.contains(&resource))
            && self
                .identities
                .as_ref()
                .map_or(identity == 0, |identities| identities.contains(&identity))
    }
}

fn chosen(from: usize) -> impl Strategy<Value = Vec<usize>> {
    vec(0..from, 1..=3)
}

fn model() -> impl Strategy<Value = Model> {
    let users = option::of(chosen(USERS.len()));
    let groups = option::of(chosen(GROUPS.len()));
    let units = option::weighted(0.3, chosen(PATTERNS.len()));
    let resources = option::weighted(0.8, chosen(RESOURCES.len()));
    let identities = option::weighted(0.4, chosen(IDENTITIES.len()));
    let subjects = (users, groups, units, weighted(0.3));
    let parts = (subjects, resources, identities, weighted(0.2));
    let model = parts.prop_map(
        |((users, groups, units, container), resources, identities, bypass)| Model {
            users,
            groups,
            units,
            container,
            resources,
            identities,
            bypass,
        },
    );
    model.prop_filter("a rule names a subject", |model| {
        model.users.is_some() || model.groups.is_some() || model.units.is_some()
    })
}

fn any_caller() -> impl Strategy<Value = Caller> {
    let id = || select(vec![0, 1, 2, 3, 10, 11, 12, 99, u32::MAX]);
    let unit = option::of(select(UNITS.to_vec()));
    let container = select(vec![Some(false), Some(false), Some(true), None]);
    (id(), id(), vec(id(), 0..4), unit, container).prop_map(
        |(uid, gid, groups, unit, container)| {
            let unit = unit.map(|unit| Unit::parse(unit).unwrap());
            Caller {
                unit,
                container,
                ..caller(uid, gid, &groups)
            }
        },
    )
}

fn compiled(models: &[Model]) -> Policy {
    policy(
        &models
            .iter()
            .enumerate()
            .map(|(name, model)| model.text(name))
            .collect::<String>(),
    )
}

/// Every identity and resource that can be asked for, by number.
fn requests() -> impl Iterator<Item = (usize, Identity, usize, Resource)> {
    let identities = IDENTITIES
        .iter()
        .map(|text| text.parse::<Identity>().unwrap())
        .enumerate();
    identities.flat_map(|(i, identity)| {
        let resources = RESOURCES
            .iter()
            .chain(&["https://in.no.rule"])
            .map(|text| Resource::exact(text).unwrap());
        resources
            .enumerate()
            .map(move |(r, resource)| (i, identity.clone(), r, resource))
    })
}

fn subject_holds(subject: &Subject, caller: &Caller) -> bool {
    caller.container == Some(subject.container)
        && subject.user.is_none_or(|user| user == caller.uid)
        && subject.group.is_none_or(|group| caller.in_group(group))
        && subject.unit.as_ref().is_none_or(|pattern| {
            caller.unit.as_ref().is_some_and(|unit| match pattern {
                UnitPattern::Exact(exact) => exact == unit,
                UnitPattern::Instances(template) => unit.template() == Some(&**template),
            })
        })
}

fn fragment() -> impl Strategy<Value = String> {
    let known = [
        "version = 1\n",
        "[[rule]]\n",
        "name = 'a'\n",
        "user = ",
        "group = ",
        "resources = ",
        "identity = ",
        "1",
        "'x'",
        "\"",
        "'''",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\n",
        "\r\n",
        "\t",
        "#",
        "=",
        ".",
        "\u{feff}",
        "\u{1b}[2J",
        "\u{202e}",
        "\u{4e16}",
        "\0",
        "['arm', 'keyvault']\n",
        "https://x//.default",
        "usr = 1\n",
        "= = =\n",
    ];
    prop_oneof![4 => select(known.map(str::to_owned).to_vec()), 1 => ".{0,200}"]
}

fn only_visible_characters_in(bytes: &[u8], name: &str) {
    let mut diagnostics = Diagnostics::new();
    if let Some(rules) = RuleSet::parse(&[file(name, bytes)], Cloud::Public, &mut diagnostics) {
        let policy = rules.compile(&accounts(), &mut diagnostics);
        assert!(policy.rules() <= bytes.len());
    } else {
        assert!(diagnostics.has_errors());
    }
    for character in diagnostics.to_string().chars() {
        assert!(
            character == '\n' || character == ' ' || character.is_ascii_graphic(),
            "{character:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_decision_is_that_of_the_first_rule_that_allows(models in vec(model(), 0..8), who in any_caller()) {
        let policy = compiled(&models);
        for (i, identity, r, resource) in requests() {
            let expected = models.iter().position(|model| model.allows(&who, i, r)).map(|name| name.to_string());
            let decision = policy.decide(&who, &identity, &resource);
            prop_assert_eq!(decision.as_ref().ok().map(|grant| grant.rule().to_owned()), expected);
            if let Ok(grant) = decision {
                prop_assert_eq!((grant.identity(), grant.resource()), (&identity, &resource));
                let bypass = models.iter().any(|model| model.bypass && model.allows(&who, i, r));
                prop_assert_eq!(grant.may_bypass_cache(), bypass);
            }
        }
    }

    #[test]
    fn i22_the_same_inputs_have_the_same_outcome(models in vec(model(), 0..8), who in any_caller()) {
        let (policy, again) = (compiled(&models), compiled(&models));
        for (_, identity, _, resource) in requests() {
            prop_assert_eq!(policy.decide(&who, &identity, &resource), again.decide(&who, &identity, &resource));
        }
    }

    #[test]
    fn i23_adding_a_rule_never_removes_access(
        models in vec(model(), 0..8), new in model(), at in any::<prop::sample::Index>(), who in any_caller(),
    ) {
        let mut more = models.clone();
        more.insert(at.index(models.len() + 1), new);
        let (before, after) = (compiled(&models), compiled(&more));
        for (_, identity, _, resource) in requests() {
            if let Ok(grant) = before.decide(&who, &identity, &resource) {
                let now = after.decide(&who, &identity, &resource);
                prop_assert!(now.is_ok_and(|now| now.may_bypass_cache() >= grant.may_bypass_cache()));
            }
        }
    }

    #[test]
    fn nobody_whom_no_rule_names_gets_anything(models in vec(model(), 0..8), gid in 100_u32..) {
        let policy = compiled(&models);
        let stranger = caller(gid, gid, &[gid]);
        for (_, identity, _, resource) in requests() {
            prop_assert!(policy.decide(&stranger, &identity, &resource).is_err());
        }
        prop_assert!(policy.allowed(&stranger).is_empty());
    }

    #[test]
    fn what_a_caller_is_told_is_what_it_gets(models in vec(model(), 0..8), who in any_caller()) {
        let policy = compiled(&models);
        let allowed = policy.allowed(&who);
        for (_, identity, _, resource) in requests() {
            let told = allowed.iter().any(|one| {
                let text = one.resource.to_string();
                one.identity == identity && (text == "*" || text == resource.as_str())
            });
            prop_assert_eq!(policy.decide(&who, &identity, &resource).is_ok(), told);
        }
    }

    #[test]
    fn an_explanation_says_what_the_decision_says(models in vec(model(), 0..8), who in any_caller()) {
        let policy = compiled(&models);
        for (i, identity, r, resource) in requests() {
            let explanation = policy.explain(&who, &identity, &resource);
            let decision = policy.decide(&who, &identity, &resource);
            let said = explanation.outcome.map(|allowance| (allowance.rule.to_string(), allowance.may_bypass_cache));
            prop_assert_eq!(said, decision.map(|grant| (grant.rule().to_owned(), grant.may_bypass_cache())));
            for (model, examined) in models.iter().zip(&explanation.rules) {
                prop_assert_eq!(model.allows(&who, i, r), examined.failed.is_empty());
            }
        }
    }

    #[test]
    fn a_comparison_lists_a_change_exactly_where_decisions_differ(
        old in vec(model(), 0..5), new in vec(model(), 0..5), who in any_caller(),
    ) {
        let (old, new) = (compiled(&old), compiled(&new));
        let comparison = compare(&old, &new);
        prop_assert!(comparison.complete);
        for (_, identity, _, resource) in requests() {
            let may = |policy: &Policy| policy.decide(&who, &identity, &resource).map(|grant| grant.may_bypass_cache());
            let (before, after) = (may(&old), may(&new));
            let listed = |gained, permissions: &[Permission]| comparison.changes.iter().any(|change| {
                change.gained == gained && change.identity == identity && permissions.contains(&change.permission)
                    && subject_holds(&change.subject, &who)
                    && matches!(&change.resource, ResourcePattern::Any)
                        | matches!(&change.resource, ResourcePattern::Exact(exact) if *exact == resource)
            });
            // Whoever loses something is on the list. The list may say more of a subject than this caller
            // notices, who may have the same by another rule.
            let access = [Permission::Access, Permission::AccessAndBypass];
            let bypass = [Permission::Bypass, Permission::AccessAndBypass];
            if before.is_ok() && after.is_err() {
                prop_assert!(listed(false, &access));
            }
            if before.is_err() && after.is_ok() {
                prop_assert!(listed(true, &access));
            }
            if before == Ok(true) && after == Ok(false) {
                prop_assert!(listed(false, &bypass));
            }
            if before == Ok(false) && after == Ok(true) {
                prop_assert!(listed(true, &bypass));
            }
        }
        prop_assert!(compare(&old, &old).changes.is_empty());
    }

    #[test]
    fn a_replay_without_groups_does_not_contradict_the_decision_with_them(
        models in vec(model(), 0..8), who in any_caller(),
    ) {
        let policy = compiled(&models);
        let recorded = Caller { groups: Vec::new(), ..who.clone() };
        for (_, identity, _, resource) in requests() {
            let decision = policy.decide(&who, &identity, &resource);
            match policy.replay(&recorded, &identity, &resource) {
                Replayed::Allowed(_) => prop_assert!(decision.is_ok()),
                Replayed::Denied(_) => prop_assert!(decision.is_err()),
                Replayed::InGroup(rules) => if let Ok(grant) = decision {
                    prop_assert!(rules.iter().any(|rule| **rule == *grant.rule()));
                },
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic_and_described_in_visible_characters(bytes in vec(any::<u8>(), 0..400)) {
        only_visible_characters_in(&bytes, FILE);
    }

    #[test]
    fn any_mixture_of_toml_is_read_without_panic_and_described_in_visible_characters(
        parts in vec(fragment(), 0..40), name in ".{0,20}",
    ) {
        only_visible_characters_in(parts.concat().as_bytes(), &name);
    }

    #[test]
    fn any_text_is_a_resource_or_refused_in_visible_characters(text in ".{0,300}") {
        match Resource::parse(&text, Cloud::Public) {
            Ok(resource) => prop_assert!(resource.as_str().bytes().all(|byte| byte.is_ascii_graphic())),
            Err(error) => prop_assert!(error.to_string().bytes().all(|b| b == b' ' || b.is_ascii_graphic())),
        }
        if let Err(error) = text.parse::<Identity>() {
            prop_assert!(error.to_string().bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
        }
    }
}
