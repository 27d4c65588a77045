use arcbroker_client::Secret;
use arcbroker_policy::{Cloud, Resource};

use super::*;
use crate::token::{Class, Issue};

const DAY: u64 = 86_400;
const PATIENCE: Duration = Duration::from_secs(20);

fn at(seconds: u64) -> Now {
    Now {
        wall: Duration::from_secs(1_000_000 + seconds),
        boot: Duration::from_secs(seconds),
    }
}

fn token(name: &str, received: u64, expires: u64) -> AccessToken {
    let issue = Issue {
        access_token: Secret::from(name.to_owned()),
        expires_on: 1_000_000 + expires,
        expires_in: None,
        not_before: String::new(),
        client_id: None,
    };
    let resource = Resource::parse("https://vault.azure.net", Cloud::Public).unwrap();
    AccessToken::new(&issue, &resource, at(received)).unwrap()
}

fn with_token(received: u64, expires: u64) -> Slot {
    let mut slot = Slot::default();
    land(
        &mut slot,
        Ok(token("first", received, expires)),
        at(received),
        1.0,
    );
    slot
}

fn land(slot: &mut Slot, result: Result<AccessToken, FetchError>, now: Now, jitter: f64) {
    let errand = slot.errand(now);
    slot.land(errand, result, now, jitter);
}

fn failure(class: Class) -> Result<AccessToken, FetchError> {
    Err(FetchError::new(class, "no"))
}

#[test]
fn an_empty_slot_waits_for_a_fetch() {
    assert!(matches!(
        Slot::default().plan(at(0), false, PATIENCE, Wish::default()),
        Plan::Wait(PATIENCE)
    ));
}

#[test]
fn a_token_is_served_alone_until_half_of_its_life_and_refreshed_behind_the_answer_after() {
    let mut slot = with_token(0, DAY);
    assert!(matches!(
        slot.plan(at(DAY / 2 - 1), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(DAY / 2), false, PATIENCE, Wish::default()),
        Plan::ServeAndRefresh(_)
    ));
    assert!(matches!(
        slot.plan(at(DAY / 2), true, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
}

#[test]
fn jitter_moves_the_refresh_by_a_tenth_of_the_half_life() {
    for (jitter, first_due) in [(0.9, 45 * DAY / 100), (1.1, 55 * DAY / 100)] {
        let mut slot = Slot::default();
        land(&mut slot, Ok(token("t", 0, DAY)), at(0), jitter);
        assert!(!slot.is_due(at(first_due - 2), Duration::MAX), "{jitter}");
        assert!(slot.is_due(at(first_due + 2), Duration::MAX), "{jitter}");
    }
}

#[test]
fn below_the_soft_floor_a_request_waits_but_never_past_the_hard_floor() {
    let mut slot = with_token(0, DAY);
    assert!(matches!(
        slot.plan(at(DAY - 299), false, PATIENCE, Wish::default()),
        Plan::Wait(PATIENCE)
    ));
    let Plan::Wait(most) = slot.plan(at(DAY - 65), true, PATIENCE, Wish::default()) else {
        panic!("waits")
    };
    assert_eq!(most, Duration::from_secs(5));
}

#[test]
fn below_the_hard_floor_there_is_no_token() {
    let mut slot = with_token(0, DAY);
    assert!(slot.token(at(DAY - 60)).is_some());
    assert!(slot.token(at(DAY - 59)).is_none());
    assert!(matches!(
        slot.plan(at(DAY - 59), false, PATIENCE, Wish::default()),
        Plan::Wait(PATIENCE)
    ));
}

#[test]
fn a_failed_refresh_takes_nothing_away_and_delays_the_next() {
    let mut slot = with_token(0, DAY);
    land(&mut slot, failure(Class::Server), at(DAY / 2), 1.0);
    assert!(matches!(
        slot.plan(at(DAY / 2 + 1), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(DAY / 2 + 2), false, PATIENCE, Wish::default()),
        Plan::ServeAndRefresh(_)
    ));
}

#[test]
fn the_gap_between_refreshes_doubles_up_to_half_a_minute() {
    let mut slot = with_token(0, DAY);
    let mut now = DAY / 2;
    for gap in [1, 2, 4, 8, 16, 30, 30] {
        land(&mut slot, failure(Class::Down), at(now), 1.0);
        assert!(!slot.is_due(at(now + gap - 1), Duration::MAX), "{gap}");
        now += gap;
        assert!(slot.is_due(at(now), Duration::MAX), "{gap}");
    }
}

#[test]
fn a_failure_is_repeated_until_its_time_is_over() {
    for (class, seconds) in [(Class::Down, 1), (Class::Server, 2), (Class::Permanent, 60)] {
        let mut slot = Slot::default();
        land(&mut slot, failure(class), at(100), 1.0);
        let Plan::Refuse(error) = slot.plan(at(100), false, PATIENCE, Wish::default()) else {
            panic!("{class:?}")
        };
        assert_eq!(error.retry_after, Some(Duration::from_secs(seconds)));
        assert!(
            matches!(
                slot.plan(at(100 + seconds), false, PATIENCE, Wish::default()),
                Plan::Wait(_)
            ),
            "{class:?}"
        );
    }
}

#[test]
fn upstream_is_left_alone_for_as_long_as_it_asks() {
    let mut slot = Slot::default();
    let error = FetchError {
        retry_after: Some(Duration::from_secs(77)),
        ..FetchError::new(Class::Throttled, "")
    };
    land(&mut slot, Err(error), at(0), 1.0);
    assert!(matches!(
        slot.plan(at(76), false, PATIENCE, Wish::default()),
        Plan::Refuse(_)
    ));
    assert!(matches!(
        slot.plan(at(77), false, PATIENCE, Wish::default()),
        Plan::Wait(_)
    ));
}

#[test]
fn the_same_token_again_does_not_loop() {
    let mut slot = with_token(0, 900);
    land(&mut slot, Ok(token("again", 500, 903)), at(500), 1.0);
    assert!(matches!(
        slot.plan(at(699), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(700), false, PATIENCE, Wish::default()),
        Plan::Wait(_)
    ));
}

#[test]
fn a_token_that_ends_sooner_does_not_replace_one_that_ends_later() {
    let mut slot = with_token(0, DAY);
    land(&mut slot, Ok(token("worse", 10, 3600)), at(10), 1.0);
    assert_eq!(slot.token(at(10)).unwrap().expires_on(), 1_000_000 + DAY);
    land(&mut slot, Ok(token("better", 20, 2 * DAY)), at(20), 1.0);
    assert_eq!(
        slot.token(at(20)).unwrap().expires_on(),
        1_000_000 + 2 * DAY
    );
}

#[test]
fn a_token_that_is_short_from_the_start_is_served_until_half_of_it_is_gone() {
    let mut slot = with_token(0, 240);
    assert!(matches!(
        slot.plan(at(100), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(130), false, PATIENCE, Wish::default()),
        Plan::Wait(_)
    ));
}

#[test]
fn b17_a_short_token_is_replaced_as_soon_as_it_is_below_the_floor() {
    let mut slot = with_token(0, 310);
    assert!(matches!(
        slot.plan(at(9), false, PATIENCE, Wish::default()),
        Plan::Serve(_)
    ));
    assert!(matches!(
        slot.plan(at(11), false, PATIENCE, Wish::default()),
        Plan::Wait(_)
    ));
}

#[test]
fn only_what_was_asked_for_lately_is_refreshed() {
    let mut slot = with_token(0, 3 * DAY);
    slot.plan(at(0), false, PATIENCE, Wish::default());
    let due = 3 * DAY / 2;
    assert!(slot.is_due(at(due), Duration::from_secs(due)));
    assert!(!slot.is_due(at(due), Duration::from_secs(due - 1)));
}
