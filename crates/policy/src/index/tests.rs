use super::*;
use crate::{Accounts, Cloud, Diagnostics, RuleSet, SourceFile, Unit};

fn index(rules: impl Iterator<Item = String>) -> Index {
    let text = format!("version = 1\n{}", rules.collect::<String>());
    let file = SourceFile {
        name: "f".to_owned(),
        bytes: text.into_bytes(),
    };
    let mut diagnostics = Diagnostics::new();
    let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).unwrap();
    rules.index(&Accounts::default(), &mut diagnostics).0
}

fn examined(index: &Index, caller: &Caller) -> usize {
    let arm = Resource::parse("arm", Cloud::Public).unwrap();
    index
        .candidates(caller, &Identity::System, &arm)
        .map(Vec::len)
        .sum()
}

#[test]
fn rules_for_others_cost_nothing() {
    let rule = |uid: usize| {
        format!("[[rule]]\nname = 'r{uid}'\nuser = {uid}\nresources = ['arm', 'graph']\n")
    };
    let index = index((0..3000).map(rule));
    assert_eq!(examined(&index, &Caller::new(1500, 7, vec![8, 9])), 1);
    assert_eq!(examined(&index, &Caller::new(9999, 7, vec![8, 9])), 0);
}

#[test]
fn rules_that_never_decide_cost_nothing() {
    let rule = |n: usize| {
        format!(
            "[[rule]]\nname = 'r{n}'\nuser = 1\ngroup = {}\nresources = 'arm'\n",
            n % 2
        )
    };
    let index = index((0..1000).map(rule));
    assert_eq!(examined(&index, &Caller::new(1, 1, vec![0])), 2);
}

#[test]
fn a_rule_is_found_by_what_it_shares_with_the_fewest() {
    let rule = |n: usize| {
        format!(
            "[[rule]]\nname = 'r{n}'\nuser = {}\ngroup = {}\nunit = 'w@{n}.service'\nresources = 'arm'\n",
            n % 2,
            n / 2
        )
    };
    let index = index((0..1000).map(rule));
    let unit = |name: &str| Some(Unit::parse(name).unwrap());
    let caller = Caller {
        unit: unit("w@501.service"),
        ..Caller::new(1, 250, vec![])
    };
    assert_eq!(examined(&index, &caller), 1);
    let caller = Caller {
        unit: unit("w@x.service"),
        ..caller
    };
    assert_eq!(examined(&index, &caller), 0);
    assert!(!index.names(&caller));
}

#[test]
fn a_rule_is_covered_by_an_earlier_one_of_another_kind() {
    let shadowed = |rules: &[&str]| {
        let rule = |(n, subject): (usize, &&str)| {
            format!("[[rule]]\nname = 'r{n}'\n{subject}\nresources = 'arm'\n")
        };
        let rules: Vec<String> = rules.iter().enumerate().map(rule).collect();
        let text = rules.concat();
        let file = SourceFile {
            name: "f".to_owned(),
            bytes: format!("version = 1\n{text}").into_bytes(),
        };
        let mut diagnostics = Diagnostics::new();
        let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).unwrap();
        rules.index(&Accounts::default(), &mut diagnostics).1
    };
    for (rules, expected) in [
        (["user = 1", "user = 1\nunit = 'a.service'"], true),
        (["group = [1, 2]", "group = 2\nuser = 1"], true),
        (
            ["unit = 'a@*.service'", "unit = 'a@1.service'\nuser = 1"],
            true,
        ),
        (
            [
                "unit = 'a@*.service'",
                "unit = ['a@1.service', 'a@2.service']",
            ],
            true,
        ),
        (
            [
                "unit = 'a@*.service'",
                "unit = ['a@1.service', 'b.service']",
            ],
            false,
        ),
        (["unit = 'a@1.service'", "unit = 'a@*.service'"], false),
        (["user = 1\nunit = 'a.service'", "user = 1"], false),
        (["user = 1", "user = [1, 2]\nunit = 'a.service'"], false),
        (["user = 1\ncontainer = true", "user = 1"], false),
        (["user = 1", "user = 1\ncontainer = true"], false),
        (
            [
                "user = 1\ncontainer = false",
                "user = 1\nunit = 'a.service'",
            ],
            true,
        ),
    ] {
        let found = shadowed(&rules);
        let expected: &[_] = if expected { &[(1, 0)] } else { &[] };
        assert_eq!(found, expected, "{rules:?}");
    }
}
