use tokio::time::{Instant, advance, timeout};

use super::*;

fn turns(conversations: usize, per_second: u32) -> Arc<Turns> {
    let start = Instant::now();
    let clock = Clock::from_fn(move || Now {
        wall: Duration::from_hours(500_000) + (Instant::now() - start),
        // Long after the boot.
        boot: Duration::from_hours(1) + (Instant::now() - start),
    });
    let options = Options {
        conversations,
        per_second,
    };
    Arc::new(Turns::new(options, clock, Chance::from_fn(|| 0.5)))
}

fn failure(class: Class) -> Result<(), FetchError> {
    Err(FetchError::new(class, "why"))
}

fn after(class: Class, seconds: u64) -> Result<(), FetchError> {
    Err(FetchError {
        retry_after: Some(Duration::from_secs(seconds)),
        ..FetchError::new(class, "why")
    })
}

async fn talk(turns: &Turns, result: &Result<(), FetchError>) {
    turns.enter(&Urgency::new(true)).await.unwrap().end(result);
}

/// Whether somebody who enters now has to wait.
async fn waits(turns: &Turns, urgency: &Urgency) -> bool {
    timeout(Duration::from_millis(1), turns.enter(urgency))
        .await
        .is_err()
}

#[tokio::test(start_paused = true)]
async fn i2_there_are_no_more_conversations_at_a_time_than_places() {
    let turns = turns(2, 1000);
    let urgent = Urgency::new(true);
    let first = turns.enter(&urgent).await.unwrap();
    let second = turns.enter(&urgent).await.unwrap();
    assert!(waits(&turns, &urgent).await);
    drop(first);
    assert!(!waits(&turns, &urgent).await);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn refreshes_leave_a_place_for_who_waits_unless_somebody_waits_for_them() {
    let turns = turns(2, 1000);
    let running = turns.enter(&Urgency::new(false)).await.unwrap();
    let queued = Urgency::new(false);
    assert!(waits(&turns, &queued).await);
    assert!(!waits(&turns, &Urgency::new(true)).await);
    queued.raise();
    assert!(!waits(&turns, &queued).await);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn i11_conversations_begin_no_faster_than_the_bucket_fills_whoever_asks() {
    let turns = turns(2, 5);
    let began = Instant::now();
    for number in 0..25 {
        let turn = turns.enter(&Urgency::new(number % 2 == 0)).await.unwrap();
        turn.end(&Ok(()));
    }
    let took = (Instant::now() - began).as_millis();
    assert!(
        (4_000..4_100).contains(&took),
        "{took} ms for 20 more than five"
    );
}

#[tokio::test(start_paused = true)]
async fn i17_a_retry_after_holds_for_everything_and_not_only_after_a_429() {
    for class in [Class::Throttled, Class::Server, Class::Upgrading] {
        let turns = turns(2, 1000);
        talk(&turns, &after(class, 30)).await;
        let refused = turns.enter(&Urgency::new(true)).await.unwrap_err();
        assert_eq!(refused.class, Class::Throttled);
        assert_eq!(
            refused.retry_after,
            Some(Duration::from_secs(30)),
            "{class:?}"
        );
        assert!(turns.admit_new().is_err());
        advance(Duration::from_secs(30)).await;
        assert!(turns.check().is_ok(), "{class:?}");
    }
    let turns = turns(2, 1000);
    talk(&turns, &after(Class::Permanent, 30)).await;
    assert!(turns.check().is_ok(), "that was about one request");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_for_what_is_wrong_with_upstream_and_for_nothing_else() {
    for (class, opens) in [
        (Class::Down, true),
        (Class::Broken, true),
        (Class::Server, true),
        (Class::Hostile, false),
        (Class::Challenge, false),
        (Class::Permanent, false),
        (Class::Garbage, false),
    ] {
        let turns = turns(2, 1000);
        for _ in 0..5 {
            talk(&turns, &failure(class)).await;
        }
        let refused = turns.check().err();
        assert_eq!(refused.is_some(), opens, "{class:?}");
        assert!(refused.is_none_or(|error| error.class == class && error.retry_after.is_some()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_ends_without_a_word_is_no_success() {
    let turns = turns(2, 1000);
    for _ in 0..5 {
        talk(&turns, &failure(Class::Down)).await;
    }
    advance(Duration::from_secs(1)).await;
    drop(turns.enter(&Urgency::new(true)).await.unwrap());
    assert_eq!(turns.view().shut_for, Some(Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn while_the_machine_boots_the_breaker_stays_closed() {
    let clock = Clock::from_fn(|| Now {
        wall: Duration::from_hours(500_000),
        boot: Duration::from_secs(20),
    });
    let options = Options {
        conversations: 2,
        per_second: 1000,
    };
    let turns = Turns::new(options, clock, Chance::from_fn(|| 0.5));
    for _ in 0..100 {
        talk(&turns, &failure(Class::Down)).await;
    }
    assert!(turns.check().is_ok() && turns.is_booting());
    talk(&turns, &Ok(())).await;
    assert!(!turns.is_booting());
    for _ in 0..5 {
        talk(&turns, &failure(Class::Down)).await;
    }
    assert!(turns.check().is_err(), "it had been up");
}

#[tokio::test(start_paused = true)]
async fn new_resources_have_a_bucket_of_their_own_and_do_not_wait() {
    let turns = turns(2, 5);
    for _ in 0..5 {
        assert!(turns.admit_new().is_ok());
    }
    let surplus = turns.admit_new().unwrap_err();
    assert_eq!(surplus.class, Class::Busy);
    assert_eq!(surplus.retry_after, Some(Duration::from_millis(200)));
    assert!(!waits(&turns, &Urgency::new(true)).await);
}
