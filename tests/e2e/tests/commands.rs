//! The commands of administrators, against a daemon that decides by what they write.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use arcbroker_client::wire::{AuditRecord, ReloadAnswer};
use arcbroker_e2e::{Setup, User, World, skip_unless_root};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";

/// Nobody may have anything.
async fn empty() -> World {
    World::with(Setup {
        policy: "version = 1\n".to_owned(),
        ..Setup::default()
    })
    .await
}

fn text(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(stdout).into_owned() + &String::from_utf8_lossy(stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_is_given_at_once_and_what_is_revoked_is_denied_at_once() {
    if skip_unless_root("what_is_allowed_is_given_at_once_and_what_is_revoked_is_denied_at_once") {
        return;
    }
    let world = empty().await;
    let (one, other) = (User::in_socket_group(64_101), User::in_socket_group(64_102));
    assert_eq!(world.token_as(&one, VAULT).await.status, 403);

    let ran = world
        .arcbroker(&["allow", "--user", "64101", "--user", "64102", "keyvault"])
        .await;
    assert!(ran.status.success(), "{}", text(&ran));
    let said = text(&ran);
    assert!(
        said.contains("+ user 64101 gains https://vault.azure.net"),
        "{said}"
    );
    assert!(
        !said.contains("does not run") && !said.contains("differ"),
        "{said}"
    );
    for user in [&one, &other] {
        assert_eq!(world.token_as(user, VAULT).await.status, 200);
    }

    let ran = world
        .arcbroker(&["revoke", "--user", "64101", "keyvault"])
        .await;
    assert!(ran.status.success(), "{}", text(&ran));
    assert_eq!(world.token_as(&one, VAULT).await.status, 403);
    assert_eq!(world.token_as(&other, VAULT).await.status, 200);

    let ran = world.arcbroker(&["revoke", "--user", "64102", "*"]).await;
    assert!(ran.status.success(), "{}", text(&ran));
    assert_eq!(world.token_as(&other, VAULT).await.status, 403);
    let left: Vec<_> = fs::read_dir(world.path("policy.d")).unwrap().collect();
    assert_eq!(
        left.len(),
        1,
        "the test's own file is what is left: {left:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_an_interrupted_command_is_not_read() {
    let world = empty().await;
    let half = world.path("policy.d/.arcbroker-1.tmp");
    fs::write(&half, "version = 1\n[[rule]]\nname = \"ha").unwrap();
    let answer: ReloadAnswer =
        serde_json::from_str(&world.command("/v1/reload").await.body).unwrap();
    assert_eq!((answer.rules, answer.error), (0, None));
    let ran = world
        .arcbroker(&["allow", "--user", "64101", "keyvault"])
        .await;
    assert!(ran.status.success() && !half.exists(), "{}", text(&ran));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_on_command_says_what_is_in_force_and_why_the_files_are_not() {
    let world = World::start().await;
    let reload = async || -> ReloadAnswer {
        let answer = world.command("/v1/reload").await;
        assert_eq!(answer.status, 200);
        serde_json::from_str(&answer.body).unwrap()
    };
    let good = reload().await;
    assert_eq!((good.rules, &good.error), (1, &None));
    assert_eq!(good.hash, world.status().await.policy.hash);

    world.write_policy("nonsense");
    let bad = reload().await;
    assert_eq!((bad.rules, &bad.hash), (1, &good.hash));
    assert!(bad.error.unwrap().contains("test.toml:1:"));
    assert_eq!(
        world.token(VAULT).await.status,
        200,
        "the old one is in force"
    );
    let ran = world.arcbroker(&["reload"]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran));
    // What others have broken is told, and nothing is written beside it.
    let ran = world
        .arcbroker(&["allow", "--user", "64101", "storage"])
        .await;
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran));
    assert!(text(&ran).contains("test.toml:1:"), "{}", text(&ran));

    assert_eq!(world.admin("/v1/reload").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_the_daemon_are_a_whole_chain_over_a_rotation() {
    let world = World::start().await;
    let rotated = world.path("log.d/audit.jsonl.1");
    assert_eq!(world.token(VAULT).await.status, 200);
    fs::rename(world.path("log.d/audit.jsonl"), &rotated).unwrap();
    world.daemon.signal(Signal::SIGHUP);
    arcbroker_e2e::eventually("the new file is there", || async {
        world.path("log.d/audit.jsonl").exists()
    })
    .await;
    assert_eq!(world.token("https%3A%2F%2Fother.example").await.status, 403);
    let text_of = |path| fs::read_to_string(path).unwrap();
    for line in text_of(world.path("log.d/audit.jsonl")).lines() {
        let record: AuditRecord = serde_json::from_str(line).unwrap();
        let again = serde_json::to_value(&record).unwrap();
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(again, value, "the type has every key of a record");
    }
    let ran = world.arcbroker(&["audit", "verify"]).await;
    assert!(ran.status.success(), "{}", text(&ran));
    assert!(
        text(&ran).contains("whole: 2 records in 2 files"),
        "{}",
        text(&ran)
    );

    let altered = text_of(rotated.clone()).replace("\"issued\"", "\"denied\"");
    fs::write(&rotated, altered).unwrap();
    fs::set_permissions(&rotated, Permissions::from_mode(0o640)).unwrap();
    let ran = world.arcbroker(&["audit", "verify"]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_policy_that_is_promoted_is_in_force_and_is_tried_no_more() {
    let world = World::start().await;
    let (shadow, uid) = (world.path("policy.shadow.d"), geteuid());
    fs::create_dir(&shadow).unwrap();
    fs::set_permissions(&shadow, Permissions::from_mode(0o755)).unwrap();
    let next = shadow.join("next.toml");
    let rule =
        format!("version = 1\n[[rule]]\nname = \"next\"\nuser = {uid}\nresources = \"graph\"\n");
    fs::write(&next, rule).unwrap();
    fs::set_permissions(&next, Permissions::from_mode(0o644)).unwrap();
    let ran = world.arcbroker(&["reload"]).await;
    assert!(ran.status.success(), "{}", text(&ran));
    assert!(world.status().await.policy.shadow.is_some());
    assert_eq!(world.token(VAULT).await.status, 200);

    let ran = world.arcbroker(&["policy", "promote"]).await;
    assert!(ran.status.success(), "{}", text(&ran));
    assert_eq!(world.token(VAULT).await.status, 403);
    assert_eq!(
        world
            .token("https%3A%2F%2Fgraph.microsoft.com")
            .await
            .status,
        200
    );
    let policy = world.status().await.policy;
    assert_eq!((policy.rules, policy.shadow.is_none()), (1, true));

    let again = world.arcbroker(&["policy", "promote"]).await;
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains("there are no rules to promote"));
    assert_eq!(
        world.token(VAULT).await.status,
        403,
        "the old one is not back"
    );
}
