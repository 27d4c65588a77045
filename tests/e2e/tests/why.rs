//! The reasons of decisions, rules for a while, and a policy that is only tried.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use arcbroker_client::Case;
use arcbroker_e2e::{World, eventually};
use nix::unistd::geteuid;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const GRAPH: &str = "https%3A%2F%2Fgraph.microsoft.com";

fn text(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A broker that knows which cloud it is in: before, no grant is given and nothing is tried.
async fn settled() -> World {
    let world = World::start().await;
    eventually("the cloud is known", || async {
        world.status().await.upstream.cloud.is_some()
    })
    .await;
    world
}

/// The rule that a grant for the user of the tests needs.
fn grant_for_graph() -> String {
    let uid = geteuid();
    format!(
        "version = 1\n[[rule]]\nname = \"grant: on call\"\nuser = {uid}\nresources = \"graph\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_names_a_request_that_can_be_explained_until_it_is_allowed() {
    let world = World::start().await;
    let denial = world.token(GRAPH).await;
    assert_eq!(denial.status, 403);
    let id = denial.json()["request_id"].as_str().unwrap().to_owned();
    let words = denial.json()["message"].as_str().unwrap().to_owned();
    assert!(
        words.contains(&format!("sudo arcbroker why {id};")),
        "{words}"
    );

    let why = world.admin_client().explain(&id).await.unwrap();
    assert!(!why.allowed);
    assert_eq!(why.denial.as_deref(), Some("no-rule-for-resource"));
    assert_eq!(why.explained.uid, geteuid().as_raw());
    assert_eq!(why.explained.resource, "https://graph.microsoft.com");
    assert_eq!(
        (why.rules_total, why.rules[0].failed.as_slice()),
        (1, &["resources".to_owned()][..])
    );
    assert!(why.rules[0].file.ends_with("policy.d/test.toml") && why.rules[0].line == 3);
    let decision = why.decision.unwrap();
    assert_eq!((decision.id, decision.policy), (id.clone(), why.policy));

    let screen = text(&world.arcbroker(&["why", &id]).await);
    assert!(
        screen.contains("may not have a token for https://graph.microsoft.com"),
        "{screen}"
    );
    assert!(screen.contains("sudo arcbroker allow "), "{screen}");
    let list = text(&world.arcbroker(&["why"]).await);
    assert!(
        list.contains(&id) && list.contains("https://graph.microsoft.com"),
        "{list}"
    );

    let uid = geteuid();
    world.write_policy(&format!(
        "version = 1\n[[rule]]\nname = \"all\"\nuser = {uid}\nresources = \"*\"\n"
    ));
    world.daemon.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("the new policy is in force", || async {
        world.admin_client().explain(&id).await.unwrap().allowed
    })
    .await;
    let screen = text(&world.arcbroker(&["why", &id]).await);
    assert!(screen.contains("The policy has changed since"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_request_is_judged_and_costs_nothing() {
    let world = World::start().await;
    let case = |uid, resource: &str| Case {
        uid,
        gid: uid,
        resource: resource.to_owned(),
        ..Case::default()
    };
    let (client, me) = (world.admin_client(), geteuid().as_raw());
    assert!(
        client
            .explain_case(&case(me, "keyvault"))
            .await
            .unwrap()
            .allowed
    );
    let other = client
        .explain_case(&case(me + 1, "keyvault"))
        .await
        .unwrap();
    assert_eq!(other.denial.as_deref(), Some("no-rule-for-caller"));
    assert!(world.audit().is_empty() && world.simulator().tokens() == 0);
    let screen = world
        .arcbroker(&["why", "--user", &me.to_string(), "keyvault"])
        .await;
    assert!(text(&screen).starts_with("allowed"), "{screen:?}");
    let unit = world.arcbroker(&["why", "--unit", "a b", "keyvault"]).await;
    assert_eq!(unit.status.code(), Some(1), "{unit:?}");
    let list = world.arcbroker(&["why", "--json"]).await;
    let list: serde_json::Value = serde_json::from_str(&text(&list)).unwrap();
    assert_eq!(
        (&list["schema"], list["decisions"].as_array().map(Vec::len)),
        (&1.into(), Some(0))
    );
    let wrong = world.arcbroker(&["why", "--identity", "system"]).await;
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let wrong = world.arcbroker(&["why", "keyvault"]).await;
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("name who asks"),
        "{wrong:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_gives_a_token_until_it_ends_and_the_record_names_it() {
    let world = settled().await;
    let client = world.admin_client();
    assert_eq!(world.token(GRAPH).await.status, 403);
    let hour = Duration::from_hours(1);
    let given = client
        .give(&grant_for_graph(), hour, "INC-7")
        .await
        .unwrap();
    assert_eq!((given.number, given.reason.as_str()), (1, "INC-7"));
    assert_eq!(world.token(GRAPH).await.status, 200);
    assert_eq!(world.audit().last().unwrap()["rule"], "grant: on call");
    assert_eq!(world.status().await.policy.grants[0].number, 1);
    let whoami = world.client().whoami().await.unwrap();
    assert!(
        whoami
            .resources
            .iter()
            .any(|allowed| allowed.rule == "grant: on call")
    );

    assert_eq!(client.end_grant(1).await.unwrap().number, 1);
    assert_eq!(world.token(GRAPH).await.status, 403);
    assert!(client.grants().await.unwrap().is_empty());

    let second = Duration::from_secs(1);
    client
        .give(&grant_for_graph(), second, "INC-8")
        .await
        .unwrap();
    eventually("the grant has ended by itself", || async {
        world.token(GRAPH).await.status == 403
    })
    .await;
    let log = world.daemon.log();
    for words in [
        "a grant was given",
        "a grant was ended by command",
        "a grant has ended",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_gives_lists_and_ends_a_grant() {
    let world = settled().await;
    let me = geteuid().to_string();
    let give = [
        "grant",
        "--user",
        &me,
        "--for",
        "30m",
        "--reason",
        "INC-9; $(id)",
        "graph",
    ];
    let said = text(&world.arcbroker(&give).await);
    assert!(
        said.starts_with("grant 1 is in force for 30 min, until "),
        "{said}"
    );
    assert_eq!(world.token(GRAPH).await.status, 200);
    assert_eq!(world.audit()[0]["rule"], "grant: INC-9; $(id)");
    let list = text(&world.arcbroker(&["grant", "--list"]).await);
    assert!(
        list.contains(&format!("user = {me}, resources = \"graph\"")),
        "{list}"
    );
    let ended = text(&world.arcbroker(&["grant", "--end", "1"]).await);
    assert_eq!(ended, "grant 1 has ended: INC-9; $(id)\n");
    assert_eq!(world.token(GRAPH).await.status, 403);
    for wrong in [
        &["grant", "--user", &me, "--for", "30m", "graph"][..],
        &["grant", "--user", &me, "--reason", "x", "graph"],
        &["grant", "--for", "30m", "--reason", "x", "graph"],
        &["grant", "--list", "--end", "1"],
    ] {
        assert_eq!(
            world.arcbroker(wrong).await.status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
    let unknown = world.arcbroker(&["grant", "--end", "7"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_with_a_mistake_gives_nothing() {
    let world = settled().await;
    let client = world.admin_client();
    let rule = grant_for_graph();
    let hour = Duration::from_hours(1);
    for (rule, time, reason, words) in [
        (rule.replace("user", "usr"), hour, "x", "usr"),
        (rule.replace("grant: ", ""), hour, "x", "`rule`"),
        (
            format!(
                "{rule}{}",
                rule.replace("version = 1\n", "").replace("call", "call 2")
            ),
            hour,
            "x",
            "`rule`",
        ),
        ("version = 1\n".to_owned(), hour, "x", "`rule`"),
        (rule.clone(), Duration::ZERO, "x", "`seconds`"),
        (rule.clone(), Duration::from_hours(25), "x", "`seconds`"),
        (rule.clone(), hour, " ", "`reason`"),
    ] {
        let error = client
            .give(&rule, time, reason)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(world.admin("/v1/grants?number=1").await.status, 400);
    assert_eq!(world.command("/v1/grants").await.status, 400);
    assert!(client.end_grant(1).await.is_err());
    assert_eq!(world.token(GRAPH).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_policy_is_counted_and_decides_nothing() {
    let world = settled().await;
    let (dir, uid) = (world.path("policy.shadow.d"), geteuid());
    fs::create_dir(&dir).unwrap();
    let file = dir.join("next.toml");
    let rule =
        format!("version = 1\n[[rule]]\nname = \"next\"\nuser = {uid}\nresources = \"graph\"\n");
    fs::write(&file, rule).unwrap();
    for path in [&dir, &file] {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    world.daemon.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("the shadow policy is loaded", || async {
        world.status().await.policy.shadow.is_some()
    })
    .await;
    for _ in 0..3 {
        assert_eq!(world.token(VAULT).await.status, 200);
    }
    assert_eq!(world.token(GRAPH).await.status, 403);
    let shadow = world.status().await.policy.shadow.unwrap();
    assert_eq!((shadow.would_allow, shadow.would_deny), (1, 3));
    let seen: Vec<_> = shadow
        .differences
        .iter()
        .map(|seen| (seen.rule.as_str(), seen.would.as_str(), seen.count))
        .collect();
    assert_eq!(seen, [("test", "deny", 3), ("next", "allow", 1)]);
    let log = world.daemon.log();
    assert_eq!(
        log.matches("the shadow policy would decide otherwise")
            .count(),
        2,
        "{log}"
    );

    fs::write(&file, "version = 1\n[[rule]]\n").unwrap();
    world.daemon.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("the mistake shows", || async {
        world.status().await.policy.shadow.unwrap().error.is_some()
    })
    .await;
    assert_eq!(world.token(VAULT).await.status, 200);
    assert!(world.status().await.policy.reload_error.is_none());
}
