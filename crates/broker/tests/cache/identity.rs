//! The machine becomes somebody else.

use crate::support::*;

const STORAGE: &str = "https://storage.azure.com";

#[tokio::test(start_paused = true)]
async fn i31_once_a_token_of_another_identity_is_seen_no_earlier_one_is_served() {
    let world = World::new();
    let storage = world.grant(STORAGE);
    world.token().await.unwrap();
    world.cache.token(&storage, Wish::default()).await.unwrap();
    *world.source.principal.lock().unwrap() = "another";
    world.cache.refresh(Some(storage.resource()));
    settle().await;
    let acquired = world.token().await.unwrap();
    assert_eq!(acquired.from, From::Fetch, "what was kept is gone");
    assert_eq!(acquired.token.claims().oid.as_deref(), Some("another"));
    let acquired = world.cache.token(&storage, Wish::default()).await.unwrap();
    assert_eq!(acquired.from, From::Cache, "the one that told is kept");
    assert_eq!(acquired.token.claims().oid.as_deref(), Some("another"));
}

#[tokio::test(start_paused = true)]
async fn i31_what_was_under_way_when_the_identity_changed_is_fetched_again() {
    let world = Arc::new(World::new());
    world.token().await.unwrap();
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(5),
    });
    let late = tokio::spawn({
        let world = Arc::clone(&world);
        async move {
            let grant = world.grant(STORAGE);
            world.cache.token(&grant, Wish::default()).await
        }
    });
    settle().await;
    *world.source.principal.lock().unwrap() = "another";
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(1),
    });
    world.cache.refresh(Some(world.grant(VAULT).resource()));
    let acquired = late.await.unwrap().unwrap();
    assert_eq!(acquired.token.claims().oid.as_deref(), Some("another"));
    assert_eq!(world.source.asked.lock().unwrap()[STORAGE], 2);
}
