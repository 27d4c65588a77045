//! Who gets what.

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

use arcbroker_policy::{Accounts, Cloud, Denial, Diagnostics, Identity, Policy, RuleSet};
use support::{caller, contained, file, in_unit, policy, policy_of, resource, rule_for};

#[test]
fn nobody_gets_anything_without_a_rule() {
    let empty = Policy::empty();
    assert_eq!((empty.rules(), empty.hash()), (0, "e3b0c44298fc"));
    for uid in [0, 1, 65_534, u32::MAX] {
        let decision = empty.decide(&caller(uid, uid, &[0]), &Identity::System, &resource("arm"));
        assert_eq!(decision, Err(Denial::NoRuleForCaller));
    }
}

#[test]
fn all_kinds_that_a_rule_names_must_hold_and_one_value_of_each_is_enough() {
    let policy = policy(
        "[[rule]]\nname = 'both'\nuser = ['alice', 7]\ngroup = ['deploy', '12']\nresources = 'keyvault'\n\
         [[rule]]\nname = 'users'\nuser = 'bob'\nresources = 'keyvault'\n\
         [[rule]]\nname = 'groups'\ngroup = ['ops', 13]\nresources = 'keyvault'\n",
    );
    for (who, expected) in [
        (caller(1, 10, &[]), Some("both")),
        (caller(1, 100, &[50, 12]), Some("both")),
        (caller(7, 10, &[]), Some("both")),
        (caller(1, 100, &[100]), None),
        (caller(3, 10, &[12]), None),
        (caller(2, 100, &[]), Some("users")),
        (caller(2, 10, &[11]), Some("users")),
        (caller(3, 11, &[]), Some("groups")),
        (caller(3, 100, &[13]), Some("groups")),
        (caller(1, 100, &[11]), Some("groups")),
        (caller(1, 11, &[10]), Some("both")),
        (caller(0, 0, &[0]), None),
        (caller(10, 1, &[7]), None),
    ] {
        assert_eq!(
            rule_for(&policy, &who, "keyvault").as_deref(),
            expected,
            "{who:?}"
        );
        assert_eq!(rule_for(&policy, &who, "arm"), None, "{who:?}");
    }
}

#[test]
fn a_rule_on_a_unit_wants_that_unit() {
    let policy = policy(
        "[[rule]]\nname = 'one'\nunit = 'backup.service'\nresources = 'arm'\n\
         [[rule]]\nname = 'workers'\nunit = ['w@*.service', 'x@1.service']\nresources = 'arm'\n\
         [[rule]]\nname = 'both'\nunit = 'web.service'\nuser = 'alice'\nresources = 'arm'\n",
    );
    let who = |uid, unit: &str| in_unit(caller(uid, 9, &[]), unit);
    for (who, expected) in [
        (who(5, "backup.service"), Some("one")),
        (who(0, "backup.service"), Some("one")),
        (who(5, "backup.scope"), None),
        (who(5, "Backup.service"), None),
        (who(5, "w@blue.service"), Some("workers")),
        (who(5, "w.service"), None),
        (who(5, "x@1.service"), Some("workers")),
        (who(5, "x@2.service"), None),
        (who(1, "web.service"), Some("both")),
        (who(2, "web.service"), None),
        (caller(1, 9, &[]), None),
    ] {
        assert_eq!(
            rule_for(&policy, &who, "arm").as_deref(),
            expected,
            "{who:?}"
        );
    }
}

#[test]
fn t5_containers_are_apart_and_what_is_not_known_is_neither() {
    let policy = policy(
        "[[rule]]\nname = 'host'\nuser = [0, 1]\nresources = 'arm'\n\
         [[rule]]\nname = 'container'\nuser = 0\nunit = 'web.service'\ncontainer = true\nresources = 'keyvault'\n\
         [[rule]]\nname = 'not'\nuser = 2\ncontainer = false\nresources = 'arm'\n",
    );
    let root = in_unit(caller(0, 0, &[]), "web.service");
    for (who, name, expected) in [
        (contained(root.clone(), Some(false)), "arm", Some("host")),
        (contained(root.clone(), Some(false)), "keyvault", None),
        (contained(root.clone(), Some(true)), "arm", None),
        (
            contained(root.clone(), Some(true)),
            "keyvault",
            Some("container"),
        ),
        (contained(root.clone(), None), "arm", None),
        (contained(root, None), "keyvault", None),
        (contained(caller(0, 0, &[]), Some(true)), "keyvault", None),
        (
            contained(caller(2, 0, &[]), Some(false)),
            "arm",
            Some("not"),
        ),
        (contained(caller(2, 0, &[]), Some(true)), "arm", None),
    ] {
        assert_eq!(
            rule_for(&policy, &who, name).as_deref(),
            expected,
            "{who:?} {name}"
        );
        let may = policy.allowed(&who);
        let told = may
            .iter()
            .any(|one| one.resource.to_string() == resource(name).as_str());
        assert_eq!(told, expected.is_some(), "{who:?}");
    }
}

#[test]
fn root_is_a_user_like_all_others() {
    let policy = policy("[[rule]]\nname = 'root'\nuser = 0\nresources = 'arm'\n");
    assert_eq!(
        rule_for(&policy, &caller(0, 0, &[]), "arm").as_deref(),
        Some("root")
    );
    assert_eq!(rule_for(&policy, &caller(0, 0, &[]), "keyvault"), None);
    assert_eq!(rule_for(&policy, &caller(1, 0, &[0]), "arm"), None);
}

#[test]
fn resources_are_compared_byte_by_byte() {
    let policy =
        policy("[[rule]]\nname = 'a'\nuser = 1\nresources = ['https://x', 'https://y/']\n");
    for (text, expected) in [
        ("https://x", true),
        ("https://x/", false),
        ("https://X", false),
        ("HTTPS://x", false),
        ("https://x%2f", false),
        ("https://x.evil", false),
        ("https://y/", true),
        ("https://y", false),
        ("https://y//", false),
    ] {
        assert_eq!(
            rule_for(&policy, &caller(1, 1, &[]), text).is_some(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn a_star_stands_for_every_resource_but_not_for_every_identity() {
    let policy = policy("[[rule]]\nname = 'a'\nuser = 1\nresources = '*'\n");
    let who = caller(1, 1, &[]);
    assert_eq!(
        rule_for(&policy, &who, "https://never.seen/").as_deref(),
        Some("a")
    );
    let other = Identity::client_id("6dae42f8-4368-4678-94ff-3960e28e3630").unwrap();
    assert_eq!(
        policy.decide(&who, &other, &resource("arm")),
        Err(Denial::NoRuleForResource)
    );
}

#[test]
fn an_identity_must_be_named_unless_it_is_the_machines_own() {
    let guid = "6dae42f8-4368-4678-94ff-3960e28e3630";
    let policy = policy(&format!(
        "[[rule]]\nname = 'a'\nuser = 1\nresources = 'arm'\nidentity = ['client-id:{}', 'object-id:{guid}']\n",
        guid.to_uppercase()
    ));
    let decide = |identity: Identity| {
        policy
            .decide(&caller(1, 1, &[]), &identity, &resource("arm"))
            .is_ok()
    };
    assert!(decide(Identity::client_id(guid).unwrap()));
    assert!(decide(Identity::object_id(guid).unwrap()));
    assert!(!decide(Identity::System));
    assert!(!decide(
        Identity::client_id("7dae42f8-4368-4678-94ff-3960e28e3630").unwrap()
    ));
    assert!(!decide(Identity::resource_id("/subscriptions/x").unwrap()));
}

#[test]
fn any_rule_that_gives_a_resource_may_also_give_leave_to_ask_past_the_cache() {
    let rules = "[[rule]]\nname = 'all'\nuser = 1\nresources = ['arm', 'graph']\n\
                 [[rule]]\nname = 'past'\ngroup = 'deploy'\nuser = 1\nresources = 'arm'\nbypass-cache = true\n\
                 [[rule]]\nname = 'star'\nuser = 2\nresources = '*'\nbypass-cache = true\n\
                 [[rule]]\nname = 'plain'\nuser = 2\nresources = 'arm'\nbypass-cache = false\n";
    let policy = policy(rules);
    for (who, name, rule, expected) in [
        (caller(1, 10, &[]), "arm", "all", true),
        (caller(1, 10, &[]), "graph", "all", false),
        (caller(1, 11, &[]), "arm", "all", false),
        (caller(2, 11, &[]), "arm", "star", true),
        (caller(2, 11, &[]), "sql", "star", true),
    ] {
        let grant = policy.decide(&who, &Identity::System, &resource(name));
        let grant = grant.unwrap();
        assert_eq!(
            (grant.rule(), grant.may_bypass_cache()),
            (rule, expected),
            "{who:?} {name}"
        );
    }
    let said = support::messages(format!("version = 1\n{rules}"));
    assert!(said.contains("warning: this rule never decides"), "{said}");
    assert!(said.contains("narrow `star`"), "{said}");
    assert!(!said.contains("narrow `all`"), "{said}");
}

#[test]
fn the_first_rule_in_the_order_of_the_files_names_the_grant() {
    let rule = |name: &str, key: &str| {
        format!("version = 1\n[[rule]]\nname = '{name}'\n{key}\nresources = 'arm'\n")
    };
    let group = file("10.toml", rule("by group", "group = 'deploy'"));
    let user = file("20.toml", rule("by user", "user = 'alice'"));
    let star = file(
        "30.toml",
        "version = 1\n[[rule]]\nname = 'star'\nuser = 1\nresources = '*'\n",
    );
    let alice = caller(1, 10, &[]);
    for (files, expected) in [
        ([group.clone(), user.clone(), star.clone()], "by group"),
        ([user.clone(), group.clone(), star.clone()], "by user"),
        ([star, group, user], "star"),
    ] {
        assert_eq!(
            rule_for(&policy_of(&files), &alice, "arm").as_deref(),
            Some(expected)
        );
    }
}

#[test]
fn a_denial_tells_an_unknown_resource_from_no_forbidden_one() {
    let policy = policy(
        "[[rule]]\nname = 'a'\nuser = 1\nresources = 'arm'\n[[rule]]\nname = 'b'\nuser = 2\nresources = 'keyvault'\n",
    );
    let denial = |uid, text| {
        policy
            .decide(&caller(uid, uid, &[]), &Identity::System, &resource(text))
            .unwrap_err()
    };
    assert_eq!(denial(1, "keyvault"), denial(1, "https://unknown.example"));
    assert_eq!(denial(3, "keyvault"), denial(3, "https://unknown.example"));
    assert_eq!(denial(1, "keyvault"), Denial::NoRuleForResource);
    assert_eq!(denial(3, "keyvault").as_str(), "no-rule-for-caller");
}

#[test]
fn a_name_that_is_unknown_matches_nobody() {
    let rules = "[[rule]]\nname = 'a'\nuser = 'ghost'\nresources = 'arm'\n\
                 [[rule]]\nname = 'b'\nuser = 1\ngroup = 'ghosts'\nresources = 'arm'\n\
                 [[rule]]\nname = 'c'\ngroup = 'ghosts'\nresources = '*'\n";
    let policy = policy(rules);
    assert_eq!(policy.rules(), 3);
    for uid in [0, 1, u32::MAX] {
        assert_eq!(rule_for(&policy, &caller(uid, uid, &[uid]), "arm"), None);
    }
}

#[test]
fn the_id_that_stands_for_no_id_matches_nobody() {
    let mut diagnostics = Diagnostics::new();
    let text = "version = 1\n[[rule]]\nname = 'a'\nuser = 'none'\nresources = 'arm'\n";
    let rules = RuleSet::parse(&[file("f", text)], Cloud::Public, &mut diagnostics).unwrap();
    let accounts = Accounts {
        users: [("none".to_owned(), u32::MAX)].into(),
        ..Accounts::default()
    };
    let policy = rules.compile(&accounts, &mut diagnostics);
    assert_eq!(rule_for(&policy, &caller(u32::MAX, 0, &[]), "arm"), None);
    assert_eq!(diagnostics.warnings(), 1);
}

#[test]
fn names_to_look_up_are_listed_once_and_numbers_are_not() {
    let text = "version = 1\n\
                [[rule]]\nname = 'a'\nuser = ['bob', 'alice', 5, '6']\ngroup = 'deploy'\nresources = 'arm'\n\
                [[rule]]\nname = 'b'\nuser = 'alice'\nresources = 'arm'\n";
    let rules = RuleSet::parse(&[file("f", text)], Cloud::Public, &mut Diagnostics::new()).unwrap();
    assert_eq!(
        rules.user_names().into_iter().collect::<Vec<_>>(),
        ["alice", "bob"]
    );
    assert_eq!(
        rules.group_names().into_iter().collect::<Vec<_>>(),
        ["deploy"]
    );
}

#[test]
fn well_known_names_in_rules_follow_the_cloud() {
    let text = "version = 1\n[[rule]]\nname = 'a'\nuser = 1\nresources = 'keyvault'\n";
    let rules = RuleSet::parse(&[file("f", text)], Cloud::China, &mut Diagnostics::new()).unwrap();
    let policy = rules.compile(&Accounts::default(), &mut Diagnostics::new());
    assert!(rule_for(&policy, &caller(1, 1, &[]), "https://vault.azure.cn").is_some());
    assert!(rule_for(&policy, &caller(1, 1, &[]), "https://vault.azure.net").is_none());
}

#[test]
fn a_caller_can_be_told_what_it_may_have() {
    let policy = policy(
        "[[rule]]\nname = 'a'\nuser = 1\nresources = ['keyvault', 'arm']\n\
         [[rule]]\nname = 'b'\ngroup = 'ops'\nresources = ['arm', 'graph']\n\
         [[rule]]\nname = 'c'\nuser = 2\nresources = '*'\nidentity = 'resource-id:/subscriptions/x'\n",
    );
    let allowed = |who| {
        let line = |one: arcbroker_policy::Allowed| {
            format!("{} {} {}", one.resource, one.identity, one.rule)
        };
        policy
            .allowed(&who)
            .into_iter()
            .map(line)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        allowed(caller(1, 11, &[])),
        [
            "https://management.azure.com system a",
            "https://management.azure.com/ system a",
            "https://vault.azure.net system a",
            "https://vault.azure.net/ system a",
            "https://graph.microsoft.com system b",
            "https://graph.microsoft.com/ system b",
        ]
    );
    assert_eq!(
        allowed(caller(2, 2, &[])),
        ["* resource-id:/subscriptions/x c"]
    );
    assert!(allowed(caller(0, 0, &[])).is_empty());
}

#[test]
fn a_short_name_allows_both_spellings_and_a_uri_only_its_own() {
    let policy = policy(
        "[[rule]]\nname = 'short'\nuser = 1\nresources = ['arm', 'aks']\n\
         [[rule]]\nname = 'exact'\nuser = 2\nresources = 'https://management.azure.com/'\n",
    );
    let (with, without) = (
        "https://management.azure.com/",
        "https://management.azure.com",
    );
    for (uid, spelling, expected) in [
        (1, with, Some("short")),
        (1, without, Some("short")),
        (1, "https://management.azure.com//", None),
        (1, "6dae42f8-4368-4678-94ff-3960e28e3630", Some("short")),
        (2, with, Some("exact")),
        (2, without, None),
    ] {
        let rule = rule_for(&policy, &caller(uid, 9, &[]), spelling);
        assert_eq!(rule.as_deref(), expected, "{uid} {spelling}");
    }
}

#[test]
fn the_hash_tells_names_contents_and_order_apart() {
    let rule = |name: &str| {
        format!("version = 1\n[[rule]]\nname = '{name}'\nuser = 1\nresources = 'arm'\n")
    };
    let (a, b) = (file("a", rule("a")), file("b", rule("b")));
    let hashes = [
        policy_of(&[]),
        policy_of(std::slice::from_ref(&a)),
        policy_of(&[file("c", rule("a"))]),
        policy_of(&[a.clone(), b.clone()]),
        policy_of(&[b.clone(), a.clone()]),
    ]
    .map(|policy| policy.hash().to_owned());
    assert_eq!(
        hashes
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        hashes.len()
    );
    assert!(hashes.iter().all(|hash| hash.len() == 12));
    assert_eq!(
        policy_of(&[a.clone(), b.clone()]).hash(),
        policy_of(&[a, b]).hash()
    );
}

#[test]
fn a_group_is_the_effective_or_a_supplementary_one() {
    let who = caller(1, 10, &[11, 12]);
    assert_eq!(
        [10, 11, 12, 13, 1].map(|gid| who.in_group(gid)),
        [true, true, true, false, false]
    );
}
