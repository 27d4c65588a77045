//! Tokens of user-assigned identities: asked for by the right name, kept apart, and told by name.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_e2e::{Setup, World};
use himds_sim::{AgentVersion, Identity, Machine};
use nix::unistd::geteuid;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const UNASSIGNED: &str = "7d2f9b6e-4c81-4a35-9e07-b5d0c8f3a162";

fn user() -> Identity {
    Machine::default().user_identities.remove(0)
}

/// The policy gives the system identity, the one user-assigned one by each name, and a stranger.
fn setup() -> Setup {
    let (
        uid,
        Identity {
            client_id,
            object_id,
            resource_id,
        },
    ) = (geteuid(), user());
    Setup {
        policy: format!(
            "version = 1\n[[rule]]\nname = \"all\"\nuser = {uid}\nresources = [\"keyvault\"]\nidentity = [\"system\", \
             \"client-id:{client_id}\", \"object-id:{object_id}\", \"resource-id:{resource_id}\", \"client-id:{UNASSIGNED}\"]\n"
        ),
        ..Setup::default()
    }
}

/// What was asked for besides resource and api-version, at the last request.
fn selector(world: &World) -> Vec<(String, String)> {
    let mut query = world.asked().pop().unwrap().query;
    query.retain(|(name, _)| name != "resource" && name != "api-version");
    query
}

#[tokio::test(flavor = "multi_thread")]
async fn b25_each_identity_has_a_token_of_its_own() {
    let world = World::with(setup()).await;
    let Identity {
        client_id,
        object_id,
        resource_id,
    } = user();
    let mut tokens = Vec::new();
    for (asked, sent) in [
        (None, None),
        (Some(("client_id", &client_id)), Some("client_id")),
        (Some(("object_id", &object_id)), Some("object_id")),
        (Some(("msi_res_id", &resource_id)), Some("msi_res_id")),
    ] {
        let query = asked
            .map(|(name, value)| format!("&{name}={value}"))
            .unwrap_or_default();
        let before = world.asked().len();
        for _ in 0..2 {
            let answer = world.token(&format!("{VAULT}{query}")).await;
            assert_eq!(
                answer.status,
                200,
                "{asked:?}: {answer:?}\n{}",
                world.daemon.log()
            );
            tokens.push(answer.json()["access_token"].clone());
        }
        assert_eq!(
            world.asked().len(),
            before + 2,
            "{asked:?}: one fetch for both"
        );
        let value = asked.map(|(_, value)| value.clone());
        let expected: Vec<_> = sent.map(str::to_owned).zip(value).into_iter().collect();
        assert_eq!(selector(&world), expected);
    }
    assert_ne!(
        tokens[0], tokens[2],
        "the machine's own token for a user-assigned identity"
    );
    for pair in tokens.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    let identities: Vec<_> = world
        .status()
        .await
        .tokens
        .into_iter()
        .map(|token| token.identity)
        .collect();
    assert_eq!(identities.len(), 4, "{identities:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn u12_a_confirmed_identity_is_told_by_name() {
    let world = World::with(setup()).await;
    let client_id = user().client_id;
    let answer = world
        .token(&format!("{VAULT}&client_id={}", client_id.to_uppercase()))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json()["client_id"].as_str().unwrap().to_lowercase(),
        client_id
    );
    assert!(world.token(VAULT).await.json().get("client_id").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn u13_a_resource_id_is_always_asked_for_by_the_name_that_himds_knows() {
    let world = World::with(setup()).await;
    let resource_id = user().resource_id;
    let encoded = resource_id.replace('/', "%2F");
    let answer = world.token(&format!("{VAULT}&mi_res_id={encoded}")).await;
    assert_eq!(answer.status, 200, "{answer:?}\n{}", world.daemon.log());
    assert_eq!(selector(&world), [("msi_res_id".to_owned(), resource_id)]);
    // By its other name it is the same.
    assert_eq!(
        world
            .token(&format!("{VAULT}&msi_res_id={encoded}"))
            .await
            .body
            .len(),
        answer.body.len()
    );
    assert_eq!(world.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn b28_an_identity_that_the_machine_does_not_have_is_a_wrong_request() {
    let world = World::with(setup()).await;
    for _ in 0..2 {
        let answer = world
            .token(&format!("{VAULT}&client_id={UNASSIGNED}"))
            .await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (400, "invalid_request")
        );
        assert!(
            answer.body.contains("Identity not found"),
            "SDKs look for this: {answer:?}"
        );
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!(
        world.asked().len(),
        2,
        "it is not tried again, and remembered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn u12_an_agent_that_does_not_know_identities_gives_no_token_for_one() {
    let world = World::with(Setup {
        simulator: |options| options.agent_version = AgentVersion::new(1, 65),
        ..setup()
    })
    .await;
    let Identity {
        client_id,
        object_id,
        resource_id,
    } = user();
    for selector in [
        format!("client_id={client_id}"),
        format!("object_id={object_id}"),
        format!("msi_res_id={resource_id}"),
    ] {
        let answer = world.token(&format!("{VAULT}&{selector}")).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (502, "server_error"),
            "{selector}"
        );
        let failure = world.status().await.upstream.last_failure.unwrap();
        assert!(failure.contains("1.66"), "{failure}");
    }
    assert_eq!(
        world.token(VAULT).await.status,
        200,
        "its own token, it gives"
    );
}
