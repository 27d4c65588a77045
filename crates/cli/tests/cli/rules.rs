//! `arcbroker allow`, `revoke`, `rules` and `reload`

use std::thread;

use crate::{
    place::Place,
    support::{Broker, answer},
};

const REFUSED: &str = r#""broker.toml:1:1: no""#;

#[test]
fn allow_writes_a_rule_and_says_what_changes_and_when() {
    let place = Place::new();
    let ran = place.run("allow --unit backup.service --user 1001 https://a.example");
    assert_eq!(
        ran.stdout,
        "\
written: DIR/policy.d/50-backup.service-1001-a.example.toml
+ backup.service, user 1001 gains https://a.example (rule backup.service-1001-a.example)
arcbrokerd does not run: this takes effect when it starts
"
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(
        place.read("policy.d/50-backup.service-1001-a.example.toml"),
        "\
# Made by: arcbroker allow --user 1001 --unit backup.service https://a.example
version = 1

[[rule]]
name = \"backup.service-1001-a.example\"
user = 1001
unit = \"backup.service\"
resources = \"https://a.example\"
"
    );
}

#[test]
fn what_is_allowed_already_is_not_allowed_twice() {
    let place = Place::new();
    assert_eq!(place.run("allow --user 1001 keyvault storage").code, 0);
    let ran = place.run("allow --user 1001 https://vault.azure.net/");
    assert_eq!(
        ran.stdout,
        "nothing to do: the rules give all of this already\n  user 1001 has https://vault.azure.net/ (rule \
         1001-keyvault-storage, DIR/policy.d/50-1001-keyvault-storage.toml:5)\n"
    );
    assert_eq!((ran.code, place.names("policy.d").len()), (0, 1));
    // Some of it is new.
    assert_eq!(
        place.run("allow --user 1001 keyvault --bypass-cache").code,
        0
    );
    assert_eq!(place.run("allow --user 1001 keyvault arm").code, 0);
    assert_eq!(place.names("policy.d").len(), 3);
}

#[test]
fn a_rule_that_would_be_wrong_is_shown_with_carets_and_nothing_is_left_behind() {
    let place = Place::new();
    place.write(
        "policy.d/a.toml",
        "version = 1\n[[rule]]\nname = \"a\"\nuser = 1\nresources = \"arm\"\n",
    );
    for (line, expected) in [
        ("allow --unit backup keyvault", "^^^^^^^^"),
        ("allow --user 1 nonsense", "`nonsense`"),
        ("allow --user 1 keyvault --name a", "a.toml:3:8"),
        (
            "allow --user no-such-user keyvault",
            "there is no user `no-such-user`",
        ),
    ] {
        let ran = place.run(line);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{line}");
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        assert_eq!(place.names("policy.d"), ["a.toml"]);
    }
    for line in [
        "allow keyvault",
        "allow --user 1",
        "allow --container keyvault",
        "revoke --user 1",
        "revoke arm",
    ] {
        assert_eq!(place.run(line).code, 2, "{line}");
    }
}

#[test]
fn a_dry_run_shows_all_and_writes_nothing() {
    let place = Place::new();
    let ran = place.run("allow --dry-run --user 1001 *");
    assert_eq!(ran.code, 0, "{ran:?}");
    for expected in [
        "+ user 1001 gains *",
        "too wide",
        "would be written to DIR/policy.d/50-1001-all.toml",
        "user = 1001",
    ] {
        assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    }
    assert!(place.names("policy.d").is_empty());
}

#[test]
fn what_the_daemon_refuses_is_taken_back_and_it_is_told_so() {
    let place = Place::with_daemon(&[REFUSED, "null"]);
    let ran = place.run("allow --user 1001 keyvault");
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "broker.toml:1:1: no\narcbroker: arcbrokerd refuses the new policy, so that everything is as it was\n"
    );
    assert!(place.names("policy.d").is_empty());
    assert_eq!(
        place.requests(),
        [
            "GET /v1/status HTTP/1.1",
            "POST /v1/reload HTTP/1.1",
            "POST /v1/reload HTTP/1.1"
        ]
    );

    let place = Place::with_daemon(&[REFUSED, "null"]);
    let rule = "version = 1\n[[rule]]\nname = \"a\"\nuser = [1, 2]\nresources = \"arm\"\n";
    place.write("policy.d/a.toml", rule);
    assert_eq!(place.run("revoke --user 1 arm").code, 1);
    assert_eq!(place.read("policy.d/a.toml"), rule);
}

#[test]
fn a_daemon_that_cannot_be_asked_stops_it_before_anything_is_written() {
    let place = Place::new();
    let broker = Broker::answering(vec!["nonsense".to_owned()]);
    let path = broker.path.display();
    let ran = place.run(&format!("--admin-socket {path} allow --user 1 arm"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(place.names("policy.d").is_empty());
}

#[test]
fn commands_at_one_time_lose_nothing_and_leave_nothing_half_done() {
    let place = Place::new();
    place.write("policy.d/.arcbroker-1.tmp", "half a file");
    thread::scope(|scope| {
        for user in 0..8 {
            let place = &place;
            scope.spawn(move || {
                let ran = place.run(&format!("allow --user 100{user} arm"));
                assert_eq!(ran.code, 0, "{ran:?}");
            });
        }
    });
    let names = place.names("policy.d");
    assert!(
        names.len() == 8 && names.iter().all(|name| name.starts_with("50-100")),
        "{names:?}"
    );
    let ran = place.run("rules --json");
    assert_eq!(ran.stdout.matches("\"rule\":").count(), 8);
}

#[test]
fn revoke_takes_away_what_allow_gave_and_its_file() {
    let place = Place::new();
    assert_eq!(place.run("allow --unit w@*.service keyvault").code, 0);
    let ran = place.run("revoke --unit w@*.service keyvault");
    assert_eq!(
        ran.stdout,
        "\
removed: DIR/policy.d/50-w@any.service-keyvault.toml
- w@*.service loses https://vault.azure.net, https://vault.azure.net/ (rule w@any.service-keyvault)
arcbrokerd does not run: this takes effect when it starts
"
    );
    assert_eq!((ran.code, place.names("policy.d").len()), (0, 0));
    let again = place.run("revoke --unit w@*.service keyvault");
    assert_eq!(
        (again.code, again.stdout.as_str()),
        (0, "nothing to take away: no rule gives this alone\n")
    );
}

#[test]
fn revoke_says_which_rules_still_give_it_and_fails() {
    let place = Place::new();
    place.write(
        "policy.d/a.toml",
        "version = 1\n[[rule]]\nname = \"narrow\"\nuser = [64998, 64999]\nresources = \"https://a.example\"\n\n\
         [[rule]]\nname = \"wide\"\nuser = 64998\nresources = \"*\"\n",
    );
    let ran = place.run("revoke --user 64998 https://a.example");
    assert_eq!(
        ran.stdout,
        "\
changed: DIR/policy.d/a.toml
arcbrokerd does not run: this takes effect when it starts
still given by rule wide, DIR/policy.d/a.toml:8
  user 64998 has https://a.example
  left alone, because `*` in it stands for more than what is asked: edit it, or remove it whole with
  arcbroker revoke --rule 'wide'
"
    );
    assert_eq!(ran.code, 1);
    assert!(place.read("policy.d/a.toml").contains("user = [64999]"));
    let ran = place.run("revoke --rule wide");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("- user 64998 loses * (rule wide)"),
        "{}",
        ran.stdout
    );
    assert_eq!(place.run("revoke --rule wide").code, 1);
}

#[test]
fn rules_are_a_table_or_json_and_can_be_narrowed_down() {
    let place = Place::new();
    place.write(
        "policy.d/a.toml",
        "version = 1\n[[rule]]\nname = \"r 1\"\nuser = [\"root\", 64999]\ncontainer = true\nresources = \"https://a.example\"\n\n\
         [[rule]]\nname = \"r 2\"\nunit = \"w@*.service\"\nresources = [\"https://a.example\", \"https://b.example\"]\n",
    );
    let ran = place.run("rules");
    let row = |who: &str, resource: &str, rule: &str, place: &str| {
        format!("{who:<31}  {resource:<17}  {rule:<14}  {place}\n")
    };
    let expected = [
        row("WHO", "RESOURCE", "IDENTITY  RULE", "PLACE"),
        row(
            "user root|64999, in a container",
            "https://a.example",
            "system    r 1",
            "DIR/policy.d/a.toml:3",
        ),
        row(
            "w@*.service",
            "https://a.example",
            "system    r 2",
            "DIR/policy.d/a.toml:9",
        ),
        row(
            "w@*.service",
            "https://b.example",
            "system    r 2",
            "DIR/policy.d/a.toml:9",
        ),
    ];
    assert_eq!(ran.stdout, expected.concat());
    for (filter, rules) in [
        ("--user 0", 1),
        ("--user 1", 0),
        ("--unit w@7.service", 1),
        ("--unit x.service", 0),
        ("--container", 1),
        ("https://a.example", 2),
        ("https://b.example", 1),
        ("nonsense", 0),
    ] {
        let ran = place.run(&format!("rules --json {filter}"));
        assert_eq!(
            (ran.code, ran.stdout.matches("\"line\":").count()),
            (0, rules),
            "{filter}"
        );
    }
    let json = place.run("rules --json --container").stdout;
    assert_eq!(
        json,
        "{\"schema\":1,\"rules\":[{\"rule\":\"r 1\",\"file\":\"DIR/policy.d/a.toml\",\"line\":3,\"users\":[0,64999],\
         \"groups\":null,\"units\":null,\"container\":true,\"resources\":[\"https://a.example\"],\
         \"identities\":[\"system\"],\"bypass_cache\":false}]}\n"
    );
}

#[test]
fn reload_says_what_is_in_force_or_why_the_files_are_not() {
    let body = |error: &str| {
        let body = format!(
            r#"{{"schema":1,"rules":1,"hash":"0a","error":{error},"warnings":["w:1:1: warning: x\n  = y"]}}"#
        );
        answer(200, "", &body)
    };
    let ran = Broker::answering(vec![body("null")]).run("reload");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "1 rule in force, hash 0a\nw:1:1: warning: x\n  = y\n")
    );
    let ran = Broker::answering(vec![body("\"f:1:1: no\"")]).run("reload");
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            1,
            "f:1:1: no\narcbroker: arcbrokerd refuses the policy, and the one from before stays in force\n"
        )
    );
}
