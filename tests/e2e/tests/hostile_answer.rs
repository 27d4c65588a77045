//! Answers to a good key that are no token: refused, not kept, and not a word of them told.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_e2e::{Answer, Setup, World, eventually};
use himds_sim::Fault;
use nix::unistd::geteuid;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const USER: &str = "3e7b5a90-d1c4-4286-9f0e-6c28a4b7e153";
const OTHER: &str = "7d2f9b6e-4c81-4a35-9e07-b5d0c8f3a162";

async fn anything() -> World {
    World::with(Setup {
        policy: World::anything(),
        ..Setup::default()
    })
    .await
}

/// Asks while the fault is in force; the answer must be a 502 after two tries with two keys.
async fn refuse(world: &World, resource: &str, fault: (&str, Option<&str>)) -> Answer {
    world.simulator().clear_journal();
    world
        .simulator()
        .set_fault(Fault::new(fault.0, fault.1).unwrap());
    let answer = world.token(resource).await;
    world.simulator().clear_faults();
    let what = format!("{fault:?}: {answer:?}");
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (502, "server_error"),
        "{what}"
    );
    let (asked, with_key) = (world.asked(), world.with_key());
    assert_eq!((asked.len(), with_key.len()), (4, 2), "{what}: {asked:?}");
    assert_ne!(with_key[0].key, with_key[1].key, "{what}");
    answer
}

async fn assert_nothing_came_of_it(world: &World, mut told: String) {
    let status = world.status().await;
    assert!(
        status.tokens.iter().all(|token| token.expires_on.is_none()),
        "{status:?}"
    );
    told.push_str(&world.said().await);
    // Beginnings of a token, of the fillings of the simulator, and of what its faults add.
    for secret in ["eyJ", "xxxxxxxx", "Sign in to", "X-Injected", "MARKER"] {
        assert!(!told.contains(secret), "{secret} was told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u18_hu10_an_answer_that_is_no_token_is_refused_and_not_kept() {
    let world = anything().await;
    let mut told = String::new();
    let mut first = None;
    for (number, fault) in [
        ("body-garbage", None),
        ("body-truncated", None),
        ("body-huge", None),
        ("body-huge", Some("65537")),
        ("body-html", None),
        ("body-empty", None),
        ("body-array", None),
        ("body-trailing", None),
        ("body-duplicate-keys", None),
        ("body-nan", None),
        ("empty-access-token", None),
        ("no-access-token", None),
        ("non-ascii-access-token", None),
        ("crlf-access-token", None),
        ("huge-access-token", None),
        ("huge-access-token", Some("16385")),
        ("huge-access-token", Some("19")),
        ("not-bearer", None),
        ("not-bearer", Some("MARKER")),
        ("wrong-resource", None),
        ("wrong-resource", Some("https://case-20.example")),
        ("expired", None),
        ("short-lifetime", Some("0")),
    ]
    .into_iter()
    .enumerate()
    {
        // With a slash, which one of the faults above leaves out.
        let resource = format!("https%3A%2F%2Fcase-{number}.example%2F");
        told.push_str(&refuse(&world, &resource, fault).await.body);
        first.get_or_insert(resource);
    }
    assert_nothing_came_of_it(&world, told).await;
    world.simulator().clear_journal();
    assert_eq!(world.token(VAULT).await.status, 200);
    let first = first.unwrap();
    eventually("the first failure is forgotten", || async {
        world.token(&first).await.status == 200
    })
    .await;
    assert_eq!(
        (world.simulator().challenges(), world.with_key().len()),
        (2, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn u14_a_token_without_an_end_is_refused() {
    let world = anything().await;
    let mut told = String::new();
    for (number, fault) in [
        ("no-expiry", None),
        ("expires-on", Some("")),
        ("expires-on", Some("0")),
        ("expires-on", Some("1000")),
        ("expires-on", Some("-1")),
        ("expires-on", Some("soon")),
        ("expires-on", Some("1e12")),
        ("expires-on", Some(" 4000000000")),
        ("expires-on", Some("99999999999999999999999")),
        ("expires-on", Some("01/01/2099 00:00:00 +00:00")),
        ("expires-on-float", None),
    ]
    .into_iter()
    .enumerate()
    {
        let resource = format!("https%3A%2F%2Fcase-{number}.example");
        told.push_str(&refuse(&world, &resource, fault).await.body);
    }
    assert_nothing_came_of_it(&world, told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u12_an_identity_that_is_not_confirmed_gets_no_token() {
    let uid = geteuid();
    let world = World::with(Setup {
        policy: format!(
            "version = 1\n[[rule]]\nname = \"user\"\nuser = {uid}\nresources = [\"*\"]\nidentity = [\"system\", \"client-id:{USER}\", \"client-id:{OTHER}\"]\n"
        ),
        ..Setup::default()
    })
    .await;
    let mut told = String::new();
    for (number, fault) in [
        ("no-echo", None),
        ("other-echo", None),
        ("other-echo", Some("")),
        ("other-echo", Some("MARKER")),
    ]
    .into_iter()
    .enumerate()
    {
        let resource = format!("https%3A%2F%2Fcase-{number}.example&client_id={USER}");
        told.push_str(&refuse(&world, &resource, fault).await.body);
    }
    assert_nothing_came_of_it(&world, told).await;
    // It is a matter of the echo alone.
    let resource = format!("https%3A%2F%2Fcase.example&client_id={USER}");
    assert_eq!(world.token(&resource).await.json()["client_id"], USER);
}
