//! Faults of the key file.

use std::{
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    time::Duration,
};

use himds_sim::Authorization;

use crate::{
    last,
    support::{World, eventually, mode},
};

#[tokio::test]
async fn h30_the_key_is_a_link_to_a_secret_or_to_the_good_file() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "top secret").unwrap();
    for fault in ["key-symlink", "key-hardlink"] {
        let world = World::faulty(&format!("{fault}={}", secret.path().display())).await;
        let answer = world.challenge().await;
        assert_eq!(answer.key(), "top secret");
        let metadata = answer.realm().symlink_metadata().unwrap();
        assert!(metadata.is_symlink() || metadata.nlink() == 2);
        assert_eq!(world.redeem(&answer.key()).await.status, 401);
        assert_eq!(last(&world).authorization, Authorization::Unknown);

        let world = World::faulty(fault).await;
        let answer = world.challenge().await;
        assert_eq!(world.key_files().len(), 2);
        assert_eq!(
            world.redeem(&answer.key()).await.status,
            200,
            "a client that follows it gets a token"
        );
        assert!(world.key_files().is_empty());
    }
    assert_eq!(
        std::fs::read_to_string(secret.path()).unwrap(),
        "top secret"
    );
}

#[tokio::test]
async fn h30_the_key_is_no_file() {
    type Is = fn(&std::fs::FileType) -> bool;
    let kinds: [(&str, Is); 3] = [
        ("key-fifo", |kind| kind.is_fifo()),
        ("key-socket", |kind| kind.is_socket()),
        ("key-directory", |kind| kind.is_dir()),
    ];
    for (fault, is_kind) in kinds {
        let world = World::faulty(fault).await;
        let path = world.challenge().await.realm();
        assert!(
            is_kind(&path.symlink_metadata().unwrap().file_type()),
            "{fault}"
        );
        let tokens = world.sim.tokens_dir().to_owned();
        world.sim.stop().await;
        assert_eq!(
            std::fs::read_dir(tokens).unwrap().count(),
            0,
            "{fault} is removed at the end"
        );
    }
}

#[tokio::test]
async fn h30_the_key_is_a_device_where_root_makes_one() {
    let world = World::faulty("key-device").await;
    let answer = world.challenge().await;
    if answer.status == 401 {
        assert!(
            answer
                .realm()
                .metadata()
                .unwrap()
                .file_type()
                .is_char_device()
        );
    } else {
        assert!(
            answer
                .text("error_description")
                .contains("cannot make the key file"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn h30_the_key_has_any_size() {
    for size in [1, 4096, 4097, 65_536] {
        let world = World::faulty(&format!("key-size={size}")).await;
        let key = world.challenge().await.key();
        assert_eq!(key.len(), size);
        assert_eq!(world.redeem(&key).await.status, 200, "{size}");
    }
    let world = World::faulty("key-size=1073741824").await;
    let metadata = world.challenge().await.realm().metadata().unwrap();
    assert_eq!(metadata.len(), 1 << 30);
    assert!(metadata.blocks() < 100, "it is a hole");
    let world = World::faulty("key-empty").await;
    assert!(world.challenge().await.key().is_empty());
}

#[tokio::test]
async fn the_key_has_bytes_that_do_not_belong_there() {
    let world = World::faulty("key-newline").await;
    let key = world.challenge().await.key();
    assert_eq!(
        world.redeem(key.strip_suffix('\n').unwrap()).await.status,
        200
    );

    let world = World::faulty("key-crlf").await;
    assert!(
        world
            .challenge()
            .await
            .key()
            .ends_with("\r\nX-Injected: yes")
    );

    let world = World::faulty("key-binary").await;
    let bytes = std::fs::read(world.challenge().await.realm()).unwrap();
    assert!(bytes.len() == 64 && bytes.iter().all(|byte| !byte.is_ascii()));
}

#[tokio::test]
async fn the_key_is_missing_late_removed_or_rotated() {
    let world = World::faulty("key-missing:1").await;
    assert!(!world.challenge().await.realm().exists());
    assert!(world.challenge().await.realm().exists());

    let world = World::faulty("key-late=20").await;
    let answer = world.challenge().await;
    eventually("the late key is there", || answer.realm().exists()).await;
    assert_eq!(world.redeem(&answer.key()).await.status, 200);

    let world = World::faulty("key-removed").await;
    let path = world.challenge().await.realm();
    eventually("the key is removed", || !path.exists()).await;

    let world = World::faulty("key-rotated:1").await;
    let key = world.challenge().await.key();
    let again = world.redeem(&key).await;
    assert_eq!(world.redeem(&again.key()).await.status, 200);
}

#[tokio::test]
async fn a_late_key_does_not_appear_after_the_end() {
    let world = World::faulty("key-late=30").await;
    let path = world.challenge().await.realm();
    world.sim.stop().await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn the_key_has_another_mode_or_owner() {
    for bits in ["0", "0666", "4640"] {
        let world = World::faulty(&format!("key-mode={bits}")).await;
        let path = world.challenge().await.realm();
        assert_eq!(mode(&path), u32::from_str_radix(bits, 8).unwrap());
    }
    // Root gives its files to anyone, nobody else gives any to root.
    let is_root = nix::unistd::geteuid().is_root();
    let world = World::faulty(if is_root {
        "key-owner=65534"
    } else {
        "key-owner=0"
    })
    .await;
    let answer = world.challenge().await;
    if is_root {
        assert_eq!(answer.realm().metadata().unwrap().uid(), 65_534);
    } else {
        assert!(
            answer
                .text("error_description")
                .contains("cannot give away the key file"),
            "{answer:?}"
        );
    }
    let world = World::faulty("key-owner=nobody knows").await;
    assert!(
        world
            .challenge()
            .await
            .text("error_description")
            .contains("there is no user `nobody knows`")
    );
}

#[tokio::test]
async fn the_same_key_comes_again() {
    let world = World::faulty("same-key").await;
    let first = world.challenge().await;
    let (path, key) = (first.realm(), first.key());
    assert_eq!(world.redeem(&key).await.status, 200);
    let second = world.challenge().await;
    assert_eq!((second.realm(), second.key()), (path, key.clone()));
    assert_eq!(world.redeem(&key).await.status, 200);
}

#[tokio::test]
async fn a_key_file_that_cannot_be_written_is_an_error_that_names_it() {
    let world = World::new().await;
    std::fs::remove_dir(world.sim.tokens_dir()).unwrap();
    let answer = world.challenge().await;
    assert_eq!(answer.status, 500);
    let description = answer.text("error_description");
    assert!(
        description.contains(&*world.sim.tokens_dir().to_string_lossy()),
        "{description}"
    );
}
