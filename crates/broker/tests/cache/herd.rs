//! Many at once: one fetch for each key, and bounds on everything.

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn i1_all_who_ask_at_once_share_one_fetch_and_one_token() {
    let world = Arc::new(World::new());
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(3),
    });
    let answers = ask_together(&world, 1000).await;
    let digests: std::collections::HashSet<_> = answers
        .iter()
        .map(|answer| Arc::clone(answer.as_ref().unwrap().token.digest_text()))
        .collect();
    assert_eq!((digests.len(), world.asked()), (1, 1));
    assert_eq!(world.token().await.unwrap().from, From::Cache);
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn b15_all_who_wait_for_a_failure_get_it_and_it_is_remembered() {
    let world = Arc::new(World::new());
    world.script(Script::Fail(Class::Permanent));
    for answer in ask_together(&world, 100).await {
        assert_eq!(answer.unwrap_err().class, Class::Permanent);
    }
    assert_eq!(world.asked(), 1);
    advance(Duration::from_secs(50)).await;
    assert!(world.token().await.is_err());
    assert_eq!(world.asked(), 1, "remembered for a minute");
    advance(Duration::from_secs(20)).await;
    world.script(Script::Give {
        life: DAY,
        after: Duration::ZERO,
    });
    assert!(world.token().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn i10_clients_that_go_away_change_nothing_for_others() {
    let world = Arc::new(World::new());
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(5),
    });
    let leaders: Vec<_> = (0..1000)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.token().await })
        })
        .collect();
    settle().await;
    let last = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.token().await }
    });
    settle().await;
    leaders.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(last.await.unwrap().is_ok());
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn i2_a_slot_that_is_evicted_while_it_is_fetched_is_not_fetched_twice() {
    let world = Arc::new(World::unburdened(Options {
        slots: 2,
        ..Options::default()
    }));
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(10),
    });
    let first = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.token().await }
    });
    settle().await;
    let others: Vec<_> = (0..10)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                world
                    .cache
                    .token(&world.grant(&format!("https://r{number}")), Wish::default())
                    .await
            })
        })
        .collect();
    settle().await;
    let again = world.token().await.unwrap();
    assert_eq!(
        again.token.digest(),
        first.await.unwrap().unwrap().token.digest()
    );
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(world.source.asked.lock().unwrap()[VAULT], 1);
}

#[tokio::test(start_paused = true)]
async fn i20_the_number_of_slots_is_bounded() {
    let world = World::unburdened(Options {
        slots: 8,
        ..Options::default()
    });
    for number in 0..100 {
        world
            .cache
            .token(&world.grant(&format!("https://r{number}")), Wish::default())
            .await
            .unwrap();
        assert!(world.cache.reports().len() <= 8);
    }
    let before = world.asked();
    world
        .cache
        .token(&world.grant("https://r99"), Wish::default())
        .await
        .unwrap();
    assert_eq!(world.asked(), before, "the one used last is still there");
}

#[tokio::test(start_paused = true)]
async fn i11_made_up_resources_cost_upstream_five_calls_a_second_and_push_nothing_out() {
    let world = World::new();
    world.token().await.unwrap();
    let mut refused = 0;
    for number in 0..1000 {
        let grant = world.grant(&format!("https://r{number}"));
        if let Err(error) = world.cache.token(&grant, Wish::default()).await {
            assert_eq!(error.class, Class::Busy);
            assert!(error.retry_after.unwrap() <= Duration::from_secs(1));
            refused += 1;
        }
        advance(Duration::from_millis(10)).await;
    }
    assert_eq!(refused, 1000 - (4 + 49));
    assert_eq!(world.asked(), 1000 - refused + 1);
    assert_eq!(
        world.cache.reports().len(),
        world.asked(),
        "a slot for each that was fetched"
    );
    assert_eq!(world.token().await.unwrap().from, From::Cache);
}

#[tokio::test(start_paused = true)]
async fn b13_two_spellings_of_a_resource_are_two_tokens() {
    let world = World::new();
    for resource in [VAULT, "https://vault.azure.net/", VAULT] {
        assert!(
            world
                .cache
                .token(&world.grant(resource), Wish::default())
                .await
                .is_ok()
        );
    }
    assert_eq!(world.source.asked.lock().unwrap().len(), 2);
    assert_eq!(world.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_1024_wait_for_one_key_and_the_others_are_told_so() {
    let world = Arc::new(World::new());
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(3),
    });
    let answers = ask_together(&world, 1100).await;
    let refused: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert_eq!(refused.len(), 1100 - 1024);
    assert!(
        refused
            .iter()
            .all(|error| error.class == Class::Busy && error.retry_after.is_some())
    );
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_comes_before_refreshes_that_nobody_waits_for() {
    let world = World::under(
        turns::Options {
            conversations: 2,
            per_second: 1000,
        },
        Options::default(),
    );
    for number in 0..100 {
        let grant = world.grant(&format!("https://r{number}"));
        world.cache.token(&grant, Wish::default()).await.unwrap();
    }
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(2),
    });
    assert_eq!(world.cache.refresh(None), 100);
    settle().await;
    let began = Instant::now();
    world.token().await.unwrap();
    assert_eq!(
        (Instant::now() - began).as_secs(),
        2,
        "it found a place free"
    );
    assert_eq!(world.source.most_running.load(Ordering::SeqCst), 2);
}
