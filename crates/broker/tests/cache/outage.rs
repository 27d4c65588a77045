//! Upstream is away: nothing is taken before its time, and nothing is hammered.

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn b16_b18_an_outage_takes_no_token_away_before_its_time() {
    let world = World::new();
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.script(Script::Fail(Class::Down));
    world.pass(54 * MINUTE).await;
    let during = Instant::now();
    assert_eq!(world.number().await, "1");
    assert_eq!(Instant::now(), during, "and nobody waits for it");
    world.pass(4 * MINUTE).await;
    assert_eq!(world.number().await, "1", "until a minute is left");
    world.pass(2 * MINUTE).await;
    assert_eq!(world.token().await.unwrap_err().class, Class::Down);
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.pass(Duration::from_secs(40)).await;
    assert_eq!(
        world.token().await.unwrap().from,
        From::Cache,
        "I14: back within 40 s, without a request"
    );
}

#[tokio::test(start_paused = true)]
async fn i14_after_an_outage_every_wanted_token_is_fresh_within_40_seconds_and_a_sweep() {
    let world = World::new();
    world.script(Script::Give {
        life: 10 * HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.script(Script::Fail(Class::Server));
    world.pass(7 * HOUR).await;
    let before = world.asked();
    world.script(Script::Give {
        life: 10 * HOUR,
        after: Duration::ZERO,
    });
    world.pass(Duration::from_secs(90)).await;
    assert_eq!(world.asked(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_does_not_make_the_broker_hammer_upstream() {
    let world = World::new();
    world.script(Script::Give {
        life: 4 * HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.pass(3 * HOUR).await;
    let before = world.asked();
    world.script(Script::Fail(Class::Hostile));
    let mut left = 600;
    while left > 0 {
        world.token().await.unwrap();
        advance(Duration::from_secs(1)).await;
        settle().await;
        left -= 1;
    }
    let calls = world.asked() - before;
    assert!(
        calls <= 30,
        "{calls} calls in 10 minutes with a request each second"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_lost_in_an_outage_comes_back_without_a_request() {
    let world = World::new();
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.script(Script::Fail(Class::Down));
    world.pass(2 * HOUR).await;
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.pass(MINUTE).await;
    assert_eq!(world.token().await.unwrap().from, From::Cache);
}

#[tokio::test(start_paused = true)]
async fn a_failure_from_the_start_is_not_tried_again_without_a_request() {
    let world = World::new();
    world.script(Script::Fail(Class::Permanent));
    world.token().await.unwrap_err();
    world.pass(10 * MINUTE).await;
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_the_breaker_open_who_has_nothing_is_refused_at_once_and_who_has_a_token_gets_it() {
    let world = World::new();
    world.token().await.unwrap();
    world.script(Script::Fail(Class::Broken));
    let other = |number: usize| world.grant(&format!("https://r{number}"));
    for number in 0..3 {
        let grant = other(number);
        let answer = world.cache.token(&grant, Wish::default()).await;
        assert!(answer.is_err());
    }
    let (before, began) = (world.asked(), Instant::now());
    let refused = world
        .cache
        .token(&other(7), Wish::default())
        .await
        .unwrap_err();
    assert_eq!((refused.class, Instant::now()), (Class::Broken, began));
    assert!(refused.retry_after.unwrap() <= Duration::from_secs(36));
    assert_eq!(world.asked(), before);
    assert_eq!(world.token().await.unwrap().from, From::Cache);
}

#[tokio::test(start_paused = true)]
async fn i15_while_the_breaker_is_open_a_crowd_of_keys_costs_one_attempt_in_each_period() {
    let world = World::unburdened(Options::default());
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    for number in 0..50 {
        let grant = world.grant(&format!("https://r{number}"));
        world.cache.token(&grant, Wish::default()).await.unwrap();
    }
    world.script(Script::Fail(Class::Broken));
    world.pass(40 * MINUTE).await;
    let before = world.asked();
    world.pass(10 * MINUTE).await;
    let attempts = world.asked() - before;
    assert!((16..=25).contains(&attempts), "{attempts} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn i14_after_an_outage_everything_is_fresh_within_40_seconds_without_a_sweep() {
    let world = World::unburdened(Options::default());
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    for number in 0..20 {
        let grant = world.grant(&format!("https://r{number}"));
        world.cache.token(&grant, Wish::default()).await.unwrap();
    }
    world.script(Script::Fail(Class::Down));
    world.pass(70 * MINUTE).await;
    assert!(
        world
            .cache
            .reports()
            .iter()
            .all(|report| report.view.token.is_none())
    );
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    sleep(Duration::from_secs(40)).await;
    assert!(
        world
            .cache
            .reports()
            .iter()
            .all(|report| report.view.token.is_some())
    );
}

#[tokio::test(start_paused = true)]
async fn where_little_is_left_and_upstream_fails_the_old_token_is_served_as_stale() {
    let world = World::new();
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.script(Script::Fail(Class::Server));
    advance(56 * MINUTE).await;
    let acquired = world.token().await.unwrap();
    assert_eq!(acquired.from, From::Stale);
}
