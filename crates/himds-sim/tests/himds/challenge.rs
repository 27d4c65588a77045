//! H01 to H13 and H28: what a token request must have, and the challenge.

use std::{collections::HashSet, sync::Arc, time::Duration};

use himds_sim::{Authorization, HandClock};
use tokio::task::JoinSet;

use crate::{
    START, assert_lists_versions,
    support::{METADATA, TOKEN, VAULT, World, eventually, mode, request, token_target},
};

#[tokio::test]
async fn h01_a_token_request_without_a_key_is_challenged() {
    let world = World::new().await;
    let answer = world.challenge().await;
    assert_eq!(answer.status, 401);
    let challenges: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "Www-Authenticate")
        .collect();
    assert_eq!(challenges.len(), 1, "{answer:?}");
    assert_eq!(
        answer
            .header("www-authenticate")
            .unwrap()
            .matches('=')
            .count(),
        1
    );
    assert_eq!(answer.header("retry-after"), None);

    let path = answer.realm();
    assert_eq!(path.parent().unwrap(), world.dir.path().join("tokens"));
    let name = path
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .strip_suffix(".key")
        .unwrap();
    let shape: Vec<usize> = name.split('-').map(str::len).collect();
    assert_eq!(shape, [8, 4, 4, 4, 12]);
    assert!(
        name.bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    );
    let key = answer.key();
    assert!((1..=4096).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(mode(&path), 0o640);
}

#[tokio::test]
async fn h02_the_key_is_exchanged_for_a_token() {
    let world = World::new().await;
    let answer = world.token().await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.fields(),
        [
            "access_token",
            "refresh_token",
            "expires_in",
            "expires_on",
            "not_before",
            "resource",
            "token_type"
        ]
    );
    assert!(
        answer
            .json()
            .as_object()
            .unwrap()
            .values()
            .all(serde_json::Value::is_string)
    );
    assert_eq!(
        answer.header("content-type").unwrap(),
        "application/json; charset=utf-8"
    );
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(
        (answer.text("refresh_token"), answer.text("token_type")),
        (String::new(), "Bearer".to_owned())
    );
    assert_eq!(answer.text("resource"), VAULT);
    let number = |field| answer.text(field).parse::<u64>().unwrap();
    assert_eq!(number("expires_on") - number("not_before"), 86_700);
}

#[tokio::test]
async fn h03_two_challenges_have_two_keys_and_both_are_good() {
    let world = World::new().await;
    let (first, second) = (world.challenge().await, world.challenge().await);
    assert_ne!(first.realm(), second.realm());
    let (first, second) = (first.key(), second.key());
    assert_ne!(first, second);
    assert_eq!(world.redeem(&second).await.status, 200);
    assert_eq!(world.redeem(&first).await.status, 200);
}

#[tokio::test]
async fn h04_a_key_is_accepted_once_and_its_file_is_gone() {
    let world = World::new().await;
    let challenge = world.challenge().await;
    let key = challenge.key();
    assert_eq!(world.redeem(&key).await.status, 200);
    assert!(!challenge.realm().exists());
    let again = world.redeem(&key).await;
    assert_eq!(again.status, 401);
    assert!(again.realm().exists());
    assert_eq!(world.redeem(&again.key()).await.status, 200);
}

#[tokio::test]
async fn h05_a_wrong_key_is_challenged() {
    let world = World::new().await;
    let key = world.challenge().await.key();
    for wrong in [
        "Basic wrong".to_owned(),
        format!("Bearer {key}"),
        format!("Basic {key}x"),
        format!("basic  {key}"),
        "Basic".to_owned(),
        String::new(),
    ] {
        let headers = [METADATA, ("Authorization", wrong.as_str())];
        let answer = world.get(&token_target(""), &headers).await;
        assert!(answer.realm().exists(), "{wrong}: {answer:?}");
    }
    assert_eq!(
        world.redeem(&key).await.status,
        200,
        "the good key was not used up"
    );
}

#[tokio::test]
async fn h06_a_key_that_is_too_old_is_refused_and_its_file_is_gone() {
    let clock = HandClock::at(START);
    let world = World::with(|options| options.clock = clock.clock()).await;
    let (young, old) = (world.challenge().await, world.challenge().await);
    let (young_key, old_key) = (young.key(), old.key());
    clock.advance(Duration::from_secs(59));
    assert_eq!(world.redeem(&young_key).await.status, 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(world.redeem(&old_key).await.status, 401);
    assert!(!old.realm().exists());
    let worth: Vec<_> = world
        .sim
        .journal()
        .iter()
        .map(|entry| entry.authorization)
        .collect();
    assert_eq!(worth[2], Authorization::Matched);
    // The sweep may have come first, and then nothing is known of it any more.
    assert!(matches!(
        worth[3],
        Authorization::Expired | Authorization::Unknown
    ));
}

#[tokio::test]
async fn h06_a_key_that_nobody_uses_is_removed() {
    let clock = HandClock::at(START);
    let world = World::with(|options| options.clock = clock.clock()).await;
    let path = world.challenge().await.realm();
    clock.advance(Duration::from_mins(1));
    eventually("the key file is removed", || !path.exists()).await;
}

#[tokio::test]
async fn h07_without_the_metadata_header_nothing_is_challenged() {
    let world = World::new().await;
    for headers in [
        &[][..],
        &[("Metadata", "false")],
        &[("Metadata", "")],
        &[("X-Metadata", "true")],
    ] {
        let answer = world.get(&token_target(""), headers).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.text("error"), "invalid_request");
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert!(world.key_files().is_empty());
}

#[tokio::test]
async fn h08_the_metadata_header_may_be_written_in_lower_case() {
    let world = World::new().await;
    let answer = world.get(&token_target(""), &[("metadata", "true")]).await;
    assert!(answer.realm().exists());
}

#[tokio::test]
async fn h09_without_an_api_version_the_answer_lists_those_that_there_are() {
    let world = World::new().await;
    assert_lists_versions(
        &world
            .get(&format!("{TOKEN}?resource={VAULT}"), &[METADATA])
            .await,
    );
}

#[tokio::test]
async fn h10_the_api_version_of_imds_is_refused() {
    let world = World::new().await;
    let target = format!("{TOKEN}?api-version=2018-02-01&resource={VAULT}");
    assert_lists_versions(&world.get(&target, &[METADATA]).await);
    assert!(world.key_files().is_empty());
}

#[tokio::test]
async fn h11_every_api_version_of_himds_is_challenged() {
    let world = World::new().await;
    for version in ["2019-08-15", "2019-11-01", "2020-06-01", "2021-02-01"] {
        let target = format!("{TOKEN}?api-version={version}&resource={VAULT}");
        assert!(
            world.get(&target, &[METADATA]).await.realm().exists(),
            "{version}"
        );
    }
}

#[tokio::test]
async fn h12_without_a_resource_the_request_is_invalid() {
    let world = World::new().await;
    for target in [
        format!("{TOKEN}?api-version=2020-06-01"),
        format!("{TOKEN}?api-version=2020-06-01&resource="),
    ] {
        let answer = world.get(&target, &[METADATA]).await;
        assert_eq!(
            (answer.status, answer.text("error").as_str()),
            (400, "invalid_request")
        );
    }
}

#[tokio::test]
async fn h13_only_get_is_allowed() {
    let world = World::new().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = request(world.sim.address(), method, &token_target(""), &[METADATA])
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.header("allow").as_deref()),
            (405, Some("GET")),
            "{method}"
        );
    }
    assert!(world.key_files().is_empty());
}

async fn fifty_pairs_at_once() {
    let world = Arc::new(World::new().await);
    let mut pairs = JoinSet::new();
    for _ in 0..50 {
        let world = Arc::clone(&world);
        pairs.spawn(async move {
            let challenge = world.challenge().await;
            let answer = world.redeem(&challenge.key()).await;
            assert_eq!(answer.status, 200);
            (challenge.realm(), answer.text("access_token"))
        });
    }
    let results = pairs.join_all().await;
    let files: HashSet<_> = results.iter().map(|(file, _)| file).collect();
    let tokens: HashSet<_> = results.iter().map(|(_, token)| token).collect();
    assert_eq!((files.len(), tokens.len()), (50, 1));
    assert_eq!(
        (
            world.sim.challenges(),
            world.sim.tokens(),
            world.sim.token_requests()
        ),
        (50, 50, 100)
    );
    assert!(world.key_files().is_empty());
}

#[tokio::test]
async fn h28_fifty_pairs_at_once_do_not_mix_up_their_keys() {
    fifty_pairs_at_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn h28_nor_do_they_on_several_threads() {
    fifty_pairs_at_once().await;
}
