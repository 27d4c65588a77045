//! What the author of a policy file reads.

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

use arcbroker_policy::{Accounts, Cloud, Diagnostics, Document, RuleSet, UnitFile};
use support::{file, messages};

#[test]
fn all_mistakes_of_a_file_are_reported_in_one_run() {
    let text = r#"version = 1

[[rule]]
usr = "www-data"
resources = ["vault.azure.net", "https://graph.microsoft.com//.default", "keyvualt"]

[[rule]]
name = "ci"
group = ["deploy", true, -1, ""]
identity = ["system", "client-id:x"]

[[rules]]
"#;
    let expected = r#"/etc/arcbroker/policy.d/web.toml:3:1: `name` is missing
  |
3 | [[rule]]
  | ^^^^^^^^ the audit log names the rule that gave a token: name = "..."
/etc/arcbroker/policy.d/web.toml:3:1: the rule names no user, no group and no unit
  |
3 | [[rule]]
  | ^^^^^^^^ name who may have the tokens: user = "...", group = "..." or unit = "....service"
/etc/arcbroker/policy.d/web.toml:4:1: unknown key `usr`
  |
4 | usr = "www-data"
  | ^^^ allowed here: name, user, group, unit, container, resources, identity, bypass-cache; did you mean `user`?
/etc/arcbroker/policy.d/web.toml:5:14: `vault.azure.net` has no scheme
  |
5 | resources = ["vault.azure.net", "https://graph.microsoft.com//.default", "keyvualt"]
  |              ^^^^^^^^^^^^^^^^^ write https://vault.azure.net
/etc/arcbroker/policy.d/web.toml:5:33: `https://graph.microsoft.com//.default` is a scope, not a resource
  |
5 | resources = ["vault.azure.net", "https://graph.microsoft.com//.default", "keyvualt"]
  |                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ drop the /.default and write https://graph.microsoft.com/: the slash before it belongs to the resource
/etc/arcbroker/policy.d/web.toml:5:74: no well-known resource is named `keyvualt`
  |
5 | resources = ["vault.azure.net", "https://graph.microsoft.com//.default", "keyvualt"]
  |                                                                          ^^^^^^^^^^ did you mean keyvault? known names: arm, keyvault, managedhsm, storage, graph, sql, postgres, mysql, servicebus, eventhubs, cosmos, monitor, loganalytics, acr, aks, devops, batch; or write the resource in full, with its scheme
/etc/arcbroker/policy.d/web.toml:7:1: `resources` is missing
  |
7 | [[rule]]
  | ^^^^^^^^ name what is allowed: resources = ["keyvault"]
/etc/arcbroker/policy.d/web.toml:9:20: `group` must be a name, a number or a list of these, not a boolean
  |
9 | group = ["deploy", true, -1, ""]
  |                    ^^^^ write group = "name", group = 1000 or group = ["name", 1000]
/etc/arcbroker/policy.d/web.toml:9:26: `group` has a number that no account can have
  |
9 | group = ["deploy", true, -1, ""]
  |                          ^^ write a number from 0 to 4294967294
/etc/arcbroker/policy.d/web.toml:9:30: `group` has a name that no account can have
  |
9 | group = ["deploy", true, -1, ""]
  |                              ^^ write a name as `getent` lists it, or a number
/etc/arcbroker/policy.d/web.toml:10:23: `x` is no GUID
   |
10 | identity = ["system", "client-id:x"]
   |                       ^^^^^^^^^^^^^ write it like 6dae42f8-4368-4678-94ff-3960e28e3630
/etc/arcbroker/policy.d/web.toml:12:3: unknown key `rules`
   |
12 | [[rules]]
   |   ^^^^^ allowed here: version, rule; did you mean `rule`?
12 errors"#;
    assert_eq!(messages(text), expected);
}

#[test]
fn broken_grammar_does_not_hide_the_other_mistakes() {
    let text = "version = 1
[[rule]]
name = \"a
user = \"alice\"
user = \"bob\"
resource = \"keyvault\"
";
    let expected = "/etc/arcbroker/policy.d/web.toml:3:10: the string is not closed
  |
3 | name = \"a
  |          ^ write \" at its end
/etc/arcbroker/policy.d/web.toml:5:1: key `user` is given twice
  |
5 | user = \"bob\"
  | ^^^^ remove one of the two
/etc/arcbroker/policy.d/web.toml:6:1: unknown key `resource`
  |
6 | resource = \"keyvault\"
  | ^^^^^^^^ allowed here: name, user, group, unit, container, resources, identity, bypass-cache; did you mean `resources`?
3 errors";
    assert_eq!(messages(text), expected);
}

#[test]
fn what_is_left_of_a_broken_line_is_not_judged() {
    let text = "version = 1\n[[rule]]\nname = \"a\"\nuser = 1\nresources = \"a\\qrm\"\n";
    let found = messages(text);
    assert!(
        found.contains("web.toml:5:16: missing escaped value"),
        "{found}"
    );
    assert!(found.ends_with("\n1 error"), "{found}");
}

#[test]
fn what_is_legal_but_odd_is_a_warning() {
    let text = r#"version = 1
[[rule]]
name = "all"
user = ["alice", "nobody-here"]
resources = "*"
[[rule]]
name = "twice"
user = 7
resources = ["keyvault", "https://vault.azure.net", "https://*.x"]
identity = ["system", "system"]
[[rule]]
name = "late"
user = "alice"
group = "deploy"
resources = "arm"
"#;
    let expected = r#"/etc/arcbroker/policy.d/web.toml:4:18: warning: no user is named `nobody-here` on this system
  |
4 | user = ["alice", "nobody-here"]
  |                  ^^^^^^^^^^^^^ matches nobody: create the user, or correct the name
/etc/arcbroker/policy.d/web.toml:5:13: warning: too wide: this rule gives every resource
  |
5 | resources = "*"
  |             ^^^ name the resources that are needed, so that no other can be had
/etc/arcbroker/policy.d/web.toml:9:26: warning: `https://vault.azure.net` is listed twice: it is the same as `keyvault`
  |
9 | resources = ["keyvault", "https://vault.azure.net", "https://*.x"]
  |                          ^^^^^^^^^^^^^^^^^^^^^^^^^ remove one of the two
/etc/arcbroker/policy.d/web.toml:9:53: warning: the `*` in this resource is taken literally
  |
9 | resources = ["keyvault", "https://vault.azure.net", "https://*.x"]
  |                                                     ^^^^^^^^^^^^^ name each resource; only "*" alone stands for all
/etc/arcbroker/policy.d/web.toml:10:23: warning: this identity is listed twice
   |
10 | identity = ["system", "system"]
   |                       ^^^^^^^^ remove one of the two
/etc/arcbroker/policy.d/web.toml:12:8: warning: this rule never decides: earlier rules give the same
   |
12 | name = "late"
   |        ^^^^^^ remove it, or narrow `all` at /etc/arcbroker/policy.d/web.toml:3
6 warnings"#;
    assert_eq!(messages(text), expected);
}

#[test]
fn subjects_that_are_nobody_or_everybody_are_named() {
    let warnings = |rule: &str| {
        let text = format!("version = 1\n[[rule]]\nname = 'a'\n{rule}\nresources = 'arm'\n");
        let mut found = Diagnostics::new();
        let rules = RuleSet::parse(&[file("f", text)], Cloud::Public, &mut found).unwrap();
        let ids = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 7)).collect();
        let unit = |name: &str, known| (name.to_owned(), known);
        let accounts = Accounts {
            users: ids(&["nobody"]),
            groups: ids(&["users", "arcbroker", "nogroup"]),
            units: [
                unit("here.service", UnitFile::Here),
                unit("w@.service", UnitFile::Here),
                unit("sshd.service", UnitFile::AliasOf("ssh.service".to_owned())),
                unit("pipewire.service", UnitFile::OfUsers),
                unit("backp.service", UnitFile::Missing),
                unit("user@1000.service", UnitFile::Missing),
            ]
            .into(),
        };
        _ = rules.compile(&accounts, &mut found);
        assert!(!found.has_errors());
        found
            .iter()
            .map(|one| format!("{}: {}", one.message, one.help.as_deref().unwrap()))
            .collect::<Vec<_>>()
    };
    for (rule, parts) in [
        (
            "unit = ['here.service', 'w@*.service', 'unasked.service']",
            &[][..],
        ),
        (
            "unit = 'sshd.service'",
            &["`sshd.service` is another name of `ssh.service`"],
        ),
        (
            "unit = 'pipewire.service'",
            &["is a unit of users, not of the system: it matches nobody: name the user"],
        ),
        (
            "unit = 'backp.service'",
            &["there is no unit file `backp.service` on this system"],
        ),
        (
            "unit = 'user@1000.service'",
            &["`user@1000.service` belongs to a user"],
        ),
        ("unit = 'user@*.service'", &["belongs to a user"]),
        ("unit = 'session-3.scope'", &["belongs to a user"]),
        ("unit = 'app-foo@1.service'", &["belongs to a user"]),
        ("unit = 'init.scope'", &["`init.scope` holds systemd alone"]),
        (
            "unit = 'docker-1f.scope'",
            &[
                "is the scope of a container: it matches nobody",
                "write container = true",
            ],
        ),
        (
            "user = 'nobody'",
            &["too wide: programs that have nothing to do with each other"],
        ),
        ("user = 65534", &["too wide"]),
        (
            "group = ['users', 'nogroup']",
            &["group `users` holds accounts", "group `nogroup` holds"],
        ),
        (
            "group = 'arcbroker'",
            &["everybody who may connect is in group `arcbroker`"],
        ),
        (
            "user = 0\ncontainer = true",
            &["root is the same user in every container"],
        ),
        ("user = 0\nunit = 'here.service'\ncontainer = true", &[]),
        ("user = 0\ncontainer = false", &[]),
    ] {
        let found = warnings(rule);
        assert_eq!(found.is_empty(), parts.is_empty(), "{rule}: {found:?}");
        for part in parts {
            assert!(
                found.iter().any(|one| one.contains(part)),
                "{rule}: {found:?}"
            );
        }
    }
}

#[test]
fn one_spelling_of_a_well_known_resource_is_named() {
    let warnings = |resources: &str| {
        messages(format!(
            "version = 1\n[[rule]]\nname = 'a'\nuser = 1\nresources = {resources}\n"
        ))
    };
    for (resources, part) in [
        (
            "'https://vault.azure.net'",
            "`https://vault.azure.net` with a slash at its end is another resource, and SDKs ask for either",
        ),
        (
            "'https://vault.azure.net/'",
            "without a slash at its end is another resource",
        ),
        (
            "'https://management.azure.com/'",
            "write \"arm\" to allow both",
        ),
        (
            "['https://vault.azure.net/', 'https://vault.azure.net']",
            "`https://vault.azure.net` is listed with and without a slash",
        ),
    ] {
        let found = warnings(resources);
        assert!(
            found.contains(part) && found.ends_with("\n1 warning"),
            "{found}"
        );
    }
    for resources in [
        "'keyvault'",
        "'https://own.example'",
        "['https://own.example', 'https://own.example/']",
        "'aks'",
    ] {
        assert_eq!(warnings(resources), "");
    }
}

#[test]
fn rules_on_units_can_be_refused_where_they_stand() {
    let text = "version = 1\n[[rule]]\nname = 'a'\nunit = ['a.service', 'b.service']\nresources = 'arm'\n\
                [[rule]]\nname = 'b'\nuser = 1\nresources = 'arm'\n";
    let mut found = Diagnostics::new();
    let rules = RuleSet::parse(&[file("f", text)], Cloud::Public, &mut found).unwrap();
    assert_eq!(
        rules.unit_names().into_iter().collect::<Vec<_>>(),
        ["a.service", "b.service"]
    );
    rules.refuse_units("this kernel is too old", "upgrade it", &mut found);
    assert_eq!(
        found.to_string(),
        "f:4:9: this kernel is too old\n  |\n4 | unit = ['a.service', 'b.service']\n  |         ^^^^^^^^^^^ upgrade it\n1 error"
    );
}

#[test]
fn names_of_rules_are_unique_over_all_files() {
    let text = "version = 1\n[[rule]]\nname = \"one\"\nuser = 1\nresources = \"arm\"\n";
    let mut diagnostics = Diagnostics::new();
    let files = [file("a.toml", text), file("b.toml", text)];
    assert!(RuleSet::parse(&files, Cloud::Public, &mut diagnostics).is_none());
    let expected = "b.toml:3:8: another rule is named `one`
  |
3 | name = \"one\"
  |        ^^^^^ choose another name: a.toml:3 has this one
1 error";
    assert_eq!(diagnostics.to_string(), expected);
}

#[test]
fn each_mistake_has_its_message() {
    for (rule, part) in [
        ("user = []", "`user` has 0 entries"),
        ("user = [1, [2]]", "not a list"),
        (
            "user = 4294967295",
            "`user` has a number that no account can have",
        ),
        (
            "user = '4294967295'",
            "`user` has a number that no account can have",
        ),
        ("user = '0012'", "`user` has a number that begins with 0"),
        (
            "user = 99999999999999999999",
            "not a number with more than 64 bits",
        ),
        ("user = 1.5", "not a number with a fraction"),
        ("user = 1979-05-27", "not a date"),
        ("user = {name = 'x'}", "not a table"),
        (
            "user = \"a\\u0000b\"",
            "`user` has a name that no account can have",
        ),
        (
            "user = 1\nresources = ['*', 'arm']",
            "`*` already stands for every resource",
        ),
        ("user = 1\nresources = []", "`resources` has 0 entries"),
        ("user = 1\nidentity = 'System'", "`System` is no identity"),
        ("unit = 'backup'", "`backup` is no name of a unit"),
        (
            "unit = ['a.service', 'b@.service']",
            "`b@.service` names no instance",
        ),
        (
            "unit = 7",
            "`unit` must be a string or a list of strings, not a number",
        ),
        ("unit = []", "`unit` has 0 entries"),
        (
            "container = true\nresources = 'arm'",
            "the rule names no user, no group and no unit",
        ),
        (
            "user = 1\ncontainer = 1",
            "`container` must be true or false, not a number",
        ),
        (
            "user = 1\nbypass-cache = 'yes'",
            "`bypass-cache` must be true or false, not a string",
        ),
        ("user = 1\nexe = '/usr/bin/x'", "unknown key `exe`"),
    ] {
        let found = messages(format!("version = 1\n[[rule]]\nname = 'a'\n{rule}\n"));
        assert!(found.contains(part), "{rule}:\n{found}");
    }
    for name in [
        "",
        " a",
        "a ",
        "a\\nb",
        "a\\u202eb",
        "\\u001b[31m",
        &"n".repeat(65),
    ] {
        let found = messages(format!(
            "version = 1\n[[rule]]\nname = \"{name}\"\nuser = 1\nresources = 'arm'\n"
        ));
        assert!(
            found.contains("the name cannot be shown in one line"),
            "{name}:\n{found}"
        );
    }
}

#[test]
fn the_version_is_required_and_a_newer_one_is_not_guessed_at() {
    let missing = "/etc/arcbroker/policy.d/web.toml:1:1: `version` is missing
  |
1 | # nothing yet
  | ^ write version = 1 as the first line
1 error";
    assert_eq!(messages("# nothing yet\n"), missing);
    let newer = messages("version = 2\nnew-key = 1\n[[rule]]\n");
    assert!(
        newer.contains(":1:11: version 2 of policy files is not known"),
        "{newer}"
    );
    assert!(newer.ends_with("\n1 error"), "{newer}");
}

#[test]
fn a_configuration_is_read_with_the_same_means() {
    let text =
        b"[upstream]\nkind = 1\n[limits]\nconnections = 0\nconections-per-user = 3\n[sockets]\n";
    let mut found = Diagnostics::new();
    let document = Document::parse("broker.toml", text, &mut found).unwrap();
    let mut root = document.table();
    let mut upstream = root.table("upstream", &mut found).unwrap();
    assert!(upstream.string("kind", &mut found).is_none());
    upstream.finish(&mut found);
    let mut limits = root.table("limits", &mut found).unwrap();
    assert!(
        limits
            .integer("connections", 1..=65_536, &mut found)
            .is_none()
    );
    assert!(
        limits
            .integer("connections-per-user", 1..=65_536, &mut found)
            .is_none()
    );
    limits.finish(&mut found);
    assert!(root.table("policy", &mut found).is_none());
    root.finish(&mut found);
    let expected = "broker.toml:2:8: `kind` must be a string, not a number
  |
2 | kind = 1
  |        ^ write kind = \"...\"
broker.toml:4:15: `connections` is out of range
  |
4 | connections = 0
  |               ^ write a number from 1 to 65536
broker.toml:5:1: unknown key `conections-per-user`
  |
5 | conections-per-user = 3
  | ^^^^^^^^^^^^^^^^^^^ allowed here: connections, connections-per-user; did you mean `connections-per-user`?
broker.toml:6:2: unknown key `sockets`
  |
6 | [sockets]
  |  ^^^^^^^ allowed here: upstream, limits, policy
4 errors";
    assert_eq!(found.to_string(), expected);
}

#[test]
fn values_know_where_they_are_written() {
    let mut found = Diagnostics::new();
    let text = "a = true\nlist = ['x',\n  'y']\nmode = '0999'\n";
    let document = Document::parse("broker.toml", text.as_bytes(), &mut found).unwrap();
    let mut root = document.table();
    assert!(root.boolean("a", &mut found).unwrap().value);
    let list = root.strings("list", &mut found).unwrap();
    assert_eq!(
        list.iter()
            .map(|one| one.value.as_str())
            .collect::<Vec<_>>(),
        ["x", "y"]
    );
    assert_eq!((list[1].location.line(), list[1].location.column()), (3, 3));
    let mode = root.string("mode", &mut found).unwrap();
    root.finish(&mut found);
    assert!(found.is_empty(), "{found}");
    found.error_at(
        &mode,
        format!("`{}` is no mode", mode.value),
        "write it in octal, like \"0660\"",
    );
    assert!(
        found
            .to_string()
            .starts_with("broker.toml:4:8: `0999` is no mode\n"),
        "{found}"
    );
    assert_eq!(mode.location.file(), "broker.toml");
}

#[test]
fn the_examples_of_the_documentation_can_be_used_as_they_are() {
    let page = include_str!("../../../docs/policy.md");
    let blocks = page.split("```toml\n").skip(1);
    let blocks: Vec<&str> = blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() > 5, "{blocks:?}");
    for block in blocks {
        let version = if block.contains("version") {
            ""
        } else {
            "version = 1\n"
        };
        let text = format!("{version}{block}");
        let mut found = Diagnostics::new();
        assert!(
            RuleSet::parse(&[file("docs/policy.md", &text)], Cloud::Public, &mut found).is_some(),
            "{found}"
        );
        assert!(found.is_empty(), "{found}");
    }
}
