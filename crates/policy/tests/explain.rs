//! Why decisions are what they are, and how policies differ.

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

use arcbroker_policy::{Caller, Change, Condition, Denial, Identity, Policy, Replayed, compare};
use support::{caller, in_unit, policy, resource};

#[test]
fn an_explanation_names_what_does_not_hold_in_each_rule() {
    let policy = policy(
        "[[rule]]\nname = 'a'\nuser = 'alice'\nunit = 'a.service'\nresources = 'arm'\n\
         [[rule]]\nname = 'b'\ngroup = 'deploy'\ncontainer = true\nresources = 'arm'\nbypass-cache = true\n\
         [[rule]]\nname = 'c'\nuser = 'alice'\nresources = ['keyvault']\nidentity = 'object-id:6dae42f8-4368-4678-94ff-3960e28e3630'\n\
         [[rule]]\nname = 'd'\nuser = 'alice'\nresources = ['*']\n",
    );
    let explanation = policy.explain(&caller(1, 9, &[]), &Identity::System, &resource("arm"));
    let allowance = explanation.outcome.unwrap();
    assert_eq!((&*allowance.rule, allowance.may_bypass_cache), ("d", false));
    let failed: Vec<_> = explanation
        .rules
        .iter()
        .map(|rule| rule.failed.clone())
        .collect();
    assert_eq!(
        failed,
        [
            vec![Condition::Unit],
            vec![Condition::Group, Condition::Container],
            vec![Condition::Identity, Condition::Resource],
            vec![]
        ]
    );
    let second = &explanation.rules[1];
    assert_eq!(
        (&*second.rule, &*second.file, second.line),
        ("b", support::FILE, 8)
    );
    assert!(second.bypass_cache);
    let stranger = policy.explain(&caller(2, 9, &[]), &Identity::System, &resource("arm"));
    assert_eq!(stranger.outcome, Err(Denial::NoRuleForCaller));
    assert!(stranger.rules[3].failed.contains(&Condition::User));
}

#[test]
fn a_comparison_names_who_gains_and_who_loses_what() {
    let old = policy(
        "[[rule]]\nname = 'a'\nuser = ['alice', 'bob']\nresources = 'https://a'\n\
         [[rule]]\nname = 'w'\nunit = 'w@1.service'\nresources = 'https://a'\n\
         [[rule]]\nname = 'same'\ngroup = 'ops'\nresources = '*'\n",
    );
    let new = policy(
        "[[rule]]\nname = 'renamed'\ngroup = 'ops'\nresources = '*'\n\
         [[rule]]\nname = 'a'\nuser = 'alice'\nresources = 'https://a'\nbypass-cache = true\n\
         [[rule]]\nname = 'w'\nunit = 'w@*.service'\nresources = 'https://a'\n\
         [[rule]]\nname = 'c'\nuser = 'alice'\ncontainer = true\nresources = '*'\n",
    );
    let comparison = compare(&old, &new);
    let line = |change: &Change| {
        let sign = if change.gained { '+' } else { '-' };
        format!(
            "{sign} {} | {} | {} | {:?} | {}",
            change.subject, change.identity, change.resource, change.permission, change.rule
        )
    };
    let lines: Vec<String> = comparison.changes.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "- user 2 | system | https://a | Access | a",
            "+ user 1 | system | https://a | Bypass | a",
            "+ unit w@*.service | system | https://a | Access | w",
            "+ user 1, in a container | system | * | Access | c",
        ]
    );
    assert!(comparison.complete);
}

#[test]
fn a_comparison_of_endless_lists_says_that_it_is_not_complete() {
    let many = |n: u32| {
        (0..256)
            .map(|i| (n * 1000 + i).to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let rule = format!(
        "[[rule]]\nname = 'a'\nuser = [{}]\ngroup = [{}]\nresources = ['https://a', 'https://b']\n",
        many(1),
        many(2)
    );
    let comparison = compare(&Policy::empty(), &policy(&rule));
    assert!(!comparison.complete);
    assert!(comparison.changes.len() >= 100_000);
}

#[test]
fn a_request_of_the_past_is_judged_without_its_groups() {
    let policy = policy(
        "[[rule]]\nname = 'by group'\ngroup = 'deploy'\nresources = 'arm'\n\
         [[rule]]\nname = 'by unit'\nunit = 'a.service'\nresources = 'keyvault'\n",
    );
    let replay = |who: Caller, name| policy.replay(&who, &Identity::System, &resource(name));
    assert_eq!(
        replay(caller(5, 10, &[]), "arm"),
        Replayed::Allowed("by group".into())
    );
    assert_eq!(
        replay(caller(5, 9, &[]), "arm"),
        Replayed::InGroup(vec!["by group".into()])
    );
    assert_eq!(
        replay(caller(5, 9, &[]), "keyvault"),
        Replayed::Denied(Denial::NoRuleForCaller)
    );
    let who = in_unit(caller(5, 9, &[]), "a.service");
    assert_eq!(replay(who, "keyvault"), Replayed::Allowed("by unit".into()));
}
