//! Tokens outlive the daemon.

use crate::support::*;

const STORAGE: &str = "https://storage.azure.com";

#[tokio::test(start_paused = true)]
async fn the_next_daemon_answers_from_its_cache_and_asks_nobody() {
    let world = World::new();
    let first = world.token().await.unwrap();
    advance(HOUR).await;
    let (next, restored) = world.restart();
    assert_eq!(restored, 1);
    let again = next.token().await.unwrap();
    assert_eq!(again.from, From::Cache);
    assert_eq!(again.token.digest(), first.token.digest());
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kept_token_is_refreshed_when_it_would_have_been() {
    let world = World::new();
    world.token().await.unwrap();
    let (next, _) = world.restart();
    advance(10 * HOUR).await;
    next.cache.sweep();
    settle().await;
    assert_eq!(world.asked(), 1, "half of its life is not over");
    advance(4 * HOUR).await;
    next.cache.sweep();
    settle().await;
    assert_eq!(world.asked(), 2);
    let (third, _) = next.restart();
    let token = third.token().await.unwrap().token;
    assert_eq!(token.digest(), next.token().await.unwrap().token.digest());
    assert_eq!(world.held(), 1, "the former one is let go");
}

#[tokio::test(start_paused = true)]
async fn what_ended_meanwhile_is_fetched_anew_without_a_request() {
    let world = World::new();
    world.token().await.unwrap();
    advance(23 * HOUR + 30 * MINUTE).await;
    let (next, restored) = world.restart();
    assert_eq!(restored, 1);
    advance(HOUR).await;
    let (late, restored) = next.restart();
    assert_eq!(restored, 0);
    assert!(late.token().await.unwrap().from == From::Fetch);
}

#[tokio::test(start_paused = true)]
async fn what_was_flushed_is_not_there_for_the_next_daemon_either() {
    let world = World::new();
    world.token().await.unwrap();
    world.cache.flush(None);
    let (next, restored) = world.restart();
    assert_eq!(restored, 0);
    next.cache.sweep();
    settle().await;
    assert_eq!(world.asked(), 2, "it is still wanted");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_held_as_there_are_slots() {
    let world = World::unburdened(Options {
        slots: 4,
        ..Options::default()
    });
    for number in 0..12 {
        let grant = world.grant(&format!("https://r{number}.example"));
        world.cache.token(&grant, Wish::default()).await.unwrap();
    }
    assert_eq!(world.held(), 4);
    let (next, restored) = world.restart();
    assert_eq!((restored, next.held()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn i31_tokens_of_a_former_identity_are_not_taken_over() {
    let world = World::new();
    world.token().await.unwrap();
    advance(MINUTE).await;
    *world.source.principal.lock().unwrap() = "another";
    // It did not live to see that the other one is of no use any more.
    let killed = world.unaware();
    let storage = world.grant(STORAGE);
    killed.cache.token(&storage, Wish::default()).await.unwrap();
    assert_eq!(world.held(), 2);
    let (next, restored) = killed.restart();
    assert_eq!(restored, 1);
    let kept = next.cache.token(&storage, Wish::default()).await.unwrap();
    assert_eq!(kept.from, From::Cache);
    let acquired = next.token().await.unwrap();
    assert_eq!(acquired.from, From::Fetch);
    assert_eq!(acquired.token.claims().oid.as_deref(), Some("another"));
}
