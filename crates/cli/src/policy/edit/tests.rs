use std::fmt::Write as _;

use arcbroker_policy::{Diagnostics, RuleSet, compare};
use proptest::prelude::*;

use super::*;

fn accounts() -> Accounts {
    let mut accounts = Accounts::default();
    for (name, id) in [("ann", 1), ("bob", 2), ("cid", 3)] {
        accounts.users.insert(name.to_owned(), id);
        accounts.groups.insert(name.to_owned(), id);
    }
    accounts
}

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile {
        name: name.to_owned(),
        bytes: text.into(),
    }
}

fn policy(files: &[SourceFile]) -> Policy {
    let mut diagnostics = Diagnostics::new();
    let rules = RuleSet::parse(files, Cloud::Public, &mut diagnostics);
    let rules = rules.unwrap_or_else(|| panic!("{diagnostics}"));
    rules.compile(&accounts(), &mut diagnostics)
}

fn asked(rule: &str) -> Policy {
    policy(&[file(
        "asked",
        &format!("version = 1\n[[rule]]\nname = \"asked\"\n{rule}\n"),
    )])
}

fn plan(files: &[SourceFile], asked: &Policy) -> Plan {
    let accounts = accounts();
    let names = Names {
        cloud: Cloud::Public,
        accounts: &accounts,
    };
    let rule = asked.each_rule().next().unwrap();
    Plan::without(files, &policy(files), rule, names).unwrap()
}

fn after(files: &[SourceFile], plan: &Plan) -> Vec<SourceFile> {
    let mut left = Vec::new();
    for old in files {
        match plan.files.get(&old.name) {
            None => left.push(old.clone()),
            Some(Some(text)) => left.push(file(&old.name, text)),
            Some(None) => {}
        }
    }
    left
}

/// The one file without what is asked; a dash where it is gone, and why where nothing is done.
fn without(text: &str, rule: &str) -> String {
    let files = [file("f.toml", text)];
    let plan = plan(&files, &asked(rule));
    match (plan.files.get("f.toml"), plan.kept.first()) {
        (Some(Some(text)), _) => text.clone(),
        (Some(None), _) => "-".to_owned(),
        (None, Some(kept)) => format!("{}: {}", kept.rule, kept.why),
        (None, None) => "nothing".to_owned(),
    }
}

const FILE: &str = "\
# Ours.
version = 1

# The nightly one.
[[rule]]
name = \"a\"
unit = [ \"a.service\", \"b.service\" ]   # both
resources = \"keyvault\"

# By hand.
[[rule]]
name = \"b\"
user = [\"ann\", 2]
resources = [
    \"storage\",  # blobs
    \"arm\",
]
";

#[test]
fn a_list_is_shortened_and_all_else_that_is_written_stays() {
    let text = without(FILE, "unit = \"a.service\"\nresources = \"keyvault\"");
    assert_eq!(text, FILE.replace("\"a.service\", ", ""));
    let text = without(FILE, "user = [1, 2]\nresources = \"arm\"");
    assert_eq!(policy(&[file("f", &text)]).rules(), 2);
    assert!(
        text.contains("\"storage\"") && !text.contains("\"arm\""),
        "{text}"
    );
    assert!(
        text.contains("# Ours.") && text.contains("# By hand."),
        "{text}"
    );
}

#[test]
fn a_rule_that_gives_nothing_else_goes_with_its_comment() {
    let rule = "unit = [\"a.service\", \"b.service\"]\nresources = \"keyvault\"";
    let text = without(FILE, rule);
    assert!(text.starts_with("# Ours.\nversion = 1\n"), "{text}");
    assert!(
        !text.contains("nightly") && text.contains("# By hand."),
        "{text}"
    );
}

#[test]
fn a_file_without_a_rule_left_goes() {
    let text = "version = 1\n[[rule]]\nname = \"a\"\nuser = 1\nresources = \"arm\"\n";
    assert_eq!(without(text, "user = 1\nresources = \"*\""), "-");
    assert_eq!(without(text, "user = 2\nresources = \"*\""), "nothing");
    let container = "user = 1\ncontainer = true\nresources = \"arm\"";
    assert_eq!(without(text, container), "nothing");
}

#[test]
fn what_cannot_be_cut_out_exactly_is_left_with_the_reason() {
    let rule = |rule: &str| format!("version = 1\n[[rule]]\nname = \"a\"\n{rule}\n");
    for (text, asked, why) in [
        (
            "unit = [\"a.service\", \"b.service\"]\nresources = [\"arm\", \"storage\"]",
            "unit = \"a.service\"\nresources = \"arm\"",
            "it lists several of more than one kind",
        ),
        (
            "user = 1\nresources = \"*\"",
            "user = 1\nresources = \"arm\"",
            "`*` in it stands for more",
        ),
        (
            "user = 1\nresources = [\"keyvault\", \"arm\"]",
            "user = 1\nresources = \"https://vault.azure.net\"",
            "`keyvault` in it stands for more",
        ),
        (
            "unit = \"w@*.service\"\nresources = \"arm\"",
            "unit = \"w@1.service\"\nresources = \"arm\"",
            "`w@*.service` in it stands for more",
        ),
        (
            "user = 1\nresources = \"arm\"",
            "user = 1\nunit = \"a.service\"\nresources = \"arm\"",
            "it names no unit",
        ),
    ] {
        let kept = without(&rule(text), asked);
        assert!(kept.starts_with("a: ") && kept.contains(why), "{kept}");
    }
}

#[test]
fn a_rule_that_is_not_there_cannot_go() {
    let files = [file("f.toml", FILE)];
    let error = Plan::without_rule(&files, &policy(&files), "c").unwrap_err();
    assert!(matches!(error, Error::NoRule(name) if name == "c"));
}

/// Each as a line of its own, as inline tables are.
const INLINE: &str = "\
version = 1 # the first
rule = [
    # By night.
    { name = \"a\", user = [1,  2], resources = \"arm\" }, # both
    { name = \"b\", user = 3, resources = [ \"arm\", \"storage\" ] },  # one, two
    # The last
    { name = \"c\", user = 1, resources = \"keyvault\" } # c
] # all
# The end, without a newline";

#[test]
fn a_rule_in_an_inline_table_is_edited_like_another() {
    for (wish, before, after) in [
        ("user = 2\nresources = \"*\"", "[1,  2]", "[1]"),
        ("user = 1\nresources = \"arm\"", "[1,  2]", "[2]"),
        (
            "user = 3\nresources = \"arm\"",
            "[ \"arm\", \"storage\" ]",
            "[ \"storage\" ]",
        ),
        (
            "user = 3\nresources = \"storage\"",
            "[ \"arm\", \"storage\" ]",
            "[ \"arm\" ]",
        ),
        (
            "user = [1, 2]\nresources = \"arm\"",
            "    # By night.\n    { name = \"a\", user = [1,  2], resources = \"arm\" }, # both\n",
            "",
        ),
        (
            "user = 3\nresources = \"*\"",
            "    { name = \"b\", user = 3, resources = [ \"arm\", \"storage\" ] },  # one, two\n",
            "",
        ),
        (
            "user = 1\nresources = \"keyvault\"",
            ",  # one, two\n    # The last\n    { name = \"c\", user = 1, resources = \"keyvault\" } # c\n",
            "  # one, two\n",
        ),
    ] {
        assert!(INLINE.contains(before), "{before}");
        assert_eq!(without(INLINE, wish), INLINE.replace(before, after));
    }
    let only = "version = 1\nrule = [{name = \"a\", user = 1, resources = \"arm\"}]\n";
    assert_eq!(without(only, "user = 1\nresources = \"*\""), "-");
}

#[test]
fn all_that_is_not_about_what_goes_stays_as_it_was_byte_by_byte() {
    let windows = FILE.trim_end().replace('\n', "\r\n");
    let other = "user = 9\nunit = \"c.service\"\nresources = \"*\"";
    assert_eq!(without(&windows, other), "nothing");
    let text = without(&windows, "unit = \"a.service\"\nresources = \"keyvault\"");
    assert_eq!(text, windows.replace("\"a.service\", ", ""));
    let text = without(FILE, "user = [1, 2]\nresources = \"arm\"");
    assert_eq!(text, FILE.replace("    \"arm\",\n", ""));
    let text = without(FILE, "user = [1, 2]\nresources = \"storage\"");
    assert_eq!(text, FILE.replace("    \"storage\",  # blobs\n", ""));
    let text = without(FILE, "user = [1, 2]\nresources = \"*\"");
    assert_eq!(text, FILE[..FILE.find("\n# By hand.").unwrap()]);
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(of, 1..=of.len())
}

fn rule() -> impl Strategy<Value = String> {
    let users = proptest::option::of(some(&["\"ann\"", "2", "\"cid\""]));
    let groups = proptest::option::of(some(&["\"ann\"", "2"]));
    let units = proptest::option::of(some(&[
        "\"a.service\"",
        "\"w@*.service\"",
        "\"w@1.service\"",
    ]));
    let resources = prop_oneof![
        1 => Just(vec!["\"*\""]),
        6 => some(&["\"keyvault\"", "\"https://vault.azure.net\"", "\"arm\"", "\"api://x\""]),
    ];
    let identities = proptest::option::of(some(&[
        "\"system\"",
        "\"client-id:11111111-2222-3333-4444-555555555555\"",
    ]));
    let flags = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.2));
    (users, groups, units, resources, identities, flags).prop_map(
        |(users, groups, units, resources, identities, (container, bypass))| {
            let mut text = String::new();
            let mut line = |key: &str, values: Option<Vec<&str>>| {
                if let Some(values) = values {
                    writeln!(text, "{key} = [{}]", values.join(", ")).unwrap();
                }
            };
            let nobody = users.is_none() && groups.is_none() && units.is_none();
            line("user", if nobody { Some(vec!["1"]) } else { users });
            line("group", groups);
            line("unit", units);
            line("resources", Some(resources));
            line("identity", identities);
            text + &format!("container = {container}\nbypass-cache = {bypass}\n")
        },
    )
}

fn tables(rules: &[String]) -> Vec<SourceFile> {
    let table = |(number, rule): (usize, &String)| {
        let text = format!("version = 1\n[[rule]]\nname = \"r{number}\"\n{rule}");
        file(&format!("{number}.toml"), &text)
    };
    rules.iter().enumerate().map(table).collect()
}

fn inline(rules: &[String]) -> String {
    let mut text = "version = 1\nrule = [".to_owned();
    for (number, rule) in rules.iter().enumerate() {
        let rule = rule.trim_end().replace('\n', ", ");
        write!(text, "{{ name = \"r{number}\", {rule} }}, ").unwrap();
    }
    text + "]\n"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn exactly_what_is_asked_goes(
        rules in proptest::collection::vec(rule(), 1..4),
        wish in rule(),
        is_inline in any::<bool>(),
    ) {
        let files = if is_inline { [file("f", &inline(&rules))].into() } else { tables(&rules) };
        let wish = asked(&wish);
        let view = wish.each_rule().next().unwrap();
        let plan = plan(&files, &wish);
        let (old, new) = (policy(&files), policy(&after(&files, &plan)));
        let comparison = compare(&old, &new);
        prop_assert!(comparison.complete);
        for change in &comparison.changes {
            prop_assert!(!change.gained && is_asked(change, view), "{change:?}");
        }
        // What is still given of it is given by rules that were left alone for a reason.
        for given in new.given(&wish) {
            for rule in &given.rules {
                let is_kept = plan.kept.iter().any(|kept| kept.rule == rule.rule);
                prop_assert!(is_kept, "{given:?}\n{plan:?}");
            }
        }
        // Where no rule was left alone, nothing of it is left.
        if plan.kept.is_empty() {
            prop_assert!(new.given(&wish).is_empty());
        }
        prop_assert_eq!(plan.edited.is_empty(), plan.files.is_empty());
    }
}
