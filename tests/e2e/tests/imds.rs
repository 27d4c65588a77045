//! The same sockets on an Azure VM: tokens from IMDS, which has no challenge but limits.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use arcbroker_e2e::{Answer, Connection, PATIENCE, Setup, World, eventually};
use himds_sim::{Authorization, Identity, Machine};
use nix::unistd::geteuid;
use tokio::task::JoinSet;
use tokio::time::sleep;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";
const UNASSIGNED: &str = "7d2f9b6e-4c81-4a35-9e07-b5d0c8f3a162";

/// An Azure VM where the user who runs the tests may have everything.
fn setup() -> Setup {
    Setup {
        kind: "imds",
        policy: World::anything(),
        simulator: |options| options.imds = true,
        ..Setup::default()
    }
}

fn user() -> Identity {
    Machine::default().user_identities.remove(0)
}

/// All resources for the machine's own identity and for the user-assigned one by each name.
fn with_identities() -> Setup {
    let Identity {
        client_id,
        object_id,
        resource_id,
    } = user();
    let uid = geteuid();
    Setup {
        policy: format!(
            "version = 1\n[[rule]]\nname = \"all\"\nuser = {uid}\nresources = [\"*\"]\nidentity = [\"system\", \
             \"client-id:{client_id}\", \"object-id:{object_id}\", \"resource-id:{resource_id}\", \"client-id:{UNASSIGNED}\"]\n"
        ),
        ..setup()
    }
}

/// A resource of its own for each case.
fn case(number: usize) -> String {
    format!("https%3A%2F%2Fcase-{number}.example")
}

#[tokio::test(flavor = "multi_thread")]
async fn u19_imds_is_asked_once_for_a_token_and_in_its_own_words() {
    let world = World::with(setup()).await;
    for _ in 0..3 {
        let answer = world.token(VAULT).await;
        assert_eq!(answer.status, 200, "{answer:?}\n{}", world.daemon.log());
        assert_eq!(answer.json()["token_type"], "Bearer");
        assert_eq!(answer.json()["resource"], "https://vault.azure.net");
    }
    let asked = world.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].parameter("api-version"), Some("2018-02-01"));
    assert_eq!(asked[0].header("metadata"), Some("true"));
    assert_eq!(asked[0].authorization, Authorization::Absent);
    for (name, _) in &asked[0].headers {
        assert!(!name.contains("forwarded"), "{name}");
    }
    assert_eq!(world.simulator().challenges(), 0);
    let upstream = world.status().await.upstream;
    assert_eq!(
        (upstream.kind.as_str(), upstream.reason.as_str()),
        ("imds", "by configuration")
    );
    assert_eq!(upstream.endpoint, world.simulator().endpoint());
}

#[tokio::test(flavor = "multi_thread")]
async fn u20_what_passes_is_tried_again_and_what_does_not_is_final() {
    let world = World::with(setup()).await;
    // Fault, attempts, the answer in the end.
    for (number, (fault, attempts, status)) in [
        ("first-status=404:1", 2, 200),
        ("first-status=404", 4, 503),
        ("first-status=500:1", 2, 200),
        ("first-status=503:2", 3, 200),
        ("first-status=502", 4, 503),
        ("first-close:1", 2, 200),
        ("first-status=400", 1, 400),
        ("first-status=401", 1, 403),
        ("first-status=403", 1, 403),
        ("first-status=405", 1, 400),
        ("first-status=421", 1, 400),
        ("first-status=302", 2, 502),
        ("redirect", 2, 502),
    ]
    .into_iter()
    .enumerate()
    {
        world.recover().await;
        world.simulator().clear_journal();
        world.fault(fault);
        let answer = world.token(&case(number)).await;
        world.simulator().clear_faults();
        let what = format!("{fault}: {answer:?}\n{:?}", world.asked());
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(
            answer.header("retry-after").is_some(),
            status == 503,
            "{what}"
        );
        assert_eq!(world.asked().len(), attempts, "{what}");
        for word in ["HIMDS", "himds", "azcmagent"] {
            assert!(!answer.body.contains(word), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u20_an_update_of_imds_is_waited_for() {
    let world = World::with(setup()).await;
    world.fault("first-status=410:1");
    let answer = world.token(VAULT).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let asked = world.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let apart = asked[1].time_ms - asked[0].time_ms;
    assert!(apart >= 8_000, "it was asked again after {apart} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn u20_i17_when_imds_throttles_nothing_is_asked_until_it_may_be() {
    let world = World::with(setup()).await;
    world.fault("throttle=3:1");
    let throttled = world.token(VAULT).await;
    assert_eq!(throttled.status, 503, "{throttled:?}");
    assert_eq!(throttled.header("retry-after"), Some("3"));
    // For no resource: the limit is the machine's.
    assert_eq!(world.token(STORAGE).await.status, 503);
    eventually("it is asked again", || async {
        world.token(VAULT).await.status == 200
    })
    .await;
    let asked = world.asked();
    assert!(asked[1].time_ms - asked[0].time_ms >= 3_000, "{asked:?}");
}

/// A caller who does as the answers say, until there is a token.
async fn insist(socket: PathBuf, resource: String) -> Answer {
    let target =
        format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}");
    loop {
        let answer = Connection::open(&socket).await.get(&target).await;
        if answer.status != 503 {
            return answer;
        }
        let seconds = answer.header("retry-after").unwrap().parse().unwrap();
        sleep(Duration::from_secs(seconds)).await;
    }
}

async fn insist_on(world: &World, cases: std::ops::Range<usize>) {
    let mut callers = JoinSet::new();
    for number in cases {
        callers.spawn(insist(world.token_socket(), case(number)));
    }
    let answers = tokio::time::timeout(2 * PATIENCE, callers.join_all()).await;
    for answer in answers.unwrap() {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The simulator has the documented limits, and answers 429 to the 21st in a second and to the
/// sixth at a time. The configuration of the tests would let 1000 through.
#[tokio::test(flavor = "multi_thread")]
async fn u21_two_hundred_resources_at_once_are_never_too_much_for_imds() {
    let world = World::with(setup()).await;
    assert!(
        world.daemon.log().contains("no more than 20 requests"),
        "{}",
        world.daemon.log()
    );
    // Slow enough that five at a time are less than twenty a second.
    world.fault("first-delay=400");
    insist_on(&world, 0..30).await;
    world.simulator().clear_faults();
    insist_on(&world, 30..200).await;

    let asked = world.asked();
    let refused: Vec<_> = asked
        .iter()
        .filter(|entry| entry.status != Some(200))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(asked.len(), 200);
    for second in asked.windows(21) {
        let apart = second[20].time_ms - second[0].time_ms;
        assert!(apart >= 1_000, "21 requests in {apart} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b25_each_identity_has_a_token_of_its_own_by_whatever_name() {
    let world = World::with(with_identities()).await;
    let Identity {
        client_id,
        object_id,
        resource_id,
    } = user();
    let arm_id = resource_id.replace('/', "%2F");
    let mut tokens = HashSet::new();
    // What a caller asks with, and what IMDS is asked with.
    for (selector, sent) in [
        (String::new(), None),
        (
            format!("&client_id={client_id}"),
            Some(("client_id", &client_id)),
        ),
        (
            format!("&object_id={object_id}"),
            Some(("object_id", &object_id)),
        ),
        (
            format!("&msi_res_id={arm_id}"),
            Some(("msi_res_id", &resource_id)),
        ),
    ] {
        let answer = world.token(&format!("{VAULT}{selector}")).await;
        assert_eq!(answer.status, 200, "{selector}: {answer:?}");
        tokens.insert(answer.json()["access_token"].to_string());
        let mut query = world.asked().pop().unwrap().query;
        query.retain(|(name, _)| name != "resource" && name != "api-version");
        let sent = sent.map(|(name, value)| (name.to_owned(), value.clone()));
        assert_eq!(query, sent.into_iter().collect::<Vec<_>>());
    }
    // The machine's own, and one for the three names: IMDS has a cache as well.
    assert_eq!(tokens.len(), 2);
    let translated = world.token(&format!("{VAULT}&mi_res_id={arm_id}")).await;
    assert!(tokens.contains(&translated.json()["access_token"].to_string()));
    assert_eq!(
        world.asked().len(),
        4,
        "by either name it is the same identity"
    );
    assert_eq!(world.status().await.tokens.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn u12_an_identity_is_confirmed_by_the_echo_or_by_the_token() {
    let world = World::with(with_identities()).await;
    let Identity {
        client_id,
        object_id,
        resource_id,
    } = user();
    let selectors = [
        format!("client_id={client_id}"),
        format!("object_id={object_id}"),
        format!("msi_res_id={}", resource_id.replace('/', "%2F")),
    ];
    let mut number = 0;
    for (faults, status) in [
        (&["no-echo"][..], 200),
        (&["no-echo", "other-identity"], 502),
        (&["other-echo"], 502),
        (&["other-echo="], 200),
    ] {
        for selector in &selectors {
            number += 1;
            for fault in faults {
                world.fault(fault);
            }
            let answer = world.token(&format!("{}&{selector}", case(number))).await;
            world.simulator().clear_faults();
            assert_eq!(answer.status, status, "{faults:?} {selector}: {answer:?}");
            if status == 502 {
                let failure = world.status().await.upstream.last_failure.unwrap();
                let expected = "IMDS: the answer does not confirm the identity that was asked for";
                assert_eq!(failure, expected, "{faults:?} {selector}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b28_an_identity_that_the_vm_does_not_have_is_a_wrong_request() {
    let world = World::with(with_identities()).await;
    for _ in 0..2 {
        let answer = world
            .token(&format!("{VAULT}&client_id={UNASSIGNED}"))
            .await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (400, "invalid_request")
        );
        assert!(answer.body.contains("Identity not found"), "{answer:?}");
    }
    assert_eq!(world.asked().len(), 1, "it is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn b26_b27_documents_come_from_imds() {
    let world = World::with(setup()).await;
    let instance = world.get("/metadata/instance?api-version=2021-02-01").await;
    let id = instance.json()["compute"]["resourceId"].to_string();
    assert!(id.contains("Microsoft.Compute/virtualMachines"), "{id}");
    let info = world
        .get("/metadata/identity/info?api-version=2018-02-01")
        .await;
    assert_eq!(
        info.json()["tenantId"],
        Machine::default().tenant_id.as_str()
    );
    let journal = world.simulator().journal();
    let asked = |path: &str| journal.iter().filter(|entry| entry.path == path).count();
    assert_eq!(asked("/metadata/instance"), 1);
    assert_eq!(asked("/metadata/identity/info"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn u22_without_imds_nobody_is_sent_to_the_azure_arc_agent() {
    let mut world = World::with(setup()).await;
    let before = world.token(VAULT).await.json()["access_token"].clone();
    world.stop_simulator().await;
    assert_eq!(world.token(VAULT).await.json()["access_token"], before);
    let none = world.token(STORAGE).await;
    assert_eq!(none.status, 503, "{none:?}");
    assert!(none.body.contains("IMDS does not answer"), "{none:?}");
    let said = none.body.clone() + &world.said().await;
    assert!(said.contains("IMDS: nobody listens on"), "{said}");
    for word in ["HIMDS", "himdsd", "azcmagent", "older than 1.66"] {
        assert!(!said.contains(word), "{word}: {said}");
    }
}
