//! `arcbroker policy`

use crate::place::Place;

const RULE: &str = "version = 1\n[[rule]]\nname = \"backup\"\nuser = \"ghost\"\ngroup = 500\nresources = \"keyvault\"\n";

#[test]
fn expectations_are_met_or_told_with_their_place_and_the_reasons() {
    let place = Place::new();
    place.write("policy.d/a.toml", RULE);
    let good = "\
version = 1
[accounts.users]
ghost = 1001
[accounts.groups]
staff = 500
[[expect]]
user = \"ghost\"
group = [1, \"staff\"]
resource = \"keyvault\"
decision = \"allow\"
rule = \"backup\"
[[expect]]
user = 1002
group = 500
resource = \"keyvault\"
decision = \"deny\"
";
    place.write("good.toml", good);
    let ran = place.run("policy test good.toml");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "2 expectations, all met\n"),
        "{ran:?}"
    );

    place.write(
        "bad.toml",
        &good
            .replace("\"deny\"", "\"allow\"")
            .replace("\"backup\"", "\"b\""),
    );
    let ran = place.run("policy test bad.toml");
    assert_eq!(
        ran.stdout,
        "\
bad.toml:6: allowed by rule backup, expected rule b
  rule backup, DIR/policy.d/a.toml:3: allows it
bad.toml:12: denied, expected to be allowed: no rule holds for this caller
  rule backup, DIR/policy.d/a.toml:3: does not hold by its user
2 expectations, 2 not met
"
    );
    assert_eq!(ran.code, 1);
}

#[test]
fn the_example_of_the_documentation_can_be_used_as_it_is() {
    let page = include_str!("../../../../docs/policy.md");
    let block = |begin: &str| {
        let rest = page.split(begin).nth(1).unwrap();
        rest.split("```").next().unwrap()
    };
    let place = Place::new();
    place.write("expected.toml", block("```toml expectations\n"));
    let rule = "version = 1\n\n\n[[rule]]\nname = \"nightly\"\nunit = \"backup.service\"\nresources = [\"storage\"]\n";
    place.write("policy.d/50-nightly.toml", rule);
    let command = "policy test expected.toml --policy-dir ./policy.d";
    let ran = place.run(command);
    assert_eq!(
        ran.stdout,
        block(&format!("```console\n$ arcbroker {command}\n"))
    );
}

#[test]
fn mistakes_in_expectations_are_told_all_at_once() {
    let place = Place::new();
    place.write(
        "t.toml",
        "version = 1\n[[expect]]\nuser = \"no-such-user\"\nresource = \"nonsense\"\ndecision = \"maybe\"\nusr = 1\n",
    );
    let ran = place.run("policy test t.toml");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    for expected in [
        "t.toml:3:8: this user is not known here",
        "t.toml:4:12",
        "t.toml:5:12: this is no decision",
        "t.toml:6:1: unknown key `usr`",
    ] {
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
    place.write("t.toml", "version = 1\n");
    assert!(
        place
            .run("policy test t.toml")
            .stderr
            .contains("nothing is expected")
    );
}

#[test]
fn a_difference_has_exit_code_1_and_trouble_2() {
    let place = Place::new();
    place.write(
        "policy.d/a.toml",
        "version = 1\n[[rule]]\nname = \"a\"\nuser = 64999\nresources = \"https://a.example\"\n",
    );
    place.write("shadow.d/a.toml", "version = 1\n[[rule]]\nname = \"b\"\nuser = 64999\nresources = [\"https://a.example\", \"https://b.example\"]\n");
    let ran = place.run("policy diff policy.d shadow.d");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (1, "+ user 64999 gains https://b.example (rule b)\n")
    );
    let ran = place.run("policy diff shadow.d policy.d --json");
    assert_eq!(
        ran.stdout,
        "{\"schema\":1,\"complete\":true,\"changes\":[{\"gained\":false,\"user\":64999,\"group\":null,\"unit\":null,\
         \"container\":false,\"identity\":\"system\",\"resource\":\"https://b.example\",\"permission\":\"access\",\
         \"rule\":\"b\"}]}\n"
    );
    let ran = place.run("policy diff policy.d policy.d");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert_eq!(place.run("policy diff policy.d nowhere").code, 2);
    place.write("shadow.d/b.toml", "nonsense");
    let ran = place.run("policy diff policy.d shadow.d");
    assert!(
        ran.code == 2 && ran.stderr.contains("shadow.d/b.toml:1:"),
        "{ran:?}"
    );
}

#[test]
fn promote_puts_the_shadow_in_force_and_keeps_what_was() {
    let place = Place::new();
    place.write("policy.d/old.toml", &RULE.replace("\"ghost\"", "64999"));
    let ran = place.run("policy promote");
    assert_eq!(ran.code, 1, "nothing to promote: {ran:?}");
    place.write("shadow.d/new.toml", &RULE.replace("\"ghost\"", "64998"));
    let ran = place.run("policy promote --dry-run");
    assert!(
        ran.code == 0 && ran.stdout.contains("+ user 64998, group 500 gains"),
        "{ran:?}"
    );
    assert_eq!(place.names("policy.d"), ["old.toml"]);
    let ran = place.run("policy promote");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("- user 64999, group 500 loses"),
        "{ran:?}"
    );
    assert_eq!(place.names("policy.d"), ["new.toml"]);
    assert!(place.names("shadow.d").is_empty());
    let all = place.names("");
    let aside = all
        .iter()
        .find(|name| name.starts_with("policy.d.before-"))
        .unwrap();
    assert_eq!(place.names(aside), ["old.toml"]);
}

#[test]
fn a_promotion_that_the_daemon_refuses_is_undone() {
    let place = Place::with_daemon(&["\"no\"", "null"]);
    place.write("policy.d/old.toml", &RULE.replace("\"ghost\"", "64999"));
    place.write("shadow.d/new.toml", &RULE.replace("\"ghost\"", "64998"));
    let ran = place.run("policy promote");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(
        (place.names("policy.d"), place.names("shadow.d")),
        (vec!["old.toml".to_owned()], vec!["new.toml".to_owned()])
    );
}

fn record(seq: u64, outcome: &str, uid: u32, rule: &str) -> String {
    format!(
        "{{\"schema\":1,\"time\":\"2026-11-24T00:00:{seq:02}.000Z\",\"seq\":{seq},\"prev\":\"\",\"id\":\"a-{seq}\",\"outcome\":\"{outcome}\",\
         \"uid\":{uid},\"gid\":7,\"user\":null,\"pid\":null,\"unit\":null,\"invocation\":null,\"container\":false,\"identity\":\"system\",\
         \"resource\":\"https://vault.azure.net\",\"rule\":{rule},\"policy\":\"0\",\"cache\":null,\"ms\":0,\"expires_on\":null,\"uti\":null,\
         \"token_sha256\":null}}\n"
    )
}

#[test]
fn replay_lists_every_decision_that_would_be_another_one() {
    let place = Place::new();
    place.write(
        "policy.d/a.toml",
        "version = 1\n[[rule]]\nname = \"a\"\nuser = 1\nresources = \"keyvault\"\n[[rule]]\nname = \"g\"\nuser = 3\ngroup = 500\nresources = \"keyvault\"\n",
    );
    place.write("audit.jsonl.2.gz", "");
    place.write(
        "audit.jsonl.1",
        &(record(1, "issued", 1, "\"a\"") + &record(2, "denied", 2, "null") + "noise\n"),
    );
    place.write("audit.jsonl", &record(3, "issued", 1, "\"a\""));
    let ran = place.run("policy replay");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (
            0,
            "not read, because it is compressed: DIR/audit.jsonl.2.gz\n3 records of 2 different requests: 0 flips\n1 line could not be read\n"
        )
    );
    place.write(
        "audit.jsonl",
        &(record(3, "issued", 2, "\"old\"")
            + &record(4, "unavailable", 2, "\"old\"")
            + &record(5, "denied", 1, "null")
            + &record(6, "issued", 3, "\"g\"")
            + &record(7, "malformed", 4, "null")),
    );
    let ran = place.run("policy replay");
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stdout,
        "\
not read, because it is compressed: DIR/audit.jsonl.2.gz
allowed by rule a: user 1, https://vault.azure.net: was denied 1 time, last 2026-11-24T00:00:05.000Z
denied: user 2, https://vault.azure.net: was allowed by rule old 2 times, last 2026-11-24T00:00:04.000Z
depends on groups by rule g: user 3, https://vault.azure.net: was allowed by rule g 1 time, last 2026-11-24T00:00:06.000Z
7 records of 5 different requests: 2 flips
What depends on groups is allowed to members of a group only, and records do not hold groups.
1 line could not be read
"
    );
    let json = place.run("policy replay --json --policy shadow.d").stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["flips"].as_array().unwrap().len(), 3, "{json}");
    assert_eq!(json["flips"][0]["now"], "denied");
    assert_eq!(
        place.run("policy replay --since 1s").code,
        0,
        "all of them are older"
    );
    assert_eq!(place.run("policy replay --since nonsense").code, 2);
}

#[test]
fn the_configuration_that_is_named_must_be_there_and_right() {
    let place = Place::new();
    let ran = place.run("--config nowhere.toml rules");
    assert!(
        ran.code == 1 && ran.stderr.contains("nowhere.toml: cannot be read"),
        "{ran:?}"
    );
    place.write("c.toml", "[policy]\ndir = 1\n");
    let ran = place.run("--config c.toml rules");
    assert!(
        ran.code == 1 && ran.stderr.contains("c.toml:2:7"),
        "{ran:?}"
    );
    assert!(place.dir().exists());
}
