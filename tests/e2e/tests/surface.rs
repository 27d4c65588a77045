//! What the token socket and the admin socket answer to requests as SDKs and scripts send them.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_e2e::{Setup, User, World, eventually};
use himds_sim::Kind;

const TOKEN: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01";
const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const USER_ASSIGNED: &str = "3e7b5a90-d1c4-4286-9f0e-6c28a4b7e153";
const UNASSIGNED: &str = "00001111-aaaa-2222-bbbb-3333cccc4444";

fn policy(resources: &str, identities: &str) -> Setup {
    let uid = User::current().uid;
    let policy = format!(
        "version = 1\n[[rule]]\nname = \"test\"\nuser = {uid}\nresources = {resources}\nidentity = {identities}\n"
    );
    Setup {
        policy,
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b10_b11_b12_requests_as_sdks_send_them_share_one_token() {
    let world = World::start().await;
    let plain = world.get(&format!("{TOKEN}&resource={VAULT}")).await;
    assert_eq!(plain.status, 200, "{plain:?}");
    let token = plain.json()["access_token"].clone();
    let slash = TOKEN.replace("token?", "token/?");
    let form = "Content-Type: application/x-www-form-urlencoded";
    for (target, headers) in [
        (format!("{slash}&resource={VAULT}"), vec!["Metadata: true"]),
        (
            format!("{TOKEN}&resource=https://vault.azure.net"),
            vec!["Metadata: true"],
        ),
        (
            format!("{TOKEN}&resource={VAULT}"),
            vec!["Metadata: true", form],
        ),
        (
            format!("{TOKEN}&resource={VAULT}"),
            vec!["Metadata: true", form, "Content-Length: 0"],
        ),
        (
            format!("{TOKEN}&resource={VAULT}"),
            vec!["metadata: True", "accept-encoding: gzip", "accept: */*"],
        ),
    ] {
        let answer = world.get_with(&target, &headers).await;
        assert_eq!(answer.status, 200, "{target} {headers:?}: {answer:?}");
        assert_eq!(answer.json()["access_token"], token, "{target} {headers:?}");
        assert_eq!(
            answer.header("content-encoding"),
            None,
            "{target} {headers:?}"
        );
    }
    assert_eq!(
        world.simulator().token_requests(),
        2,
        "one challenge and one key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_one_connection_serves_many_requests() {
    let world = World::start().await;
    let mut connection = world.connect().await;
    for target in [
        format!("{TOKEN}&resource={VAULT}"),
        "/nowhere".to_owned(),
        format!("{TOKEN}&resource={VAULT}"),
    ] {
        let expected = if target == "/nowhere" { 404 } else { 200 };
        assert_eq!(connection.get(&target).await.status, expected, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b13_a_trailing_slash_makes_another_resource() {
    let world = World::with(policy(
        r#"["https://vault.azure.net", "https://vault.azure.net/"]"#,
        r#""system""#,
    ))
    .await;
    let mut tokens = Vec::new();
    for resource in ["https://vault.azure.net", "https://vault.azure.net/"] {
        let answer = world.token(&resource.replace("://", "%3A%2F%2F")).await;
        assert_eq!(answer.json()["resource"], resource, "{answer:?}");
        tokens.push(answer.json()["access_token"].clone());
    }
    assert_ne!(tokens[0], tokens[1]);
    let asked: Vec<_> = world
        .simulator()
        .journal()
        .iter()
        .filter_map(|entry| entry.parameter("resource").map(str::to_owned))
        .collect();
    let (without, with) = (
        "https://vault.azure.net".to_owned(),
        "https://vault.azure.net/".to_owned(),
    );
    assert_eq!(asked, [without.clone(), without, with.clone(), with]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b14_the_second_answer_is_the_same_token_with_the_seconds_that_are_left() {
    let world = World::start().await;
    let first = world.token(VAULT).await.json();
    let seconds = |answer: &serde_json::Value| {
        answer["expires_in"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    eventually("a second passes", || async {
        let later = world.token(VAULT).await.json();
        assert_eq!(
            (&later["access_token"], &later["expires_on"]),
            (&first["access_token"], &first["expires_on"])
        );
        assert!(seconds(&later) <= seconds(&first));
        seconds(&later) < seconds(&first)
    })
    .await;
    assert_eq!(
        (world.simulator().challenges(), world.simulator().tokens()),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b23_parameters_for_other_services_are_accepted_and_change_nothing() {
    let world = World::start().await;
    let plain = world.get(&format!("{TOKEN}&resource={VAULT}")).await.json();
    for extra in [
        "xms_cc=cp1",
        "authority=https%3A%2F%2Flogin.example%2Fx",
        "anything=at%20all&x",
        "bypass_cache=true",
    ] {
        let answer = world
            .get(&format!("{TOKEN}&{extra}&resource={VAULT}"))
            .await;
        assert_eq!(answer.status, 200, "{extra}: {answer:?}");
        assert_eq!(
            answer.json()["access_token"],
            plain["access_token"],
            "{extra}"
        );
    }
    assert_eq!(
        world.simulator().token_requests(),
        2,
        "one challenge and one key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b25_the_identities_of_the_machine_have_their_own_tokens() {
    let world = World::with(policy(
        r#"["keyvault"]"#,
        &format!(r#"["system", "client-id:{USER_ASSIGNED}"]"#),
    ))
    .await;
    let system = world.token(VAULT).await.json();
    let other = world
        .token(&format!("{VAULT}&client_id={USER_ASSIGNED}"))
        .await
        .json();
    assert_eq!(other["client_id"], USER_ASSIGNED);
    assert_eq!(system.get("client_id"), None);
    assert_ne!(system["access_token"], other["access_token"]);
    assert_eq!(
        world.token(VAULT).await.json()["access_token"],
        system["access_token"]
    );
    let again = world
        .token(&format!(
            "{VAULT}&client_id={}",
            USER_ASSIGNED.to_uppercase()
        ))
        .await
        .json();
    assert_eq!(again["access_token"], other["access_token"]);
    assert_eq!(world.simulator().tokens(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn b25_an_identity_that_no_rule_names_is_denied() {
    let world = World::start().await;
    for selector in [
        format!("client_id={USER_ASSIGNED}"),
        format!("object_id={UNASSIGNED}"),
    ] {
        let answer = world.token(&format!("{VAULT}&{selector}")).await;
        assert_eq!(answer.status, 403, "{selector}: {answer:?}");
    }
    assert_eq!(
        world.simulator().tokens(),
        1,
        "the machine's own, which the rule gives, to compare the selectors with"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b26_instance_metadata_is_passed_through_and_kept_for_a_while() {
    let world = World::start().await;
    let target = "/metadata/instance?api-version=2021-02-01";
    for _ in 0..3 {
        let answer = world.get(target).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            answer.json()["compute"]["resourceId"]
                .as_str()
                .unwrap()
                .contains("Microsoft.HybridCompute/machines")
        );
    }
    let asked = world
        .simulator()
        .journal()
        .iter()
        .filter(|entry| entry.kind == Kind::Instance)
        .count();
    assert_eq!(asked, 1);
    assert_eq!(world.get_with(target, &[]).await.status, 400);
    assert_eq!(
        world
            .get_with(target, &["Metadata: true", "X-Forwarded-For: 10.0.0.1"])
            .await
            .status,
        400
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b27_the_tenant_is_told_as_soon_as_it_is_known() {
    let world = World::start().await;
    let target = "/metadata/identity/info?api-version=2018-02-01";
    let before = world.get(target).await;
    assert_eq!(
        (before.status, before.json()["error"].as_str()),
        (404, Some("not_found")),
        "{before:?}"
    );
    assert_eq!(world.token(VAULT).await.status, 200);
    let tenant = world.simulator().options().machine.tenant_id.clone();
    let after = world.get(target).await;
    assert_eq!(
        (after.status, after.json()),
        (200, serde_json::json!({ "tenantId": tenant }))
    );
    assert_eq!(world.get_with(target, &[]).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn b27_where_upstream_tells_the_tenant_its_answer_is_passed_on() {
    let simulator = |options: &mut himds_sim::Options| {
        options.faults.push("himds-identity-info".parse().unwrap());
    };
    let world = World::with(Setup {
        simulator,
        ..Setup::default()
    })
    .await;
    let answer = world
        .get("/metadata/identity/info?api-version=2018-02-01")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json()["tenantId"],
        world.simulator().options().machine.tenant_id
    );
    assert_eq!(world.simulator().token_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b28_an_identity_that_the_machine_does_not_have_is_a_final_400() {
    let world = World::with(policy(
        r#"["keyvault"]"#,
        &format!(r#""client-id:{UNASSIGNED}""#),
    ))
    .await;
    let answer = world
        .token(&format!("{VAULT}&client_id={UNASSIGNED}"))
        .await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (400, None),
        "{answer:?}"
    );
    assert!(
        answer.json()["error_description"]
            .as_str()
            .unwrap()
            .starts_with("Identity not found"),
        "{answer:?}"
    );
    assert_eq!(
        world.simulator().challenges(),
        1,
        "asking again would not help"
    );
}
