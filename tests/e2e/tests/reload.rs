//! Policies that are replaced while requests are under way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use arcbroker_e2e::{Setup, User, World, eventually};
use nix::sys::signal::Signal;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const TOKEN: &str =
    "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net";

fn policy(uid: u32, resource: &str) -> String {
    format!(
        "version = 1\n[[rule]]\nname = \"{resource}\"\nuser = {uid}\nresources = \"{resource}\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn t37_a_rule_that_is_gone_gives_nothing_to_any_request_from_then_on() {
    let uid = User::current().uid;
    let with = policy(uid, "keyvault");
    let without = policy(uid, "arm");
    let world = World::with(Setup {
        policy: with.clone(),
        ..Setup::default()
    })
    .await;
    let mut kept = world.connect().await;
    for (policy, status) in [(&without, 403), (&with, 200), (&without, 403)] {
        let before = world.status().await.policy.loaded_at;
        let hash = world.status().await.policy.hash;
        world.write_policy(policy);
        world.daemon.signal(Signal::SIGHUP);
        eventually("the policy is in force", || async {
            world.status().await.policy.hash != hash
        })
        .await;
        assert!(world.status().await.policy.loaded_at >= before);
        for _ in 0..10 {
            assert_eq!(
                kept.get(TOKEN).await.status,
                status,
                "the token is in the cache all the while"
            );
            assert_eq!(world.token(VAULT).await.status, status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t37_reloads_under_load_fail_no_request() {
    let uid = User::current().uid;
    let rule = |number: u32| {
        let rule = policy(uid, "keyvault");
        format!("{rule}# {number}\n")
    };
    let world = World::with(Setup {
        policy: rule(0),
        ..Setup::default()
    })
    .await;
    let load = async {
        let mut kept = world.connect().await;
        for _ in 0..2000 {
            assert_eq!(kept.get(TOKEN).await.status, 200);
        }
    };
    let reloads = async {
        for number in 1..=1000 {
            // Half of them are broken, and change nothing.
            let text = if number % 2 == 0 {
                rule(number)
            } else {
                "nonsense".to_owned()
            };
            world.write_policy(&text);
            world.daemon.signal(Signal::SIGHUP);
            tokio::task::yield_now().await;
            assert_eq!(world.token(VAULT).await.status, 200);
        }
    };
    tokio::join!(load, reloads);
    eventually("the last reload is done", || async {
        world.daemon.signal(Signal::SIGHUP);
        world.status().await.policy.reload_error.is_none()
    })
    .await;
}
