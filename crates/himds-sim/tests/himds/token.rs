//! H02, H18 to H23 and H27: what a token is, and whose, and from where.

use std::time::Duration;

use himds_sim::{AgentVersion, HandClock, Machine};

use crate::{
    START,
    support::{METADATA, TOKEN, VAULT, World, claims},
};

fn client_id() -> String {
    Machine::default().user_identities[0].client_id.clone()
}

fn old_agent(major: u32, minor: u32) -> impl FnOnce(&mut himds_sim::Options) {
    move |options| options.agent_version = AgentVersion::new(major, minor)
}

#[tokio::test]
async fn h02_the_token_has_the_claims_of_a_managed_identity() {
    let world = World::new().await;
    let answer = world.token().await;
    let claims = claims(&answer.text("access_token"));
    let machine = Machine::default();
    let issuer = format!("https://sts.windows.net/{}/", machine.tenant_id);
    for (claim, value) in [
        ("aud", VAULT),
        ("iss", &issuer),
        ("idp", &issuer),
        ("appid", &machine.client_id),
        ("appidacr", "2"),
        ("idtyp", "app"),
        ("oid", &machine.object_id),
        ("sub", &machine.object_id),
        ("tid", &machine.tenant_id),
        ("ver", "1.0"),
    ] {
        assert_eq!(claims[claim], *value, "{claim}");
    }
    assert_eq!(claims["exp"].to_string(), answer.text("expires_on"));
    assert_eq!(claims["nbf"].to_string(), answer.text("not_before"));
    assert_eq!(
        claims["iat"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(),
        300
    );
    let id = claims["xms_mirid"].as_str().unwrap();
    assert!(
        id.starts_with("/subscriptions/") && id.contains("/resourcegroups/"),
        "{id}"
    );
    assert!(
        id.ends_with("/providers/Microsoft.HybridCompute/machines/sim-machine-1"),
        "{id}"
    );
    assert!(
        !claims["rh"].as_str().unwrap().is_empty() && !claims["uti"].as_str().unwrap().is_empty()
    );
}

#[tokio::test]
async fn h02_the_audience_is_the_resource_byte_for_byte() {
    let world = World::new().await;
    for (sent, resource) in [
        ("https%3A%2F%2Fvault.azure.net", "https://vault.azure.net"),
        ("https://vault.azure.net/", "https://vault.azure.net/"),
        (
            "https://management.azure.com//.default",
            "https://management.azure.com//.default",
        ),
        ("api%3a%2f%2fA%20b", "api://A b"),
        (
            "6dae42f8-4368-4678-94ff-3960e28e3630",
            "6dae42f8-4368-4678-94ff-3960e28e3630",
        ),
    ] {
        let target = format!("{TOKEN}?api-version=2020-06-01&resource={sent}");
        let key = world.get(&target, &[METADATA]).await.key();
        let answer = world
            .get(
                &target,
                &[METADATA, ("Authorization", &format!("Basic {key}"))],
            )
            .await;
        assert_eq!(answer.text("resource"), resource);
        assert_eq!(claims(&answer.text("access_token"))["aud"], resource);
    }
}

#[tokio::test]
async fn h18_a_user_assigned_identity_is_served_and_echoed() {
    let world = World::new().await;
    let identity = Machine::default().user_identities[0].clone();
    for (selector, value) in [
        ("client_id", &identity.client_id),
        ("object_id", &identity.object_id),
        ("msi_res_id", &identity.resource_id),
    ] {
        let answer = world.token_with(&format!("&{selector}={value}")).await;
        assert_eq!(answer.text(selector), *value);
        let claims = claims(&answer.text("access_token"));
        assert_eq!(claims["appid"], *identity.client_id);
        assert_eq!(claims["xms_mirid"], *identity.resource_id);
    }
    let both = format!(
        "&client_id={}&object_id={}",
        identity.client_id, identity.object_id
    );
    assert_eq!(world.token_with(&both).await.status, 400);
}

#[tokio::test]
async fn h19_an_older_agent_silently_serves_the_system_assigned_identity() {
    let world = World::with(old_agent(1, 65)).await;
    for client_id in [client_id(), "not-assigned".to_owned()] {
        let answer = world.token_with(&format!("&client_id={client_id}")).await;
        assert_eq!(answer.status, 200);
        assert!(answer.json().get("client_id").is_none());
        assert_eq!(
            claims(&answer.text("access_token"))["appid"],
            *Machine::default().client_id
        );
    }
}

#[tokio::test]
async fn h20_mi_res_id_is_ignored() {
    let world = World::new().await;
    let id = Machine::default().user_identities[0].resource_id.clone();
    let answer = world.token_with(&format!("&mi_res_id={id}")).await;
    assert_eq!(answer.fields().len(), 7);
    assert_eq!(
        claims(&answer.text("access_token"))["appid"],
        *Machine::default().client_id
    );
}

#[tokio::test]
async fn h21_an_identity_that_is_not_assigned_is_not_found_after_the_challenge() {
    let world = World::new().await;
    let answer = world
        .token_with("&client_id=3b0c1f6e-0000-4000-8000-000000000000")
        .await;
    assert_eq!(answer.status, 404);
    let expected = serde_json::json!({
        "error": "identity_not_found",
        "error_description": "Identity not found: error acquiring access token: requested identity was not found",
        "error_codes": [404],
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn h22_an_equal_request_is_answered_from_the_cache() {
    let clock = HandClock::at(START);
    let world = World::with(|options| options.clock = clock.clock()).await;
    let first = world.token().await;
    assert_eq!(first.text("expires_in"), "86400");
    assert_eq!(first.text("not_before"), (START - 300).to_string());
    clock.advance(Duration::from_secs(10));
    let second = world.token().await;
    assert_eq!(second.text("expires_in"), "86390");
    for field in ["access_token", "expires_on", "not_before"] {
        assert_eq!(second.text(field), first.text(field), "{field}");
    }
    let other = format!("{TOKEN}?api-version=2020-06-01&resource={VAULT}/");
    let key = world.get(&other, &[METADATA]).await.key();
    let other = world
        .get(
            &other,
            &[METADATA, ("Authorization", &format!("Basic {key}"))],
        )
        .await;
    assert_ne!(
        other.text("access_token"),
        first.text("access_token"),
        "a slash makes another resource"
    );
}

#[tokio::test]
async fn h22_a_cached_token_is_replaced_shortly_before_its_end() {
    let clock = HandClock::at(START);
    let world = World::with(|options| options.clock = clock.clock()).await;
    let first = world.token().await.text("access_token");
    clock.advance(Duration::from_mins(24 * 60 - 5));
    assert_eq!(world.token().await.text("access_token"), first);
    clock.advance(Duration::from_secs(1));
    let answer = world.token().await;
    assert_ne!(answer.text("access_token"), first);
    assert_eq!(answer.text("expires_in"), "86400");
}

#[tokio::test]
async fn h22_a_short_lived_token_is_cached_for_half_of_its_life() {
    let clock = HandClock::at(START);
    let world = World::with(|options| {
        options.clock = clock.clock();
        options.lifetime = Duration::from_secs(90);
    })
    .await;
    let first = world.token().await.text("access_token");
    clock.advance(Duration::from_secs(45));
    assert_eq!(world.token().await.text("access_token"), first);
    clock.advance(Duration::from_secs(1));
    assert_ne!(world.token().await.text("access_token"), first);
}

#[tokio::test]
async fn h23_bypass_cache_gives_a_new_token() {
    let world = World::new().await;
    let first = world.token().await.text("access_token");
    assert_eq!(
        world
            .token_with("&bypass_cache=false")
            .await
            .text("access_token"),
        first
    );
    let fresh = world
        .token_with("&bypass_cache=true")
        .await
        .text("access_token");
    assert_ne!(fresh, first);
    assert_eq!(
        world.token().await.text("access_token"),
        fresh,
        "the new one is cached"
    );
}

#[tokio::test]
async fn h23_an_older_agent_ignores_bypass_cache() {
    let world = World::with(old_agent(1, 65)).await;
    let first = world.token().await.text("access_token");
    assert_eq!(
        world
            .token_with("&bypass_cache=true")
            .await
            .text("access_token"),
        first
    );
}

#[tokio::test]
async fn h27_an_old_agent_leaves_fields_blank() {
    for (agent, not_before, resource) in [
        ((1, 0), true, true),
        ((1, 14), true, false),
        ((1, 15), false, false),
    ] {
        let world = World::with(old_agent(agent.0, agent.1)).await;
        let answer = world.token().await;
        assert_eq!(
            answer.text("not_before").is_empty(),
            not_before,
            "{agent:?}"
        );
        assert_eq!(answer.text("resource").is_empty(), resource, "{agent:?}");
        assert_eq!(claims(&answer.text("access_token"))["aud"], VAULT);
    }
}
