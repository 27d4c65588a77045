//! A token from its first day to its last minute.

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_token_is_refreshed_at_half_of_its_life_and_nobody_waits() {
    let world = World::new();
    assert_eq!(world.number().await, "1");
    world.pass(10 * HOUR).await;
    assert_eq!(world.asked(), 1);
    world.pass(4 * HOUR).await;
    assert_eq!(world.asked(), 2, "by the sweep, without a request");
    let acquired = world.token().await.unwrap();
    assert_eq!(acquired.from, From::Cache);
    assert_eq!(world.number().await, "2");
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_nobody_wants_any_more_is_left_to_expire() {
    let world = World::new();
    world.script(Script::Give {
        life: 30 * HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.pass(200 * HOUR).await;
    assert_eq!(
        world.asked(),
        2,
        "once within the day after the request, and then no more"
    );
}

#[tokio::test(start_paused = true)]
async fn b17_with_little_left_a_request_waits_for_a_better_token() {
    let world = World::with(Options {
        interest: Duration::ZERO,
        ..Options::default()
    });
    world.script(Script::Give {
        life: HOUR,
        after: Duration::from_secs(2),
    });
    assert_eq!(world.number().await, "1");
    advance(56 * MINUTE).await;
    let before = Instant::now();
    assert_eq!(world.number().await, "2");
    assert_eq!(Instant::now() - before, Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn with_little_left_and_a_slow_upstream_there_is_the_old_token_in_time() {
    let world = World::with(Options {
        interest: Duration::ZERO,
        ..Options::default()
    });
    world.script(Script::Give {
        life: HOUR,
        after: Duration::ZERO,
    });
    world.token().await.unwrap();
    world.script(Script::Give {
        life: HOUR,
        after: Duration::from_secs(50),
    });
    advance(58 * MINUTE + Duration::from_secs(45)).await;
    let before = Instant::now();
    assert_eq!(world.number().await, "1");
    assert_eq!(
        (Instant::now() - before).as_secs(),
        15,
        "a minute before its end it is too late"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_no_longer_than_its_patience() {
    let world = World::new();
    world.script(Script::Give {
        life: DAY,
        after: Duration::from_secs(45),
    });
    let before = Instant::now();
    assert_eq!(world.token().await.unwrap_err().class, Class::Deadline);
    assert_eq!((Instant::now() - before).as_secs(), 20);
    advance(Duration::from_secs(30)).await;
    settle().await;
    assert_eq!(
        world.token().await.unwrap().from,
        From::Cache,
        "the fetch went on without it"
    );
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_tried_for_two_seconds() {
    let world = World::new();
    world.script(Script::Fail(Class::Down));
    let before = Instant::now();
    assert_eq!(world.token().await.unwrap_err().class, Class::Down);
    let waited = (Instant::now() - before).as_millis();
    assert!((1_300..=2_100).contains(&waited), "{waited} ms");
    assert_eq!(world.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_fetch_is_a_failure_and_not_the_end() {
    let world = World::new();
    world.script(Script::Panic);
    assert_eq!(world.token().await.unwrap_err().class, Class::Broken);
    world.script(Script::Give {
        life: DAY,
        after: Duration::ZERO,
    });
    advance(Duration::from_secs(3)).await;
    assert!(world.token().await.is_ok());
}
