//! What the daemon has shut itself out of must never be what it needs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use arcbroker_e2e::{World, eventually, is_root};
use nix::sys::signal::Signal;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";

/// Puts another directory in the place of this one, with the same owner and permissions.
fn replace(dir: &Path) {
    let before = fs::metadata(dir).unwrap();
    fs::rename(dir, dir.with_extension("old")).unwrap();
    fs::create_dir(dir).unwrap();
    if is_root() {
        chown(dir, Some(before.uid()), Some(before.gid())).unwrap();
    }
    fs::set_permissions(dir, Permissions::from_mode(before.mode())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t41_a_directory_of_keys_that_was_replaced_is_read() {
    let world = World::start().await;
    assert!(world.daemon.log().contains("confined by Landlock: "));
    assert_eq!(world.token(VAULT).await.status, 200);
    replace(&world.path("tokens"));
    let answer = world.token(STORAGE).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_rules_that_was_replaced_is_read() {
    let world = World::start().await;
    let hash = world.status().await.policy.hash;
    replace(&world.path("policy.d"));
    world.write_policy(&World::anything());
    world.daemon.signal(Signal::SIGHUP);
    eventually("the new rules are in force", || async {
        world.status().await.policy.hash != hash
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_left_out_and_that_is_said() {
    let mut world = World::start().await;
    world
        .reconfigure("[limits]\n", "[sandbox]\nlandlock = false\n[limits]\n")
        .await;
    assert_eq!(world.token(VAULT).await.status, 200);
    assert!(world.daemon.log().contains("[sandbox] landlock is off"));
}
