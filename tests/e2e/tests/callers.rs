//! Who may have what: real users of the machine, told apart by the kernel.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_e2e::{SOCKET_GID, Setup, User, World, eventually, skip_unless_root};
use tokio::process::Command;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";

const ALICE: User = User::in_socket_group(64_101);
const BOB: User = User::in_socket_group(64_102);
const TEAM: u32 = 64_110;

fn with_policy(policy: &str) -> Setup {
    Setup {
        policy: policy.to_owned(),
        ..Setup::default()
    }
}

fn alice_may_have_keyvault() -> Setup {
    with_policy(
        "version = 1\n[[rule]]\nname = \"alice\"\nuser = 64101\nresources = [\"keyvault\"]\n",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn b24_a_user_without_a_rule_is_told_what_an_administrator_can_do() {
    if skip_unless_root("b24_a_user_without_a_rule_is_told_what_an_administrator_can_do") {
        return;
    }
    let world = World::with(alice_may_have_keyvault()).await;
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 200);
    let denied = world.token_as(&BOB, VAULT).await;
    assert_eq!(
        (denied.status, denied.json()["error"].as_str()),
        (403, Some("access_denied")),
        "{denied:?}"
    );
    assert_eq!(denied.header("retry-after"), None);

    let record = world.audit().pop().unwrap();
    assert_eq!(
        (record["outcome"].as_str(), record["uid"].as_u64()),
        (Some("denied"), Some(64_102)),
        "{record}"
    );
    let id = record["id"].as_str().unwrap();
    assert_eq!(denied.json()["request_id"], id);
    let words = denied.json()["error_description"]
        .as_str()
        .unwrap()
        .to_owned();
    let why = format!("sudo arcbroker why {id}");
    let allow = "sudo arcbroker allow --user 64102 https://vault.azure.net";
    for part in [
        "uid 64102",
        "https://vault.azure.net",
        id,
        "administrator",
        &why,
        allow,
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(world.simulator().tokens(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn b24_a_denial_does_not_tell_what_others_may_have() {
    if skip_unless_root("b24_a_denial_does_not_tell_what_others_may_have") {
        return;
    }
    let world = World::with(alice_may_have_keyvault()).await;
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 200);
    let mut words = Vec::new();
    for resource in [
        "https://vault.azure.net",
        "https://no.such.resource.example",
    ] {
        let denied = world
            .token_as(&BOB, &resource.replace("://", "%3A%2F%2F"))
            .await;
        let id = denied.json()["request_id"].as_str().unwrap().to_owned();
        words.push(denied.body.replace(resource, "RESOURCE").replace(&id, "ID"));
    }
    assert_eq!(words[0], words[1]);
    assert_eq!(
        world.token_as(&ALICE, STORAGE).await.status,
        403,
        "a rule gives what it names and no more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn root_has_no_implicit_grant() {
    if skip_unless_root("root_has_no_implicit_grant") {
        return;
    }
    let world = World::with(alice_may_have_keyvault()).await;
    let denied = world.token(VAULT).await;
    assert_eq!(denied.status, 403, "{denied:?}");
    // No request waits long for a name; once it is found, it is kept.
    eventually("it is said who that is", || async {
        let denied = world.token(VAULT).await;
        assert_eq!(denied.status, 403, "{denied:?}");
        let message = denied.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("uid 0"), "{message}");
        message.contains("uid 0 (root)")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b29_a_caller_outside_the_group_of_the_socket_cannot_connect() {
    if skip_unless_root("b29_a_caller_outside_the_group_of_the_socket_cannot_connect") {
        return;
    }
    let world = World::with(alice_may_have_keyvault()).await;
    let outsider = User {
        groups: &[],
        ..ALICE
    };
    let url = format!(
        "http://localhost/metadata/identity/oauth2/token?api-version=2019-11-01&resource={VAULT}"
    );
    let output = world
        .curl_as(&outsider, &["--header", "Metadata: true", &url])
        .await;
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(7), 0),
        "curl could not connect: {output:?}"
    );
    assert_eq!(world.audit().len(), 0);
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn b29_the_admin_socket_is_for_its_owner_alone() {
    if skip_unless_root("b29_the_admin_socket_is_for_its_owner_alone") {
        return;
    }
    let world = World::with(alice_may_have_keyvault()).await;
    let admin = world.admin_socket().display().to_string();
    // The last --unix-socket counts.
    let output = world
        .curl_as(
            &ALICE,
            &["--unix-socket", &admin, "http://localhost/v1/status"],
        )
        .await;
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(7), 0),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_on_groups_see_the_primary_and_every_supplementary_group() {
    if skip_unless_root("rules_on_groups_see_the_primary_and_every_supplementary_group") {
        return;
    }
    let rule =
        "version = 1\n[[rule]]\nname = \"team\"\ngroup = 64110\nresources = [\"keyvault\"]\n";
    let world = World::with(with_policy(rule)).await;
    for (what, caller, status) in [
        (
            "primary",
            User {
                uid: 64_103,
                gid: TEAM,
                groups: &[SOCKET_GID],
            },
            200,
        ),
        (
            "supplementary",
            User {
                uid: 64_104,
                gid: 64_104,
                groups: &[SOCKET_GID, TEAM],
            },
            200,
        ),
        ("neither", User::in_socket_group(64_105), 403),
        (
            "a user with the number of the group",
            User {
                uid: TEAM,
                gid: 64_106,
                groups: &[SOCKET_GID],
            },
            403,
        ),
    ] {
        let answer = world.token_as(&caller, VAULT).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    }
    let many: Vec<_> = world
        .audit()
        .iter()
        .map(|record| record["rule"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(
        many,
        [Some("team".to_owned()), Some("team".to_owned()), None, None]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_with_a_user_and_a_group_wants_both() {
    if skip_unless_root("a_rule_with_a_user_and_a_group_wants_both") {
        return;
    }
    let rule = "version = 1\n[[rule]]\nname = \"both\"\nuser = [64101, 64102]\ngroup = 64110\nresources = [\"keyvault\"]\n";
    let world = World::with(with_policy(rule)).await;
    let in_team = |uid| User {
        uid,
        gid: uid,
        groups: &[SOCKET_GID, TEAM],
    };
    assert_eq!(world.token_as(&in_team(64_101), VAULT).await.status, 200);
    assert_eq!(world.token_as(&in_team(64_102), VAULT).await.status, 200);
    assert_eq!(world.token_as(&in_team(64_103), VAULT).await.status, 403);
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoami_shows_another_user_its_own_groups_and_resources_only() {
    if skip_unless_root("whoami_shows_another_user_its_own_groups_and_resources_only") {
        return;
    }
    let world = World::with(alice_may_have_keyvault()).await;
    let alice = world
        .get_as(&ALICE, "http://localhost/v1/whoami")
        .await
        .json();
    assert_eq!(
        (alice["uid"].as_u64(), alice["gid"].as_u64()),
        (Some(64_101), Some(64_101))
    );
    assert!(
        alice["groups"]
            .as_array()
            .unwrap()
            .contains(&SOCKET_GID.into()),
        "{alice}"
    );
    assert_eq!(alice["resources"][0]["resource"], "https://vault.azure.net");
    let bob = world
        .get_as(&BOB, "http://localhost/v1/whoami")
        .await
        .json();
    assert_eq!(bob["resources"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_with_too_many_connections_is_told_so_and_others_are_not_affected() {
    let me = User::current().uid;
    let policy = format!(
        "version = 1\n[[rule]]\nname = \"test\"\nuser = [{me}, 64101]\nresources = [\"keyvault\"]\n"
    );
    let limits = vec![("limits", "connections-per-user = 4".to_owned())];
    let world = World::with(Setup {
        policy,
        config: limits,
        ..Setup::default()
    })
    .await;
    let mut held = Vec::new();
    loop {
        let mut connection = world.connect().await;
        let answer = connection.get("/v1/health").await;
        if answer.status == 429 {
            break;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        held.push(connection);
    }
    assert!(held.len() <= 4, "{}", held.len());

    let refused = world.token(VAULT).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("1")),
        "{refused:?}"
    );
    assert_eq!(refused.json()["error"], "too_many_requests");
    assert!(
        refused.json()["error_description"]
            .as_str()
            .unwrap()
            .contains("connections-per-user"),
        "{refused:?}"
    );
    assert!(
        world
            .client()
            .token("keyvault")
            .await
            .unwrap_err()
            .is_transient()
    );
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ]);
    curl.arg("--unix-socket")
        .arg(world.token_socket())
        .arg("http://localhost/v1/health");
    let heard = curl.output().await.unwrap();
    assert_eq!(
        (heard.status.code(), heard.stdout),
        (Some(0), b"429".to_vec())
    );
    if !skip_unless_root("the part with another user") {
        assert_eq!(world.token_as(&ALICE, VAULT).await.status, 200);
    }
    drop(held);
    eventually("places are free again", || async {
        world.token(VAULT).await.status == 200
    })
    .await;
    assert!(world.status().await.connections.refused >= 4);
}
