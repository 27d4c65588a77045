//! What short names of resources stand for: that depends on the cloud of the machine, which only
//! upstream knows.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_client::wire::Health;
use arcbroker_e2e::{Setup, World, eventually};
use himds_sim::Options;
use nix::sys::signal::{Signal, kill};
use nix::unistd::geteuid;

const PUBLIC: &str = "https%3A%2F%2Fvault.azure.net";
const US: &str = "https%3A%2F%2Fvault.usgovcloudapi.net";
const CHINA: &str = "https%3A%2F%2Fvault.azure.cn";
const GRAPH: &str = "https%3A%2F%2Fgraph.microsoft.us%2F";

fn us_government(options: &mut Options) {
    options.machine.az_environment = "AzureUSGovernmentCloud".into();
}

/// A machine of the US Government whose instance metadata cannot be had.
fn us_government_untold(options: &mut Options) {
    us_government(options);
    options.faults.push("instance-status=500".parse().unwrap());
}

fn policy(resources: &str) -> String {
    let uid = geteuid();
    format!("version = 1\n[[rule]]\nname = \"test\"\nuser = {uid}\nresources = [{resources}]\n")
}

/// Key Vault is allowed, by its short name.
fn setup(simulator: fn(&mut Options)) -> Setup {
    Setup {
        policy: policy("\"keyvault\""),
        simulator,
        ..Setup::default()
    }
}

async fn until_known(world: &World) -> String {
    eventually("the cloud is known", || async {
        world.status().await.upstream.cloud.is_some()
    })
    .await;
    world.status().await.upstream.cloud.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_cloud_of_the_us_government_keyvault_is_its_own() {
    for imds in [false, true] {
        let world = World::with(if imds {
            Setup {
                kind: "imds",
                ..setup(|options| {
                    us_government(options);
                    options.imds = true;
                })
            }
        } else {
            setup(us_government)
        })
        .await;
        assert_eq!(until_known(&world).await, "AzureUSGovernmentCloud");
        assert!(world.daemon.log().contains("AzureUSGovernmentCloud"));
        for resource in ["keyvault", US] {
            let answer = world.token(resource).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json()["resource"], "https://vault.usgovcloudapi.net");
        }
        for resource in [PUBLIC, CHINA] {
            let answer = world.token(resource).await;
            assert_eq!(
                (answer.status, answer.error().as_str()),
                (403, "access_denied")
            );
        }
        assert_eq!(
            world.asked().last().unwrap().parameter("resource"),
            Some("https://vault.usgovcloudapi.net")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cloud_is_not_known_nothing_is_refused_that_it_may_allow() {
    let world = World::with(setup(us_government_untold)).await;
    for resource in [US, CHINA] {
        let answer = world.token(resource).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (503, "service_unavailable"),
            "{answer:?}"
        );
        assert_eq!(answer.header("retry-after"), Some("2"));
        assert!(answer.body.contains("cloud"), "{answer:?}");
        assert!(answer.body.contains("HIMDS has not told"), "{answer:?}");
    }
    let record = world.audit().pop().unwrap();
    assert_eq!(record["outcome"], "unavailable");
    assert_eq!(record["rule"], serde_json::Value::Null);
    assert!(world.asked().is_empty(), "no token is asked for");
    // What no cloud would allow is refused, and the names of the public cloud stand in.
    assert_eq!(world.token(GRAPH).await.status, 403);
    assert_eq!(world.token(PUBLIC).await.status, 200);
    assert_eq!(world.status().await.upstream.cloud, None);

    world.simulator().clear_faults();
    eventually("the cloud is told when it matters", || async {
        world.token(US).await.status == 200
    })
    .await;
    let denied = world.token(CHINA).await;
    assert_eq!(
        (denied.status, denied.error().as_str()),
        (403, "access_denied")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_name_waits_until_upstream_has_said_where_the_machine_is() {
    let world = World::with(setup(|options| {
        us_government(options);
        // Long enough to be waited for, and far from the two seconds after which it is not any more.
        options.faults.push("instance-delay=300:1".parse().unwrap());
    }))
    .await;
    let answer = world.token("keyvault").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["resource"], "https://vault.usgovcloudapi.net");
    let asked = world.asked();
    assert_eq!(
        asked.len(),
        2,
        "one conversation, for the right one: {asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_cloud_needs_no_word_of_upstream() {
    let world = World::with(Setup {
        config: vec![("upstream", "cloud = \"AzureChinaCloud\"".to_owned())],
        ..setup(us_government_untold)
    })
    .await;
    assert_eq!(
        world.status().await.upstream.cloud.as_deref(),
        Some("AzureChinaCloud")
    );
    assert_eq!(world.token(CHINA).await.status, 200);
    assert_eq!(world.token(US).await.status, 403);
    assert_eq!(
        world.token("keyvault").await.json()["resource"],
        "https://vault.azure.cn"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cloud_without_short_names_those_of_the_public_one_stand_in_with_a_warning() {
    let world = World::with(setup(|options| {
        options.machine.az_environment = "AzureGermanCloud".into();
    }))
    .await;
    assert_eq!(until_known(&world).await, "AzurePublicCloud");
    let status = world.status().await;
    let warnings = status.policy.warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("`AzureGermanCloud`"),
        "{warnings:?}"
    );
    assert_eq!(status.health, Health::Healthy);
    assert!(world.daemon.log().contains("`AzureGermanCloud`"));
    assert_eq!(world.token("keyvault").await.status, 200);
    assert_eq!(world.token(US).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_no_use_in_the_cloud_leaves_the_old_one_loudly() {
    let world = World::held_with(Setup {
        policy: policy("\"keyvault\", \"eventhubs\""),
        ..setup(us_government)
    })
    .await;
    assert_eq!(until_known(&world).await, "AzureUSGovernmentCloud");
    let status = world.status().await;
    assert_eq!(status.health, Health::Degraded);
    let error = status.policy.reload_error.unwrap();
    assert!(
        error.contains("AzureUSGovernmentCloud") && error.contains("`eventhubs` is not known"),
        "{error}"
    );
    assert!(world.daemon.log().contains("`eventhubs` is not known"));
    assert_eq!(world.token(PUBLIC).await.status, 200);
    assert_eq!(world.token(US).await.status, 403);

    // The next daemon knows the cloud from the start, and serves all the same.
    world.replace_daemon(Signal::SIGTERM).await;
    let status = world.status().await;
    assert_eq!(
        (status.health, status.upstream.cloud.as_deref()),
        (Health::Degraded, Some("AzureUSGovernmentCloud"))
    );
    assert_eq!(status.policy.reload_error.as_deref(), Some(&*error));
    assert_eq!(world.token(PUBLIC).await.status, 200);
    assert_eq!(world.token(US).await.status, 403);

    world.write_policy(&policy("\"keyvault\""));
    kill(world.daemon_pid().await, Signal::SIGHUP).unwrap();
    eventually("the new policy is in force", || async {
        world.token(US).await.status == 200
    })
    .await;
    assert_eq!(world.status().await.policy.reload_error, None);
}
