//! The main job: a token over the socket.

use arcbroker_e2e::World;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";

#[tokio::test(flavor = "multi_thread")]
async fn b01_a_token_is_handed_out_in_the_shape_that_every_sdk_accepts() {
    let world = World::start().await;
    let answer = world.token(VAULT).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(
        answer.header("content-length"),
        Some(answer.body.len().to_string().as_str())
    );
    assert_eq!(answer.header("retry-after"), None);
    let body = answer.json();
    let fields: Vec<_> = answer
        .body
        .split('"')
        .skip(1)
        .step_by(2)
        .step_by(2)
        .collect();
    assert_eq!(
        fields,
        [
            "access_token",
            "refresh_token",
            "expires_in",
            "not_before",
            "resource",
            "token_type",
            "expires_on"
        ]
    );
    assert!(
        body.as_object()
            .unwrap()
            .values()
            .all(serde_json::Value::is_string),
        "{body}"
    );
    assert_eq!(body["resource"], "https://vault.azure.net");
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(world.simulator().challenges(), 1);
    assert_eq!(world.simulator().tokens(), 1);
}
